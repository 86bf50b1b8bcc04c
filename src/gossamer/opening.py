"""How a run begins: its prompt, its place in the session, its instructions and tools."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from gossamer.approval import decide
from gossamer.closing import say
from gossamer.context import AgentLike, RunContext
from gossamer.errors import ArgumentError, EndRun, GossamerError, ResumeError
from gossamer.fingerprint import warn_of_changes
from gossamer.limits import Budget, Limits
from gossamer.messages import Message, Part, Text, as_parts, check_message
from gossamer.models.base import ModelSettings
from gossamer.records import (
    Decision,
    HandoffRecord,
    MessageRecord,
    RunStartedRecord,
    ToolResultRecord,
    ToolStartedRecord,
)
from gossamer.schema import HostedTool
from gossamer.session import Session
from gossamer.spent import lost
from gossamer.stores.base import check_name
from gossamer.tools.function import Tool, as_tool
from gossamer.tools.reading import reading_tool
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import AgentTool, Toolset, toolset, with_tools
from gossamer.turn import OpenTurn, check_fits
from gossamer.usage import Usage

__all__ = [
    "OnPending",
    "Prompt",
    "Reopened",
    "as_messages",
    "asked_before",
    "budget_for",
    "check_session",
    "decided_by",
    "hear",
    "instructions_of",
    "must_have_a_live_parent",
    "open_run",
    "reopen_run",
    "same_user",
    "settings_over",
    "tools_of",
    "with_reader",
]

Prompt: TypeAlias = str | Message | Sequence[str | Part | Message] | None

# What a run does on a session that is paused: raise RunPausedError, or deny what waits and go on.
OnPending: TypeAlias = Literal["raise", "deny"]


def must_have_a_live_parent(context: RunContext[Any]) -> None:
    """Check that the runs around this one are still under way: a run inside a tool ends with them.

    Raises:
        GossamerError: one has ended.
    """
    around = context.parent
    while around is not None:
        if around.ended or around.stopped is not None:
            raise GossamerError(f"run {around.run_id}, in whose tool this run was started, has ended")
        around = around.parent


def as_messages(prompt: Prompt) -> list[Message]:
    """Turn a prompt into messages: text and parts become one user's message, messages stay as they are.

    Raises:
        ArgumentError: the prompt is empty or of another type.
    """
    if prompt is None:
        return []
    if isinstance(prompt, str):
        if not prompt:
            raise ArgumentError(
                'prompt is ""; leave it out to start from the instructions and the session alone'
            )
        return [Message("user", (Text(prompt),))]
    if isinstance(prompt, Message):
        check_message(prompt)
        return [prompt]
    if not isinstance(prompt, list | tuple):
        raise ArgumentError(
            f"prompt must be str, Message or a list of parts and messages, not {type(prompt).__name__}"
        )
    if not prompt:
        raise ArgumentError("prompt is an empty list; leave it out to start from the instructions alone")
    messages: list[Message] = []
    parts: list[Any] = []
    for item in prompt:
        if isinstance(item, Message):
            if parts:
                messages.append(Message("user", as_parts(tuple(parts))))
                parts = []
            check_message(item)
            messages.append(item)
        else:
            parts.append(item)
    if parts:
        messages.append(Message("user", as_parts(tuple(parts))))
    return messages


def settings_over(base: ModelSettings | None, settings: ModelSettings) -> ModelSettings:
    """Lay the settings of a run over its agent's.

    Raises:
        ArgumentError: they are of another type.
    """
    if not isinstance(settings, ModelSettings):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"settings must be a ModelSettings, not {type(settings).__name__}")
    return settings.over(base)


def check_session(session: Session[Any]) -> None:
    """Check what was passed as a session.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(session, Session):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"session must be a Session, not {type(session).__name__}")


