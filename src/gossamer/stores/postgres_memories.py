"""Memories in a Postgres store: full-text search by GIN, ranked by the rarity of words, vectors beside it, and extractions.

Postgres has no BM25 of its own, and `ts_rank` knows nothing of how rare a word is. So memories are ranked by the sum of
the inverse document frequencies of the query's words that they have, as BM25 has them: that is BM25 without counting how
often a word stands in a memory, and without its length, which for a sentence or two says little.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from gossamer.errors import StoreError
from gossamer.holding import running_loop
from gossamer.stores.holds import Holds
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
from gossamer.stores.postgres_batch import alive_tokens
from gossamer.stores.query_words import index_words, query_words

if TYPE_CHECKING:
    import psycopg

__all__ = ["MemoryWrite", "PostgresMemories", "forget_user"]

T = TypeVar("T")
Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

# How many memories one search ranks: of those that have a word of the query the newest.
_MOST_RANKED = 1_000

# Extractions that are looked at together for one that is free.
_JOBS = 100

# Stems and stop words of English; words of other languages stay as they are.
_LANGUAGE = "english"

_COLUMNS = "id, text, tool, importance, created, updated, used, uses, session, run, metadata"


class Opened(Protocol):
    """A store as it is opened in this process."""

    claims: Holds

    def write(self, work: MemoryWrite[T]) -> asyncio.Future[T] | None:
        """Ask for a write."""
        ...

    def read(self, work: Callable[[Connection], T]) -> asyncio.Future[T] | None:
        """Ask for a read."""
        ...


class MemoryWrite(Generic[T]):
    """A write to memories, in a transaction of its own, done in the order in which writes were asked for.

    Args:
        work: does it; what it raises undoes it.
        undo: forgets what was kept outside of the database, before another try and after a failure.

    Attributes:
        is_committing: whether it may be done, as far as is known here.
    """

    def __init__(self, work: Callable[[Connection], T], undo: Callable[[], None] | None = None) -> None:
        self._work = work
        self._undo = undo
        self.is_committing = False

    def do(self, connection: Connection) -> T:
        """Write."""
        self.is_committing = False
        try:
            with connection.transaction():
                result = self._work(connection)
                self.is_committing = True
        except BaseException:
            if self._undo is not None:
                self._undo()
            raise
        return result


class PostgresMemories:
    """The memories of a Postgres store; see `MemoryStore`.

    Args:
        lifetime: gives the store as it is opened.
    """

    __slots__ = ("_lifetime",)

    def __init__(self, lifetime: Lifetime[Any]) -> None:
        self._lifetime = lifetime

    def _write(self, work: Callable[[Opened], MemoryWrite[T]]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.write(work(opened)))

    def _reading(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.read(work))

    async def change(self, changes: MemoryChanges) -> list[str]:
        """Change memories; see `MemoryStore.change`."""
        return await self._write(
            lambda opened: MemoryWrite(lambda connection: _change(connection, opened.claims, changes))
        )

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
        return self._write(lambda _: MemoryWrite(lambda connection: _note_uses(connection, ids)))

    async def forget(self, owner: MemoryOwner, memory: str) -> bool:
        """Forget one memory; see `MemoryStore.forget`."""
        return await self._write(
            lambda _: MemoryWrite(lambda connection: _forget_one(connection, owner, memory))
        )

    async def forget_owner(self, owner: MemoryOwner) -> int:
        """Forget all of an owner; see `MemoryStore.forget_owner`."""
        return await self._write(lambda _: MemoryWrite(lambda connection: _forget_owner(connection, owner)))

    def queue(self, extraction: Extraction, most: int) -> asyncio.Future[int]:
        """Let an extraction wait; see `MemoryStore.queue`."""
        return self._write(lambda _: MemoryWrite(lambda connection: _queue(connection, extraction, most)))

    async def claim(
        self, kind: MemoryKind, agents: Sequence[str] | None, now: float
    ) -> Claimed | float | None:
        """Take an extraction; see `MemoryStore.claim`."""

        def work(opened: Opened) -> MemoryWrite[Claimed | float | None]:
            claim = _Claim(opened.claims, kind, agents, now)
            return MemoryWrite(claim.do, claim.undo)

        return await self._write(work)

    async def put_back(self, claimed: Claimed, due: float | None, *, counted: bool) -> None:
        """Let an extraction wait again, or drop it; see `MemoryStore.put_back`."""
        await self._write(
            lambda opened: MemoryWrite(
                lambda connection: _put_back(connection, opened.claims, claimed, due, counted=counted),
                lambda: opened.claims.let_go(str(claimed.number), claimed.attempts),
            )
        )

    async def count_waiting(self, kind: MemoryKind, agents: Sequence[str] | None) -> int:
        """Count the extractions that wait; see `MemoryStore.count_waiting`."""
        return await self._reading(
            lambda connection: _one(
                connection,
                "SELECT count(*) FROM memory_jobs WHERE kind = %s AND (%s::text[] IS NULL OR agent = ANY(%s))",
                (kind, _list(agents), _list(agents)),
            )
        )


# --- writing ----------------------------------------------------------------------------------------------------


def _change(connection: Connection, claims: Holds, changes: MemoryChanges) -> list[str]:
    now = time()
    if changes.claimed is not None:
        done = connection.execute(
            "DELETE FROM memory_jobs WHERE number = %s AND attempts = %s AND holder = %s",
            (changes.claimed.number, changes.claimed.attempts, claims.token),
        )
        claims.let_go(str(changes.claimed.number), changes.claimed.attempts)
        if not done.rowcount:
            raise StoreError(
                "the extraction was taken over by another process, or what it came of was deleted"
            )
    owner = _locked_owner(connection, changes.owner, make=bool(changes.put))
    if owner is None:
        return []
    if changes.forget:
        _delete(connection, owner, "id = ANY(%s)", list(changes.forget))
    ids = [_put(connection, owner, one, now) for one in changes.put]
    if changes.put:
        _let_go(connection, owner, changes, set(ids), now)
    return ids


def _note_uses(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(
        "UPDATE memories SET used = %s, uses = uses + 1 WHERE id = ANY(%s)", (time(), list(ids))
    )


def _forget_one(connection: Connection, owner: MemoryOwner, memory: str) -> bool:
    number = _locked_owner(connection, owner, make=False)
    return number is not None and _delete(connection, number, "id = ANY(%s)", [memory]) > 0


def _forget_owner(connection: Connection, owner: MemoryOwner) -> int:
    connection.execute("DELETE FROM memory_jobs WHERE kind = %s AND name = %s", (owner.kind, owner.name))
    number = _locked_owner(connection, owner, make=False)
    if number is None:
        return 0
    gone = connection.execute("DELETE FROM memories WHERE owner = %s", (number,)).rowcount
    connection.execute("DELETE FROM memory_owners WHERE number = %s", (number,))
    return gone


def forget_user(connection: Connection, user: str) -> None:
    """Forget all that is remembered of a user, in whosever memories it went, and what waits to become one."""
    connection.execute(
        "DELETE FROM memory_jobs WHERE \"user\" = %s OR (kind = 'personal' AND name = %s)", (user, user)
    )
    connection.execute(
        'WITH gone AS (DELETE FROM memories USING memory_users WHERE memory = number AND "user" = %s'
        " RETURNING owner), counts AS (SELECT owner, count(*) AS count FROM gone GROUP BY owner)"
        " UPDATE memory_owners SET memories = memories - counts.count FROM counts WHERE number = counts.owner",
        (user,),
    )
    connection.execute("DELETE FROM memory_owners WHERE kind = 'personal' AND name = %s", (user,))


def _queue(connection: Connection, one: Extraction, most: int) -> int:
    connection.execute(
        'INSERT INTO memory_jobs (kind, name, agent, "user", session, run, material)'
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (kind, name, run) DO UPDATE SET material = excluded.material",
        (one.owner.kind, one.owner.name, one.agent, one.user, one.session, one.run, one.material),
    )
    waiting = _one(
        connection,
        "SELECT count(*) FROM memory_jobs WHERE kind = %s AND agent = %s AND holder IS NULL",
        (one.owner.kind, one.agent),
    )
    if waiting <= most:
        return 0
    return connection.execute(
        "DELETE FROM memory_jobs WHERE number IN (SELECT number FROM memory_jobs WHERE kind = %s AND agent = %s"
        " AND holder IS NULL ORDER BY number LIMIT %s)",
        (one.owner.kind, one.agent, waiting - most),
    ).rowcount


class _Claim:
    """Takes an extraction; see `MemoryStore.claim`."""

    def __init__(self, claims: Holds, kind: MemoryKind, agents: Sequence[str] | None, now: float) -> None:
        self._claims = claims
        self._kind: MemoryKind = kind
        self._agents = _list(agents)
        self._now = now
        self._loop = running_loop()
        self._taken: tuple[str, int] | None = None

    def do(self, connection: Connection) -> Claimed | float | None:
        """Take the oldest that is due and free; one that another process takes in this moment is left to it."""
        claims, alive = self._claims, None
        next_due: float | None = None
        last, full = 0, True
        while full:
            rows = connection.execute(
                "SELECT number, attempts, holder, due FROM memory_jobs WHERE kind = %s AND number > %s"
                " AND (%s::text[] IS NULL OR agent = ANY(%s)) ORDER BY number LIMIT %s",
                (self._kind, last, self._agents, self._agents, _JOBS),
            ).fetchall()
            for last, attempts, holder, due in rows:
                if holder is not None:
                    alive = alive_tokens(connection) if alive is None else alive
                    if claims.is_held(str(last)) if holder == claims.token else holder in alive:
                        continue
                if due > self._now:
                    next_due = due if next_due is None else min(next_due, due)
                    continue
                taken = connection.execute(
                    "UPDATE memory_jobs SET holder = %s, attempts = attempts + 1"
                    " WHERE number = %s AND attempts = %s AND holder IS NOT DISTINCT FROM %s"
                    ' RETURNING attempts, name, agent, "user", session, run, material',
                    (claims.token, last, attempts, holder),
                ).fetchone()
                if taken is not None:
                    count, name, *rest = taken
                    claims.take(str(last), count, self._loop)
                    self._taken = str(last), count
                    return Claimed(last, count, Extraction(MemoryOwner(self._kind, name), *rest))
            full = len(rows) == _JOBS
        return next_due

    def undo(self) -> None:
        """It was not taken."""
        if self._taken is not None:
            self._claims.let_go(*self._taken)


def _put_back(
    connection: Connection, claims: Holds, claimed: Claimed, due: float | None, *, counted: bool
) -> None:
    number = claimed.number
    if due is None:
        connection.execute(
            "DELETE FROM memory_jobs WHERE number = %s AND holder = %s", (number, claims.token)
        )
    else:
        connection.execute(
            "UPDATE memory_jobs SET holder = NULL, due = %s, attempts = attempts - %s"
            " WHERE number = %s AND holder = %s",
            (due, int(not counted), number, claims.token),
        )
    claims.let_go(str(number), claimed.attempts)


def _locked_owner(connection: Connection, owner: MemoryOwner, *, make: bool) -> int | None:
    """Give the number of an owner, locked against changes by other processes; None where there is none."""
    if make:
        connection.execute(
            "INSERT INTO memory_owners (kind, name) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (owner.kind, owner.name),
        )
    row = connection.execute(
        "SELECT number FROM memory_owners WHERE kind = %s AND name = %s FOR UPDATE", (owner.kind, owner.name)
    ).fetchone()
    return None if row is None else row[0]


def _put(connection: Connection, owner: int, one: NewMemory, now: float) -> str:
    """Put a memory down: in place of the one of its id, or of one that says the same; give the id that it has."""
    same = sameness(one.tool, one.text)
    equal = connection.execute(
        "SELECT number, id FROM memories WHERE owner = %s AND same = %b", (owner, same)
    ).fetchone()
    named = connection.execute(
        "SELECT number, id FROM memories WHERE owner = %s AND id = %s", (owner, one.id)
    ).fetchone()
    if equal is not None and named is not None and equal != named:
        connection.execute(
            'INSERT INTO memory_users SELECT "user", %s FROM memory_users WHERE memory = %s ON CONFLICT DO NOTHING',
            (equal[0], named[0]),
        )
        _delete(connection, owner, "number = ANY(%s)", [named[0]])
    kept = equal or named
    # The owner stands in the vector as a word that no text can have, so that a search reads no other's entries.
    words = (_LANGUAGE, index_words(f"{one.tool} {one.text}"), _scope(owner))
    metadata = msgspec.json.encode(one.metadata)
    if kept is None:
        number = _one(
            connection,
            "INSERT INTO memories (id, owner, same, text, tool, importance, created, updated, used, session, run,"
            " metadata, words) VALUES (%s, %s, %b, %s, %s, %s, %s, %s, %s, %s, %s, %b,"
            " to_tsvector(%s::regconfig, %s) || array_to_tsvector(ARRAY[%s])) RETURNING number",
            (
                one.id,
                owner,
                same,
                one.text,
                one.tool,
                float(one.importance),
                now,
                now,
                now,
                one.session,
                one.run,
                metadata,
                *words,
            ),
        )
        connection.execute("UPDATE memory_owners SET memories = memories + 1 WHERE number = %s", (owner,))
        name = one.id
    else:
        number, name = kept
        connection.execute(
            "UPDATE memories SET same = %b, text = %s, tool = %s, importance = greatest(importance, %s), updated = %s,"
            " session = coalesce(%s, session), run = coalesce(%s, run),"
            " metadata = CASE WHEN %s THEN %b ELSE metadata END,"
            " words = to_tsvector(%s::regconfig, %s) || array_to_tsvector(ARRAY[%s]) WHERE number = %s",
            (
                same,
                one.text,
                one.tool,
                float(one.importance),
                now,
                one.session,
                one.run,
                bool(one.metadata),
                metadata,
                *words,
                number,
            ),
        )
        connection.execute("DELETE FROM memory_vectors WHERE memory = %s", (number,))
    if one.vector is not None:
        connection.execute(
            "INSERT INTO memory_vectors VALUES (%s, %s, %s, %b)", (number, owner, one.embedder, one.vector)
        )
    if one.user is not None:
        connection.execute(
            "INSERT INTO memory_users VALUES (%s, %s) ON CONFLICT DO NOTHING", (one.user, number)
        )
    return name


def _let_go(connection: Connection, owner: int, changes: MemoryChanges, fresh: set[str], now: float) -> None:
    """Let the memories of least use go, where the owner has more than allowed; some more than are due, so that it is rare."""
    count = _one(connection, "SELECT memories FROM memory_owners WHERE number = %s", (owner,))
    if count <= changes.most:
        return
    rows = connection.execute(
        "SELECT number, importance, uses, greatest(used, updated), id FROM memories WHERE owner = %s",
        (owner,),
    ).fetchall()
    old = [row for row in rows if row[4] not in fresh]
    old.sort(key=lambda row: usefulness(row[1], row[2], now - row[3], changes.half_life))
    gone = [row[0] for row in old[: count - changes.most + changes.most // 20]]
    _delete(connection, owner, "number = ANY(%s)", gone)


def _delete(connection: Connection, owner: int, condition: str, values: list[Any]) -> int:
    deleted = connection.execute(
        f"DELETE FROM memories WHERE owner = %s AND {condition}".encode(),  # noqa: S608 - the condition is ours
        (owner, values),
    ).rowcount
    connection.execute(
        "UPDATE memory_owners SET memories = memories - %s WHERE number = %s", (deleted, owner)
    )
    return deleted


# --- reading ----------------------------------------------------------------------------------------------------


def _read(connection: Connection, owner: MemoryOwner, limit: int, before: float | None) -> list[StoredMemory]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM memories"  # noqa: S608 - names of ours
        " WHERE owner = (SELECT number FROM memory_owners WHERE kind = %s AND name = %s) AND updated < %s"
        " ORDER BY updated DESC LIMIT %s".encode(),
        (owner.kind, owner.name, 1e300 if before is None else before, limit),
    ).fetchall()
    return [_memory(row) for row in rows]


def _search(connection: Connection, query: MemoryQuery) -> list[FoundMemory]:
    row = connection.execute(
        "SELECT number, memories FROM memory_owners WHERE kind = %s AND name = %s",
        (query.owner.kind, query.owner.name),
    ).fetchone()
    if row is None:
        return []
    owner, count = row
    words = dict(_by_words(connection, owner, count, query))
    cosines = dict(_by_vector(connection, owner, query))
    rows = connection.execute(
        f"SELECT number, {_COLUMNS} FROM memories WHERE number = ANY(%s)".encode(),  # noqa: S608 - names of ours
        (list({**words, **cosines}),),
    ).fetchall()
    return [FoundMemory(_memory(row), words.get(number), cosines.get(number)) for number, *row in rows]


def _by_words(connection: Connection, owner: int, count: int, query: MemoryQuery) -> list[tuple[int, float]]:
    words = [index_words(word) for word in query_words(query.text)]
    if not words:
        return []
    # Where most memories are the owner's, to leave others out afterwards is cheaper than to look it up.
    total = _one(connection, "SELECT coalesce(max(number), 0) FROM memories", ())
    is_most = 2 * count > total
    whose = owner if is_most else f"'{_scope(owner)}'"
    matching = "owner = %s AND words @@ {}" if is_most else "words @@ (%s::text::tsquery && {})"
    # How frequent a word is the planner cannot know beforehand: it would read the whole table for one that is rare.
    connection.execute(
        "SELECT set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)"
    )
    frequencies = connection.execute(
        f"SELECT word, (SELECT count(*) FROM (SELECT FROM memories WHERE {matching.format('asked')} LIMIT %s)"  # noqa: S608 - ours
        " AS few) FROM"
        " (SELECT word, phraseto_tsquery(%s::regconfig, word) AS asked FROM unnest(%s::text[]) AS one (word)) AS queries"
        " WHERE numnode(asked) > 0",  # none is left of a stop word
        (whose, _MOST_RANKED + 1, _LANGUAGE, list(dict.fromkeys(words))),
    ).fetchall()
    chosen: list[tuple[str, float]] = []
    left = _MOST_RANKED
    for word, frequency in sorted(frequencies, key=lambda row: row[1]):
        if not frequency:
            continue
        if frequency > left and chosen:  # it says little beside rarer ones
            break
        chosen.append((word, math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))))
        left -= frequency
    if not chosen:
        return []
    if left < 0:  # the rarest is frequent: the newest memories are read, as soon so many have it
        connection.execute("SET LOCAL enable_bitmapscan = off")
    found = matching.format("(SELECT string_agg('(' || query::text || ')', '|')::tsquery FROM asked)")
    return connection.execute(
        "WITH asked AS (SELECT phraseto_tsquery(%s::regconfig, word) AS query, weight"  # noqa: S608 - as above
        " FROM unnest(%s::text[], %s::float8[]) AS one (word, weight)),"
        f" found AS (SELECT number, words FROM memories WHERE {found} AND (%s = '' OR tool = %s)"
        " ORDER BY number DESC LIMIT %s)"
        " SELECT number, sum(weight) AS score FROM found JOIN asked ON words @@ query"
        " GROUP BY number ORDER BY score DESC, number DESC LIMIT %s",
        (
            _LANGUAGE,
            [word for word, _ in chosen],
            [weight for _, weight in chosen],
            whose,
            query.tool,
            query.tool,
            _MOST_RANKED,
            query.limit,
        ),
    ).fetchall()


def _by_vector(connection: Connection, owner: int, query: MemoryQuery) -> list[tuple[int, float]]:
    """Compare all of an owner's vectors of the same embedder. O(the owner's memories)."""
    if query.vector is None:
        return []
    rows = connection.execute(
        "SELECT memory, vector FROM memory_vectors WHERE owner = %s AND embedder = %s AND octet_length(vector) = %s"
        " AND (%s = '' OR memory IN (SELECT number FROM memories WHERE owner = %s AND tool = %s))",
        (owner, query.embedder, len(query.vector), query.tool, owner, query.tool),
        binary=True,
    ).fetchall()
    return nearest(query.vector, rows, query.limit)


def _memory(row: Sequence[Any]) -> StoredMemory:
    values = [*row[:-1], msgspec.json.decode(row[-1])]
    return StoredMemory(*values)


def _scope(owner: int) -> str:
    return f"owner:{owner}"


def _list(agents: Sequence[str] | None) -> list[str] | None:
    return None if agents is None else list(agents)


def _one(connection: Connection, statement: str, values: tuple[Any, ...]) -> Any:
    row = connection.execute(statement.encode(), values).fetchone()
    assert row is not None
    return row[0]
