"""A model provider you can run: OpenAI's wire format, set latency, speed and faults, scripted replies."""

from __future__ import annotations

from gossamer.simulator.faults import Fault, RateFault
from gossamer.simulator.replies import Prompt, Reply, ToolUse, default_reply
from gossamer.simulator.script import Script
from gossamer.simulator.serve import serve
from gossamer.simulator.server import Simulator
from gossamer.simulator.service import SimulatorStats

__all__ = [
    "Fault",
    "Prompt",
    "RateFault",
    "Reply",
    "Script",
    "Simulator",
    "SimulatorStats",
    "ToolUse",
    "default_reply",
    "serve",
]
