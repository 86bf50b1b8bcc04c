"""What pages of the documentation may need of the machine."""

from tests.services import bubblewrap

__all__ = ["bubblewrap"]
