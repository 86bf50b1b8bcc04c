"""Structured output of a model without native schemas: the answer comes as the arguments of a tool."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from gossamer.messages import Part, Text, ToolCall
from gossamer.models.base import FinishReason, ToolChoice
from gossamer.schema import OutputSchema, ToolSchema

__all__ = ["OUTPUT_TOOL", "answer_choice", "output_tool", "take_answer"]

OUTPUT_TOOL = "final_answer"


@functools.lru_cache(maxsize=256)
def output_tool(schema: OutputSchema) -> ToolSchema:
    """The tool whose arguments are the answer; one and the same for each schema, so that it is encoded once."""
    words = schema.description or "Give the final answer in this form."
    return ToolSchema(OUTPUT_TOOL, words, schema.schema, schema.strict)


def answer_choice(choice: ToolChoice | None) -> ToolChoice:
    """Give the choice of tools where the answer comes through one: some must be called, no others if none may be."""
    return OUTPUT_TOOL if choice == "none" else choice or "required"


def take_answer(parts: Sequence[Part], reason: FinishReason) -> tuple[tuple[Part, ...], FinishReason]:
    """Turn a call of the output tool into the text of the answer, unless other tools are called beside it.

    Returns:
        The parts of the message, and why the model stopped.
    """
    answers = [part for part in parts if isinstance(part, ToolCall) and part.name == OUTPUT_TOOL]
    others = [part for part in parts if isinstance(part, ToolCall) and part.name != OUTPUT_TOOL]
    if not answers or others:
        return tuple(parts), reason
    kept = [part for part in parts if not isinstance(part, ToolCall | Text)]
    return (*kept, Text(answers[0].arguments)), "stop"
