"""One connection through a proxy: a request is read and checked, then both ends hear each other."""

from __future__ import annotations

import asyncio
import re
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, cast

import h11

from gossamer.errors import AddressRefusedError, ArgumentError, ConnectError
from gossamer.sandbox.allow_list import is_address, plain_host
from gossamer.wire.addresses import is_public_address
from gossamer.wire.dial import Resolver, Route, dial, take_early
from gossamer.wire.url import URL, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from gossamer.sandbox.allow_list import AllowList

__all__ = ["Traffic"]

_HEAD_LIMIT = 16 * 1024
_WORDS_LIMIT = 400
_LINGERING = 1.0
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+):([1-9][0-9]{0,4})")
# What concerns one connection only, and what is said anew: whom it is for, and where a body ends.
_NOT_PASSED_ON = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"host"),
        *(b"proxy-authorization", b"proxy-authenticate", b"content-length", b"transfer-encoding"),
    )
)


class Traffic:
    """All that goes through a proxy: where it may lead, how much it may be, and what is open.

    Args:
        hosts: where it may lead.
        max_bytes: how much may go through in both directions together.
        timeout: see `AllowListProxy`.
        on_closed: called when a client is gone.

    Attributes:
        hosts: the same.
        timeout: the same.
        left: how many bytes may still go through; below 0 where more came.
        open: the ends of connections, and tasks that open some.
    """

    __slots__ = ("_all_closed", "_on_closed", "_resolver", "hosts", "left", "open", "timeout")

    def __init__(
        self, hosts: AllowList, max_bytes: int, timeout: float, on_closed: Callable[[], None]
    ) -> None:
        self.hosts = hosts
        self.left = max_bytes
        self.timeout = timeout
        self.open: set[_End | asyncio.Task[None]] = set()
        self._on_closed = on_closed
        self._all_closed = asyncio.Event()
        self._resolver = Resolver()

    def client(self) -> _Client:
        """Make the end that an accepted connection is given to; it is among those open when it is connected."""
        return _Client(self)

    def closed(self, one: _End | asyncio.Task[None]) -> None:
        """Note that something is open no longer."""
        self.open.discard(one)
        if isinstance(one, _Client):
            self._on_closed()
        if not self.open:
            self._all_closed.set()

    def spend(self, size: int) -> bool:
        """Count what goes through; tell whether it may."""
        self.left -= size
        return self.left >= 0

    async def dial(self, host: str, port: int) -> asyncio.Transport:
        """Open a connection to a host that is allowed.

        Raises:
            AddressRefusedError: it leads to no public address.
            ConnectError: it did not come about.
        """
        route = Route(
            scheme="http",  # TLS, where there is any, is between the two ends
            host=host,
            port=port,
            name=f"{host}:{port}",
            proxy=None,
            ca_file=None,
            verify=True,
            limit=1,
            # An address is only allowed where it was written down, and whoever wrote it meant it.
            allow_address=None if is_address(host) else is_public_address,
        )
        return await dial(route, self._resolver, self.timeout)

    async def cut_off(self) -> None:
        """Close everything at once, and wait until it is closed."""
        for one in tuple(self.open):
            if isinstance(one, _End):
                one.cut_off()
            else:
                one.cancel()
        while self.open:
            self._all_closed.clear()
            await self._all_closed.wait()
        await self._resolver.aclose()


class _End(asyncio.Protocol):
    """One of the two ends of a connection."""

    __slots__ = ("ended", "lost", "other", "traffic", "transport")

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.ended = False  # it sends nothing more
        self.lost = False  # nor does it hear anything
        self.other: _End | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.traffic.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.traffic.closed(self)
        if self.other is not None:
            if exc is None:
                self.other.transport.close()
            else:
                self.other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def end(self) -> bool:
        """Pass on that nothing more comes from this end; tell whether it is to stay open for what comes from the other."""
        self.ended = True
        if self.other is None or self.other.ended or self.other.transport.is_closing():
            if self.other is not None:
                self.other.transport.close()
            return False
        self.other.transport.write_eof()
        return True

    def cut_off(self) -> None:
        """Close both ends at once."""
        self.transport.abort()
        if self.other is not None:
            self.other.transport.abort()


