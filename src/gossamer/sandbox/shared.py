"""The sandboxes of a process that are shared by all who were given none: what they hold is bounded once."""

from __future__ import annotations

from functools import cache

from gossamer.sandbox.bubblewrap import BubblewrapSandbox
from gossamer.sandbox.monty import MontySandbox

__all__ = ["SHARED_PLACES", "shared_bubblewrap", "shared_monty"]

# As many conversations have something open, or run something, at once.
SHARED_PLACES = 16


@cache
def shared_monty() -> MontySandbox:
    """Give the process's `MontySandbox`."""
    return MontySandbox(size=SHARED_PLACES)


@cache
def shared_bubblewrap() -> BubblewrapSandbox:
    """Give the process's `BubblewrapSandbox`."""
    return BubblewrapSandbox(size=SHARED_PLACES)
