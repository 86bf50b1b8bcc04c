"""Agents, teams and workflows as steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gossamer.context import CallPaused, CurrentCall, RunContext, current_call
from gossamer.delegation import Runnable
from gossamer.errors import (
    WorkflowCycleError,
    WorkflowError,
)
from gossamer.events import InnerEvent
from gossamer.flow.workflow.execution import Execution
from gossamer.flow.workflow.leaf import Attempt, Leaf, failure, is_cancelled
from gossamer.flow.workflow.types import read
from gossamer.messages import ToolCall
from gossamer.records import (
    Decision,
    RunFailedRecord,
    RunFinishedRecord,
)
from gossamer.session import Session
from gossamer.stream import RunStream
from gossamer.tools.execution import OverdueError, within

__all__ = ["RunnableNode"]

# How a run ends that was stopped and did not fail by itself.
_STOPPED = frozenset({"Cancelled", "Abandoned", "limit"})


class RunnableNode(Leaf):
    """An agent, a team or a workflow as a step: its run has a journal of its own, and goes on there after a crash."""

    kind = "agent"
    goes_on = True
    runnable: Runnable

    @property
    def is_workflow(self) -> bool:
        """Whether it is a workflow, which goes on after a failure too, where an agent begins anew."""
        return self.kind == "workflow"

    async def is_open(self, execution: Execution, key: str) -> bool:
        """See `Leaf.is_open`: an agent that was stopped with the run around it begins anew."""
        inner = await self._inner(execution, key)
        return self.is_workflow or inner is None or _failure_of(inner) not in _STOPPED

    async def _inner(self, execution: Execution, key: str) -> Session[Any] | None:
        if execution.session is None:
            return None
        if self.is_workflow:
            key = key.partition("#")[0]
        inner = execution.session.child(key, execution.context.run_id)
        await inner.load()
        return inner

    async def attempt(
        self, execution: Execution, value: Any, at: Attempt
    ) -> tuple[Any, dict[str, Any] | None]:
        """See `Leaf.attempt`."""
        context, place = execution.context, at.place
        self._must_not_be_under_way(context, place)
        inner: Session[Any] | None = None
        try:
            inner = await self._inner(execution, at.key)
            began = inner is not None and bool(inner.journal)
            if inner is not None and began and inner.unfinished is None:
                failed = _failure_of(inner)
                resumes = self.is_workflow and failed and (not at.goes_on or failed in _STOPPED)
                if not resumes:
                    # The process died after the inner run ended and before its output was stored.
                    return self._given(_stored_output(inner, self.gives), place), None
            call = (context, ToolCall(self.name, "", at.key), None)
            result = await self._ask(execution, value, place, inner if began else None, inner, call)
            if result.pending:
                raise CallPaused(result.pending)
            if inner is not None:
                await inner.aclose()
            output = result.output
        except CallPaused:
            raise
        except asyncio.CancelledError as error:
            if is_cancelled(context):
                raise
            raise failure(place, error) from error
        except OverdueError:
            raise self._overdue(place) from None
        except Exception as error:
            raise failure(place, error) from error
        return self._given(output, place), None

    async def _ask(
        self,
        execution: Execution,
        value: Any,
        place: str,
        begun: Session[Any] | None,
        inner: Session[Any] | None,
        call: CurrentCall,
    ) -> Any:
        runnable = self.runnable
        options: dict[str, Any] = {"deps": execution.context.deps, "user": execution.context.user}
        start: Callable[[], Any]
        if begun is not None:
            past = execution.past
            made: Mapping[str, Decision] = {} if past is None else past.decisions
            waiting = {pending.call_id for pending in begun.pending}
            decisions = {call_id: decision for call_id, decision in made.items() if call_id in waiting}
            resume_stream = getattr(runnable, "resume_stream", None)
            if execution.emit is not None and resume_stream is not None:
                start = partial(resume_stream, begun, decisions, **options)
            else:
                start = partial(runnable.resume, begun, decisions, **options)
        elif execution.emit is not None:
            start = partial(runnable.stream, value, session=inner, **options)
        else:
            start = partial(runnable.run, value, session=inner, **options)
        outer = current_call.get()
        current_call.set(call)
        try:
            made_run = start()
            if not isinstance(made_run, RunStream):
                return await within(self.timeout, made_run)
        finally:
            current_call.set(outer)
        return await self._listen(execution, made_run, place, call)  # pyright: ignore[reportUnknownArgumentType]

    async def _listen(
        self, execution: Execution, stream: RunStream[Any], place: str, call: CurrentCall
    ) -> Any:
        """Hand on the events of an inner run; neither its call nor its timeout is held across one."""
        emit = execution.emit
        assert emit is not None, "a stream is made where somebody listens"
        overdue = False

        def expire() -> None:
            nonlocal overdue
            overdue = True
            stream.cancel()

        timer = None if self.timeout is None else asyncio.get_running_loop().call_later(self.timeout, expire)
        try:
            while True:
                outer = current_call.get()
                current_call.set(call)
                try:
                    event = await anext(stream)
                except StopAsyncIteration:
                    break
                finally:
                    current_call.set(outer)
                if type(event) is InnerEvent:
                    await emit(InnerEvent((place, *event.path), event.run_id, event.event))
                else:
                    await emit(InnerEvent((place,), stream.run_id, event))
        except GeneratorExit:  # the stream was dropped; nothing may be awaited any more
            raise
        except BaseException:
            await stream.aclose()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if overdue:
            raise OverdueError
        return stream.result

    def _must_not_be_under_way(self, context: RunContext[Any], place: str) -> None:
        around: Any = context
        while around is not None:
            if getattr(around, "workflow", None) is self.runnable:
                raise WorkflowCycleError(
                    f"step {place!r} is workflow {self.runnable.name!r}, inside of which it runs", place=place
                )
            around = around.parent


def _failure_of(session: Session[Any]) -> str:
    """Give the class of the error with which the last run of a session failed; `limit` where one stopped it, else ""."""
    if session.unfinished is not None:
        return ""
    for record in reversed(session.journal):
        if isinstance(record, RunFailedRecord):
            return record.error
        if isinstance(record, RunFinishedRecord):
            return "limit" if record.finish_reason == "limit" else ""
    return ""


def _stored_output(session: Session[Any], type_: Any) -> Any:
    """Give the output of an inner run that has ended; it never runs again.

    Raises:
        WorkflowError: it had failed, or a limit had stopped it.
    """
    for record in reversed(session.journal):
        if isinstance(record, RunFailedRecord):
            raise WorkflowError(f"its run had failed: {record.error}: {record.message}")
        if isinstance(record, RunFinishedRecord):
            if record.finish_reason == "limit":
                raise WorkflowError("its run was stopped by a limit")
            return read(record.output, type_)
    return None
