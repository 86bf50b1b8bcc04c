"""How memory marks what it puts into a view: references to what left it, and summaries.

The marks are data of the message, not words in it: a tool that writes the same words is not taken for one.
"""

from __future__ import annotations

from typing import Any

from gossamer.messages import Message, ToolResult

__all__ = [
    "SUMMARY_AUTHOR",
    "is_mark",
    "is_moved",
    "is_summary",
    "mark_moved",
    "mark_summary",
    "references_of",
]

SUMMARY_AUTHOR = "summary"

# The dialect under which Gossamer keeps data of its own in a message; no provider is sent it.
_OURS = "gossamer"


def mark_moved(place: int) -> dict[str, Any]:
    """Give the mark of a result whose text was moved out of view, which can be read back at a place of the journal."""
    return {_OURS: {"moved": place}}


def mark_summary(references: list[str]) -> dict[str, Any]:
    """Give the mark of a summary.

    Args:
        references: how what was summarised is read back, a line each.
    """
    return {_OURS: {"summary": references}}


def is_moved(result: ToolResult) -> bool:
    """Tell whether a result's text was moved out of view."""
    return "moved" in _mark(result.provider)


def is_summary(message: Message) -> bool:
    """Tell whether a message is a summary."""
    return message.author == SUMMARY_AUTHOR and "summary" in _mark(message.provider)


def references_of(message: Message) -> list[str]:
    """Give the references that a summary carries."""
    return list(_mark(message.provider).get("summary", ()))


def is_mark(message: Message) -> bool:
    """Tell whether a message stands in a view in place of others: a summary, or one with a moved result."""
    if message.role == "user":
        return is_summary(message)
    if message.role != "tool":
        return False
    return any(is_moved(part) for part in message.parts if isinstance(part, ToolResult) and part.provider)


def _mark(provider: dict[str, Any] | None) -> dict[str, Any]:
    mark: Any = None if provider is None else provider.get(_OURS)
    return mark if isinstance(mark, dict) else {}  # pyright: ignore[reportUnknownVariableType]
