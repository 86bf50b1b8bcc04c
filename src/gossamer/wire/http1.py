"""HTTP/1.1: one connection, which carries one exchange after another."""

# pyright: reportPrivateUsage=false
# A connection writes straight into the stream that it feeds: a call for every piece would be the dearest part.

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gossamer.errors import ProtocolError, ReadTimeoutError, TooLargeError, WireError
from gossamer.wire.stream import HIGH_WATER, Headers, Stream

if TYPE_CHECKING:
    from contextvars import Context

__all__ = ["FIELD_LIMIT", "HEAD_LIMIT", "BufferedHttp1Connection", "Http1Connection", "StaleConnectionError"]

HEAD_LIMIT = 64 * 1024
"""The most bytes that may come with no byte of a body among them: head, chunk extensions, trailers."""

FIELD_LIMIT = 256
"""The most header fields of one answer."""

_JOIN_LIMIT = 64 * 1024
_LONGEST_TIMER = 86_400.0


class StaleConnectionError(WireError):
    """A kept connection turned out dead before a byte of the answer came; the request may go once more."""


class Home(Protocol):
    """Where a connection belongs: what it reports to."""

    name: str
    context: Context
    receive_buffer: memoryview

    def give_back(self, connection: Http1Connection) -> None:
        """The exchange is over and the connection is as good as new."""

    def vacate(self, connection: Http1Connection) -> None:
        """The connection is of no more use; its place is free."""

    def forget(self, connection: Http1Connection) -> None:
        """The transport is closed."""


