"""What a store keeps of what is remembered across sessions, and the plain data that this takes and gives."""

from __future__ import annotations

import asyncio
import math
import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

__all__ = [
    "Claimed",
    "Extraction",
    "FoundMemory",
    "MemoryChanges",
    "MemoryKind",
    "MemoryOwner",
    "MemoryQuery",
    "MemoryStore",
    "NewMemory",
    "StoredMemory",
    "normalised",
    "sameness",
    "usefulness",
    "vitality",
]

# What is remembered: facts about a user, what worked for an agent's tasks, or how an agent's tools behaved.
MemoryKind: TypeAlias = Literal["personal", "task", "tool"]


class MemoryOwner(msgspec.Struct, frozen=True):
    """Whose memories: nothing that is asked of one owner's ever shows another's.

    Attributes:
        kind: what is remembered.
        name: of personal memories the user, of others the agent.
    """

    kind: MemoryKind
    name: str


class StoredMemory(msgspec.Struct, frozen=True):
    """One thing that is remembered.

    Attributes:
        id: names it.
        text: what is remembered, in a sentence or two.
        tool: the tool that it is about, "" for none.
        importance: from 0 to 1.
        created: seconds since the epoch.
        updated: the same, when its text was last said or changed.
        used: the same, when it was last retrieved; `created` before.
        uses: how often it was.
        session: the session that it came from last, or None.
        run: that run, or None.
        metadata: the caller's own data.
    """

    id: str
    text: str
    tool: str = ""
    importance: float = 0.5
    created: float = 0.0
    updated: float = 0.0
    used: float = 0.0
    uses: int = 0
    session: str | None = None
    run: str | None = None
    metadata: Mapping[str, Any] = {}


class NewMemory(msgspec.Struct, frozen=True):
    """What is to be remembered.

    Attributes:
        id: of the memory that it replaces, or a new one.
        text: see `StoredMemory`; so are the others.
        tool: the same.
        importance: the same.
        user: on whose behalf it was said; it goes when all that is kept of this user is deleted.
        session: the same.
        run: the same.
        metadata: the same.
        vector: of its text, float32; None without an embedder.
        embedder: who made the vector: those of another one are not compared.
    """

    id: str
    text: str
    tool: str = ""
    importance: float = 0.5
    user: str | None = None
    session: str | None = None
    run: str | None = None
    metadata: Mapping[str, Any] = {}
    vector: bytes | None = None
    embedder: str = ""


class MemoryQuery(msgspec.Struct, frozen=True):
    """What is looked for.

    Attributes:
        owner: whose memories.
        text: plain text; it has no syntax.
        limit: the most that are given by words, and again by vector.
        vector: of the text, float32; None without an embedder.
        embedder: see `NewMemory`.
        tool: only those about this tool; all where "".
    """

    owner: MemoryOwner
    text: str
    limit: int
    vector: bytes | None = None
    embedder: str = ""
    tool: str = ""


class FoundMemory(msgspec.Struct, frozen=True):
    """A memory that was found.

    Attributes:
        memory: the memory.
        words: how well its words match, higher is better; None where it was not found by words.
        cosine: how near its vector is, from -1 to 1; None where it is not among the nearest.
    """

    memory: StoredMemory
    words: float | None = None
    cosine: float | None = None


class Extraction(msgspec.Struct, frozen=True):
    """Something said, out of which memories are to be extracted.

    Attributes:
        owner: whose memories.
        agent: the agent that ran.
        user: on whose behalf.
        session: the session's id, or None.
        run: the run's id; one run's extraction waits once for each owner.
        material: what was said, as text.
    """

    owner: MemoryOwner
    agent: str
    user: str | None
    session: str | None
    run: str
    material: str


class Claimed(msgspec.Struct, frozen=True):
    """An extraction that this process is to do.

    Attributes:
        number: names it.
        attempts: how often it was begun, this time included.
        extraction: what is to be done.
    """

    number: int
    attempts: int
    extraction: Extraction


