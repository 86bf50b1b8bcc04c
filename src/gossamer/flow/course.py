"""What a team's run has come to, read from the run's own records: who asked what, who was called, who answered."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import RunContext
from gossamer.errors import LimitError
from gossamer.messages import Audio, File, Image, Message, Part, Text, ToolCall, ToolResult
from gossamer.records import HandoffRecord, MessageRecord, Record, ToolResultRecord

__all__ = ["Course", "Round", "asked", "conversation", "course_of", "stopped_members"]

# Messages of the conversation that a member sees where the context is shared; older ones are left out.
_MOST_SHARED = 100

_SAID = (Text, Image, Audio, File)


# The limits of runs that have stopped members of theirs.
stopped_members: WeakKeyDictionary[RunContext[Any], LimitError] = WeakKeyDictionary()


class Round(msgspec.Struct, eq=False):
    """The calls that were made together, and their results by call id."""

    calls: tuple[ToolCall, ...]
    results: dict[str, ToolResult]

    @property
    def is_over(self) -> bool:
        """Whether each call has its result."""
        return len(self.results) == len(self.calls)

    def result(self, tool: str) -> ToolResult | None:
        """Give the result of a tool in this round; None where it has none, or was not called."""
        return next((self.results.get(call.id) for call in self.calls if call.name == tool), None)


class Course(msgspec.Struct, eq=False):
    """A run so far.

    Attributes:
        asked: what the user said in it.
        rounds: what was called, turn by turn.
    """

    asked: list[Message]
    rounds: list[Round]


async def course_of(context: RunContext[Any]) -> Course:
    """Read a run's records. O(records of the run)."""
    course = Course([], [])
    for record in await _records(context):
        if isinstance(record, MessageRecord):
            message = record.message
            if message.role == "user" and not record.repair:
                course.asked.append(message)
            elif message.role == "assistant" and (calls := message.tool_calls):
                course.rounds.append(Round(calls, {}))
        elif isinstance(record, ToolResultRecord):
            if course.rounds:
                course.rounds[-1].results[record.result.call_id] = record.result
        elif isinstance(record, HandoffRecord):  # what was called before was another agent's business
            course.rounds.clear()
    return course


def asked(context: RunContext[Any]) -> list[Message]:
    """Give what the user said at the beginning of a run, or last in its session where the run began without words."""
    said: list[Message] = []
    session = context.session
    first = session.starts[-1]
    for record in session.journal[first - session.first :] if first >= session.first else ():
        if isinstance(record, MessageRecord):
            if record.message.role != "user":
                break
            said.append(record.message)
    if not said:
        said += [one for one in reversed(session.messages) if one.role == "user"][:1]
    return said


def conversation(context: RunContext[Any]) -> list[Message]:
    """Give what was said in a session, the last 100 messages of it, from a user's on: no tools, no thinking."""
    said = [
        plain
        for message in context.session.messages
        if message.role in {"user", "assistant"} and (plain := _plain(message)) is not None
    ][-_MOST_SHARED:]
    while said and said[0].role != "user":
        del said[0]
    return said


async def _records(context: RunContext[Any]) -> list[Record]:
    session = context.session
    first: int = session.starts[-1]
    return await session.read(first, first + session.first + len(session.journal))


def _plain(message: Message) -> Message | None:
    parts: tuple[Part, ...] = tuple(part for part in message.parts if isinstance(part, _SAID))
    return Message(message.role, parts, message.author, message.created) if parts else None
