"""Memories in a SQLite store: full-text search by FTS5 and BM25, vectors beside it, and the extractions that wait."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from gossamer.errors import StoreError
from gossamer.stores.lifetime import Lifetime
from gossamer.stores.memories import (
    Claimed,
    Extraction,
    FoundMemory,
    MemoryChanges,
    MemoryKind,
    MemoryOwner,
    MemoryQuery,
    NewMemory,
    StoredMemory,
    sameness,
    usefulness,
)
from gossamer.stores.nearest import nearest
from gossamer.stores.query_words import query_words, spaced
from gossamer.stores.sqlite_extractions import Claim, Opened, PutBack, Queue, Work, of_agents

if TYPE_CHECKING:
    from gossamer.stores.sqlite_sessions import Write

__all__ = ["ForgetOwner", "SQLiteMemories", "forget_user"]

T = TypeVar("T")

# How many entries of the index one search ranks: a word that stands in more memories than are left of them is passed
# over, the most frequent first; about a microsecond each.
_MOST_RANKED = 3_000

# For how many of the best the words count that were passed over.
_MOST_REWEIGHED = 100

# How many memories share a transaction of deleting, and variables of a statement.
_PAGE = 500

_COLUMNS = "id, text, tool, importance, created, updated, used, uses, session, run, metadata"


class SQLiteMemories:
    """The memories of a SQLite store; see `MemoryStore`.

    Args:
        lifetime: gives the store as it is opened.
    """

    __slots__ = ("_lifetime",)

    def __init__(self, lifetime: Lifetime[Any]) -> None:
        self._lifetime = lifetime

    def _write(self, work: Callable[[Opened], Write[T]]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.write(work(opened)))

    def _reading(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.read(work))

    async def change(self, changes: MemoryChanges) -> list[str]:
        """Change memories; see `MemoryStore.change`."""
        return await self._write(lambda opened: _Change(opened, changes))

    async def search(self, query: MemoryQuery) -> list[FoundMemory]:
        """Find memories; see `MemoryStore.search`."""
        return await self._reading(lambda connection: _search(connection, query))

    async def read(
        self, owner: MemoryOwner, *, limit: int = 100, before: float | None = None
    ) -> list[StoredMemory]:
        """Give an owner's memories; see `MemoryStore.read`."""
        return await self._reading(lambda connection: _read(connection, owner, limit, before))

    def note_uses(self, ids: Sequence[str]) -> asyncio.Future[None]:
        """Note that memories were retrieved; see `MemoryStore.note_uses`."""
        return self._write(lambda _: _NoteUses(ids))

    async def forget(self, owner: MemoryOwner, memory: str) -> bool:
        """Forget one memory; see `MemoryStore.forget`."""
        return await self._write(lambda _: _Forget(owner, memory))

    async def forget_owner(self, owner: MemoryOwner) -> int:
        """Forget all of an owner; see `MemoryStore.forget_owner`."""
        return await self._write(lambda _: ForgetOwner(owner))

    def queue(self, extraction: Extraction, most: int) -> asyncio.Future[int]:
        """Let an extraction wait; see `MemoryStore.queue`."""
        return self._write(lambda _: Queue(extraction, most))

    async def claim(
        self, kind: MemoryKind, agents: Sequence[str] | None, now: float
    ) -> Claimed | float | None:
        """Take an extraction; see `MemoryStore.claim`."""
        return await self._write(lambda opened: Claim(opened, kind, agents, now))

    async def put_back(self, claimed: Claimed, due: float | None, *, counted: bool) -> None:
        """Let an extraction wait again, or drop it; see `MemoryStore.put_back`."""
        await self._write(lambda opened: PutBack(opened, claimed, due, counted))

    async def count_waiting(self, kind: MemoryKind, agents: Sequence[str] | None) -> int:
        """Count the extractions that wait; see `MemoryStore.count_waiting`."""
        where, values = of_agents(kind, agents)
        sql = f"SELECT count(*) FROM memory_jobs WHERE {where}"  # noqa: S608 - the condition is ours
        return await self._reading(lambda connection: connection.execute(sql, values).fetchone()[0])


