"""What a run of a workflow gives back: a result, and what became of each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from gossamer.flow.workflow.execution import Tally
from gossamer.result import Result

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from gossamer.flow.workflow.workflow import Workflow

    OutputT = TypeVar("OutputT", default=Any)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["StepOutcome", "StepSummary", "WorkflowResult", "outcome_of"]

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


_NO_STEPS: Mapping[str, StepSummary] = {}


class WorkflowResult(Result[OutputT], frozen=True, eq=False):
    """The end of a workflow's run.

    Attributes:
        steps: what became of each step, by its place without numbers, in the order of the workflow.
    """

    steps: Mapping[str, StepSummary] = _NO_STEPS


def outcome_of(result: Result[Any], workflow: Workflow[Any, Any], tally: Tally) -> WorkflowResult[Any]:
    """Put what became of the steps to a result."""
    fields: dict[str, Any] = {name: getattr(result, name) for name in result.__struct_fields__}
    return WorkflowResult(**fields, steps=workflow.summarised(tally))
