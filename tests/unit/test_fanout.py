"""Many agents asked at once: order, errors, cancelling, tasks and context variables of their own."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import anyio
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import (
    Agent,
    ArgumentError,
    FanoutError,
    FanoutPipeline,
    GossamerError,
    Message,
    PipelineError,
    RunContext,
    Session,
    ToolCall,
    fanout_pipeline,
    tool,
)
from gossamer.models import ScriptedModel

mark: ContextVar[str] = ContextVar("mark", default="caller's")


def saying(text: str, name: str = "agent", **more) -> Agent:
    return Agent(ScriptedModel(lambda request: text), name=name, **more)


def calling(function, name: str = "agent", **more) -> Agent:
    """An agent whose model calls a function, sync or async, and says what it gives."""

    def reply(request):
        return function()

    return Agent(ScriptedModel(reply), name=name, **more)


class Gate:
    """Agents that wait for one another, so that they must run at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside = 0
        self.most = 0
        self.open = asyncio.Event()
        self.cleaned: list[str] = []

    def agent(self, name: str) -> Agent:
        async def wait() -> str:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == self.size:
                self.open.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.cleaned.append(name)
                raise
            finally:
                self.inside -= 1
            return name

        return calling(wait, name)


# --- results --------------------------------------------------------------------------------------------------------


async def test_all_run_at_once_and_results_are_in_their_order():
    gate = Gate(3)
    writer, critic, editor = (gate.agent(name) for name in ("writer", "critic", "editor"))
    results = await fanout_pipeline(agents=[writer, critic, editor], enable_gather=True)
    assert [result.output for result in results] == ["writer", "critic", "editor"]
    assert [result.agent for result in results] == ["writer", "critic", "editor"]
    assert gate.most == 3


async def test_plain_gather_of_agents_runs_them_at_once():
    gate = Gate(3)
    writer, critic, editor = (gate.agent(name) for name in ("writer", "critic", "editor"))
    results = await asyncio.gather(writer(), critic(), editor())
    assert [result.output for result in results] == ["writer", "critic", "editor"]
    assert gate.most == 3


async def test_without_a_prompt_they_start_from_their_instructions():
    agent = Agent(ScriptedModel(lambda request: f"{request.instructions} {len(request.messages)}"), "Sing.")
    assert [result.output for result in await fanout_pipeline([agent, agent])] == ["Sing. 0", "Sing. 0"]


async def test_all_are_asked_the_same():
    message = Message.user("hello", author="host")
    agents = [Agent(ScriptedModel(["one"])), Agent(ScriptedModel(["two"]))]
    await fanout_pipeline(agents, message)
    assert [agent.model.requests[0].messages[0] for agent in agents] == [message, message]


async def test_one_agent_may_be_there_more_than_once():
    agent = Agent(ScriptedModel(["one", "two", "three"]))
    assert [result.output for result in await fanout_pipeline([agent] * 3, "x")] == ["one", "two", "three"]


@pytest.mark.parametrize("enable_gather", [True, False])
async def test_no_agents_give_no_results(enable_gather):
    assert await fanout_pipeline([], "x", enable_gather) == []


async def test_deps_and_user_reach_all_of_them():
    seen = []

    @tool(inline=True)
    def look(context: RunContext) -> str:
        """Look."""
        seen.append((context.deps, context.user))
        return "seen"

    agent = Agent(
        ScriptedModel(lambda r: ToolCall.of("look") if len(r.messages) == 1 else "done"), tools=[look]
    )
    await fanout_pipeline([agent, agent], "x", deps="deps", user="ann")
    await FanoutPipeline([agent], enable_gather=False).run("x", deps="deps", user="ann")
    assert seen == [("deps", "ann")] * 3


async def test_one_after_another_without_gather():
    log = []

    def agent(name):
        async def work():
            log.append(f"{name} begins")
            await asyncio.sleep(0)
            log.append(f"{name} ends")
            return name

        return calling(work, name)

    results = await fanout_pipeline([agent("a"), agent("b")], "x", enable_gather=False)
    assert [result.output for result in results] == ["a", "b"]
    assert log == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_pipeline_is_a_value_that_can_be_called_again_and_again():
    pipeline = FanoutPipeline([saying("one"), saying("two")])
    for _ in range(2):
        assert [result.output for result in await pipeline("x")] == ["one", "two"]
    assert [result.output for result in await pipeline.run("x")] == ["one", "two"]