# --- writing ----------------------------------------------------------------------------------------------------


class _Change(Work):
    """Changes an owner's memories; see `MemoryStore.change`."""

    def __init__(self, opened: Opened, changes: MemoryChanges) -> None:
        self._opened = opened
        self._changes = changes

    def do(self, connection: sqlite3.Connection) -> list[str]:
        """Change them, and let the extraction go that this comes of."""
        changes, now = self._changes, time()
        if changes.claimed is not None:
            done = connection.execute(
                "DELETE FROM memory_jobs WHERE number = ? AND attempts = ? AND holder = ?",
                (changes.claimed.number, changes.claimed.attempts, self._opened.claims.token),
            )
            self._opened.claims.let_go(str(changes.claimed.number), changes.claimed.attempts)
            if not done.rowcount:
                raise StoreError(
                    "the extraction was taken over by another process, or what it came of was deleted"
                )
        owner = _owner_of(connection, changes.owner, make=bool(changes.put))
        if owner is None:
            return []
        if changes.forget:
            _forget(connection, owner, changes.forget)
        ids = [_put(connection, owner, one, now) for one in changes.put]
        if changes.put:
            _let_go(connection, owner, changes, set(ids), now)
        return ids


class _NoteUses(Work):
    """Notes that memories were retrieved."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def do(self, connection: sqlite3.Connection) -> None:
        """Note it."""
        now = time()
        connection.executemany(
            "UPDATE memories SET used = ?, uses = uses + 1 WHERE id = ?", [(now, one) for one in self._ids]
        )


class _Forget(Work):
    """Forgets one memory."""

    def __init__(self, owner: MemoryOwner, memory: str) -> None:
        self._owner = owner
        self._memory = memory

    def do(self, connection: sqlite3.Connection) -> bool:
        """Forget it."""
        owner = _owner_of(connection, self._owner, make=False)
        return owner is not None and _forget(connection, owner, [self._memory]) > 0


class ForgetOwner(Work):
    """Forgets all memories of an owner, and what waits to become one.

    Attributes:
        is_thorough: whether no byte may be left.
    """

    is_thorough = True

    def __init__(self, owner: MemoryOwner) -> None:
        self._owner = owner

    def do(self, connection: sqlite3.Connection) -> int:
        """Forget them; tell how many memories."""
        owner = self._owner
        connection.execute("DELETE FROM memory_jobs WHERE kind = ? AND name = ?", (owner.kind, owner.name))
        number = _owner_of(connection, owner, make=False)
        if number is None:
            return 0
        rows = connection.execute("SELECT number FROM memories WHERE owner = ?", (number,)).fetchall()
        _erase(connection, [one for (one,) in rows])
        connection.execute("DELETE FROM memory_owners WHERE number = ?", (number,))
        return len(rows)


def forget_user(connection: sqlite3.Connection, user: str) -> None:
    """Forget all that is remembered of a user, in whosever memories it went, and what waits to become one."""
    connection.execute(
        "DELETE FROM memory_jobs WHERE user = ? OR (kind = 'personal' AND name = ?)", (user, user)
    )
    rows = connection.execute(
        "SELECT memory FROM memory_users WHERE user = ?1"
        " UNION SELECT memories.number FROM memories JOIN memory_owners ON memory_owners.number = memories.owner"
        " WHERE memory_owners.kind = 'personal' AND memory_owners.name = ?1",
        (user,),
    ).fetchall()
    _erase(connection, [one for (one,) in rows])
    connection.execute("DELETE FROM memory_owners WHERE kind = 'personal' AND name = ?", (user,))


def _owner_of(connection: sqlite3.Connection, owner: MemoryOwner, *, make: bool) -> int | None:
    row = connection.execute(
        "SELECT number FROM memory_owners WHERE kind = ? AND name = ?", (owner.kind, owner.name)
    ).fetchone()
    if row is not None:
        return row[0]
    if not make:
        return None
    return connection.execute(
        "INSERT INTO memory_owners (kind, name) VALUES (?, ?)", (owner.kind, owner.name)
    ).lastrowid


def _put(connection: sqlite3.Connection, owner: int, one: NewMemory, now: float) -> str:
    """Put a memory down: in place of the one of its id, or of one that says the same; give the id that it has."""
    same = sameness(one.tool, one.text)
    equal = connection.execute(
        "SELECT number, id FROM memories WHERE owner = ? AND same = ?", (owner, same)
    ).fetchone()
    named = connection.execute(
        "SELECT number, id FROM memories WHERE owner = ? AND id = ?", (owner, one.id)
    ).fetchone()
    if equal is not None and named is not None and equal != named:
        _take_users(connection, named[0], equal[0])
        _delete(connection, owner, [named[0]])
    kept = equal or named
    if kept is None:
        number = connection.execute(
            "INSERT INTO memories (id, owner, same, text, tool, importance, created, updated, used, session, run,"
            " metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.id,
                owner,
                same,
                one.text,
                one.tool,
                one.importance,
                now,
                now,
                now,
                one.session,
                one.run,
                msgspec.json.encode(one.metadata),
            ),
        ).lastrowid
        assert number is not None
        connection.execute("UPDATE memory_owners SET memories = memories + 1 WHERE number = ?", (owner,))
        name = one.id
    else:
        number, name = kept
        connection.execute(
            "UPDATE memories SET same = ?, text = ?, tool = ?, importance = max(importance, ?), updated = ?,"
            " session = coalesce(?, session), run = coalesce(?, run),"
            " metadata = CASE ? WHEN CAST('{}' AS BLOB) THEN metadata ELSE ? END WHERE number = ?",
            (
                same,
                one.text,
                one.tool,
                one.importance,
                now,
                one.session,
                one.run,
                data := msgspec.json.encode(one.metadata),
                data,
                number,
            ),
        )
        connection.execute("DELETE FROM memory_words WHERE rowid = ?", (number,))
        connection.execute("DELETE FROM memory_vectors WHERE memory = ?", (number,))
    connection.execute(
        "INSERT INTO memory_words (rowid, owner, tool, words) VALUES (?, ?, ?, ?)",
        (number, _scope(owner), spaced(one.tool), spaced(one.text)),
    )
    if one.vector is not None:
        connection.execute(
            "INSERT INTO memory_vectors VALUES (?, ?, ?, ?)", (number, owner, one.embedder, one.vector)
        )
    if one.user is not None:
        connection.execute("INSERT OR IGNORE INTO memory_users VALUES (?, ?)", (one.user, number))
    return name


def _take_users(connection: sqlite3.Connection, from_: int, to: int) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO memory_users SELECT user, ? FROM memory_users WHERE memory = ?", (to, from_)
    )


def _let_go(
    connection: sqlite3.Connection, owner: int, changes: MemoryChanges, fresh: set[str], now: float
) -> None:
    """Let the memories of least use go, where the owner has more than allowed; some more than are due, so that it is rare."""
    count = connection.execute("SELECT memories FROM memory_owners WHERE number = ?", (owner,)).fetchone()[0]
    if count <= changes.most:
        return
    rows = connection.execute(
        "SELECT number, importance, uses, max(used, updated), id FROM memories WHERE owner = ?", (owner,)
    ).fetchall()
    old = [row for row in rows if row[4] not in fresh]
    old.sort(key=lambda row: usefulness(row[1], row[2], now - row[3], changes.half_life))
    _delete(connection, owner, [row[0] for row in old[: count - changes.most + changes.most // 20]])


def _forget(connection: sqlite3.Connection, owner: int, ids: Sequence[str]) -> int:
    rows = [
        connection.execute("SELECT number FROM memories WHERE owner = ? AND id = ?", (owner, one)).fetchone()
        for one in ids
    ]
    numbers = {row[0] for row in rows if row is not None}
    _delete(connection, owner, list(numbers))
    return len(numbers)


def _delete(connection: sqlite3.Connection, owner: int, numbers: Sequence[int]) -> None:
    rows = [(number,) for number in numbers]
    connection.executemany("DELETE FROM memory_words WHERE rowid = ?", rows)
    connection.executemany("DELETE FROM memories WHERE number = ?", rows)
    connection.execute(
        "UPDATE memory_owners SET memories = memories - ? WHERE number = ?", (len(rows), owner)
    )


def _erase(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Delete memories of any owners so that no word of them stays, also not in the index."""
    if not numbers:
        return
    for start in range(0, len(numbers), _PAGE):
        page = numbers[start : start + _PAGE]
        marks = ", ".join("?" * len(page))
        counts = connection.execute(
            f"SELECT owner, count(*) FROM memories WHERE number IN ({marks}) GROUP BY owner",  # noqa: S608 - marks alone
            page,
        ).fetchall()
        rows = [(number,) for number in page]
        connection.executemany("DELETE FROM memory_words WHERE rowid = ?", rows)
        connection.executemany("DELETE FROM memories WHERE number = ?", rows)
        connection.executemany(
            "UPDATE memory_owners SET memories = memories - ? WHERE number = ?",
            [(count, owner) for owner, count in counts],
        )
    # A deleted entry stays in the index until its parts are merged; this merges them all.
    connection.execute("INSERT INTO memory_words (memory_words) VALUES ('optimize')")


