"""Steps in an order that a program decides: built of values, checked when built, stored after each step."""

from __future__ import annotations

from gossamer.flow.workflow.outcome import StepSummary, WorkflowResult
from gossamer.flow.workflow.picture import Picture
from gossamer.flow.workflow.state import add_up, join_lists, take_last
from gossamer.flow.workflow.step_context import StepContext
from gossamer.flow.workflow.steps import (
    Condition,
    HumanInput,
    Loop,
    Map,
    Parallel,
    Retry,
    Router,
    Step,
    StepLike,
)
from gossamer.flow.workflow.workflow import Workflow

__all__ = [
    "Condition",
    "HumanInput",
    "Loop",
    "Map",
    "Parallel",
    "Picture",
    "Retry",
    "Router",
    "Step",
    "StepContext",
    "StepLike",
    "StepSummary",
    "Workflow",
    "WorkflowResult",
    "add_up",
    "join_lists",
    "take_last",
]
