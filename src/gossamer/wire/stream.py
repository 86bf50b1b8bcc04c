"""One answer of a server: status, headers, and the body as it comes. Nothing here knows the HTTP version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from gossamer.errors import ArgumentError, TooLargeError, WireError
from gossamer.wire.content import Inflater, inflater_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HIGH_WATER", "Headers", "Stream", "StreamSource"]

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait for their reader before the network is told to pause."""


class Headers:
    r"""The headers of an answer: one block of bytes, searched and decoded only when asked.

    Names are looked up without regard to case. Values are decoded as Latin-1.

    Args:
        block: `\nname: value` for each field with its name in lower case, then a last `\n`.
    """

    __slots__ = ("_block",)

    def __init__(self, block: bytes = b"\n") -> None:
        self._block = block

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return a header's value, several of one name joined by a comma, or `default`; O(block)."""
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name: str) -> list[str]:
        """Return every value under `name`, in the order they came; O(block)."""
        block = self._block
        needle = b"\n" + name.lower().encode("latin-1") + b": "
        values: list[str] = []
        start = block.find(needle)
        while start >= 0:
            start += len(needle)
            end = block.index(b"\n", start)
            values.append(block[start:end].decode("latin-1"))
            start = block.find(needle, end)
        return values

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield every field as name, in lower case, and value."""
        for line in self._block[1:-1].split(b"\n") if len(self._block) > 1 else ():
            name, _, value = line.partition(b": ")
            yield name.decode("latin-1"), value.decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return b"\n" + name.lower().encode("latin-1") + b": " in self._block

    def __repr__(self) -> str:
        # Values may be cookies or keys; names never are.
        return f"Headers({', '.join(name for name, _ in self.items())})"


class StreamSource(Protocol):
    """What a stream asks of the connection that feeds it."""

    def resume(self, stream: Stream) -> None:
        """Let the network go on after a pause."""

    def abandon(self, stream: Stream) -> None:
        """Stop: nobody will read the rest of this answer."""


class Stream:
    """One answer, whose body is read as it comes.

    Read it to its end or call `close`: until then it holds its connection. A task that is cancelled inside
    `read` closes the stream. Bytes that arrived before a failure are handed out first, then the error is
    raised. Up to `HIGH_WATER` bytes wait for the reader; beyond that the network is paused.

    Attributes:
        status: the HTTP status.
        headers: the answer's headers.
    """

    # Written by the connection that feeds the stream, which is why these are plain slots.
    __slots__ = (
        "_buffered",
        "_ended",
        "_error",
        "_inflater",
        "_loop",
        "_paused",
        "_pieces",
        "_source",
        "_waiter",
        "headers",
        "status",
    )

    status: int
    headers: Headers

    def __init__(self, source: StreamSource, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers = _NO_HEADERS
        self._source: StreamSource | None = source
        self._loop = loop
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._ended = False
        self._error: WireError | None = None
        self._inflater: Inflater | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return what has arrived of the body since the last call, waiting only where nothing has.

        O(bytes); allocates one future where it waits, one joined `bytes` where several pieces lay ready.

        Returns:
            The next piece; `b""` at the end of a whole answer, never before it.

        Raises:
            ReadTimeoutError: the server went silent for too long, or the total time ran out.
            ProtocolError: the server broke the protocol or closed in the middle of the answer.
            TooLargeError: the framing between two pieces is larger than its bound.
            WireError: the stream was closed before.
        """
        try:
            while (data := self.take()) is None:
                await self.arrival()
        except asyncio.CancelledError:
            self.close()
            raise
        return data

    def take(self) -> bytes | None:
        """Return what `read` would without waiting, None where it would wait; O(bytes).

        With `arrival` it is `read` without a coroutine of its own, for who reads every token.

        Raises:
            WireError: as `read` raises it.
        """
        if self._inflater is not None:
            return self._take_inflated(self._inflater)
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._buffered = 0
            if self._paused:
                self._resume()
            return data
        if not self._ended:
            return None
        if self._error is not None:
            raise self._error
        return b""

    def arrival(self) -> asyncio.Future[None]:
        """Return a future that is done when more has come or the stream has ended; only after `take` gave None.

        Whoever is cancelled while waiting for it closes the stream.
        """
        if self._waiter is not None:
            raise ArgumentError("another task is reading this stream; one reader at a time")
        waiter = self._waiter = self._loop.create_future()
        return waiter

    async def read_all(self, limit: int) -> bytes:
        """Read the rest of the body.

        Args:
            limit: the most bytes to take, after decoding.

        Returns:
            The bytes.

        Raises:
            TooLargeError: there are more; the stream is closed.
            WireError: as `read` raises it.
        """
        pieces: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.close()
                raise TooLargeError(f"the body is larger than {limit} bytes; ask for less or raise the limit")
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def at_end(self) -> bool:
        """Whether the answer has arrived whole and been read: the next `read` gives `b""` without waiting."""
        return self._ended and not self._pieces and self._error is None and self._inflater is None

    def close(self) -> None:
        """Let go of the answer; idempotent.

        An answer that has arrived whole has given its connection back already; any other closes it.
        """
        if self._pieces or not self._ended or self._inflater is not None:
            self._pieces.clear()
            self._inflater = None
            if self._error is None:
                self._error = WireError("the stream was closed before its body was read; read it first")
        self._ended = True
        source, self._source = self._source, None
        if source is not None:
            source.abandon(self)
        self._wake()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<Stream {self.status} {state}, {self._buffered} bytes wait>"

    # --- for the connection ------------------------------------------------------------------------------

    async def _arrival(self) -> None:
        """Wait for the headers, or raise what came instead."""
        if self.status == 0 and not self._ended:
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            except asyncio.CancelledError:
                self.close()
                raise
        if self.status == 0 and self._error is not None:
            raise self._error

    def _begin(self, status: int, headers: Headers) -> None:
        self._inflater = inflater_for(headers.get("content-encoding"))
        self.headers = headers
        self.status = status
        self._wake()

    def _end(self, error: WireError | None) -> None:
        self._source = None
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # --- the slower ways of reading ----------------------------------------------------------------------

    def _resume(self) -> None:
        self._paused = False
        if self._source is not None:
            self._source.resume(self)

    def _take_inflated(self, inflater: Inflater) -> bytes | None:
        """Take through a content coding; pieces stay bounded however well the body was packed."""
        try:
            while True:
                if inflater.pending:
                    data = inflater.decode(b"")
                elif self._pieces:
                    coded = b"".join(self._pieces)
                    self._pieces.clear()
                    self._buffered = 0
                    if self._paused:
                        self._resume()
                    data = inflater.decode(coded)
                elif self._ended:
                    if self._error is not None:
                        raise self._error
                    inflater.finish()
                    return b""
                else:
                    return None
                if data:
                    return data
        except WireError:
            self.close()
            raise


_NO_HEADERS = Headers()
