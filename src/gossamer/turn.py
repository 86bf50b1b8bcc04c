"""A turn whose calls have not all come to a result: what a session knows of it."""

from __future__ import annotations

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Message, ToolCall, ToolResult, check_message
from gossamer.records import Decision, PendingCall, ToolResultRecord

__all__ = ["OpenTurn", "check_fits"]


class OpenTurn(msgspec.Struct, eq=False):
    """The calls of an answer while some of them have no result yet.

    Attributes:
        message: the answer that holds the calls.
        place: its place in the journal.
        calls: the calls, in order.
        started: ids of those that began.
        results: results by call id.
        asked: calls that wait for a decision, by id.
        decisions: decisions made, by call id.
        shown: decided calls as they were shown to whoever decided, by id.
        ended: the record of the result with which a tool ended the run, or None.
        ids: those of the calls, once a result has come.
    """

    message: Message
    place: int
    calls: tuple[ToolCall, ...]
    started: set[str]
    results: dict[str, ToolResult]
    asked: dict[str, PendingCall]
    decisions: dict[str, Decision]
    shown: dict[str, ToolCall] = {}
    ended: ToolResultRecord | None = None
    ids: frozenset[str] | None = None

    def take(self, result: ToolResult) -> bool:
        """Take the result of a call, its first one; tells whether all calls have theirs.

        One of a tool that outlived its turn is none of this turn's.
        """
        if self.ids is None:
            self.ids = frozenset([call.id for call in self.calls])
        if result.call_id not in self.ids:
            return False
        self.results.setdefault(result.call_id, result)
        return len(self.results) == len(self.calls)

    def in_order(self) -> tuple[ToolResult, ...]:
        """Give the results in the order of the calls, once all are there."""
        return tuple(self.results[call.id] for call in self.calls)

    def close(self, reason: str) -> list[ToolResult]:
        """Give the results of the calls that will not come to one, each saying what became of it."""
        results: list[ToolResult] = []
        for call in self.calls:
            if call.id in self.results:
                continue
            if call.id in self.started:
                result = ToolResult(call.id, call.name, f"The outcome is unknown: {reason}.", "unknown")
            elif call.id in self.asked:
                result = ToolResult(call.id, call.name, f"Not approved: {reason}.", "denied")
            else:
                result = ToolResult(call.id, call.name, f"Not run: {reason}.", "not_run")
            results.append(result)
        return results


def check_fits(message: Message, turn: OpenTurn | None) -> None:
    """Refuse a message that would leave a call without its result in the view, or a result without its call.

    Raises:
        ArgumentError: results are due and it is something else, or none are due and it brings some.
    """
    check_message(message)
    due: set[str] = set() if turn is None else {call.id for call in turn.calls}
    given = {part.call_id for part in message.parts if isinstance(part, ToolResult)}
    if given != due:
        raise ArgumentError(
            f"results are due for calls {sorted(due)} and the message has those of {sorted(given)}; "
            "add each answer with calls and then one tool message with all their results"
        )
