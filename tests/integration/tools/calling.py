"""Calling a tool as a model does."""

from __future__ import annotations

from gossamer import Agent, ToolCall
from gossamer.models import ScriptedModel


async def call(toolkit, name, **arguments):
    """Let a model call a tool once; its result."""
    result = await Agent(ScriptedModel([ToolCall.of(name, **arguments), "done"]), tools=[toolkit]).run("go")
    return next(part for message in result.messages for part in message.parts if hasattr(part, "outcome"))


def function(toolkit, name):
    """The tool itself, to be awaited."""
    return next(tool for tool in toolkit.tools if tool.name == name).function
