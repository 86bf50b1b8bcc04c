"""The events of many agents in one bounded stream."""

from __future__ import annotations

import asyncio
import gc

import pytest

from gossamer import (
    Agent,
    ArgumentError,
    FanoutError,
    FanoutPipeline,
    RunContext,
    ToolCall,
    handoff,
    stream_pipeline,
    tool,
)
from gossamer.events import (
    HandoffEvent,
    MessageFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCallFinished,
)
from gossamer.flow import AgentEvent, MergedStream
from gossamer.models import ScriptedModel


def saying(text: str, name: str) -> Agent:
    return Agent(ScriptedModel(lambda request: text), name=name)


@tool(inline=True)
def look() -> str:
    """Look."""
    return "seen"


def looking(name: str) -> Agent:
    """An agent that speaks twice: once with a call, once with the answer."""
    return Agent(
        ScriptedModel(lambda r: ToolCall.of("look") if len(r.messages) == 1 else "I have seen"),
        name=name,
        tools=[look],
    )


def forever(name: str, stopped: list[str], begun: asyncio.Event | None = None) -> Agent:
    async def wait(request):
        if begun is not None:
            begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            stopped.append(name)
            raise

    return Agent(ScriptedModel(wait), name=name)


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(stream: MergedStream) -> list[AgentEvent]:
    async with stream:
        return [item async for item in stream]


async def test_every_event_comes_with_its_agent_and_its_message():
    agents = [saying("one two three", "writer"), looking("critic")]
    stream = stream_pipeline(agents, "x")
    items = await read(stream)
    for place, agent in enumerate(agents):
        own = [item for item in items if item.place == place]
        assert {item.agent for item in own} == {agent.name}
        assert {item.run_id for item in own} == {stream.results[place].run_id}
        alone = []
        async with agent.stream("x") as single:
            alone = [type(event) async for event in single]
        assert [type(item.event) for item in own] == alone
    text = [item.event.text for item in items if item.place == 0 and isinstance(item.event, TextDelta)]
    assert "".join(text) == "one two three"
    assert [result.output for result in stream.results] == ["one two three", "I have seen"]


async def test_the_chunks_of_a_message_belong_together_and_the_last_is_marked():
    items = await read(stream_pipeline([looking("critic")], "x"))
    messages: dict[int, list[AgentEvent]] = {}
    for item in items:
        if item.message is not None:
            messages.setdefault(item.message, []).append(item)
    assert list(messages) == [0, 1]
    for chunks in messages.values():
        assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert isinstance(chunks[-1].event, MessageFinished)
    assert messages[1][-1].event.message.text == "I have seen"
    others = {type(item.event) for item in items if item.message is None}
    assert {RunStarted, ToolCallFinished, RunFinished} <= others
    assert not any(item.last for item in items if item.message is None)


async def test_agents_speak_at_once():
    heard = asyncio.Event()

    async def wait(request):
        await heard.wait()
        return "at last"

    agents = [Agent(ScriptedModel(wait), name="slow"), saying("quick", "fast")]
    order = []
    async with stream_pipeline(agents, "x") as stream:
        async for item in stream:
            if isinstance(item.event, RunFinished):
                order.append(item.agent)
                heard.set()
    assert order == ["fast", "slow"]


async def test_one_after_another_with_a_concurrency_of_one():
    items = await read(stream_pipeline([saying("a b", "a"), saying("c d", "b")], "x", max_concurrency=1))
    assert [item.place for item in items] == sorted(item.place for item in items)


async def test_one_agent_twice_is_told_apart_by_its_place():
    items = await read(stream_pipeline([saying("a", "same")] * 2, "x"))
    assert {item.place for item in items} == {0, 1}
    assert len({item.run_id for item in items}) == 2


async def test_after_a_handoff_the_other_agent_speaks():
    billing = saying("It is paid.", "billing")
    desk = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_billing")]), name="desk", tools=[handoff(billing, "x")]
    )
    items = await read(stream_pipeline([desk], "x"))
    place = next(place for place, item in enumerate(items) if isinstance(item.event, HandoffEvent))
    assert {item.agent for item in items[:place]} == {"desk"}
    assert {item.agent for item in items[place:]} == {"billing"}


async def test_a_slow_reader_slows_the_runs():
    given = 0

    async def words(request):
        nonlocal given
        given += 1
        return ToolCall.of("look") if given < 50 else "done"

    agent = Agent(ScriptedModel(words), tools=[look])
    async with stream_pipeline([agent], "x", buffer=4) as stream:
        first = await anext(stream)
        assert isinstance(first.event, RunStarted)
        await settled()
        assert given <= 2
        async for _ in stream:
            pass
    assert given == 50