def open_run(
    context: RunContext[Any],
    messages: Sequence[Message],
    on_pending: OnPending,
    mark: str = "",
    retrieved: Message | None = None,
) -> None:
    """Begin a run in its session: close one that broke off, move the window, record start and prompt.

    Args:
        context: the run.
        messages: the prompt.
        on_pending: what to do where the session is paused.
        mark: the fingerprint of the agent, in a session that is kept in a store.
        retrieved: what memories put before it, or None.

    Raises:
        RunPausedError: the session waits for decisions, and `on_pending` is `raise`.
    """
    session = context.session
    if session.unfinished is not None:
        if on_pending == "raise":
            session.must_not_be_paused()
        reason = "the process ended while it ran"
        if session.pending:
            late = all(pending.expired for pending in session.pending)
            reason = "nobody decided in time" if late else "the user went on without deciding"
        session.close_broken_run(reason)
    if context.user is not None and not isinstance(context.user, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"user must be text, not {type(context.user).__name__}")
    if session.store is not None:  # before a model is asked for what cannot be kept
        check_name("the name of an agent", context.agent)
        if context.user:
            check_name("the user of a run", context.user)
    session.trim()
    parent = context.parent
    call = None if parent is None else parent.call
    session.record(
        RunStartedRecord(
            run=context.run_id,
            agent=context.agent,
            parent=None if parent is None else parent.run_id,
            call=None if call is None else call.id,
            user=context.user,
            fingerprint=mark,
        )
    )
    if retrieved is not None:
        session.record(MessageRecord(run=context.run_id, message=retrieved, retrieved=True))
    for message in messages:
        check_fits(message, session.turn)
        session.record(MessageRecord(run=context.run_id, message=message))


async def hear(context: RunContext[Any], guards: Any) -> None:
    """Let a run hear the messages that were put into it.

    Args:
        context: the run.
        guards: what checks the user's words, or None.

    Raises:
        GuardrailError: one of the messages is stopped, and with it the run.
    """
    inbox = context.inbox
    assert inbox is not None
    while inbox:
        message = inbox.popleft()
        if guards is not None:
            message = await guards.steered(context, message)
        say(context, message)


