"""Moving long tool messages out of view: a line stays for each result, and the journal keeps the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.memory.marks import is_moved, mark_moved
from gossamer.messages import Message, Text, ToolCall, ToolResult
from gossamer.records import ViewMovedRecord
from gossamer.view import View

__all__ = ["READ", "SEARCH", "as_text", "can_shorten", "shortened", "shortening"]

# The tools that read back what left the view.
READ = "read_message"
SEARCH = "search_messages"

# A result that is no longer than this is left where it is: the line that would stand for it is about as long.
_SHORT = 250


def can_shorten(message: Message) -> bool:
    """Tell whether a tool message has a text that may be moved out of view."""
    return any(_is_long(part) for part in message.parts)


def shortened(message: Message, place: int) -> Message:
    """Give a tool message with a line in place of each long text; media stay.

    Args:
        message: the tool message.
        place: where in the journal its calls stand.
    """
    several = len(message.parts) > 1
    parts: list[Any] = []
    start = 0
    for part in message.parts:
        if several and isinstance(part, ToolResult):
            start += len(_heading(part))
        parts.append(_moved(part, place, start) if isinstance(part, ToolResult) and _is_long(part) else part)
        if isinstance(part, ToolResult):
            start += len(part.text) + len(_BETWEEN)
    return msgspec.structs.replace(message, parts=tuple(parts), provider=None)


def shortening(run: str, view: View, position: int) -> ViewMovedRecord:
    """Give the record that shortens the tool message at a position of a view's list.

    All messages of its place go into the record again, so that an answer and its results stay together.
    """
    place = view.places[position]
    begin = end = position
    while begin > view.start and view.places[begin - 1] == place:
        begin -= 1
    while end < len(view.items) and view.places[end] == place:
        end += 1
    insert = [*view.items[begin:end]]
    insert[position - begin] = shortened(view.items[position], place)
    return ViewMovedRecord(run=run, reason="compaction", begin=place, end=place + 1, insert=tuple(insert))


def as_text(answer: Message | None, results: Sequence[ToolResult]) -> str:
    """Give in words what stands at a place of the journal; the results first, as references count from there.

    Args:
        answer: the message; None where there are only results.
        results: those of its calls.
    """
    several = len(results) > 1
    words = [_heading(result) + result.text if several else result.text for result in results]
    if answer is not None:
        said = answer.text
        calls = ", ".join(
            f"{part.name}({part.arguments})" for part in answer.parts if isinstance(part, ToolCall)
        )
        words += [f"[{answer.role} said] {said}"] if said and results else [said] if said else []
        words += [f"[{answer.role} called] {calls}"] if calls else []
    return _BETWEEN.join(words)


_BETWEEN = "\n\n"


def _heading(result: ToolResult) -> str:
    return f"[{result.name} gave]\n"


def _is_long(part: Any) -> bool:
    return isinstance(part, ToolResult) and len(part.text) > _SHORT and not is_moved(part)


def _moved(result: ToolResult, place: int, start: int) -> ToolResult:
    where = f"place={place}" if not start else f"place={place}, start={start}"
    words = (
        f"[{len(result.text):,} characters of {result.name} moved out of view: {READ}({where}) reads them, "
        f"{SEARCH}(words=…) searches]"
    )
    content: Any = words
    if not isinstance(result.content, str):
        media = [part for part in result.content if not isinstance(part, Text)]
        content = (Text(words), *media) if media else words
    return msgspec.structs.replace(result, content=content, provider=mark_moved(place))