async def test_an_error_is_raised_at_the_end_when_the_others_have_finished():
    failing = Agent(ScriptedModel([ValueError("no ink")]), name="critic")
    stream = stream_pipeline([failing, saying("one two", "writer")], "x")
    items: list[AgentEvent] = []
    with pytest.raises(
        FanoutError, match="'critic', number 0 of 2 agents, failed: ValueError: no ink"
    ) as caught:
        async for item in stream:
            items += [item]
    assert any(isinstance(item.event, RunFailed) and item.agent == "critic" for item in items)
    assert any(isinstance(item.event, RunFinished) and item.agent == "writer" for item in items)
    assert caught.value.results[0] is None
    assert caught.value.results[1].output == "one two"
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(FanoutError):
        _ = stream.results
    assert [item async for item in stream] == []


async def test_leaving_early_stops_all_and_waits_for_their_cleaning_up():
    stopped: list[str] = []
    agents = [forever("a", stopped), saying("quick", "fast"), forever("b", stopped)]
    async with stream_pipeline(agents, "x") as stream:
        async for item in stream:
            if isinstance(item.event, RunFinished):
                break
    assert sorted(stopped) == ["a", "b"]
    with pytest.raises(ArgumentError, match="closed before it was read to its end"):
        _ = stream.results
    assert [item async for item in stream] == []


async def test_leaving_while_the_runs_wait_for_the_reader():
    async with stream_pipeline([saying("a b c d e", "a"), saying("f g h i j", "b")], "x", buffer=1) as stream:
        await anext(stream)
        await settled()


async def test_cancelling_the_reader_stops_all():
    stopped: list[str] = []
    begun = asyncio.Event()
    work = asyncio.ensure_future(read(stream_pipeline([forever("a", stopped, begun)], "x")))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert stopped == ["a"]


async def test_a_reader_that_gives_up_waiting_loses_nothing():
    go = asyncio.Event()

    async def wait(request):
        await go.wait()
        return "done"

    async with stream_pipeline([Agent(ScriptedModel(wait))], "x") as stream:
        assert isinstance((await anext(stream)).event, RunStarted)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        go.set()
        rest = [type(item.event) async for item in stream]
    assert rest[0] is TextDelta
    assert stream.results[0].output == "done"


async def test_a_stream_that_is_dropped_stops_its_runs():
    stopped: list[str] = []
    begun = asyncio.Event()
    stream = stream_pipeline([forever("a", stopped, begun)], "x")
    await anext(stream)
    await begun.wait()
    del stream
    gc.collect()
    await settled()
    assert stopped == ["a"]


async def test_nothing_happens_before_the_first_event_is_asked_for():
    agent = saying("a", "a")
    stream = stream_pipeline([agent], "x")
    await settled()
    assert not agent.model.requests
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(ArgumentError, match="closed"):
        _ = stream.results


async def test_a_stream_has_one_reader():
    stopped: list[str] = []
    async with stream_pipeline([forever("a", stopped)], "x") as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await settled()
        with pytest.raises(ArgumentError, match="another task"):
            await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_results_are_there_at_the_end_only():
    async with stream_pipeline([saying("a", "a")], "x") as stream:
        with pytest.raises(ArgumentError, match="read to its end"):
            _ = stream.results


async def test_no_agents_give_no_events():
    stream = stream_pipeline([], "x")
    assert await read(stream) == []
    assert stream.results == []


async def test_tools_see_one_task_and_the_deps():
    tasks = set()

    @tool
    async def wait(context: RunContext) -> str:
        """Wait."""
        tasks.add((context.deps, asyncio.current_task()))
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        tasks.add((context.deps, asyncio.current_task()))
        return "x"

    agent = Agent(
        ScriptedModel(lambda r: ToolCall.of("wait") if len(r.messages) == 1 else "done"), tools=[wait]
    )
    await read(stream_pipeline([agent], "x", deps="deps", buffer=1))
    assert len(tasks) == 1
    assert next(iter(tasks))[0] == "deps"


async def test_a_fan_out_streams_too():
    items = await read(FanoutPipeline([saying("a", "a"), saying("b", "b")], enable_gather=False).stream("x"))
    assert [item.place for item in items] == sorted(item.place for item in items)


@pytest.mark.parametrize("arguments", [{"buffer": 0}, {"max_concurrency": 0}, {"msg": ""}, {"agents": 7}])
async def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError):
        stream_pipeline(**({"agents": [saying("a", "a")]} | arguments))
