"""Threads of synchronous tools: bounded, reused, given up when stuck, never in the way of the exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from time import monotonic

import pytest

from gossamer import Agent, Session, ToolCall, ToolError, tool
from gossamer.models import ScriptedModel
from gossamer.tools import MAX_ABANDONED, MAX_THREADS, thread_statistics
from gossamer.tools.threads import MAX_WAITING, run_in_thread

PATIENCE = 20  # seconds before a test that hangs is failed


async def until(condition):
    """Let the loop and other threads go on until something is so."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, thread_statistics()
        await asyncio.sleep(0.001)


@pytest.fixture
async def gate():
    """An event that holds tools up; opened at the end, when every thread must come back."""
    gate = threading.Event()
    yield gate
    gate.set()
    await until(lambda: thread_statistics().abandoned == 0)
    await until(lambda: thread_statistics().idle == thread_statistics().threads)


async def results_of(made, count, session=None):
    calls = [ToolCall.of(made.name) for _ in range(count)]
    run = Agent(ScriptedModel([calls, "done"]), tools=[made]).run("go", session=session)
    return (await run).new_messages[2].parts


async def test_no_more_than_the_bound_run_at_once_and_the_others_wait():
    lock, full = threading.Lock(), threading.Event()
    running = most = 0

    @tool
    def work() -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == MAX_THREADS:
                full.set()
        assert full.wait(PATIENCE)
        with lock:
            running -= 1
        return "ok"

    results = await results_of(work, MAX_THREADS + 5)
    assert [result.outcome for result in results] == ["ok"] * (MAX_THREADS + 5)
    assert most == MAX_THREADS
    assert thread_statistics().threads <= MAX_THREADS


async def test_threads_are_used_again():
    names = set()
    for _ in range(20):
        names.add(await run_in_thread(threading.get_ident))
    assert len(names) < 20


async def test_a_tool_that_hangs_is_given_up_and_its_thread_replaced(gate):
    @tool(timeout=0.05)
    def hang() -> str:
        gate.wait(PATIENCE)
        return "late"

    (result,) = await results_of(hang, 1)
    assert result.outcome == "timeout"
    assert thread_statistics().abandoned == 1
    assert await run_in_thread(lambda: "another") == "another"
    gate.set()
    await until(lambda: thread_statistics().abandoned == 0)


async def test_a_generator_that_hangs_is_given_up_too(gate):
    @tool(timeout=0.05)
    def hang():
        yield 1
        gate.wait(PATIENCE)
        yield 2

    (result,) = await results_of(hang, 1)
    assert result.outcome == "timeout"
    assert thread_statistics().abandoned == 1


async def test_a_cancelled_run_gives_up_its_thread_and_says_interrupted(gate):
    started = threading.Event()

    @tool
    def hang() -> str:
        started.set()
        gate.wait(PATIENCE)
        return "late"

    session = Session()
    run = asyncio.ensure_future(results_of(hang, 1, session))
    await until(started.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert thread_statistics().abandoned == 1
    assert [part.outcome for part in session.messages[-1].parts] == ["interrupted"]


async def test_past_the_bound_of_stuck_threads_calls_are_refused(gate):
    @tool(timeout=0.2)
    def hang() -> str:
        gate.wait(PATIENCE)
        return "late"

    @tool
    def quick() -> str:
        return "quick"

    while (stuck := thread_statistics().abandoned) < MAX_ABANDONED:
        await results_of(hang, min(MAX_THREADS, MAX_ABANDONED - stuck))
    with pytest.raises(ToolError, match=f"{MAX_ABANDONED} threads are stuck in synchronous tools"):
        await results_of(quick, 1)
    assert (await results_of(tool(name="fast", inline=True)(lambda: "inline"), 1))[0].content == "inline"

    gate.set()
    await until(lambda: thread_statistics().abandoned == 0)
    assert (await results_of(quick, 1))[0].content == "quick"


async def test_giving_up_never_starts_threads_without_bound(gate):
    started = []

    def hang():
        started.append(1)
        gate.wait(PATIENCE)

    most = MAX_ABANDONED - 1 + MAX_THREADS  # one is abandoned and not replaced when the bound is reached
    tasks = [asyncio.ensure_future(run_in_thread(hang)) for _ in range(most + 20)]
    for number, task in enumerate(tasks[:most]):
        await until(lambda number=number: len(started) == min(MAX_THREADS + number, most))
        task.cancel()
        await asyncio.wait([task])

    assert len(started) == most
    assert (thread_statistics().abandoned, thread_statistics().threads) == (most, 0)
    for refused in await asyncio.gather(*tasks[most:], return_exceptions=True):
        assert isinstance(refused, ToolError)
    assert thread_statistics().waiting == 0


async def test_more_calls_than_may_wait_are_refused(gate):
    tasks = [
        asyncio.ensure_future(run_in_thread(lambda: gate.wait(PATIENCE)))
        for _ in range(MAX_THREADS + MAX_WAITING)
    ]
    await until(lambda: thread_statistics().waiting == MAX_WAITING)
    with pytest.raises(ToolError, match=f"{MAX_WAITING} calls of synchronous tools already wait"):
        await run_in_thread(lambda: "one more")
    gate.set()
    assert all(await asyncio.gather(*tasks))


async def test_a_call_that_is_cancelled_while_it_waits_never_runs(gate):
    ran = []
    busy = [asyncio.ensure_future(run_in_thread(lambda: gate.wait(PATIENCE))) for _ in range(MAX_THREADS)]
    waiting = asyncio.ensure_future(run_in_thread(lambda: ran.append(1)))
    await until(lambda: thread_statistics().waiting == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (thread_statistics().waiting, thread_statistics().abandoned) == (0, 0)
    gate.set()
    await asyncio.gather(*busy)
    assert not ran


STUCK = """
    import threading
    from gossamer import Agent, ToolCall, tool
    from gossamer.models import ScriptedModel
    from gossamer.tools import thread_statistics

    @tool(timeout=0.05)
    def hang() -> str:
        threading.Event().wait()

    agent = Agent(ScriptedModel([ToolCall.of("hang"), "done"]), tools=[hang])
"""


@pytest.mark.parametrize(
    "run",
    ['result = agent.run_sync("go")', 'import asyncio; result = asyncio.run(agent.run("go"))'],
    ids=["run_sync", "asyncio"],
)
def test_a_stuck_thread_never_holds_up_the_exit(run):
    program = textwrap.dedent(STUCK) + f"{run}\nprint(result.output, thread_statistics().abandoned)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done 1\n", "", 0)


def test_a_loop_that_is_closed_while_a_tool_runs_does_no_harm():
    gate, started = threading.Event(), threading.Event()

    def hang():
        started.set()
        gate.wait(PATIENCE)

    async def leave():
        task = asyncio.ensure_future(run_in_thread(hang))
        await until(started.is_set)
        task.cancel()

    asyncio.run(leave())
    assert thread_statistics().abandoned == 1
    gate.set()
    asyncio.run(until(lambda: thread_statistics().abandoned == 0))
