"""Where requests go and what always goes with them."""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from gossamer.errors import ArgumentError
from gossamer.wire.dial import Route
from gossamer.wire.http1 import StaleConnectionError
from gossamer.wire.pool import pool_of
from gossamer.wire.proxy import choose_proxy
from gossamer.wire.url import encode_target, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gossamer.wire.stream import Stream

__all__ = ["Endpoint", "Timeouts"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NO_HEADERS: Mapping[str, str] = {}


class Timeouts(msgspec.Struct, frozen=True):
    """How long each step of a request may take, in seconds; `float("inf")` never ends.

    Attributes:
        connect: name look-up, connection, proxy and TLS together.
        read: the longest silence between two pieces of an answer while somebody waits for it.
        total: the whole request, from `send` to the last byte; None for no such bound.
        pool: the longest wait for a connection to come free.
    """

    connect: float = 10.0
    read: float = 300.0
    total: float | None = None
    pool: float = 60.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "total", "pool"):
            value = getattr(self, name)
            if value is None and name == "total":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ArgumentError(f"timeouts.{name} is {value!r}; give seconds, more than 0")


_DEFAULT_TIMEOUTS = Timeouts()


class Endpoint:
    """A place to send requests to: a cheap value that never changes.

    Building one parses the URL once, prepares the head of its requests and opens nothing. Connections belong
    to the running event loop; endpoints with the same origin, proxy, TLS settings and limit share them.

    Answers are asked for without compression, as a stream of small events only gets slower by it; put
    `Accept-Encoding: gzip` into `headers` to have it. A compressed answer is decoded either way.

    Bounds on what a server may send: 64 KiB and 256 fields of headers, 64 KiB of framing between two pieces of
    a body, 256 KiB of a body that nobody has read yet; past the first two the request fails with
    `TooLargeError`, past the last the network is paused. At most 2,000 connections to a host lie idle, for up to
    55 seconds, and at most 256 are being opened at once.

    Args:
        url: an absolute `http` or `https` URL, without user and password.
        headers: sent with every request. Host, Content-Length and Connection are not for the caller.
        timeouts: how long each step may take.
        max_connections: the most connections to the host; beyond it requests wait, first come first served,
            up to `timeouts.pool`, then they fail with `PoolTimeoutError`.
        ca_file: a PEM file with the authorities to trust instead of the system's.
        verify: False accepts any certificate.
        proxy: the URL of an HTTP proxy, `""` for none, None for what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
            NO_PROXY in the environment say now.
        allow_address: asked for each address that the host's name leads to, right before it is connected to; those it
            refuses are left out. An address is text such as `203.0.113.7` or `fe80::1%eth0`. It runs on the loop, so it
            has to be quick, and is compared with `==`: connections opened under one rule are not used under another.
            With a proxy it is asked for the proxy's addresses, as the proxy resolves the name. See
            `is_public_address`.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
    """

    __slots__ = ("_fields", "_head", "_route", "_target", "_timeouts", "_url")

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        max_connections: int = 20_000,
        ca_file: str | None = None,
        verify: bool = True,
        proxy: str | None = None,
        allow_address: Callable[[str], bool] | None = None,
    ) -> None:
        parsed = parse_url(url)
        if parsed.userinfo:
            raise ArgumentError("url holds a user or password; send them in the Authorization header instead")
        if max_connections < 1:
            raise ArgumentError(f"max_connections is {max_connections!r}; give 1 or more")
        chosen = choose_proxy(parsed, proxy)
        target_prefix = ""
        fields = {
            "host": f"Host: {parsed.authority}\r\n",
            "user-agent": "User-Agent: gossamer\r\n",
            "accept": "Accept: */*\r\n",
        }
        if chosen is not None and parsed.scheme == "http":
            # Without a tunnel the proxy itself is asked, for an absolute URL.
            target_prefix = parsed.origin
            if chosen.authorization is not None:
                fields["proxy-authorization"] = f"Proxy-Authorization: {chosen.authorization}\r\n"
        fields.update(_encode_fields(headers))
        self._url = parsed
        self._timeouts = timeouts
        self._fields = fields
        self._target = target_prefix
        self._head = self._encode_head("POST", None, _NO_HEADERS)
        self._route = Route(
            scheme=parsed.scheme,
            host=parsed.host,
            port=parsed.port,
            name=parsed.origin,
            proxy=chosen,
            ca_file=ca_file,
            verify=verify,
            limit=max_connections,
            allow_address=allow_address,
        )

    @property
    def url(self) -> str:
        """The URL that requests without a path of their own go to."""
        return self._url.origin + encode_target(self._url, None)

    @property
    def timeouts(self) -> Timeouts:
        """How long each step of a request may take."""
        return self._timeouts

    def __repr__(self) -> str:
        # Headers hold keys and stay out of logs.
        return f"Endpoint({self._url.origin}{self._url.path})"

    async def send(
        self,
        body: bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview] = b"",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        path: str | None = None,
    ) -> Stream:
        """Send one request and return its answer as soon as the headers are there.

        O(1) beside copying the body. A request on a kept connection that dies before the first byte of the
        answer is sent once more, on a new one; nothing else is ever sent twice.

        Args:
            body: the bytes to send, or pieces to send one behind the other; copied before the first wait.
            method: the HTTP method.
            headers: more headers; they win over those of the endpoint.
            path: put behind the path of the URL; its query behind the query of the URL.

        Returns:
            The answer, whatever its status. Read it to its end or close it.

        Raises:
            ArgumentError: the method, a header or the path cannot be sent.
            AddressRefusedError: `allow_address` refuses all addresses of the host.
            ConnectError: no connection could be made.
            PoolTimeoutError: none of the connections came free in time.
            ReadTimeoutError: the server did not answer in time.
            ProtocolError: what it answered is not HTTP, or it closed the connection instead.
            TooLargeError: the headers of the answer are larger than their bound.
        """
        if method == "POST" and not headers and path is None:
            head = self._head
        else:
            head = self._encode_head(method, path, headers or _NO_HEADERS)
        payload = _join(body)
        del body
        if payload or method not in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            request = [b"%b%d\r\n\r\n" % (head, len(payload)), payload]
        else:
            request = [head.removesuffix(b"Content-Length: ") + b"\r\n"]
        del payload
        timeouts = self._timeouts
        deadline = None if timeouts.total is None else monotonic() + timeouts.total
        bodiless = method == "HEAD"
        loop = asyncio.get_running_loop()
        host = pool_of(loop).host(self._route, loop)
        connection = await host.acquire(connect=timeouts.connect, patience=timeouts.pool, deadline=deadline)
        try:
            return await connection.exchange(
                request, bodiless=bodiless, silence=timeouts.read, deadline=deadline
            )
        except StaleConnectionError:
            connection = await host.replace(connection, connect=timeouts.connect, deadline=deadline)
            return await connection.exchange(
                request, bodiless=bodiless, silence=timeouts.read, deadline=deadline
            )

    def _encode_head(self, method: str, path: str | None, headers: Mapping[str, str]) -> bytes:
        if not _TOKEN.fullmatch(method) or method == "CONNECT":
            raise ArgumentError(f"method {method!r} cannot be sent; give one such as GET or POST")
        target = self._target + encode_target(self._url, path)
        fields = {**self._fields, **_encode_fields(headers)} if headers else self._fields
        return f"{method} {target} HTTP/1.1\r\n{''.join(fields.values())}Content-Length: ".encode("latin-1")


def _encode_fields(headers: Mapping[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if not _TOKEN.fullmatch(name):
            raise ArgumentError(f"header name {name!r} holds characters that no header name may have")
        if key in _OURS:
            raise ArgumentError(f"header {name!r} is set by the transport; leave it out")
        # The value may be a key, so the message does not repeat it.
        if _BAD_VALUE.search(value):
            raise ArgumentError(f"the value of header {name!r} holds a line break or control character")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise ArgumentError(f"the value of header {name!r} has characters outside Latin-1") from None
        fields[key] = f"{name}: {value.strip()}\r\n"
    return fields


def _join(body: bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        raise ArgumentError("body is a str; encode it to bytes first")
    return b"".join(body)
