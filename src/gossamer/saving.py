"""How a session lives in a store: held while a run is under way, written as it grows, loaded where others changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import SessionBusyError, SessionError
from gossamer.holding import WhenBusy, running_loop
from gossamer.records import Record
from gossamer.stores.base import Append, Held, Store, StoredSnapshot
from gossamer.telemetry.logging import logger

__all__ = ["NotLoaded", "Saving"]

# How often it is looked whether a session that another process holds is free, in seconds: at first, and at last.
_FIRST_LOOK = 0.005
_LAST_LOOK = 0.25


class Saving:
    """Writes a session's records to its store, in order, and knows how far it got.

    Args:
        store: the store.
        session: the session's id there.
        parent: the id of the session in whose call it is, or None.
        inside: that run and call, as `run/call`.

    Attributes:
        loaded: whether the session in memory is one that the store had.
        saved: how many records are known to be on disk.
        created: see `Held`; None where no session was there.
        fence: see `Held`; None while the session is not held.
        snapshot_at: the place of the last snapshot.
    """

    __slots__ = (
        "_failure",
        "_failures",
        "_under_way",
        "created",
        "fence",
        "inside",
        "loaded",
        "parent",
        "pushed",
        "saved",
        "session",
        "snapshot_at",
        "store",
    )

    def __init__(self, store: Store, session: str, parent: str | None = None, inside: str = "") -> None:
        self.store = store
        self.session = session
        self.parent = parent
        self.inside = inside
        self.loaded = False
        self.saved = self.pushed = self.snapshot_at = 0
        self.fence: int | None = None
        self.created: float | None = None
        self._under_way: list[tuple[asyncio.Future[None], int]] = []
        self._failures = 0
        self._failure: Exception | None = None

    async def hold(self, initial: Any, when_busy: WhenBusy, context: RunContext[Any] | None) -> Held:
        """Take hold of the session in the store, or wait until it is free.

        Args:
            initial: see `Store.hold`.
            when_busy: see `Session`.
            context: the run for which it is, if it is for one.

        Raises:
            SessionBusyError: it is held elsewhere, and `when_busy` is `refuse`; or by a run around this one.
        """
        around = None if context is None else context.parent
        while around is not None:
            session = around.session
            if session is not None and session.id == self.session and session.store is self.store:
                raise SessionBusyError(  # it would wait for itself
                    f"session {self.session!r} is held by run {around.run_id}, in whose tool this run was started; "
                    "give the inner run a session of its own"
                )
            around = around.parent
        look = _FIRST_LOOK
        while True:
            try:
                held = await self.store.hold(
                    self.session, parent=self.parent, inside=self.inside, initial=initial
                )
            except SessionBusyError:
                if when_busy == "refuse":
                    raise
                if look < _LAST_LOOK <= 2 * look:
                    logger.warning("session %s: a run elsewhere holds it; waiting for its end", self.session)
                await asyncio.sleep(look)
                look = min(2 * look, _LAST_LOOK)
            else:
                self.fence = held.fence
                return held

    def push(
        self,
        records: Sequence[Record],
        end: int,
        *,
        snapshot: StoredSnapshot | None = None,
        release: bool = False,
        paused: bool = False,
    ) -> None:
        """Hand records to the store, without waiting.

        Args:
            records: those that were not pushed yet.
            end: the place behind the last.
            snapshot: see `Append`.
            release: let the session go.
            paused: see `Append`.
        """
        assert self.fence is not None, "a session is held before it is written to"
        append = Append(self.session, self.fence, self.pushed, records, snapshot, release, paused)
        written = self.store.append(append)
        if running_loop() is not None:
            self._under_way.append((written, end))
        self.pushed = end
        if release:
            self.fence = None

    async def settle(self) -> None:
        """Wait until all that was pushed before this call is on disk; what others push meanwhile is theirs.

        Raises:
            StoreError: something could not be written; it is pushed again with what comes next.
        """
        wanted, failures = self.pushed, self._failures
        while self._under_way:
            future, end = self._under_way[0]
            if self.saved >= wanted and end > wanted:
                return
            if future.get_loop() is not asyncio.get_running_loop():
                # A loop that has ended since hears nothing any more; what is there already is not written twice.
                self._give_up()
                return
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._give_up()
                self._failures += 1
                self._failure = error
                raise
            if self._under_way and self._under_way[0][0] is future:
                del self._under_way[0]
                self.saved = max(self.saved, end)
        if self._failures > failures and self.saved < wanted:  # another one that waited was told first
            assert self._failure is not None, "a failure is kept when it is counted"
            raise type(self._failure)(*self._failure.args) from self._failure

    def _give_up(self) -> None:
        """Forget what is under way: what follows a write that failed is refused too."""
        for future, _ in self._under_way:
            _when_done(future, _mark_as_seen)
        self._under_way.clear()
        self.pushed = self.saved

    def log(self, error: BaseException) -> None:
        """Tell of a failure in the log, as nobody waits for what has failed."""
        logger.error("session %s: %s", self.session, error)

    def let_settle(self, *, told: bool = False) -> None:
        """Let what was pushed be written without anybody waiting.

        Args:
            told: whether what may fail was told already; else it is told in the log.
        """
        for future, _ in self._under_way:
            _when_done(future, _mark_as_seen if told else self._tell)
        if told:
            self._under_way.clear()

    def _tell(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self.log(error)


def _when_done(future: asyncio.Future[None], call: Callable[[asyncio.Future[None]], None]) -> None:
    if future.done():
        call(future)
    elif not future.get_loop().is_closed():
        future.add_done_callback(call)


def _mark_as_seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


class NotLoaded:
    """Stands for where a conversation stands as long as it was not loaded: whoever looks is told to load it.

    Args:
        session: the session's id.
    """

    __slots__ = ("_session",)

    def __init__(self, session: str) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        raise self.error()

    def error(self) -> SessionError:
        """Give the error that says what to do."""
        return SessionError(
            f"session {self._session!r} is not loaded from its store yet; a run loads it, and so do "
            "`async with session:` and `await session.load()`"
        )
