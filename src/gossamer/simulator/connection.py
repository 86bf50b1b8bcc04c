"""One HTTP/1.1 connection of the simulator, straight on llhttp."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections import deque
from typing import cast

import httptools

from gossamer.simulator.delivery import Delivery, StreamDelivery, WholeDelivery
from gossamer.simulator.dialect import Request
from gossamer.simulator.service import Service, Streamed, Whole
from gossamer.simulator.wheel import TimerWheel

__all__ = ["BODY_LIMIT", "HEAD_LIMIT", "Connection"]

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers; more are answered with 431."""

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes of a request's body; more are answered with 413."""

_HIGH_WATER = 16 * 1024
_WAITING_LIMIT = 16
_IDLE_SECONDS = 75
_LINGER_SECONDS = 2
# A body in chunks of one byte takes six bytes a byte; whatever takes more is not body.
_RAW_PER_BODY_BYTE = 8
_KEPT_HEADERS = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"api-key",
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
    }
)
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Reads requests and sends their answers one after another, in the order they came.

    Up to 16 pipelined requests wait, then nothing more is read. A connection that is silent between two requests, or
    does not complete one, is closed after 75 seconds. Above 16 KiB that the client has not read, a stream stops.

    Args:
        service: answers the requests.
        wheel: the timers of all connections.
        open_connections: this connection is in it while it is open.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_closing",
        "_declared",
        "_discarding",
        "_expects",
        "_head_size",
        "_headers",
        "_http10",
        "_in_head",
        "_keep_alive",
        "_lingering",
        "_marks",
        "_open",
        "_parser",
        "_raw",
        "_received",
        "_sending",
        "_service",
        "_stamp",
        "_url",
        "_waiting",
        "paused",
        "slot",
        "stats",
        "transport",
        "wheel",
    )

    transport: asyncio.Transport

    def __init__(self, service: Service, wheel: TimerWheel, open_connections: set[Connection]) -> None:
        self._service = service
        self.stats = service.stats
        self.wheel = wheel
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._answer: Delivery | None = None
        self._waiting: deque[Request | Whole] = deque()
        self._closing = self._discarding = self._lingering = self._sending = self.paused = False
        self._marks = self.slot = 0
        self._forget_request()

    # --- the transport's calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection; small packets leave at once."""
        self.transport = cast("asyncio.Transport", transport)
        self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(_HIGH_WATER)
        self._open.add(self)
        self.stats.connections += 1
        self._watch(_IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Stop what was being sent and free everything."""
        self._open.discard(self)
        self.stats.connections -= 1
        if self._answer is not None:
            self.stats.disconnects += 1
        self._stop()
        # Parser and connection point at each other; broken here, both are freed without the collector.
        del self._parser

    def eof_received(self) -> None:
        """The client is gone; an answer on its way has no reader any more."""
        if self._answer is not None:
            self.stats.disconnects += 1
            self._stop()
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse; answer what is complete."""
        if self._discarding:
            return
        marks = self._marks
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "Upgrading the connection is not supported.")
        except httptools.HttpParserError as error:
            self._refuse(400, f"This is not HTTP: {error}.")
        if self._marks == marks:
            # Neither did a request begin in this data nor end: an endless head or trailer must not grow.
            self._raw += len(data)
            if self._raw - _RAW_PER_BODY_BYTE * self._received > HEAD_LIMIT:
                self._refuse_head()
        self._next()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.paused = False
        if self._answer is not None:
            self._answer.resume()
        else:
            self._next()

    # --- the parser's calls ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._marks += 1
        self._forget_request()
        if self._answer is None and not self._waiting:
            self._watch(_IDLE_SECONDS)

    def on_url(self, url: bytes) -> None:
        """The request's target, or a piece of it."""
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; a few of them matter."""
        if not self._in_head:
            return
        self._head_size += len(name) + len(value)
        lowered = name.lower()
        if lowered == b"x-simulator-stamp":
            self._stamp = value == b"1"
        elif lowered == b"expect":
            self._expects = value.lower() == b"100-continue"
        elif lowered == b"content-length":
            self._declared = int(value)
        elif lowered in _KEPT_HEADERS:
            self._headers[lowered] = value

    def on_headers_complete(self) -> None:
        """The body follows, unless the head already rules it out."""
        self._in_head = False
        self._http10 = self._parser.get_http_version() == "1.0"
        self._keep_alive = self._parser.should_keep_alive() and not self._http10
        if self._head_size > HEAD_LIMIT:
            self._refuse_head()
        elif self._declared > BODY_LIMIT:
            self._refuse_body()
        elif self._parser.should_upgrade():
            self._refuse(400, "Upgrading the connection is not supported.")
        elif self._expects:
            self._encourage()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._discarding:
            return
        self._received += len(body)
        self._body.append(body)
        if self._received > BODY_LIMIT:
            self._refuse_body()

    def on_message_complete(self) -> None:
        """The request is complete and waits for its turn."""
        self._marks += 1
        if self._discarding:
            return
        method = self._parser.get_method()
        # An answer to HEAD must not have a body; closing makes its length not matter.
        keep_alive = self._keep_alive and method != b"HEAD"
        path, _, query = self._url.partition(b"?")
        body = b"".join(self._body)
        self._waiting.append(
            Request(method, path, query, self._headers, body, keep_alive, not self._http10, self._stamp)
        )
        self._forget_request()
        if not keep_alive:
            self._discarding = True
        elif len(self._waiting) == _WAITING_LIMIT:
            self.transport.pause_reading()

    # --- the answer's calls ---------------------------------------------------------------------------------

    def delivered(self) -> None:
        """An answer is complete: close, or take the next request."""
        self._answer = None
        if self._closing:
            self.shut()
        else:
            self._next()

    def shut(self) -> None:
        """Close after what was written has left."""
        self._stop()
        if not self._lingering:
            self.transport.close()
            self._watch(_IDLE_SECONDS)
            return
        # Closing with unread data in the socket would reset the connection and take the answer with it.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._watch(_LINGER_SECONDS)

    def reset(self) -> None:
        """Close at once, so that the client sees a reset."""
        self._stop()
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.transport.abort()

    def fire(self, now: float) -> None:  # noqa: ARG002 - the wheel tells the time
        """Nothing happened for too long."""
        self._stop()
        self.transport.abort()

    # --- inside ---------------------------------------------------------------------------------------------

    def _socket(self) -> socket.socket:
        return cast("socket.socket", self.transport.get_extra_info("socket"))

    def _forget_request(self) -> None:
        self._url = b""
        self._body: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._head_size = self._raw = self._declared = self._received = 0
        self._in_head = True
        self._expects = self._stamp = self._keep_alive = self._http10 = False

    def _watch(self, seconds: int) -> None:
        wheel = self.wheel
        wheel.cancel(self)
        # Whole seconds, so that ten thousand idle connections share a few buckets.
        wheel.schedule(self, math.ceil(wheel.time() + seconds))

    def _stop(self) -> None:
        self._discarding = True
        self._waiting.clear()
        self._body = []
        self.wheel.cancel(self)
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None

    def _encourage(self) -> None:
        if self._answer is None and not self._waiting and not self._discarding:
            self._expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int, message: str) -> None:
        if not self._discarding:
            self._discarding = True
            self.stats.requests += 1
            dialect = self._service.dialect_of(self._url.partition(b"?")[0])
            self._waiting.append(self._service.refusal(status, message, dialect=dialect))

    def _refuse_head(self) -> None:
        self._refuse(431, f"The request's head is larger than {HEAD_LIMIT} bytes.")

    def _refuse_body(self) -> None:
        self._body = []
        self._refuse(413, f"The request's body is larger than {BODY_LIMIT} bytes.")

    def _next(self) -> None:
        # A whole answer is delivered while it is started, so this loop stands in for a recursion.
        if self._sending:
            return
        self._sending = True
        waiting = self._waiting
        while waiting and self._answer is None and not self.paused:
            if len(waiting) == _WAITING_LIMIT:
                self.transport.resume_reading()
            self._begin(waiting.popleft())
        self._sending = False
        if self._answer is None and not waiting and not self._discarding:
            if self._expects and not self._in_head:
                self._encourage()
            if not self.slot:
                self._watch(_IDLE_SECONDS)

    def _begin(self, request: Request | Whole) -> None:
        self.wheel.cancel(self)
        if isinstance(request, Whole):
            self._lingering = self._closing = True
            self._answer = answer = WholeDelivery(self, request, b"connection: close\r\n\r\n")
            answer.start()
            return
        made = self._service.answer(request)
        self._closing = not request.keep_alive
        tail = b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n"
        if isinstance(made, Streamed):
            if request.chunked:
                tail = b"transfer-encoding: chunked\r\n" + tail
            self._answer = answer = StreamDelivery(self, made, tail, chunked=request.chunked)
        else:
            self._answer = answer = WholeDelivery(self, made, tail)
        answer.start()
