"""What a team's run has come to, read from the run's own records: who asked what, who was called, who answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import RunContext
from gossamer.errors import LimitError
from gossamer.messages import Audio, File, Image, Message, Part, Text, ToolResult
from gossamer.records import HandoffRecord, MessageRecord, ToolResultRecord
from gossamer.session import Session

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
        said: what the user said in the run.
        heard: the place in the journal up to which that is known.
        rounds: what was called in the run so far, turn by turn.
        read: the place in the journal up to which the rounds are read.
    """

    asked: list[Message]
    prompt: str | list[Message]
    stopped: LimitError | None = None
    said: list[Message] = []
    heard: int = 0
    rounds: list[Round] = []
    read: int = 0


# Of the runs under way in this process; read anew from the records where it is not there.
_courses: WeakKeyDictionary[RunContext[Any], Course] = WeakKeyDictionary()


def course_of(context: RunContext[Any], *, anew: bool = False) -> Course:
    """Give the course of a run. O(1), or where it is read anew O(records since).

    Args:
        context: the run.
        anew: take in what was said since.
    """
    course = _courses.get(context)
    if course is None or anew:
        if course is None:
            start = context.session.starts[-1]
            course = _courses[context] = Course([], "", heard=start, read=start)
        _hear(course, context.session)
    return course


def _shortest(asked: list[Message]) -> str | list[Message]:
    if len(asked) == 1 and len(asked[0].parts) == 1:
        part = asked[0].parts[0]
        if type(part) is Text and part.text and asked[0].author is None:
            return part.text
    return asked


def _hear(course: Course, session: Session[Any]) -> None:
    """Take in what the user has said since."""
    begin, course.heard = course.heard, session.first + len(session.journal)
    said = [
        record.message
        for record in session.journal[max(begin - session.first, 0) :]
        if isinstance(record, MessageRecord) and record.message.role == "user" and not record.repair
    ]
    if said:
        course.said += said
        course.asked = course.said
    elif not course.said:
        course.asked = [one for one in reversed(session.messages) if one.role == "user"][:1]
    course.prompt = _shortest(course.asked)


async def rounds_of(context: RunContext[Any]) -> list[Round]:
    """Give what was called in a run so far, turn by turn. O(records since it was asked last)."""
    session = context.session
    course = course_of(context)
    rounds = course.rounds
    while (begin := course.read) < (end := session.first + len(session.journal)):
        records = await session.read(begin, end)
        if course.read == begin:  # and nobody has taken them meanwhile
            course.read = end
            _take(rounds, records)
    return rounds


def _take(rounds: list[Round], records: Sequence[Any]) -> None:
    for record in records:
        kind: Any = record.__class__
        if kind is MessageRecord:
            if record.message.role == "assistant" and (calls := record.message.tool_calls):
                rounds.append(Round({call.name: call.id for call in calls}, {}))
        elif kind is ToolResultRecord:
            if rounds:
                rounds[-1].results[record.result.call_id] = record.result
        elif kind is HandoffRecord:  # what was called before was another agent's business
            rounds.clear()


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
