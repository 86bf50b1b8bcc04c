"""Python that nobody has read, in isolation: what every sandbox does, Monty for snippets, bubblewrap for full CPython."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gossamer.sandbox.base import (
    Execution,
    Functions,
    Sandbox,
    SandboxFile,
    SandboxLimits,
    SandboxSession,
)
from gossamer.sandbox.host_functions import HostAnswer, HostCall, HostFunctions

if TYPE_CHECKING:
    from gossamer.sandbox.bubblewrap import BubblewrapSandbox
    from gossamer.sandbox.bubblewrap_session import BubblewrapSession
    from gossamer.sandbox.monty import MontySandbox
    from gossamer.sandbox.monty_session import MontySession

__all__ = [
    "BubblewrapSandbox",
    "BubblewrapSession",
    "Execution",
    "Functions",
    "HostAnswer",
    "HostCall",
    "HostFunctions",
    "MontySandbox",
    "MontySession",
    "Sandbox",
    "SandboxFile",
    "SandboxLimits",
    "SandboxSession",
]


# What is loaded at its first use, and where it stands.
_LATE = {
    "BubblewrapSandbox": "bubblewrap",
    "BubblewrapSession": "bubblewrap_session",
    "MontySandbox": "monty",
    "MontySession": "monty_session",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"gossamer.sandbox.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
