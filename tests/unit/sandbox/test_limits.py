"""Limits of sandboxes: each is one, and none is none."""

from __future__ import annotations

import math

import pytest

from gossamer import ArgumentError
from gossamer.sandbox import SandboxLimits

NAMES = SandboxLimits.__struct_fields__


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_limit_is_refused_by_its_name(name: str) -> None:
    for value in (0, -1, None, True, "9", math.inf, math.nan, 2**70):
        with pytest.raises(ArgumentError, match=f"^{name} must be"):
            SandboxLimits(**{name: value})
    if name not in {"timeout", "cpu_seconds"}:
        with pytest.raises(ArgumentError, match=f"^{name} must be a whole number"):
            SandboxLimits(**{name: 1.5})
    assert getattr(SandboxLimits(**{name: 1}), name) == 1
