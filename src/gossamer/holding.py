"""Who holds a session: one run at a time; others wait in line, each on a loop of its own, or are refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, SessionBusyError

__all__ = ["Holding", "WhenBusy", "running_loop"]

# What a run does while another one holds the session: wait its turn, or raise SessionBusyError.
WhenBusy: TypeAlias = Literal["wait", "refuse"]


class Holding:
    """The run that holds a session, and the line behind it, first come, first served.

    Args:
        name: the session's, for errors.
        when_busy: see `Session`.
        max_waiting: see `Session`.

    Attributes:
        holder: the run that holds the session, or None.
        at_end: told of each run that lets go of the session, and of the session's last record, before the next run
            holds it; None where nobody wants to know.

    Raises:
        ArgumentError: an argument is out of range.
    """

    __slots__ = ("_turns", "at_end", "holder", "max_waiting", "name", "when_busy")

    def __init__(self, name: str, when_busy: WhenBusy, max_waiting: int) -> None:
        if when_busy not in {"wait", "refuse"}:
            raise ArgumentError(f"when_busy must be 'wait' or 'refuse', not {when_busy!r}")
        if max_waiting < 0:
            raise ArgumentError(f"max_waiting must not be negative, not {max_waiting}")
        self.name = name
        self.when_busy: WhenBusy = when_busy
        self.max_waiting = max_waiting
        self.holder: RunContext[Any] | None = None
        self.at_end: Callable[[RunContext[Any], Any], None] | None = None
        self._turns: deque[asyncio.Future[None]] | None = None

    async def take(self, context: RunContext[Any]) -> None:
        """Wait until no other run holds the session, then hold it for a run.

        Raises:
            SessionBusyError: the run's own ancestor holds it, the session refuses, or too many wait.
        """
        if self.holder is not None:
            self._may_wait(context, self.holder)
            await self._wait()
        self.holder = context

    def end(self, records: Sequence[Any]) -> None:
        """Let go of the session at the end of a run, whose last record whoever wants to know is told."""
        if self.at_end is not None and self.holder is not None and records:
            self.at_end(self.holder, records[-1])
        self.release()

    def release(self) -> None:
        """Let go of the session; the run that has waited longest is next."""
        if self._turns is None:
            self.holder = None
            return
        self.holder = _HANDED_OVER  # first: who is next may wake up on another thread
        while self._turns:
            turn = self._turns.popleft()
            if turn.get_loop().is_closed() or turn.done():
                continue
            if turn.get_loop() is running_loop():
                turn.set_result(None)
            else:
                turn.get_loop().call_soon_threadsafe(self._call, turn)
            return
        self.holder = None

    def must_be_free(self, what: str) -> None:
        """Check that no run holds the session.

        Raises:
            SessionBusyError: one does; the message says what cannot be done.
        """
        if self.holder is not None:
            raise SessionBusyError(
                f"cannot {what}: session {self.name!r} is held by run {self.holder.run_id}"
            )

    def _may_wait(self, context: RunContext[Any], holder: RunContext[Any]) -> None:
        around = context.parent
        while around is not None:
            if around is holder:  # it would wait for itself
                raise SessionBusyError(
                    f"session {self.name!r} is held by run {around.run_id}, in whose tool this run was started; "
                    "give the inner run a session of its own"
                )
            around = around.parent
        if self.when_busy == "refuse":
            raise SessionBusyError(f"session {self.name!r} is held by run {holder.run_id}; wait for its end")

    async def _wait(self) -> None:
        if self._turns is None:
            self._turns = deque(maxlen=self.max_waiting)
        turns = self._turns
        if len(turns) >= self.max_waiting:
            raise SessionBusyError(f"{len(turns)} runs already wait for session {self.name!r}")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # handed over in the very moment of the cancellation
                self.release()
            elif turn in turns:  # it is not where the session was let go in that moment
                turns.remove(turn)
            raise

    def _call(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # cancelled meanwhile: the next one, then
            self.release()
        else:
            turn.set_result(None)


# Holds a session between the moment when one run lets go and the moment when the next one wakes up.
_HANDED_OVER: RunContext[Any] = RunContext("", None, run_id="(the next in line)", ended=True)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
