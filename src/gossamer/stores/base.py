"""What a store is, and the plain data that it takes and gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Message
from gossamer.records import Record
from gossamer.stores.memories import MemoryStore

__all__ = [
    "Append",
    "Held",
    "SessionInfo",
    "SessionStatus",
    "Store",
    "StoredSession",
    "StoredSnapshot",
    "check_id",
    "check_name",
]

# `running`: a run holds it; `paused`: one waits for decisions; `broken`: the process of one died; else `idle`.
SessionStatus: TypeAlias = Literal["idle", "running", "paused", "broken"]

MAX_ID_BYTES = 1000


class SessionInfo(msgspec.Struct, frozen=True):
    """What a list of sessions tells of one, without reading its journal.

    Attributes:
        id: its id.
        user: on whose behalf its first run was made, or None.
        agent: the agent of its last run, or None.
        title: the first words that a user said in it.
        messages: how many messages were said.
        records: the length of its journal.
        created: seconds since the epoch.
        updated: the same, of the last record.
        status: see `SessionStatus`.
        run: the run that neither finished nor failed, or None.
        fingerprint: that of the run's agent, see `gossamer.fingerprint`.
    """

    id: str
    user: str | None
    agent: str | None
    title: str
    messages: int
    records: int
    created: float
    updated: float
    status: SessionStatus
    run: str | None
    fingerprint: str


class Held(msgspec.Struct, frozen=True):
    """A session that is held.

    Attributes:
        fence: goes with each append; a later holder has another one, and appends with this one are refused then.
        length: how many records its journal has.
        created: when it was made; another one of that id, made after this one was deleted, has another time.
        is_new: whether it was made by this, so that nothing is to be loaded.
    """

    fence: int
    length: int
    created: float
    is_new: bool = False


class StoredSnapshot(msgspec.Struct, frozen=True):
    """Where a session stood at a place of its journal, so that what lies before it need not be read.

    Attributes:
        at: the place; the records before it are covered.
        ranges: the records before it that the view is made of: first and last place of each range, in order.
        data: everything else, opaque to the store.
        inserted: messages of the view that no record holds.
    """

    at: int
    ranges: tuple[tuple[int, int], ...]
    data: bytes
    inserted: tuple[Message, ...] = ()


class StoredSession(msgspec.Struct, frozen=True):
    """What is loaded of a session to go on with it.

    Attributes:
        length: how many records its journal has.
        created: see `Held`.
        initial: the state that it began with, as JSON data.
        snapshot: where it stood, or None where all records are in `tail`.
        said: the records of the snapshot's ranges, by place.
        tail: the records from the snapshot on.
        children: the ids of the sessions inside the calls of its unfinished run, by `run/call`.
    """

    length: int
    created: float
    initial: Any
    snapshot: StoredSnapshot | None
    said: dict[int, Record]
    tail: list[Record]
    children: dict[str, str]


class Append(msgspec.Struct, frozen=True):
    """Records to be appended to a journal, in one transaction.

    Attributes:
        session: the session's id.
        fence: as `Store.hold` gave it.
        place: the place of the first record. Those that are there already, because the answer to an earlier append got
            lost, are not written twice.
        records: the records.
        snapshot: replaces the session's snapshot, or None.
        release: whether the session is let go.
        paused: whether it waits for decisions, where it is let go; without records it waits if it did.
    """

    session: str
    fence: int
    place: int
    records: Sequence[Record]
    snapshot: StoredSnapshot | None = None
    release: bool = False
    paused: bool = False


class Store(Protocol):
    """Keeps sessions, each with its journal, beyond the life of a process.

    Safe to share between runs, event loops and threads. What a call has given back is on disk, and whoever reads from
    then on reads it, in any process; what is still being written a read may see or not, as it does not wait in the
    writers' line. Whoever holds a session has all that was appended to it before. Nothing here blocks an event loop.

    Raises:
        StoreError: each method, where the store cannot do what it is asked; one of its children says why.
    """

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        ...

    @property
    def memories(self) -> MemoryStore:
        """What is remembered across sessions."""
        ...

    async def hold(
        self, session: str, *, parent: str | None = None, inside: str = "", initial: Any = None
    ) -> Held:
        """Take hold of a session, which is made where there is none: nobody else can, until it is let go.

        A session whose holder's process has died can be taken at once.

        Args:
            session: its id.
            parent: the id of the session in whose call it is, where it is made.
            inside: that run and call, as `run/call`.
            initial: the state that it begins with, as JSON data, where it is made.

        Raises:
            SessionBusyError: somebody holds it.
        """
        ...

    def append(self, append: Append) -> asyncio.Future[None]:
        """Append records; appends are carried out in the order in which they were asked for.

        Returns:
            What to await until they are on disk.

        Raises:
            SessionLostError: at awaiting, where somebody else holds the session by now, or it was deleted.
        """
        ...

    async def load(self, session: str) -> StoredSession | None:
        """Load what is needed to go on with a session, or None where there is none."""
        ...

    async def read(self, session: str, begin: int, end: int) -> list[Record]:
        """Read records of a journal, from a place up to another one; fewer where there are fewer."""
        ...

    async def list_sessions(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        status: SessionStatus | None = None,
        limit: int = 100,
        before: float | None = None,
    ) -> list[SessionInfo]:
        """List sessions, those changed last first; those inside calls are left out. Reads no messages.

        Args:
            user: only those begun on this user's behalf.
            agent: only those whose last run is this agent's.
            status: only those of this status.
            limit: the most that are given.
            before: only those changed before this time, in seconds since the epoch; for the next page.
        """
        ...

    async def delete_session(self, session: str) -> bool:
        """Delete a session and the sessions inside its calls; tells whether there was one.

        A run that holds it fails at its next record, with SessionLostError.
        """
        ...

    async def delete_user(self, user: str) -> int:
        """Delete all that is kept of a user: sessions begun on their behalf, media that nobody else shares, memories.

        Returns:
            How many sessions were deleted.
        """
        ...

    async def aclose(self) -> None:
        """Finish what is under way and let everything go; what comes later opens it anew."""
        ...


def check_id(session: str) -> None:
    """Check the id of a session that is to be kept in a store.

    Raises:
        ArgumentError: it is empty, has a NUL byte or half a surrogate pair, or is longer than 1,000 bytes.
    """
    check_name("the id of a session", session)


def check_name(what: str, name: str) -> None:
    """Check a name by which things are found in a store.

    Args:
        what: it is the name of, for the error.
        name: the name.

    Raises:
        ArgumentError: it is empty, has a NUL byte or half a surrogate pair, or is longer than 1,000 bytes.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{what} must be text, not {type(name).__name__}")
    if not name or "\x00" in name:
        raise ArgumentError(f"{what} must not be empty or have a NUL byte: {name[:100]!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{what} must be valid text: {name[:100]!a}") from error
    if size > MAX_ID_BYTES:
        raise ArgumentError(f"{what} must be at most {MAX_ID_BYTES} bytes, not {size}: {name[:40]!r}…")
