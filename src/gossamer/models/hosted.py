"""Tools that providers run on their side: which of a request's tools these are, and the error of who has no such tool.

They stand behind all other tools of a request, so that one look at the last tells whether there are any.
"""

from __future__ import annotations

from collections.abc import Sequence

from gossamer.errors import ArgumentError
from gossamer.schema import HostedTool, ToolSchema

__all__ = ["chosen", "hosted_tools", "no_such_tool"]


def hosted_tools(tools: Sequence[ToolSchema | HostedTool]) -> tuple[HostedTool, ...]:
    """Give the tools of a request that its provider runs. One check where there are none."""
    if not tools or not isinstance(tools[-1], HostedTool):
        return ()
    return tuple(tool for tool in tools if isinstance(tool, HostedTool))


def chosen(choice: str | None, tools: Sequence[ToolSchema | HostedTool]) -> HostedTool | None:
    """Give the hosted tool of a request that a choice names; None where it names none, or one of the caller's own."""
    hosted = [tool for tool in hosted_tools(tools) if tool.name == choice]
    own = hosted and any(isinstance(tool, ToolSchema) and tool.name == choice for tool in tools)
    return hosted[0] if hosted and not own else None


def no_such_tool(tool: HostedTool, model: str, dialect: str, why: str) -> ArgumentError:
    """The error of a tool that cannot be asked for in this way.

    Args:
        tool: the tool.
        model: the model's name.
        dialect: the wire format it is spoken to in.
        why: what is in the way, and what to do.
    """
    return ArgumentError(f"model {model!r} ({dialect}) cannot have the hosted tool {tool.name!r}: {why}")
