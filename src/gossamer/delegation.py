"""An agent as a tool of another: the inner run keeps its own journal and is resumed, not repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import msgspec

from gossamer.context import CallPaused, RunContext
from gossamer.errors import GossamerError, ToolError
from gossamer.records import Decision, RunFailedRecord, RunFinishedRecord
from gossamer.result import Result
from gossamer.session import Session
from gossamer.tools.function import Tool, tool

__all__ = ["Delegate", "delegation"]


class Delegate(Protocol):
    """Something that runs and resumes; `gossamer.Agent` is one."""

    def run(
        self, prompt: str, *, session: Session[Any] | None, deps: Any, user: str | None
    ) -> Awaitable[Result[Any]]:
        """Run to the end."""
        ...

    def resume(
        self, session: Session[Any], decisions: Mapping[str, Decision], *, deps: Any, user: str | None
    ) -> Awaitable[Result[Any]]:
        """Go on with an unfinished run."""
        ...


def delegation(delegate: Delegate, name: str, description: str) -> Tool[..., Any]:
    """Make the tool that hands a prompt to a delegate; see `Agent.as_tool`."""

    async def ask(context: RunContext[Any], prompt: str) -> Any:
        call = context.call
        assert call is not None, "the tool of a delegate runs inside a call"
        outer: Session[Any] = context.session
        inner = outer.child(call.id, context.run_id)
        if inner.unfinished is not None:
            decided = outer.turn.decisions if outer.turn is not None else {}
            waiting = {pending.call_id for pending in inner.pending}
            decisions = {call_id: decision for call_id, decision in decided.items() if call_id in waiting}
            result = await _settled(delegate.resume(inner, decisions, deps=context.deps, user=context.user))
        elif inner.journal:  # the process died after the inner run ended and before its result was stored
            return _stored_outcome(inner)
        else:
            result = await _settled(delegate.run(prompt, session=inner, deps=context.deps, user=context.user))
        if result.pending:
            raise CallPaused(result.pending)
        return result.output

    made = tool(name=name, description=description, timeout=None)(ask)
    return msgspec.structs.replace(made, delegates=True)


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
