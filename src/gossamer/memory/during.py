"""The memories of one run, where the loop meets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.asking import Emit
from gossamer.context import RunContext
from gossamer.errors import ArgumentError
from gossamer.events import Compacted
from gossamer.memory.recall import with_recall
from gossamer.memory.tokenizers import CountTokens
from gossamer.memory.working import WorkingMemory
from gossamer.models.base import Model
from gossamer.schema import OutputSchema
from gossamer.session import Session
from gossamer.tools.toolset import Toolset
from gossamer.usage import Usage

__all__ = ["Memories", "as_memories"]


def as_memories(memory: Any) -> tuple[WorkingMemory, ...]:
    """Give an agent's memories as a tuple.

    Raises:
        ArgumentError: one is none, or there are two working memories.
    """
    memories: tuple[Any, ...] = tuple(memory) if type(memory) in {list, tuple} else (memory,)
    for one in memories:
        if not isinstance(one, WorkingMemory):
            raise ArgumentError(f"memory must be a WorkingMemory, or a list with one, not {one!r:.100}")
    if len(memories) > 1:
        raise ArgumentError(f"an agent has one WorkingMemory, not {len(memories)}")
    return memories


class Memories:
    """An agent's memories in one run.

    Args:
        memories: the agent's.
    """

    __slots__ = ("_counted", "_joined", "_kit", "_recalls", "_tokenizer", "_working")

    def __init__(self, memories: Sequence[WorkingMemory]) -> None:
        self._working = memories[0] if memories else None
        self._kit: Toolset | None = None
        self._joined: Toolset | None = None
        self._recalls = False
        self._counted = 0
        self._tokenizer: CountTokens | None = None

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

    def answered(self, context: RunContext[Any], model: Model, used: Usage) -> Usage:
        """Learn from what the provider counted.

        Args:
            context: the run.
            model: the one that was asked.
            used: what the call used.

        Returns:
            What is to be recorded with the answer: with what summaries used before it, so that the journal knows.
        """
        working = self._working
        if (
            working is not None
            and used.model_calls == 1
            and used.input_tokens
            and working.counter.tokenizer(model) is self._tokenizer  # none was loaded meanwhile
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
