"""A thread that works for a store: what was asked for meanwhile is done together."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from gossamer.errors import StoreBusyError, StoreError
from gossamer.holding import running_loop
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["Job", "StoreThread"]

_MAX_TOGETHER = 1000
_MAX_WAITING = 100_000
_PAUSE_SECONDS = 10.0


class Job:
    """Something that was asked for, with what came of it.

    Attributes:
        work: does it, on the store's thread; how it is called is the store's affair.
        result: what it gave.
        error: what it raised, or None.
        future: who waits for it; nobody where no loop ran when it was asked for.
    """

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = asyncio.Future(loop=loop or _no_loop())
        self.result: Any = None
        self.error: BaseException | None = None


class StoreThread:
    """One thread and the line before it.

    The thread takes all jobs that wait, up to 1,000, and has them done together: while one transaction is being synced
    to disk the next one gathers. Loops are woken once for all of their jobs.

    Args:
        kind: what it does: `write` or `read`.
        do: does jobs, in order, and sets their results or errors; raises nothing.
        close: lets go of what the thread used, called on it at the end.
    """

    def __init__(self, kind: str, do: Callable[[list[Job]], None], close: Callable[[], None]) -> None:
        self._kind = kind
        self._do = do
        self._close = close
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stopping = threading.Lock()
        self._working = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"gossamer-store-{kind}", daemon=True)
        self._thread.start()

    def submit(self, work: Any, *, always: bool = False) -> asyncio.Future[Any] | None:
        """Ask for something.

        Args:
            work: see `Job`.
            always: also where too much waits, as what is let go must not stay held.

        Returns:
            What to await for its result; cancelling it stops the waiting alone. It fails with StoreBusyError where
            100,000 jobs wait already. None where the thread was stopped.
        """
        job = Job(work, running_loop())
        if not always and self._jobs.qsize() >= _MAX_WAITING:
            if job.loop is not None:
                job.future.set_exception(
                    StoreBusyError(
                        f"{_MAX_WAITING} writes and reads wait for the store; ask for less at once"
                    )
                )
            return job.future
        with self._stopping:
            if self._stopped:
                return None
            self._jobs.put(job)
        return job.future

    @property
    def waiting(self) -> int:
        """How many jobs wait, the one under way not counted."""
        return self._jobs.qsize()

    def stop(self) -> None:
        """Let the thread end once it has done what was asked for so far; nothing more is taken."""
        with self._stopping:
            if not self._stopped:
                self._stopped = True
                self._jobs.put(None)

    def pause(self) -> bool:
        """Hold the thread between two pieces of work, for a fork; tells whether that could be done in time."""
        return self._working.acquire(timeout=_PAUSE_SECONDS)

    def go_on(self) -> None:
        """Let it go on after `pause`."""
        self._working.release()

    def join(self, seconds: float) -> None:
        """Wait for its end, for a limited time."""
        self._thread.join(seconds)

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def _run(self) -> None:
        jobs = self._jobs
        more = True
        while more:
            waiting: list[Job] = []
            job = jobs.get()
            while job is not None:
                waiting.append(job)
                if len(waiting) >= _MAX_TOGETHER:
                    break
                try:
                    job = jobs.get_nowait()
                except Empty:
                    break
            else:
                more = False
            if waiting:
                began = perf_counter()
                try:
                    with self._working:
                        self._do(waiting)
                except BaseException as error:  # noqa: BLE001 - nobody may wait for ever
                    for one in waiting:
                        one.error = one.error or StoreError(f"{type(error).__name__}: {error}")
                if metrics.recorder is not None:
                    failed = sum(job.error is not None for job in waiting)
                    metrics.recorder.store_worked(
                        self._kind, len(waiting) - failed, failed, perf_counter() - began
                    )
                _tell(waiting)
        with self._working:
            self._close()


@functools.cache
def _no_loop() -> asyncio.AbstractEventLoop:
    """Give a closed loop, for futures that nobody awaits."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def _tell(jobs: list[Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        if job.loop is None:
            continue
        by_loop.setdefault(job.loop, []).append(job)
    for loop, ours in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, ours)
        except RuntimeError:  # the loop is closed: nobody waits any more
            for error in {str(job.error) for job in ours if job.error is not None}:
                logger.error("nobody waits any more who could be told: %s", error)


def _settle(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():  # cancelled meanwhile
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
