"""Agents together, and programs of them."""

from __future__ import annotations

from gossamer.flow.handoff import handoff
from gossamer.flow.workflow import (
    Condition,
    HumanInput,
    Loop,
    Map,
    Parallel,
    Picture,
    Retry,
    Router,
    Step,
    StepContext,
    StepSummary,
    Workflow,
    WorkflowResult,
    add_up,
    join_lists,
    take_last,
)

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
    "StepSummary",
    "Workflow",
    "WorkflowResult",
    "add_up",
    "handoff",
    "join_lists",
    "take_last",
]