def decided_by(decisions: Mapping[str, Decision] | None) -> dict[str, Decision]:
    """Give the decisions of a resume as a dict of their own.

    Raises:
        ResumeError: they are no mapping of call ids.
    """
    if decisions is not None and not isinstance(decisions, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ResumeError(f"decisions are a dict by call id, not {type(decisions).__name__}")
    return dict(decisions or {})


class Reopened(msgspec.Struct, frozen=True):
    """Where an unfinished run stands.

    Attributes:
        turns: how many model calls it has made.
        message: the answer to go on from: one whose calls have no results yet, or a last one after which nothing was
            recorded. None where the model is to be asked.
        ended: what a tool ended it with, just before its process died; or None.
        ended_by: the id of that tool's call.
        answered: whether a model has answered since the run began, or since another agent took it over.
        handed_over: whether another agent took it over.
    """

    turns: int
    message: Message | None
    ended: EndRun | None
    ended_by: str
    answered: bool
    handed_over: bool


def reopen_run(
    context: RunContext[Any], decisions: Mapping[str, Decision], kit: Toolset, agent: AgentLike
) -> Reopened:
    """Go on with the unfinished run of a session: record the decisions, take over its id and usage.

    An agent that has changed since goes on all the same, and the log tells of it.

    Raises:
        ResumeError: nothing to resume, another agent's run, or decisions that do not fit.
    """
    session = context.session
    if session is None:
        raise ResumeError(
            "there is nothing to resume without a session; pass result.session or one of your own"
        )
    run = _run_to_resume(session, context.agent)
    run_id = run.run
    turn: OpenTurn | None = session.turn
    for call in () if turn is None else turn.calls:
        if turn is not None and call.id in turn.asked and call.name not in kit.by_name:
            raise ResumeError(
                f"call {call.id!r} waits for {call.name!r}, which is no tool of agent {context.agent!r}"
            )
    decide(session, run_id, decisions, kit.by_name)
    warn_of_changes(session.id, run, agent)
    context.run_id = run_id
    turns = 0
    answer: Message | None = None
    ended: EndRun | None = None
    ended_by = ""
    answered = handed_over = False
    started: set[str] = set()
    for record in session.journal:
        if record.run != run_id:
            continue
        if isinstance(record, ToolStartedRecord):
            started.add(record.call_id)
        elif isinstance(record, ToolResultRecord):
            if record.ends_run:
                ended, ended_by = EndRun(record.output), record.result.call_id
        elif isinstance(record, HandoffRecord):
            answered, handed_over = False, True
        elif isinstance(record, MessageRecord):
            ended = None
            speaks = record.message.role == "assistant" and not record.withdrawn
            answer = record.message if speaks else None
            answered = answered or speaks
            if record.usage is not None:
                context.usage += record.usage
                turns += 1
    context.usage += Usage(tool_calls=len(started)) + session.used_inside(started)
    if context.budget is not None:
        own = [record for record in session.journal if record.run == run_id]
        context.budget.count_again(context.usage + lost(own))
    is_open = session.turn is not None or (answer is not None and not answer.tool_calls)
    if session.turn is not None:
        ended = None
    return Reopened(turns, answer if is_open else None, ended, ended_by, answered, handed_over)


def same_user(context: RunContext[Any]) -> None:
    """Let a run that is resumed go on for the user for whom it began: its tools and memories are that user's.

    Raises:
        ResumeError: it is resumed for another one.
    """
    run: RunStartedRecord | None = None if context.session is None else context.session.unfinished
    if run is None:  # which is told with the decisions
        return
    if context.user is not None and context.user != run.user:
        raise ResumeError(
            f"the run was made for user {run.user!r}, not for {context.user!r}; resume it without user, whoever decides"
        )
    context.user = run.user


def asked_before(context: RunContext[Any]) -> list[tuple[int, Message]]:
    """Give what the user has said in a run that is begun, each message behind its place in the journal. O(records)."""
    return [
        (place, record.message)
        for place, record in enumerate(context.session.journal, context.session.first)
        if isinstance(record, MessageRecord)
        and record.run == context.run_id
        and record.message.role == "user"
        and not record.retrieved
    ]


def _run_to_resume(session: Session[Any], agent: str) -> RunStartedRecord:
    run = session.unfinished
    if run is None:
        raise ResumeError(
            f"session {session.id!r} has no unfinished run; it was resumed already, or never paused"
        )
    if agent not in {run.agent, session.answering}:
        raise ResumeError(
            f"session {session.id!r} has an unfinished run of agent {run.agent!r}, not of {agent!r}; "
            "resume it with that agent"
        )
    return run


async def instructions_of(agent: AgentLike, context: RunContext[Any]) -> str | None:
    """Give the system prompt, None where it is empty.

    Raises:
        ArgumentError: a function gave something that is not text.
    """
    text = agent.instructions(context)
    if inspect.isawaitable(text):
        text = await text
    if text is not None and not isinstance(text, str):
        raise ArgumentError(f"instructions of {agent.name!r} gave {type(text).__name__}, not text")
    return text or None


async def tools_of(tools: Any, context: RunContext[Any]) -> Toolset:
    """Give the tools of a run: a sequence of tools and functions, or a function of the context that gives one or a toolset.

    Raises:
        ArgumentError: something that is no tool, or two of one name.
    """
    if callable(tools) and not isinstance(tools, Tool):
        tools = tools(context)
        if inspect.isawaitable(tools):
            tools = await tools
    return tools if isinstance(tools, Toolset) else toolset(as_tools(tools))


def as_tools(tools: Any) -> tuple[AgentTool, ...]:
    """Turn a sequence of tools, toolkits and plain functions into a tuple of tools and toolkits.

    Raises:
        ArgumentError: not a sequence, or an item that cannot be called.
    """
    if isinstance(tools, str | bytes) or not hasattr(tools, "__iter__"):
        raise ArgumentError(
            f"tools must be a list of tools or a function of the context, not {type(tools).__name__}"
        )
    items: list[Any] = list(tools)
    for item in items:
        if hasattr(item, "as_tool"):
            raise ArgumentError(
                f"agent {item.name!r} is no tool; give agent.as_tool(name, description) or handoff(agent, description)"
            )
    return tuple(
        item if item.__class__ in _TOOLS or isinstance(item, Toolkit) else as_tool(item) for item in items
    )


_TOOLS = (Tool, HostedTool)


def with_reader(tools: Toolset) -> Toolset:
    """Add the tool that reads what was kept aside, once something was."""
    return with_tools(tools, (reading_tool(),))


def budget_for(limits: Limits | None, context: RunContext[Any]) -> Budget | None:
    """Give the budget of a run, or None where no limit of the run, of those around it or of its session needs one."""
    outer = None if context.parent is None else context.parent.budget
    session = None if context.session is None else context.session.budget
    if limits is not None and (
        limits.max_tokens is not None or limits.max_cost is not None or limits.max_tool_calls is not None
    ):
        return Budget(limits, outer, session)
    return None if outer is None and session is None else Budget(_NO_LIMITS, outer, session)


_NO_LIMITS = Limits()
