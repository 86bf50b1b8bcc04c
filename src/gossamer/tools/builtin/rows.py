"""Rows of a query for a model: so many, each cell so long, within so many seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, GossamerError
from gossamer.tools.builtin.stoppable import run_stoppable

__all__ = ["QueryBounds", "QueryError", "Rows", "rows_of", "run_query"]

_MOST_CHARACTERS = 200_000  # of all cells together
_LARGEST_INTEGER = 2**63


class QueryError(GossamerError):
    """A query cannot be run, or was stopped; the message says what the database told, or which bound was met."""


class Rows(msgspec.Struct, frozen=True):
    """What a query gives.

    Attributes:
        columns: their names.
        rows: a list of cells for each row; a cell that is too long is cut and says so.
        more: whether there are rows that are left out.
    """

    columns: list[str]
    rows: list[list[Any]]
    more: bool = False


class QueryBounds(msgspec.Struct, frozen=True):
    """What a query may take and give.

    Attributes:
        max_rows: rows that are given.
        max_cell: characters of a cell.
        timeout: seconds.

    Raises:
        ArgumentError: a bound is below 1, or the time not above 0.
    """

    max_rows: int
    max_cell: int
    timeout: float

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ArgumentError(f"max_rows must be at least 1, not {self.max_rows}")
        if self.max_cell < 1:
            raise ArgumentError(f"max_cell must be at least 1, not {self.max_cell}")
        if not 0 < self.timeout <= 86_400:
            raise ArgumentError(f"timeout must be above 0 and at most 86,400 seconds, not {self.timeout}")


def rows_of(columns: Sequence[str], found: Iterable[Sequence[Any]], bounds: QueryBounds) -> Rows:
    """Take as many rows as may be given, and cut their cells. One row more is taken, to know whether there are more.

    Args:
        columns: names of the columns.
        found: rows as the database gives them, one after the other.
        bounds: how many, and how long.
    """
    rows: list[list[Any]] = []
    size = 0
    for row in found:
        if len(rows) == bounds.max_rows or size > _MOST_CHARACTERS:
            return Rows([*columns], rows, more=True)
        cells = [_cell(value, bounds.max_cell) for value in row]
        size += sum(len(cell) if isinstance(cell, str) else 8 for cell in cells)
        rows.append(cells)
    return Rows([*columns], rows)


async def run_query(work: Callable[[], Rows], stop: Callable[[], None], seconds: float) -> Rows:
    """Run a query in a thread, see `run_stoppable`.

    Raises:
        QueryError: the time is over.
    """
    try:
        return await run_stoppable(work, stop, seconds)
    except TimeoutError:
        raise QueryError(
            f"the query took longer than {seconds:g} seconds and was stopped; ask for less"
        ) from None


def _cell(value: Any, most: int) -> Any:
    """Make a value one that JSON can hold, and no longer than may be."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER else _cell(str(value), most)
    text = f"{len(value)} bytes: {value[: most // 2 + 1].hex()}" if isinstance(value, bytes) else str(value)
    if len(text) > most:
        text = f"{text[:most]}… [cut at {most} characters]"
    return text if text.isascii() else text.encode(errors="replace").decode()
