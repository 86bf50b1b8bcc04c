"""What a team's run has come to, read from the run's own records: who asked what, who was called, who answered."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import RunContext
from gossamer.errors import LimitError
from gossamer.messages import Audio, File, Image, Message, Part, Text, ToolCall, ToolResult
from gossamer.records import HandoffRecord, MessageRecord, ToolResultRecord

__all__ = ["Round", "asked", "conversation", "rounds_of", "stopped_members"]

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


async def rounds_of(context: RunContext[Any]) -> list[Round]:
    """Give what was called in a run so far, turn by turn. O(records of the run)."""
    session = context.session
    first: int = session.starts[-1]
    rounds: list[Round] = []
    for record in await session.read(first, session.first + len(session.journal)):
        if isinstance(record, MessageRecord):
            if record.message.role == "assistant" and (calls := record.message.tool_calls):
                rounds.append(Round(calls, {}))
        elif isinstance(record, ToolResultRecord):
            if rounds:
                rounds[-1].results[record.result.call_id] = record.result
        elif isinstance(record, HandoffRecord):  # what was called before was another agent's business
            rounds.clear()
    return rounds


def asked(context: RunContext[Any]) -> list[Message]:
    """Give what the user said in a run, or last in its session where the run began without words. O(records of the run)."""
    session = context.session
    records = session.journal[session.starts[-1] - session.first :]
    said = [
        record.message
        for record in records
        if isinstance(record, MessageRecord) and record.message.role == "user" and not record.repair
    ]
    return said or [one for one in reversed(session.messages) if one.role == "user"][:1]


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
