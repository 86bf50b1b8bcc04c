"""Services that the tests of toolkits use."""

from __future__ import annotations

from tests.services import bubblewrap, postgres

__all__ = ["bubblewrap", "postgres"]
