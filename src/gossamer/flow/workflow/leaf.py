"""What all steps have in common: a place in the tree, and what may be said about any that does something."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from time import perf_counter
from typing import Any

import msgspec

from gossamer.context import CallPaused, RunContext
from gossamer.errors import (
    StepFailedError,
    StepInputError,
    StepOutcomeError,
    StepOutputError,
    StepTimeoutError,
    WorkflowChangedError,
    WorkflowError,
)
from gossamer.events import StepFailed, StepFinished, StepStarted
from gossamer.flow.workflow.execution import Execution
from gossamer.flow.workflow.past import Past
from gossamer.flow.workflow.state import Branch
from gossamer.flow.workflow.steps import Retry
from gossamer.flow.workflow.types import Check, check_of, name_of, read
from gossamer.messages import ToolCall
from gossamer.models.backoff import wait_before_retry
from gossamer.records import (
    Answer,
    Decision,
    Deny,
    PendingCall,
    PendingKind,
    StepFinishedRecord,
)
from gossamer.schema import words_of

# What a person is shown of a value; a longer one is cut.
_MAX_ASKED_CHARS = 20_000

__all__ = ["Attempt", "Leaf", "Node", "failure", "is_cancelled", "pending_call"]


class Attempt(msgspec.Struct, frozen=True, eq=False):
    """One attempt at a step.

    Attributes:
        place: where the step stands.
        number: which attempt it is.
        key: the place, and which start of the step this is where it is not the first one ever.
        branch: whose state it sees.
        goes_on: whether it is an attempt that had begun before and did not come to an end.
    """

    place: str
    number: int
    key: str
    branch: Branch
    goes_on: bool = False


class Node:
    """A place in the tree of a workflow.

    Attributes:
        name: the last part of its place.
        label: what a picture says.
        path: its place without the numbers of items and iterations.
        index: its number in the workflow.
        takes: the type that it takes.
        gives: the type that it gives.
        children: the nodes in it, each with what it is there for.
    """

    kind = ""
    name: str
    label: str
    path: str
    index: int
    takes: Any
    gives: Any
    children: tuple[tuple[str, Node], ...] = ()

    @abstractmethod
    async def run(self, execution: Execution, value: Any, prefix: str, branch: Branch) -> Any:
        """Run with a value and give the next one.

        Args:
            execution: the run.
            value: what the step before gave.
            prefix: of its place, with a slash at the end.
            branch: whose state it sees.
        """


class Leaf(Node):
    """A step that does something, with what may be said about any: how often, how long, and what instead."""

    attempts = 1
    retry: Retry | None = None
    timeout: float | None = None
    fallback: Node | None = None
    idempotent = False
    goes_on = False
    guarded = False
    check_in: Check | None = None
    check_out: Check | None = None

    def declare(self, takes: Any, gives: Any) -> None:
        """Say what is taken and given."""
        self.takes, self.gives = takes, gives
        self.check_in, self.check_out = check_of(takes), check_of(gives)

    @abstractmethod
    async def attempt(
        self, execution: Execution, value: Any, at: Attempt
    ) -> tuple[Any, dict[str, Any] | None]:
        """Try once.

        Args:
            execution: the run.
            value: what it takes, checked.
            at: which attempt, and where.

        Returns:
            The output, checked, and the fields of the state that were changed.

        Raises:
            WorkflowError: it failed.
            CallPaused: it waits for a person.
        """

    async def is_open(self, execution: Execution, key: str) -> bool:  # noqa: ARG002 - a run of its own has one
        """Whether an attempt that had begun goes on in a journal of its own."""
        return False

    async def run(self, execution: Execution, value: Any, prefix: str, branch: Branch) -> Any:
        """See `Node.run`."""
        place = prefix + self.name
        past = execution.past
        if past is not None and (kept := past.finished.pop(place, None)) is not None:
            return self._recall(execution, kept, place, branch)
        if self.check_in is not None:
            value = self._taken(value, place)
        if execution.careful or self.guarded:
            return await self._run_with_care(execution, value, place, branch)
        began = perf_counter()
        tally = execution.tally
        try:
            output, _ = await self.attempt(execution, value, Attempt(place, 1, place, branch))
        except WorkflowError:
            tally.failures[self.index] += 1
            raise
        tally.runs[self.index] += 1
        tally.seconds[self.index] += perf_counter() - began
        return output

    async def _run_with_care(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """Run with all that may be wanted: recorded, told, tried again, or done otherwise."""
        past = execution.past
        tried, starts, had_begun = 0, 0, False
        if past is not None:
            tried, starts, had_begun = past.attempts(place), past.begun[place], place in past.open
            if had_begun and not self.idempotent and not self.goes_on:
                decision = _about_outcome(execution, past, self, place)
                if isinstance(decision, Answer):
                    output = self._answered(decision, place)
                    return await self._finish(execution, place, output, None, branch, 0.0)
        while tried < self.attempts:
            tried += 1
            goes_on = had_begun and await self.is_open(execution, _key(place, starts))
            had_begun = False
            if not goes_on:
                starts += 1
                await execution.begin(place, self.idempotent and not self.goes_on)
            if execution.emit is not None:
                await execution.emit(StepStarted(place, tried))
            began = perf_counter()
            at = Attempt(place, tried, _key(place, starts), branch, goes_on)
            try:
                output, changes = await self.attempt(execution, value, at)
                seconds = perf_counter() - began
                execution.keep(place, output, self.gives, changes, branch, seconds)
            except CallPaused:
                execution.tally.waiting[self.index] += 1
                raise
            except WorkflowError as error:
                seconds = perf_counter() - began
                execution.tally.failures[self.index] += 1
                execution.tally.seconds[self.index] += seconds
                if execution.limit_behind(error) is not None:
                    raise
                execution.keep_failure(place, error, seconds)
                cause = error.__cause__ or error
                if execution.emit is not None:
                    kind = type(cause).__name__
                    await execution.emit(StepFailed(place, kind, words_of(cause), seconds))
                worth = self.retry is not None and isinstance(cause, self.retry.on)
                if isinstance(error, StepTimeoutError) and self.retry is not None:
                    worth = isinstance(error, self.retry.on)
                if not worth:
                    tried = self.attempts
                if tried < self.attempts and self.retry is not None:
                    wait = wait_before_retry(tried, None, self.retry.first_wait, self.retry.longest_wait)
                    await asyncio.sleep(wait)
                elif self.fallback is None:
                    raise
            else:
                return await self._tell(execution, place, output, seconds)
        if self.fallback is None:  # the process died between its failure and that of the run
            failure = None if past is None else past.last_failure.get(place)
            words = "" if failure is None else f": {failure.error}: {failure.message}"
            raise StepFailedError(f"step {place!r} failed{words}", place=place)
        return await self.fallback.run(execution, value, f"{place}/", branch)

    async def _finish(
        self,
        execution: Execution,
        place: str,
        output: Any,
        changes: dict[str, Any] | None,
        branch: Branch,
        seconds: float,
    ) -> Any:
        execution.keep(place, output, self.gives, changes, branch, seconds)
        return await self._tell(execution, place, output, seconds)

    async def _tell(self, execution: Execution, place: str, output: Any, seconds: float) -> Any:
        execution.tally.runs[self.index] += 1
        execution.tally.seconds[self.index] += seconds
        if execution.emit is not None:
            await execution.emit(StepFinished(place, output, seconds))
        return output

    def _recall(self, execution: Execution, kept: StepFinishedRecord, place: str, branch: Branch) -> Any:
        """Take the output of a step that has finished before, and what it changed."""
        execution.tally.runs[self.index] += 1
        execution.tally.seconds[self.index] += kept.seconds
        try:
            if kept.state:
                branch.take_stored(kept.state)
            return read(kept.output, self.gives)
        except ValueError as error:
            raise WorkflowChangedError(
                f"what step {place!r} gave before does not fit it any more: {error}", place=place
            ) from error

    def _answered(self, decision: Answer, place: str) -> Any:
        try:
            return read(decision.value, self.gives)
        except ValueError as error:
            raise StepOutputError(
                f"the answer for step {place!r} does not fit: {error}", place=place
            ) from error

    def _taken(self, value: Any, place: str) -> Any:
        assert self.check_in is not None, "only what is declared is checked"
        try:
            return self.check_in(value)
        except ValueError as error:
            raise StepInputError(
                f"step {place!r} cannot take what it is given: {error}", place=place
            ) from error

    def _given(self, output: Any, place: str) -> Any:
        if self.check_out is None:
            return output
        try:
            return self.check_out(output)
        except ValueError as error:
            raise StepOutputError(
                f"step {place!r} returned something else than it declares: {error}", place=place
            ) from error

    def _overdue(self, place: str) -> StepTimeoutError:
        return StepTimeoutError(
            f"step {place!r} took longer than its timeout of {self.timeout:g} seconds and was stopped",
            place=place,
        )


def _key(place: str, start: int) -> str:
    return place if start <= 1 else f"{place}#{start}"


def failure(place: str, error: BaseException) -> WorkflowError:
    """The error of a step that raised one."""
    if isinstance(error, WorkflowError) and error.place:
        place = f"{place}/{error.place}"
    return StepFailedError(f"step {place!r} failed: {type(error).__name__}: {words_of(error)}", place=place)


def is_cancelled(context: RunContext[Any]) -> bool:
    """Whether a cancellation comes from outside, and not out of the step itself."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return True
    around: RunContext[Any] | None = context
    while around is not None:
        if around.stopping:
            return True
        around = around.parent
    return False


