"""How a run of a workflow begins, goes on, pauses and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gossamer.approval import decide
from gossamer.asking import Emit
from gossamer.closing import fail, finish
from gossamer.context import CallPaused
from gossamer.errors import (
    ArgumentError,
    ResumeError,
    SessionError,
    StepInputError,
    StoreError,
    WorkflowChangedError,
    WorkflowCycleError,
    WorkflowError,
)
from gossamer.events import ApprovalNeeded, RunFinished, RunStarted
from gossamer.flow.workflow.answers import check_answer
from gossamer.flow.workflow.execution import Execution, WorkflowContext
from gossamer.flow.workflow.outcome import WorkflowResult, outcome_of, summaries
from gossamer.flow.workflow.past import find_past
from gossamer.flow.workflow.state import Branch
from gossamer.flow.workflow.types import check_of, fits, read, store
from gossamer.ids import new_id
from gossamer.limits import Limits
from gossamer.messages import Message, ToolCall
from gossamer.opening import budget_for, check_session, must_have_a_live_parent
from gossamer.records import (
    ApprovalAskedRecord,
    Decision,
    MessageRecord,
    PendingCall,
    RunStartedRecord,
    StepFinishedRecord,
)
from gossamer.result import Result
from gossamer.session import Session
from gossamer.spent import lost
from gossamer.stores.base import check_name

if TYPE_CHECKING:
    from gossamer.flow.workflow.workflow import Workflow

__all__ = ["execute"]


async def execute(
    workflow: Workflow[Any, Any],
    context: WorkflowContext,
    value: Any,
    limits: Limits | None,
    decisions: Mapping[str, Decision] | None = None,
    emit: Emit | None = None,
) -> WorkflowResult[Any]:
    """Drive one run of a workflow to its end.

    Args:
        workflow: what to run.
        context: the run; made for it, filled in as it goes.
        value: the input.
        limits: what it may use, or None.
        decisions: go on with the session's last run with these, rather than begin one.
        emit: takes events; None where nobody listens.

    Returns:
        The result, also of a run that paused or was stopped by a limit.

    Raises:
        GossamerError: one of its children says what went wrong, and where.
    """
    began = perf_counter()
    if context.session is None and workflow.plan.wants_session and decisions is None:
        context.session = Session()
    session = context.session
    if session is not None and type(session) is not Session:
        check_session(session)
    held: Session[Any] | None = None
    stored = session is not None and session.store is not None
    execution = Execution(workflow, context, emit)
    result: Result[Any]
    try:
        if context.parent is not None:
            _must_not_be_inside(workflow, context)
            must_have_a_live_parent(context)
        if session is not None:
            await session.take(context)
            held = session
        if (
            limits is not None
            or context.parent is not None
            or (session is not None and session.budget is not None)
        ):
            context.budget = budget_for(limits, context)
        if decisions is None:
            value = _taken(workflow, value)
            if session is not None:
                _open(execution, value)
                session.push()
        else:
            value = await _reopen(execution, decisions)
        branch = Branch(_first_state(workflow, session))
        if emit is not None:
            await emit(RunStarted(context.run_id, workflow.name))
        try:
            output = await workflow.plan.root.run(execution, value, "", branch)
        except CallPaused as paused:
            pending = _pause(execution, paused.pending)
            if emit is not None:
                for one in pending:
                    await emit(ApprovalNeeded(one))
            result = finish(context, began, "paused", "", pending=pending)
        else:
            output = workflow.given(output)
            if session is not None:
                _close(execution, branch)
            result = finish(context, began, "stop", "", output)
    except BaseException as error:
        stopped = execution.limit_behind(error)
        if isinstance(error, asyncio.CancelledError):
            stopped = context.stopped
        if stopped is None:
            if isinstance(error, WorkflowError):
                error.steps = summaries(workflow.plan.places, execution.tally)
            fail(context, error)
            if held is not None and stored and not isinstance(error, GeneratorExit):
                let_go, held = held, None
                let_go.release()
                with suppress(
                    StoreError, SessionError
                ):  # told in the log; it is the run's error that is raised
                    await let_go.settle()
            raise
        result = finish(context, began, "limit", "", stopped=stopped.with_traceback(None))
    finally:
        if held is not None:
            held.release()
    if session is not None:
        await session.settle()
    outcome = outcome_of(result, workflow.plan.places, execution.tally)
    if emit is not None:
        await emit(RunFinished(outcome))
    return outcome


def _must_not_be_inside(workflow: Workflow[Any, Any], context: WorkflowContext) -> None:
    around: Any = context.parent
    while around is not None:
        if getattr(around, "workflow", None) is workflow:
            call = context.parent.call if context.parent is not None else None
            place = "" if call is None else call.id
            raise WorkflowCycleError(
                f"workflow {workflow.name!r} is run inside of itself, in step {place!r}", place=place
            )
        around = around.parent


def _taken(workflow: Workflow[Any, Any], value: Any) -> Any:
    check = check_of(workflow.plan.takes)
    if check is None:
        return value
    try:
        return check(value)
    except ValueError as error:
        if fits(str, workflow.plan.takes) and (words := _words_of(value)):
            return words
        raise StepInputError(f"workflow {workflow.name!r} cannot take its input: {error}") from error


def _words_of(value: Any) -> str:
    """Give the text of messages, as whoever runs agents asks with them; "" where it is something else."""
    messages = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(one, Message) for one in messages):
        return ""
    return "\n\n".join(one.text for one in messages)


# --- begin --------------------------------------------------------------------------------------------------


def _open(execution: Execution, value: Any) -> None:
    """Begin a run in its session: close one that broke off, record start and input."""
    context, session = execution.context, execution.session
    assert session is not None, "a run without a session is not recorded"
    if session.unfinished is not None:
        session.must_not_be_paused()
        session.close_broken_run("the process ended while it ran")
    if context.user is not None and not isinstance(context.user, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"user must be text, not {type(context.user).__name__}")
    if context.user and execution.stored:  # before a step runs for what cannot be kept
        check_name("the user of a run", context.user)
    session.trim()
    try:
        data = store(value, execution.workflow.plan.takes)
    except ValueError as error:
        if execution.stored:
            raise StepInputError(f"the input of workflow {context.agent!r}: {error}") from error
        data = value
    _record_start(execution)
    session.record(StepFinishedRecord(run=context.run_id, step="", output=data))


def _record_start(execution: Execution) -> None:
    context, session = execution.context, execution.session
    assert session is not None, "a run without a session is not recorded"
    parent = context.parent
    session.record(
        RunStartedRecord(
            run=context.run_id,
            agent=context.agent,
            parent=parent.run_id if parent is not None else None,
            call=parent.call.id if parent is not None and parent.call is not None else None,
            user=context.user,
            fingerprint=execution.workflow.plan.fingerprint,
        )
    )


def _first_state(workflow: Workflow[Any, Any], session: Session[Any] | None) -> Any:
    """Give the state that a run begins with: the session's, in the type of the workflow's."""
    example = workflow.state
    kind: Any = example.__class__
    kept: Any = None if session is None else session.state
    if kept is None:
        return {} if example is None else example
    if example is None or type(kept) is kind:
        return kept
    try:
        plain: dict[str, Any] = msgspec.to_builtins(kept)
        if kind is dict:
            return plain
        fields: dict[str, Any] = msgspec.to_builtins(example)
        return read({**fields, **plain}, kind)
    except (TypeError, ValueError) as error:
        raise StepInputError(
            f"the session's state does not fit that of workflow {workflow.name!r}, {kind.__name__}: {error}"
        ) from error


# --- go on --------------------------------------------------------------------------------------------------


async def _reopen(execution: Execution, decisions: Mapping[str, Decision]) -> Any:
    """Go on with a run: record the decisions, take over its id and what it used, give its input.

    Raises:
        ResumeError: there is none, it is another's, or a decision does not fit.
        WorkflowChangedError: the workflow is not the one that began it.
    """
    context, session, workflow = execution.context, execution.session, execution.workflow
    if session is None:
        raise ResumeError(
            "there is nothing to resume without a session; pass result.session or one of your own"
        )
    past = await find_past(session, context)
    if past.run.fingerprint != workflow.plan.fingerprint:
        raise WorkflowChangedError(
            f"workflow {workflow.name!r} has been changed since run {past.run.run} began: its steps, their names or "
            "types are not the same; resume it as it was, or begin a new run in the session with run(…)"
        )
    for pending in session.pending:
        if pending.call_id in decisions:
            check_answer(workflow.name, workflow.plan, pending, decisions[pending.call_id], past.run.run)
    decide(session, past.run.run, decisions, {})
    if session.turn is not None:
        past.decisions, past.asked = session.turn.decisions, session.turn.asked
    context.run_id = past.run.run
    if session.unfinished is None:
        _record_start(execution)
        session.push()
    calls = past.present | {f"{place}#{n}" for place in past.present for n in range(2, past.begun[place] + 1)}
    context.usage += session.used_inside(calls)
    if context.budget is not None:
        own = [record for record in session.journal if record.run == context.run_id]
        context.budget.count_again(context.usage + lost(own))
    execution.past = past
    execution.careful = True
    kept = past.finished.pop("", None)
    if kept is None:
        raise WorkflowChangedError(
            f"run {past.run.run} has no input in the journal; begin a new one with run(…)"
        )
    try:
        return read(kept.output, workflow.plan.takes)
    except ValueError as error:
        raise WorkflowChangedError(
            f"the input of run {past.run.run} does not fit workflow {workflow.name!r} any more: {error}"
        ) from error


# --- pause and end ------------------------------------------------------------------------------------------


def _pause(execution: Execution, pending: tuple[PendingCall, ...]) -> tuple[PendingCall, ...]:
    """Record what waits: a turn with one call, the workflow's, that stays open until the run ends."""
    context, session = execution.context, execution.session
    assert session is not None, "a run whose steps may wait has a session"
    pending = tuple({one.call_id: one for one in pending}.values())
    if session.turn is None:
        call = ToolCall(context.agent, "{}", new_id())
        session.record(MessageRecord(run=context.run_id, message=Message("assistant", (call,))))
    assert session.turn is not None, "a message with a call opens a turn"
    asked = session.turn.asked
    for one in pending:
        if one.call_id not in asked:
            session.record(ApprovalAskedRecord(run=context.run_id, pending=one))
    return pending


def _close(execution: Execution, branch: Branch) -> None:
    """Before the end: the session has the state. A turn that was open for a pause closes with the run."""
    session = execution.session
    assert session is not None, "a run without a session is not recorded"
    if branch.changed:
        try:
            session.update(branch.stored(branch.changed))
        except (ValueError, TypeError):
            if execution.stored:
                raise
