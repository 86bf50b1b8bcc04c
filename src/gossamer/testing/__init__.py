"""For your own tests: record what providers answered, and replay it without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.errors import CassetteError
    from gossamer.testing.cassette import Cassette

__all__ = ["Cassette", "CassetteError"]

# Loaded at first use: pytest imports this package at every start, whether or not a test has a cassette.
_LATE = {"Cassette": "gossamer.testing.cassette", "CassetteError": "gossamer.errors"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_LATE[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
