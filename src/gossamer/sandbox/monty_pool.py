"""What a sandbox on Monty holds in one event loop: the library's pool of processes, and who has one of them."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from gossamer.errors import SandboxClosedError, SandboxUnavailableError
from gossamer.holding import running_loop
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.places import Places
from gossamer.telemetry import metrics

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty, AsyncMontySession

__all__ = ["MontyPool", "MontyWorker"]

_ADVICE = "pip install 'gossamer[sandbox]'"

_CLOSED = "the sandbox was closed while a session of it began"

# How long, in seconds, a process is past its processor time, in an operation that asks no clock, before it is killed.
_GRACE_SECONDS = 0.5

# How long, in seconds, the exit of Python waits for loops of other threads; and for the library's threads to let go.
_EXIT_SECONDS = 5.0
_SETTLING_SECONDS = 0.02


class _Session(Protocol):
    """What holds a worker."""

    async def aclose(self) -> None: ...


class MontyPool:
    """Processes that wait for sessions; one for each event loop.

    Args:
        limits: what a session may use.
        places: who may have a process.
        processes: how many there may be.
        warm: how many are started ahead.
    """

    __slots__ = (
        "__weakref__",
        "_library",
        "_limits",
        "_loop",
        "_opening",
        "_options",
        "_places",
        "_processes",
        "_sessions",
        "_warm",
        "_workers",
        "dropped",
    )

    def __init__(self, limits: SandboxLimits, places: Places, processes: int, warm: int) -> None:
        if _library_is_lost():
            raise SandboxUnavailableError(
                "this process was forked from one that had used Monty, whose threads are gone with the fork;"
                " start processes by spawn, or use the sandbox in the child alone"
            )
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._places = places
        self._processes = processes
        self._warm = warm
        self._library: AsyncMonty | None = None
        self._opening: asyncio.Future[Any] | None = None
        self._workers: set[MontyWorker] = set()
        self._sessions: WeakSet[_Session] = WeakSet()
        self.dropped = False
        self._options: dict[str, Any] = {
            "limits": {
                "max_memory": limits.memory_bytes,
                "max_feed_duration_secs": float(min(limits.cpu_seconds, limits.timeout)),
                "max_suspensions": 2**31,  # of a session as a whole; ours are counted for each run
            },
            "os_policy": {"sleep": "call_host"},  # so that it ends with the run
        }
        _all.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it belongs to."""
        return self._loop

    async def open(self) -> AsyncMonty:
        """Start the processes that wait, where it was not done.

        Raises:
            SandboxUnavailableError: it cannot be done; the message says why.
            SandboxClosedError: the sandbox was closed meanwhile.
        """
        opening = self._opening
        if opening is None:
            self._library = _library(self._processes, min(self._warm, self._processes), self._limits)
            opening = self._opening = asyncio.ensure_future(self._library.__aenter__())
        if not opening.done():
            try:
                await asyncio.shield(opening)
            except Exception as error:
                if self._opening is opening:
                    self._opening = None  # the next one tries again
                raise _unavailable(error) from error
        if self._library is None:
            raise SandboxClosedError(_CLOSED)
        return self._library

    async def worker(self, session: _Session) -> MontyWorker:
        """Wait for a place, and give a process with a new interpreter in it.

        Args:
            session: who has it; closed with the pool.

        Raises:
            SandboxBusyError: no place was free in time, or too many wait for one.
            SandboxClosedError: the sandbox was closed meanwhile.
            SandboxUnavailableError: it cannot be started; the message says why.
        """
        await self._places.enter()
        try:
            library = await self.open()
        except BaseException:
            self._places.leave()
            raise
        worker = MontyWorker(self, library.checkout(**self._options))
        self._workers.add(worker)
        try:
            await worker.enter()
        except BaseException as error:
            worker.abandon()
            if isinstance(error, Exception):
                raise _unavailable(error) from error
            raise
        if self._library is not library:
            await worker.end()
            raise SandboxClosedError(_CLOSED)
        self._sessions.add(session)
        if metrics.recorder is not None:
            metrics.recorder.sandbox_started("monty")
        return worker

    def left(self, worker: MontyWorker) -> None:
        """Take a place back; called once for each worker."""
        self._workers.discard(worker)
        self._places.leave()

    async def aclose(self) -> None:
        """End all sessions and processes."""
        self._places.close()
        for session in list(self._sessions):
            await session.aclose()
        for worker in list(self._workers):
            await worker.end()
        opening, library = self._opening, self._library
        self._opening = self._library = None
        if opening is not None and library is not None:
            await asyncio.wait((opening,))
            await library.__aexit__(None, None, None)

    def close_at_exit(self, seconds: float) -> None:
        """Close it from the main thread, where its loop still runs in another one.

        Args:
            seconds: how long that may take.
        """
        if self.dropped or not self._loop.is_running():
            return
        closing = asyncio.run_coroutine_threadsafe(self.aclose(), self._loop)
        try:
            closing.result(seconds)
        except Exception:  # noqa: BLE001 - nothing may keep Python from its exit
            closing.cancel()

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of what belongs to the parent, and never clean it up.

        Where the library lets go of a process it kills it, also one that is its parent's. So its objects live as long
        as the child does, and past the end of Python in it.
        """
        self.dropped = True
        _keep_for_ever((self._library, [worker.raw for worker in self._workers]))


class MontyWorker:
    """A process that a session has, with one interpreter in it.

    Attributes:
        raw: the library's session.
    """

    __slots__ = ("_ending", "_entering", "_pool", "raw")

    def __init__(self, pool: MontyPool, raw: AsyncMontySession) -> None:
        self.raw = raw
        self._pool = pool
        self._entering: asyncio.Future[Any] | None = None
        self._ending: asyncio.Future[Any] | None = None

    async def enter(self) -> None:
        """Begin the interpreter. Who is cancelled meanwhile has to end it all the same.

        The library loses a place for ever where this is given up in the middle; so it is gone through with.
        """
        self._entering = asyncio.ensure_future(self.raw.__aenter__())
        await asyncio.shield(self._entering)

    async def end(self) -> None:
        """End the interpreter and give the process back; one that computes is killed. Twice is once.

        What is awaited of it has to be cancelled before.
        """
        with suppress(Exception):  # a process that is dead already has no end
            await asyncio.shield(self._begin_to_end())

    def abandon(self) -> None:
        """Begin to end it, from any thread: nobody has its session any more."""
        if self._ending is not None or self._pool.dropped or self._pool.loop.is_closed():
            return
        if running_loop() is self._pool.loop:
            self._begin_to_end()
        else:
            self._pool.loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> asyncio.Future[Any]:
        if self._ending is None:
            entered = self._entering is not None and self._entering.done()
            self._ending = asyncio.ensure_future(
                self.raw.__aexit__(None, None, None) if entered else self._leave()
            )
            self._ending.add_done_callback(self._ended)
        return self._ending

    async def _leave(self) -> None:
        if self._entering is not None:
            await asyncio.wait((self._entering,))
            if self._entering.exception() is None:
                await self.raw.__aexit__(None, None, None)

    def _ended(self, ending: asyncio.Future[Any]) -> None:
        if not ending.cancelled():
            ending.exception()  # counts as seen
        self._pool.left(self)


def _library(processes: int, warm: int, limits: SandboxLimits) -> AsyncMonty:
    try:
        from pydantic_monty import AsyncMonty
    except ImportError as error:
        raise SandboxUnavailableError(f"Monty needs the library pydantic-monty: {_ADVICE}") from error
    _begin_to_settle_at_exit()
    # The last resort, where nothing on this side goes on: a loop that was closed over a run, or is held up.
    return AsyncMonty(
        min_processes=warm,
        max_processes=processes,
        request_timeout=limits.timeout + 5.0,
        feed_duration_limit_grace=_GRACE_SECONDS,
    )


def _unavailable(error: Exception) -> SandboxUnavailableError:
    if isinstance(error, SandboxUnavailableError):
        return error
    return SandboxUnavailableError(f"no process of Monty could be started ({error}); {_ADVICE} anew")


# --- forks, and the end of Python -------------------------------------------------------------------------------------

_all: WeakSet[MontyPool] = WeakSet()

# The process in which the library's threads run; None before it is used.
_used_in: int | None = None


def _library_is_lost() -> bool:
    return _used_in is not None and _used_in != os.getpid()


def _keep_for_ever(things: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(things))


def _begin_to_settle_at_exit() -> None:
    global _used_in  # noqa: PLW0603 - one library a process
    if _used_in is None:
        _used_in = os.getpid()
        atexit.register(_settle)


def _settle() -> None:
    """Close what loops of other threads hold, and let the library's threads come to rest.

    One of them that comes back into Python while Python ends would abort the process: it has told a result, and waits
    for the interpreter just to put that away. A moment in which nobody else has the interpreter is enough.
    """
    if _library_is_lost():
        return
    deadline = monotonic() + _EXIT_SECONDS
    for pool in list(_all):
        pool.close_at_exit(max(deadline - monotonic(), 0.0))
    threading.Event().wait(_SETTLING_SECONDS)
