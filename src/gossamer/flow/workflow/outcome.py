"""What a run of a workflow gives back: a result, and what became of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from gossamer.flow.workflow.execution import NOTHING, Tally
from gossamer.result import Result

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OutputT = TypeVar("OutputT", default=Any)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["StepOutcome", "StepSummary", "WorkflowResult", "outcome_of", "summaries"]

StepOutcome: TypeAlias = Literal["done", "failed", "waiting", "not_run"]


class StepSummary(msgspec.Struct, frozen=True):
    """What became of a step in a run.

    Attributes:
        outcome: `done`: it has an output; `waiting`: for a person; `failed`: no attempt came to an output; `not_run`.
        runs: how often it came to an output: more than once in a loop or a map.
        failures: how many attempts failed.
        seconds: how long all runs and attempts took together.
    """

    outcome: StepOutcome
    runs: int = 0
    failures: int = 0
    seconds: float = 0.0


class WorkflowResult(Result[OutputT], frozen=True, eq=False):
    """The end of a workflow's run.

    Attributes:
        places: the places of the workflow's steps, without numbers, each with its index.
        tally: what became of them, by index.
    """

    places: tuple[tuple[str, int], ...] = ()
    tally: Tally = NOTHING

    @property
    def steps(self) -> dict[str, StepSummary]:
        """What became of each step, by its place without numbers, in the order of the workflow. O(steps)."""
        return summaries(self.places, self.tally)


def summaries(places: tuple[tuple[str, int], ...], tally: Tally) -> dict[str, StepSummary]:
    """Give what became of each step, by its place without numbers."""
    return {place: _summary(tally, index) for place, index in places}


def _summary(tally: Tally, index: int) -> StepSummary:
    runs, failures = tally.runs[index], tally.failures[index]
    outcome: StepOutcome = "not_run"
    if tally.waiting[index]:
        outcome = "waiting"
    elif runs:
        outcome = "done"
    elif failures:
        outcome = "failed"
    return StepSummary(outcome, runs, failures, tally.seconds[index])


def outcome_of(result: Result[Any], places: tuple[tuple[str, int], ...], tally: Tally) -> WorkflowResult[Any]:
    """Put what became of the steps to a result."""
    return WorkflowResult(
        result.value,
        result.messages,
        result.run_id,
        result.usage,
        result.finish_reason,
        result.model,
        result.duration,
        result.session,
        result.new,
        result.pending,
        result.stopped,
        result.agent,
        places,
        tally,
    )
