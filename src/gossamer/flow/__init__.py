"""Agents together."""

from __future__ import annotations

from gossamer.flow.fanout import FanoutPipeline, fanout_pipeline
from gossamer.flow.handoff import handoff
from gossamer.flow.hub import MessageHub
from gossamer.flow.merged import AgentEvent, MergedStream, stream_pipeline
from gossamer.flow.sequential import SequentialPipeline, sequential_pipeline

__all__ = [
    "AgentEvent",
    "FanoutPipeline",
    "MergedStream",
    "MessageHub",
    "SequentialPipeline",
    "fanout_pipeline",
    "handoff",
    "sequential_pipeline",
    "stream_pipeline",
]