async def test_ten_thousand_agents():
    agents = [saying("same")] * 9_999 + [calling(lambda: asyncio.sleep(0, "late"))] + [saying("same")] * 10
    results = await fanout_pipeline(agents, "x")
    assert len(results) == 10_010
    assert {result.output for result in results[:9_999]} == {"same"}
    assert [result.output for result in results[9_999:10_001]] == ["late", "same"]
    assert len({result.run_id for result in results}) == 10_010


async def test_ten_thousand_that_wait():
    gate = Gate(10_000)
    results = await fanout_pipeline([gate.agent("one")] * 10_000, "x")
    assert len(results) == gate.most == 10_000


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_no_more_than_so_many_run_at_once_and_no_more_tasks_are_made(most):
    inside, seen, tasks = 0, [], []

    async def work():
        nonlocal inside
        inside += 1
        seen.append(inside)
        tasks.append(len(asyncio.all_tasks()))
        for _ in range(3):
            await asyncio.sleep(0)
        inside -= 1
        return "done"

    results = await fanout_pipeline([calling(work)] * 1_000, "x", max_concurrency=most)
    assert len(results) == 1_000
    assert max(seen) == most
    assert max(tasks) <= most + 1


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_an_error_cancels_the_others_and_waits_for_their_cleaning_up():
    gate = Gate(3)
    failing = calling(lambda: ValueError("no ink"), "critic")
    agents = [saying("done", "writer"), gate.agent("slow"), failing, gate.agent("never begun")]
    with pytest.raises(
        FanoutError, match=r"'critic', number 2 of 4 agents, failed: ValueError: no ink"
    ) as caught:
        await fanout_pipeline(agents, "x")
    error = caught.value
    assert [None if result is None else result.output for result in error.results] == [
        "done",
        None,
        None,
        None,
    ]
    assert list(error.errors) == [2]
    assert error.__cause__ is error.errors[2]
    assert isinstance(error.__cause__, ValueError)
    assert set(gate.cleaned) <= {"slow", "never begun"}
    assert "slow" in gate.cleaned
    assert gate.inside == 0
    assert isinstance(error, PipelineError)


async def test_an_error_of_one_that_waited_cancels_those_that_wait():
    gate = Gate(5)

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("too late")

    with pytest.raises(FanoutError, match="too late") as caught:
        await fanout_pipeline([gate.agent("a"), calling(fail, "b"), gate.agent("c")], "x")
    assert sorted(gate.cleaned) == ["a", "c"]
    assert list(caught.value.errors) == [1]


async def test_nothing_begins_after_an_error():
    begun = []
    failing = calling(lambda: ValueError("no"))
    agents = [failing, *[calling(lambda: begun.append(1) or "x")] * 5]
    with pytest.raises(FanoutError):
        await fanout_pipeline(agents, "x")
    assert begun == []


@pytest.mark.parametrize("enable_gather", [True, False])
async def test_collected_errors_stand_in_the_place_of_results(enable_gather):
    failing = calling(lambda: ValueError("no"))
    outcomes = await fanout_pipeline(
        [saying("one"), failing, saying("three"), failing], "x", enable_gather, on_error="collect"
    )
    assert [outcomes[0].output, outcomes[2].output] == ["one", "three"]
    assert [type(outcomes[1]), type(outcomes[3])] == [ValueError, ValueError]


async def test_without_gather_the_first_error_ends_it():
    begun = []
    agents = [saying("one"), calling(lambda: ValueError("no"), "b"), calling(lambda: begun.append(1) or "x")]
    with pytest.raises(FanoutError, match="'b', number 1 of 3") as caught:
        await fanout_pipeline(agents, "x", enable_gather=False)
    assert caught.value.results[0].output == "one"
    assert caught.value.results[1:] == [None, None]
    assert begun == []


