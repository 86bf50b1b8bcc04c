"""One run of a workflow: what its steps share, and how each is kept in the journal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gossamer.asking import Emit
from gossamer.context import CallPaused, RunContext
from gossamer.errors import LimitError, StepOutputError
from gossamer.events import Event
from gossamer.flow.workflow.past import Past
from gossamer.flow.workflow.state import Branch
from gossamer.flow.workflow.types import store
from gossamer.records import PendingCall, StepFailedRecord, StepFinishedRecord, StepStartedRecord
from gossamer.schema import words_of
from gossamer.session import Session
from gossamer.tools.execution import CLEANUP_SECONDS, wait_together

if TYPE_CHECKING:
    from gossamer.flow.workflow.workflow import Workflow

__all__ = ["NOTHING", "Execution", "Tally", "WorkflowContext", "side_by_side"]


class WorkflowContext(RunContext[Any], eq=False, weakref=True):
    """The context of a workflow's run.

    Attributes:
        workflow: what runs; it must not be run again inside.
    """

    workflow: Any = None


class Tally:
    """What the nodes of a workflow came to in a run, each by its index: as many numbers as nodes, however long it runs.

    Args:
        nodes: how many nodes there are.

    Attributes:
        runs: how often each finished.
        failures: how often each failed.
        waiting: how many of each wait for a person.
        seconds: how long each took, all runs together.
    """

    __slots__ = ("failures", "runs", "seconds", "waiting")

    def __init__(self, nodes: int) -> None:
        self.runs = [0] * nodes
        self.failures = [0] * nodes
        self.waiting = [0] * nodes
        self.seconds = [0.0] * nodes


# Of a workflow without nodes.
NOTHING = Tally(0)


class Execution:
    """One run of a workflow.

    Args:
        workflow: what runs.
        context: the run.
        emit: takes events, or None.

    Attributes:
        context: the run.
        workflow: what runs.
        session: where it is recorded, or None.
        stored: whether that is kept in a store.
        emit: takes events, or None.
        past: what the journal tells of the run, where it goes on; else None.
        careful: whether a step has more to do than to run.
        tally: what the nodes came to.
    """

    __slots__ = ("careful", "context", "emit", "past", "session", "stored", "tally", "workflow")

    def __init__(self, workflow: Workflow[Any, Any], context: WorkflowContext, emit: Emit | None) -> None:
        self.workflow = workflow
        self.context = context
        self.session: Session[Any] | None = context.session
        self.stored = self.session is not None and self.session.store is not None
        self.emit = emit
        self.past: Past | None = None
        self.careful = emit is not None or self.session is not None
        self.tally = Tally(workflow.plan.size)

    def told_by(self, emit: Emit) -> Execution:
        """Give the same run with other ears: those of a branch in a task of its own."""
        other = Execution.__new__(Execution)
        for name in Execution.__slots__:
            setattr(other, name, getattr(self, name))
        other.emit = emit
        return other

    def limit_behind(self, error: BaseException | None) -> LimitError | None:
        """Give the limit of the run, or of one around it, that an error came of; None where it is none of these."""
        budget = self.context.budget
        while error is not None and budget is not None:
            if isinstance(error, LimitError):
                return error if budget.is_at(error) else None
            error = error.__cause__
        return None

    def pending(self, place: str, suffix: str = "") -> str:
        """Give the id under which a step waits for a person."""
        return f"{self.context.run_id}/{place}{suffix}"

    async def begin(self, place: str, idempotent: bool) -> None:
        """Have it on disk, before a step begins, that it does, and what finished before it."""
        session = self.session
        if session is None:
            return
        if not idempotent:
            session.record(StepStartedRecord(run=self.context.run_id, step=place))
        if self.stored:
            await session.settle()

    def keep(
        self,
        place: str,
        output: Any,
        type_: Any,
        changes: dict[str, Any] | None,
        branch: Branch,
        seconds: float,
    ) -> None:
        """Record the output of a step, and what it changed in the state.

        Raises:
            StepOutputError: one of them cannot be stored.
        """
        session = self.session
        if session is None:
            return
        try:
            data = store(output, type_)
            patch = branch.stored(changes) if changes else None
        except ValueError as error:
            if self.stored:
                raise StepOutputError(f"step {place!r}: {error}", place=place) from error
            data, patch = output, changes  # it does not leave the process
        session.record(
            StepFinishedRecord(
                run=self.context.run_id, step=place, output=data, seconds=seconds, state=patch or None
            )
        )

    def keep_failure(self, place: str, error: BaseException, seconds: float) -> None:
        """Record that an attempt at a step failed."""
        if self.session is not None:
            cause = error.__cause__ or error
            self.session.record(
                StepFailedRecord(
                    run=self.context.run_id,
                    step=place,
                    error=type(cause).__name__,
                    message=words_of(cause),
                    seconds=seconds,
                )
            )

    def push(self) -> None:
        """Hand what is new to the store: nothing of this branch will, for a while."""
        if self.stored and self.session is not None:
            self.session.push()


# --- side by side -------------------------------------------------------------------------------------------


async def side_by_side(
    execution: Execution, count: int, limit: int, start: Callable[[Execution, int], Coroutine[Any, Any, Any]]
) -> list[Any]:
    """Run branches at the same time; the first that fails stops the others.

    Args:
        execution: the run.
        count: how many branches there are.
        limit: how many may run at once.
        start: runs a branch, given its number and what stands for the run in there.

    Returns:
        What the branches gave, in order.

    Raises:
        CallPaused: some of them wait for a person, and the others have come to their end.
    """
    outputs: list[Any] = [None] * count
    pending: list[PendingCall] = []
    numbers = iter(range(count))

    async def work(execution: Execution) -> None:
        for number in numbers:
            try:
                outputs[number] = await start(execution, number)
            except CallPaused as paused:
                pending.extend(paused.pending)
            execution.push()

    workers = min(limit, count)
    if workers <= 1:
        await work(execution)
    elif execution.emit is None:
        await wait_together([asyncio.ensure_future(work(execution)) for _ in range(workers)])
    else:
        await _telling(execution, workers, work)
    if pending:
        raise CallPaused(tuple(pending))
    return outputs


async def _telling(
    execution: Execution, workers: int, work: Callable[[Execution], Coroutine[Any, Any, None]]
) -> None:
    """Run workers in tasks, and hand on what they tell: each waits until its event has been taken."""
    emit = execution.emit
    assert emit is not None
    loop = asyncio.get_running_loop()
    told: deque[tuple[Event, asyncio.Future[None]]] = deque()  # at most one a worker
    woken = loop.create_future()
    closed = False

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    async def tell(event: Event) -> None:
        if closed:
            return
        taken: asyncio.Future[None] = loop.create_future()
        told.append((event, taken))
        wake()
        await taken

    inner = execution.told_by(tell)
    tasks = [asyncio.ensure_future(work(inner)) for _ in range(workers)]
    for task in tasks:
        task.add_done_callback(wake)
    running = set(tasks)
    try:
        while running or told:
            if not told:
                await woken
            woken = loop.create_future()
            while told:
                event, taken = told.popleft()
                await emit(event)
                if not taken.done():
                    taken.set_result(None)
            for task in [one for one in running if one.done()]:
                running.discard(task)
                task.result()
    except BaseException as error:
        closed = True
        for task in tasks:
            task.cancel()
        if isinstance(error, GeneratorExit):  # the stream was dropped; nothing may be awaited any more
            raise
        await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # marks it as seen: the first error speaks for all
        raise
