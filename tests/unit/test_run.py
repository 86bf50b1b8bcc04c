"""The loop without a listener: turns, tools, what a run leaves behind, usage of the whole tree."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest
from tests.unit.talker import drive

from gossamer import (
    Agent,
    EndRun,
    Limits,
    Message,
    ModelRetry,
    ModelSettings,
    RunContext,
    Session,
    ToolCall,
    ToolError,
    Usage,
    tool,
)
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.simulator import Simulator


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


async def test_a_run_with_a_tool_leaves_its_messages_usage_and_reason():
    scripted = model(["thinking aloud", ToolCall.of("double", number=21)], "It is 42.")
    result = await Agent(scripted, tools=[double], instructions="Be brief.").run("Double 21.")
    assert result.output == "It is 42."
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert list(result.messages) == list(result.new_messages)
    call = result.messages[1].tool_calls[0]
    outcome = result.messages[2].parts[0]
    assert (outcome.call_id, outcome.name, outcome.content, outcome.outcome) == (
        call.id,
        "double",
        "42",
        "ok",
    )
    assert call.id
    assert result.usage == Usage(model_calls=2, tool_calls=1)
    assert (result.finish_reason, result.model) == ("stop", "scripted")
    assert result.duration > 0
    assert result.session is None
    assert [len(request.messages) for request in scripted.requests] == [1, 3]
    assert {request.instructions for request in scripted.requests} == {"Be brief."}


async def test_views_given_out_do_not_change_later():
    scripted = model(ToolCall.of("double", number=1), "two", "again")
    session = Session()
    agent = Agent(scripted, tools=[double])
    first = await agent.run("a", session=session)
    await agent.run("b", session=session)
    assert len(first.messages) == 4
    assert len(session.messages) == 6
    with pytest.raises((TypeError, AttributeError)):
        first.messages[0] = None
    with pytest.raises(AttributeError):
        first.messages[0].role = "system"


async def test_a_forced_call_is_forced_once():
    scripted = model(ToolCall.of("double", number=1), "two")
    await Agent(scripted, tools=[double], settings=ModelSettings(tool_choice="double")).run("x")
    assert [request.tool_choice for request in scripted.requests] == ["double", None]


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_several_calls_run_in_parallel_and_results_keep_the_order_of_calls(how):
    meeting = asyncio.Barrier(3)

    @tool
    async def wait(name: str, last: bool = False) -> str:
        await meeting.wait()  # passes only where all three run at once
        if not last:
            await asyncio.sleep(0)
        return name

    calls = [ToolCall.of("wait", name=name, last=name == "c") for name in "abc"]
    result = await drive(Agent(model(calls, "done"), tools=[wait]), how, "x")
    assert [part.content for part in result.messages[2].parts] == ["a", "b", "c"]
    assert result.usage.tool_calls == 3


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_an_exclusive_tool_runs_alone_after_the_others(how):
    running, seen = set(), []

    async def work(name: str) -> str:
        running.add(name)
        seen.append((name, frozenset(running)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.discard(name)
        return name

    alone = tool(name="alone", exclusive=True)(work)
    shared = tool(name="shared")(work)
    calls = [
        ToolCall.of("alone", name="first"),
        ToolCall.of("shared", name="b"),
        ToolCall.of("alone", name="second"),
        ToolCall.of("shared", name="c"),
    ]
    result = await drive(Agent(model(calls, "done"), tools=[alone, shared]), how, "x")
    assert [name for name, _ in seen] == ["b", "c", "first", "second"]
    assert dict(seen)["first"] == {"first"}
    assert dict(seen)["second"] == {"second"}
    assert [part.content for part in result.messages[2].parts] == ["first", "b", "second", "c"]


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("calls", [1, 3])
async def test_anyio_and_asyncio_scopes_work_inside_tools(how, calls):
    @tool
    async def moving_on(seconds: float) -> str:
        with anyio.move_on_after(seconds) as scope:
            await anyio.sleep(30)
        assert scope.cancelled_caught
        await anyio.sleep(0)
        return "moved on"

    @tool
    async def failing(seconds: float) -> str:
        try:
            with anyio.fail_after(seconds):
                await anyio.Event().wait()
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            return "both failed"
        return "nothing failed"

    @tool
    async def grouping(seconds: float) -> str:
        heard = []
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            group.start_soon(lambda: anyio.to_thread.run_sync(heard.append, "thread"))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(30)
        return heard[0]

    for one, expected in ((moving_on, "moved on"), (failing, "both failed"), (grouping, "thread")):
        wanted = [ToolCall.of(one.name, seconds=0.001)] * calls
        result = await drive(Agent(model(wanted, "done"), tools=[one]), how, "x")
        assert [part.content for part in result.messages[2].parts] == [expected] * calls
        assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("calls", [1, 2])
async def test_a_timeout_around_a_run_stops_its_tools_and_is_a_timeout(how, calls):
    cleaned = []

    @tool
    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("hang")

    session = Session()
    agent = Agent(model([ToolCall.of("hang")] * calls, "on we go"), tools=[hang])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await drive(agent, how, "x", session=session)
    assert cleaned == ["hang"] * calls
    assert {part.outcome for part in session.messages[-1].parts} == {"interrupted"}
    with anyio.move_on_after(0.02) as scope:
        await drive(agent.replace(model=model(ToolCall.of("hang"))), how, "x", session=session)
    assert scope.cancelled_caught
    assert (await drive(agent, how, "next", session=session)).output == "on we go"


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_a_tool_may_hand_the_call_back_and_give_up_after_its_retries(how):
    tries = []

    @tool(retries=2)
    async def picky(word: str) -> str:
        tries.append(word)
        if word != "please":
            raise ModelRetry("say please")
        return "thanks"

    calls = [ToolCall.of("picky", word=word) for word in ("a", "b", "please")]
    result = await drive(Agent(model(*calls, "ok"), tools=[picky]), how, "x")
    outcomes = [
        part.outcome for message in result.messages for part in message.parts if message.role == "tool"
    ]
    assert outcomes == ["error", "error", "ok"]
    assert result.messages[2].parts[0].content == "say please"
    session = Session()
    agent = Agent(ScriptedModel(lambda request: ToolCall.of("picky", word="no")), tools=[picky])
    tries.clear()
    with pytest.raises(ToolError, match=r"picky.*3 times"):
        await drive(agent, how, "x", session=session)
    assert tries == ["no", "no", "no"]
    assert (await agent.replace(model=model("fine")).run("next", session=session)).output == "fine"
    assert pairs_are_whole(session.messages)


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_a_tool_may_end_the_run(how):
    @tool
    async def finish(answer: str) -> str:
        raise EndRun({"answer": answer})

    session = Session()
    scripted = model(ToolCall.of("finish", answer="yes"), "not asked")
    agent = Agent(scripted, tools=[finish])
    result = await drive(agent, how, "x", session=session)
    assert result.output == {"answer": "yes"}
    assert result.finish_reason == "ended_by_tool"
    assert len(scripted.requests) == 1
    assert session.unfinished is None
    assert pairs_are_whole(session.messages)


async def test_what_the_model_can_mend_comes_back_to_it():
    @tool
    def broken() -> str:
        raise KeyError("shelf")

    @tool
    def strange() -> object:
        return object()

    calls = [
        ToolCall("nothing", "{}"),
        ToolCall("double", '{"number": "x"}'),
        ToolCall("double", "{not json"),
        ToolCall("double", '{"number": 1, "extra": 2}'),
        ToolCall.of("broken"),
        ToolCall.of("strange"),
        ToolCall.of("double", number=2),
    ]
    scripted = model(calls, "done")
    agent = Agent(scripted, tools=[double.replace(retries=5), broken, strange])
    result = await agent.run("x")
    told = [part.content for part in result.messages[2].parts]
    assert result.output == "done"
    assert "no tool called 'nothing'" in told[0]
    assert "double" in told[0]
    assert "Expected `int`" in told[1]
    assert "Invalid arguments for double" in told[2]
    assert "extra" in told[3]
    assert "KeyError" in told[4]
    assert "shelf" in told[4]
    assert "no JSON form" in told[5]
    assert told[6] == "4"
    assert [part.outcome for part in result.messages[2].parts] == ["error"] * 6 + ["ok"]


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_a_failed_runs_prompt_leaves_the_view_and_stays_in_the_journal(how):
    session = Session()
    agent = Agent(model("hello", ValueError("out of order"), "again"))
    await agent.run("first", session=session)
    with pytest.raises(ValueError, match="out of order"):
        await drive(agent, how, "second", session=session)
    assert [message.text for message in session.messages] == ["first", "hello"]
    said = [
        record.message.text
        for record in session.journal
        if hasattr(record, "message") and hasattr(record.message, "text")
    ]
    assert "second" in said
    failed = next(record for record in session.journal if type(record).__name__ == "RunFailedRecord")
    assert (failed.error, failed.message) == ("ValueError", "out of order")
    await drive(agent, how, "third", session=session)
    assert [message.text for message in session.messages] == ["first", "hello", "third", "again"]


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_finished_tool_turns_stay_when_a_later_model_call_fails(how):
    session = Session()
    agent = Agent(
        model(ToolCall.of("double", number=4), ValueError("gone"), "I know it is 8"), tools=[double]
    )
    with pytest.raises(ValueError, match="gone"):
        await drive(agent, how, "q", session=session)
    assert [message.role for message in session.messages] == ["user", "assistant", "tool"]
    await agent.run("and?", session=session)
    assert pairs_are_whole(session.messages)


async def test_a_run_without_a_session_that_is_stopped_keeps_calls_and_results_together():
    @tool
    async def hang() -> str:
        await asyncio.Event().wait()

    agent = Agent(model(ToolCall.of("hang")), tools=[hang], limits=Limits(max_seconds=0.02))
    result = await agent.run("x")
    assert result.stopped.limit == "max_seconds"
    assert pairs_are_whole(result.messages)
    assert [message.role for message in result.messages] == ["user", "assistant", "tool"]
    assert result.messages[2].parts[0].outcome in {"interrupted", "unknown"}


async def test_usage_of_runs_started_inside_tools_adds_up():
    used = Usage(input_tokens=10, output_tokens=5, model_calls=1)

    def reply(text):
        from gossamer import Message

        return ModelResponse(Message.assistant(text), used)

    inner = Agent(ScriptedModel(lambda request: reply("inner")), name="inner")

    @tool
    async def ask_directly(context: RunContext) -> str:
        answer = (await inner.run("q")).output
        assert context.usage.input_tokens == 10
        return answer

    @tool
    def ask_from_a_thread() -> str:
        return inner.run_sync("q").output

    @tool
    async def ask_by_stream() -> str:
        async with inner.stream("q") as stream:
            async for _ in stream:
                pass
        return stream.result.output

    failing = Agent(model(reply("not a number"), reply("still not")), output=int)

    @tool
    async def ask_and_fail() -> str:
        await failing.run("q")

    for one, calls in ((ask_directly, 1), (ask_from_a_thread, 1), (ask_by_stream, 1), (ask_and_fail, 2)):
        outer = Agent(model(ToolCall(one.name), "done"), tools=[one])
        result = await outer.run("x")
        assert result.usage == Usage(
            input_tokens=10 * calls,
            output_tokens=5 * calls,
            model_calls=2 + calls,
            tool_calls=1,
            unpriced_calls=calls,
        ), one.name


async def test_a_run_inside_a_tool_knows_its_parent_and_call():
    seen = []

    def instructions(context: RunContext) -> str:
        seen.append((context.parent.run_id, context.parent.call.id, context.run_id))
        return ""

    inner = Agent(ScriptedModel(lambda request: "in"), instructions=instructions)

    @tool
    async def directly() -> str:
        return (await inner.run("q", session=Session())).output

    @tool
    def in_a_thread() -> str:
        return inner.run_sync("q").output

    @tool
    async def in_a_task() -> str:
        return (await asyncio.create_task(inner.run("q"))).output

    calls = [ToolCall(one.name) for one in (directly, in_a_thread, in_a_task)]
    result = await Agent(model(calls, "done"), tools=[directly, in_a_thread, in_a_task]).run("x")
    assert {parent for parent, _, _ in seen} == {result.run_id}
    assert {call for _, call, _ in seen} == {call.id for call in result.messages[1].tool_calls}
    assert len({run for _, _, run in seen} | {result.run_id}) == 4
    after = RunContext("x", None)
    assert after.call is None
    assert (await inner.replace(instructions="").run("free")).output == "in"


async def test_a_run_asking_for_its_ancestors_session_is_refused_and_the_outer_run_goes_on():
    session = Session()
    inner = Agent(model("never"))

    @tool
    async def ask() -> str:
        return (await inner.run("q", session=session)).output

    @tool
    async def through_another() -> str:
        middle = Agent(model(ToolCall("ask"), "told"), tools=[ask])
        return (await middle.run("q")).output

    scripted = model([ToolCall("ask"), ToolCall("through_another")], "done")
    result = await asyncio.wait_for(
        Agent(scripted, tools=[ask, through_another]).run("x", session=session), 10
    )
    assert "SessionBusyError" in result.messages[2].parts[0].content
    assert result.messages[2].parts[1].content == "told"
    assert result.output == "done"


async def test_no_task_and_no_thread_is_left_behind():
    before = asyncio.all_tasks()
    threads = threading.active_count()

    @tool
    async def hang() -> str:
        await asyncio.Event().wait()

    for how in ("run", "stream"):
        agent = Agent(model([ToolCall("hang"), ToolCall("hang")]), tools=[hang])
        task = asyncio.create_task(drive(agent, how, "x"))
        while len(asyncio.all_tasks()) < len(before) + 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == before
    assert threading.active_count() == threads


async def test_the_same_loop_over_a_real_connection():
    from gossamer.models import OpenAIChat

    async with Simulator() as simulator:
        agent = Agent(OpenAIChat("gpt", base_url=simulator.url, api_key="k"), tools=[double])
        session = Session()
        for how in ("run", "stream"):
            result = await drive(agent, how, 'call double {"number": 21}', session=session)
            assert result.messages[-2].parts[0].content == "42"
            assert result.usage.model_calls == 2
            assert result.usage.total_tokens > 0
        assert len(session.messages) == 8


def pairs_are_whole(messages) -> bool:
    """Whether each answer with calls is followed by exactly their results, and no result stands elsewhere."""
    expected: list[str] = []
    for message in messages:
        results = [part.call_id for part in message.parts if message.role == "tool"]
        if results != expected:
            return False
        expected = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    return not expected


async def test_calls_without_an_id_or_with_the_same_one_get_their_own():
    @tool(inline=True)
    def echo(word: str) -> str:
        return word

    def reply(request):
        if request.messages[-1].role == "tool":
            return "done"
        calls = (ToolCall("echo", '{"word": "a"}', "same"), ToolCall("echo", '{"word": "b"}', "same"))
        return ModelResponse(Message("assistant", calls), Usage(model_calls=1), "tool_calls")

    session = Session()
    result = await Agent(ScriptedModel(reply), tools=[echo]).run("hi", session=session)
    assert [part.text for part in result.messages[2].parts] == ["a", "b"]
    assert len({call.id for call in result.messages[1].tool_calls}) == 2
    assert [message.role for message in session.messages] == ["user", "assistant", "tool", "assistant"]
