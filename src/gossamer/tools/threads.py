"""Threads for synchronous tools: bounded, reused, daemonic, and given up when their tool does not return.

A thread cannot be stopped. When its tool times out or is cancelled, the thread is abandoned: it is counted, another
may take its place, and it never holds up the exit of the process. Past `MAX_ABANDONED` no more calls are taken.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import msgspec

from gossamer.errors import ToolError

__all__ = [
    "MAX_ABANDONED",
    "MAX_THREADS",
    "MAX_WAITING",
    "ThreadStatistics",
    "run_in_thread",
    "thread_statistics",
]

MAX_THREADS = min(64, (os.cpu_count() or 1) * 8 + 8)
MAX_ABANDONED = 32
MAX_WAITING = 10_000


class ThreadStatistics(msgspec.Struct, frozen=True):
    """The state of the threads for synchronous tools.

    Attributes:
        threads: threads at work or idle, abandoned ones not counted.
        idle: those with nothing to do.
        waiting: calls that wait for a thread.
        abandoned: threads whose tool was given up and has not returned.
    """

    threads: int
    idle: int
    waiting: int
    abandoned: int


class _Job:
    __slots__ = ("abandoned", "context", "function", "future", "loop", "running")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.context = copy_context()
        self.running = False
        self.abandoned = False


class _Threads:
    """The threads of one process."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.idle: list[SimpleQueue[_Job]] = []
        self.waiting: deque[_Job] = deque()
        self.threads = 0
        self.abandoned = 0

    def submit(self, job: _Job) -> None:
        with self.lock:
            if self.abandoned >= MAX_ABANDONED:
                raise _stuck(self.abandoned)
            if self.idle:
                self.idle.pop().put(job)
            elif self.threads < MAX_THREADS:
                self.threads += 1
                self._start(job)
            elif len(self.waiting) < MAX_WAITING:
                self.waiting.append(job)
            else:
                raise ToolError(
                    f"{MAX_WAITING} calls of synchronous tools already wait for one of {MAX_THREADS} threads"
                )

    def give_up(self, job: _Job) -> None:
        """Stop waiting for a job: drop it where it has not begun, else abandon its thread and replace it.

        Past the bound threads are replaced no more; when none is left, the calls that wait are refused.
        """
        with self.lock:
            if job.abandoned:
                return
            job.abandoned = True
            if not job.running:
                if job in self.waiting:
                    self.waiting.remove(job)
                return
            self.abandoned += 1
            self.threads -= 1
            if self.abandoned < MAX_ABANDONED:
                if self.waiting:
                    self.threads += 1
                    self._start(self.waiting.popleft())
            elif not self.threads:
                while self.waiting:
                    _deliver(self.waiting.popleft(), None, _stuck(self.abandoned))

    def _start(self, job: _Job) -> None:
        Thread(target=self._work, args=(job,), name="gossamer-tool", daemon=True).start()

    def _work(self, job: _Job | None) -> None:
        inbox: SimpleQueue[_Job] = SimpleQueue()
        while job is not None:
            with self.lock:
                job.running = not job.abandoned
            if job.running:
                _run(job)
            with self.lock:
                if job.running and job.abandoned:  # given up while it ran, and back after all
                    self.abandoned -= 1
                    return
                job.running = False
                job = self.waiting.popleft() if self.waiting else None
                if job is None:
                    self.idle.append(inbox)
            if job is None:
                job = inbox.get()


def _stuck(count: int) -> ToolError:
    return ToolError(
        f"{count} threads are stuck in synchronous tools that were given up; no more are started. "
        "Make those tools async or let them return in time"
    )


def _run(job: _Job) -> None:
    try:
        value = job.context.run(job.function)
    except BaseException as error:  # noqa: BLE001 - whatever the tool raised belongs to the waiting run
        _deliver(job, None, error)
    else:
        _deliver(job, value, None)


def _deliver(job: _Job, value: Any, error: BaseException | None) -> None:
    try:
        job.loop.call_soon_threadsafe(_settle, job.future, value, error)
    except RuntimeError:  # the loop was closed while the tool ran; nobody waits any more
        return


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration | asyncio.CancelledError):  # a future takes them for something else
        future.set_exception(RuntimeError(f"the tool raised {type(error).__name__}"))
    else:
        future.set_exception(error)


_threads = _Threads()


def _renew() -> None:
    global _threads  # noqa: PLW0603 - a forked child has none of its parent's threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


async def run_in_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a thread, with the caller's context variables.

    Cost: one future and two hops between threads. Waits in order when all `MAX_THREADS` threads are busy.

    Args:
        function: takes no arguments; may block.

    Returns:
        What the function returns.

    Raises:
        ToolError: `MAX_WAITING` calls wait already, or `MAX_ABANDONED` threads are stuck.
    """
    threads = _threads
    job = _Job(function, asyncio.get_running_loop())
    threads.submit(job)
    try:
        return await job.future
    except BaseException:
        threads.give_up(job)
        raise


def thread_statistics() -> ThreadStatistics:
    """Give the present state of the threads for synchronous tools."""
    threads = _threads
    return ThreadStatistics(threads.threads, len(threads.idle), len(threads.waiting), threads.abandoned)
