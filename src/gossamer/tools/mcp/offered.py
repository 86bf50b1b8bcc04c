"""The tools of an MCP server as tools of ours: names that providers take, schemas that are schemas."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gossamer.context import RunContext
from gossamer.schema import ToolSchema
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool
from gossamer.tools.mcp.checking import SchemaError, checker, decoder
from gossamer.tools.mcp.settings import Settings

if TYPE_CHECKING:
    import mcp_types as types

__all__ = ["MAX_TOOLS", "Caller", "name_for", "tools_of"]

# Most tools that are taken from one server.
MAX_TOOLS = 1_000

_MOST_LETTERS = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


class Caller(Protocol):
    """What calls the tools of a server; `Connection` is one."""

    def run(self, name: str, context: RunContext[Any], arguments: dict[str, Any]) -> Any:
        """Call a tool for a model: an async generator of interim values and the result."""
        ...

    def call(self, name: str, arguments: dict[str, Any]) -> Awaitable[Any]:
        """Call a tool for code."""
        ...

    def is_parked(self, run_id: str, call_id: str) -> bool:
        """Tell whether a call of a run waits for a person's answer."""
        ...


def name_for(name: str) -> str:
    """Give the name under which a model calls a tool: the server's own, or one made of it where providers refuse that.

    A made one ends with a hash of the server's, so that it is the same at every start and no other's.
    """
    if 0 < len(name) <= _MOST_LETTERS and not _NOT_IN_NAMES.search(name):
        return name
    mark = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{_NOT_IN_NAMES.sub('_', name)[: _MOST_LETTERS - 9]}_{mark}"


def tools_of(listed: Sequence[types.Tool], settings: Settings, caller: Caller) -> tuple[Tool[..., Any], ...]:
    """Make tools; one whose schema is none, or whose name another has, is left out with a warning in the log.

    Args:
        listed: what the server offers.
        settings: whose tools.
        caller: what calls them.
    """
    made: dict[str, Tool[..., Any]] = {}
    for one in listed:
        name = name_for(one.name)
        if name in made:
            logger.warning(
                "MCP server %s: two tools are called %.200r; the second is left out", settings.name, one.name
            )
            continue
        if len(made) >= MAX_TOOLS:
            logger.warning(
                "MCP server %s: more than %d tools; the rest is left out", settings.name, MAX_TOOLS
            )
            break
        try:
            made[name] = _tool(one, name, settings, caller)
        except SchemaError as error:
            logger.warning(
                "MCP server %s: tool %.200r is left out, its schema is not valid: %s",
                settings.name,
                one.name,
                error,
            )
    return tuple(made.values())


def _tool(one: types.Tool, name: str, settings: Settings, caller: Caller) -> Tool[..., Any]:
    check = checker(one.input_schema)
    parameters = {key: value for key, value in one.input_schema.items() if key not in {"$schema", "title"}}
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {},
        **parameters,
    }  # what some providers insist on
    hints = one.annotations
    return Tool(
        schema=ToolSchema(name, one.description or one.title or "", parameters),
        function=_function(caller, one.name),
        kind="async_generator",
        decode=decoder(check),
        invoke=_invoker(caller, one.name),
        timeout=settings.timeout,
        idempotent=hints is not None and bool(hints.read_only_hint or hints.idempotent_hint),
        goes_on=caller.is_parked if settings.elicitation else None,
        max_result_chars=settings.max_result_chars,
    )


def _function(caller: Caller, name: str) -> Callable[..., Any]:
    def call(**arguments: Any) -> Awaitable[Any]:
        return caller.call(name, arguments)

    call.__name__ = "call"
    return call


def _invoker(caller: Caller, name: str) -> Callable[[RunContext[Any], Any], Any]:
    return lambda context, arguments: caller.run(name, context, arguments)
