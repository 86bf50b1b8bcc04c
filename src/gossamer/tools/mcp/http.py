"""The protocol over streamable HTTP: the official package's transport, on a client with bounds.

A request that fails on the network fails alone: the package would let the whole connection go with it. So what has gone
wrong is put into an answer that the package understands.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST

from gossamer.tools.mcp.parked import MAX_PARKED
from gossamer.tools.mcp.sending import Outbox, Sent, Watched, sending
from gossamer.tools.mcp.settings import EXPIRED, UNREACHED, Settings
from gossamer.wire.proxy import choose_proxy
from gossamer.wire.url import parse_url

__all__ = ["over_http"]

# How much of the body of an error is told.
_ERROR_CHARS = 300

# Connections beside those of calls: for answers and notifications, and for what was given up a moment ago.
_RESERVE = 20

# How long a server may take to hear that its session is over.
_GOODBYE_SECONDS = 2.0


@contextlib.asynccontextmanager
async def over_http(settings: Settings, expired: Callable[[], None]) -> AsyncGenerator[tuple[Any, Any], None]:
    """Give the streams to a server.

    Args:
        settings: whose server.
        expired: called when the server does not know the session any more.
    """
    seconds = settings.connect_timeout
    # A call that waits for a person keeps its connection, and must not keep others from theirs.
    most = settings.max_concurrent + MAX_PARKED + _RESERVE
    limits = httpx2.Limits(max_connections=most, max_keepalive_connections=20)
    # In a thread: it reads the certificates of the machine.
    transport = await asyncio.to_thread(_Bounded, settings, expired, limits)
    async with (
        # An answer may take as long as its call may; how long that is, is watched where it is called.
        httpx2.AsyncClient(
            transport=transport,
            headers={"accept-encoding": "identity", **(settings.headers or {})},
            timeout=httpx2.Timeout(seconds, read=None),
            auth=settings.auth,
        ) as client,
        streamable_http_client(
            settings.url, http_client=client, max_sse_event_size=settings.max_message_bytes
        ) as streams,
    ):
        before = sending.set(Sent(False))  # what the package sends by itself is ours as well
        try:
            yield streams[0], Outbox(streams[1])
        finally:
            sending.reset(before)


class _Bounded(httpx2.AsyncHTTPTransport):
    """Requests whose answers are bounded, and whose failures are answers."""

    def __init__(self, settings: Settings, expired: Callable[[], None], limits: httpx2.Limits) -> None:
        super().__init__(limits=limits, proxy=_proxy(settings.url))
        self._settings = settings
        self._expired = expired
        self._unknown = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # the end of the session
            if self._unknown:
                return httpx2.Response(204, request=request)
            request.extensions["timeout"] = dict.fromkeys(
                ("connect", "read", "write", "pool"), _GOODBYE_SECONDS
            )
        sent = sending.get()
        is_message = request.method == "POST" and "text/event-stream" in request.headers.get("accept", "")
        if sent is None or not (is_message or sent.is_request):
            return await super().handle_async_request(request)
        if not sent.is_request:  # the next message has to wait for what the server says to this one
            request.extensions["timeout"]["read"] = self._settings.connect_timeout
        send = functools.partial(super().handle_async_request, request)
        try:
            response = await sent.wait(send)
            if sent.is_request and isinstance(response.stream, httpx2.AsyncByteStream):
                response.stream = Watched(response.stream, sent)
            if not is_message:
                return response
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return response
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                words = "the server compressed its answer, though it was asked not to"
                return _answer(request, 502, INTERNAL_ERROR, words)
            body = await self._read(response)
        except httpx2.TransportError as error:
            if not is_message:
                raise
            words = str(error) or type(error).__name__
            if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
                words = f"{UNREACHED}: {words}"
            return _answer(request, 502, CONNECTION_CLOSED, words)
        if body is None:
            most = self._settings.max_message_bytes
            return _answer(
                request, 502, INTERNAL_ERROR, f"the server sent a message of more than {most} bytes"
            )
        status = response.status_code
        if status == 404 and MCP_SESSION_ID in request.headers:
            self._unknown = True
            self._expired()
            return _answer(request, 404, INVALID_REQUEST, EXPIRED)
        if status >= 400 and not _is_error(body):
            words = f"HTTP {status} {response.reason_phrase}: {body[:_ERROR_CHARS].decode(errors='replace')}"
            body, headers = _error(INTERNAL_ERROR, words.rstrip(": ")), dict(response.headers)
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
            return httpx2.Response(status, headers=headers, content=body, request=request)
        return httpx2.Response(status, headers=response.headers, content=body, request=request)

    async def _read(self, response: httpx2.Response) -> bytes | None:
        """Read a body; None where it is larger than it may be."""
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > self._settings.max_message_bytes:
                    return None
                pieces.append(piece)
        finally:
            await response.aclose()
        return b"".join(pieces)


def _proxy(url: str) -> httpx2.Proxy | None:
    """Give the proxy of the environment, chosen as for models."""
    proxy = choose_proxy(parse_url(url), None)
    if proxy is None:
        return None
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    headers = {"proxy-authorization": proxy.authorization} if proxy.authorization else {}
    return httpx2.Proxy(f"{proxy.scheme}://{host}:{proxy.port}", headers=headers)


def _is_error(body: bytes) -> bool:
    try:
        return "error" in json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return False


def _error(code: int, words: str) -> bytes:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": words}}
    return json.dumps(error).encode()


def _answer(request: httpx2.Request, status: int, code: int, words: str) -> httpx2.Response:
    headers = {"content-type": "application/json"}
    return httpx2.Response(status, headers=headers, content=_error(code, words), request=request)
