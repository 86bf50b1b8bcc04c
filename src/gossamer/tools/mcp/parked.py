"""Calls whose runs have paused: they wait for a person, or for their run to come back for the result."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, TypeAlias

from gossamer.context import RunContext
from gossamer.tools.mcp.calls import Ongoing

__all__ = ["MAX_PARKED", "Key", "Parked", "Waiting"]

# Most calls that wait, of one connection; beyond this the oldest is given up.
MAX_PARKED = 1_000

# How often it is looked whether the runs still wait for their calls, in seconds.
_LOOK_SECONDS = 1.0

# A run's id and that of its call: models give the same call ids in each conversation.
Key: TypeAlias = tuple[str, str]


class Waiting:
    """Tells whether a run may still come back for a call.

    It holds neither run nor session. A session that is not in memory any more may come back from where it is stored.

    Args:
        context: the run's.
        call_id: the call.
    """

    __slots__ = ("_call_id", "_context", "_sessions")

    def __init__(self, context: RunContext[Any], call_id: str) -> None:
        self._call_id = call_id
        self._context = weakref.ref(context)
        self._sessions: list[tuple[weakref.ref[Any], str]] = []
        around: RunContext[Any] | None = context
        while around is not None:  # of the runs around it as well: their ends leave those inside as they are
            if around.session is not None:
                self._sessions.append((weakref.ref(around.session), around.run_id))
            around = around.parent

    def __bool__(self) -> bool:
        if not self._sessions:  # it cannot pause
            context = self._context()
            return context is not None and not context.ended
        for reference, run_id in self._sessions:
            session = reference()
            if session is not None and (session.unfinished is None or session.unfinished.run != run_id):
                return False
        session = self._sessions[0][0]()
        return session is None or (session.turn is not None and self._call_id not in session.turn.results)


class Parked:
    """Calls by their runs and the ids that their models gave them.

    Args:
        seconds: after which a call whose run does not come back is given up.
    """

    __slots__ = ("_calls", "_looking", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[Key, tuple[Ongoing, asyncio.TimerHandle, Waiting | None]] = {}
        self._looking: asyncio.TimerHandle | None = None

    def __contains__(self, key: Key) -> bool:
        return key in self._calls

    def put(self, key: Key, ongoing: Ongoing, waiting: Waiting | None = None) -> None:
        """Keep a call; one that is there under the same key is given up.

        Args:
            key: whose call it is.
            ongoing: the call.
            waiting: tells whether it is still waited for; once it is not, the call is given up within a second.
        """
        self._give_up(key)
        while len(self._calls) >= MAX_PARKED:
            self._give_up(next(iter(self._calls)))
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._seconds, self._give_up, key)
        self._calls[key] = (ongoing, timer, waiting)
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_SECONDS, self._look)

    def take(self, key: Key) -> Ongoing | None:
        """Give a call back to its run; None where there is none."""
        kept = self._calls.pop(key, None)
        if kept is None:
            return None
        kept[1].cancel()
        return kept[0]

    def clear(self) -> None:
        """Give all of them up."""
        for key in list(self._calls):
            self._give_up(key)
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        """Give up what nobody waits for any more: runs end, and sessions go on, without a word to the tools."""
        self._looking = None
        for key, (_, _, waiting) in list(self._calls.items()):
            if waiting is not None and not waiting:
                self._give_up(key)
        if self._calls:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _give_up(self, key: Key) -> None:
        ongoing = self.take(key)
        if ongoing is not None:
            ongoing.cancel()
