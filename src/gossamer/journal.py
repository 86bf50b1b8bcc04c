"""A session's journal: the records in memory, what they come to, and the store that holds all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias, cast

import msgspec

from gossamer import spent
from gossamer.context import RunContext
from gossamer.errors import (
    ArgumentError,
    RunPausedError,
    SessionChangedError,
    SessionError,
    SessionLostError,
    StoreError,
)
from gossamer.holding import WhenBusy, running_loop
from gossamer.records import (
    OffloadedRecord,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    ToolResultRecord,
    ViewMovedRecord,
    encode,
)
from gossamer.saving import NotLoaded, Saving
from gossamer.snapshot import restore, snapshot_of
from gossamer.standing import Standing
from gossamer.stores.base import Store, StoredSession, StoredSnapshot
from gossamer.usage import Usage
from gossamer.view import View

__all__ = ["Journal"]

# A snapshot is put down once so many records have been added since the last one.
_SNAPSHOT_EVERY = 128

# Told of each time that a journal was loaded, with the sessions inside the calls of its unfinished run: ids by `run/call`.
Follow: TypeAlias = Callable[[Mapping[str, str]], Awaitable[None]]


class _Covered(msgspec.Struct, frozen=True):
    """What the records before a snapshot came to in use; they go from memory once the snapshot is on disk."""

    at: int
    used: Usage
    lost: Usage


class Journal:
    """An append-only list of records, and where a conversation stands behind the last of them.

    Args:
        window: see `Session`.
        state: the same.
        merge: the same.

    Attributes:
        records: those in memory: all, but for a journal that is kept in a store.
        first: the place of the first of them.
        standing: where the conversation stands.
        saving: how it is kept in a store, or None.
        window: see `Session`.
        initial: the state that it begins with.
        merge: see `Session`.
    """

    __slots__ = (
        "_covered",
        "_refused",
        "first",
        "initial",
        "merge",
        "records",
        "saving",
        "standing",
        "window",
    )

    def __init__(self, window: int, state: Any, merge: Callable[[Any, dict[str, Any]], Any] | None) -> None:
        self.window = window
        self.initial = state
        self.records: list[Record] = []
        self.first = 0
        self.standing = Standing(View(window), state, merge)
        self.saving: Saving | None = None
        self.merge = merge
        self._covered: _Covered | None = None
        self._refused = False

    def append(self, record: Record) -> None:
        """Append a record and let it act. Cost: O(1), but for records that move the view."""
        self.standing.take(
            record, self.first + len(self.records)
        )  # first: what does not fit must not be kept
        self.records.append(record)

    @property
    def end(self) -> int:
        """How many records there are."""
        return self.first + len(self.records)

    @property
    def run_id(self) -> str:
        """The run that is unfinished, "" where none is."""
        run = self.standing.run
        return "" if run is None else run.run

    def began_at(self, run_id: str) -> int:
        """Give the place where a run began; the end where it did not."""
        for index in range(len(self.records) - 1, -1, -1):
            record = self.records[index]
            if isinstance(record, RunStartedRecord) and record.run == run_id:
                return self.first + index
        return self.end

    def must_have(self, place: int) -> None:
        """Check that there is a place in the journal.

        Raises:
            ArgumentError: there is not.
        """
        if not 0 <= place <= self.end:
            raise ArgumentError(f"there is no place {place} in a journal of {self.end} records")

    def must_be_loaded(self) -> None:
        """Check that a journal in a store was loaded; else SessionError."""
        if not self.is_loaded:
            raise NotLoaded(self._kept.session).error()

    def must_be_in_memory(self, what: str) -> None:
        """Check that all records are in memory.

        Args:
            what: is to be done, for the error.

        Raises:
            SessionError: they are not.
        """
        self.must_be_loaded()
        if self.first:
            there = f"those before {self.first}"
            raise SessionError(
                f"cannot {what} session {self._kept.session!r}: it is kept in a store, and of its records {there} "
                "are not in memory; use export_session and import_session"
            )

    def must_not_be_paused(self, session: str) -> None:
        """Check that no call waits for a decision that may still be made.

        Args:
            session: the session's id, for the error.

        Raises:
            RunPausedError: at least one does.
        """
        turn = self.standing.turn
        pending = () if turn is None else tuple(turn.asked.values())
        waiting = [one for one in pending if not one.expired]
        if waiting:
            names = ", ".join(f"{one.call.name} ({one.call_id})" for one in waiting)
            raise RunPausedError(
                f"session {session!r} is paused; decide about {names} with agent.resume(session, …), "
                "or run with pending='deny'",
                pending=pending,
            )

    def close_turn(self, run_id: str, reason: str) -> None:
        """Give every call of the open turn that has no result one that says what became of it."""
        turn = self.standing.turn
        for result in () if turn is None else turn.close(reason):
            self.append(ToolResultRecord(run=run_id, result=result))

    def end_run(self, record: RunFinishedRecord | RunFailedRecord) -> None:
        """Record that a run failed or was stopped. A prompt that nothing followed leaves the view."""
        began = self.began_at(record.run)
        self.append(record)
        added = self.standing.view.since(began)
        if added and not any(message.role == "assistant" for message in added):
            end = self.end - 1
            self.append(ViewMovedRecord(run=record.run, reason="failed", begin=began, end=end))

    def abandon_run(self, reason: str, inside: Callable[[str], Usage]) -> None:
        """End a run that will not go on: calls without a result get one that says so.

        Args:
            reason: why, as the journal and the model are told.
            inside: as for `used`.
        """
        run = self.standing.run
        if run is None:
            return
        self.close_turn(run.run, reason)
        used = spent.spent([record for record in self.records if record.run == run.run], inside)
        self.end_run(RunFailedRecord(run=run.run, error="Abandoned", message=reason, usage=used))

    def used(self, inside: Callable[[str], Usage]) -> Usage:
        """Add up what the runs used. O(records in memory).

        Args:
            inside: gives what the runs inside a run's tools used, by the run's id.
        """
        return self.standing.used + spent.spent(self.records, inside)

    def lost(self) -> Usage:
        """Add up what the calls could have used at most whose use nobody counted."""
        return self.standing.lost + spent.lost(self.records)

    # --- in a store -------------------------------------------------------------------------------------------

    def keep_in(self, store: Store, session: str, parent: str | None = None, inside: str = "") -> None:
        """Keep the journal in a store, from where it is loaded before anything else; see `Saving`."""
        self.saving = Saving(store, session, parent, inside)
        self.unload()

    async def read(self, begin: int, end: int) -> list[Record]:
        """Read records, from a place up to another one; from the store where they are not in memory."""
        begin, end = max(begin, 0), max(end, begin, 0)
        saving = self.saving
        if saving is None or (saving.loaded and begin >= self.first):
            return self.records[begin - self.first : end - self.first]
        await saving.settle()
        stored = await saving.store.read(saving.session, begin, end)
        if saving.loaded and saving.saved < end:  # those that are not stored yet
            stored += self.records[max(begin + len(stored), self.first) - self.first : end - self.first]
        return stored

    async def aside(self, reference: str) -> str | None:
        """Give a text that was kept aside, from the store; None where there is none of that reference."""
        place = self.standing.aside.get(reference)
        for record in [] if place is None else await self.read(place, place + 1):
            if isinstance(record, OffloadedRecord):
                return record.text
        return None

    async def load(self, follow: Follow) -> None:
        """Load where the conversation stands, from the store; nothing is done where nobody else has changed it.

        Args:
            follow: see `Follow`.

        Raises:
            SessionChangedError: it was changed both there and here.
        """
        saving = self._kept
        while True:
            stood = self.standing, saving.saved, saving.fence
            stored = await saving.store.load(saving.session)
            if (self.standing, saving.saved, saving.fence) == stood:
                break
            if saving.fence is not None:  # a run has begun meanwhile, and has loaded it for itself
                return
        length, created = (0, None) if stored is None else (stored.length, stored.created)
        if not (saving.loaded and await self._is_unchanged(length, created)):
            saving.created = created
            await self._take_up(stored, follow)

    async def _take_up(self, stored: StoredSession | None, follow: Follow) -> None:
        """Stand where a stored conversation stands, at the beginning where None."""
        saving = self._kept
        standing = Standing(View(self.window), self.initial, self.merge)
        if stored is not None:
            restore(standing, stored)
        self.standing = standing
        self.first = 0 if stored is None or stored.snapshot is None else stored.snapshot.at
        self.records = [] if stored is None else stored.tail
        self._covered = None
        saving.loaded = True
        saving.saved = saving.pushed = self.end
        saving.snapshot_at = self.first
        fence = saving.fence
        try:
            await follow({} if stored is None else stored.children)
        except BaseException:
            if saving.fence == fence and not self.has_new:
                self.unload()  # so that both are loaded at the next try
            raise

    async def hold(self, when_busy: WhenBusy, follow: Follow, context: RunContext[Any] | None = None) -> None:
        """Hold the journal against other processes, and load it where one has changed it.

        Args:
            when_busy: see `Session`.
            follow: see `Follow`.
            context: the run for which it is, if it is for one.

        Raises:
            SessionBusyError: it is held elsewhere, and `when_busy` is `refuse`.
            SessionChangedError: it was changed both there and here.
        """
        saving = self._kept
        with suppress(StoreError, SessionError):  # of an earlier run, told in the log
            await self.settle()
        held = await saving.hold(self._initial_data(), when_busy, context)
        try:
            if saving.loaded and await self._is_unchanged(held.length, held.created):
                saving.created = held.created
            elif held.is_new:
                saving.created = held.created
                await self._take_up(None, follow)
            else:
                await self.load(follow)
        except BaseException:
            saving.push((), saving.pushed, release=True)
            saving.let_settle()
            raise

    def push(self) -> None:
        """Hand what is new to the store, without waiting."""
        saving = self._kept
        if saving.pushed < self.end and not self._refused:
            saving.push(self.records[saving.pushed - self.first :], self.end)

    async def settle(self) -> None:
        """Wait until everything is on disk.

        Raises:
            StoreError: it cannot be written. It is kept in memory and written with what comes next, unless it can
                never be: then the journal is what the store has of it, from the end of the run on.
            SessionLostError: another process holds the session by now.
        """
        saving = self._kept
        if saving.fence is not None:
            self.push()
        try:
            await saving.settle()
        except (StoreError, SessionError) as error:
            if type(error) is StoreError or isinstance(error, SessionLostError):
                self._refused = True
                if saving.fence is None:
                    self.unload()
            raise
        covered = self._covered
        if covered is not None and covered.at <= saving.saved:
            del self.records[: covered.at - self.first]
            self.first = covered.at
            self.standing.used, self.standing.lost = covered.used, covered.lost
            self._covered = None

    def release(self) -> None:
        """Let the journal go, without waiting: what is new goes to the store with it."""
        saving = self._kept
        if saving.fence is None:
            return
        if not saving.loaded or self._refused:
            saving.push((), saving.pushed, release=True)
            saving.let_settle(told=True)
            self.unload()
            return
        new = self.records[saving.pushed - self.first :]
        turn = self.standing.turn
        paused = turn is not None and bool(turn.asked)
        saving.push(new, self.end, snapshot=self._snapshot(), release=True, paused=paused)
        saving.let_settle()
        if running_loop() is None:  # nobody will hear what became of it
            self.unload()

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory where the conversation stands: always, but for a journal in a store."""
        return self.saving is None or self.saving.loaded

    @property
    def is_held(self) -> bool:
        """Whether it is held against other processes."""
        return self._kept.fence is not None

    @property
    def has_new(self) -> bool:
        """Whether there are records that are not on disk."""
        return self._kept.loaded and self._kept.saved < self.end

    @property
    def _kept(self) -> Saving:
        assert self.saving is not None, "only a journal that is kept in a store is loaded, held and saved"
        return self.saving

    def _initial_data(self) -> Any:
        try:
            return msgspec.to_builtins(self.initial)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(
                f"the state of session {self._kept.session!r} has no JSON form: {error}; it cannot be kept in a store"
            ) from error

    async def _is_unchanged(self, length: int, created: float | None) -> bool:
        """Tell whether what is in memory still goes on from what is stored, in a journal of a length."""
        saving = self._kept
        is_another = saving.created is not None and created != saving.created
        if length == saving.saved and not is_another:
            return True
        ours = self.records[saving.saved - self.first :]
        if not ours:
            return False
        # An append may be there though its answer got lost.
        fence = saving.fence
        stored = await saving.store.read(saving.session, saving.saved, length)
        if saving.fence != fence:  # a run has begun meanwhile, and looks for itself
            return True
        if stored and not is_another and list(map(encode, stored)) == list(map(encode, ours[: len(stored)])):
            saving.saved, saving.pushed = max(saving.saved, length), max(saving.pushed, length)
            return True
        self.unload()
        raise SessionChangedError(
            f"session {saving.session!r} was changed elsewhere since it was loaded; what was added here is not "
            "stored: load it anew and add it again"
        )

    def unload(self) -> None:
        """Forget what is in memory, to be loaded anew before anything else."""
        saving = self._kept
        self.standing = cast("Standing", NotLoaded(saving.session))
        self.records, self.first = [], 0
        saving.loaded = self._refused = False
        saving.saved = saving.pushed = 0
        saving.created = None
        self._covered = None

    def _snapshot(self) -> StoredSnapshot | None:
        """Put down where the conversation stands, now and then and between runs; a session inside a call is short."""
        saving, standing = self._kept, self.standing
        if (
            self.end - saving.snapshot_at < _SNAPSHOT_EVERY
            or saving.parent is not None
            or standing.run is not None
            or standing.turn is not None
        ):
            return None
        saving.snapshot_at = self.end
        used, lost = (
            self.used(_nothing),
            self.lost(),
        )  # no run is unfinished, so that nothing is to be asked inside
        self._covered = _Covered(self.end, used, lost)
        try:
            return snapshot_of(standing, self.end, used, lost)
        except (TypeError, ValueError, OverflowError, RecursionError):
            self._covered = None  # what has no JSON form is told of where its record is refused
            return None


def _nothing(_run_id: str) -> Usage:
    return Usage()
