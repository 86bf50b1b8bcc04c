"""Agents together."""

from __future__ import annotations

from gossamer.flow.handoff import handoff

__all__ = ["handoff"]
