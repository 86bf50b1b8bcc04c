"""What a model sees of a conversation: a read-only window on messages, and their encoded bodies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, overload

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Message

__all__ = ["INSERTED", "EncodeMessage", "EncodedMessages", "MessageView", "View", "not_text"]

# Beyond this, bodies are encoded again at each request rather than held in memory: long histories of text stay
# far below it, sessions full of media do not.
MAX_ENCODED_BYTES = 16 * 1024 * 1024

# The end of a message that no record holds: it was put into the view in the stead of others.
INSERTED = -1

# When the view outgrows its window it is cut back to three quarters, so that the beginning of what the provider
# sees, and with it the provider's prompt cache, stays the same for a quarter of a window.
_KEPT_SHARE = 0.75


# Makes the body of a message, with whatever separates it from its neighbours; the message before it is given too,
# for dialects that put neighbours of one role together. What stands before the first message of a view is not known
# for sure: a dialect that looks at it takes the separator off where a request begins.
EncodeMessage: TypeAlias = Callable[[Message, Message | None], bytes]


class EncodedMessages:
    """Bodies of messages in one dialect, each encoded once, laid end to end.

    The buffer is a cache: it may be dropped at any time, and is dropped after a request where it outgrew 16 MiB.

    Args:
        first: the position in the list of messages of the first body to be held.
    """

    __slots__ = ("_buffer", "_ends", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self._buffer = bytearray()
        self._ends: list[int] = []

    def bodies(self, messages: list[Message], start: int, stop: int, encode: EncodeMessage) -> memoryview:
        """Give the bodies of `messages[start:stop]`, encoding only those not seen before.

        Cost: one encoding per new message; nothing is copied.

        Args:
            messages: the list that this buffer follows; it only grows.
            start: position of the first body wanted; those before it are let go.
            stop: position behind the last.
            encode: makes one body; see `EncodeMessage`.

        Returns:
            The bodies, end to end, as they lie in the buffer: to be copied and let go before anything is awaited,
            for the buffer cannot grow while it is looked at.
        """
        if start < self.first or start > self.first + len(self._ends):
            self.first, self._buffer, self._ends = start, bytearray(), []
        elif start > self.first and (gone := self._ends[start - self.first - 1]) > len(self._buffer) // 2:
            self._drop(start - self.first, gone)
        buffer, ends = self._buffer, self._ends
        position = self.first + len(ends)
        previous = messages[position - 1] if position else None
        try:
            for message in messages[position:stop]:
                buffer += encode(message, previous)
                ends.append(len(buffer))
                previous = message
        except UnicodeEncodeError as error:
            raise not_text(error) from error
        begin = ends[start - self.first - 1] if start > self.first else 0
        end = ends[stop - self.first - 1] if stop > self.first else 0
        if len(buffer) > MAX_ENCODED_BYTES:
            self.first, self._buffer, self._ends = stop, bytearray(), []
        return memoryview(buffer)[begin:end]

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


class View:
    """What of a journal the model sees, and where in the journal each message stands.

    Lists only grow at their end; whatever else changes makes new ones, so that views given out stay as they are.

    Args:
        window: see `Session`.
    """

    __slots__ = ("encodings", "ends", "items", "places", "start", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.items: list[Message] = []
        self.places: list[int] = []
        self.ends: list[
            int
        ] = []  # the last place that a message is made of; INSERTED where it is of no place
        self.start = 0
        self.encodings: dict[str, EncodedMessages] = {}

    def __len__(self) -> int:
        return len(self.items) - self.start

    def snapshot(self) -> MessageView:
        """Give the view as it is now. O(1)."""
        return MessageView(self.items, self.start, len(self.items), self.encodings)

    def append(self, message: Message, place: int, end: int) -> None:
        """Add a message that stands at a place of the journal. O(1).

        Args:
            message: the message.
            place: where it stands; the results of an answer's calls stand where it does.
            end: the place of the last record that it is made of; `INSERTED` where it stands in the stead of others.
        """
        self.items.append(message)
        self.places.append(place)
        self.ends.append(end)

    def since(self, place: int) -> list[Message]:
        """Give the messages in view that stand at a place or behind it."""
        return self.items[bisect_left(self.places, place, lo=self.start) :]

    def outgrown(self) -> int | None:
        """Tell where a view that has outgrown its window should begin: the place, or None where it has not.

        The cut goes before a user's message where there is one, and never between a call and its result.
        """
        if len(self) <= self.window:
            return None
        items = self.items
        first = len(items) - max(int(self.window * _KEPT_SHARE), 1)
        cut = first
        while cut < len(items) and items[cut].role != "user":
            cut += 1
        if cut == len(items):
            cut = first
            while cut > self.start and items[cut].role == "tool":
                cut -= 1
        return self.places[cut] if cut > self.start else None

    def replace(self, begin: int, end: int, insert: Sequence[Message]) -> None:
        """Let messages leave the view and put others in their stead.

        Cost: O(1), amortised, where the oldest leave; else a copy of the lists.

        Args:
            begin: the first place that leaves.
            end: the place just behind the last.
            insert: what stands there from now on.
        """
        first = bisect_left(self.places, begin, lo=self.start)
        last = bisect_left(self.places, end, lo=first)
        if first == self.start and not insert:
            self.start = last
            if last > self.window:
                self._forget(last)
            return
        self.items = [*self.items[self.start : first], *insert, *self.items[last:]]
        self.places = [*self.places[self.start : first], *([begin] * len(insert)), *self.places[last:]]
        self.ends = [*self.ends[self.start : first], *([INSERTED] * len(insert)), *self.ends[last:]]
        self.start = 0
        self.encodings = {}

    def _forget(self, count: int) -> None:
        """Drop messages that have left the view from memory, once they are more than a window."""
        self.items = self.items[count:]
        self.places = self.places[count:]
        self.ends = self.ends[count:]
        self.encodings = {key: bodies.rebased(count) for key, bodies in self.encodings.items()}
        self.start = 0


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

    def __reversed__(self) -> Iterator[Message]:
        for position in range(self.stop - 1, self.start - 1, -1):
            yield self.items[position]

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        if isinstance(index, slice):
            return tuple([self.items[position] for position in range(self.start, self.stop)[index]])
        position = index + (self.stop if index < 0 else self.start)
        if not self.start <= position < self.stop:
            raise IndexError(f"message {index} of a view of {self.stop - self.start}")
        return self.items[position]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MessageView | tuple | list):
            return list(self) == list(other)  # pyright: ignore[reportUnknownArgumentType]
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def encoded(self, dialect: str, encode: EncodeMessage) -> bytes | memoryview:
        """Give the view's messages in a dialect, each encoded once for all views on the same list.

        Args:
            dialect: the key under which bodies are kept; a dialect that encodes a message in two variants
                uses two.
            encode: makes the body of one message; see `EncodeMessage`.

        Returns:
            The bodies, end to end; to be copied and let go before anything is awaited, see `EncodedMessages`.

        Raises:
            ArgumentError: a message holds characters that are no text.
        """
        if self.encodings is None:
            messages = list(self)
            try:
                return b"".join([encode(*pair) for pair in zip(messages, [None, *messages], strict=False)])
            except UnicodeEncodeError as error:
                raise not_text(error) from error
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


def not_text(error: UnicodeEncodeError) -> ArgumentError:
    """The error of a text with half of a surrogate pair in it, which UTF-8 cannot say."""
    around = error.object[max(error.start - 20, 0) : error.start]
    return ArgumentError(
        f"a message holds {error.object[error.start]!a} behind {around!r}, half of a pair, which is no text; "
        "clean what you read with text.encode('utf-8', 'replace').decode()"
    )
