"""What a model sees of a conversation: a read-only window on messages, and their encoded bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, overload

import msgspec

from gossamer.messages import Message

__all__ = ["EncodedMessages", "MessageView"]

# Beyond this, bodies are encoded again at each request rather than held in memory: long histories of text stay
# far below it, sessions full of media do not.
MAX_ENCODED_BYTES = 16 * 1024 * 1024


class EncodedMessages:
    """Bodies of messages in one dialect, each encoded once, laid end to end.

    The buffer is a cache: it may be dropped at any time and holds at most 16 MiB, beyond which it starts over.

    Args:
        first: the position in the list of messages of the first body to be held.
    """

    __slots__ = ("_buffer", "_ends", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self._buffer = bytearray()
        self._ends: list[int] = []

    def bodies(
        self, messages: list[Message], start: int, stop: int, encode: Callable[[Message], bytes]
    ) -> bytes:
        """Give the bodies of `messages[start:stop]`, encoding only those not seen before.

        Cost: one encoding per new message, and a copy of the bytes.

        Args:
            messages: the list that this buffer follows; it only grows.
            start: position of the first body wanted; those before it are let go.
            stop: position behind the last.
            encode: makes one body with whatever goes behind it.

        Returns:
            The bodies, joined.
        """
        buffer, ends = self._buffer, self._ends
        if start < self.first or start > self.first + len(ends) or len(buffer) > MAX_ENCODED_BYTES:
            self.first = start
            self._buffer = buffer = bytearray()
            self._ends = ends = []
        for position in range(self.first + len(ends), stop):
            buffer += encode(messages[position])
            ends.append(len(buffer))
        begin = ends[start - self.first - 1] if start > self.first else 0
        end = ends[stop - self.first - 1] if stop > self.first else 0
        body = bytes(memoryview(buffer)[begin:end])
        if begin > len(buffer) // 2:
            self._drop(start - self.first, begin)
        return body

    def rebased(self, count: int) -> EncodedMessages:
        """Give a copy that follows the same list without its first `count` messages."""
        copy = EncodedMessages(self.first - count)
        copy._buffer, copy._ends = self._buffer[:], self._ends[:]
        if copy.first < 0:
            gone = min(-copy.first, len(copy._ends))
            copy._drop(gone, copy._ends[gone - 1] if gone else 0)
            copy.first = 0
        return copy

    def _drop(self, count: int, size: int) -> None:
        del self._buffer[:size]
        self._ends = [end - size for end in self._ends[count:]]
        self.first += count


class MessageView(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A read-only sequence of messages: a window on a list that only ever grows at its end.

    Attributes:
        items: the list; not to be changed.
        start: position of the first message of the view in the list.
        stop: position behind the last.
        encodings: the bodies of the list's messages by dialect, shared by all views on the list.
    """

    items: list[Message]
    start: int = 0
    stop: int = 0
    encodings: dict[str, EncodedMessages] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Message]:
        for position in range(self.start, self.stop):
            yield self.items[position]

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        positions = range(self.start, self.stop)[index]
        if isinstance(positions, int):
            return self.items[positions]
        return tuple(self.items[position] for position in positions)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MessageView | tuple | list):
            return list(self) == list(other)  # pyright: ignore[reportUnknownArgumentType]
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def encoded(self, dialect: str, encode: Callable[[Message], bytes]) -> bytes:
        """Give the view's messages in a dialect, each encoded once for all views on the same list.

        Args:
            dialect: the key under which bodies are kept; a dialect that encodes a message in two variants
                uses two.
            encode: makes the body of one message with the separator that goes behind it.

        Returns:
            The bodies, joined.
        """
        if self.encodings is None:
            return b"".join([encode(message) for message in self])
        bodies = self.encodings.get(dialect)
        if bodies is None:
            bodies = self.encodings[dialect] = EncodedMessages(self.start)
        return bodies.bodies(self.items, self.start, self.stop, encode)

    def part(self, begin: int, end: int) -> MessageView:
        """Give a narrower view, from index `begin` up to `end` of this one."""
        return MessageView(self.items, self.start + begin, self.start + end, self.encodings)

    def to_builtins(self) -> list[Any]:
        """The messages as JSON data."""
        return msgspec.to_builtins(list(self))
