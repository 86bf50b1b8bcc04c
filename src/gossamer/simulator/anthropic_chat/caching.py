"""Anthropic Messages: what a prompt's cache marks let be read from the cache and written to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from gossamer.simulator.anthropic_chat.content import BlockSum, CacheControl, MessageSum, bad
from gossamer.simulator.tokens import PrefixCache, PrefixState

__all__ = ["Counted", "count_prompt"]

_MESSAGE_TOKENS = 3
_MARKS = 4
_LOOK_BACK = 20


class Counted(NamedTuple):
    """The tokens of a prompt.

    Attributes:
        tokens: all of them.
        read: of the longest prefix that a mark found in the cache.
        written: written to the cache for five minutes and for an hour.
    """

    tokens: int
    read: int
    written: tuple[int, int]


def count_prompt(
    model: str,
    pieces: Iterable[BlockSum],
    manner: bytes,
    messages: Sequence[MessageSum],
    automatic: CacheControl | None,
    prefixes: PrefixCache,
) -> Counted:
    """Count a prompt, and of it what its cache marks let be read from the cache or written to it.

    O(blocks). A mark looks for a written prefix at its own place and at twenty blocks before it.

    Args:
        model: its name; each model has its own cache.
        pieces: tools and instructions.
        manner: the choice of tools and the way of thinking: another one leaves only `pieces` as they were.
        messages: in order.
        automatic: the request's own mark, which stands on its last block.
        prefixes: what was written before; what is written now is added.

    Raises:
        RequestError: there are more than four marks, or one for an hour comes after one for five minutes.
    """
    key = hash(model)
    keys: list[int] = []
    totals: list[int] = []
    marks: list[tuple[int, str]] = []
    total = 0
    for piece in pieces:
        key = hash((key, piece.key))
        total += piece.tokens
        keys.append(key)
        totals.append(total)
        if piece.mark:
            marks.append((len(keys) - 1, piece.mark))
    last = len(keys) - 1
    key = hash((key, manner))
    for message in messages:
        total += _MESSAGE_TOKENS
        if message.cacheable >= 0:
            last = len(keys) + message.cacheable
        for block in message.blocks:
            key = hash((key, block.key))
            total += block.tokens
            keys.append(key)
            totals.append(total)
            if block.mark:
                marks.append((len(keys) - 1, block.mark))
    if automatic is not None and last >= 0 and last not in {at for at, _ in marks}:
        marks.append((last, automatic.ttl))
    if not marks:
        return Counted(total, 0, (0, 0))
    if len(marks) > _MARKS:
        raise bad(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    marks.sort()
    if any(earlier[1] == "5m" and later[1] == "1h" for earlier, later in pairwise(marks)):
        raise bad("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block.")
    read = _read_prefix(keys, totals, marks, prefixes)
    for at, _ in marks:
        prefixes.store(keys[at], PrefixState(totals[at], ()))
    hour = max((totals[at] for at, ttl in marks if ttl == "1h"), default=0)
    end = totals[marks[-1][0]]
    hours = max(hour - read, 0)
    return Counted(total, read, (max(end - max(read, hour), 0), hours))


def _read_prefix(
    keys: list[int], totals: list[int], marks: list[tuple[int, str]], prefixes: PrefixCache
) -> int:
    for at, _ in reversed(marks):
        for place in range(at, max(at - _LOOK_BACK, 0) - 1, -1):
            if prefixes.find(keys[place]) is not None:
                return totals[place]
    return 0
