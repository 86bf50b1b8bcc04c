"""Which memory a new one is put in place of, and in what order those that were found are given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gossamer.stores.memories import FoundMemory, StoredMemory, normalised, vitality

__all__ = ["ranked", "says_the_same"]

# Two texts of vectors nearer than this say the same, where their numbers agree.
_SAME_COSINE = 0.95

# Of two texts one of which has all words of the other in their order, this share of the longer one's must be in the shorter one.
_SAME_WORDS = 0.8

# The constant of reciprocal rank fusion: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
# individual Rank Learning Methods", SIGIR 2009.
_RRF = 60

_NUMBER = re.compile(r"\d")


def says_the_same(text: str, tool: str, near: Sequence[FoundMemory]) -> StoredMemory | None:
    """Give the memory that a new one is put in place of, or None.

    One says the same where its text does, but for case, spaces and marks at its end; where one of both has all words of
    the other in their order and few more; or where its vector is very near and no number differs. "Room 12 has a
    screen" and "Room 13 has a screen" are two, and so are "Ann manages Bob" and "Bob manages Ann".

    Args:
        text: of the new one.
        tool: that it is about, or "".
        near: memories like it.
    """
    words = normalised(text)
    mine = _words_of(words)
    numbers = {word for word in mine if _NUMBER.search(word)}
    best: tuple[float, StoredMemory] | None = None
    for one in near:
        memory = one.memory
        if memory.tool != tool:
            continue
        theirs_normalised = normalised(memory.text)
        if theirs_normalised == words:
            return memory
        theirs = _words_of(theirs_normalised)
        shorter, longer = sorted((mine, theirs), key=len)
        share = len(shorter) / len(longer) if longer else 0.0
        likeness = share if share >= _SAME_WORDS and _is_within(shorter, longer) else 0.0
        if (
            one.cosine is not None
            and one.cosine >= _SAME_COSINE
            and numbers == {word for word in theirs if _NUMBER.search(word)}
        ):
            likeness = max(likeness, one.cosine)
        if likeness and (best is None or likeness > best[0]):
            best = likeness, memory
    return None if best is None else best[1]


def _words_of(text: str) -> list[str]:
    return [word for one in text.split() if (word := one.strip(".,;:!?()\"'"))]


def _is_within(shorter: Sequence[str], longer: Sequence[str]) -> bool:
    """Whether one has all words of the other, in their order."""
    rest = iter(longer)
    return all(word in rest for word in shorter)


def ranked(found: Sequence[FoundMemory], now: float, half_life: float, limit: int) -> list[StoredMemory]:
    """Put memories that were found in order, the best first.

    By words alone the share of the best score counts; with vectors, reciprocal rank fusion of both lists. Old and
    unimportant ones count less: one that nobody said or used for long at least half, whatever its age.

    Args:
        found: the memories, in any order.
        now: seconds since the epoch.
        half_life: seconds after which age has taken half of what it can take.
        limit: the most that are given.
    """
    by_words = sorted(
        (one for one in found if one.words is not None), key=lambda one: (-(one.words or 0.0), one.memory.id)
    )
    by_vector = sorted(
        (one for one in found if one.cosine is not None),
        key=lambda one: (-(one.cosine or 0.0), one.memory.id),
    )
    relevance: dict[str, float] = {}
    if by_vector:
        for ranks in (by_words, by_vector):
            for rank, one in enumerate(ranks, 1):
                relevance[one.memory.id] = relevance.get(one.memory.id, 0.0) + 1 / (_RRF + rank)
    elif by_words:
        top = by_words[0].words or 1.0
        relevance = {one.memory.id: (one.words or 0.0) / top for one in by_words}

    def worth(one: FoundMemory) -> float:
        memory = one.memory
        fresh = vitality(now - max(memory.updated, memory.used), half_life)
        return relevance.get(memory.id, 0.0) * (0.5 + 0.5 * fresh) * (0.75 + 0.5 * memory.importance)

    order = sorted(found, key=lambda one: (-worth(one), -one.memory.updated, one.memory.id))
    return [one.memory for one in order[:limit]]
