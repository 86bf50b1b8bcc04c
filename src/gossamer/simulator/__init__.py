"""A model provider you can run: the wire formats of five, set latency, speed and faults, scripted replies."""

from __future__ import annotations

from gossamer.simulator.faults import Fault, RateFault
from gossamer.simulator.replies import Prompt, Reply, ToolUse, default_reply
from gossamer.simulator.script import Script
from gossamer.simulator.serve import serve
from gossamer.simulator.server import Simulator
from gossamer.simulator.stats import DialectStats, SimulatorStats

__all__ = [
    "DialectStats",
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
