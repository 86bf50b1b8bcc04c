"""Which sandboxes this machine can have, and why not: a part of `gossamer doctor`."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from gossamer.cli.screen import Screen
from gossamer.errors import GossamerError, SandboxUnavailableError
from gossamer.sandbox import BubblewrapSandbox, MontySandbox

__all__ = ["SandboxState", "look_for_sandboxes", "show_sandboxes"]


class SandboxState(msgspec.Struct, frozen=True):
    """Whether a sandbox can be had here.

    Attributes:
        name: the sandbox.
        ready: whether it can; code has run in it.
        found: what it uses, with versions.
        why: why not, and what to do; empty where it can.
    """

    name: str
    ready: bool
    found: str = ""
    why: str = ""


class _Checked(Protocol):
    name: str

    async def check(self) -> str: ...


async def look_for_sandboxes() -> tuple[SandboxState, ...]:
    """Begin each sandbox, run a line of code in it, and end it."""
    sandboxes: tuple[_Checked, ...] = (MontySandbox(), BubblewrapSandbox())
    return tuple(await asyncio.gather(*map(_state, sandboxes)))


def show_sandboxes(screen: Screen, states: tuple[SandboxState, ...]) -> None:
    """Show what `look_for_sandboxes` found."""
    screen.line("\nSandboxes", "bold")
    for state in states:
        if state.ready:
            screen.line(f"  ✓ {state.name}: {state.found}")
        else:
            screen.line(f"  - {state.name}: not ready; {state.why}", "yellow")


async def _state(sandbox: _Checked) -> SandboxState:
    try:
        return SandboxState(sandbox.name, ready=True, found=await sandbox.check())
    except SandboxUnavailableError as error:
        return SandboxState(sandbox.name, ready=False, why=str(error))
    except GossamerError as error:  # it began, and did not do as it should
        return SandboxState(sandbox.name, ready=False, why=f"{type(error).__name__}: {error}")
