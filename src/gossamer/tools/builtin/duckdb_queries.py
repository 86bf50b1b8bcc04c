"""Queries on DuckDB that reach no file, no network and no setting, and give bounded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gossamer.errors import ToolkitError
from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows, rows_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["CONFIGURATION", "LOCK", "READING", "load_duckdb", "query_duckdb"]

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
