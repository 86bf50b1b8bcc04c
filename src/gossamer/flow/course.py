"""What a team's run has come to, read from the run's own records: who asked what, who was called, who answered."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import RunContext
from gossamer.errors import LimitError
from gossamer.messages import Audio, File, Image, Message, Part, Text, ToolResult
from gossamer.records import HandoffRecord, MessageRecord, ToolResultRecord

__all__ = ["Course", "Round", "conversation", "course_of", "rounds_of"]

# Messages of the conversation that a member sees where the context is shared; older ones are left out.
_MOST_SHARED = 100

_SAID = (Text, Image, Audio, File)


class Round(msgspec.Struct, eq=False):
    """The calls that were made together.

    Attributes:
        calls: the ids of the calls, by the name of the tool.
        results: their results so far, by call id.
    """

    calls: dict[str, str]
    results: dict[str, ToolResult]

    @property
    def is_over(self) -> bool:
        """Whether each call has its result."""
        return len(self.results) == len(self.calls)

    def result(self, tool: str) -> ToolResult | None:
        """Give the result of a tool in this round; None where it has none, or was not called."""
        return self.results.get(self.calls.get(tool, ""))


class Course(msgspec.Struct, eq=False):
    """What all calls of a turn have in common.

    Attributes:
        asked: what the user said in the run, or last in its session where the run began without words.
        prompt: the same as a prompt, text alone where it is no more than that.
        stopped: the limit of the run that has stopped a member, or None.
    """

    asked: list[Message]
    prompt: str | list[Message]
    stopped: LimitError | None = None


# Of the runs under way in this process; read anew from the records where it is not there.
_courses: WeakKeyDictionary[RunContext[Any], Course] = WeakKeyDictionary()


def course_of(context: RunContext[Any], *, anew: bool = False) -> Course:
    """Give the course of a run. O(1), but for the first time in a turn: O(records of the run).

    Args:
        context: the run.
        anew: read the records again.
    """
    course = _courses.get(context)
    if course is None or anew:
        stopped = None if course is None else course.stopped
        asked = _asked(context)
        course = _courses[context] = Course(asked, _shortest(asked), stopped)
    return course


def _shortest(asked: list[Message]) -> str | list[Message]:
    if len(asked) == 1 and len(asked[0].parts) == 1:
        part = asked[0].parts[0]
        if type(part) is Text and part.text and asked[0].author is None:
            return part.text
    return asked


def _asked(context: RunContext[Any]) -> list[Message]:
    session = context.session
    records = session.journal[session.starts[-1] - session.first :]
    said = [
        record.message
        for record in records
        if isinstance(record, MessageRecord) and record.message.role == "user" and not record.repair
    ]
    return said or [one for one in reversed(session.messages) if one.role == "user"][:1]


async def rounds_of(context: RunContext[Any]) -> list[Round]:
    """Give what was called in a run so far, turn by turn. O(records of the run)."""
    session = context.session
    first: int = session.starts[-1]
    rounds: list[Round] = []
    for record in await session.read(first, session.first + len(session.journal)):
        kind: Any = record.__class__
        if kind is MessageRecord:
            if record.message.role == "assistant" and (calls := record.message.tool_calls):
                rounds.append(Round({call.name: call.id for call in calls}, {}))
        elif kind is ToolResultRecord:
            if rounds:
                rounds[-1].results[record.result.call_id] = record.result
        elif kind is HandoffRecord:  # what was called before was another agent's business
            rounds.clear()
    return rounds


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


def _plain(message: Message) -> Message | None:
    parts: tuple[Part, ...] = tuple(part for part in message.parts if isinstance(part, _SAID))
    return Message(message.role, parts, message.author, message.created) if parts else None
