"""A model in the same process whose answers lie ready: what is measured is the run around it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.floors import ARGUMENTS, REPLY
from gossamer.messages import Message, ToolCall
from gossamer.models import Capabilities, ModelRequest, ModelResponse
from gossamer.usage import Usage

__all__ = ["PrebuiltModel"]


class PrebuiltModel:
    """Answers at once, after one tool call where it has a tool to call.

    Args:
        call: the tool it calls first, or None.
    """

    name = "prebuilt"
    dialect = "prebuilt"
    capabilities = Capabilities()

    def __init__(self, call: str | None = None) -> None:
        usage = Usage(input_tokens=10, output_tokens=5, model_calls=1, unpriced_calls=1)
        self.answer = ModelResponse(Message.assistant(REPLY), usage, "stop", self.name)
        self.call = self.answer
        if call is not None:
            message = Message("assistant", (ToolCall(call, ARGUMENTS, "call_1"),))
            self.call = ModelResponse(message, usage, "tool_calls", self.name)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Call the tool where the last word is the user's, else answer."""
        return self.call if request.messages[-1].role == "user" else self.answer

    def stream(self, request: ModelRequest) -> AsyncGenerator[Any, None]:
        """Not used: what is measured here is not streamed."""
        raise NotImplementedError
