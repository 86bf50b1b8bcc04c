"""Stopping a stream: in every way, at every moment, leaving session, tools and connections whole."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from tests.unit.talker import Talker, double, kinds, model, read

from gossamer import (
    Agent,
    ArgumentError,
    LimitError,
    Limits,
    Session,
    ToolCall,
    tool,
)
from gossamer.events import (
    TextDelta,
    ToolCallFinished,
)
from gossamer.models import OpenAIChat
from gossamer.simulator import Script, Simulator


async def gone(simulator: Simulator) -> None:
    """Wait until the server has seen the client hang up in the middle of its answer."""
    async with asyncio.timeout(10):
        while simulator.stats.disconnects == 0:
            await asyncio.sleep(0.001)


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


@pytest.mark.parametrize("stop", [leave_block, cancel, break_out, raise_out])
async def test_a_stopped_stream_closes_its_connection(stop):
    async with Simulator(script=Script(["word " * 2000]), tps=200) as simulator:
        session = Session()
        stream = Agent(OpenAIChat("gpt", base_url=simulator.url, api_key="k")).stream("x", session=session)

        async def begun():
            while not isinstance(await anext(stream), TextDelta):
                pass

        await asyncio.wait_for(begun(), 10)
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
    begun = asyncio.Event()
    release = asyncio.Event()
    ended = []

    @tool
    async def stubborn() -> str:
        begun.set()
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
    await begun.wait()
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
