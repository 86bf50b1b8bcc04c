"""Writes of many sessions in one transaction of Postgres: a handful of statements, however many they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from gossamer.stores.changes import Changes, Clock, EncodedRecord, EncodedSnapshot, merged
from gossamer.stores.media import MediaHash

if TYPE_CHECKING:
    import psycopg

__all__ = ["Batch", "Row", "alive_tokens", "lock_of"]

RowT = TypeVar("RowT")

# Bytes that go into one statement, beyond one row; Postgres takes 1 GiB at most.
_MAX_STATEMENT_BYTES = 64 * 1024 * 1024


class Wish(Protocol):
    """What a write needs to know of the database; see `gossamer.stores.postgres_sessions.Write`."""

    session: str
    parent: str | None


class Row(msgspec.Struct):
    """A session's row, as it will be.

    Attributes:
        number: its key.
        fence: see `Held`.
        length: how many records its journal has.
        created: see `Held`.
        holder: names who holds it, or None.
        is_new: whether this transaction has made it.
        is_changed: whether it is to be written.
        changes: what records change in it.
        paused: whether it waits for decisions; None where that stays as it is.
        updated: the time of the last record; None where there is no new one.
    """

    number: int
    fence: int
    length: int
    created: float
    holder: str | None
    is_new: bool = False
    is_changed: bool = False
    changes: Changes = msgspec.field(default_factory=Changes)
    paused: bool | None = None
    updated: float | None = None

    def change(self, changes: Changes, *, paused: bool, at: float) -> None:
        """Take over what records change."""
        self.changes = merged(self.changes, changes)
        self.paused = paused
        self.updated = at
        self.is_changed = True


class Batch:
    """A transaction: rows are read and locked in one go, changed in memory, and written in another one.

    Args:
        connection: in autocommit mode.
        token: names this user of the database to others.
        clock: tells the time.

    Attributes:
        rows: the sessions that writes concern, by id; locked.
        snapshots: those to be written, by the number of their session.
        is_committing: whether it may be on disk, as far as is known here.
    """

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], token: str, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._token = token
        self._alive: set[str] | None = None
        self.is_committing = False
        self.rows: dict[str, Row] = {}
        self.snapshots: dict[int, EncodedSnapshot] = {}
        self._records: list[tuple[int, int, EncodedRecord]] = []
        self._media: dict[MediaHash, bytes] = {}
        self._session_media: set[tuple[int, MediaHash]] = set()

    def begin(self, works: Sequence[Wish]) -> None:
        """Begin the transaction: lock the rows that writes concern, and make those of sessions that are to be held."""
        connection = self._connection
        ids = {work.session for work in works} | {work.parent for work in works if work.parent is not None}
        with connection.pipeline():
            connection.execute("BEGIN")
            rows = connection.execute(
                "SELECT id, number, fence, length, created, holder FROM sessions WHERE id = ANY(%b)"
                " ORDER BY number FOR NO KEY UPDATE",  # in one order, so that two processes never wait for each other
                (list(ids),),
                binary=True,
            )
        self.rows = {id_: Row(*values) for id_, *values in rows}
        missing: dict[str, Any] = {}
        for work in works:
            made_inside: str | None = getattr(work, "inside", None)
            if (
                made_inside is not None
                and work.session not in self.rows
                and (work.parent is None or work.parent in self.rows)
            ):
                missing.setdefault(work.session, work)
        if missing:
            self._make([missing[id_] for id_ in sorted(missing)])

    def _make(self, holds: list[Any]) -> None:
        """Make sessions, in one order; one that another process makes in this moment is left to it."""
        now = self._clock.now()
        numbers = [None if hold.parent is None else self.rows[hold.parent].number for hold in holds]
        made = self._connection.execute(
            "INSERT INTO sessions (id, parent, inside, created, updated, initial, fence, holder)"
            " SELECT id, parent, inside, %b, %b, initial, fence, %b"
            " FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::bytea[], %b::bigint[])"
            " AS one (id, parent, inside, initial, fence)"
            " ON CONFLICT (id) DO NOTHING RETURNING id, number, fence",
            (
                now,
                now,
                self._token,
                [hold.session for hold in holds],
                numbers,
                [hold.inside for hold in holds],
                [hold.initial for hold in holds],
                # At random, so that it is none of a session of this id that was deleted.
                [secrets.randbits(48) for _ in holds],
            ),
            binary=True,
        )
        for id_, number, fence in made:
            self.rows[id_] = Row(number, fence, 0, now, self._token, is_new=True)

    def is_alive(self, token: str) -> bool:
        """Whether the process is alive that names itself so."""
        if self._alive is None:
            self._alive = alive_tokens(self._connection)
        return token in self._alive

    def add_records(self, row: Row, records: Sequence[EncodedRecord]) -> None:
        """Append records to a session."""
        for record in records:
            self._records.append((row.number, row.length, record))
            row.length += 1

    def add_media(self, row: Row, media: dict[MediaHash, bytes]) -> None:
        """Keep media for a session."""
        if media:
            self._media.update(media)
            self._session_media.update((row.number, key) for key in media)

    def commit(self) -> None:
        """Write everything and commit. Where this fails as the connection was lost, it may have been done all the same."""
        connection = self._connection
        new = self._new_media() if self._media else []
        self.is_committing = True
        with connection.pipeline():
            for chunk in _chunks(new, _media_size):
                connection.execute(
                    "INSERT INTO media SELECT * FROM unnest(%b::bytea[], %b::bytea[]) ON CONFLICT DO NOTHING",
                    _columns(chunk),
                )
            if self._session_media:
                connection.execute(
                    "INSERT INTO session_media SELECT * FROM unnest(%b::bigint[], %b::bytea[])"
                    " ON CONFLICT DO NOTHING",
                    _columns(sorted(self._session_media)),
                )
            for records in _chunks(self._records, _record_size):
                connection.execute(
                    "INSERT INTO records"
                    " SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::bytea[], %b::bytea[])",
                    _columns([(number, place, one.data, one.media) for number, place, one in records]),
                )
            for snapshots in _chunks(list(self.snapshots.items()), _snapshot_size):
                connection.execute(
                    "INSERT INTO snapshots SELECT * FROM unnest("
                    "%b::bigint[], %b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[])"
                    " ON CONFLICT (session) DO UPDATE SET at = excluded.at, ranges = excluded.ranges,"
                    " data = excluded.data, inserted = excluded.inserted, media = excluded.media",
                    _columns(
                        [
                            (number, one.at, one.ranges, one.data, one.inserted.data, one.inserted.media)
                            for number, one in snapshots
                        ]
                    ),
                )
            changed = [row for row in self.rows.values() if row.is_changed]
            if changed:
                connection.execute(_UPDATE, _columns([_values(row) for row in changed]))
            connection.execute("COMMIT")

    def _new_media(self) -> list[tuple[MediaHash, bytes]]:
        """Give those that are not there yet, so that a picture is not sent with each word about it."""
        there = self._connection.execute(
            "SELECT hash FROM media WHERE hash = ANY(%b) ORDER BY hash FOR KEY SHARE",
            (sorted(self._media),),
            binary=True,
        )
        known = {key for (key,) in there}
        return [(key, data) for key, data in sorted(self._media.items()) if key not in known]


_UPDATE = (
    "UPDATE sessions SET fence = new.fence, holder = new.holder, length = new.length,"
    " updated = coalesce(new.updated, sessions.updated), paused = coalesce(new.paused, sessions.paused),"
    " messages = sessions.messages + new.messages,"
    " title = CASE sessions.title WHEN '' THEN coalesce(new.title, '') ELSE sessions.title END,"
    ' agent = coalesce(new.agent, sessions.agent), "user" = coalesce(sessions."user", new."user"),'
    " run = coalesce(new.run, sessions.run), fingerprint = coalesce(new.fingerprint, sessions.fingerprint)"
    " FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::bigint[], %b::float8[], %b::bool[], %b::bigint[],"
    " %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])"
    ' AS new (number, fence, holder, length, updated, paused, messages, title, agent, "user", run, fingerprint)'
    " WHERE sessions.number = new.number"
)


def _values(row: Row) -> tuple[Any, ...]:
    changes = row.changes
    return (
        row.number,
        row.fence,
        row.holder,
        row.length,
        row.updated,
        row.paused,
        changes.messages,
        changes.title,
        changes.agent,
        changes.user,
        changes.run,
        changes.fingerprint,
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _media_size(one: tuple[MediaHash, bytes]) -> int:
    return len(one[1])


def _record_size(one: tuple[int, int, EncodedRecord]) -> int:
    return len(one[2].data)


def _snapshot_size(one: tuple[int, EncodedSnapshot]) -> int:
    return len(one[1].data) + len(one[1].inserted.data)


def _chunks(rows: Sequence[RowT], size: Callable[[RowT], int]) -> Iterator[Sequence[RowT]]:
    """Cut rows into chunks that fit into a statement each."""
    begin = held = 0
    for index, row in enumerate(rows):
        held += size(row)
        if held > _MAX_STATEMENT_BYTES and index > begin:
            yield rows[begin:index]
            begin, held = index, size(row)
    if begin < len(rows):
        yield rows[begin:]


# --- who lives ------------------------------------------------------------------------------------------------


def lock_of(token: str) -> int:
    """Give the number of the advisory lock that whoever names itself so holds while it lives."""
    return int.from_bytes(bytes.fromhex(token), signed=True)


def alive_tokens(connection: psycopg.Connection[tuple[Any, ...]]) -> set[str]:
    """Give the names of those who live, as their locks are held."""
    rows = connection.execute(
        "SELECT classid::bigint, objid::bigint FROM pg_locks"
        " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return {f"{high:08x}{low:08x}" for high, low in rows}
