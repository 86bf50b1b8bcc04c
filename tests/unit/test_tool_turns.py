"""Several tools in one turn: overlap, order, exclusion and cancellation. Order is made by events and barriers."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.unit.test_tool_execution import (
    PATIENCE,
    agent_of,
    answer,
    answer_async,
    answer_async_generator,
    answer_generator,
    results_of,
)

from gossamer import Limits, Session, ToolCall, ToolError, tool
from gossamer.events import ToolProgress

# --- several at once -----------------------------------------------------------------------------------------------


async def test_parallel_calls_overlap_and_their_results_keep_the_order_of_the_calls():
    first_done, order = asyncio.Event(), []

    @tool
    async def meet(name: str) -> str:
        if name == "a":  # can only end after b, so the two must overlap
            await first_done.wait()
        order.append(name)
        first_done.set()
        return name

    results = await asyncio.wait_for(
        results_of(meet, calls=[ToolCall.of("meet", name=name) for name in "abc"]), PATIENCE
    )
    assert [result.content for result in results] == ["a", "b", "c"]
    assert order[0] != "a"


async def test_parallel_synchronous_calls_overlap():
    barrier = threading.Barrier(3, timeout=PATIENCE)

    @tool
    def meet(name: str) -> str:
        barrier.wait()
        return name

    results = await results_of(meet, calls=[ToolCall.of("meet", name=name) for name in "abc"])
    assert [(result.content, result.outcome) for result in results] == [("a", "ok"), ("b", "ok"), ("c", "ok")]


async def count_overlap(limits=None, **options):
    running = most = 0

    @tool(**options)
    async def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return "ok"

    await results_of(work, calls=[ToolCall.of("work")] * 6, limits=limits)
    return most


async def test_all_calls_of_a_turn_run_at_once_unless_limited():
    assert await count_overlap() == 6
    assert await count_overlap(Limits(max_parallel_tools=2)) == 2
    assert await count_overlap(exclusive=True) == 1


async def test_an_exclusive_tool_runs_alone_after_the_others():
    order = []

    @tool(exclusive=True)
    async def alone() -> str:
        order.append("alone begins")
        await asyncio.sleep(0)
        order.append("alone ends")
        return "alone"

    @tool
    async def other() -> str:
        await asyncio.sleep(0)
        order.append("other")
        return "other"

    calls = [ToolCall.of("alone"), ToolCall.of("other"), ToolCall.of("other")]
    results = await results_of(alone, other, calls=calls)
    assert order == ["other", "other", "alone begins", "alone ends"]
    assert [result.content for result in results] == ["alone", "other", "other"]


async def test_a_mixed_turn_gives_every_call_its_result_in_order():
    made = [
        tool(inline=True, name="inline")(answer),
        tool(name="thread")(answer),
        tool(name="async")(answer_async),
        tool(name="generator")(answer_generator),
        tool(name="stream")(answer_async_generator),
    ]
    names = ["async", "inline", "thread", "stream", "generator", "missing", "inline"]
    calls = [ToolCall.of(name, word=str(number)) for number, name in enumerate(names)]
    results = await results_of(*made, calls=calls)
    assert [result.name for result in results] == names
    assert [result.content for result in results if result.outcome == "ok"] == [
        f"got {number}" for number in (0, 1, 2, 3, 4, 6)
    ]


@pytest.mark.parametrize("inline", [True, False])
async def test_a_tool_error_stops_the_other_calls_of_the_turn(inline):
    stopped = []

    @tool
    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)
        return "never"

    def break_down() -> str:
        raise ToolError("the printer burns")

    session = Session()
    calls = [ToolCall.of("hang"), ToolCall.of("break_down")]
    with pytest.raises(ToolError, match="the printer burns"):
        await agent_of(hang, tool(inline=inline)(break_down), calls=calls).run("go", session=session)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    outcomes = [part.outcome for part in session.messages[-1].parts]
    assert outcomes in (["interrupted", "error"], ["not_run", "error"])
    assert len(stopped) == outcomes.count("interrupted")


# --- cancellation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("streamed", [True, False])
async def test_cancelled_tools_leave_results_that_say_interrupted(count, streamed):
    running, cleaned = [], []
    all_running = asyncio.Event()

    @tool
    async def hang(number: int) -> str:
        running.append(number)
        if len(running) == count:
            all_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)
        return "never"

    session = Session()
    calls = [ToolCall.of("hang", number=number) for number in range(count)]
    agent = agent_of(hang, calls=calls, answer="afterwards")

    async def read():
        async with agent.stream("go", session=session) as stream:
            async for _ in stream:
                pass

    run = asyncio.ensure_future(read() if streamed else agent.run("go", session=session))
    await asyncio.wait_for(all_running.wait(), PATIENCE)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert sorted(cleaned) == list(range(count))
    asked, told = session.messages[-2:]
    assert [part.outcome for part in told.parts] == ["interrupted"] * count
    assert [part.call_id for part in told.parts] == [call.id for call in asked.tool_calls]
    assert (await agent.run("again", session=session)).output == "afterwards"


async def test_a_stream_that_is_left_stops_its_tool():
    cleaned = []

    @tool
    async def work():
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    session = Session()
    async with agent_of(work, calls=ToolCall.of("work")).stream("go", session=session) as stream:
        async for event in stream:
            if isinstance(event, ToolProgress):
                break
    assert cleaned == [True]
    assert [part.outcome for part in session.messages[-1].parts] == ["interrupted"]
