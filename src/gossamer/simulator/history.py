"""The messages of a request, as far as they have to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from gossamer.simulator.tokens import PrefixCache, PrefixState

__all__ = ["History", "Spoken"]


class Spoken(Protocol):
    """A message, or an item that may be one."""

    @property
    def role(self) -> str | None:
        """Who speaks; None where nobody does."""
        ...


_Entry = TypeVar("_Entry", bound=Spoken)


class History(Generic[_Entry]):
    """The messages of a request; those in a prefix seen before are not decoded again.

    O(bytes) for hashing, O(new messages) for decoding and counting.

    Args:
        raw: the messages as they were sent.
        key: hash of what comes before them, and of the wire format.
        tokens: of what comes before them.
        prefixes: seen before; these are added.
        read: decodes one message; its index is for the refusal.
        follow: the state behind a message, from the state before it; raises where it may not stand there.
        complete: raises where the request must not end in this state.
    """

    __slots__ = ("_decoded", "_raw", "_read", "cached_tokens", "tokens")

    def __init__(
        self,
        raw: Sequence[msgspec.Raw],
        key: int,
        tokens: int,
        prefixes: PrefixCache,
        *,
        read: Callable[[msgspec.Raw, int], _Entry],
        follow: Callable[[PrefixState, _Entry, int], PrefixState],
        complete: Callable[[PrefixState, int], None],
    ) -> None:
        self._raw = raw
        self._read = read
        self._decoded: dict[int, _Entry] = {}
        state, self.cached_tokens = prefixes.walk(
            raw, key, tokens, lambda state, index: follow(state, self._entry(index), index), complete
        )
        self.tokens = state.tokens

    def since_user(self) -> list[_Entry]:
        """The last user message, where there is one, and all after it."""
        tail: list[_Entry] = []
        for index in range(len(self._raw) - 1, -1, -1):
            tail.append(self._entry(index))
            if tail[-1].role == "user":
                break
        tail.reverse()
        return tail

    def _entry(self, index: int) -> _Entry:
        found = self._decoded.get(index)
        if found is None:
            found = self._decoded[index] = self._read(self._raw[index], index)
        return found