# --- reading ----------------------------------------------------------------------------------------------------


def _read(
    connection: sqlite3.Connection, owner: MemoryOwner, limit: int, before: float | None
) -> list[StoredMemory]:
    number = _owner_of(connection, owner, make=False)
    if number is None:
        return []
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM memories WHERE owner = ? AND updated < ? ORDER BY updated DESC LIMIT ?",  # noqa: S608 - names of ours
        (number, 1e300 if before is None else before, limit),
    ).fetchall()
    return [_memory(row) for row in rows]


def _search(connection: sqlite3.Connection, query: MemoryQuery) -> list[FoundMemory]:
    row = connection.execute(
        "SELECT number, memories FROM memory_owners WHERE kind = ? AND name = ?",
        (query.owner.kind, query.owner.name),
    ).fetchone()
    if row is None:
        return []
    owner, count = row
    words = dict(_by_words(connection, owner, count, query))
    cosines = dict(_by_vector(connection, owner, query))
    found: list[FoundMemory] = []
    for number in {**words, **cosines}:
        row = connection.execute(f"SELECT {_COLUMNS} FROM memories WHERE number = ?", (number,)).fetchone()  # noqa: S608 - names of ours
        found.append(FoundMemory(_memory(row), words.get(number), cosines.get(number)))
    return found


