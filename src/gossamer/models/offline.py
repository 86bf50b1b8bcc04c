"""A model with no network: deterministic, able to call tools, and honest about what it is."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gossamer.events import Delta, TextDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.instances import minimal_instance
from gossamer.messages import Message, Part, Text, ToolCall, ToolResult
from gossamer.models.base import Capabilities, ModelRequest, ModelResponse
from gossamer.schema import HostedTool, ToolSchema
from gossamer.usage import Usage

__all__ = ["OfflineModel"]

_NOTE = "(offline model: no provider was asked)"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]")
_WORD = re.compile(r"\S+\s*|\s+")


class OfflineModel:
    """Answers without a provider, so that examples, tests and a first look need no key.

    What it does, in this order: tells the results of the tools that have just run; calls the first tool whose
    required arguments it finds in the question (numbers for numbers, words in quotes for text), each once a run;
    gives the smallest value that fits where structured output is wanted; else repeats the question. The same
    question always gets the same answer.
    """

    __slots__ = ()

    name = "offline"
    dialect = "offline"
    capabilities = Capabilities(audio=True)

    def __repr__(self) -> str:
        return "OfflineModel()"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece."""
        part = _answer(request)
        if isinstance(part, ToolCall):
            return ModelResponse(Message("assistant", (part,)), _ONE_CALL, "tool_calls", self.name)
        return ModelResponse(Message("assistant", (part,)), _ONE_CALL, "stop", self.name)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer word by word."""
        response = await self.respond(request)
        part = response.message.parts[0]
        if isinstance(part, ToolCall):
            yield ToolCallStarted(part.id, part.name)
            yield ToolArgumentsDelta(part.id, part.arguments)
        elif isinstance(part, Text):
            for word in _WORD.findall(part.text):
                yield TextDelta(word)
        yield response


_ONE_CALL = Usage(model_calls=1)


def _answer(request: ModelRequest) -> Part:
    results: list[ToolResult] = []
    question = ""
    for message in reversed(request.messages):
        if message.role == "user":
            question = message.text
            break
        results[:0] = [part for part in message.parts if isinstance(part, ToolResult)]
    called = {result.name for result in results}
    if request.tool_choice != "none":
        for tool in request.tools:
            if isinstance(tool, HostedTool) or tool.name in called:
                continue
            arguments = _arguments_from(question, tool)
            if arguments is not None:
                return ToolCall(tool.name, msgspec.json.encode(arguments).decode(), new_id())
    if request.output_schema is not None:
        return Text(msgspec.json.encode(minimal_instance(request.output_schema.schema)).decode())
    if results:
        told = "; ".join(f"{result.name} gave {result.text}" for result in results)
        return Text(f"{told} {_NOTE}")
    return Text(f"You said: {question} {_NOTE}" if question else f"Nothing was asked. {_NOTE}")


def _arguments_from(question: str, tool: ToolSchema) -> dict[str, Any] | None:
    """Find a tool's required arguments in a question; None where one is missing or the tool wants none."""
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    required: list[str] = tool.parameters.get("required", [])
    if not required:
        return {} if re.search(rf"\b{re.escape(tool.name)}\b", question) else None
    quoted = _QUOTED.findall(question)
    numbers = _NUMBER.findall(_QUOTED.sub(" ", question))
    arguments: dict[str, Any] = {}
    for name in required:
        kind = properties.get(name, {}).get("type")
        if kind == "number" and numbers:
            arguments[name] = float(numbers.pop(0))
        elif kind == "integer" and numbers and "." not in numbers[0]:
            arguments[name] = int(numbers.pop(0))
        elif kind == "string" and quoted:
            arguments[name] = quoted.pop(0)
        else:
            return None
    return arguments
