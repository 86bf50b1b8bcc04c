"""Extractions of memories that wait in a SQLite store, each done by one process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gossamer.holding import running_loop
from gossamer.stores.holds import Holds
from gossamer.stores.memories import Claimed, Extraction, MemoryKind, MemoryOwner

if TYPE_CHECKING:
    from gossamer.stores.sqlite_sessions import Write

__all__ = ["Claim", "Opened", "PutBack", "Queue", "Work", "of_agents"]

T = TypeVar("T")


class Opened(Protocol):
    """A store as it is opened in this process."""

    @property
    def claims(self) -> Holds:
        """The extractions that are under way here, by their numbers."""
        ...

    def is_alive(self, token: str) -> bool:
        """Whether the process lives that names itself so."""
        ...

    def write(self, work: Write[T]) -> asyncio.Future[T] | None:
        """Ask for a write."""
        ...

    def read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T] | None:
        """Ask for a read."""
        ...


class Work:
    """A write that needs no preparation and keeps nothing outside of the database; see `Write`."""

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def undo(self) -> None:
        """Nothing is kept outside."""


class Queue(Work):
    """Lets an extraction wait."""

    def __init__(self, extraction: Extraction, most: int) -> None:
        self._extraction = extraction
        self._most = most

    def do(self, connection: sqlite3.Connection) -> int:
        """Put it down; tell how many older ones were dropped for it, none of those that are under way."""
        one = self._extraction
        connection.execute(
            "INSERT INTO memory_jobs (kind, name, agent, user, session, run, material) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, name, run) DO UPDATE SET material = excluded.material",
            (one.owner.kind, one.owner.name, one.agent, one.user, one.session, one.run, one.material),
        )
        waiting = connection.execute(
            "SELECT count(*) FROM memory_jobs WHERE kind = ? AND agent = ? AND holder IS NULL",
            (one.owner.kind, one.agent),
        ).fetchone()[0]
        if waiting <= self._most:
            return 0
        return connection.execute(
            "DELETE FROM memory_jobs WHERE number IN (SELECT number FROM memory_jobs WHERE kind = ? AND agent = ?"
            " AND holder IS NULL ORDER BY number LIMIT ?)",
            (one.owner.kind, one.agent, waiting - self._most),
        ).rowcount


class Claim:
    """Takes an extraction; see `MemoryStore.claim`."""

    def __init__(self, opened: Opened, kind: MemoryKind, agents: Sequence[str] | None, now: float) -> None:
        self._opened = opened
        self._kind: MemoryKind = kind
        self._agents = agents
        self._now = now
        self._loop = running_loop()
        self._taken: tuple[str, int] | None = None

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def do(self, connection: sqlite3.Connection) -> Claimed | float | None:
        """Take the oldest that is due and free."""
        ours, alive = self._opened, dict[str, bool]()
        where, values = of_agents(self._kind, self._agents)
        next_due: float | None = None
        rows = connection.execute(
            f"SELECT number, holder, due FROM memory_jobs WHERE {where} ORDER BY number",  # noqa: S608 - as above
            values,
        )
        for number, holder, due in rows:
            if holder is not None:
                if holder not in alive:
                    alive[holder] = holder != ours.claims.token and ours.is_alive(holder)
                if alive[holder] or (holder == ours.claims.token and ours.claims.is_held(str(number))):
                    continue
            if due > self._now:
                next_due = due if next_due is None else min(next_due, due)
                continue
            rows.close()
            connection.execute(
                "UPDATE memory_jobs SET holder = ?, attempts = attempts + 1 WHERE number = ?",
                (ours.claims.token, number),
            )
            attempts, name, *rest = connection.execute(
                "SELECT attempts, name, agent, user, session, run, material FROM memory_jobs WHERE number = ?",
                (number,),
            ).fetchone()
            ours.claims.take(str(number), attempts, self._loop)
            self._taken = str(number), attempts
            return Claimed(number, attempts, Extraction(MemoryOwner(self._kind, name), *rest))
        return next_due

    def undo(self) -> None:
        """It was not taken."""
        if self._taken is not None:
            self._opened.claims.let_go(*self._taken)


class PutBack(Work):
    """Lets an extraction wait again, or drops it."""

    def __init__(self, opened: Opened, claimed: Claimed, due: float | None, counted: bool) -> None:
        self._opened = opened
        self._claimed = claimed
        self._due = due
        self._counted = counted

    def do(self, connection: sqlite3.Connection) -> None:
        """Put it back, where it is still ours."""
        number, token = self._claimed.number, self._opened.claims.token
        if self._due is None:
            connection.execute("DELETE FROM memory_jobs WHERE number = ? AND holder = ?", (number, token))
        else:
            connection.execute(
                "UPDATE memory_jobs SET holder = NULL, due = ?, attempts = attempts - ? WHERE number = ? AND holder = ?",
                (self._due, int(not self._counted), number, token),
            )
        self._opened.claims.let_go(str(number), self._claimed.attempts)

    def undo(self) -> None:
        """It is not under way here any more, whatever is written."""
        self._opened.claims.let_go(str(self._claimed.number), self._claimed.attempts)


def of_agents(kind: MemoryKind, agents: Sequence[str] | None) -> tuple[str, list[Any]]:
    """Give the condition for extractions of a kind and of some agents, or of all where None; and its values."""
    if agents is None:
        return "kind = ?", [kind]
    return f"kind = ? AND agent IN ({', '.join('?' * len(agents))})", [kind, *agents]
