"""Agents together, and programs of them."""

from __future__ import annotations

from gossamer.flow.code_mode import code_mode
from gossamer.flow.delegating import Member
from gossamer.flow.fanout import FanoutPipeline, fanout_pipeline
from gossamer.flow.handoff import handoff
from gossamer.flow.hub import MessageHub
from gossamer.flow.merged import AgentEvent, MergedStream, stream_pipeline
from gossamer.flow.plan import Plan, PlanChange, PlanItem, plan_of, plan_toolkit
from gossamer.flow.sequential import SequentialPipeline, sequential_pipeline
from gossamer.flow.team import Team
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
    "Member",
    "MergedStream",
    "MessageHub",
    "Parallel",
    "Picture",
    "Plan",
    "PlanChange",
    "PlanItem",
    "Retry",
    "Router",
    "SequentialPipeline",
    "Step",
    "StepContext",
    "StepSummary",
    "Team",
    "Workflow",
    "WorkflowResult",
    "add_up",
    "code_mode",
    "fanout_pipeline",
    "handoff",
    "join_lists",
    "plan_of",
    "plan_toolkit",
    "sequential_pipeline",
    "stream_pipeline",
    "take_last",
]
