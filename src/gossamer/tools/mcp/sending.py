"""Requests to a server over HTTP, as far as they can be given up: their connections must not be kept for good."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

import anyio
import httpx2
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest

from gossamer.tools.mcp.settings import address_of

__all__ = ["GivenUpError", "Outbox", "Sent", "Watched", "sending"]

T = TypeVar("T")

# How long a server may take to end an answer that nobody waits for any more, in seconds; then its connection is cut.
_GRACE_SECONDS = 2.0

# The message on whose behalf something is sent, in the task that sends it.
sending: ContextVar[Sent | None] = ContextVar("gossamer_mcp_sending", default=None)


class GivenUpError(httpx2.SSEError):
    """Nobody waits for the answer any more; the package does not ask for the rest of it after this one."""


class Sent:
    """A message on its way, and the reading of its answer.

    Args:
        is_request: whether there is to be an answer to it.
    """

    __slots__ = ("__weakref__", "_given_up", "_scope", "is_request")

    def __init__(self, is_request: bool) -> None:
        self.is_request = is_request
        self._given_up = False
        self._scope: anyio.CancelScope | None = None

    def give_up(self) -> None:
        """Cut what is awaited for it."""
        self._given_up = True
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self, awaited: Callable[[], Awaitable[T]]) -> T:
        """Wait for a step of its answer.

        Raises:
            GivenUpError: nobody waits for it any more.
        """
        if not self._given_up:
            with anyio.CancelScope() as self._scope:
                return await awaited()
        raise GivenUpError("nobody waits for the answer any more")


class Outbox:
    """The write stream of the package's transport; sees which requests are given up.

    Args:
        inner: the package's stream.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._sent: WeakValueDictionary[Any, Sent] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message; one that gives a request up has that cut a little later, where the server does not end it."""
        message = item.message
        sent = Sent(isinstance(message, JSONRPCRequest))
        if isinstance(message, JSONRPCRequest):
            self._sent[message.id] = sent
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            given_up = self._sent.get((message.params or {}).get("requestId"))
            if given_up is not None:
                asyncio.get_running_loop().call_later(_GRACE_SECONDS, given_up.give_up)
        before = sending.set(sent)  # the package sends in the context of whoever puts a message in here
        try:
            await self._inner.send(item)
        finally:
            sending.reset(before)


class Watched(httpx2.AsyncByteStream):
    """The body of an answer, read until it is given up.

    Args:
        inner: the body.
        sent: whose answer it is.
    """

    def __init__(self, inner: Any, sent: Sent) -> None:
        self._inner = inner
        self._sent = sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._inner)
        while True:
            try:
                yield await self._sent.wait(pieces.__anext__)
            except StopAsyncIteration:
                return

    async def aclose(self) -> None:
        """Close the body."""
        await self._inner.aclose()


class _WithoutSecrets(logging.Filter):
    """Takes user, password and query out of the URLs of MCP servers, which the libraries below write to their logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if sending.get() is not None or record.name.startswith("mcp."):
            record.msg = _URL.sub(lambda found: address_of(found[0]), record.getMessage())
            record.args = None
        return True


_URL = re.compile(r"https?://[^\s'\"<>]+")

for _name in ("httpx2", "mcp.client.streamable_http"):
    logging.getLogger(_name).addFilter(_WithoutSecrets())
