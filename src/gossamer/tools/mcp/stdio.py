"""The protocol over the standard streams of a process: a message a line, each bounded.

In place of the official package's transport, which bounds no line, takes two tasks and a queue a direction, and hands
the server our own standard error. The messages themselves are the package's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

from anyio import BrokenResourceError
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter

from gossamer.telemetry.logging import logger
from gossamer.tools.mcp.process import Process, start
from gossamer.tools.mcp.settings import NotSentError, Settings

__all__ = ["Lines", "Outlet", "over_stdio"]

# How many lines that are no message go to the log, of one process.
_LOGGED_GARBAGE = 100

_read_message = jsonrpc_message_adapter.validate_json


class Lines:
    """What a process writes to its standard output, as messages: the package's read stream.

    Args:
        process: the process.
        settings: whose it is.
        lost: called when there is nothing more to come.
        ended: told why, once that is known.
    """

    def __init__(
        self, process: Process, settings: Settings, lost: Callable[[], None], ended: Callable[[str], None]
    ) -> None:
        self._lost = lost
        self._ended = ended
        self._process = process
        self._settings = settings
        self._seen = 0
        self._garbage = 0

    def __aiter__(self) -> Lines:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def aclose(self) -> None:
        """Do nothing: the streams are closed with the process."""

    async def receive(self) -> SessionMessage | Exception:
        """Give the next message.

        Raises:
            StopAsyncIteration: there is none any more.
        """
        return await self.__anext__()

    async def __anext__(self) -> SessionMessage | Exception:
        reader = self._process.reader
        while True:
            self._seen += 1
            if self._seen % 64 == 0:
                await asyncio.sleep(0)  # a flood must not hold up the loop
            try:
                line = await reader.readuntil()
            except asyncio.LimitOverrunError:
                self._ended(f"it sent a message of more than {self._settings.max_message_bytes} bytes")
                self._process.kill()
                raise StopAsyncIteration from None
            except (asyncio.IncompleteReadError, OSError):
                self._lost()
                self._ended(await self._process.why())
                raise StopAsyncIteration from None
            try:
                return SessionMessage(_read_message(line, by_name=False))
            except ValueError:
                self._note(line)

    def _note(self, line: bytes) -> None:
        """Log a line that is no message: servers print where they should not."""
        if not line.strip():
            return
        self._garbage += 1
        if self._garbage <= _LOGGED_GARBAGE:
            words = line[:200].decode(errors="replace").rstrip()
            logger.warning("MCP server %s printed what is no message: %s", self._settings.name, words)


class Outlet:
    """The standard input of a process: the package's write stream."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def aclose(self) -> None:
        """Do nothing: the streams are closed with the process."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message, and wait while the server does not read.

        Raises:
            NotSentError: the server does not listen any more.
            BrokenResourceError: the same, of what is no request.
        """
        data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        try:
            await self._process.write(data + b"\n")
        except OSError as error:
            if isinstance(item.message, JSONRPCRequest):
                raise NotSentError from error
            raise BrokenResourceError from error


@contextlib.asynccontextmanager
async def over_stdio(
    settings: Settings, lost: Callable[[], None], ended: Callable[[str], None]
) -> AsyncGenerator[tuple[Any, Any], None]:
    """Start a server and give the streams to it; end it.

    Args:
        settings: whose server.
        lost: called when the server has ended.
        ended: told why, once that is known.

    Raises:
        MCPConnectionError: it cannot be started.
    """
    process = await start(settings)
    try:
        yield Lines(process, settings, lost, ended), Outlet(process)
    except BaseException:
        process.kill()  # it did not come to terms, or nobody may wait for it to end by itself
        raise
    finally:
        await process.stop()