def _by_words(
    connection: sqlite3.Connection, owner: int, count: int, query: MemoryQuery
) -> list[tuple[int, float]]:
    """Rank memories by BM25. O(`_MOST_RANKED`), however many there are.

    Those that have one of the rarer words are ranked by these. The words that were passed over, as ranking all that
    have them would take too long, count for the best of these.
    """
    total: int = connection.execute("SELECT coalesce(max(number), 0) FROM memories").fetchone()[0]
    frequencies = sorted(
        (frequency, word)
        for word in query_words(query.text)
        if (frequency := _frequency(connection, word, total))
    )
    if not frequencies:
        return []
    left = _MOST_RANKED
    taken = 0
    for frequency, _ in frequencies:
        left -= min(frequency, 3 * count)  # a word costs no more than a look at each memory of the owner
        if left < 0:
            break
        taken += 1
    words = " OR ".join(f'"{word}"' for _, word in frequencies[: taken or 1])
    match = f"{{tool words}} : ({words})"
    scoped = f"owner : {_scope(owner)} AND {match}"
    # Where most memories are the owner's, to leave others out afterwards is cheaper than to look it up.
    is_most = 2 * count > total
    least = 0 if taken else _newest(connection, match if is_most else scoped)
    passed_over = frequencies[taken or 1 :]
    limit = max(query.limit, _MOST_REWEIGHED) if passed_over else query.limit
    rows = _ranked(connection, match, least, owner, query.tool, 4 * limit) if is_most else []
    if len(rows) < limit:
        rows = _ranked(connection, scoped, least, owner, query.tool, limit)
    scores = {number: score for number, score, _ in rows[:limit]}
    weights = {
        word: math.log((total - frequency + 0.5) / (frequency + 0.5))
        for frequency, word in passed_over
        if 2 * frequency < total
    }
    if weights:
        for number, _, text in rows[:limit]:
            scores[number] += sum(weights.get(word, 0.0) for word in set(query_words(text)))
    return sorted(scores.items(), key=lambda one: -one[1])[: query.limit]


