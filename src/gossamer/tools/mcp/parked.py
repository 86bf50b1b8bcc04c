"""Calls whose runs have paused: they wait for a person, or for their run to come back for the result."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from gossamer.tools.mcp.calls import Ongoing

__all__ = ["MAX_PARKED", "Key", "Parked"]

# Most calls that wait, of one connection; beyond this the oldest is given up.
MAX_PARKED = 1_000

# A run's id and that of its call: models give the same call ids in each conversation.
Key: TypeAlias = tuple[str, str]


class Parked:
    """Calls by their runs and the ids that their models gave them.

    Args:
        seconds: after which a call whose run does not come back is given up.
    """

    __slots__ = ("_calls", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[Key, tuple[Ongoing, asyncio.TimerHandle]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, key: Key, ongoing: Ongoing) -> None:
        """Keep a call; one that is there under the same key is given up."""
        self._give_up(key)
        while len(self._calls) >= MAX_PARKED:
            self._give_up(next(iter(self._calls)))
        timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up, key)
        self._calls[key] = (ongoing, timer)

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

    def _give_up(self, key: Key) -> None:
        ongoing = self.take(key)
        if ongoing is not None:
            ongoing.cancel()
