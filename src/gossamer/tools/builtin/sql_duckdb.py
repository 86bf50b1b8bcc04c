"""DuckDB: a file that is opened read-only, without access to any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.tools.builtin.duckdb_queries import (
    CONFIGURATION,
    LOCK,
    READING,
    load_duckdb,
    query_duckdb,
    run_duckdb,
)
from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows

if TYPE_CHECKING:
    import duckdb

__all__ = ["DuckDBDatabase"]

_WRITING = READING | {"INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "ALTER", "DROP"}

_TABLES = """SELECT table_schema AS "schema", table_name AS "table", lower(table_type) AS type
FROM information_schema.tables WHERE table_catalog = current_database() ORDER BY 1, 2"""
_COLUMNS = """SELECT column_name AS "column", data_type AS type, is_nullable = 'YES' AS nullable,
column_default AS "default" FROM information_schema.columns
WHERE table_catalog = current_database() AND $1 IN (table_name, table_schema || '.' || table_name)
ORDER BY table_schema, table_name, ordinal_position"""


class DuckDBDatabase:
    """A file of DuckDB; each call opens it anew, in a thread, so that other processes can write to it meanwhile.

    Args:
        path: of the file, which must be there.
        writable: whether it may be changed.
        bounds: of each query.
    """

    kind = "DuckDB"

    def __init__(self, path: str, writable: bool, bounds: QueryBounds) -> None:
        self._path = Path(path).absolute()
        self._kinds = _WRITING if writable else READING
        self._writable = writable
        self._bounds = bounds

    async def tables(self) -> Rows:
        """List the tables and views.

        Raises:
            QueryError: the file cannot be read.
        """
        return await self._run(lambda connection: query_duckdb(connection, _TABLES, self._bounds))

    async def describe(self, table: str) -> Rows:
        """Tell the columns of a table.

        Raises:
            QueryError: there is no such table.
        """
        rows = await self._run(
            lambda connection: query_duckdb(connection, _COLUMNS, self._bounds, parameters=(table,))
        )
        if not rows.rows:
            raise QueryError(f"there is no table {table!r}; list_tables tells what there is")
        return rows

    async def query(self, query: str) -> Rows:
        """Run one statement.

        Raises:
            QueryError: DuckDB refused or failed to run it, or it took too long.
        """
        return await self._run(
            lambda connection: query_duckdb(connection, query, self._bounds, kinds=self._kinds)
        )

    async def _run(self, work: Callable[[duckdb.DuckDBPyConnection], Rows]) -> Rows:
        return await run_duckdb(self._connect, work, self._bounds.timeout)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        load_duckdb()
        import duckdb

        if not self._path.is_file():  # a writable connection would make it
            raise QueryError("there is no such database file")
        try:
            return duckdb.connect(self._path, read_only=not self._writable, config={**CONFIGURATION, **LOCK})
        except duckdb.Error as error:
            raise QueryError(
                f"the database cannot be opened: {error}".replace(str(self._path), "it")
            ) from None
