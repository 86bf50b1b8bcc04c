"""Workflows through their public face: what each kind of step does, in a run and in a stream, well and badly."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    Condition,
    GossamerError,
    LimitError,
    Limits,
    Loop,
    Map,
    Parallel,
    Retry,
    Router,
    RunContext,
    Session,
    Step,
    StepContext,
    ToolCall,
    Workflow,
    WorkflowError,
    tool,
)
from gossamer.errors import (
    LoopLimitError,
    MergeConflictError,
    RouteError,
    StepFailedError,
    StepInputError,
    StepOutputError,
    StepTimeoutError,
    WorkflowCycleError,
)
from gossamer.events import (
    InnerEvent,
    RunFailed,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
)
from gossamer.flow import add_up, join_lists, take_last
from gossamer.models import ScriptedModel
from gossamer.records import RunFailedRecord


class Order(msgspec.Struct):
    amount: int


class Quote(msgspec.Struct):
    amount: int


async def add_one(value: int) -> int:
    return value + 1


def double(value: int) -> int:
    return 2 * value


async def fails(value):
    raise KeyError("lost")


NO_WAIT = Retry(3, first_wait=0)


# --- what steps do ------------------------------------------------------------------------------------------


async def test_each_step_takes_what_the_one_before_gives():
    workflow = Workflow("w", [add_one, double, Step(lambda value: value - 3, name="less"), str])
    result = await workflow.run(4)
    assert result.output == "7"
    assert result.finish_reason == "stop"
    assert result.agent == "w"
    assert (await workflow(4)).output == "7"
    assert workflow.run_sync(4).output == "7"
    assert result.session is None


async def test_values_pass_as_they_are_without_a_session():
    thing = object()
    result = await Workflow("w", [Step(lambda value: value, name="same"), Parallel({"a": lambda v: v})]).run(
        thing
    )
    assert result.output["a"] is thing


async def test_parallel_branches_run_at_the_same_time_and_give_a_dict():
    met = asyncio.Barrier(3)

    async def meet(value):
        await met.wait()
        return value

    workflow = Workflow("w", [Parallel({"a": meet, "b": [meet, add_one], "c": Loop(meet, max_iterations=1)})])
    result = await workflow.run(1)
    assert result.output == {"a": 1, "b": 2, "c": 1}
    assert list(result.output) == ["a", "b", "c"]


async def test_at_most_so_many_branches_run_at_once():
    now = most = 0

    async def work(value):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return value

    result = await Workflow("w", [Map(work, max_concurrency=3)]).run(list(range(20)))
    assert result.output == list(range(20))
    assert most == 3
    most = 0
    steps = {f"b{n}": work for n in range(5)}
    await Workflow("w", [Parallel(steps, max_concurrency=2)]).run(1)
    assert most == 2


async def test_parallel_makes_a_typed_output():
    class Both(msgspec.Struct):
        one: int
        two: str

    workflow = Workflow("w", [Parallel({"one": add_one, "two": Step(str)}, output=Both)])
    assert (await workflow.run(1)).output == Both(2, "1")


async def test_condition_takes_one_of_two_ways():
    workflow = Workflow(
        "w", [Condition(lambda value: value > 10, double, [add_one, Step(add_one, name="again")])]
    )
    assert (await workflow.run(11)).output == 22
    assert (await workflow.run(1)).output == 3
    assert (await Workflow("w", [Condition(lambda value: value > 10, double)]).run(1)).output == 1


async def test_loop_runs_until_its_condition_says_so():
    workflow = Workflow("w", [Loop(double, until=lambda value: value > 100, max_iterations=20)])
    result = await workflow.run(1)
    assert result.output == 128
    assert result.steps["loop/double"].runs == 7
    assert (await Workflow("w", [Loop(add_one, max_iterations=5)]).run(0)).output == 5


async def test_router_takes_the_branch_that_is_named():
    workflow = Workflow(
        "w",
        [
            Router(
                lambda value: "big" if value > 10 else "small",
                {"big": double, "small": [add_one]},
                default=str,
            )
        ],
    )
    assert (await workflow.run(11)).output == 22
    assert (await workflow.run(1)).output == 2
    by_default = Workflow("w", [Router(lambda value: "?", {"a": double}, default=Step(str))])
    assert (await by_default.run(1)).output == "1"


async def test_map_works_on_each_item():
    assert (await Workflow("w", [Map(double)]).run([1, 2, 3])).output == [2, 4, 6]
    assert (await Workflow("w", [Map([add_one, double])]).run((1, 2))).output == [4, 6]
    assert (await Workflow("w", [Map(double)]).run([])).output == []


async def test_steps_nest():
    inner = Workflow("inner", [Map(Condition(lambda value: value % 2 == 0, double, add_one))])
    workflow = Workflow("w", [Parallel({"a": inner, "b": Map(Loop(double, max_iterations=3))}), Step(str)])
    assert (await workflow.run([1, 2, 3])).output == str({"a": [2, 4, 4], "b": [8, 16, 24]})


async def test_sync_functions_run_in_a_thread_and_inline_ones_do_not():
    here = threading.get_ident()
    where = Step(lambda value: threading.get_ident(), name="where")
    assert (await Workflow("w", [where]).run(1)).output != here
    assert (await Workflow("w", [msgspec.structs.replace(where, inline=True)]).run(1)).output == here


async def test_a_step_sees_its_context():
    seen = []

    async def look(value: int, context: StepContext, run: RunContext) -> int:
        seen.append(
            (context.place, context.attempt, context.deps, context.user, context.run is run, context.key)
        )
        assert run.call.id == context.place
        return value

    workflow = Workflow("w", [Map(look, name="each", max_concurrency=1)])
    result = await workflow.run([1, 2], deps="deps", user="ada")
    assert [one[:5] for one in seen] == [
        ("each[0]/look", 1, "deps", "ada", True),
        ("each[1]/look", 1, "deps", "ada", True),
    ]
    assert seen[0][5] == f"{result.run_id}/each[0]/look"


# --- agents -------------------------------------------------------------------------------------------------


async def test_agents_are_steps_and_their_usage_counts():
    draft = Agent(ScriptedModel(["draft"]), name="draft")
    review = Agent(ScriptedModel(["reviewed"]), name="review")
    session = Session()
    result = await Workflow("w", [draft, review]).run("Write.", session=session)
    assert result.output == "reviewed"
    assert result.usage.model_calls == 2
    inner = session.child("review", result.run_id)
    assert inner.messages[0].text == "draft"
    started = inner.journal[0]
    assert (started.parent, started.call) == (result.run_id, "review")
    assert session.usage.model_calls == 2


async def test_an_agent_called_by_a_function_finds_the_workflow_around_it():
    agent = Agent(ScriptedModel(["inside"]), name="aide")

    async def ask(value: str) -> str:
        session = Session()
        answer = (await agent.run(value, session=session)).output
        assert session.journal[0].call == "ask"
        return answer

    result = await Workflow("w", [ask]).run("hi")
    assert result.output == "inside"
    assert result.usage.model_calls == 1


async def test_a_workflow_is_a_tool_of_an_agent():
    async def shout(text: str) -> str:
        return text.upper()

    asked = Workflow("shouting", [shout]).as_tool("shout", "Shouts.")
    agent = Agent(ScriptedModel([ToolCall.of("shout", prompt="hi"), "done"]), tools=[asked])
    result = await agent.run("Go")
    assert result.messages[2].parts[0].content == "HI"


async def test_the_tool_of_a_workflow_takes_what_the_workflow_takes():
    async def price(order: Order) -> int:
        return order.amount * 2

    asked = Workflow("pricing", [price]).as_tool("price", "Prices.")
    agent = Agent(ScriptedModel([ToolCall.of("price", prompt={"amount": 3}), "done"]), tools=[asked])
    result = await agent.run("Go")
    assert result.messages[2].parts[0].content == "6"


async def test_an_agents_output_type_goes_on():
    agent = Agent(ScriptedModel(['{"amount": 3}']), name="bot", output=Quote)

    async def take(quote: Quote) -> int:
        return quote.amount

    assert (await Workflow("w", [agent, take]).run("hi")).output == 3


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "value", "error", "place"),
    [
        ([add_one, fails], 1, StepFailedError, "fails"),
        ([Map(fails, name="each", max_concurrency=1)], [1], StepFailedError, "each[0]/fails"),
        ([Parallel({"a": double, "b": [double, fails]})], 1, StepFailedError, "parallel/b/fails"),
        ([Workflow("inner", [Loop(fails)])], 1, StepFailedError, "inner/loop[0]/fails"),
        ([Step(add_one, name="first")], "x", StepInputError, ""),
        ([lambda value: "x", add_one], 1, StepInputError, "add_one"),
        ([Condition(lambda value: 1, double)], 1, StepOutputError, "condition/test"),
        ([Loop(add_one, until=lambda value: False, max_iterations=4)], 1, LoopLimitError, "loop"),
        ([Router(lambda value: "c", {"a": add_one, "b": add_one}, name="way")], 1, RouteError, "way"),
        ([Router(lambda value: None, {"a": add_one}, name="way")], 1, RouteError, "way"),
        ([lambda value: 3, Map(add_one)], 1, StepInputError, "map"),
        ([lambda value: "abc", Map(add_one)], 1, StepInputError, "map"),
        ([Map(add_one, max_items=2)], [1, 2, 3], StepInputError, "map"),
    ],
)
async def test_errors_name_the_place(steps, value, error, place):
    with pytest.raises(error) as caught:
        await Workflow("w", steps).run(value)
    assert caught.value.place == place
    assert place in str(caught.value)
    assert isinstance(caught.value, WorkflowError)


async def test_the_cause_of_a_failed_step_is_kept():
    with pytest.raises(StepFailedError, match="step 'fails' failed: KeyError: 'lost'") as caught:
        await Workflow("w", [fails]).run(1)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_loop_that_does_not_end_says_so():
    with pytest.raises(LoopLimitError, match="ran 4 times, as often as max_iterations allows"):
        await Workflow("w", [Loop(add_one, until=lambda value: False, max_iterations=4)]).run(1)


async def test_a_step_that_returns_the_wrong_type_is_told():
    async def liar(value: int) -> int:
        return "three"

    with pytest.raises(
        StepOutputError, match=r"step 'liar' returned something else than it declares: .*'three'"
    ):
        await Workflow("w", [liar]).run(1)
    with pytest.raises(StepOutputError, match="the output of workflow 'w'"):
        await Workflow("w", [lambda value: "x"], output=int).run(1)


async def test_a_workflow_inside_itself_is_a_cycle():
    found = []

    async def again(value: int) -> int:
        found.append(value)
        return (await found_workflow.run(value)).output

    found_workflow = Workflow("w", [again])
    with pytest.raises(StepFailedError) as caught:
        await found_workflow.run(1)
    assert isinstance(caught.value.__cause__, WorkflowCycleError)
    assert caught.value.place.startswith("again")
    assert found == [1]


async def test_the_first_failing_branch_stops_the_others():
    stopped = []

    async def hangs(value):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(value)
            raise

    for frame, value in (
        (Parallel({"a": hangs, "b": fails, "c": hangs}), 1),
        (Map(Router(str, {"1": fails}, default=hangs)), [2, 1, 3]),
    ):
        stopped.clear()
        with pytest.raises(StepFailedError):
            await Workflow("w", [frame]).run(value)
        assert len(stopped) == 2


async def test_a_step_that_hangs_is_stopped_by_its_timeout():
    async def hangs(value):
        await asyncio.Event().wait()

    with pytest.raises(
        StepTimeoutError, match=r"step 'hangs' took longer than its timeout of 0.01 seconds"
    ) as caught:
        await Workflow("w", [Step(hangs, timeout=0.01)]).run(1)
    assert caught.value.place == "hangs"

    slow = Agent(ScriptedModel(lambda request: asyncio.Event().wait()), name="slow")
    with pytest.raises(StepTimeoutError):
        await Workflow("w", [Step(slow, timeout=0.01)]).run("hi")
    with pytest.raises(StepTimeoutError):
        stream = Workflow("w", [Step(slow, timeout=0.01)]).stream("hi")
        async for _ in stream:
            pass


async def test_a_sync_step_that_hangs_is_given_up():
    wake = threading.Event()
    with pytest.raises(StepTimeoutError):
        await Workflow("w", [Step(lambda value: wake.wait(), name="hangs", timeout=0.01)]).run(1)
    wake.set()


async def test_a_step_is_tried_again_and_only_that_step():
    counts = {"first": 0, "second": 0}

    async def first(value):
        counts["first"] += 1
        return value

    async def second(value, context: StepContext):
        counts["second"] += 1
        assert context.attempt == counts["second"]
        if counts["second"] < 3:
            raise OSError("busy")
        return value

    result = await Workflow("w", [first, Step(second, retry=NO_WAIT)]).run(1)
    assert counts == {"first": 1, "second": 3}
    assert result.steps["second"].failures == 2
    assert result.steps["second"].outcome == "done"

    counts["second"] = -10
    with pytest.raises(StepFailedError, match="busy"):
        await Workflow("w", [Step(second_always, retry=NO_WAIT)]).run(1)
    assert second_always.calls == 3


async def second_always(value):
    second_always.calls += 1
    raise OSError("busy")


second_always.calls = 0


async def test_only_errors_that_are_worth_it_are_tried_again():
    tried = 0

    async def refuse(value):
        nonlocal tried
        tried += 1
        raise PermissionError("no")

    retry = Retry(5, first_wait=0, on=(ConnectionError, StepTimeoutError))
    with pytest.raises(StepFailedError):
        await Workflow("w", [Step(refuse, retry=retry)]).run(1)
    assert tried == 1

    async def slow(value):
        nonlocal tried
        tried += 1
        await asyncio.Event().wait()

    tried = 0
    with pytest.raises(StepTimeoutError):
        await Workflow(
            "w", [Step(slow, retry=msgspec.structs.replace(retry, attempts=3), timeout=0.001)]
        ).run(1)
    assert tried == 3


async def test_a_fallback_takes_the_place_of_what_failed():
    step = Step(fails, name="shaky", retry=Retry(2, first_wait=0), fallback=add_one)
    result = await Workflow("w", [step, double]).run(1)
    assert result.output == 4
    assert result.steps["shaky"].outcome == "failed"
    assert result.steps["shaky/add_one"].outcome == "done"
    with pytest.raises(StepFailedError) as caught:
        await Workflow("w", [Step(fails, name="shaky", fallback=Step(fails, name="too"))]).run(1)
    assert caught.value.place == "shaky/too"


async def test_an_agent_that_fails_is_tried_again_with_a_fresh_run():
    agent = Agent(ScriptedModel([OSError("down"), "up"]), name="bot")
    session = Session()
    result = await Workflow("w", [Step(agent, retry=NO_WAIT)]).run("hi", session=session)
    assert result.output == "up"
    assert any(isinstance(record, RunFailedRecord) for record in session.child("bot", result.run_id).journal)
    assert session.child("bot#2", result.run_id).journal[-1].output == "up"


async def test_what_a_step_cancels_itself_is_its_failure():
    async def odd(value):
        raise asyncio.CancelledError

    with pytest.raises(StepFailedError):
        await Workflow("w", [Step(odd)]).run(1)


async def test_a_run_can_be_cancelled():
    began = asyncio.Event()

    async def hangs(value):
        began.set()
        await asyncio.Event().wait()

    session = Session()
    for steps in ([hangs], [Map(hangs)], [Step(hangs, retry=3, fallback=add_one)]):
        began.clear()
        task = asyncio.ensure_future(Workflow("w", steps).run([1, 2], session=session))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.unfinished is None


# --- limits -------------------------------------------------------------------------------------------------


async def test_the_time_of_a_run_is_limited():
    async def hangs(value):
        await asyncio.Event().wait()

    for steps in ([hangs], [Parallel([hangs, Step(hangs, name="x")])], [Step(hangs, retry=3)]):
        result = await Workflow("w", steps, limits=Limits(max_seconds=0.02)).run(1)
        assert result.finish_reason == "limit"
        with pytest.raises(LimitError, match="max_seconds"):
            _ = result.output


async def test_the_time_of_a_stream_is_limited():
    async def hangs(value):
        await asyncio.Event().wait()

    stream = Workflow("w", [Map(hangs), Step(str)], limits=Limits(max_seconds=0.02)).stream([1, 2, 3])
    events = [event async for event in stream]
    assert isinstance(events[-1], RunFinished)
    assert stream.result.finish_reason == "limit"


async def test_the_limits_of_a_workflow_hold_for_its_agents_together():
    def agent(name):
        model = ScriptedModel(lambda request: "x" * 10)
        return Agent(model, name=name)

    agents = [agent("a"), agent("b"), agent("c")]
    result = await Workflow("w", agents).run("hi", limits=Limits(max_tokens=60))
    assert result.finish_reason == "limit"
    assert result.stopped.limit == "max_tokens"
    assert result.usage.model_calls < 3


async def test_an_agents_own_limit_is_the_failure_of_its_step():
    @tool(inline=True)
    def ping() -> str:
        """Ping."""
        return "pong"

    agent = Agent(
        ScriptedModel(lambda request: ToolCall.of("ping")), name="a", tools=[ping], limits=Limits(max_turns=2)
    )
    with pytest.raises(StepFailedError, match="max_turns"):
        await Workflow("w", [agent]).run("hi")
    result = await Workflow("w", [Step(agent, fallback=Step(str))]).run("hi")
    assert result.output == "hi"


# --- state --------------------------------------------------------------------------------------------------


def remember(**fields):
    async def step(value, context: StepContext):
        for name, change in fields.items():
            context.state[name] = change(context.state.get(name))
        return value

    return step


async def test_steps_remember_in_the_state():
    session = Session()
    seen = []

    async def look(value, context: StepContext):
        seen.append(context.state)
        return value

    steps = [
        Step(remember(n=lambda n: (n or 0) + 1), name="a"),
        Step(remember(n=lambda n: n + 1), name="b"),
        look,
    ]
    await Workflow("w", steps, state={"n": 5}).run(1)
    await Workflow("w", steps).run(1, session=session)
    await Workflow("w", steps).run(1, session=session)
    assert seen == [{"n": 7}, {"n": 2}, {"n": 4}]
    assert session.state == {"n": 4}


class Counter(msgspec.Struct, frozen=True):
    count: int = 0
    notes: tuple[str, ...] = ()


async def test_the_state_may_be_typed():
    async def count(value: int, context: StepContext[Counter]) -> int:
        context.update(count=context.state.count + value)
        return value

    async def read(value: int, context: StepContext[Counter]) -> int:
        assert type(context.state) is Counter
        return context.state.count

    workflow = Workflow("w", [count, read], state=Counter())
    assert (await workflow.run(3)).output == 3
    session = Session(state=Counter(10))
    assert (await workflow.run(3, session=session)).output == 13
    assert session.state == Counter(13)
    untyped = Session()
    assert (await workflow.run(3, session=untyped)).output == 3
    assert (await workflow.run(3, session=untyped)).output == 6
    with pytest.raises(StepInputError, match="the session's state does not fit"):
        await workflow.run(3, session=Session(state={"count": "many"}))
    with pytest.raises(StepFailedError, match="has no field"):
        await Workflow("w", [unknown_field], state=Counter()).run(1)


async def unknown_field(value: int, context: StepContext) -> int:
    context.update(colour=1)
    return value


async def test_what_a_failed_attempt_changed_does_not_count():
    attempts = 0

    async def shaky(value, context: StepContext):
        nonlocal attempts
        attempts += 1
        context.state["notes"] = [*context.state.get("notes", []), attempts]
        if attempts < 3:
            raise OSError
        return context.state["notes"]

    assert (await Workflow("w", [Step(shaky, retry=NO_WAIT)]).run(1)).output == [3]


async def test_branches_have_a_state_of_their_own():
    met = asyncio.Barrier(2)

    async def left(value, context: StepContext):
        context.state["list"].append("left")
        await met.wait()
        return list(context.state["list"])

    async def right(value, context: StepContext):
        await met.wait()
        return list(context.state["list"])

    result = await Workflow("w", [Parallel([left, right])], state={"list": []}).run(1)
    assert result.output == {"left": ["left"], "right": []}


async def test_a_merge_conflict_names_the_branches_and_the_field():
    frame = Parallel(
        {"a": Step(remember(n=lambda n: 1), name="x"), "b": Step(remember(n=lambda n: 2), name="y")},
        name="both",
    )
    with pytest.raises(
        MergeConflictError, match="branches 'a', 'b' changed field 'n' of the state"
    ) as caught:
        await Workflow("w", [frame]).run(1)
    assert (caught.value.place, caught.value.field, caught.value.branches) == ("both", "n", ("a", "b"))


async def test_equal_changes_and_changes_of_one_branch_are_no_conflict():
    frame = Parallel(
        {
            "a": Step(remember(n=lambda n: 1, own=lambda n: "a"), name="x"),
            "b": Step(remember(n=lambda n: 1), name="y"),
        }
    )
    session = Session()
    await Workflow("w", [frame]).run(1, session=session)
    assert session.state == {"n": 1, "own": "a"}


async def test_a_declared_merge_puts_changes_together():
    def branch(name):
        return Step(
            remember(n=lambda n: n + len(name), names=lambda names: [*names, name], last=lambda last: name),
            name=name,
        )

    session = Session(state={"n": 10, "names": ["x"], "last": ""})
    frame = Parallel(
        [branch("a"), branch("bb"), branch("ccc")],
        merge={"n": add_up, "names": join_lists, "last": take_last},
    )
    await Workflow("w", [frame]).run(1, session=session)
    assert session.state == {"n": 16, "names": ["x", "a", "bb", "ccc"], "last": "ccc"}
    counted = Map(Step(remember(n=lambda n: n + 1), name="s"), merge=add_up)
    await Workflow("w", [counted]).run([1, 2, 3], session=session)
    assert session.state["n"] == 19


async def test_a_merge_that_fails_names_the_frame():
    frame = Parallel(
        [Step(remember(n=lambda n: [1]), name="x"), Step(remember(n=lambda n: [2]), name="y")],
        name="both",
        merge={"n": join_lists},
    )
    with pytest.raises(WorkflowError, match="the merge of 'both' failed: ValueError") as caught:
        await Workflow("w", [frame], state={"n": [0]}).run(1)
    assert caught.value.place == "both"


async def test_a_step_cannot_delete_of_the_state_or_make_it_something_else():
    async def delete(value, context: StepContext):
        del context.state["n"]
        return value

    with pytest.raises(StepOutputError, match="set it to None instead"):
        await Workflow("w", [delete], state={"n": 1}).run(1)


# --- streams ------------------------------------------------------------------------------------------------


async def events_of(stream):
    return [event async for event in stream]


async def test_a_stream_tells_of_each_step():
    workflow = Workflow("w", [add_one, Step(fails, name="shaky", fallback=double)])
    events = await events_of(workflow.stream(1))
    assert [type(event) for event in events] == [
        RunStarted,
        StepStarted,
        StepFinished,
        StepStarted,
        StepFailed,
        StepStarted,
        StepFinished,
        RunFinished,
    ]
    assert [getattr(event, "place", "") for event in events] == [
        "",
        "add_one",
        "add_one",
        "shaky",
        "shaky",
        "shaky/double",
        "shaky/double",
        "",
    ]
    assert events[4].error == "KeyError"
    assert events[-1].result.output == 4


async def test_a_stream_carries_the_events_of_agents_in_parallel_branches():
    def agent(name):
        return Agent(ScriptedModel([f"I am {name}"]), name=name)

    workflow = Workflow("w", [Parallel({"x": agent("a"), "y": [agent("b")]}), Workflow("inner", [Step(str)])])
    stream = workflow.stream("hi")
    events = await events_of(stream)
    texts: dict[str, str] = {}
    for event in events:
        if isinstance(event, InnerEvent) and isinstance(event.event, TextDelta):
            texts[event.path[0]] = texts.get(event.path[0], "") + event.event.text
    assert texts == {"parallel/x": "I am a", "parallel/y/b": "I am b"}
    inner = [event.event for event in events if isinstance(event, InnerEvent) and event.path == ("inner",)]
    assert [type(event) for event in inner] == [RunStarted, StepStarted, StepFinished, RunFinished]
    assert stream.result.output == str({"x": "I am a", "y": "I am b"})


async def test_a_slow_reader_slows_the_branches():
    done = []

    async def work(value):
        done.append(value)
        return value

    stream = Workflow("w", [Map(work, max_concurrency=2)]).stream(list(range(100)))
    for _ in range(5):
        await anext(stream)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(done) <= 4
    await stream.aclose()
    assert len(done) <= 6


async def test_each_event_may_be_awaited_in_a_task_of_its_own():
    agent = Agent("offline", name="bot")
    stream = Workflow(
        "w", [Step(agent, timeout=5), Parallel([Step(str, name="a"), Step(agent, name="b", timeout=5)])]
    ).stream("hi")
    events = []
    while True:
        try:
            events.append(await asyncio.wait_for(anext(stream), 5))
        except StopAsyncIteration:
            break
    assert isinstance(events[-1], RunFinished)


async def test_a_stream_that_fails_says_so_and_raises():
    stream = Workflow("w", [Map(fails)]).stream([1, 2, 3])
    events = []
    with pytest.raises(StepFailedError):
        while True:
            events.append(await anext(stream))
    assert isinstance(events[-1], RunFailed)


async def test_a_stream_that_is_left_stops_its_branches():
    stopped = []

    async def hangs(value):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(value)

    agent = Agent("offline", name="bot")
    workflow = Workflow("w", [Parallel({"a": hangs, "b": Step(agent), "c": hangs})])
    async with workflow.stream("x") as stream:
        async for event in stream:
            if isinstance(event, InnerEvent):
                break
    assert stopped == ["x", "x"]
    stream = workflow.stream("x")
    stream.cancel()
    await stream.aclose()


# --- what a run leaves --------------------------------------------------------------------------------------


async def test_the_result_tells_what_became_of_each_step():
    workflow = Workflow("w", [Router(lambda value: "a", {"a": Map(double), "b": add_one}), Step(len)])
    result = await workflow.run([1, 2, 3])
    assert {path: (one.outcome, one.runs) for path, one in result.steps.items()} == {
        "router": ("done", 1),
        "router/choose": ("done", 1),
        "router/a": ("done", 1),
        "router/a/double": ("done", 3),
        "router/b": ("not_run", 0),
        "len": ("done", 1),
    }
    assert result.steps["router/a/double"].seconds > 0


async def test_a_user_must_be_text_and_a_session_a_session():
    workflow = Workflow("w", [add_one])
    with pytest.raises(ArgumentError):
        await workflow.run(1, session="x")
    with pytest.raises(ArgumentError):
        await workflow.run(1, session=Session(), user=3)
    with pytest.raises(GossamerError):
        await workflow.resume(None)