# --- what waits for a person ------------------------------------------------------------------------------


def pending_call(
    execution: Execution, node: Node, place: str, kind: PendingKind, call_id: str, told: dict[str, Any]
) -> PendingCall:
    """Give what waits for a person: a call whose arguments tell what it is about."""
    arguments = {"step": place, "answer": name_of(node.gives), **told}
    try:
        words = msgspec.json.encode(arguments, enc_hook=repr).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        words = ""
    if not 0 < len(words) <= _MAX_ASKED_CHARS:
        arguments["value"] = ascii(told.get("value"))[:1000]
        words = msgspec.json.encode(arguments, enc_hook=repr).decode()
    return PendingCall(
        ToolCall(node.label, words, call_id), kind, execution.context.run_id, execution.workflow.name
    )


def _about_outcome(execution: Execution, past: Past, node: Leaf, place: str) -> Decision:
    """Give what a person decided about a step that was cut off, whose outcome is not known.

    Raises:
        CallPaused: nobody has decided yet.
        StepOutcomeError: it may not run again.
    """
    call_id = execution.pending(place, f"/outcome.{past.begun[place]}")
    decision = past.decisions.get(call_id)
    if decision is None:
        question = "The process ended while this step ran. Approve runs it again; Answer gives its output; Deny ends the run."
        waiting = past.asked.get(call_id) or pending_call(
            execution, node, place, "outcome", call_id, {"question": question}
        )
        execution.tally.waiting[node.index] += 1
        raise CallPaused((waiting,))
    if isinstance(decision, Deny):
        raise StepOutcomeError(
            f"the process ended while step {place!r} ran, and it may not run again. {decision.reason}".strip(),
            place=place,
        )
    return decision
