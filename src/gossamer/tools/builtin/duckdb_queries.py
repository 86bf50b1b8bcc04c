"""Queries on DuckDB that reach no file, no network and no setting, and give bounded rows."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from threading import Condition
from time import monotonic, sleep
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from gossamer.errors import ToolkitError
from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows, rows_of, run_query

if TYPE_CHECKING:
    import duckdb

__all__ = ["CONFIGURATION", "LOCK", "READING", "inside_duckdb", "load_duckdb", "query_duckdb", "run_duckdb"]

# How DuckDB is opened. Beside files and network this keeps it from secrets of the user and from variables of the
# Python functions around the call, where it would look for tables by their names.
CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "memory_limit": "512MB",
    "threads": 2,
}
LOCK: dict[str, str | bool | int | float | list[str]] = {"lock_configuration": True}

# Kinds of statements, as DuckDB's own parser names them.
READING = frozenset(("SELECT", "EXPLAIN"))

# How long the exit of Python waits for threads to leave DuckDB.
_EXIT_SECONDS = 10.0

# Types whose values cannot be long; those of others are made text and cut by DuckDB, before Python holds them.
_SHORT = frozenset(
    (
        *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    )
)


def load_duckdb() -> None:
    """Load the library. Slow at the first time, so that it belongs in a thread.

    Raises:
        ToolkitError: it is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ToolkitError(
            "DuckDB is missing; install it with: pip install 'gossamer[sql]' (or 'gossamer[dataframes]')"
        ) from error
    del duckdb


async def run_duckdb(
    connect: Callable[[], duckdb.DuckDBPyConnection],
    work: Callable[[duckdb.DuckDBPyConnection], Rows],
    seconds: float,
) -> Rows:
    """Run work on a connection of its own in a thread, which closes it; interrupt it when nobody waits any more.

    Args:
        connect: makes the connection, in the thread.
        work: what is done with it, in the thread.
        seconds: how long it may take.

    Raises:
        QueryError: the work failed, or the time is over.
    """
    opened: list[duckdb.DuckDBPyConnection] = []

    def run() -> Rows:
        with inside_duckdb(opened):
            if _inside.ending:
                raise QueryError("Python is about to end, and no query is run any more")
            return _on_connection(connect, work, opened)

    return await run_query(run, lambda: _interrupt(opened), seconds)


def _on_connection(
    connect: Callable[[], duckdb.DuckDBPyConnection],
    work: Callable[[duckdb.DuckDBPyConnection], Rows],
    opened: list[duckdb.DuckDBPyConnection],
) -> Rows:
    connection = connect()
    opened.append(connection)
    try:
        return work(connection)
    finally:
        opened.clear()  # before it is closed: nobody interrupts what is gone
        connection.close()


def query_duckdb(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    bounds: QueryBounds,
    *,
    kinds: frozenset[str] = READING,
    parameters: Sequence[str] = (),
) -> Rows:
    """Run one statement of a kind that is allowed, and give its rows. Blocks.

    Args:
        connection: opened with `CONFIGURATION` and `LOCK`.
        query: what to run.
        bounds: how many rows, and how long a cell may be.
        kinds: which kinds of statements may be run.
        parameters: for the marks in the query, one of our own.

    Raises:
        QueryError: it is several statements, of another kind, or DuckDB refused or failed to run it.
    """
    import duckdb

    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise QueryError(f"give one statement, not {len(statements)}")
        kind = statements[0].type.name
        if kind not in kinds:
            allowed = ", ".join(sorted(kinds))
            raise QueryError(f"a statement of kind {kind} is not allowed here; allowed are {allowed}")
        if kind != "SELECT":
            cursor = connection.execute(statements[0])
            return _fetched(cursor, [column[0] for column in cursor.description or ()], bounds)
        inner = query.strip().rstrip("; \n\t")
        # The model's statement stands inside ours as it is: it has been read as one statement of a kind that is allowed.
        connection.execute(f"DESCRIBE SELECT * FROM (\n{inner}\n) AS result", parameters)  # noqa: S608
        described: list[Any] = connection.fetchall()
        names = [f"c{number}" for number in range(len(described))]
        cells = [
            name if column[1] in _SHORT else f"left(CAST({name} AS VARCHAR), {bounds.max_cell + 1})"
            for name, column in zip(names, described, strict=True)
        ]
        bounded = (
            f"SELECT {', '.join(cells)} FROM (\n{inner}\n) "  # noqa: S608
            f"AS result({', '.join(names)}) LIMIT {bounds.max_rows + 1}"
        )
        if len(connection.extract_statements(bounded)) != 1:
            raise QueryError("the query cannot be read; give one SELECT without a semicolon")
        cursor = connection.execute(bounded, parameters)
        return _fetched(cursor, [column[0] for column in described], bounds)
    except duckdb.Error as error:
        raise QueryError(_short(str(error))) from None


def _fetched(cursor: duckdb.DuckDBPyConnection, columns: list[str], bounds: QueryBounds) -> Rows:
    found: list[Any] = cursor.fetchmany(bounds.max_rows + 1) if columns else []
    return rows_of(columns, found, bounds)


def _short(message: str) -> str:
    """Leave out what DuckDB quotes of the query that we made around the model's."""
    message = message.partition("\n\nLINE ")[0].strip()
    return message if len(message) <= 2_000 else message[:2_000] + "…"


# --- the exit of Python ---------------------------------------------------------------------------------------------


class _Inside:
    """What threads do in DuckDB at this time: for each its connections, which can be interrupted."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.threads: list[list[duckdb.DuckDBPyConnection]] = []
        self.ending = False

    def leave(self, opened: list[duckdb.DuckDBPyConnection]) -> None:
        with self.changed:
            self.threads[:] = [one for one in self.threads if one is not opened]
            self.changed.notify_all()


_inside = _Inside()


@contextmanager
def inside_duckdb(opened: list[duckdb.DuckDBPyConnection], *, parked: bool = True) -> Generator[None]:
    """Say that this thread is in DuckDB, so that Python waits for it at its exit.

    A thread that comes back from C++ after Python has ended is ended by force there, which aborts the process. So does
    one that drops the last of a connection then: an error takes nothing of DuckDB with it in its frames.

    Args:
        opened: the connections that are interrupted then; empty as long as there is none.
        parked: whether the thread goes no further when Python ends; somebody may wait for its end where not.
    """
    inside = _inside
    with inside.changed:
        inside.threads.append(opened)
    try:
        yield
    except BaseException as error:
        one: BaseException | None = error
        while one is not None:
            clear_frames(one.__traceback__)
            one = one.__context__
        if inside.ending and parked:
            inside.leave(opened)
            _stay()
        raise
    finally:
        inside.leave(opened)
    if inside.ending and parked:
        _stay()


def _stay() -> None:
    """Keep a daemon thread until Python ends it, so that nothing of DuckDB is dropped by it meanwhile."""
    while True:
        sleep(60)


@atexit.register
def _leave() -> None:
    inside, deadline = _inside, monotonic() + _EXIT_SECONDS
    inside.ending = True
    with inside.changed:
        while inside.threads and monotonic() < deadline:
            for opened in inside.threads:
                _interrupt(opened)
            inside.changed.wait(0.05)  # and again: what it was told may have come before its query


def _interrupt(opened: list[duckdb.DuckDBPyConnection]) -> None:
    for connection in opened.copy():  # its thread empties it meanwhile
        with suppress(Exception):  # closed just now
            connection.interrupt()


def _renew() -> None:
    global _inside  # noqa: PLW0603 - a forked child has none of its parent's threads
    _inside = _Inside()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
