"""Long-term memory: what is remembered across sessions, about a user, an agent's tasks or its tools."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from threading import Lock
from time import time
from typing import Any, Literal, Self, TypeAlias, get_args, overload

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GossamerError, MemoryOwnerError
from gossamer.ids import new_id
from gossamer.memory.background import Background
from gossamer.memory.extraction import MOST_CHARACTERS, clean, material_of, propose, topics_of
from gossamer.memory.kinds import KINDS
from gossamer.memory.merging import ranked, says_the_same
from gossamer.memory.tools_of_memory import memory_toolkit
from gossamer.messages import Message
from gossamer.models.base import Model
from gossamer.models.embeddings.base import Embedder
from gossamer.models.presets import check_model
from gossamer.models.registry import resolve
from gossamer.stores.base import Store, check_name
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
)
from gossamer.stores.nearest import need_numpy
from gossamer.stores.urls import as_store
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.tools.toolkit import Toolkit
from gossamer.usage import Usage

__all__ = ["Memory", "MemoryMode"]

# Who uses a memory: the agent, by its `tools`; the loop, `around` each run, before it and after it; or `both`.
MemoryMode: TypeAlias = Literal["tools", "around", "both"]

# How many are looked at for those that are given, each by words and by vectors.
_CANDIDATES = 8

# How many memories a model that extracts is shown.
_MOST_NEAR = 20

_MOST_AGENTS = 1_000
_MOST_QUERY = 2_000
_DAY = 86_400.0


class Memory:
    """What is remembered across sessions: `Agent(…, memory=Memory("sqlite:///chats.db"))`.

    Around a run, what fits the prompt is retrieved before it and stands behind the history in a message of its own;
    afterwards a model extracts what is worth remembering, in the background. With tools, the agent does both itself.

    Memories of kind `personal` belong to a user and are retrieved in no other user's run; those of kind `task` and `tool`
    belong to an agent, by its name, and are shown to all its users. A run without a user has no personal memories.

    Safe to share between agents, runs, threads and event loops. `async with` extracts what waits at its end; a memory
    that is never closed leaves that in the store, for the next process.

    Args:
        store: where the memories are kept, a `Store` or its URL as for `open_store`.
        kind: what is remembered: facts about a user (`personal`), what worked for the agent's tasks (`task`), or how
            its tools behaved (`tool`).
        mode: `tools` gives the agent tools to remember, recall and forget; `around` retrieves before each run and
            extracts after it; `both` does both.
        limit: how many memories are retrieved before a run.
        model: extracts; the agent's own where None.
        embedder: makes vectors, so that memories are found by what they mean beside their words. Needs numpy.
        max_memories: how many a user, or an agent, may have; beyond, those of least use go.
        max_waiting: how many extractions of an agent may wait, in the store, beside those under way; beyond, the oldest
            are dropped, which is logged and counted.
        half_life_days: days after which a memory that nobody said or used counts for half as much when one must go, and
            for three quarters when those that were found are put in order.

    Attributes:
        kind: see above.
        mode: the same.
        limit: the same.
        usage: what extractions and the embedder used in this process; no run counts it.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
    """

    __slots__ = (
        "__weakref__",
        "_background",
        "_embedder",
        "_half_life",
        "_lock",
        "_max_memories",
        "_model",
        "_models",
        "_store",
        "_toolkit",
        "kind",
        "limit",
        "mode",
        "usage",
    )

    def __init__(
        self,
        store: Store | str,
        kind: MemoryKind = "personal",
        mode: MemoryMode = "both",
        *,
        limit: int = 5,
        model: Model | str | None = None,
        embedder: Embedder | None = None,
        max_memories: int = 1_000,
        max_waiting: int = 10_000,
        half_life_days: float = 90.0,
    ) -> None:
        if kind not in get_args(MemoryKind):
            raise ArgumentError(f"kind must be one of {', '.join(get_args(MemoryKind))}, not {kind!r}")
        if mode not in get_args(MemoryMode):
            raise ArgumentError(f"mode must be one of {', '.join(get_args(MemoryMode))}, not {mode!r}")
        for name, count in (("limit", limit), ("max_memories", max_memories), ("max_waiting", max_waiting)):
            if type(count) is not int or count < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, not {count!r}")
        if not isinstance(half_life_days, int | float) or not 0 < half_life_days < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"half_life_days must be above 0, not {half_life_days!r}")
        if model is not None:
            check_model(model)
        if embedder is not None:
            if not isinstance(embedder, Embedder):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ArgumentError(f"embedder must be an Embedder, not {type(embedder).__name__}")
            need_numpy()
        self.kind: MemoryKind = kind
        self.mode: MemoryMode = mode
        self.limit = limit
        self.usage = Usage()
        self._store = as_store(store)
        self._model = model
        self._models: dict[str, Model] = {}
        self._embedder = embedder
        self._max_memories = max_memories
        self._half_life = half_life_days * _DAY
        self._lock = Lock()
        self._toolkit: Toolkit | None = None
        self._background = Background(
            lambda: self._store.memories, kind, self._agents, self._extract, max_waiting
        )

    def __repr__(self) -> str:
        return f"Memory({self._store.url!r}, {self.kind!r}, {self.mode!r})"

    async def __aenter__(self) -> Self:
        self._background.wake()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def toolkit(self) -> Toolkit:
        """The tools to remember, recall and forget; the same ones each time."""
        if self._toolkit is None:
            with self._lock:
                self._toolkit = self._toolkit or memory_toolkit(self)
        return self._toolkit

    # --- used directly ----------------------------------------------------------------------------------------

    @overload
    async def record(
        self,
        what: str,
        *,
        user: str | None = None,
        agent: str | None = None,
        tool: str = "",
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
    ) -> str: ...
    @overload
    async def record(
        self, what: Sequence[Message], *, user: str | None = None, agent: str | None = None
    ) -> None: ...
    async def record(
        self,
        what: str | Sequence[Message],
        *,
        user: str | None = None,
        agent: str | None = None,
        tool: str = "",
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Remember a text as it stands, or let a model extract what of messages is worth remembering.

        A text that says the same as a memory is put in its place.

        Args:
            what: a text of at most 2,000 characters; or messages, which are extracted from in the background: `flush`
                waits for it.
            user: whose memory a personal one is; of others, on whose behalf it was said.
            agent: whose memory another one is.
            tool: the tool that it is about.
            importance: from 0 to 1; what matters little is forgotten first.
            metadata: data of your own, with a JSON form.

        Returns:
            The id of the memory, None for messages.

        Raises:
            MemoryOwnerError: it is not said whose memory it is.
            ArgumentError: the text is empty or too long, or there is no model for messages.
            StoreError: it could not be stored.
        """
        if isinstance(what, str):
            return await self.keep(
                what, user=user, agent=agent, tool=tool, importance=importance, metadata=metadata
            )
        if isinstance(what, Message) or not all(isinstance(one, Message) for one in what):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError("what is recorded is a text, or a list of messages")
        owner = self._owner(user, agent)
        if self._model is None and agent not in self._models:
            raise ArgumentError("no model is known that could extract from messages; give Memory(…, model=…)")
        if material := material_of(self.kind, what):
            await asyncio.shield(
                self._background.queue(Extraction(owner, agent or "", user, None, new_id(), material))
            )
        return None

    async def keep(
        self,
        text: str,
        *,
        user: str | None,
        agent: str | None,
        tool: str = "",
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        session: str | None = None,
        run: str | None = None,
    ) -> str:
        """Remember a text; see `record`, and `StoredMemory` for where it came from."""
        owner = self._owner(user, agent)
        text, tool = _text("text", text), _text("tool", tool)[:200]
        if not text or len(text) > MOST_CHARACTERS:
            raise ArgumentError(
                f"a memory must have from 1 to {MOST_CHARACTERS} characters, not {len(text)}; say it in a sentence or two"
            )
        if not isinstance(importance, int | float) or not 0 <= importance <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"importance must be from 0 to 1, not {importance!r}")
        new = NewMemory(new_id(), text, tool, importance, user, session, run, dict(metadata or {}))
        (kept,) = await self._put(owner, [new])
        return kept

    async def retrieve(
        self,
        query: str,
        limit: int = 5,
        *,
        user: str | None = None,
        agent: str | None = None,
        tool: str = "",
    ) -> list[StoredMemory]:
        """Find memories by a query's words, and with an embedder by what it means.

        Args:
            query: plain text; nothing in it is syntax. Without one of its words in a memory, that is not found by
                words; the nearest by vectors always are.
            limit: the most that are given.
            user: whose, of personal memories.
            agent: whose, of others.
            tool: only those about this tool.

        Returns:
            The best first.

        Raises:
            MemoryOwnerError: it is not said whose.
            StoreError: the store could not be asked.
        """
        _check_limit(limit)
        query, tool = _text("query", query), _text("tool", tool)
        memories = await self._search(self._owner(user, agent), query, limit, tool)
        self._note_uses(memories)
        return memories

    async def memories(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        limit: int = 100,
        before: float | None = None,
    ) -> list[StoredMemory]:
        """Give all memories of a user, or of an agent, those changed last first.

        Args:
            user: whose, of personal memories.
            agent: whose, of others.
            limit: the most that are given.
            before: only those changed before this time, in seconds since the epoch; for the next page.
        """
        _check_limit(limit)
        return await self._store.memories.read(self._owner(user, agent), limit=limit, before=before)

    async def forget(self, id: str, *, user: str | None = None, agent: str | None = None) -> bool:  # noqa: A002
        """Forget one memory; tells whether there was one of this id that is the user's, or the agent's."""
        return await self._store.memories.forget(self._owner(user, agent), id)

    async def forget_user(self, user: str) -> int:
        """Forget the personal memories of a user, and what waits to become one; tells how many memories.

        `store.delete_user` forgets more: also what the user's runs left in memories of agents, and the sessions.

        Raises:
            ArgumentError: the memory is not personal.
        """
        if not KINDS[self.kind].of_user:
            raise ArgumentError(
                f"{self.kind} memories belong to agents; use forget_agent, or store.delete_user"
            )
        return await self._store.memories.forget_owner(self._owner(user, None))

    async def forget_agent(self, agent: str) -> int:
        """Forget what is remembered for an agent, and what waits to become a memory; tells how many memories.

        Raises:
            ArgumentError: the memory is personal.
        """
        if KINDS[self.kind].of_user:
            raise ArgumentError("personal memories belong to users; use forget_user")
        return await self._store.memories.forget_owner(self._owner(None, agent))

    async def waiting(self) -> int:
        """Tell how many extractions wait or are under way, those of other processes included."""
        return await self._store.memories.count_waiting(self.kind, self._agents())

    async def flush(self) -> None:
        """Wait until what waits to be extracted is; what failed is left for its next attempt."""
        await self._background.flush()

    async def aclose(self, within: float = 30.0) -> None:
        """The same, for a limited time, and rest. What is left waits in the store; a later run wakes it again.

        Args:
            within: seconds.
        """
        await self._background.aclose(within)

    # --- in a run ---------------------------------------------------------------------------------------------

    async def retrieved(self, context: RunContext[Any], query: str) -> list[StoredMemory]:
        """Retrieve for a run, before it: none where it has no user and the memory is personal, or where that fails.

        A run is worth more than its memories: what goes wrong is told in the log and counted.
        """
        owner = self._owner_of(context)
        if owner is None or not query:
            return []
        try:
            return await self._search(owner, clean(query[:_MOST_QUERY]), self.limit, "")
        except GossamerError as error:
            logger.error("run %s goes on without %s memories: %s", context.run_id, self.kind, error)
            if metrics.recorder is not None:
                metrics.recorder.retrieval_failed(self.kind)
            return []

    def shown(self, memories: Sequence[StoredMemory]) -> None:
        """Note that a run was shown memories."""
        self._note_uses(memories)
        if metrics.recorder is not None:
            metrics.recorder.memories_retrieved(self.kind, len(memories))

    def serves(self, agent: str, model: Model) -> None:
        """Know an agent, whose model extracts where the memory has none; at first, look what waits.

        Args:
            agent: its name.
            model: its model.
        """
        new = agent not in self._models
        if new and len(self._models) >= _MOST_AGENTS:
            del self._models[next(iter(self._models))]
        self._models[agent] = model
        if new or self._background.is_new_here:
            self._background.wake()

    def learn(self, context: RunContext[Any], messages: Sequence[Message]) -> None:
        """Let what a run said be extracted from, in the background. Waits for nothing, and raises nothing."""
        owner = self._owner_of(context)
        if owner is None:
            return
        try:
            material = material_of(self.kind, messages)
            if not material:
                return
            session = None if context.session is None else context.session.id
            self._background.queue(
                Extraction(owner, context.agent, context.user, session, context.run_id, material)
            )
        except Exception as error:  # noqa: BLE001 - the run has its answer
            logger.error("run %s leaves no %s memories: %s", context.run_id, self.kind, error)

    # --- parts ------------------------------------------------------------------------------------------------

    def _owner(self, user: str | None, agent: str | None) -> MemoryOwner:
        of_user = KINDS[self.kind].of_user
        name = user if of_user else agent
        if name is None:
            raise MemoryOwnerError(
                "personal memories belong to a user, and none is known here; pass user=… to the run"
                if of_user
                else f"{self.kind} memories belong to an agent; pass agent=…, its name"
            )
        for what, one in (("user", user), ("agent", agent)):
            if one is None or (what == "agent" and of_user):
                continue
            if not isinstance(one, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ArgumentError(f"{what} must be text, not {type(one).__name__}")
            check_name(what, one)
        return MemoryOwner(self.kind, name)

    def _owner_of(self, context: RunContext[Any]) -> MemoryOwner | None:
        try:
            return self._owner(context.user, context.agent)
        except MemoryOwnerError:
            return None
        except ArgumentError as error:
            logger.error("run %s has no %s memories: %s", context.run_id, self.kind, error)
            return None

    def _agents(self) -> list[str] | None:
        return None if self._model is not None else list(self._models)

    async def _found(self, owner: MemoryOwner, query: str, limit: int, tool: str = "") -> list[FoundMemory]:
        vector = await self._vector(query)
        wanted = MemoryQuery(owner, query, limit, vector, self._embedder_name, tool)
        return await self._store.memories.search(wanted)

    async def _search(self, owner: MemoryOwner, query: str, limit: int, tool: str) -> list[StoredMemory]:
        found = await self._found(owner, query, _CANDIDATES * limit, tool)
        return ranked(found, time(), self._half_life, limit)

    @property
    def _embedder_name(self) -> str:
        one = self._embedder
        return "" if one is None else f"{one.provider}/{one.name}/{one.dimensions or ''}"

    async def _vector(self, query: str) -> bytes | None:
        """Embed a query; None where that fails, as words find it still."""
        if self._embedder is None or not query:
            return None
        try:
            made = await self._embedder.embed([query], "query")
        except GossamerError as error:
            logger.warning("memories are searched by words alone: %s", error)
            return None
        self._used(made.usage)
        return made.vectors[0].tobytes()

    async def _embedded(self, new: Sequence[NewMemory]) -> list[NewMemory]:
        """Give memories with their vectors; without, where that fails: they are found by words alone then."""
        if self._embedder is None or not new:
            return list(new)
        try:
            made = await self._embedder.embed([one.text for one in new])
        except GossamerError as error:
            logger.warning("memories are kept without vectors: %s", error)
            return list(new)
        self._used(made.usage)
        return [
            msgspec.structs.replace(one, vector=vector.tobytes(), embedder=self._embedder_name)
            for one, vector in zip(new, made.vectors, strict=True)
        ]

    def _used(self, usage: Usage) -> None:
        with self._lock:
            self.usage += usage

    async def _put(
        self,
        owner: MemoryOwner,
        new: Sequence[NewMemory],
        *,
        updated: Sequence[NewMemory] = (),
        forget: Sequence[str] = (),
        claimed: Claimed | None = None,
    ) -> list[str]:
        """Remember what is new, in place of what says the same; and make other changes, in one transaction."""
        put = list(updated)
        for one in await self._embedded(new):
            query = MemoryQuery(owner, one.text, 5, one.vector, one.embedder)
            near = [
                found
                for found in await self._store.memories.search(query)
                if found.memory.id not in forget and all(found.memory.id != other.id for other in updated)
            ]
            same = says_the_same(one.text, one.tool, near)
            put.append(one if same is None else msgspec.structs.replace(one, id=same.id))
        changes = MemoryChanges(owner, put, forget, self._max_memories, self._half_life, claimed)
        return await self._store.memories.change(changes)

    def _note_uses(self, memories: Sequence[StoredMemory]) -> None:
        if memories:
            noted = self._store.memories.note_uses([one.id for one in memories])
            noted.add_done_callback(_tell_failure)

    async def _extract(self, claimed: Claimed) -> None:
        """Do an extraction: what it comes to and its end are stored in one transaction."""
        extraction = claimed.extraction
        owner = extraction.owner
        model = self._model or self._models[extraction.agent]
        asked = resolve(model) if isinstance(model, str) else model
        near: dict[str, StoredMemory] = {}
        for topic in topics_of(extraction.material):
            found = await self._found(owner, topic, 5)
            near |= {memory.id: memory for memory in ranked(found, time(), self._half_life, 5)}
        shown = list(near.values())[-_MOST_NEAR:]
        proposals, usage = await propose(asked, extraction, shown)
        self._used(usage)
        made = {
            one: NewMemory(
                one.memory if one.action == "update" else new_id(),
                one.text,
                "" if self.kind != "tool" else one.tool or (near[one.memory].tool if one.memory else ""),
                one.importance,
                extraction.user,
                extraction.session,
                extraction.run,
            )
            for one in proposals
            if one.text and (one.action == "add" or (one.action == "update" and one.memory))
        }
        added = [memory for one, memory in made.items() if one.action == "add"]
        updated = await self._embedded([memory for one, memory in made.items() if one.action == "update"])
        gone = [one.memory for one in proposals if one.action == "delete" and one.memory]
        await self._put(owner, added, updated=updated, forget=gone, claimed=claimed)


def _text(what: str, given: str) -> str:
    if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{what} must be text, not {type(given).__name__}")
    return clean(given)


def _check_limit(limit: int) -> None:
    if type(limit) is not int or limit < 1:
        raise ArgumentError(f"limit must be a whole number of at least 1, not {limit!r}")


def _tell_failure(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("that memories were retrieved is not noted: %s", error)
