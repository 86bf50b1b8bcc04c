"""The stream of a run: its events, how it is stopped, and who may read it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator

import pytest

from gossamer import (
    Agent,
    ArgumentError,
    LimitError,
    Limits,
    Message,
    OutputError,
    Session,
    Text,
    Thinking,
    ToolCall,
    Usage,
    tool,
)
from gossamer.events import (
    ApprovalNeeded,
    MessageFinished,
    OutputDelta,
    OutputRestarted,
    RunFailed,
    RunFinished,
    RunStarted,
    TextDelta,
    ThinkingDelta,
    ToolArgumentsDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    UsageUpdated,
)
from gossamer.models import Capabilities, ModelRequest, ModelResponse, OpenAIChat, ScriptedModel
from gossamer.simulator import Script, Simulator


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


class Talker:
    """A model that says words for as long as it is asked to, and knows how it was stopped."""

    name = "talker"
    dialect = "talker"
    capabilities = Capabilities()

    def __init__(self, words: int, *, pause: bool = False) -> None:
        self.words = words
        self.pause = pause
        self.said = 0
        self.closed = 0

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, request: ModelRequest) -> AsyncGenerator:
        try:
            for _ in range(self.words):
                if self.pause:
                    await asyncio.sleep(0)
                self.said += 1
                yield TextDelta("word ")
            if self.pause:
                await asyncio.Event().wait()
            yield ModelResponse(Message.assistant("word " * self.words), Usage(model_calls=1))
        finally:
            self.closed += 1


def kinds(events) -> list[str]:
    return [type(event).__name__ for event in events]


async def gone(simulator: Simulator) -> None:
    """Wait until the server has seen the client hang up in the middle of its answer."""
    async with asyncio.timeout(10):
        while simulator.stats.disconnects == 0:
            await asyncio.sleep(0.001)


async def read(stream) -> list:
    return [event async for event in stream]


# --- what comes, in which order -----------------------------------------------------------------------------


async def test_events_of_a_text_answer():
    events = await read(stream := Agent(model("one two three"), name="bob").stream("hi"))
    assert kinds(events) == ["RunStarted"] + ["TextDelta"] * 3 + [
        "MessageFinished",
        "UsageUpdated",
        "RunFinished",
    ]
    assert events[0] == RunStarted(stream.run_id, "bob")
    assert "".join(event.text for event in events[1:4]) == "one two three"
    assert events[4].message.text == "one two three"
    assert events[5].usage == Usage(model_calls=1)
    assert events[6].result is stream.result
    assert stream.result.run_id == stream.run_id
    assert stream.result.output == "one two three"


async def test_events_of_thinking_text_and_several_tools():
    first = ModelResponse(
        Message("assistant", (Thinking("let me see"), Text("Looking."), ToolCall.of("double", number=1))),
        Usage(model_calls=1, input_tokens=3),
        "tool_calls",
    )
    second = [ToolCall.of("double", number=2), ToolCall.of("double", number=3)]
    events = await read(Agent(model(first, second, "done"), tools=[double]).stream("hi"))
    assert kinds(events) == [
        "RunStarted",
        *["ThinkingDelta"] * 3,
        "TextDelta",
        "ToolCallStarted",
        "ToolArgumentsDelta",
        "MessageFinished",
        "UsageUpdated",
        "ToolCallFinished",
        *["ToolCallStarted", "ToolArgumentsDelta"] * 2,
        "MessageFinished",
        "UsageUpdated",
        *["ToolCallFinished"] * 2,
        "TextDelta",
        "MessageFinished",
        "UsageUpdated",
        "RunFinished",
    ]
    begun = [event.call_id for event in events if isinstance(event, ToolCallStarted)]
    finished = [event for event in events if isinstance(event, ToolCallFinished)]
    assert [event.call.id for event in finished] == begun
    assert [event.result.content for event in finished] == ["2", "4", "6"]
    assert [event.usage.model_calls for event in events if isinstance(event, UsageUpdated)] == [1, 2, 3]
    arguments = [event.text for event in events if isinstance(event, ToolArgumentsDelta)]
    assert arguments == ['{"number":1}', '{"number":2}', '{"number":3}']
    assert "".join(event.text for event in events if isinstance(event, ThinkingDelta)) == "let me see"


@pytest.mark.parametrize("calls", [1, 2])
async def test_progress_comes_while_the_tool_runs(calls):
    go_on = asyncio.Event()

    @tool
    async def count(to: int):
        for number in range(to):
            yield number
            if number == 0:
                await go_on.wait()

    stream = Agent(model([ToolCall.of("count", to=3)] * calls, "done"), tools=[count]).stream("x")
    events = []
    async for event in stream:
        events.append(event)
        if isinstance(event, ToolProgress) and sum(isinstance(one, ToolProgress) for one in events) == calls:
            go_on.set()
    progress = [event for event in events if isinstance(event, ToolProgress)]
    assert sorted(event.value for event in progress) == sorted([0, 1, 2] * calls)
    for call in stream.result.messages[1].tool_calls:
        mine = [event for event in events if getattr(event, "call", None) == call]
        assert kinds(mine) == ["ToolProgress"] * 3 + ["ToolCallFinished"]
        assert mine[-1].result.content == "2"


async def test_progress_of_a_generator_in_a_thread():
    @tool
    def count(to: int):
        yield from range(to)
        return "counted"

    events = await read(Agent(model(ToolCall.of("count", to=3), "done"), tools=[count]).stream("x"))
    assert [event.value for event in events if isinstance(event, ToolProgress)] == [0, 1, 2]
    finished = [event for event in events if isinstance(event, ToolCallFinished)]
    assert [event.result.content for event in finished] == ["counted"]


async def test_a_quick_tool_is_told_of_before_a_slow_one_ends():
    go_on = asyncio.Event()

    @tool
    async def slow() -> str:
        await go_on.wait()
        return "slow"

    stream = Agent(
        model([ToolCall("slow"), ToolCall.of("double", number=1)], "ok"), tools=[slow, double]
    ).stream("x")
    told = []
    async for event in stream:
        if isinstance(event, ToolCallFinished):
            told.append(event.call.name)
            go_on.set()
    assert told == ["double", "slow"]


async def test_events_of_structured_output_with_a_repair():
    agent = Agent(model('{"result": "no"}', '{"result": 7}'), output=int)
    events = await read(stream := agent.stream("x"))
    assert stream.result.output == 7
    names = kinds(events)
    restarted = names.index("OutputRestarted")
    assert names.count("OutputRestarted") == 1
    assert "Expected `int`" in events[restarted].reason
    before = [event for event in events[:restarted] if isinstance(event, OutputDelta)]
    after = [event for event in events[restarted:] if isinstance(event, OutputDelta)]
    assert before[-1].partial == {"result": "no"}
    assert after[-1].partial == {"result": 7}
    assert names[-1] == "RunFinished"
    assert names.count("MessageFinished") == 2


async def test_events_of_a_failure_then_the_error_itself():
    stream = Agent(model(ToolCall.of("double", number=1), ValueError("no more")), tools=[double]).stream("x")
    events = []
    with pytest.raises(ValueError, match="no more"):
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before the error is wanted
    assert events[-1] == RunFailed("ValueError", "no more")
    assert kinds(events).count("RunFailed") == 1
    assert "RunFinished" not in kinds(events)
    with pytest.raises(ValueError, match="no more"):
        _ = stream.result
    with pytest.raises(ValueError, match="no more"):
        await anext(stream)


async def test_events_of_an_answer_that_does_not_fit():
    stream = Agent(model("{}", "still {}"), output=int).stream("x")
    events = []
    with pytest.raises(OutputError) as caught:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before the error is wanted
    assert caught.value.text == "still {}"
    assert kinds(events)[-1] == "RunFailed"


async def test_events_of_a_pause_and_of_a_limit():
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    events = await read(stream := Agent(model(ToolCall("pay")), tools=[pay]).stream("x"))
    asked = [event for event in events if isinstance(event, ApprovalNeeded)]
    assert [event.pending for event in asked] == list(stream.result.pending)
    assert kinds(events)[-2:] == ["ApprovalNeeded", "RunFinished"]
    limited = Agent(model("never"), limits=Limits(max_tokens=1)).stream("x")
    events = await read(limited)
    assert kinds(events) == ["RunStarted", "RunFinished"]
    with pytest.raises(LimitError):
        _ = limited.result.output


async def test_a_stream_of_deltas_is_passed_on_as_it_is():
    deltas = [
        ThinkingDelta("hm"),
        TextDelta(""),
        TextDelta("a"),
        ToolCallStarted("c1", "double"),
        ToolArgumentsDelta("c1", '{"num'),
        ToolArgumentsDelta("c1", 'ber": 5}'),
    ]
    events = await read(Agent(model(deltas, "end"), tools=[double]).stream("x"))
    assert events[1:7] == deltas
    assert all(mine is theirs for mine, theirs in zip(events[1:7], deltas, strict=True))


async def test_a_model_that_ends_without_a_response_is_an_error():
    class Cut(Talker):
        async def stream(self, request):
            yield TextDelta("half")

    stream = Agent(Cut(1)).stream("x")
    with pytest.raises(Exception, match="without a ModelResponse"):
        await read(stream)


# --- reading ------------------------------------------------------------------------------------------------


async def test_nothing_happens_before_the_first_event_is_asked_for():
    scripted = model("a")
    stream = Agent(scripted).stream("x")
    await asyncio.sleep(0)
    assert not scripted.requests
    with pytest.raises(ArgumentError, match="not been read to its end"):
        _ = stream.result
    await stream.aclose()
    assert not scripted.requests
    assert await read(stream) == []


async def test_a_slow_reader_slows_the_model():
    talker = Talker(1000)
    async with Agent(talker).stream("x") as stream:
        for read_so_far in range(1, 20):
            await anext(stream)
            await asyncio.sleep(0)
            assert talker.said <= read_so_far
    assert talker.closed == 1


async def test_each_event_may_be_read_by_another_task():
    @tool
    async def hop() -> str:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "hopped"

    session = Session()
    agent = Agent(model([ToolCall("hop"), ToolCall("hop")], ToolCall("hop"), "a b c"), tools=[hop])
    stream = agent.stream("x", session=session)
    events = []
    while True:
        try:
            events.append(await asyncio.wait_for(anext(stream), 5))
        except StopAsyncIteration:
            break
    assert kinds(events)[-1] == "RunFinished"
    assert kinds(events).count("ToolCallFinished") == 3
    assert stream.result.output == "a b c"
    assert session.unfinished is None


async def test_a_timeout_on_one_event_stops_the_run():
    talker = Talker(2, pause=True)
    session = Session()
    stream = Agent(talker).stream("x", session=session)
    for _ in range(3):
        await asyncio.wait_for(anext(stream), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.02)
    assert talker.closed == 1
    assert session.messages[-1].text == "word word "
    assert (await Agent(model("yes")).run("still there?", session=session)).output == "yes"


async def test_two_readers_at_once_are_refused_and_the_first_goes_on():
    talker = Talker(1, pause=True)
    stream = Agent(talker).stream("x")
    await anext(stream)
    await anext(stream)
    reader = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    with pytest.raises(ArgumentError, match="one reader"):
        await anext(stream)
    stream.cancel()
    assert await reader == []


# --- stopping -----------------------------------------------------------------------------------------------


async def leave_block(stream):
    async with stream:
        await anext(stream)
        await anext(stream)


async def cancel(stream):
    await anext(stream)
    await anext(stream)
    stream.cancel()
    assert await read(stream) == []


async def cancel_while_reading(stream):
    reader = asyncio.create_task(read(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    stream.cancel()
    assert kinds(await reader)[:2] == ["RunStarted", "TextDelta"]


async def cancel_task(stream):
    reader = asyncio.create_task(read(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def close_from_another_task(stream):
    reader = asyncio.create_task(read(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    await asyncio.gather(stream.aclose(), stream.aclose(), asyncio.create_task(stream.aclose()))
    assert kinds(await reader)[:2] == ["RunStarted", "TextDelta"]


async def break_out(stream):
    async with stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


async def raise_out(stream):
    with pytest.raises(KeyError):
        async with stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    raise KeyError


WAYS = [
    leave_block,
    cancel,
    cancel_while_reading,
    cancel_task,
    close_from_another_task,
    break_out,
    raise_out,
]


@pytest.mark.parametrize("stop", WAYS, ids=lambda way: way.__name__)
async def test_a_stream_may_be_stopped_in_every_way(stop):
    talker = Talker(3, pause=True)
    session = Session()
    agent = Agent(talker)
    stream = agent.stream("x", session=session)
    before = asyncio.all_tasks()
    await asyncio.wait_for(stop(stream), 10)
    assert talker.closed == 1
    assert session.unfinished is None
    last = session.messages[-1]
    assert last.role == "assistant"
    assert last.text == "word " * talker.said
    record = next(record for record in reversed(session.journal) if getattr(record, "message", None) == last)
    assert record.interrupted
    assert asyncio.all_tasks() == before
    await stream.aclose()
    stream.cancel()
    assert await read(stream) == []
    assert (await Agent(model("here")).run("next", session=session)).output == "here"


@pytest.mark.parametrize("stop", WAYS, ids=lambda way: way.__name__)
async def test_a_stopped_stream_closes_its_connection(stop):
    async with Simulator(script=Script(["word " * 2000]), tps=200) as simulator:
        session = Session()
        stream = Agent(OpenAIChat("gpt", base_url=simulator.url, api_key="k")).stream("x", session=session)

        async def begun():
            while not isinstance(await anext(stream), TextDelta):
                pass

        await asyncio.wait_for(begun(), 10)
        if stop in {cancel_while_reading, cancel_task, close_from_another_task}:
            stop = leave_block
        await asyncio.wait_for(stop(stream), 10)
        assert session.messages[-1].text.startswith("word")
        await gone(simulator)
        assert session.unfinished is None


async def test_a_result_of_a_cancelled_stream_is_an_error_of_ours_and_no_cancellation():
    stream = Agent(Talker(5)).stream("x")
    await anext(stream)
    await stream.aclose()
    with pytest.raises(ArgumentError, match="cancelled"):
        _ = stream.result


async def test_cancel_before_the_first_event():
    scripted = model("a")
    session = Session()
    stream = Agent(scripted).stream("x", session=session)
    stream.cancel()
    assert await read(stream) == []
    assert not scripted.requests
    assert (await Agent(model("fine")).run("y", session=session)).output == "fine"


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("stop", [leave_block, cancel, close_from_another_task, cancel_task])
async def test_stopping_reaches_running_tools_and_waits_for_their_cleaning_up(stop, parallel):
    cleaned = []
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            cleaned.append(1)

    session = Session()
    stream = Agent(model([ToolCall("hang")] * parallel), tools=[hang]).stream("x", session=session)
    reader = asyncio.create_task(read(stream))
    await begun.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    if stop is cancel_task:
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    elif stop is cancel:
        stream.cancel()
        await reader
    else:
        await stream.aclose()
        await reader
    assert cleaned == [1] * parallel
    assert [part.outcome for part in session.messages[-1].parts] == ["interrupted"] * parallel


async def test_a_stream_that_is_let_go_leaves_its_session_free():
    talker = Talker(100)
    session = Session()
    stream = Agent(talker).stream("x", session=session)
    for _ in range(4):
        await anext(stream)
    watched = weakref.ref(stream)
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert watched() is None
    assert talker.closed == 1
    assert session.unfinished is None
    assert session.messages[-1].text == "word word word "
    assert (await asyncio.wait_for(Agent(model("free")).run("next", session=session), 5)).output == "free"


async def test_a_stream_that_is_let_go_while_tools_run_leaves_its_session_free_and_whole():
    release = asyncio.Event()
    ended = []

    @tool
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
            ended.append(1)
        return "late"

    @tool
    async def waiting() -> str:
        release.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return "waited"

    session = Session()
    scripted = model([ToolCall("stubborn"), ToolCall.of("double", number=1)])
    stream = Agent(scripted, tools=[stubborn, double]).stream("x", session=session)
    async for event in stream:
        if isinstance(event, ToolCallFinished):
            break
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert session.unfinished is None
    following = Agent(
        model([ToolCall("waiting"), ToolCall.of("double", number=4)], "free"), tools=[waiting, double]
    )
    result = await asyncio.wait_for(following.run("next", session=session), 5)
    assert result.output == "free"
    assert ended == [1]
    assert [part.content for part in result.messages[-2].parts] == ["waited", "8"]


async def test_a_stream_over_a_connection_that_is_let_go_closes_it():
    async with Simulator(script=Script(["word " * 2000]), tps=200) as simulator:
        session = Session()
        stream = Agent(OpenAIChat("gpt", base_url=simulator.url, api_key="k")).stream("x", session=session)
        while not isinstance(await anext(stream), TextDelta):
            pass
        del stream
        gc.collect()
        assert session.unfinished is None
        await gone(simulator)


async def test_time_runs_out_between_two_events_and_while_one_is_awaited():
    talker = Talker(100_000)
    stream = Agent(talker, limits=Limits(max_seconds=0.02)).stream("x")
    await anext(stream)
    await asyncio.sleep(0.05)
    assert kinds(await read(stream)) == ["RunFinished"]
    assert stream.result.stopped.limit == "max_seconds"
    waiting = Agent(Talker(1, pause=True), limits=Limits(max_seconds=0.02)).stream("x")
    assert kinds(await asyncio.wait_for(read(waiting), 5))[-1] == "RunFinished"
    with pytest.raises(LimitError, match="max_seconds"):
        _ = waiting.result.output
    assert waiting.result.messages[-1].text == "word "


async def test_a_time_limit_leaves_no_timer_behind():
    loop = asyncio.get_running_loop()
    before = sum(not handle.cancelled() for handle in loop._scheduled)
    async with Agent(Talker(10), limits=Limits(max_seconds=600)).stream("x") as stream:
        await anext(stream)
    await Agent(model("a"), limits=Limits(max_seconds=600)).run("x")
    assert sum(not handle.cancelled() for handle in loop._scheduled) == before


async def test_messages_finished_of_a_stream_are_those_of_the_session():
    session = Session()
    agent = Agent(model(ToolCall.of("double", number=1), "two"), tools=[double])
    events = await read(agent.stream("x", session=session))
    said = [event.message for event in events if isinstance(event, MessageFinished)]
    assert said == [message for message in session.messages if message.role == "assistant"]
    assert isinstance(events[-1], RunFinished)
    assert OutputRestarted not in {type(event) for event in events}