class _Upstream(_End):
    """The end at the host that was asked for."""

    __slots__ = ("client",)

    def __init__(self, client: _Client) -> None:
        super().__init__(client.traffic)
        self.other = self.client = client

    def data_received(self, data: bytes) -> None:
        if not self.traffic.spend(len(data)):
            self.cut_off()
            return
        self.client.heard()
        self.client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.client.settle()

    def eof_received(self) -> bool:
        if self.client.is_tunnel:
            return self.end()
        self.client.transport.close()
        return False


class _Client(_End):
    """The end in the sandbox: its request is read and answered, or passed on."""

    __slots__ = ("_forwarded", "_heard", "_loop", "_request", "_state", "_timer")

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic)
        self._loop = asyncio.get_running_loop()
        self._request = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self._forwarded = h11.Connection(h11.CLIENT)
        self._state: Literal["head", "opening", "body", "answer", "tunnel", "refused"] = "head"
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_tunnel(self) -> bool:
        return self._state == "tunnel"

    def heard(self) -> None:
        """Note that something came from one of the ends."""
        self._heard = self._loop.time()

    def settle(self) -> None:
        """Watch no longer, where both ends are gone; until then one may not take what is still to be sent to it."""
        if self._timer is not None and self.lost and (self.other is None or self.other.lost):
            self._timer.cancel()

    # --- what the transport tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.heard()
        self._timer = self._loop.call_later(self.traffic.timeout, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.settle()

    def data_received(self, data: bytes) -> None:
        may = self.traffic.spend(len(data))
        if self._state == "head":
            self._read(data)  # it is told where nothing may be sent any more
        elif not may:
            self.cut_off()
        elif self._state == "tunnel" and self.other is not None:
            self.heard()
            self.other.transport.write(data)
        elif self._state == "body":
            self.heard()
            self._read(data)
        # What comes after a request is dropped: there is one a connection.

    def eof_received(self) -> bool:
        if self._state == "tunnel":
            return self.end()
        self.ended = True
        if self._state == "body" and self.other is not None:
            self.other.transport.abort()
        return self._state in {"opening", "answer"}

    def _look(self) -> None:
        """Look whether it has been silent for too long."""
        left = self._heard + self.traffic.timeout - self._loop.time()
        # Opening a connection has a limit of its own, of the same length.
        if left > 0 or (self._state == "opening" and not self.lost):
            self._timer = self._loop.call_later(left if left > 0 else 1.0, self._look)
        elif self._state == "head":
            self._refuse(408, f"no whole request came within {self.traffic.timeout:g} s")
        else:
            self.cut_off()

    # --- the request ------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        try:
            if data:
                self._request.receive_data(data)
            self._step()
        except h11.RemoteProtocolError as error:
            if self.other is None:
                # What was sent stands behind the words, as Python shows bytes.
                self._refuse(error.error_status_hint, str(error).partition(": bytearray")[0])
            else:
                self.cut_off()

    def _step(self) -> None:
        """Take from the request what has come whole."""
        while self._state in {"head", "body"}:
            event = self._request.next_event()
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data | h11.EndOfMessage) and self.other is not None:
                if isinstance(event, h11.Data):
                    passed_on = self._forwarded.send(h11.Data(data=bytes(event.data)))
                else:
                    passed_on = self._forwarded.send(h11.EndOfMessage())
                    self._state = "answer"
                if passed_on:
                    self.other.transport.write(passed_on)
            else:
                return  # more must come

    def _begin(self, request: h11.Request) -> None:
        """Check a request's head; open a connection to where it leads, or refuse it."""
        if (
            len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
            > _HEAD_LIMIT
        ):
            self._refuse(431, f"the head of a request may have {_HEAD_LIMIT} bytes")
            return
        try:
            host, port, forwarded = _destination(request)
        except (ValueError, ArgumentError) as error:
            self._refuse(400, str(error))
            return
        hosts = self.traffic.hosts
        if not hosts.allows(host, port):
            self._refuse(403, f"{host}:{port} is not among what may be reached from here: {hosts}")
        elif self.traffic.left <= 0:
            self._refuse(
                403,
                "as many bytes as may be sent and received from here have been; go on without the network",
            )
        else:
            self._state = "opening"
            self.heard()
            self.transport.pause_reading()
            task = self._loop.create_task(self._connect(host, port, forwarded))
            self.traffic.open.add(task)
            task.add_done_callback(self.traffic.closed)

    async def _connect(self, host: str, port: int, forwarded: h11.Request | None) -> None:
        try:
            transport = await self.traffic.dial(host, port)
        except AddressRefusedError:
            self._refuse(403, f"{host} leads to an address that is not public; only such are reached by name")
        except ConnectError as error:
            unknown = isinstance(error.__cause__, socket.gaierror)
            self._refuse(
                502, f"the name {host} does not resolve" if unknown else f"{host}:{port} does not answer"
            )
        else:
            if self.transport.is_closing():
                transport.abort()
            elif transport.is_closing():
                self._refuse(502, f"{host}:{port} closed the connection at once")
            else:
                self._join(transport, forwarded)

    def _join(self, transport: asyncio.Transport, forwarded: h11.Request | None) -> None:
        """Let both ends hear each other."""
        early = take_early(transport)
        self.other = upstream = _Upstream(self)
        transport.set_protocol(upstream)
        upstream.connection_made(transport)
        self.heard()
        if forwarded is None:
            self._state = "tunnel"
            self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            transport.write(self._request.trailing_data[0])
        else:
            self._state = "body"
            transport.write(self._forwarded.send(forwarded) or b"")
            self._read(b"")
        if early:
            upstream.data_received(early)
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, status: int, words: str) -> None:
        """Answer with an error and close, but not before the answer had time to arrive."""
        self._state = "refused"
        if self.transport.is_closing():
            return
        plain = "".join(one if " " <= one <= "~" else "?" for one in words)[:_WORDS_LIMIT]
        # Clients show of a refused tunnel nothing but the first line.
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}: {plain}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(plain) + 1}\r\nConnection: close\r\n\r\n{plain}\n".encode("ascii")
        )
        self.transport.write_eof()
        # Bytes that nobody has read would make the kernel take the answer back.
        self.transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LINGERING, self.transport.abort)


