"""Sessions in a Postgres store: what is asked of a connection, on the store's threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

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
from gossamer.stores.postgres_batch import Batch, alive_tokens
from gossamer.stores.postgres_memories import forget_user

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "AppendRecords",
    "Connection",
    "Delete",
    "Hold",
    "Holder",
    "LetGo",
    "Write",
    "list_sessions",
    "load",
    "read",
    "tell",
]

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Write(Protocol[ResultT_co]):
    """A write, done in one transaction with others.

    Attributes:
        session: the id of the session that it concerns.
        parent: that of the session around it, where it may have to be made; or None.
    """

    session: str
    parent: str | None

    def prepare(self) -> None:
        """Do what needs no database; what it raises keeps the write from being done."""
        ...

    def do(self, batch: Batch) -> ResultT_co:
        """Write; a GossamerError concerns this write alone, and leaves nothing of it half written."""
        ...

    def undo(self) -> None:
        """Forget what was kept outside of the database, as the transaction failed, whether it was in it already."""
        ...


class Holder(Protocol):
    """Who holds sessions: a store, as it is opened in this process."""

    holds: Holds
    clock: Clock


class Hold:
    """Takes hold of a session; see `Store.hold`."""

    def __init__(self, holder: Holder, session: str, parent: str | None, inside: str, initial: Any) -> None:
        self._holder = holder
        self.session = session
        self.parent = parent
        self.inside = inside
        self._initial = initial
        self.initial = b""
        self._loop = running_loop()
        self.held: Held | None = None

    def prepare(self) -> None:
        """Encode the state that it begins with."""
        self.initial = msgspec.json.encode(self._initial)

    def do(self, batch: Batch) -> Held:
        """Take hold, or make the session and hold it."""
        session, holds = self.session, self._holder.holds
        row = batch.rows.get(session)
        if row is None:
            if self.parent is not None and self.parent not in batch.rows:
                raise lost(self.parent, None)
            raise _busy(session)  # another process has made it in this moment
        if not row.is_new:
            if row.holder is not None and (
                holds.is_held(session) if row.holder == holds.token else batch.is_alive(row.holder)
            ):
                raise _busy(session)
            row.fence += 1
            row.holder = holds.token
            row.is_changed = True
        elif holds.is_held(session):
            raise _busy(session)
        holds.take(session, row.fence, self._loop)
        self.held = Held(row.fence, row.length, row.created, row.is_new)
        return self.held

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
        self.session = hold.session
        self.parent: str | None = None

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def do(self, batch: Batch) -> None:
        """Let it go, where it was held at all."""
        held, row = self._hold.held, batch.rows.get(self.session)
        if held is not None:
            self._holder.holds.let_go(self.session, held.fence)
            if row is not None and row.fence == held.fence:
                row.holder = None
                row.is_new = False  # for who takes hold of it next
                row.is_changed = True

    def undo(self) -> None:
        """It stays let go in this process, which is what counts while it lives."""
        if self._hold.held is not None:
            self._holder.holds.let_go_untold(self.session, self._hold.held.fence)


def tell(connection: Connection, holds: Holds) -> None:
    """Write of sessions that they were let go, where that could not be written before."""
    connection.execute(
        "UPDATE sessions SET holder = NULL FROM unnest(%b::text[], %b::bigint[]) AS untold (session, at)"
        " WHERE id = session AND fence = at AND holder = %b",
        (list(holds.untold), list(holds.untold.values()), holds.token),
    )
    holds.untold.clear()


class AppendRecords:
    """Appends records; see `Store.append`."""

    def __init__(self, holder: Holder, append: Append) -> None:
        self._holder = holder
        self._append = append
        self.session = append.session
        self.parent: str | None = None
        self._records: list[EncodedRecord] = []
        self.media: dict[MediaHash, bytes] = {}
        self._snapshot: EncodedSnapshot | None = None
        self._changes = Changes()
        self._refused: StoreError | None = None

    def prepare(self) -> None:
        """Encode the records."""
        append = self._append
        self._refused = None
        try:
            self._records, self.media = encode_append(append)
            if append.snapshot is not None:
                self._snapshot = encode_snapshot(append.session, append.snapshot, self.media)
        except StoreError as error:
            self._refused = error
            self.media = {}
        self._changes = changes_of(append.records)

    def do(self, batch: Batch) -> None:
        """Write them, those that are not there yet."""
        append, changes = self._append, self._changes
        if append.release:  # whatever comes of it
            self._holder.holds.let_go(append.session, append.fence)
        row = batch.rows.get(append.session)
        if row is None or row.fence != append.fence:
            raise lost(append.session, None if row is None else False)
        if self._refused is not None or row.length < append.place:
            if append.release:
                row.holder = None
                row.is_changed = True
            raise self._refused or lost(append.session, True)
        new = self._records[row.length - append.place :]
        if len(new) < len(self._records):
            changes = changes_of(append.records[len(self._records) - len(new) :])
        batch.add_media(row, self.media)
        batch.add_records(row, new)
        if new:
            row.change(changes, paused=append.paused, at=self._holder.clock.now())
        if append.paused:
            row.paused = row.is_changed = True
        if append.release:
            row.holder = None
            row.is_changed = True
        if self._snapshot is not None:
            batch.snapshots[row.number] = self._snapshot

    def undo(self) -> None:
        """A session that was let go stays so."""
        if self._append.release:
            self._holder.holds.let_go_untold(self._append.session, self._append.fence)


_FOUND = {column: f'SELECT number FROM sessions WHERE "{column}" = %s' for column in ("id", "user")}  # noqa: S608 - names of ours
_MEDIA_OF = {
    column: (
        f"WITH RECURSIVE gone (number) AS ({found}"  # noqa: S608 - as above
        " UNION SELECT sessions.number FROM sessions JOIN gone ON sessions.parent = gone.number)"
        " SELECT DISTINCT hash FROM session_media JOIN gone ON session = number"
    ).encode()
    for column, found in _FOUND.items()
}
# What was said in a session waits in them.
_JOBS_OF_SESSION = (
    b"WITH RECURSIVE gone (number, id) AS (SELECT number, id FROM sessions WHERE id = %s"
    b" UNION SELECT sessions.number, sessions.id FROM sessions JOIN gone ON sessions.parent = gone.number)"
    b" DELETE FROM memory_jobs WHERE session IN (SELECT id FROM gone)"
)
_COUNT = {
    column: f"SELECT count(*) FROM sessions WHERE parent IS NULL AND number IN ({found})".encode()  # noqa: S608 - as above
    for column, found in _FOUND.items()
}
_DELETE = {
    column: f"DELETE FROM sessions WHERE number IN ({found})".encode()  # noqa: S608 - as above
    for column, found in _FOUND.items()
}


class Delete:
    """Deletes sessions, media that no other session holds, and with a user what is remembered of them.

    Attributes:
        is_committing: whether it may be done, as far as is known here.
    """

    def __init__(self, column: Literal["id", "user"], value: str) -> None:
        self._column = column
        self._value = value
        self.is_committing = False

    def do(self, connection: Connection) -> int:
        """Delete, in a transaction of its own; give how many sessions, without those inside their calls."""
        values = (self._value,)
        with connection.transaction():
            if self._column == "id":
                connection.execute(_JOBS_OF_SESSION, values)
            else:
                forget_user(connection, self._value)
            hashes = connection.execute(_MEDIA_OF[self._column], values).fetchall()
            row = connection.execute(_COUNT[self._column], values).fetchone()
            connection.execute(_DELETE[self._column], values)
            if hashes:
                connection.execute(
                    "DELETE FROM media WHERE hash = ANY(%b)"
                    " AND NOT EXISTS (SELECT FROM session_media WHERE session_media.hash = media.hash)",
                    ([one for (one,) in hashes],),
                )
            self.is_committing = True
        return row[0] if row else 0


def _busy(session: str) -> SessionBusyError:
    return SessionBusyError(f"session {session!r} is held by a run elsewhere; wait for its end")


# --- reading --------------------------------------------------------------------------------------------------


def load(connection: Connection, session: str) -> StoredSession | None:
    """Load what is needed to go on with a session; see `Store.load`."""
    row = connection.execute(
        "SELECT number, length, created, initial, run, at, ranges, data, inserted, media"
        " FROM sessions LEFT JOIN snapshots ON session = number WHERE id = %s",
        (session,),
        binary=True,
    ).fetchone()
    if row is None:
        return None
    number, length, created, initial, run, at, ranges, data, inserted, media = row
    spans: tuple[tuple[int, int], ...] = ()
    if at is not None:
        spans = msgspec.json.decode(ranges, type=tuple[tuple[int, int], ...])
    found = _between(connection, number, [*((first, last + 1) for first, last in spans), (at or 0, length)])
    snapshot: StoredSnapshot | None = None
    if at is not None:
        (moved,) = _records(connection, [(inserted, media)])
        snapshot = StoredSnapshot(at, spans, data, inserted_of(moved))
    said: dict[int, Record] = {}
    for first, last in spans:
        said.update((place, found[place]) for place in range(first, last + 1))
    tail = [found[place] for place in range(at or 0, length)]
    children: dict[str, str] = {}
    if run:
        children = dict(
            connection.execute(
                "SELECT inside, id FROM sessions WHERE parent = %s AND inside >= %s AND inside < %s ORDER BY number",
                (number, f"{run}/", f"{run}0"),  # "0" comes behind "/"
            ).fetchall()
        )
    return StoredSession(length, created, msgspec.json.decode(initial), snapshot, said, tail, children)


def read(connection: Connection, session: str, begin: int, end: int) -> list[Record]:
    """Read records of a journal; see `Store.read`."""
    row = connection.execute("SELECT number FROM sessions WHERE id = %s", (session,)).fetchone()
    return [] if row is None else list(_between(connection, row[0], [(begin, end)]).values())


def list_sessions(connection: Connection, wanted: Wanted) -> list[SessionInfo]:
    """List sessions; see `Store.list_sessions`."""
    conditions, values = ["parent IS NULL"], list[Any]()
    for column, value in (('"user"', wanted.user), ("agent", wanted.agent)):
        if value is not None:
            conditions.append(f"{column} = %s")
            values.append(value)
    if wanted.before is not None:
        conditions.append("updated < %s")
        values.append(wanted.before)
    if wanted.status is not None:
        conditions.append("run = ''" if wanted.status == "idle" else "run <> ''")
    limit = ""
    if wanted.status in {None, "idle"}:  # the others are told apart by who lives
        limit = " LIMIT %s"
        values.append(wanted.limit)
    rows = connection.execute(
        f'SELECT id, "user", {COLUMNS} FROM sessions WHERE {" AND ".join(conditions)}'  # noqa: S608 - conditions are ours, values are parameters
        f" ORDER BY updated DESC{limit}".encode(),
        values,
        binary=True,
    )
    alive: set[str] | None = None

    def is_alive(token: str) -> bool:
        nonlocal alive
        alive = alive_tokens(connection) if alive is None else alive
        return token in alive

    return listed(rows, wanted, is_alive)


def _between(connection: Connection, number: int, spans: Sequence[tuple[int, int]]) -> dict[int, Record]:
    """Give the records at places from the first of each span up to its second, by place."""
    rows = connection.execute(
        "SELECT place, data, media FROM unnest(%b::bigint[], %b::bigint[]) AS span (first, behind)"
        " JOIN records ON session = %b AND place >= first AND place < behind ORDER BY place",
        ([first for first, _ in spans], [behind for _, behind in spans], number),
        binary=True,
    ).fetchall()
    records = _records(connection, [(data, media) for _, data, media in rows])
    return dict(zip([place for place, _, _ in rows], records, strict=True))


def _records(connection: Connection, rows: list[tuple[bytes, bytes]]) -> list[Record]:
    hashes = {key for _, media in rows if media for key in _hashes(media)}
    found: dict[MediaHash, bytes] = {}
    if hashes:
        found = dict(
            connection.execute(
                "SELECT hash, data FROM media WHERE hash = ANY(%b)", (list(hashes),), binary=True
            ).fetchall()
        )
    records: list[Record] = []
    for data, media in rows:
        record = decode_record(data)
        records.append(restore(record, _hashes(media), found) if media else record)
    return records


def _hashes(media: bytes) -> list[MediaHash]:
    return [media[start : start + HASH_BYTES] for start in range(0, len(media), HASH_BYTES)]
