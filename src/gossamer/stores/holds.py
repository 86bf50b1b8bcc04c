"""Which sessions are held by runs of this process, through one store."""

from __future__ import annotations

import asyncio

__all__ = ["Holds"]

_MOST_UNTOLD = 10_000


class Holds:
    """The sessions that runs of this process hold; used by a store's writing thread alone.

    Args:
        token: names this user of the database to others, in the rows of the sessions that it holds.

    Attributes:
        untold: sessions that were let go, with their fences, whose rows may still say that they are held; the last
            10,000.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.untold: dict[str, int] = {}
        self._held: dict[str, tuple[int, asyncio.AbstractEventLoop | None]] = {}

    def take(self, session: str, fence: int, loop: asyncio.AbstractEventLoop | None) -> None:
        """Note that a run on a loop holds a session."""
        self._held[session] = fence, loop

    def let_go(self, session: str, fence: int) -> None:
        """Note that it does not any more; nothing is done where another run holds it by now."""
        if session in self._held and self._held[session][0] == fence:
            del self._held[session]

    def let_go_untold(self, session: str, fence: int) -> None:
        """The same, where it may not be written: others learn of it with this process's next write that succeeds."""
        self.let_go(session, fence)
        self.untold[session] = fence
        if len(self.untold) > _MOST_UNTOLD:
            del self.untold[next(iter(self.untold))]

    def is_held(self, session: str) -> bool:
        """Whether a run holds a session that may still go on: one whose loop is closed cannot."""
        held = self._held.get(session)
        return held is not None and not (held[1] is not None and held[1].is_closed())
