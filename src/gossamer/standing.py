"""Where a conversation stands: what the records of a journal come to, one after the other, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gossamer.messages import Message, ToolResult
from gossamer.records import (
    ApprovalAskedRecord,
    ApprovalDecidedRecord,
    ApprovalsForgottenRecord,
    HandoffRecord,
    MessageRecord,
    OffloadedRecord,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    StateRecord,
    ToolkitSwitchedRecord,
    ToolResultRecord,
    ToolStartedRecord,
    ViewMovedRecord,
)
from gossamer.remembered import Remembered, RememberedKey, to_remember
from gossamer.session_data import merge_state
from gossamer.turn import OpenTurn
from gossamer.usage import Usage
from gossamer.view import View

__all__ = ["Standing"]

_MAX_HANDOFFS = 1000
_MAX_STARTS = 1000
_MAX_ASIDE = 10_000
_NONE_SWITCHED: Mapping[str, bool] = {}
_NONE_REMEMBERED: Mapping[RememberedKey, Remembered] = {}


class Standing(msgspec.Struct, eq=False):
    """What a session's records come to; each record acts on it in one place, `take`, live and whenever it is read again.

    Attributes:
        view: what the model sees.
        state: what tools remember.
        merge: see `Session`.
        turn: the turn whose calls have not all come to a result, or None.
        run: the run that neither finished nor failed, or None.
        handoffs: places in the journal, and to whom was handed over there.
        switches: the toolkits that were switched, by name.
        remembered: the decisions that hold for the rest of the session, with their places.
        aside: the places of the last 10,000 texts that were kept aside, by reference.
        starts: the places where the last 1,000 runs started.
        used: what the runs used whose records are not in memory any more.
        lost: what their calls could have used at most whose use nobody counted.
    """

    view: View
    state: Any = None
    merge: Callable[[Any, dict[str, Any]], Any] | None = None
    turn: OpenTurn | None = None
    run: RunStartedRecord | None = None
    handoffs: tuple[tuple[int, str], ...] = ()
    switches: Mapping[str, bool] = _NONE_SWITCHED
    remembered: Mapping[RememberedKey, Remembered] = _NONE_REMEMBERED
    aside: dict[str, int] = {}
    starts: list[int] = []
    used: Usage = Usage()
    lost: Usage = Usage()

    def take(self, record: Record, place: int) -> None:
        """Let a record act.

        Cost: O(1), but for records that move the view.

        Args:
            record: the record.
            place: its place in the journal.
        """
        act = _ACTS.get(record.__class__)
        if act is not None:
            act(self, record, place)


# --- what is said -----------------------------------------------------------------------------------------


def _say(standing: Standing, record: MessageRecord, place: int) -> None:
    if record.withdrawn:
        return
    message = record.message
    calls = message.tool_calls if message.role == "assistant" else ()
    if calls:  # enters the view together with its results
        standing.turn = OpenTurn(message, place, calls, set(), {}, {}, {})
    elif message.role == "tool" and standing.turn is not None:  # history: results of the calls before them
        for part in message.parts:
            if isinstance(part, ToolResult):
                _take_result(standing, part, message.created, place)
    else:
        standing.view.append(message, place, place)


def _result(standing: Standing, record: ToolResultRecord, place: int) -> None:
    if record.ends_run and standing.turn is not None:
        standing.turn.ended = record
    _take_result(standing, record.result, record.at, place)


def _take_result(standing: Standing, result: ToolResult, at: float, place: int) -> None:
    turn = standing.turn
    if turn is not None and turn.take(result):
        standing.view.append(turn.message, turn.place, turn.place)
        standing.view.append(Message("tool", turn.in_order(), None, at), turn.place, place)
        standing.turn = None


def _move_view(standing: Standing, record: ViewMovedRecord, _: int) -> None:
    begin = record.begin
    standing.view.replace(begin, record.end, record.insert)
    if record.reason == "rewind":  # what was said there of who answers and what is allowed
        standing.handoffs = tuple(one for one in standing.handoffs if one[0] < begin)
        standing.remembered = {key: kept for key, kept in standing.remembered.items() if kept[0] < begin}
        if standing.turn is not None and standing.turn.place >= begin:
            standing.turn = None


# --- runs -------------------------------------------------------------------------------------------------


def _start(standing: Standing, record: RunStartedRecord, place: int) -> None:
    standing.run = record
    standing.starts.append(place)
    if len(standing.starts) > 2 * _MAX_STARTS:
        del standing.starts[:-_MAX_STARTS]


def _end(standing: Standing, _record: RunFinishedRecord | RunFailedRecord, _place: int) -> None:
    standing.run = None
    standing.turn = None


def _tool_starts(standing: Standing, record: ToolStartedRecord, _: int) -> None:
    if standing.turn is not None:
        standing.turn.started.add(record.call_id)


def _ask(standing: Standing, record: ApprovalAskedRecord, _: int) -> None:
    if standing.turn is not None:
        standing.turn.asked[record.pending.call_id] = record.pending


def _decide(standing: Standing, record: ApprovalDecidedRecord, place: int) -> None:
    turn = standing.turn
    if turn is None:
        return
    asked = turn.asked.pop(record.call_id, None)
    turn.decisions[record.call_id] = record.decision
    if asked is not None:
        turn.shown[record.call_id] = asked.call
        if (key := to_remember(asked, record.decision)) is not None:
            standing.remembered = {**standing.remembered, key: (place, record.decision)}


# --- what lasts -------------------------------------------------------------------------------------------


def _merge_state(standing: Standing, record: StateRecord, _: int) -> None:
    standing.state = merge_state(standing.state, record.patch, standing.merge)


def _hand_over(standing: Standing, record: HandoffRecord, place: int) -> None:
    standing.handoffs = (*standing.handoffs[-_MAX_HANDOFFS:], (place, record.to))


def _switch(standing: Standing, record: ToolkitSwitchedRecord, _: int) -> None:
    standing.switches = {**standing.switches, record.toolkit: record.on}


def _forget_approvals(standing: Standing, _record: ApprovalsForgottenRecord, _place: int) -> None:
    standing.remembered = _NONE_REMEMBERED


def _keep_aside(standing: Standing, record: OffloadedRecord, place: int) -> None:
    standing.aside[record.reference] = place
    if len(standing.aside) > _MAX_ASIDE:
        del standing.aside[next(iter(standing.aside))]


_ACTS: dict[type, Callable[[Standing, Any, int], None]] = {
    MessageRecord: _say,
    ToolResultRecord: _result,
    ToolStartedRecord: _tool_starts,
    RunStartedRecord: _start,
    RunFinishedRecord: _end,
    RunFailedRecord: _end,
    ViewMovedRecord: _move_view,
    StateRecord: _merge_state,
    HandoffRecord: _hand_over,
    ApprovalAskedRecord: _ask,
    ApprovalDecidedRecord: _decide,
    ToolkitSwitchedRecord: _switch,
    ApprovalsForgottenRecord: _forget_approvals,
    OffloadedRecord: _keep_aside,
}
