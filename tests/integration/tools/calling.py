"""How these tests call a tool: as a model does, with JSON, through a run."""

from __future__ import annotations

import json
from typing import Any

from gossamer import Agent, Tool, ToolCall, Toolkit, ToolResult
from gossamer.models import ScriptedModel

__all__ = ["call", "function", "given", "names", "refused"]


async def call(toolkit: Toolkit | Tool[..., Any], name: str, /, **arguments: Any) -> ToolResult:
    """Let a model call a tool and give the result that it sees."""
    agent = Agent(ScriptedModel([ToolCall.of(name, **arguments), "done"]), tools=[toolkit])
    (result,) = (await agent.run("go")).new_messages[2].parts
    return result


async def given(toolkit: Toolkit | Tool[..., Any], name: str, /, **arguments: Any) -> Any:
    """Give what a tool returned: text, or data where it is JSON."""
    result = await call(toolkit, name, **arguments)
    assert result.outcome == "ok", result.content
    try:
        return json.loads(result.content)
    except ValueError:
        return result.content


async def refused(toolkit: Toolkit | Tool[..., Any], name: str, /, **arguments: Any) -> str:
    """Give what the model is told of a call that must fail."""
    result = await call(toolkit, name, **arguments)
    assert result.outcome == "error", result.content
    return result.content


def names(toolkit: Toolkit) -> list[str]:
    """Name the tools of a toolkit."""
    return [tool.name for tool in toolkit.tools]


def function(toolkit: Toolkit, name: str) -> Any:
    """Give what a tool runs, to be awaited."""
    return next(tool for tool in toolkit.tools if tool.name == name).function
