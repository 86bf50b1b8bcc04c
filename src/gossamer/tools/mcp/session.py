"""The official package's session, with calls of tools that are read straight out of the message."""

from __future__ import annotations

import asyncio
from typing import Any

import mcp_types as types
from mcp.client.session import ClientSession, ElicitationFnT
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

import gossamer
from gossamer.tools.mcp.dispatcher import Dispatcher
from gossamer.tools.mcp.result import CallResult, read_result

__all__ = ["Session"]

_CLIENT = types.Implementation(name="gossamer", version=gossamer.__version__)


class Session(ClientSession):
    """A session with a server.

    Args:
        dispatcher: sends and receives.
        elicit: puts a server's question to a person; None where servers may not ask.

    Attributes:
        without_handshake: whether it speaks the protocol that has none, where a server asks by its answer.
        down: set when its connection is to be given up.
    """

    def __init__(self, dispatcher: Dispatcher, elicit: ElicitationFnT | None) -> None:
        super().__init__(dispatcher=dispatcher, client_info=_CLIENT, elicitation_callback=elicit)
        self.without_handshake = False
        self.down = asyncio.Event()
        self._direct = dispatcher

    async def agree(self) -> None:
        """Agree on a version of the protocol: by its handshake, or without where the server has none.

        Raises:
            mcp.shared.exceptions.MCPError: there is none that both speak, or the connection broke.
        """
        try:
            await self.initialize()
        except MCPError as error:
            if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
                raise
            await self.discover()
        version = self.protocol_version or ""
        self._direct.version = version
        self.without_handshake = version in MODERN_PROTOCOL_VERSIONS

    async def call(self, name: str, arguments: dict[str, Any], on_progress: ProgressFnT) -> CallResult:
        """Call a tool, of a server that has a handshake.

        The package would make models of request and result, check the result twice and dump it once between: a
        quarter of the cost of a call.

        Raises:
            mcp.shared.exceptions.MCPError: the server refused it, or the connection broke.
            ValueError: the result is none.
        """
        params = {"name": name, "arguments": arguments}
        raw = await self._direct.send_raw_request("tools/call", params, {"on_progress": on_progress})
        return read_result(raw)
