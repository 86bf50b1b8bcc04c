"""Calls whose runs have paused: they wait for a person, or for their run to come back for the result."""

from __future__ import annotations

import asyncio

from gossamer.tools.mcp.calls import Ongoing

__all__ = ["MAX_PARKED", "Parked"]

# Most calls that wait, of one connection; beyond this the oldest is given up.
MAX_PARKED = 1_000


class Parked:
    """Calls by the ids that their models gave them.

    Args:
        seconds: after which a call whose run does not come back is given up.
    """

    __slots__ = ("_calls", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[str, tuple[Ongoing, asyncio.TimerHandle]] = {}

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls

    def put(self, call_id: str, ongoing: Ongoing) -> None:
        """Keep a call."""
        while len(self._calls) >= MAX_PARKED:
            self._give_up(next(iter(self._calls)))
        timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up, call_id)
        self._calls[call_id] = (ongoing, timer)

    def take(self, call_id: str) -> Ongoing | None:
        """Give a call back to its run; None where there is none."""
        kept = self._calls.pop(call_id, None)
        if kept is None:
            return None
        kept[1].cancel()
        return kept[0]

    def clear(self) -> None:
        """Give all of them up."""
        for call_id in list(self._calls):
            self._give_up(call_id)

    def _give_up(self, call_id: str) -> None:
        ongoing = self.take(call_id)
        if ongoing is not None:
            ongoing.cancel()
