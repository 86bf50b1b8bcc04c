"""The stream of a run: its events, and who may read it."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.talker import Talker, double, kinds, model, read

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
from gossamer.models import ModelResponse

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


async def test_messages_finished_of_a_stream_are_those_of_the_session():
    session = Session()
    agent = Agent(model(ToolCall.of("double", number=1), "two"), tools=[double])
    events = await read(agent.stream("x", session=session))
    said = [event.message for event in events if isinstance(event, MessageFinished)]
    assert said == [message for message in session.messages if message.role == "assistant"]
    assert isinstance(events[-1], RunFinished)
