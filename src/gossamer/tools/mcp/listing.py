"""What an MCP server has to offer beside its tools: resources and prompts."""

from __future__ import annotations

import msgspec

__all__ = ["MCPPrompt", "MCPPromptArgument", "MCPResource"]


class MCPResource(msgspec.Struct, frozen=True):
    """Something that an MCP server lets itself be asked for: a file, a page, a row.

    Attributes:
        uri: what `MCPServer.read_resource` takes.
        name: what it is called.
        description: what it holds, in the server's words.
        media_type: for example `text/plain`; empty where the server does not say.
        size: in bytes, or None where the server does not say.
    """

    uri: str
    name: str
    description: str = ""
    media_type: str = ""
    size: int | None = None


class MCPPromptArgument(msgspec.Struct, frozen=True):
    """A blank in a prompt of an MCP server.

    Attributes:
        name: what it is called.
        description: what belongs there.
        required: whether the prompt needs it.
    """

    name: str
    description: str = ""
    required: bool = False


class MCPPrompt(msgspec.Struct, frozen=True):
    """A prompt that an MCP server has ready.

    Attributes:
        name: what `MCPServer.prompt` takes.
        description: what it is for.
        arguments: what it is filled in with.
    """

    name: str
    description: str = ""
    arguments: tuple[MCPPromptArgument, ...] = ()
