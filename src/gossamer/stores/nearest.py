"""The nearest of vectors, by comparing all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.errors import ArgumentError

__all__ = ["nearest", "need_numpy"]


def nearest(vector: bytes, rows: Sequence[tuple[int, bytes]], limit: int) -> list[tuple[int, float]]:
    """Give the numbers of the vectors that are nearest by cosine, with it, the nearest first. O(rows).

    Args:
        vector: what is looked for, float32.
        rows: numbers and vectors, float32 of the same length.
        limit: the most that are given.
    """
    if not rows:
        return []
    np = need_numpy()
    wanted = np.frombuffer(vector, dtype=np.float32)
    matrix = np.frombuffer(b"".join(one for _, one in rows), dtype=np.float32).reshape(len(rows), -1)
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix)) * np.linalg.norm(wanted)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.nan_to_num(matrix @ wanted / lengths, nan=-1.0, posinf=-1.0, neginf=-1.0)
    best = np.argsort(-cosines, kind="stable")[:limit]
    return [(rows[index][0], float(cosines[index])) for index in best.tolist()]


def need_numpy() -> Any:
    """Give numpy.

    Raises:
        ArgumentError: it is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise ArgumentError("vectors need numpy: pip install 'gossamer[vectors]'") from error
    return np
