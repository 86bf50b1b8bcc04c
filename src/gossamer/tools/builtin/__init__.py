"""Toolkits that come with Gossamer. Each is a function that gives a `Toolkit`."""

from __future__ import annotations

__all__: list[str] = []
