"""A bound on the length of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GuardrailError
from gossamer.guardrails.base import Guardrail, Place

__all__ = ["length"]


def length(most: int, *, least: int = 0, on: Sequence[Place] = ("input",), name: str = "length") -> Guardrail:
    """Stop texts that are too long, or too short.

    Args:
        most: characters that may be there.
        least: characters that must be there.
        on: what is checked.
        name: the guardrail's name.

    Raises:
        ArgumentError: the bounds leave no length.
    """
    if most < 1 or not 0 <= least <= most:
        raise ArgumentError(f"a length must be between least and most; they are {least} and {most}")

    def check(_: RunContext[Any], text: str) -> None:
        if len(text) > most:
            raise GuardrailError(f"{len(text)} characters, where {most} are the most")
        if len(text) < least:
            raise GuardrailError(f"{len(text)} characters, where {least} are the least")

    return Guardrail(name, check, on)
