"""A workflow: steps in an order that a program decides, and not a model."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from gossamer.context import current_call, open_hubs, session_in_hub
from gossamer.delegation import delegation
from gossamer.errors import ArgumentError, StepOutputError, WorkflowError
from gossamer.flow.workflow.answers import check_answer
from gossamer.flow.workflow.building import Plan, build
from gossamer.flow.workflow.execution import WorkflowContext
from gossamer.flow.workflow.outcome import WorkflowResult
from gossamer.flow.workflow.picture import Picture, draw
from gossamer.flow.workflow.running import execute
from gossamer.flow.workflow.state import check_state
from gossamer.flow.workflow.steps import StepLike
from gossamer.flow.workflow.types import check_of, fits
from gossamer.limits import Limits
from gossamer.opening import decided_by
from gossamer.records import Decision, PendingCall
from gossamer.session import Session
from gossamer.stream import RunStream, emit, run_limited
from gossamer.sync import run_blocking
from gossamer.tools.function import Tool

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    InputT = TypeVar("InputT", default=Any)
    OutputT = TypeVar("OutputT", default=Any)
else:
    from typing import TypeVar

    InputT = TypeVar("InputT")
    OutputT = TypeVar("OutputT")

__all__ = ["Workflow"]


class Workflow(Generic[InputT, OutputT]):
    """Steps one after the other: each takes what the one before gives. A value, safe to share between runs and threads.

    Building it reads the signatures of the steps and checks that what each gives is what the next one takes, where
    both say. Nothing of a run stays in it.

    Args:
        name: tells it apart in sessions, metrics and streams.
        steps: the steps: functions, agents, teams, workflows, and `Step`, `Parallel`, `Condition`, `Loop`, `Router`,
            `Map` and `HumanInput`.
        input: the type that it takes; that of the first step where None.
        output: the type that it gives; that of the last step where None.
        state: what the steps remember together: the value that a run begins with, a dict, a dataclass or a Struct.
            A session that has a state brings its own.
        limits: what a run may use, its agents together: `max_cost`, `max_tokens`, `max_tool_calls`, `max_seconds`.

    Raises:
        StepTypeError: a step gives what the next one does not take.
        StepNameError: two steps beside each other have one name.
        ArgumentError: something is no step, or an option is out of range.
    """

    __slots__ = ("__weakref__", "input", "limits", "name", "output", "plan", "state", "steps")

    name: str
    steps: tuple[StepLike, ...]
    input: Any
    output: Any
    state: Any
    limits: Limits | None
    plan: Plan

    def __init__(
        self,
        name: str,
        steps: Sequence[StepLike],
        *,
        input: type[InputT] | Any = None,  # noqa: A002 - the word users know
        output: type[OutputT] | Any = None,
        state: Any = None,
        limits: Limits | None = None,
    ) -> None:
        if limits is not None and not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"limits must be a Limits, not {type(limits).__name__}")
        if state is not None:
            check_state(state)
        give = object.__setattr__
        give(self, "name", name)
        give(self, "plan", build(name, steps, input, output))
        give(self, "steps", tuple(steps))
        give(self, "input", input)
        give(self, "output", output)
        give(self, "state", state)
        give(self, "limits", limits)

    def __setattr__(self, name: str, _value: Any) -> None:
        raise AttributeError(f"a workflow is a value: make a changed copy with .replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a workflow is a value, and keeps its {name}")

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, {self.plan.size - 1} steps)"

    def replace(self, **changes: Any) -> Workflow[Any, Any]:
        """Make a changed copy.

        Raises:
            ArgumentError: there is no such argument, or it does not fit.
        """
        known = ("name", "steps", "input", "output", "state", "limits")
        unknown = sorted(changes.keys() - set(known))
        if unknown:
            raise ArgumentError(
                f"Workflow.replace: there is no {unknown[0]!r}; a workflow has {', '.join(known)}"
            )
        arguments = {one: getattr(self, one) for one in known} | changes
        return Workflow(arguments.pop("name"), arguments.pop("steps"), **arguments)

    # --- running ----------------------------------------------------------------------------------------------

    def run(
        self,
        input: InputT | Any = None,  # noqa: A002 - the word users know
        /,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> Coroutine[Any, Any, WorkflowResult[OutputT]]:
        """Run to the end: `result = await workflow.run(value)`.

        Args:
            input: what the first step takes.
            session: where the run is recorded, so that it can go on after a pause, an error or a crash; without one
                nothing is recorded, but for a workflow whose steps may wait for a person, which gets one of its own.
            deps: what steps, tools and instructions find as `context.deps`.
            user: on whose behalf.
            limits: in place of the workflow's.

        Returns:
            A coroutine that gives the `WorkflowResult`, also of a run that paused or was stopped by a limit.

        Raises:
            WorkflowError: a step failed, or the workflow could not go on; `place` says where.
            GossamerError: another of its children says what went wrong.
        """
        context = self._context(session, deps, user)
        limits = limits or self.limits
        run = execute(self, context, input, limits)
        return run if limits is None else run_limited(run, context, limits)  # pyright: ignore[reportReturnType]

    __call__ = run

    def run_sync(
        self,
        input: InputT | Any = None,  # noqa: A002 - the word users know
        /,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> WorkflowResult[OutputT]:
        """Run to the end from code that is not async: scripts, notebooks, threads. As `run`.

        Raises:
            ArgumentError: called on the background loop itself, as by an inline step.
        """
        return run_blocking(lambda: self.run(input, session=session, deps=deps, user=user, limits=limits))

    def stream(
        self,
        input: InputT | Any = None,  # noqa: A002 - the word users know
        /,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> RunStream[OutputT]:
        """Run and read the events as they come: those of steps, and those of agents inside as `InnerEvent`.

        Arguments and errors as for `run`.

        Returns:
            The stream; nothing happens before its first event is asked for.
        """
        context = self._context(session, deps, user)
        limits = limits or self.limits
        run = execute(self, context, input, limits, emit=emit)
        return RunStream(run, context, limits)

    def resume(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> Coroutine[Any, Any, WorkflowResult[OutputT]]:
        """Go on with a session's last run: one that paused, that failed, or whose process died.

        A step that has finished never runs again. One that had begun goes on in its own journal where it is an agent,
        a team or a workflow; it runs again where it is idempotent, or had failed; else a person is asked.

        Args:
            session: the session.
            decisions: `Answer`, `Approve` or `Deny` by call id, for calls in `result.pending`.
            deps: as for `run`; not stored with the session.
            user: as for `run`.
            limits: as for `run`; time counts anew.

        Returns:
            A coroutine that gives the `WorkflowResult`.

        Raises:
            ResumeError: there is nothing to go on with, the run is another's, or a decision does not fit.
            WorkflowChangedError: the workflow is not the one that began the run.
            GossamerError: as for `run`.
        """
        context = self._context(session, deps, user)
        limits = limits or self.limits
        run = execute(self, context, None, limits, decided_by(decisions))
        return run if limits is None else run_limited(run, context, limits)  # pyright: ignore[reportReturnType]

    def resume_stream(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> RunStream[OutputT]:
        """Go on with a session's last run and read the events as they come. Arguments and errors as for `resume`."""
        context = self._context(session, deps, user)
        limits = limits or self.limits
        run = execute(self, context, None, limits, decided_by(decisions), emit)
        return RunStream(run, context, limits)

    def as_tool(self, name: str, description: str) -> Tool[..., Any]:
        """Make a tool of this workflow, for an agent to use; see `Agent.as_tool`.

        Args:
            name: what the model calls it.
            description: what the model is told.

        Returns:
            The tool; it takes a `prompt` of the type that the workflow takes, text where that is not known.
        """
        return delegation(self, name, description, self.prompt_type)

    def visualize(self, run: WorkflowResult[Any] | WorkflowError | None = None) -> Picture:
        """Draw the workflow.

        Args:
            run: the result of a run, or the error with which one failed, to have on each step how it ended and how long
                it took.

        Returns:
            The picture: `.mermaid` for Markdown, `.svg` for anything else.

        Raises:
            ArgumentError: the run is another workflow's.
        """
        if run is None:
            return draw(self.name, self.plan, None)
        steps = run.steps if isinstance(run, WorkflowResult | WorkflowError) else {}  # pyright: ignore[reportUnnecessaryIsInstance]
        if list(steps) != [place for place, _ in self.plan.places]:
            raise ArgumentError(
                f"the run must be one of workflow {self.name!r}, and this is not: {run!r:.200}"
            )
        return draw(self.name, self.plan, steps)

    # --- for the run ------------------------------------------------------------------------------------------

    @property
    def prompt_type(self) -> Any:
        """What a model gives that asks it: text, unless it takes none."""
        takes = self.plan.takes
        return str if takes is Any or fits(str, takes) else takes

    @property
    def may_pause(self) -> bool:
        """Whether a step may have to wait for a person."""
        return self.plan.may_pause

    def _context(self, session: Session[Any] | None, deps: Any, user: str | None) -> WorkflowContext:
        if open_hubs and session is None:
            session = session_in_hub(self)
        current = current_call.get()
        parent = None if current is None else current[0]
        return WorkflowContext(self.name, deps, user, session, parent, workflow=self)

    def check_decision(self, pending: PendingCall, decision: Decision) -> None:
        """Check an answer against the type that the step wants that waits for it, here or inside.

        Raises:
            ResumeError: it does not fit; the step still waits.
        """
        check_answer(self.name, self.plan, pending, decision)

    def given(self, output: Any) -> Any:
        """Check what the last step gave against the declared output.

        Raises:
            StepOutputError: it does not fit.
        """
        if self.output is None:
            return output
        check = check_of(self.output)
        try:
            return output if check is None else check(output)
        except ValueError as error:
            raise StepOutputError(f"the output of workflow {self.name!r}: {error}") from error
