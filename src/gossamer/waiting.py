"""Runs that wait in line for a session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import SessionBusyError

__all__ = ["WaitingLine", "must_not_hold_around"]


def must_not_hold_around(context: RunContext[Any], holder: RunContext[Any], session: str) -> None:
    """Check that a run does not ask for a session that a run around it holds: it would wait for itself.

    Raises:
        SessionBusyError: it does.
    """
    ancestor = context.parent
    while ancestor is not None:
        if ancestor is holder:
            raise SessionBusyError(
                f"session {session!r} is held by run {ancestor.run_id}, in whose tool this run was started; "
                "give the inner run a session of its own"
            )
        ancestor = ancestor.parent


class WaitingLine:
    """Those who wait for a session, first come, first served; each may wait on a loop of its own.

    Args:
        name: the session's, for errors.
        most: how many may wait.
        hand_on: called where the one whose turn it is has gone away; lets go of the session.
    """

    __slots__ = ("_hand_on", "_turns", "most", "name")

    def __init__(self, name: str, most: int, hand_on: Callable[[], None]) -> None:
        self.name = name
        self.most = most
        self._hand_on = hand_on
        self._turns: deque[asyncio.Future[None]] = deque(maxlen=most)

    async def wait(self) -> None:
        """Wait for one's turn.

        Raises:
            SessionBusyError: too many wait.
        """
        if len(self._turns) >= self.most:
            raise SessionBusyError(f"{len(self._turns)} runs already wait for session {self.name!r}")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # handed over in the very moment of the cancellation
                self._hand_on()
            elif turn in self._turns:  # it is not where the session was let go in that moment
                self._turns.remove(turn)
            raise

    def call_next(self) -> bool:
        """Tell the one who has waited longest that it is their turn; False where nobody waits."""
        while self._turns:
            turn = self._turns.popleft()
            if turn.get_loop().is_closed() or turn.done():
                continue
            if turn.get_loop() is _running_loop():
                turn.set_result(None)
            else:
                turn.get_loop().call_soon_threadsafe(self._call, turn)
            return True
        return False

    def _call(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # cancelled meanwhile: the next one, then
            self._hand_on()
        else:
            turn.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
