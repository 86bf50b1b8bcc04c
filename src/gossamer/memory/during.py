"""The memories of one run, where the loop meets them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from gossamer.asking import Emit
from gossamer.context import RunContext
from gossamer.errors import ArgumentError
from gossamer.events import Compacted
from gossamer.memory.kinds import KINDS, Kind
from gossamer.memory.longterm import Memory
from gossamer.memory.recall import with_recall
from gossamer.memory.retrieved import in_view, is_retrieved, is_shown, retrieved_message
from gossamer.memory.tokenizers import CountTokens
from gossamer.memory.working import WorkingMemory
from gossamer.messages import Citation, Message, ProviderBlock
from gossamer.models.base import Model
from gossamer.records import MessageRecord, ToolResultRecord
from gossamer.schema import HostedTool, OutputSchema
from gossamer.session import Session
from gossamer.stores.memories import StoredMemory
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import Toolset
from gossamer.usage import Usage

__all__ = ["Memories", "as_memories"]


def as_memories(memory: Any) -> tuple[WorkingMemory | Memory, ...]:
    """Give an agent's memories as a tuple.

    Raises:
        ArgumentError: one is none, or two are of one kind.
    """
    memories: tuple[Any, ...] = tuple(memory) if type(memory) in {list, tuple} else (memory,)
    kinds: set[str] = set()
    for one in memories:
        if not isinstance(one, WorkingMemory | Memory):
            raise ArgumentError(
                f"memory must be a WorkingMemory, a Memory, or a list of them, not {one!r:.100}"
            )
        kind = "WorkingMemory" if isinstance(one, WorkingMemory) else f"Memory of kind {one.kind}"
        if kind in kinds:
            raise ArgumentError(f"an agent has one {kind}, not two")
        kinds.add(kind)
    return memories


class ModelAndTools(Protocol):
    """Of an agent in a run; see `gossamer.setting_up.Setup`."""

    @property
    def model(self) -> Model:
        """The agent's model."""
        ...

    @property
    def kit(self) -> Toolset:
        """Its tools."""
        ...