def _ranked(
    connection: sqlite3.Connection, match: str, least: int, owner: int, tool: str, limit: int
) -> list[tuple[int, float, str]]:
    """Give numbers, scores and texts of the owner's among the best that match, from a number on."""
    about = "" if not tool else " AND rowid IN (SELECT number FROM memories WHERE owner = ?3 AND tool = ?5)"
    return connection.execute(
        "SELECT number, -score, text FROM (SELECT rowid AS found, bm25(memory_words, 0.0, 1.0, 1.0) AS score"  # noqa: S608 - as above
        f" FROM memory_words WHERE memory_words MATCH ?1 AND rowid > ?2{about} ORDER BY score LIMIT ?4)"
        " JOIN memories ON number = found WHERE owner = ?3 ORDER BY score",
        (match, least, owner, limit, *((tool,) if tool else ())),
    ).fetchall()


def _newest(connection: sqlite3.Connection, match: str) -> int:
    """Tell before which number memories that have a frequent word are left out: so many newer ones have it."""
    row = connection.execute(
        "SELECT rowid FROM memory_words WHERE memory_words MATCH ? ORDER BY rowid DESC LIMIT 1 OFFSET ?",
        (match, _MOST_RANKED),
    ).fetchone()
    return 0 if row is None else row[0]


def _frequency(connection: sqlite3.Connection, word: str, total: int) -> int:
    """Tell in how many memories a word stands; beyond `_MOST_RANKED` about, by how soon so many were found."""
    found, last = connection.execute(
        "SELECT count(*), max(rowid) FROM (SELECT rowid FROM memory_words WHERE memory_words MATCH ? LIMIT ?)",
        (f'{{tool words}} : "{word}"', _MOST_RANKED + 1),
    ).fetchone()
    return found if found <= _MOST_RANKED else int(found * total / last)


def _by_vector(connection: sqlite3.Connection, owner: int, query: MemoryQuery) -> list[tuple[int, float]]:
    """Compare all of an owner's vectors of the same embedder. O(the owner's memories)."""
    if query.vector is None:
        return []
    condition = (
        "" if not query.tool else " AND memory IN (SELECT number FROM memories WHERE owner = ? AND tool = ?)"
    )
    values: list[Any] = [owner, query.embedder, len(query.vector)]
    values += [owner, query.tool] if query.tool else []
    rows = connection.execute(
        "SELECT memory, vector FROM memory_vectors WHERE owner = ? AND embedder = ? AND length(vector) = ?"  # noqa: S608 - as above
        + condition,
        values,
    ).fetchall()
    return nearest(query.vector, rows, query.limit)


def _memory(row: tuple[Any, ...]) -> StoredMemory:
    values = [*row[:-1], msgspec.json.decode(row[-1])]
    return StoredMemory(*values)


def _scope(owner: int) -> str:
    """The word that stands for an owner in the index, so that a search reads no other's entries."""
    return f"owner{owner}owner"
