"""Sandboxes for tests."""

from tests.services import bubblewrap

__all__ = ["bubblewrap"]
