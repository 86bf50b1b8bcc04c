"""The places of a sandbox: so many sessions at once, the others wait in order, and not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter

from gossamer.errors import SandboxBusyError, SandboxClosedError
from gossamer.telemetry import metrics

__all__ = ["Places"]


class Places:
    """Counts who is in, and lets those in who wait, first come, first served.

    Args:
        sandbox: its name, in messages and metrics.
        size: how many may be in at once.
        max_waiting: how many may wait.
        wait_timeout: how long, in seconds.
    """

    __slots__ = ("_max_waiting", "_name", "_size", "_taken", "_wait_timeout", "_waiting")

    def __init__(self, sandbox: str, size: int, max_waiting: int, wait_timeout: float) -> None:
        self._name = sandbox
        self._size = size
        self._max_waiting = max_waiting
        self._wait_timeout = wait_timeout
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """How many are in."""
        return self._taken

    async def enter(self) -> None:
        """Wait for a place, and take it.

        Raises:
            SandboxBusyError: none was free in time, or too many wait already.
            SandboxClosedError: the sandbox was closed meanwhile.
        """
        if self._taken < self._size and not self._waiting:
            self._taken += 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise SandboxBusyError(
                f"{len(self._waiting):,} sessions wait for one of {self._size} places of the sandbox {self._name} already;"
                " close sessions that are done, or raise its size or max_waiting"
            )
        began = perf_counter()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        timer = loop.call_later(self._wait_timeout, self._too_late, turn)
        try:
            await turn
        except BaseException:
            if (
                turn.done() and not turn.cancelled() and turn.exception() is None
            ):  # it came, and nobody takes it
                self.leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        finally:
            timer.cancel()
            if metrics.recorder is not None:
                metrics.recorder.sandbox_waited(self._name, perf_counter() - began)

    def leave(self) -> None:
        """Give a place back; the next one who waits has it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1

    def close(self) -> None:
        """Send away all who wait."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(
                    SandboxClosedError(f"the sandbox {self._name} was closed while its place was waited for")
                )

    def _too_late(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._waiting.remove(turn)
            turn.set_exception(
                SandboxBusyError(
                    f"none of {self._size} places of the sandbox {self._name} was free within {self._wait_timeout:g} seconds;"
                    " close sessions that are done, or raise its size or wait_timeout"
                )
            )
