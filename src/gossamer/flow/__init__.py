"""Agents together, and programs of them."""

from __future__ import annotations

from gossamer.flow.fanout import FanoutPipeline, fanout_pipeline
from gossamer.flow.handoff import handoff
from gossamer.flow.hub import MessageHub
from gossamer.flow.merged import AgentEvent, MergedStream, stream_pipeline
from gossamer.flow.sequential import SequentialPipeline, sequential_pipeline
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
    "AgentEvent",
    "Condition",
    "FanoutPipeline",
    "HumanInput",
    "Loop",
    "Map",
    "MergedStream",
    "MessageHub",
    "Parallel",
    "Picture",
    "Retry",
    "Router",
    "SequentialPipeline",
    "Step",
    "StepContext",
    "StepSummary",
    "Workflow",
    "WorkflowResult",
    "add_up",
    "fanout_pipeline",
    "handoff",
    "join_lists",
    "sequential_pipeline",
    "stream_pipeline",
    "take_last",
]
