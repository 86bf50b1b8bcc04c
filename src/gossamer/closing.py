"""What a run leaves: its messages as they come, its result at the end, a whole session after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec

from gossamer.context import RunContext
from gossamer.errors import LimitError
from gossamer.messages import Message, Text, ToolCall, ToolResult
from gossamer.records import MessageRecord, PendingCall, RunFailedRecord, RunFinishedRecord, ViewMovedRecord
from gossamer.result import Result, RunFinishReason
from gossamer.schema import stored_value, words_of
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.usage import Usage
from gossamer.view import MessageView

NO_RESULTS: Mapping[str, ToolResult] = {}

__all__ = [
    "fail",
    "finish",
    "leave_whole",
    "say",
    "say_results",
    "stopped_outside",
    "withdraw",
    "withhold_result",
]


def say(
    context: RunContext[Any], message: Message, usage: Usage | None = None, *, repair: bool = False
) -> None:
    """Add a message to the run, and to its session's journal; see `MessageRecord`."""
    context.new.append(message)
    if context.session is not None:
        record = MessageRecord(run=context.run_id, message=message, usage=usage, repair=repair)
        context.session.record(record)


def say_results(
    context: RunContext[Any], calls: Sequence[ToolCall], results: Mapping[str, ToolResult]
) -> None:
    """Add the results of a turn as one message; a session has made it of its records already."""
    if context.session is not None:
        context.new.append(context.session.messages[-1])
    else:
        one = len(calls) == 1
        parts = tuple(results.values()) if one else tuple([results[call.id] for call in calls])
        context.new.append(Message("tool", parts))


def withdraw(context: RunContext[Any], message: Message, usage: Usage) -> None:
    """Keep an answer that a guardrail stopped in the journal, and out of the view."""
    session = context.session
    if session is None:
        return
    text = Message("assistant", (Text(message.text),), message.author, message.created)
    session.record(MessageRecord(run=context.run_id, message=text, usage=usage, withdrawn=True))


def withhold_result(context: RunContext[Any], call_id: str, words: str) -> None:
    """Let other words stand in the view for the result of a call in the last turn; the journal keeps it."""
    session = context.session
    if session is None:
        return
    place = max(
        place
        for place, record in enumerate(session.journal, session.first)
        if isinstance(record, MessageRecord) and record.message.tool_calls
    )
    asking, results = session.messages[-2], session.messages[-1]
    parts = tuple(
        msgspec.structs.replace(part, content=words, outcome="error") if part.call_id == call_id else part
        for part in results.parts
        if isinstance(part, ToolResult)
    )
    insert = (asking, msgspec.structs.replace(results, parts=parts))
    session.record(
        ViewMovedRecord(run=context.run_id, reason="guardrail", begin=place, end=place + 1, insert=insert)
    )


def finish(
    context: RunContext[Any],
    began: float,
    reason: RunFinishReason,
    answered_by: str,
    value: Any = None,
    *,
    pending: tuple[PendingCall, ...] = (),
    stopped: LimitError | None = None,
) -> Result[Any]:
    """End a run that did not fail: record it, measure it, and give its result."""
    session = context.session
    if session is not None and not _is_open(context):  # time ran out while the run waited for it
        session = None
    if session is not None and not pending:
        record = RunFinishedRecord(
            run=context.run_id, finish_reason=reason, usage=context.usage, output=stored_value(value)
        )
        if stopped is None:
            session.record(record)
        else:
            session.end_run(record)
    context.ended = True
    if context.parent is not None:
        context.parent.usage += context.usage
    duration = perf_counter() - began
    if metrics.recorder is not None:
        metrics.recorder.run_finished(context.agent, reason, duration)
    return Result(
        value,
        MessageView(context.new, 0, len(context.new), context.bodies)
        if session is None
        else session.messages,
        context.run_id,
        context.usage,
        reason,
        answered_by,
        duration,
        context.session,
        context.new,
        pending,
        stopped,
        context.agent,
    )


def leave_whole(
    context: RunContext[Any], heard: list[str], results: Mapping[str, ToolResult] = NO_RESULTS
) -> None:
    """After a failure: keep the text that was finished, and give every call a result that says what became of it."""
    session = context.session
    if session is None:
        _complete(context.new, heard, results)
        return
    if not _is_open(context):
        return
    if heard:
        message = Message("assistant", (Text("".join(heard)),))
        context.new.append(message)
        session.record(MessageRecord(run=context.run_id, message=message, interrupted=True))
    session.close_turn(context.run_id, "the run was stopped")


def stopped_outside(context: RunContext[Any]) -> Result[Any]:
    """Give the result of a run whose time ran out outside its loop, in middleware around it."""
    messages = MessageView(context.new, 0, len(context.new), context.bodies)
    return Result(
        None,
        messages,
        context.run_id,
        context.usage,
        "limit",
        "",
        0.0,
        context.session,
        context.new,
        (),
        context.stopped,
        context.agent,
    )


def _complete(new: list[Message], heard: list[str], results: Mapping[str, ToolResult]) -> None:
    """Do for the messages of a run without a session what the journal does for those of one."""
    if heard:
        new.append(Message("assistant", (Text("".join(heard)),)))
    calls = new[-1].tool_calls if new and new[-1].role == "assistant" else ()
    if calls:
        words = "The outcome is unknown: the run was stopped."
        parts = [results.get(call.id) or ToolResult(call.id, call.name, words, "unknown") for call in calls]
        new.append(Message("tool", tuple(parts)))


def fail(context: RunContext[Any], error: BaseException) -> None:
    """Record and count the failure of a run."""
    if context.parent is not None:
        context.parent.usage += context.usage
    context.ended = True
    cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
    if not cancelled:
        logger.warning(
            "run %s of %s failed: %s: %s",
            context.run_id,
            context.agent,
            type(error).__name__,
            words_of(error),
        )
    kind = "Cancelled" if cancelled else type(error).__name__
    if metrics.recorder is not None:
        metrics.recorder.run_failed(kind)
    if _is_open(context):
        record = RunFailedRecord(run=context.run_id, error=kind, message=words_of(error), usage=context.usage)
        context.session.end_run(record)


def _is_open(context: RunContext[Any]) -> bool:
    """Whether this very run is the one that is open in its session: a refused run must not touch another's."""
    session = context.session
    return session is not None and session.holding.holder is context and session.is_open(context.run_id)
