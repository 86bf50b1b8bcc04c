"""What a path of Azure's says."""

from __future__ import annotations

__all__ = ["deployment"]


def deployment(path: bytes) -> str:
    """The deployment that a path names, which stands for the model; empty where it names none."""
    _, found, rest = path.rpartition(b"/deployments/")
    return rest.partition(b"/")[0].decode("latin-1") if found else ""