class Http1Connection(asyncio.Protocol):
    """One connection. It is idle, or carries one exchange, or waits for its transport to close.

    Args:
        home: the pool of its host.
        loop: the running loop.

    Attributes:
        has_place: it counts among the connections of its host.
        is_lent: a request holds it, or is about to.
        is_reused: it has carried an exchange before.
        idle_since: when it was given back, on the monotonic clock.
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_complete",
        "_deadline",
        "_fault",
        "_head",
        "_heard",
        "_home",
        "_interim",
        "_keep",
        "_loop",
        "_parser",
        "_silence",
        "_stream",
        "_timer",
        "_timer_due",
        "_transport",
        "_unsent",
        "has_place",
        "idle_since",
        "is_lent",
        "is_reused",
    )

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self.has_place = True
        self.is_lent = True
        self.is_reused = False
        self.idle_since = 0.0
        self._home = home
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._stream: Stream | None = None
        self._head: list[bytes] | None = None
        self._fault: WireError | None = None
        self._barren = 0
        self._bodiless = False
        self._interim = False
        self._complete = False
        self._keep = False
        self._heard = 0.0
        self._silence = 0.0
        self._deadline: float | None = None
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    # --- the pool's side ---------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """True where the transport is closed or about to be."""
        return self._transport is None or self._transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport, or None after it closed."""
        return self._transport

    async def exchange(
        self, request: list[bytes], *, bodiless: bool, silence: float, deadline: float | None
    ) -> Stream:
        """Send one request and wait for the headers of its answer.

        Args:
            request: the head, then the body. Emptied once written where it cannot be needed again.
            bodiless: True where the answer has no body whatever its headers say (HEAD).
            silence: the longest time in seconds between two pieces of the answer.
            deadline: the time on the monotonic clock when the whole answer must be there, or None.

        Returns:
            The answer.

        Raises:
            StaleConnectionError: a reused connection was dead; the caller still holds its place.
            WireError: whatever else ends the exchange before the headers are there.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            if self.is_reused:
                raise StaleConnectionError("the connection was closed while it lay idle")
            self._vacate()
            raise ProtocolError(f"{self._home.name} closed the connection as soon as it was open")
        stream = Stream(self, self._loop)
        self._stream = stream
        self._head = []
        self._barren = 0
        self._bodiless = bodiless
        self._complete = False
        self._interim = False
        _write(transport, request)
        if not self.is_reused:
            request.clear()
        self._unsent = transport.get_write_buffer_size()
        self._heard = monotonic()
        self._silence = silence
        self._deadline = deadline
        due = self._heard + silence if deadline is None else min(self._heard + silence, deadline)
        if self._timer is None or due < self._timer_due:
            self._set_timer(due)
        try:
            await stream._arrival()
        except asyncio.CancelledError:
            # The place of a stale connection is kept for a second try, which will not come.
            if isinstance(stream._error, StaleConnectionError):
                self._vacate()
            raise
        return stream

    def close(self) -> None:
        """Close the transport; an exchange that is under way fails."""
        if self._transport is not None:
            self._transport.abort()

    # --- the stream's side -------------------------------------------------------------------------------

    def resume(self, stream: Stream) -> None:  # noqa: ARG002 - other versions carry many streams
        """Let the network go on after a pause."""
        self._heard = monotonic()
        if self._transport is not None:
            self._transport.resume_reading()

    def abandon(self, stream: Stream) -> None:
        """Close: the rest of this answer is of no interest, and nothing else can come before it."""
        if self._stream is stream:
            self._stream = None
            self._vacate()
            self.close()

    # --- asyncio's side ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what came; the hot path of every streamed token. O(bytes)."""
        stream = self._stream
        parser = self._parser
        if stream is None or parser is None:
            # Bytes that nobody asked for: whatever they are, they are not the next answer.
            self._vacate()
            self.close()
            return
        self._heard = monotonic()
        self._barren += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._complete:
                failure = self._fault or ProtocolError(f"{self._home.name} does not speak HTTP/1.1: {error}")
                failure.__cause__ = None if self._fault else error
                self._fail(failure)
                return
            self._keep = False
        if self._complete:
            self._finish(stream)
        elif self._barren > HEAD_LIMIT:
            self._fail(
                TooLargeError(
                    f"{self._home.name} sent more than {HEAD_LIMIT} bytes of headers or framing at a stretch"
                )
            )
        elif stream._buffered > HIGH_WATER and not stream._paused and self._transport is not None:
            stream._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Take the server's last word; the transport then closes."""
        self._closed_by_peer(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._closed_by_peer(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        self._parser = None
        self._home.forget(self)

    # --- the parser's side -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Stop the parser at anything behind a finished answer."""
        if self._complete:
            raise ProtocolError("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one field; fields of a trailer are dropped."""
        head = self._head
        if head is None:
            return
        if len(head) >= 4 * FIELD_LIMIT:
            self._fault = TooLargeError(f"{self._home.name} sent more than {FIELD_LIMIT} header fields")
            raise self._fault
        head += (b"\n", name.lower(), b": ", value)

    def on_headers_complete(self) -> None:
        """Begin the answer, or skip an interim one."""
        stream, parser, head = self._stream, self._parser, self._head
        if stream is None or parser is None or head is None:
            return
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                self._fault = ProtocolError(f"{self._home.name} answered with status {status}, unasked")
                raise self._fault
            self._interim = True
            head.clear()
            return
        head.append(b"\n")
        headers = Headers(b"".join(head))
        self._head = None
        transfer = headers.get("transfer-encoding")
        if transfer is not None and transfer.lower() != "chunked":
            self._fault = ProtocolError(
                f"{self._home.name} sent transfer coding {transfer!r}; only chunked is known"
            )
            raise self._fault
        try:
            stream._begin(status, headers)
        except ProtocolError as error:
            self._fault = error
            raise
        if self._bodiless:
            self._keep = parser.should_keep_alive()
            self._complete = True

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body to the stream and wake its reader."""
        self._barren = 0
        stream = self._stream
        if stream is None:
            return
        stream._pieces.append(data)
        stream._buffered += len(data)
        waiter = stream._waiter
        if waiter is not None:
            stream._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def on_message_complete(self) -> None:
        """Note the end; what is to be done follows when the parser has returned."""
        if self._interim:
            self._interim = False
        elif not self._complete and self._parser is not None:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # --- the ends of an exchange -------------------------------------------------------------------------

    def _finish(self, stream: Stream) -> None:
        transport = self._transport
        self._stream = None
        if self._bodiless:
            # The parser still waits for a body that will not come; what it took for one is garbage.
            self._parser = HttpResponseParser(self)
            if stream._pieces:
                stream._pieces.clear()
                self._keep = False
        paused, stream._paused = stream._paused, False
        # A request that the server answered before it was sent whole leaves the connection in the middle of it.
        if (
            self._keep
            and transport is not None
            and not transport.is_closing()
            and not (transport.get_write_buffer_size())
        ):
            if paused:
                transport.resume_reading()
            stream._end(None)
            self._home.give_back(self)
        else:
            stream._end(None)
            self._vacate()
            self.close()

    def _fail(self, error: WireError) -> None:
        stream, self._stream = self._stream, None
        # A stale connection keeps its place for the fresh one that takes over.
        if not isinstance(error, StaleConnectionError):
            self._vacate()
        self.close()
        if stream is not None:
            stream._end(error)

    def _vacate(self) -> None:
        self._home.vacate(self)

    def _closed_by_peer(self, exc: Exception | None) -> None:
        stream = self._stream
        if stream is None:
            # One that is lent and not yet in use tells its holder when it is used.
            if not self.is_lent:
                self._vacate()
            return
        why = f"closed the connection ({exc})" if exc is not None else "closed the connection"
        if stream.status == 0:
            if self._barren == 0:
                if self.is_reused:
                    self._fail(StaleConnectionError("the kept connection was dead"))
                else:
                    self._fail(ProtocolError(f"{self._home.name} {why} before it answered"))
            else:
                self._fail(ProtocolError(f"{self._home.name} {why} inside the headers of its answer"))
        elif (
            exc is None
            and "content-length" not in stream.headers
            and "transfer-encoding" not in stream.headers
        ):
            # Without a length the end of the connection is the end of the body.
            self._keep = False
            self._finish(stream)
        else:
            self._fail(ProtocolError(f"{self._home.name} {why} in the middle of the body"))

    # --- the clock ---------------------------------------------------------------------------------------

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        wait = min(max(due - monotonic(), 0.0), _LONGEST_TIMER)
        self._timer = self._loop.call_later(wait, self._on_timer, context=self._home.context)

    def _on_timer(self) -> None:
        """Look whether time is up. The timer outlives its exchange, so that a request seldom makes one."""
        self._timer = None
        stream = self._stream
        if stream is None:
            return
        now = monotonic()
        deadline = self._deadline
        if deadline is not None and now >= deadline:
            self._fail(ReadTimeoutError(f"{self._home.name}: the total time for the answer ran out"))
            return
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if stream._waiter is None or unsent != self._unsent:
            # Nobody waits, or the request is still going out: the silence begins now.
            self._unsent = unsent
            self._heard = now
        due = self._heard + self._silence
        if now >= due:
            self._fail(
                ReadTimeoutError(
                    f"{self._home.name} sent nothing for {self._silence:g} s; raise timeouts.read"
                )
            )
            return
        self._set_timer(due if deadline is None else min(due, deadline))


def _write(transport: asyncio.Transport, request: list[bytes]) -> None:
    # A function of its own, for no name may hold the body while the answer is waited for.
    if sum(map(len, request)) <= _JOIN_LIMIT:
        transport.write(b"".join(request))
    else:
        for part in request:
            transport.write(part)


class BufferedHttp1Connection(Http1Connection, asyncio.BufferedProtocol):
    """The same, reading into one buffer that all connections of a loop share.

    asyncio's selector transports allocate 256 KiB for every read of a plain protocol; a buffered one lends
    its own memory, which is free again when `buffer_updated` returns.
    """

    __slots__ = ("_buffer",)

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(home, loop)
        self._buffer = home.receive_buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the buffer is what it is
        """Lend the shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse the first `nbytes` of the shared buffer."""
        self.data_received(self._buffer[:nbytes])
