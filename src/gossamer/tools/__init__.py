"""Tools: functions that a model may call, and how they are run."""

from __future__ import annotations

from gossamer.tools.function import RunBy, Tool, tool
from gossamer.tools.offload import Offload
from gossamer.tools.sandbox_place import CommandSandbox, CommandSession, sandbox_session
from gossamer.tools.skills import skills
from gossamer.tools.threads import MAX_ABANDONED, MAX_THREADS, ThreadStatistics, thread_statistics
from gossamer.tools.toolkit import Equip, Equipped, OnClash, Scope, Toolkit

__all__ = [
    "MAX_ABANDONED",
    "MAX_THREADS",
    "CommandSandbox",
    "CommandSession",
    "Equip",
    "Equipped",
    "Offload",
    "OnClash",
    "RunBy",
    "Scope",
    "ThreadStatistics",
    "Tool",
    "Toolkit",
    "sandbox_session",
    "skills",
    "thread_statistics",
    "tool",
]