async def test_a_run_that_is_cancelled_from_within_fails_alone():
    async def give_up():
        raise asyncio.CancelledError("from within")

    outcomes = await fanout_pipeline([calling(give_up), saying("two")], "x", on_error="collect")
    assert isinstance(outcomes[0], GossamerError)
    assert "cancelled from within: from within" in str(outcomes[0])
    assert outcomes[1].output == "two"


async def test_a_branch_that_cancels_its_own_task_does_not_cancel_the_next_one():
    async def cancel_myself():
        asyncio.current_task().cancel()
        return "one"

    async def wait():
        await asyncio.sleep(0)
        return "two"

    outcomes = await fanout_pipeline([calling(cancel_myself), calling(wait), saying("three")], "x")
    assert [outcome.output for outcome in outcomes] == ["one", "two", "three"]


async def test_what_is_no_exception_comes_out_as_it_is():
    class Stop(BaseException):
        pass

    def stop():
        raise Stop

    gate = Gate(2)
    with pytest.raises(Stop):
        await fanout_pipeline([gate.agent("a"), calling(stop)], "x", on_error="collect")
    assert gate.cleaned == ["a"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("agents",), "a fan-out takes a list of agents, not str"),
        (([saying("x"), 7],), "a fan-out is made of agents, not of int"),
        (([saying("x")], ""), 'prompt is ""'),
        (([saying("x")], "x", True, 0), "max_concurrency must be 1 or more"),
        (([saying("x")], "x", True, None, "ignore"), "on_error must be 'raise' or 'collect', not 'ignore'"),
    ],
)
async def test_wrong_arguments(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        await fanout_pipeline(*arguments)


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_cancelled_it_cancels_all_and_waits_until_they_have_cleaned_up():
    gate = Gate(4)
    work = asyncio.ensure_future(fanout_pipeline([gate.agent("a"), gate.agent("b"), gate.agent("c")], "x"))
    while gate.inside < 3:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert sorted(gate.cleaned) == ["a", "b", "c"]
    assert gate.inside == 0


async def test_cancelled_twice_it_still_waits():
    gate = Gate(3)
    work = asyncio.ensure_future(fanout_pipeline([gate.agent("a"), gate.agent("b")], "x"))
    while gate.inside < 2:
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert sorted(gate.cleaned) == ["a", "b"]


async def test_a_timeout_around_it_cancels_all():
    gate = Gate(3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await fanout_pipeline([gate.agent("a"), gate.agent("b")], "x")
    assert sorted(gate.cleaned) == ["a", "b"]


async def test_sessions_are_free_after_cancelling():
    gate = Gate(3)
    session = Session()

    class Held:
        name = "held"

        def run(self, prompt=None, *, session=None, deps=None, user=None):
            return gate.agent("a").run(prompt, session=held)

    held = session
    work = asyncio.ensure_future(fanout_pipeline([Held(), gate.agent("b")], "x"))
    while gate.inside < 2:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert session.holding.holder is None
    assert session.unfinished is None


# --- tasks and context variables ------------------------------------------------------------------------------------


async def test_every_branch_has_one_task_from_its_first_step_on():
    seen: list[set] = []

    def agent(waits: int) -> Agent:
        tasks: set = set()
        seen.append(tasks)

        async def work():
            tasks.add(asyncio.current_task())
            for _ in range(waits):
                await asyncio.sleep(0)
                tasks.add(asyncio.current_task())
            return "done"

        return calling(work)

    await fanout_pipeline([agent(waits) for waits in (0, 0, 2, 0, 3, 1, 0)], "x")
    assert [len(tasks) for tasks in seen] == [1] * 7
    assert asyncio.current_task() not in set().union(*seen)
    waiting = [next(iter(seen[place])) for place in (2, 4, 5)]
    assert len(set(waiting)) == 3


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_timeouts_and_scopes_of_tools_and_models_bind_to_their_branch(place):
    never = asyncio.Event()

    @tool(timeout=0.01)
    async def hang() -> str:
        """Hang."""
        await never.wait()
        return "?"

    @tool
    async def scoped() -> str:
        """Wait in a scope."""
        with anyio.move_on_after(0.01) as scope:
            await never.wait()
        return f"cancelled: {scope.cancelled_caught}"

    async def timed():
        try:
            async with asyncio.timeout(0.01):
                await never.wait()
        except TimeoutError:
            return "timed out"

    def tooled(name: str) -> Agent:
        def reply(request):
            return ToolCall.of(name) if len(request.messages) == 1 else request.messages[-1].parts[0].text

        return Agent(ScriptedModel(reply), tools=[hang, scoped])

    agents = [tooled("hang"), tooled("scoped"), calling(timed)]
    agents = [*agents[place:], *agents[:place]]
    outputs = {result.output for result in await fanout_pipeline([saying("first"), *agents], "x")}
    assert outputs == {
        "first",
        "hang did not finish within 0.01 seconds and was stopped.",
        "cancelled: True",
        "timed out",
    }


async def test_context_variables_of_a_branch_stay_there():
    seen = []

    def agent(name: str, waits: int) -> Agent:
        async def work():
            before = mark.get()
            mark.set(name)
            for _ in range(waits):
                await asyncio.sleep(0)
            seen.append((before, mark.get()))
            return name

        return calling(work)

    mark.set("mine")
    names = [("a", 0), ("b", 0), ("c", 2), ("d", 0), ("e", 1)]
    await fanout_pipeline([agent(*name) for name in names], "x")
    assert sorted(seen) == [("mine", name) for name, _ in names]
    assert mark.get() == "mine"


async def test_inside_a_tool_the_runs_are_children_of_the_call():
    inner = [saying("one"), saying("two")]

    @tool
    async def ask_all() -> str:
        """Ask all."""
        return " ".join(result.output for result in await fanout_pipeline(inner, "x"))

    outer = Agent(
        ScriptedModel(
            lambda r: ToolCall.of("ask_all") if len(r.messages) == 1 else r.messages[-1].parts[0].text
        ),
        tools=[ask_all],
    )
    result = await outer.run("x")
    assert result.output == "one two"
    assert result.usage.model_calls == 4


# --- any mixture ----------------------------------------------------------------------------------------------------

BRANCHES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@given(
    branches=BRANCHES,
    most=st.none() | st.integers(1, 4),
    collect=st.booleans(),
    cancel_at=st.none() | st.integers(0, 8),
)
@settings(deadline=None, max_examples=150)
def test_any_mixture_keeps_its_promises(loop, branches, most, collect, cancel_at):
    live, most_live, tasks = 0, 0, {}

    def agent(place: int, waits: int, fails: bool) -> Agent:
        async def work():
            nonlocal live, most_live
            assert mark.get() == "mine"
            mark.set(str(place))
            live += 1
            most_live = max(most_live, live)
            tasks[place] = {asyncio.current_task()}
            try:
                for _ in range(waits):
                    await asyncio.sleep(0)
                    tasks[place].add(asyncio.current_task())
                    assert mark.get() == str(place)
            finally:
                live -= 1
            if fails:
                raise ValueError(place)
            return str(place)

        return calling(work)

    async def main():
        mark.set("mine")
        agents = [agent(place, *one) for place, one in enumerate(branches)]
        on_error = "collect" if collect else "raise"
        work = asyncio.ensure_future(fanout_pipeline(agents, "x", max_concurrency=most, on_error=on_error))
        if cancel_at is not None:
            for _ in range(cancel_at):
                await asyncio.sleep(0)
            work.cancel()
        await asyncio.wait([work])
        assert live == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if work.cancelled():
            assert cancel_at is not None
            return
        failing = [place for place, (_, fails) in enumerate(branches) if fails]
        error = work.exception()
        if error is not None:
            assert isinstance(error, FanoutError)
            assert not collect
            assert set(error.errors) <= set(failing)
            for place, result in enumerate(error.results):
                assert result is None or (result.output == str(place) and place not in failing)
            return
        assert collect or not failing
        for place, outcome in enumerate(work.result()):
            if place in failing:
                assert outcome.args == (place,)
            else:
                assert outcome.output == str(place)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert most_live <= (most or len(branches))
    assert all(len(seen) == 1 for seen in tasks.values())
