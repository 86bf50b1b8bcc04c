"""Sessions in a SQLite store: what is asked of a connection, on the store's threads."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from gossamer.errors import SessionBusyError, StoreError
from gossamer.holding import running_loop
from gossamer.records import Record, decode_record
from gossamer.stores.base import Append, Held, SessionInfo, StoredSession, StoredSnapshot
from gossamer.stores.changes import (
    Changes,
    Clock,
    EncodedRecord,
    EncodedSnapshot,
    changes_of,
    encode_append,
    encode_snapshot,
    inserted_of,
    lost,
)
from gossamer.stores.holds import Holds
from gossamer.stores.listing import COLUMNS, Wanted, listed
from gossamer.stores.media import HASH_BYTES, MediaHash, restore
from gossamer.stores.sqlite_memories import forget_user

__all__ = [
    "AppendRecords",
    "Delete",
    "Hold",
    "Holder",
    "LetGo",
    "Read",
    "Write",
    "list_sessions",
    "load",
    "read",
    "tell",
]

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Write(Protocol[ResultT_co]):
    """A write, done in one transaction with others."""

    def prepare(self) -> None:
        """Do what needs no database; what it raises keeps the write from being done."""
        ...

    def do(self, connection: sqlite3.Connection) -> ResultT_co:
        """Write; a GossamerError concerns this write alone, and leaves nothing of it half written."""
        ...

    def undo(self) -> None:
        """Forget what was kept outside of the database, as the transaction failed, whether it was in it already."""
        ...


class Holder(Protocol):
    """Who holds sessions: a store, as it is opened in this process."""

    holds: Holds
    clock: Clock

    def is_alive(self, token: str) -> bool:
        """Whether the holder lives that names itself so."""
        ...


class Hold:
    """Takes hold of a session; see `Store.hold`."""

    def __init__(self, holder: Holder, session: str, parent: str | None, inside: str, initial: Any) -> None:
        self._holder = holder
        self.session = session
        self._parent = parent
        self._inside = inside
        self._initial = initial
        self._data = b""
        self._loop = running_loop()
        self.held: Held | None = None

    def prepare(self) -> None:
        """Encode the state that it begins with."""
        self._data = msgspec.json.encode(self._initial)

    def do(self, connection: sqlite3.Connection) -> Held:
        """Take hold, or make the session and hold it."""
        session, holds = self.session, self._holder.holds
        row = connection.execute(
            "SELECT number, fence, length, created, holder FROM sessions WHERE id = ?", (session,)
        ).fetchone()
        is_new = row is None
        if row is None:
            fence = secrets.randbits(48)  # so that it is none of a session of this id that was deleted
            length = 0
            created = self._holder.clock.now()
            connection.execute(
                "INSERT INTO sessions (id, parent, inside, created, updated, initial, fence, holder)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session,
                    self._parent_in(connection),
                    self._inside,
                    created,
                    created,
                    self._data,
                    fence,
                    holds.token,
                ),
            )
        else:
            number, fence, length, created, holder = row
            if holder is not None and (
                holds.is_held(session) if holder == holds.token else self._holder.is_alive(holder)
            ):
                raise SessionBusyError(f"session {session!r} is held by a run elsewhere; wait for its end")
            fence += 1
            connection.execute(
                "UPDATE sessions SET fence = ?, holder = ? WHERE number = ?", (fence, holds.token, number)
            )
        holds.take(session, fence, self._loop)
        self.held = Held(fence, length, created, is_new)
        return self.held

    def _parent_in(self, connection: sqlite3.Connection) -> int | None:
        if self._parent is None:
            return None
        row = connection.execute("SELECT number FROM sessions WHERE id = ?", (self._parent,)).fetchone()
        if row is None:
            raise lost(self._parent, None)
        return row[0]

    def undo(self) -> None:
        """Hold it no longer."""
        if self.held is not None:
            self._holder.holds.let_go_untold(self.session, self.held.fence)
            self.held = None


class LetGo:
    """Lets a session go that nobody wanted any more by the time it was held."""

    def __init__(self, holder: Holder, hold: Hold) -> None:
        self._holder = holder
        self._hold = hold

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def do(self, connection: sqlite3.Connection) -> None:
        """Let it go, where it was held at all."""
        held, session = self._hold.held, self._hold.session
        if held is not None:
            self._holder.holds.let_go(session, held.fence)
            connection.execute(
                "UPDATE sessions SET holder = NULL WHERE id = ? AND fence = ?", (session, held.fence)
            )

    def undo(self) -> None:
        """It stays let go in this process, which is what counts while it lives."""
        if self._hold.held is not None:
            self._holder.holds.let_go_untold(self._hold.session, self._hold.held.fence)


def tell(connection: sqlite3.Connection, holds: Holds) -> None:
    """Write of sessions that they were let go, where that could not be written before."""
    connection.executemany(
        "UPDATE sessions SET holder = NULL WHERE id = ? AND fence = ? AND holder = ?",
        [(session, fence, holds.token) for session, fence in holds.untold.items()],
    )


_APPEND = (
    "UPDATE sessions SET length = ?, updated = coalesce(?, updated), messages = messages + ?,"
    " title = CASE title WHEN '' THEN coalesce(?, '') ELSE title END,"
    " agent = coalesce(?, agent), user = coalesce(user, ?), run = coalesce(?, run),"
    " fingerprint = coalesce(?, fingerprint), paused = coalesce(?, paused), holder = CASE ? WHEN 1 THEN NULL ELSE holder END"
    " WHERE id = ? AND fence = ? AND length = ? RETURNING number"
)


class AppendRecords:
    """Appends records; see `Store.append`."""

    def __init__(self, holder: Holder, append: Append) -> None:
        self._holder = holder
        self._append = append
        self._records: list[EncodedRecord] = []
        self._media: dict[MediaHash, bytes] = {}
        self._snapshot: EncodedSnapshot | None = None
        self._changes = Changes()
        self._refused: StoreError | None = None

    def prepare(self) -> None:
        """Encode the records."""
        append = self._append
        try:
            self._records, self._media = encode_append(append)
            if append.snapshot is not None:
                self._snapshot = encode_snapshot(append.session, append.snapshot, self._media)
        except StoreError as error:
            self._refused = error
        self._changes = changes_of(append.records)

    def do(self, connection: sqlite3.Connection) -> None:
        """Write them, those that are not there yet."""
        append = self._append
        if append.release:  # whatever comes of it
            self._holder.holds.let_go(append.session, append.fence)
        if self._refused is None and self._write(connection, append.place, self._records, self._changes):
            return
        row = connection.execute(
            "SELECT fence, length FROM sessions WHERE id = ?", (append.session,)
        ).fetchone()
        if row is None or row[0] != append.fence:
            raise lost(append.session, None if row is None else False)
        if self._refused is not None or row[1] < append.place:
            if append.release:
                connection.execute("UPDATE sessions SET holder = NULL WHERE id = ?", (append.session,))
            raise self._refused or lost(append.session, True)
        there = row[1] - append.place
        self._write(connection, row[1], self._records[there:], changes_of(append.records[there:]))

    def _write(
        self, connection: sqlite3.Connection, place: int, records: list[EncodedRecord], changes: Changes
    ) -> bool:
        """Write records that begin at a place, where that is the end of what is there; tells whether it is."""
        append = self._append
        rows = connection.execute(
            _APPEND,
            (
                place + len(records),
                self._holder.clock.now() if records else None,
                changes.messages,
                changes.title,
                changes.agent,
                changes.user,
                changes.run,
                changes.fingerprint,
                append.paused if records or append.paused else None,
                append.release,
                append.session,
                append.fence,
                place,
            ),
        ).fetchall()
        if not rows:
            return False
        number = rows[0][0]
        if self._media:
            connection.executemany("INSERT OR IGNORE INTO media VALUES (?, ?)", self._media.items())
            connection.executemany(
                "INSERT OR IGNORE INTO session_media VALUES (?, ?)", [(number, key) for key in self._media]
            )
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?)",
            [(number, place + index, one.data, one.media) for index, one in enumerate(records)],
        )
        if self._snapshot is not None:
            one = self._snapshot
            connection.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)",
                (number, one.at, one.ranges, one.data, one.inserted.data, one.inserted.media),
            )
        return True

    def undo(self) -> None:
        """A session that was let go stays so."""
        if self._append.release:
            self._holder.holds.let_go_untold(self._append.session, self._append.fence)


_MEDIA_OF = {
    column: (
        f"WITH RECURSIVE gone (number) AS (SELECT number FROM sessions WHERE {column} = ?"  # noqa: S608 - names of ours
        " UNION SELECT sessions.number FROM sessions JOIN gone ON sessions.parent = gone.number)"
        " SELECT DISTINCT hash FROM session_media JOIN gone ON session = number"
    )
    for column in ("id", "user")
}
# What was said in a session waits in them.
_JOBS_OF_SESSION = (
    "WITH RECURSIVE gone (number, id) AS (SELECT number, id FROM sessions WHERE id = ?"
    " UNION SELECT sessions.number, sessions.id FROM sessions JOIN gone ON sessions.parent = gone.number)"
    " DELETE FROM memory_jobs WHERE session IN (SELECT id FROM gone)"
)
_COUNT = {
    column: f"SELECT count(*) FROM sessions WHERE {column} = ? AND parent IS NULL"  # noqa: S608 - as above
    for column in ("id", "user")
}
_DELETE = {column: f"DELETE FROM sessions WHERE {column} = ?" for column in ("id", "user")}  # noqa: S608 - as above


class Delete:
    """Deletes sessions, media that no other session holds, and with a user what is remembered of them.

    Attributes:
        is_thorough: whether no byte may be left.
    """

    def __init__(self, column: Literal["id", "user"], value: str) -> None:
        self.is_thorough = column == "user"
        self._column = column
        self._value = value

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def do(self, connection: sqlite3.Connection) -> int:
        """Delete; give how many sessions, without those inside their calls."""
        if self._column == "id":
            connection.execute(_JOBS_OF_SESSION, (self._value,))
        else:
            forget_user(connection, self._value)
        hashes = connection.execute(_MEDIA_OF[self._column], (self._value,)).fetchall()
        deleted = connection.execute(_COUNT[self._column], (self._value,)).fetchone()[0]
        connection.execute(_DELETE[self._column], (self._value,))
        connection.executemany(
            "DELETE FROM media WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM session_media WHERE hash = ?1)",
            hashes,
        )
        return deleted

    def undo(self) -> None:
        """Nothing is kept outside."""


class Read(Generic[ResultT]):
    """A read, done among writes."""

    def __init__(self, work: Callable[[sqlite3.Connection], ResultT]) -> None:
        self._work = work

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def do(self, connection: sqlite3.Connection) -> ResultT:
        """Read."""
        return self._work(connection)

    def undo(self) -> None:
        """Nothing is kept outside."""


# --- reading --------------------------------------------------------------------------------------------------


def load(connection: sqlite3.Connection, session: str) -> StoredSession | None:
    """Load what is needed to go on with a session; see `Store.load`."""
    row = connection.execute(
        "SELECT number, length, created, initial, run FROM sessions WHERE id = ?", (session,)
    ).fetchone()
    if row is None:
        return None
    number, length, created, initial, run = row
    snapshot: StoredSnapshot | None = None
    said: dict[int, Record] = {}
    kept = connection.execute(
        "SELECT at, ranges, data, inserted, media FROM snapshots WHERE session = ?", (number,)
    ).fetchone()
    if kept is not None:
        at, ranges, data, inserted, media = kept
        spans = msgspec.json.decode(ranges, type=tuple[tuple[int, int], ...])
        (moved,) = _records(connection, [(inserted, media)])
        snapshot = StoredSnapshot(at, spans, data, inserted_of(moved))
        for first, last in spans:
            found = _between(connection, number, first, last + 1)
            said.update(zip(range(first, last + 1), found, strict=True))
    tail = _between(connection, number, 0 if snapshot is None else snapshot.at, length)
    children: dict[str, str] = {}
    if run:
        children = dict(
            connection.execute(
                "SELECT inside, id FROM sessions WHERE parent = ? AND inside >= ? AND inside < ? ORDER BY number",
                (number, f"{run}/", f"{run}0"),  # "0" comes behind "/"
            ).fetchall()
        )
    return StoredSession(length, created, msgspec.json.decode(initial), snapshot, said, tail, children)


def read(connection: sqlite3.Connection, session: str, begin: int, end: int) -> list[Record]:
    """Read records of a journal; see `Store.read`."""
    row = connection.execute("SELECT number FROM sessions WHERE id = ?", (session,)).fetchone()
    return [] if row is None else _between(connection, row[0], begin, end)


def list_sessions(
    connection: sqlite3.Connection, wanted: Wanted, is_alive: Callable[[str], bool]
) -> list[SessionInfo]:
    """List sessions; see `Store.list_sessions`."""
    conditions, values = ["parent IS NULL"], list[Any]()
    for column, value in (("user", wanted.user), ("agent", wanted.agent)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if wanted.before is not None:
        conditions.append("updated < ?")
        values.append(wanted.before)
    if wanted.status is not None:
        conditions.append("run = ''" if wanted.status == "idle" else "run <> ''")
    rows = connection.execute(
        f"SELECT id, user, {COLUMNS} FROM sessions WHERE {' AND '.join(conditions)} ORDER BY updated DESC",  # noqa: S608 - conditions are ours, values are parameters
        values,
    )
    return listed(rows, wanted, is_alive)


def _between(connection: sqlite3.Connection, number: int, begin: int, end: int) -> list[Record]:
    rows = connection.execute(
        "SELECT data, media FROM records WHERE session = ? AND place >= ? AND place < ? ORDER BY place",
        (number, begin, end),
    ).fetchall()
    return _records(connection, rows)


def _records(connection: sqlite3.Connection, rows: list[tuple[bytes, bytes]]) -> list[Record]:
    records: list[Record] = []
    for data, media in rows:
        record = decode_record(data)
        if media:
            order = [media[start : start + HASH_BYTES] for start in range(0, len(media), HASH_BYTES)]
            record = restore(record, order, {key: _media(connection, key) for key in order})
        records.append(record)
    return records


def _media(connection: sqlite3.Connection, key: MediaHash) -> bytes:
    return connection.execute("SELECT data FROM media WHERE hash = ?", (key,)).fetchone()[0]
