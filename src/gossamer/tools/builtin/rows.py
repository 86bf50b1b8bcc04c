"""Queries of a model and what they give: so many rows, each cell so long, within so many seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, GossamerError
from gossamer.tools.builtin.rows_cut import cut_names, cut_rows
from gossamer.tools.builtin.stoppable import run_stoppable

__all__ = ["MAX_QUERY", "QueryBounds", "QueryError", "Rows", "rows_of", "run_query"]

# Characters of a query.
MAX_QUERY = 50_000


class QueryError(GossamerError):
    """A query cannot be run, or was stopped; the message says what the database told, or which bound was met."""


class Rows(msgspec.Struct, frozen=True):
    """What a query gives.

    Attributes:
        columns: their names; one that is too long is cut as a cell is.
        rows: a list of cells for each row; a cell that is too long is cut and says so. A floating
            number that is not finite is the text `Infinity`, `-Infinity` or `NaN`.
        more: whether there are rows that are left out.
    """

    columns: list[str]
    rows: list[list[Any]]
    more: bool = False


class QueryBounds(msgspec.Struct, frozen=True):
    """What a query may take and give.

    Attributes:
        max_rows: rows that are given.
        max_cell: characters of a cell, and of a column's name.
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
    rows, more = cut_rows(len(columns), found, bounds.max_rows, bounds.max_cell)
    return Rows(cut_names(columns, bounds.max_cell), rows, more)


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