def _destination(request: h11.Request) -> tuple[str, int, h11.Request | None]:
    """Tell where a request leads, and what to ask there; nothing for a tunnel.

    Raises:
        ValueError: it is no request to a proxy, or can be read in two ways.
    """
    target = request.target.decode("ascii")
    names = {name for name, _ in request.headers}
    if request.method == b"CONNECT":
        authority = _AUTHORITY.fullmatch(target)
        if authority is None or int(authority[2]) > 65535:
            raise ValueError(f"CONNECT wants host:port, not {target!r}")
        if names & {b"content-length", b"transfer-encoding"}:
            raise ValueError("a request with CONNECT has no body")
        return plain_host(authority[1]), int(authority[2]), None
    if request.http_version != b"1.1":
        raise ValueError("speak HTTP/1.1 with this proxy")
    if names >= {b"content-length", b"transfer-encoding"}:
        raise ValueError("a request has a Content-Length or a Transfer-Encoding, and not both")
    if target.startswith("/") or "#" in target:
        raise ValueError(
            "this is a proxy: ask for a whole URL, as http://host/path, or for a tunnel with CONNECT"
        )
    url = parse_url(target)
    if url.scheme != "http":
        raise ValueError("https goes through a tunnel: ask for one with CONNECT host:port")
    if url.userinfo:
        raise ValueError("a URL has no user here; send an Authorization header")
    host = plain_host(url.host)
    return host, url.port, _forwarded(request, host, url)


def _forwarded(request: h11.Request, host: str, url: URL) -> h11.Request:
    """Write a request anew, as the only one that is sent over a connection to the host that was checked."""
    named = {
        token.strip().lower()
        for name, value in request.headers
        if name == b"connection"
        for token in value.split(b",")
    }
    authority = f"[{host}]" if ":" in host else host
    headers = [(b"Host", (authority if url.port == 80 else f"{authority}:{url.port}").encode("ascii"))]
    headers += [
        (name, value)
        for name, value in request.headers.raw_items()
        if name.lower() not in _NOT_PASSED_ON and name.lower() not in named
    ]
    framing = [
        (name, value) for name, value in request.headers if name in {b"content-length", b"transfer-encoding"}
    ]
    return h11.Request(
        method=request.method,
        target=f"{url.path}?{url.query}" if url.query else url.path,
        headers=[*headers, *framing, (b"Connection", b"close")],
    )
