"""An agent as a tool of another: the inner run keeps its own journal and is resumed, not repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gossamer.context import CallPaused, RunContext, current_call
from gossamer.errors import GossamerError, NestingError, ToolError
from gossamer.events import InnerEvent
from gossamer.inner import again
from gossamer.messages import ToolCall
from gossamer.records import Decision, MessageRecord, RunFailedRecord, RunFinishedRecord
from gossamer.result import Result
from gossamer.session import Session
from gossamer.tools.function import Tool, tool

if TYPE_CHECKING:
    from gossamer.stream import RunStream

__all__ = ["Ended", "Runnable", "asking_for", "delegate", "delegation", "delegation_of", "run_inside"]

# How deep runs may be inside one another; what goes deeper goes round in a circle.
_MOST_NESTED = 16


class Runnable(Protocol):
    """What runs and resumes: an `Agent`, a `Team`, and whatever else is to stand where one does."""

    @property
    def name(self) -> str:
        """Tells it apart in sessions, metrics and streams."""
        ...

    def run(
        self,
        prompt: Any = None,
        /,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
    ) -> Awaitable[Result[Any]]:
        """Run to the end."""
        ...

    def stream(
        self,
        prompt: Any = None,
        /,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
    ) -> RunStream[Any]:
        """Run and read the events as they come."""
        ...

    def resume(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
    ) -> Awaitable[Result[Any]]:
        """Go on with an unfinished run."""
        ...

    def resume_stream(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
    ) -> RunStream[Any]:
        """Go on with an unfinished run and read the events as they come."""
        ...


def delegation(runnable: Runnable, name: str, description: str, takes: Any = str) -> Tool[..., Any]:
    """Make the tool that hands a prompt to an agent; see `Agent.as_tool`.

    Args:
        runnable: the agent, or what stands for one.
        name: what the outer model calls it.
        description: what the outer model is told.
        takes: the type of its `prompt`.
    """

    async def ask(_: RunContext[Any], arguments: Any) -> Any:
        return await delegate(runnable, runnable.name, lambda: arguments.prompt)

    return delegation_of(runnable, _asking if takes is str else asking_for(takes), ask, name, description)


def delegation_of(
    runnable: Any,
    pattern: Tool[..., Any],
    ask: Callable[[RunContext[Any], Any], Awaitable[Any]],
    name: str,
    description: str,
) -> Tool[..., Any]:
    """Make a tool that delegates, with the parameters of another one, whose schema was built once. O(1).

    Args:
        runnable: the agent that it asks.
        pattern: the tool whose parameters it takes.
        ask: what it does, given the context and the decoded arguments; calls `delegate`.
        name: what the model calls it.
        description: what the model is told.
    """
    schema = msgspec.structs.replace(pattern.schema, name=name, description=description)
    return msgspec.structs.replace(
        pattern, schema=schema, function=ask, invoke=ask, kind="async", timeout=None, delegates_to=runnable
    )


async def delegate(runnable: Runnable, name: str, prompt: Callable[[], Any]) -> Any:
    """Run an agent inside the tool call that is under way, or go on with what an earlier start of the call began.

    Where somebody listens to the run around it, its events are passed on as they come.

    Args:
        runnable: the agent.
        name: what its events are tagged with.
        prompt: gives what it is asked; called only where it is asked anew.

    Returns:
        Its output.

    Raises:
        CallPaused: the inner run waits for decisions, and the call with it.
        NestingError: too many runs are inside one another.
        GossamerError: it failed, or a limit stopped it.
    """
    try:
        return (await run_inside(runnable, name, prompt)).output
    except NestingError:
        raise
    except ToolError as error:  # a tool that ends the inner run ends it alone, and the outer model is told
        raise GossamerError(str(error)) from error


class Ended(msgspec.Struct, frozen=True):
    """How a run inside a call has ended.

    Attributes:
        reason: why, as in `Result.finish_reason`.
        output: its output.
    """

    reason: str
    output: Any


async def run_inside(runnable: Runnable, name: str, prompt: Callable[[], Any]) -> Ended:
    """Do what `delegate` does, and tell how the run has ended; arguments as there.

    Raises:
        CallPaused: the inner run waits for decisions, and the call with it.
        ToolError: a tool ended it, or too many runs are inside one another.
        GossamerError: it failed, or a limit stopped it.
    """
    current = current_call.get()
    assert current is not None, "the tool of an agent runs inside a call"
    context, call, _ = current
    _check_depth(context, name)
    tell = context.tell
    outer: Session[Any] = context.session
    inner = outer.child(call.id, context.run_id)
    if outer.store is not None:
        await inner.load()
    if inner.journal and (times := _uses_before(outer, context.run_id, call)):
        inner = outer.child(again(call.id, times), context.run_id)
        await inner.load()
    if inner.unfinished is not None:
        decided = outer.turn.decisions if outer.turn is not None else {}
        waiting = {pending.call_id for pending in inner.pending}
        decisions = {call_id: decision for call_id, decision in decided.items() if call_id in waiting}
        go_on: Any = runnable.resume if tell is None else runnable.resume_stream
        run = go_on(inner, decisions, deps=context.deps, user=context.user)
    elif inner.journal:  # the process died after the inner run ended and before its result was stored
        return _stored_outcome(inner)
    else:
        begin: Any = runnable.run if tell is None else runnable.stream
        run = begin(prompt(), session=inner, deps=context.deps, user=context.user)
    if tell is None:
        result = await run
    else:
        async with run:
            async for event in run:
                if type(event) is InnerEvent:
                    await tell(InnerEvent((name, *event.path), event.run_id, event.event))
                else:
                    await tell(InnerEvent((name,), run.run_id, event))
        result = run.result
    if result.pending:
        raise CallPaused(result.pending)
    await inner.aclose()
    return Ended(result.finish_reason, result.output)


@tool(timeout=None)
async def _asking(prompt: str) -> None:
    """The pattern of a tool that hands over a prompt."""


def asking_for(takes: Any) -> Tool[..., Any]:
    """Make the pattern of a tool that hands over a prompt of a type."""

    async def asking(prompt: Any) -> None:
        """The pattern of a tool that hands over something else than text."""

    asking.__annotations__["prompt"] = takes
    return tool(timeout=None)(asking)


def _check_depth(context: RunContext[Any], name: str) -> None:
    around: RunContext[Any] | None = context
    depth = 0
    while around is not None:
        depth += 1
        around = around.parent
    if depth >= _MOST_NESTED:
        raise _too_deep(context, name)


def _too_deep(context: RunContext[Any], name: str) -> NestingError:
    path = [name]
    around: RunContext[Any] | None = context
    while around is not None:
        path.append(around.agent)
        around = around.parent
    return NestingError(
        f"more than {_MOST_NESTED} runs would be inside one another: {' > '.join(reversed(path))}; "
        "see which of them delegates to one of those around it"
    )


def _uses_before(outer: Session[Any], run_id: str, call: ToolCall) -> int:
    """Count the earlier turns of a run in which its model used a call's id. O(records in memory), and rarely asked."""
    turn = outer.turn
    assert turn is not None
    return sum(
        isinstance(record, MessageRecord)
        and record.run == run_id
        and any(one.id == call.id for one in record.message.tool_calls)
        for record in outer.journal[: turn.place - outer.first]
    )


def _stored_outcome(session: Session[Any]) -> Ended:
    """Tell how an inner run has ended; it never runs again.

    Raises:
        GossamerError: it had failed, or a limit had stopped it.
    """
    for record in reversed(session.journal):
        if isinstance(record, RunFailedRecord):
            raise GossamerError(f"the inner run had failed: {record.error}: {record.message}")
        if isinstance(record, RunFinishedRecord):
            if record.finish_reason == "limit":
                raise GossamerError("the inner run was stopped by a limit")
            return Ended(record.finish_reason, record.output)
    return Ended("stop", None)
