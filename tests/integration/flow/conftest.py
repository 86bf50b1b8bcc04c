"""Services that the tests of workflows use."""

from tests.services import postgres

__all__ = ["postgres"]
