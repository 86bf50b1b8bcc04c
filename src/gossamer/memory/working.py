"""Working memory: keeps what a model sees of a conversation within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, get_args
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, ContextBudgetError, MemoryNotEnteredError
from gossamer.memory.compacting import can_shorten, shortening
from gossamer.memory.summarising import Group, groups, summary_message, summary_texts
from gossamer.memory.tally import Tally
from gossamer.memory.tokenizers import CountTokens
from gossamer.memory.tokens import TokenCounter, count_message
from gossamer.models.base import Model
from gossamer.models.presets import check_model
from gossamer.models.registry import resolve
from gossamer.opening import budget_for, check_session
from gossamer.records import ViewMovedRecord
from gossamer.session import Session
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.usage import Usage
from gossamer.view import View

__all__ = ["Compaction", "SummaryMode", "WorkingMemory"]

# What is done where a view outgrows its budget; see `WorkingMemory`.
SummaryMode: TypeAlias = Literal["compact", "compress", "auto"]

# A move is made where it frees at least this share of the budget: each makes the provider read the prompt anew.
_LEAST_GAIN = 0.05

# The share of a model's context window that the material of one summary may fill, and what it may have where the
# window is not known.
_WINDOW_SHARE = 0.6
_MOST_MATERIAL = 100_000


class Compaction(msgspec.Struct, frozen=True):
    """What a working memory did to a view.

    Attributes:
        mode: `compact` where only tool messages were shortened, `compress` where summaries were made too.
        tokens_before: of the request as it would have been: view, instructions and tools.
        tokens_after: of the request as it is now.
        shortened: tool messages that were moved out of view.
        summarised: messages that summaries stand for now.
        summaries: how many these are.
        failed: summaries that could not be made; their messages stayed.
        usage: what the summaries used.
    """

    mode: Literal["compact", "compress"]
    tokens_before: int
    tokens_after: int
    shortened: int = 0
    summarised: int = 0
    summaries: int = 0
    failed: int = 0
    usage: Usage = Usage()


class WorkingMemory:
    """Keeps a conversation's view within a budget of tokens: `Agent(…, memory=WorkingMemory())`.

    It acts before a model call whose tokens exceed the budget, and then at most once. System messages and the most recent
    ones are never touched, an answer and its results never separated, and the journal keeps everything: only the view
    moves, by records. An agent's memory is entered for each of its runs; used directly, it is entered with `async with`.

    Safe to share between agents, runs and threads; what it knows of a session goes with the session.

    Args:
        max_total_tokens: the budget: tokens of the view with instructions and tools, as the model's provider counts.
        max_tool_message_tokens: an old tool message with more of them is moved out of view.
        group_token_threshold: how many tokens of messages one summary stands for; None for as many as the model that
            summarises can read: three fifths of its context window, 100,000 where that is not known.
        keep_recent_count: how many of the last messages are recent; one more where that would split a pair.
        compact_ratio_threshold: in mode `auto`, summaries are made where the tokens after compaction are more than this
            share of those before.
        working_summary_mode: `compact` moves long tool messages out of view, which `read_message` reads back;
            `compress` puts summaries in place of older messages; `auto` does the first, and the second where that did
            not free enough, or not enough for the budget.
        model: makes the summaries; the agent's own where None.
        count_tokens: counts the tokens of a text; see `TokenCounter`.

    Attributes:
        counter: counts its tokens.

    Raises:
        ArgumentError: an argument is out of range.
    """

    __slots__ = (
        "_entered",
        "_model",
        "_tallies",
        "compact_ratio_threshold",
        "counter",
        "group_token_threshold",
        "keep_recent_count",
        "max_tool_message_tokens",
        "max_total_tokens",
        "working_summary_mode",
    )

    def __init__(
        self,
        max_total_tokens: int = 20_000,
        max_tool_message_tokens: int = 2_000,
        group_token_threshold: int | None = None,
        keep_recent_count: int = 10,
        compact_ratio_threshold: float = 0.75,
        working_summary_mode: SummaryMode = "auto",
        *,
        model: Model | str | None = None,
        count_tokens: CountTokens | None = None,
    ) -> None:
        _check_counts(
            max_total_tokens=max_total_tokens,
            max_tool_message_tokens=max_tool_message_tokens,
            group_token_threshold=1 if group_token_threshold is None else group_token_threshold,
            keep_recent_count=keep_recent_count,
        )
        if not isinstance(compact_ratio_threshold, int | float) or not 0 <= compact_ratio_threshold <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"compact_ratio_threshold must be a share from 0 to 1, not {compact_ratio_threshold!r}"
            )
        if working_summary_mode not in get_args(SummaryMode):
            raise ArgumentError(
                f"working_summary_mode must be one of {', '.join(get_args(SummaryMode))}, not {working_summary_mode!r}"
            )
        if model is not None:
            check_model(model)
        self.max_total_tokens = max_total_tokens
        self.max_tool_message_tokens = max_tool_message_tokens
        self.group_token_threshold = group_token_threshold
        self.keep_recent_count = keep_recent_count
        self.compact_ratio_threshold = compact_ratio_threshold
        self.working_summary_mode: SummaryMode = working_summary_mode
        self.counter = TokenCounter(count_tokens)
        self._model = model
        self._entered = 0
        self._tallies: WeakKeyDictionary[Session[Any], Tally] = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        self._entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered -= 1

    async def fit(self, session: Session[Any]) -> Compaction | None:
        """Bring a session's view into the budget, without a run: `async with memory: await memory.fit(session)`.

        It holds the session meanwhile, as a run does. Summaries count against the session's limits; their use is in
        what this gives, and in no run's.

        Args:
            session: the session.

        Returns:
            What was done; None where the view is within the budget, or nothing worth it could be done.

        Raises:
            MemoryNotEnteredError: outside `async with`.
            ArgumentError: summaries are to be made, and no model was given to make them.
            ContextBudgetError: system messages and the recent ones alone exceed the budget.
            SessionBusyError: the session refuses, or too many wait for it.
        """
        if not self._entered:
            raise MemoryNotEnteredError(
                "a working memory is used inside `async with memory:`, or as the memory of an agent"
            )
        check_session(session)
        if self._model is None and self.working_summary_mode != "compact":
            raise ArgumentError(
                "a working memory used directly needs a model for its summaries: WorkingMemory(model=…), "
                "or working_summary_mode='compact'"
            )
        # Ended from the beginning: nobody can put a message into it.
        context: RunContext[Any] = RunContext("working memory", None, session=session, run_id="", ended=True)
        await session.holding.take(context)
        try:
            context.budget = budget_for(None, context)
            tally = await self.tally(session, None)
            return await self.bring_into_budget(context, tally, None, tally.around(None, (), None))
        finally:
            session.holding.release()

    async def tally(self, session: Session[Any], model: Model | None) -> Tally:
        """Give the counts of a session's view as it is now. O(new messages).

        Args:
            session: the session.
            model: whose tokens are counted.
        """
        tally = self._tallies.get(session)
        if tally is None:
            tally = self._tallies[session] = Tally()
        await tally.follow(session.view, self.counter.tokenizer(model))
        return tally

    async def bring_into_budget(
        self, context: RunContext[Any], tally: Tally, model: Model | None, around: int
    ) -> Compaction | None:
        """Move a view so that the next request is within the budget, where it is not.

        Cost: O(1) where it is, and where nothing worth it can be done; else O(messages).

        Args:
            context: the run.
            tally: the counts of its session's view.
            model: the one that is to be asked.
            around: tokens of the request beside its messages, the ratio apart.

        Returns:
            What was done, or None.

        Raises:
            ContextBudgetError: system messages and the recent ones alone exceed the budget.
        """
        session: Session[Any] = context.session
        view = session.view
        ratio = self.counter.ratio(model)
        stop = len(view.items)
        before = tally.between(tally.sums, view.start, stop) + around
        if before * ratio <= self.max_total_tokens:
            return None
        old = self._first_recent(view)
        kept = around + tally.between(tally.fixed, view.start, old) + tally.between(tally.sums, old, stop)
        if kept * ratio > self.max_total_tokens:
            raise ContextBudgetError(
                f"instructions, tools, system messages and the last {stop - old} messages have about "
                f"{round(kept * ratio):,} tokens, more than max_total_tokens of {self.max_total_tokens:,}; raise it, "
                "lower keep_recent_count, or keep what tools give short with max_result_chars",
                tokens=round(kept * ratio),
                allowed=self.max_total_tokens,
            )
        usage = Usage()
        shortened = summarised = summaries = failed = 0
        if self.working_summary_mode != "compress":
            shortened = self._compact(context.run_id, session, tally, old, ratio)
            if shortened:
                view = session.view
                await tally.follow(view, tally.tokenizer)
                old = self._first_recent(view)
        after = tally.between(tally.sums, view.start, len(view.items)) + around
        enough = after <= before * self.compact_ratio_threshold and after * ratio <= self.max_total_tokens
        if self.working_summary_mode == "compress" or (self.working_summary_mode == "auto" and not enough):
            wanted = self._to_summarise(view, tally, old, ratio, model)
            if wanted:
                summarised, summaries, failed, usage = await self._compress(context, tally, model, wanted)
                view = session.view
                await tally.follow(view, tally.tokenizer)
                after = tally.between(tally.sums, view.start, len(view.items)) + around
                self._note(tally, view, failed, summaries, ratio)
        if not shortened and not summaries and not failed:
            return None
        done = Compaction(
            "compress" if summaries else "compact",
            round(before * ratio),
            round(after * ratio),
            shortened,
            summarised,
            summaries,
            failed,
            usage,
        )
        if metrics.recorder is not None and (shortened or summaries):
            metrics.recorder.view_compacted(done.mode, done.tokens_before, done.tokens_after)
        return done

    # --- compact ----------------------------------------------------------------------------------------------

    def _compact(self, run: str, session: Session[Any], tally: Tally, old: int, ratio: float) -> int:
        """Move the long ones of a view's old tool messages out of it, where that frees enough; tells how many."""
        view = session.view
        most = self.max_tool_message_tokens / ratio
        for position in range(max(tally.checked, view.start), old):
            message = view.items[position]
            if message.role == "tool" and tally.size(position) > most and can_shorten(message):
                tally.long.append(position)
        tally.checked = max(tally.checked, old)
        long = [position for position in tally.long if position >= view.start]
        if not long or sum(map(tally.size, long)) * ratio < self.max_total_tokens * _LEAST_GAIN:
            return 0
        for record in [shortening(run, view, position) for position in long]:
            session.record(record)
        return len(long)

    # --- compress ---------------------------------------------------------------------------------------------

    def _to_summarise(
        self, view: View, tally: Tally, old: int, ratio: float, model: Model | None
    ) -> list[Group]:
        """Give the groups to be summarised; none where there is too little that is new since the last time."""
        if _new_material(tally, view.start, old) < max(
            self.max_total_tokens * _LEAST_GAIN / ratio, tally.retry_at
        ):
            return []
        threshold = self.group_token_threshold
        if threshold is None:
            window = self._summariser(model).capabilities.context_window
            threshold = _MOST_MATERIAL if window is None else window * _WINDOW_SHARE
        return groups(view, tally, old, threshold / ratio)

    async def _compress(
        self, context: RunContext[Any], tally: Tally, model: Model | None, wanted: Sequence[Group]
    ) -> tuple[int, int, int, Usage]:
        """Put summaries in place of groups; tells how many messages, how many summaries, how many failed, and their use."""
        session: Session[Any] = context.session
        view = session.view
        summariser = self._summariser(model)
        texts, usage = await summary_texts(context, summariser, view, wanted)
        records: list[ViewMovedRecord] = []
        summarised = failed = 0
        for group, text in zip(wanted, texts, strict=True):
            reason = text if isinstance(text, Exception) else None
            if isinstance(text, str):
                message = summary_message(text, view, group)
                if count_message(message, tally.tokenizer) < group.size:
                    begin, end = view.places[group.begin], view.places[group.end - 1] + 1
                    records.append(
                        ViewMovedRecord(
                            run=context.run_id, reason="compaction", begin=begin, end=end, insert=(message,)
                        )
                    )
                    summarised += group.end - group.begin
                    continue
                reason = ValueError("the summary is no shorter than what it stands for")
            failed += 1
            self._tell_failure(context, summariser, reason)
        for record in records:  # by place, so that none moves another
            session.record(record)
        return summarised, len(records), failed, usage

    def _summariser(self, model: Model | None) -> Model:
        chosen = model if self._model is None else self._model
        assert chosen is not None
        return resolve(chosen) if isinstance(chosen, str) else chosen

    def _note(self, tally: Tally, view: View, failed: int, made: int, ratio: float) -> None:
        """After summaries failed, wait for more material before the next ones, twice as much each time."""
        if not failed:
            tally.failures, tally.retry_at = 0, 0
            return
        tally.failures = 1 if made else min(tally.failures + 1, 4)
        step = self.max_total_tokens * _LEAST_GAIN / ratio
        material = _new_material(tally, view.start, self._first_recent(view))
        tally.retry_at = int(material + step * 2**tally.failures)

    def _tell_failure(self, context: RunContext[Any], model: Model, reason: Exception | None) -> None:
        kind = type(reason).__name__
        logger.warning(
            "session %s: a summary by %s failed, and its messages stay in view: %s: %s",
            context.session.id,
            model.name,
            kind,
            reason,
        )
        if metrics.recorder is not None:
            metrics.recorder.summary_failed(kind)

    def _first_recent(self, view: View) -> int:
        """Give the position of the first recent message, before which a pair is not split. O(1)."""
        old = max(len(view.items) - self.keep_recent_count, view.start)
        while view.start < old < len(view.items) and view.places[old] == view.places[old - 1]:
            old -= 1
        return old


def _new_material(tally: Tally, begin: int, end: int) -> int:
    """Tokens between two positions that are neither of system messages nor of summaries, the ratio apart. O(1)."""
    others = tally.between(tally.fixed, begin, end) + tally.between(tally.marks, begin, end)
    return tally.between(tally.sums, begin, end) - others


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ArgumentError(f"{name} must be a whole number of at least 1, not {count!r}")
