"""Toolkits that come with Gossamer. Each is a function that gives a `Toolkit`."""

from __future__ import annotations

from gossamer.tools.builtin.calculator import CalculationError, calculator

__all__ = [
    "CalculationError",
    "calculator",
]
