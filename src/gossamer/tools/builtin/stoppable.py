"""Work in a thread that ends when its time is over or nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from gossamer.tools.threads import run_in_thread

__all__ = ["run_stoppable"]

T = TypeVar("T")

# How often work is told to stop, and how many times, before its thread is given up.
_STOP_EVERY = 0.05
_STOPS = 60


async def run_stoppable(work: Callable[[], T], stop: Callable[[], None], seconds: float) -> T:
    """Run work in a thread that stops when it is told to: when the time is over, or the caller is cancelled.

    Args:
        work: takes no arguments; may block.
        stop: makes the work end soon; called again and again until it has, for it may not have begun.
        seconds: how long it may take.

    Raises:
        TimeoutError: the time is over, and the work has been told to stop.
    """
    task = asyncio.ensure_future(run_in_thread(work))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except GeneratorExit:  # dropped, and nothing may be awaited any more
        stop()
        task.cancel()
        raise
    except asyncio.CancelledError:
        await _stop(task, stop)
        raise
    if not done:
        await _stop(task, stop)
        raise TimeoutError
    return task.result()


async def _stop(task: asyncio.Task[Any], stop: Callable[[], None]) -> None:
    try:
        for _ in range(_STOPS):
            stop()
            done, _ = await asyncio.wait({task}, timeout=_STOP_EVERY)
            if done:
                break
        else:
            task.cancel()  # its thread is given up and counted
            await asyncio.wait({task})
    finally:
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # marks it as seen: it was stopped
