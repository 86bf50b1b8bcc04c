"""Calls and results that lost each other: providers take a result right behind its call, and no call without one.

The views of sessions are so, but for results at their beginning whose calls have left them. Messages that somebody else
put together, a prompt without a session or a middleware that trims, may be anything.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Audio, File, Image, Message, Part, Text, ToolCall, ToolResult
from gossamer.models.base import ModelRequest
from gossamer.view import MessageView, not_text

__all__ = ["REFUSED_IN_NAMES", "fit_names", "leading_results", "paired", "unanswered"]

# What most providers refuse in the name of a tool.
REFUSED_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")

_NOT_RUN = "[no result]"


def paired(request: ModelRequest) -> MessageView:
    """Give what a request says, each call with an id of its own and its result right behind it.

    A call without a result gets one that says so; a result without its call is told by the user. O(1) where messages
    of the conversation were encoded before, else O(messages), which must be encoded then anyway.

    Raises:
        ArgumentError: the request says nothing, or its instructions hold characters that are no text.
    """
    messages = request.messages
    if request.instructions:
        _must_be_text(request.instructions)
    if not messages.encodings:
        mending = _Mending()
        for message in messages:
            mending.take(message)
        mending.settle()
        if mending.changed:
            messages = MessageView(mending.messages, 0, len(mending.messages))
    if not messages and not request.instructions:
        raise ArgumentError("the request says nothing: it has no messages and no instructions; give a prompt")
    return messages


class _Mending:
    """Messages as they are taken over, one by one."""

    __slots__ = ("_due", "_ids", "_late", "changed", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.changed = False
        self._ids: set[str] = {""}
        self._due: dict[str, deque[ToolCall]] = {}  # calls without a result, by the id that they came with
        self._late: list[Part] = []  # what cannot stand among results

    def take(self, message: Message) -> None:
        """Add a message."""
        if message.role == "tool":
            self._take_results(message)
            return
        self.settle()
        foreign = ToolResult if message.role == "assistant" else ToolResult | ToolCall
        if any(isinstance(part, foreign) for part in message.parts):
            self.changed = True
            parts = tuple(
                told
                for part in message.parts
                for told in (_told(part) if isinstance(part, foreign) else [part])
            )
            message = msgspec.structs.replace(message, parts=parts)
        if message.role == "assistant" and message.tool_calls:
            message = self._take_calls(message)
        self.messages.append(message)

    def settle(self) -> None:
        """End the results that are under way: give calls without one theirs, then tell what came without a call."""
        left = [call for calls in self._due.values() for call in calls]
        if left:
            results = tuple(ToolResult(call.id, call.name, _NOT_RUN, "not_run") for call in left)
            last = self.messages[-1]
            if last.role == "tool":  # some dialects look for all results of an answer in one message
                self.messages[-1] = msgspec.structs.replace(last, parts=last.parts + results)
            else:
                self.messages.append(Message("tool", results))
        if self._late:
            self.messages.append(Message("user", tuple(self._late)))
        self.changed = self.changed or bool(left or self._late)
        self._due = {}
        self._late = []

    def _take_calls(self, message: Message) -> Message:
        """Note the calls of an answer, and give it with an id for each that has none or one used before."""
        parts: list[Part] = []
        for place, part in enumerate(message.parts):
            call = part
            if isinstance(call, ToolCall):
                theirs = call.id
                if theirs in self._ids:
                    self.changed = True
                    call = msgspec.structs.replace(call, id=f"call_{len(self.messages)}_{place}")
                self._ids.add(call.id)
                self._due.setdefault(theirs, deque()).append(call)
            parts.append(call)
        return msgspec.structs.replace(message, parts=tuple(parts)) if self.changed else message

    def _take_results(self, message: Message) -> None:
        parts: list[Part] = []
        for part in message.parts:
            calls = self._due.get(part.call_id) if isinstance(part, ToolResult) else None
            if calls and isinstance(part, ToolResult):
                call = calls.popleft()
                parts.append(part if part.call_id == call.id else _renamed(part, call))
            else:
                self._late += _told(part)
        if len(parts) < len(message.parts) or not parts or self.changed:
            self.changed = True
            message = msgspec.structs.replace(message, parts=tuple(parts))
        if parts:
            self.messages.append(message)


def _renamed(result: ToolResult, call: ToolCall) -> ToolResult:
    return msgspec.structs.replace(result, call_id=call.id)


def fit_names(message: Message, refused: re.Pattern[str]) -> Message:
    """Give a message with names of tools that a provider takes: models call tools that there are not, by any name.

    O(parts), and nothing is made where all names fit.

    Args:
        message: the message.
        refused: finds each letter that the provider refuses.
    """
    if message.role not in {"assistant", "tool"}:
        return message
    fitting = tuple(_fit_name(part, refused) for part in message.parts)
    if all(new is old for new, old in zip(fitting, message.parts, strict=True)):
        return message
    return msgspec.structs.replace(message, parts=fitting)


def _fit_name(part: Part, refused: re.Pattern[str]) -> Part:
    if not isinstance(part, ToolCall | ToolResult):
        return part
    name = part.name
    if name and not refused.search(name):
        return part
    return msgspec.structs.replace(part, name=refused.sub("_", name) or "unnamed")


def leading_results(messages: MessageView) -> int:
    """Count the messages of results that a view begins with, whose calls have left it. O(1) where there are none."""
    count = 0
    while count < len(messages) and messages[count].role == "tool":
        count += 1
    return count


def unanswered(message: Message) -> Message:
    """Make a user's message of results whose calls are not in view, which providers refuse as results."""
    return Message("user", tuple(told for part in message.parts for told in _told(part)))


def _must_be_text(text: str) -> None:
    """Check text that is encoded outside of a view, which checks what it encodes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise not_text(error) from error


def _told(part: Part) -> list[Part]:
    """Tell of a call or a result as something that anybody can say; other parts stay."""
    if isinstance(part, ToolCall):
        return [Text(f"[call of {part.name} with {part.arguments}]")]
    if not isinstance(part, ToolResult):
        return [part]
    _must_be_text(part.text)
    told: list[Part] = [Text(f"[result of an earlier call of {part.name}]\n{part.text}")]
    if not isinstance(part.content, str):
        told += [item for item in part.content if isinstance(item, Image | Audio | File)]
    return told
