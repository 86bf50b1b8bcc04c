"""Rows cut to what a model may be given. On the standard library alone: a process of its own runs this file too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["cut_names", "cut_rows"]

_MOST_CHARACTERS = 200_000  # of all cells together, and of all names of columns together
_LARGEST_INTEGER = 2**63


def cut_rows(
    width: int, found: Iterable[Sequence[Any]], max_rows: int, max_cell: int
) -> tuple[list[list[Any]], bool]:
    """Take as many rows as may be given, and cut their cells. One row more is taken, to know whether there are more.

    Args:
        width: how many columns there are.
        found: rows as the database gives them, one after the other.
        max_rows: how many rows.
        max_cell: characters of a cell; fewer where there are so many columns that a single row would be too long.

    Returns:
        The rows, and whether some are left out.
    """
    most = _most(width, max_cell)
    rows: list[list[Any]] = []
    size = 0
    for row in found:
        if len(rows) == max_rows or size > _MOST_CHARACTERS:
            return rows, True
        cells = [_cell(value, most) for value in row]
        size += sum(len(cell) if isinstance(cell, str) else 8 for cell in cells)
        rows.append(cells)
    return rows, False


def cut_names(names: Sequence[str], max_cell: int) -> list[str]:
    """Cut the names of columns as cells are cut: a query may name a column by any text."""
    most = _most(len(names), max_cell)
    return [_cell(name, most) for name in names]


def _most(width: int, max_cell: int) -> int:
    return min(max_cell, max(_MOST_CHARACTERS // max(width, 1), 1))


def _cell(value: Any, most: int) -> Any:
    """Make a value one that JSON can hold, and no longer than may be."""
    if isinstance(value, float) and not math.isfinite(
        value
    ):  # JSON has none of them, and null is something else
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER else _cell(str(value), most)
    text = f"{len(value)} bytes: {value[: most // 2 + 1].hex()}" if isinstance(value, bytes) else str(value)
    if len(text) > most:
        text = f"{text[:most]}… [cut at {most} characters]"
    return text if text.isascii() else text.encode(errors="replace").decode()
