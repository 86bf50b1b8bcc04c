"""Calls that wait: for an approval, for a person's answer, or for the caller to run the tool.

All three are one mechanism. A run that pauses records what it asks, frees its session and returns; `resume` brings
decisions, here or in another process.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from time import time
from typing import Any, cast

import msgspec
from msgspec.structs import asdict

from gossamer.context import RunContext
from gossamer.errors import EndRun, ResumeError, ToolError
from gossamer.messages import ToolCall, ToolResult
from gossamer.records import (
    Answer,
    ApprovalAskedRecord,
    ApprovalDecidedRecord,
    Approve,
    Decision,
    Deny,
    PendingCall,
    PendingKind,
)
from gossamer.remembered import keys_of
from gossamer.schema import encode_value, words_of
from gossamer.session import Session
from gossamer.tools.execution import ToolTurn
from gossamer.tools.function import Tool
from gossamer.tools.toolset import AgentTool, toolset
from gossamer.turn import OpenTurn

__all__ = ["admit", "ask", "check_inside", "decide", "may_start_at_once"]

_KINDS: dict[str, PendingKind] = {"agent": "approval", "caller": "caller", "person": "question"}


def may_start_at_once(turn: ToolTurn, calls: Sequence[ToolCall]) -> bool:
    """Tell whether no call of a turn that has no past may have to wait, as far as that is known without awaiting.

    A policy is asked once: what it said of a call that may have to wait is kept for `admit`.
    """
    for call in calls:
        tool = turn.tools.get(call.name)
        if tool is None:
            continue
        if tool.needs_approval is not False:
            verdict = _verdict(turn, tool, call)
            if verdict is not False:
                turn.verdicts = {**(turn.verdicts or {}), call.id: verdict}
                return False
        if tool.run_by != "agent" or tool.delegates_to is not None or tool.goes_on is not None:
            return False
    return True


async def admit(turn: ToolTurn, calls: Sequence[ToolCall]) -> list[ToolCall]:
    """Sort the calls of a turn that have no result: which may start now, and which wait.

    Decisions made so far are carried out: denied and answered calls get their result here. After a crash, a call
    that was started may start again only if its tool is idempotent or keeps a journal of its own.

    Args:
        turn: takes the calls that wait, and the results of those decided.
        calls: the calls as the model wrote them; the run has a session.

    Returns:
        Calls to run, with arguments as approved.
    """
    context = turn.context
    journaled: OpenTurn = context.session.turn
    turn.results.update(journaled.results)
    if journaled.ended is not None:
        turn.ended, turn.ended_by = EndRun(journaled.ended.output), journaled.ended.result.call_id
    ready: list[ToolCall] = []
    for call in calls:
        if call.id in journaled.results:
            continue
        tool = turn.tools.get(call.name)
        decision = journaled.decisions.get(call.id)
        asked = journaled.asked.get(call.id)
        if asked is not None and asked.expired:
            decision = Deny("Nobody decided in time.")
        if call.id in journaled.started:
            if tool is not None and _goes_on(tool, context.run_id, call):
                ready.append(_as_decided(call, journaled.shown.get(call.id), decision))
            else:
                words = "The process ended while this tool ran; whether it took effect is unknown."
                turn.finish(call, ToolResult(call.id, call.name, words, "unknown"))
        elif isinstance(decision, Deny):
            _deny(turn, call, decision)
        elif isinstance(decision, Answer):
            result = ToolResult(call.id, call.name, encode_value(decision.value))
            if turn.check_result is not None:
                result = await turn.check_result(context, result)
            turn.finish(call, result)
        elif (
            decision is None
            and tool is not None
            and (tool.needs_approval or tool.run_by != "agent")
            and await _must_wait(turn, tool, call)
        ):
            remembered = _remembered(context, tool, call) if tool.run_by == "agent" else None
            if remembered is None:
                turn.pending.append(asked or _waiting(context, tool, call))
            elif isinstance(remembered, Deny):
                _deny(turn, call, remembered)
            else:
                ready.append(call)
        else:
            ready.append(_as_decided(call, journaled.shown.get(call.id), decision))
    return ready


def _waiting(context: RunContext[Any], tool: Tool[..., Any], call: ToolCall) -> PendingCall:
    expires = None if tool.decide_within is None else time() + tool.decide_within
    return PendingCall(call, _KINDS[tool.run_by], context.run_id, context.agent, tool.fingerprint, expires)


def _deny(turn: ToolTurn, call: ToolCall, decision: Deny) -> None:
    words = f"A person denied this call. {decision.reason}".strip()
    turn.finish(call, ToolResult(call.id, call.name, words, "denied"))


def _remembered(context: RunContext[Any], tool: Tool[..., Any], call: ToolCall) -> Decision | None:
    """Give a decision that holds for a call: one made in this session, or in that of a run around this one."""
    around: RunContext[Any] | None = context
    while around is not None:
        if around.session is not None and around.session.remembered:
            for key in keys_of(context.agent, call, tool.fingerprint):
                kept = around.session.remembered.get(key)
                if kept is not None:
                    return kept[1]
        around = around.parent
    return None


def ask(turn: ToolTurn) -> None:
    """Record the calls that wait, those of inner runs included, unless they have been asked about before."""
    context = turn.context
    asked = context.session.turn.asked
    turn.pending = list({one.call_id: one for one in turn.pending}.values())  # calls may wait for the same
    for pending in turn.pending:
        if pending.call_id not in asked:
            context.session.record(ApprovalAskedRecord(run=context.run_id, pending=pending))


def decide(
    session: Session[Any],
    run_id: str,
    decisions: Mapping[str, Decision],
    tools: Mapping[str, Tool[..., Any]],
) -> None:
    """Record decisions about calls that wait.

    Args:
        session: the session.
        run_id: the run that waits.
        decisions: the decisions, by call id.
        tools: the tools of its agent, by name.

    Raises:
        ResumeError: a call is unknown or not waiting, or a decision does not fit what was asked.
    """
    waiting = {pending.call_id: pending for pending in session.pending}
    for call_id, decision in decisions.items():
        pending = waiting.get(call_id)
        if pending is None:
            known = ", ".join(waiting) or "none"
            raise ResumeError(f"call {call_id!r} does not wait for a decision; waiting: {known}")
        if not isinstance(decision, Approve | Deny | Answer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ResumeError(f"a decision is Approve, Deny or Answer, not {type(decision).__name__}")
        if pending.expired and not isinstance(decision, Deny):
            raise ResumeError(
                f"it is too late to decide about call {call_id!r} of {pending.call.name!r}; resume without a decision "
                "about it, and the model is told"
            )
        if isinstance(decision, Approve) and pending.kind not in {"approval", "outcome"}:
            raise ResumeError(
                f"call {call_id!r} wants an Answer, not an Approve: it is run by the {pending.kind}"
            )
        if isinstance(decision, Answer) and pending.kind == "approval":
            raise ResumeError(f"call {call_id!r} wants Approve or Deny, not an Answer")
        if isinstance(decision, Approve) and not isinstance(decision.args, dict | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ResumeError(f"args of the Approve for {call_id!r} must be a dict, not {decision.args!r}")
        if isinstance(decision, Deny) and not isinstance(decision.reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ResumeError(f"the reason of the Deny for {call_id!r} must be text, not {decision.reason!r}")
        if not isinstance(decision, Answer) and decision.remember not in {None, "tool", "arguments"}:
            raise ResumeError(f"remember must be 'tool', 'arguments' or None, not {decision.remember!r}")
        if not isinstance(decision, Answer) and decision.remember and pending.kind != "approval":
            raise ResumeError(f"call {call_id!r} is a {pending.kind}; only approvals are remembered")
        try:
            msgspec.json.encode(decision)  # it goes into the journal
        except (TypeError, ValueError) as error:
            raise ResumeError(f"the decision about {call_id!r} has no JSON form: {error}") from error
        if pending.run_id != run_id:
            _check_in_tools(tools, pending, decision)
        elif isinstance(decision, Approve) and decision.args is not None:
            _check_arguments(tools.get(pending.call.name), decision.args)
    for call_id, decision in decisions.items():
        session.record(ApprovalDecidedRecord(run=run_id, call_id=call_id, decision=decision))


def check_inside(runnable: Any, pending: PendingCall, decision: Decision) -> None:
    """Check a decision about a call that waits in a run inside, as far as is known from here who runs there.

    Args:
        runnable: what runs inside: an agent, or what stands for one.
        pending: what waits, there or further in.
        decision: what a person decided.

    Raises:
        ResumeError: it does not fit.
    """
    check = getattr(runnable, "check_decision", None)
    if check is not None:
        check(pending, decision)
        return
    agent: Any = getattr(runnable, "agent", runnable)
    tools: Any = getattr(agent, "tools", ())
    if not isinstance(tools, tuple):  # a function gives them, to a run
        return
    by_name = toolset(cast("tuple[AgentTool, ...]", tools)).by_name
    if isinstance(decision, Approve) and decision.args is not None and agent.name == pending.agent:
        _check_arguments(by_name.get(pending.call.name), decision.args)
    _check_in_tools(by_name, pending, decision)


def _check_in_tools(tools: Mapping[str, Tool[..., Any]], pending: PendingCall, decision: Decision) -> None:
    for tool in tools.values():
        if tool.delegates_to is not None:
            check_inside(tool.delegates_to, pending, decision)


def _goes_on(tool: Tool[..., Any], run_id: str, call: ToolCall) -> bool:
    """Whether a call that was started may be started again."""
    return (
        tool.idempotent
        or tool.delegates_to is not None
        or (tool.goes_on is not None and tool.goes_on(run_id, call.id))
    )


def _check_arguments(tool: Tool[..., Any] | None, arguments: dict[str, Any]) -> None:
    """Check the arguments of whoever decided: the model is not to blame for them."""
    if tool is None:
        return
    try:
        tool.decode(msgspec.json.encode(arguments).decode())
    except (ValueError, RecursionError) as error:
        raise ResumeError(
            f"the arguments given for {tool.name!r} do not fit: {error}; it still waits"
        ) from error


async def _must_wait(turn: ToolTurn, tool: Tool[..., Any], call: ToolCall) -> bool:
    if tool.run_by != "agent":
        return True
    verdict = turn.verdicts.pop(call.id, None) if turn.verdicts else None
    if verdict is None:
        verdict = _verdict(turn, tool, call)
    if inspect.isawaitable(verdict):
        try:
            verdict = await verdict
        except Exception as error:
            raise _failed(tool, error) from error
    if not isinstance(verdict, bool):
        raise ToolError(
            f"needs_approval of {tool.name!r} gave {type(verdict).__name__}; it must give True or False"
        )
    return verdict


def _failed(tool: Tool[..., Any], error: Exception) -> ToolError:
    return ToolError(f"needs_approval of {tool.name!r} failed: {type(error).__name__}: {words_of(error)}")


def _verdict(turn: ToolTurn, tool: Tool[..., Any], call: ToolCall) -> Any:
    """Ask a tool whether a call needs approval; its policy may answer with something to await."""
    policy: Any = tool.needs_approval
    if policy is True or policy is False:
        return policy
    try:
        arguments = tool.decode(call.arguments)
    except (ValueError, RecursionError):
        # The call will be handed back to the model for its arguments, unless middleware mends them.
        return bool(turn.interceptions)
    turn.decoded = tool, call.arguments, arguments
    try:
        by_name = asdict(arguments)
    except TypeError:  # a dict already, of a tool whose schema is not ours
        by_name = arguments
    try:
        return policy(**by_name)
    except Exception as error:
        raise _failed(tool, error) from error


def _as_decided(call: ToolCall, shown: ToolCall | None, decision: Decision | None) -> ToolCall:
    """Give a call as it was approved: with the arguments of whoever decided, or with those that they were shown."""
    if not isinstance(decision, Approve):
        return call
    if decision.args is not None:
        return msgspec.structs.replace(call, arguments=msgspec.json.encode(decision.args).decode())
    return shown or call
