"""How the simulator counts tokens, and which prompt prefixes it has seen before."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

__all__ = ["PrefixCache", "PrefixState", "count", "split"]

# Up to eight letters or digits, or one other character, with the space before it. Every character falls into
# exactly one token, so the tokens joined give the text back.
_TOKEN = re.compile(r"\s{0,4}(?:\w{1,8}|[^\w\s])|\s{1,4}")

_CACHED_TEXT = 16_384
_PREFIXES = 16_384


@lru_cache(maxsize=64)
def _split_cached(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(text))


def split(text: str) -> tuple[str, ...]:
    """The tokens of a text; joined they are the text again.

    A token is up to eight letters or digits, or one other character, together with up to four spaces before it.
    Streams that say the same thing share one tuple. O(len(text)) at first, O(1) for the last 64 short texts.
    """
    if len(text) > _CACHED_TEXT:
        return tuple(_TOKEN.findall(text))
    return _split_cached(text)


def count(text: str) -> int:
    """The number of tokens in a text. O(len(text)), stores nothing."""
    return len(_TOKEN.findall(text))


class PrefixState(NamedTuple):
    """What is known of a prompt up to and including one message.

    Attributes:
        tokens: tokens of the prompt so far.
        pending: ids of tool calls that have no result yet.
    """

    tokens: int
    pending: tuple[str, ...]


class PrefixCache:
    """Remembers prompt prefixes, so that `cached_tokens` tells the truth and no message is counted twice.

    Holds 16,384 prefixes at most and drops the one unused for longest.
    """

    __slots__ = ("_states",)

    def __init__(self) -> None:
        self._states: dict[int, PrefixState] = {}

    def find(self, key: int) -> PrefixState | None:
        """What is known of this prefix, or None. O(1)."""
        state = self._states.pop(key, None)
        if state is not None:
            self._states[key] = state
        return state

    def store(self, key: int, state: PrefixState) -> None:
        """Remember a prefix; drops the one unused for longest when full. O(1)."""
        states = self._states
        states.pop(key, None)
        if len(states) >= _PREFIXES:
            del states[next(iter(states))]
        states[key] = state

    def walk(
        self,
        raw: Sequence[msgspec.Raw],
        key: int,
        tokens: int,
        follow: Callable[[PrefixState, int], PrefixState],
        complete: Callable[[PrefixState, int], None],
    ) -> tuple[PrefixState, int]:
        """Follow a request's messages from the longest prefix that was seen before, and remember the rest.

        O(bytes) for hashing, O(new messages) for what `follow` does.

        Args:
            raw: the messages as they were sent.
            key: hash of what comes before them: model, instructions, tools.
            tokens: of what comes before them.
            follow: the state behind the message with an index, from the state before it; raises where the message
                may not stand there.
            complete: raises where the request must not end in this state, behind the message with this index.

        Returns:
            The state behind the last message, and the tokens of the prefix that was seen before.
        """
        keys: list[int] = []
        for each in raw:
            key = hash((key, bytes(each)))
            keys.append(key)
        state, start = PrefixState(tokens, ()), 0
        for index in range(len(keys) - 1, -1, -1):
            found = self.find(keys[index])
            if found is not None:
                state, start = found, index + 1
                break
        cached = state.tokens if start else 0
        fresh: list[PrefixState] = []
        for index in range(start, len(keys)):
            state = follow(state, index)
            fresh.append(state)
        complete(state, len(keys) - 1)
        for seen, each in zip(keys[start:], fresh, strict=True):
            self.store(seen, each)
        return state, cached
