"""An agent as a tool of another: the inner run keeps its own journal and is resumed, not repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gossamer.context import CallPaused, RunContext
from gossamer.errors import GossamerError, ToolError
from gossamer.records import Decision, RunFailedRecord, RunFinishedRecord
from gossamer.result import Result
from gossamer.session import Session
from gossamer.tools.function import Tool, tool

if TYPE_CHECKING:
    from gossamer.stream import RunStream

__all__ = ["Runnable", "delegation"]


class Runnable(Protocol):
    """What runs and resumes: an `Agent`, and whatever else is to stand where one does."""

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


def delegation(runnable: Runnable, name: str, description: str, takes: Any = str) -> Tool[..., Any]:
    """Make the tool that hands a prompt to an agent; see `Agent.as_tool`.

    Args:
        runnable: the agent, or what stands for one.
        name: what the outer model calls it.
        description: what the outer model is told.
        takes: the type of its `prompt`.
    """

    async def ask(context: RunContext[Any], prompt: str) -> Any:
        call = context.call
        assert call is not None, "the tool of an agent runs inside a call"
        outer: Session[Any] = context.session
        inner = outer.child(call.id, context.run_id)
        await inner.load()
        if inner.unfinished is not None:
            decided = outer.turn.decisions if outer.turn is not None else {}
            waiting = {pending.call_id for pending in inner.pending}
            decisions = {call_id: decision for call_id, decision in decided.items() if call_id in waiting}
            result = await _settled(runnable.resume(inner, decisions, deps=context.deps, user=context.user))
        elif inner.journal:  # the process died after the inner run ended and before its result was stored
            return _stored_outcome(inner)
        else:
            result = await _settled(runnable.run(prompt, session=inner, deps=context.deps, user=context.user))
        if result.pending:
            raise CallPaused(result.pending)
        await inner.aclose()
        return result.output

    ask.__annotations__["prompt"] = takes
    made = tool(name=name, description=description, timeout=None)(ask)
    return msgspec.structs.replace(made, delegates_to=runnable)


async def _settled(run: Awaitable[Result[Any]]) -> Result[Any]:
    """Await an inner run; a tool that ends it ends it alone, and the outer model is told."""
    try:
        return await run
    except ToolError as error:
        raise GossamerError(str(error)) from error


def _stored_outcome(session: Session[Any]) -> Any:
    """Give the output of an inner run that has ended; it never runs again.

    Raises:
        GossamerError: it had failed, or a limit had stopped it.
    """
    for record in reversed(session.journal):
        if isinstance(record, RunFailedRecord):
            raise GossamerError(f"the inner run had failed: {record.error}: {record.message}")
        if isinstance(record, RunFinishedRecord):
            if record.finish_reason == "limit":
                raise GossamerError("the inner run was stopped by a limit")
            return record.output
    return None