class Memories:
    """An agent's memories in one run.

    Args:
        memories: the agent's.

    Attributes:
        toolkits: the tools that they give the agent.
    """

    __slots__ = ("_around", "_counted", "_joined", "_kit", "_recalls", "_tokenizer", "_working", "toolkits")

    def __init__(self, memories: Sequence[WorkingMemory | Memory]) -> None:
        self._working: WorkingMemory | None = None
        self._around: tuple[Memory, ...] = ()
        self.toolkits: tuple[Toolkit, ...] = ()
        for one in memories:
            if isinstance(one, WorkingMemory):
                self._working = one
                continue
            if one.mode != "tools":
                self._around += (one,)
            if one.mode != "around":
                self.toolkits += (one.toolkit,)
        self._kit: Toolset | None = None
        self._joined: Toolset | None = None
        self._recalls = False
        self._counted = 0
        self._tokenizer: CountTokens | None = None

    async def retrieved(
        self, context: RunContext[Any], said: Sequence[Message], its: ModelAndTools
    ) -> Message | None:
        """Retrieve what fits the words of a user.

        What the view shows already, among its last messages, is not said again. O(memories).

        Args:
            context: the run.
            said: the run's messages; the last one of the user counts.
            its: the model and the tools of the agent that runs.

        Returns:
            The message that shows it, or None where there is nothing.
        """
        if not self._around:
            return None
        words = next(
            (one.text for one in reversed(said) if one.role == "user" and one.text and not is_retrieved(one)),
            "",
        )
        shown = in_view(context.session.view)
        found: list[tuple[Kind, list[StoredMemory]]] = []
        for one in self._around:
            one.serves(context.agent, its.model)
            query = words
            if one.kind == "tool":  # what was learned of them counts whatever is asked
                own = {given.name for kit in self.toolkits for given in kit.tools if isinstance(given, Tool)}
                names = [name for name in its.kit.by_name if name not in own]
                query = " ".join((*names, words)) if names else ""
            memories = [
                memory for memory in await one.retrieved(context, query) if not is_shown(memory, shown)
            ]
            if memories:
                one.shown(memories)
                found.append((KINDS[one.kind], memories))
        return retrieved_message(found) if found else None

    async def ended(self, context: RunContext[Any], its: ModelAndTools) -> None:
        """Let what was said in a run be extracted from, in the background. O(the run's records); waits for nothing.

        Args:
            context: the run.
            its: the model and the tools of the agent that runs.
        """
        if not self._around:
            return
        said: list[Message] = []
        session: Session[Any] = context.session
        for record in await session.read(session.starts[-1], sys.maxsize):  # they are in memory
            if isinstance(record, MessageRecord) and not (
                record.withdrawn or record.retrieved or record.repair
            ):
                said.append(record.message)
            elif isinstance(record, ToolResultRecord):
                said.append(Message("tool", (record.result,)))
        for one in self._around:
            one.serves(context.agent, its.model)
            one.learn(context, said)

    async def resumed(self, session: Session[Any], model: Model, kit: Toolset) -> Toolset:
        """Give the tools for calls that a model has made before the run was resumed.

        Args:
            session: the session.
            model: the agent's.
            kit: its tools.
        """
        if self._working is not None:
            self._recalls = (await self._working.tally(session, model)).marked
        return self.equipped(kit)

    async def before_model(
        self,
        context: RunContext[Any],
        model: Model,
        words: str | None,
        kit: Toolset,
        schema: OutputSchema | None,
        emit: Emit | None,
    ) -> None:
        """Bring the view into its budget, before a request is made of it.

        Cost: O(new messages) where it is.

        Args:
            context: the run.
            model: the one that is to be asked.
            words: the system prompt.
            kit: the tools.
            schema: what the answer must look like.
            emit: takes events, or None.

        Raises:
            ContextBudgetError: what must stay in view alone exceeds the budget.
        """
        working = self._working
        if working is None:
            return
        session: Session[Any] = context.session
        tally = await working.tally(session, model)
        self._recalls = tally.marked
        around = tally.around(words, self.equipped(kit).schemas, schema)
        done = await working.bring_into_budget(context, tally, model, around)
        if done is not None:
            if done.usage.model_calls:
                context.usage += done.usage
                context.judged = done.usage if context.judged is None else context.judged + done.usage
            self._recalls = tally.marked
            around = tally.around(words, self.equipped(kit).schemas, schema)
            if emit is not None and (done.shortened or done.summaries):
                await emit(Compacted(done.tokens_before, done.tokens_after, done.shortened, done.summarised))
        view = session.view
        self._counted = tally.between(tally.sums, view.start, len(view.items)) + around
        self._tokenizer = tally.tokenizer

    def answered(
        self, context: RunContext[Any], model: Model, used: Usage, message: Message, kit: Toolset
    ) -> Usage:
        """Learn from what the provider counted.

        Args:
            context: the run.
            model: the one that was asked.
            used: what the call used.
            message: its answer.
            kit: the tools.

        Returns:
            What is to be recorded with the answer: with what summaries used before it, so that the journal knows.
        """
        working = self._working
        if (
            working is not None
            and used.model_calls == 1
            and used.input_tokens
            and working.counter.tokenizer(model) is self._tokenizer  # none was loaded meanwhile
            and not _used_hosted(message, kit)  # what these read counts as input, and was not sent by us
        ):
            working.counter.learn(model, self._counted, used.input_tokens)
        if context.judged is not None:
            used, context.judged = used + context.judged, None
        return used

    def equipped(self, kit: Toolset) -> Toolset:
        """Add the tools that read back what left the view, once something has; the same for the same toolset."""
        if not self._recalls or kit is self._joined:
            return kit
        if kit is not self._kit or self._joined is None:
            self._kit, self._joined = kit, with_recall(kit)
        return self._joined


def _used_hosted(message: Message, kit: Toolset) -> bool:
    """Whether the provider has run tools of its own for an answer."""
    return any(isinstance(part, ProviderBlock | Citation) for part in message.parts) and any(
        isinstance(one, HostedTool) for one in kit.schemas
    )
