"""Python that nobody has read, in isolation: what every sandbox does, Monty for snippets, bubblewrap for full CPython."""

from gossamer.sandbox.base import (
    Execution,
    Functions,
    Sandbox,
    SandboxFile,
    SandboxLimits,
    SandboxSession,
)
from gossamer.sandbox.host_functions import HostAnswer, HostCall, HostFunctions

__all__ = [
    "Execution",
    "Functions",
    "HostAnswer",
    "HostCall",
    "HostFunctions",
    "Sandbox",
    "SandboxFile",
    "SandboxLimits",
    "SandboxSession",
]
