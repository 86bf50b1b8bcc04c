"""The tokens of a session's view, each message counted once, and what of it may be moved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gossamer.memory.marks import is_mark, is_summary
from gossamer.memory.tokenizers import CountTokens
from gossamer.memory.tokens import count_around, count_message, estimate
from gossamer.messages import Message
from gossamer.view import View

__all__ = ["Tally"]

# Texts of more characters than this, all new messages together, are counted in a thread where not by estimates.
_MOST_ON_LOOP = 20_000


class Tally:
    """Counts of the messages of one view, kept as the view goes on.

    A view's list of messages only grows, so a turn counts the new ones; where it was replaced, what was in the old one
    is not counted again. Sums of any stretch are differences of running totals.

    Attributes:
        sums: running totals of tokens, the ratio apart: `sums[i]` is that of the messages before position `first + i`.
        fixed: the same of system messages.
        marks: the same of summaries.
        first: position in the view's list of the first message counted.
        marked: whether the view holds, or has held, something that stands for what left it.
        checked: position up to which `long` is known.
        long: positions of tool messages that are old and over the limit, of those before `checked`.
        retry_at: tokens of material at which a summary is tried again after one failed, the ratio apart; 0 where none did.
        failures: summaries that failed since the last one that did not.
        counted: how many messages were counted in all.
        tokenizer: what counts them.
    """

    __slots__ = (
        "_around",
        "_counts",
        "_items",
        "checked",
        "counted",
        "failures",
        "first",
        "fixed",
        "long",
        "marked",
        "marks",
        "retry_at",
        "sums",
        "tokenizer",
    )

    def __init__(self) -> None:
        self._items: list[Message] = []
        self._counts: list[int] = []
        self.tokenizer: CountTokens = estimate
        self._around: tuple[Any, Any, Any, int] = (None, None, None, 0)
        self.first = 0
        self.sums: list[int] = [0]
        self.fixed: list[int] = [0]
        self.marks: list[int] = [0]
        self.marked = False
        self.checked = 0
        self.long: list[int] = []
        self.retry_at = 0
        self.failures = 0
        self.counted = 0

    async def follow(self, view: View, count: CountTokens) -> None:
        """Count what is new in a view.

        Cost: O(new messages); O(messages) additions where the view's list was replaced.

        Args:
            view: the view.
            count: counts a text; another one than before has all counted anew.
        """
        known: dict[int, int] = {}
        if view.items is not self._items or count is not self.tokenizer:
            if count is self.tokenizer:
                before = self._items[self.first :]
                known = {id(one): size for one, size in zip(before, self._counts, strict=False)}
            self._begin(view, count)
        new = view.items[self.first + len(self._counts) :]
        if not new:
            return
        unknown = [message for message in new if id(message) not in known] if known else new
        if count is not estimate and sum(map(_characters, unknown)) > _MOST_ON_LOOP:
            sizes = await asyncio.to_thread(_count_all, unknown, count)
        else:
            sizes = _count_all(unknown, count)
        self.counted += len(unknown)
        known.update(zip(map(id, unknown), sizes, strict=True))
        for message in new:
            self._add(message, known[id(message)])

    def around(self, words: str | None, tools: Sequence[Any], schema: Any) -> int:
        """Count what a request holds beside its messages; counted again where something of it is another."""
        before = self._around
        if before[0] != words or before[1] is not tools or before[2] is not schema or not before[3]:
            before = self._around = (words, tools, schema, count_around(words, tools, schema, self.tokenizer))
        return before[3]

    def between(self, sums: list[int], begin: int, end: int) -> int:
        """Give what is in one of the running totals between two positions of the view's list. O(1)."""
        return sums[end - self.first] - sums[begin - self.first]

    def size(self, position: int) -> int:
        """Give the tokens of the message at a position, the ratio apart."""
        return self._counts[position - self.first]

    def _begin(self, view: View, count: CountTokens) -> None:
        """Follow another list, or count it otherwise."""
        if count is not self.tokenizer:
            self._around = (None, None, None, 0)
        self._items, self.tokenizer, self._counts = view.items, count, []
        self.first = self.checked = view.start
        self.sums, self.fixed, self.marks, self.long = [0], [0], [0], []

    def _add(self, message: Message, size: int) -> None:
        self._counts.append(size)
        self.sums.append(self.sums[-1] + size)
        self.fixed.append(self.fixed[-1] + (size if message.role == "system" else 0))
        self.marks.append(self.marks[-1] + (size if is_summary(message) else 0))
        self.marked = self.marked or is_mark(message)


def _count_all(messages: list[Message], count: CountTokens) -> list[int]:
    return [count_message(message, count) for message in messages]


def _characters(message: Message) -> int:
    size = 0
    for part in message.parts:
        content: Any = getattr(part, "text", "") or getattr(part, "arguments", "")
        size += len(content)
    return size