class MemoryChanges(msgspec.Struct, frozen=True):
    """Changes to an owner's memories, made in one transaction.

    Attributes:
        owner: whose memories.
        put: what is to be remembered. One that says the same as another, but for case, spaces and marks at its end, is put in
            that one's place.
        forget: the ids of those to be forgotten.
        most: how many the owner may have; beyond, those of least use go.
        half_life: seconds after which a memory that nobody used is of half the use.
        claimed: the extraction that is done with this; nothing is changed where it is another process's by now.
    """

    owner: MemoryOwner
    put: Sequence[NewMemory] = ()
    forget: Sequence[str] = ()
    most: int = 1000
    half_life: float = 90 * 86_400.0
    claimed: Claimed | None = None


class MemoryStore(Protocol):
    """Keeps memories beside sessions. Safe to share, and blocks no event loop, as the store that it belongs to.

    Raises:
        StoreError: each method, where the store cannot do what it is asked.
    """

    async def change(self, changes: MemoryChanges) -> list[str]:
        """Change memories.

        Returns:
            The ids of what was put, in order; where one was put in another's place, that one's.

        Raises:
            StoreError: the extraction is another process's by now.
        """
        ...

    async def search(self, query: MemoryQuery) -> list[FoundMemory]:
        """Find memories by their words, and by vectors where the query has one; in no order."""
        ...

    async def read(
        self, owner: MemoryOwner, *, limit: int = 100, before: float | None = None
    ) -> list[StoredMemory]:
        """Give an owner's memories, those changed last first.

        Args:
            owner: whose.
            limit: the most that are given.
            before: only those changed before this time, in seconds since the epoch; for the next page.
        """
        ...

    def note_uses(self, ids: Sequence[str]) -> asyncio.Future[None]:
        """Note that memories were retrieved."""
        ...

    async def forget(self, owner: MemoryOwner, memory: str) -> bool:
        """Forget one memory; tells whether the owner had one of this id."""
        ...

    async def forget_owner(self, owner: MemoryOwner) -> int:
        """Forget all memories of an owner, and the extractions that wait; tells how many memories."""
        ...

    def queue(self, extraction: Extraction, most: int) -> asyncio.Future[int]:
        """Let an extraction wait; it is on disk no later than any record that is appended after this call.

        Args:
            extraction: what is to be done.
            most: how many of one kind and agent may wait; beyond, the oldest are dropped.

        Returns:
            What to await for how many were dropped.
        """
        ...

    async def claim(
        self, kind: MemoryKind, agents: Sequence[str] | None, now: float
    ) -> Claimed | float | None:
        """Take the oldest extraction that waits and is due, and that no living process has taken.

        Args:
            kind: of what memories.
            agents: of whose runs; of any where None.
            now: seconds since the epoch; those due later are left.

        Returns:
            The extraction; or where none is due, when the next one is; or None where none waits.
        """
        ...

    async def put_back(self, claimed: Claimed, due: float | None, *, counted: bool) -> None:
        """Let an extraction that was taken wait again, or drop it.

        Args:
            claimed: the extraction.
            due: when it may be taken again, in seconds since the epoch; None to drop it.
            counted: whether the attempt counts.
        """
        ...

    async def count_waiting(self, kind: MemoryKind, agents: Sequence[str] | None) -> int:
        """Count the extractions that wait or are under way."""
        ...


def normalised(text: str) -> str:
    """Give a text without what makes no difference: case, width of letters, spaces, marks at its end. O(text)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(" .!?。") or folded


def sameness(tool: str, text: str) -> bytes:
    """Give what two memories share that say the same; SHA-256 of the tool and the normalised text."""
    return sha256(f"{tool}\x00{normalised(text)}".encode()).digest()


def usefulness(importance: float, uses: int, idle: float, half_life: float) -> float:
    """Tell how useful a memory is, to let those of least use go.

    Args:
        importance: from 0 to 1.
        uses: how often it was retrieved.
        idle: seconds since it was last said, changed or retrieved.
        half_life: seconds after which it is of half the use.
    """
    return (0.1 + importance) * (1.0 + math.log1p(uses)) * vitality(idle, half_life)


def vitality(idle: float, half_life: float) -> float:
    """Tell what is left of 1 after a time, halving with each half-life."""
    return 0.5 ** min(max(idle, 0.0) / half_life, 1000.0)
