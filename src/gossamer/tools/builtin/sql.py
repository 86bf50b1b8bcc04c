"""A database for a model: its tables, what they hold, and queries, read-only unless said otherwise.

Nothing is decided by the words of a query. The database itself refuses to write: through a connection or a transaction
that is read-only and cannot be made anything else by a query, see `sql_sqlite`, `sql_duckdb` and `sql_postgres`.
"""

from __future__ import annotations

from typing import Any, Protocol

from gossamer.errors import ArgumentError
from gossamer.tools.builtin.rows import MAX_QUERY, QueryBounds, QueryError, Rows
from gossamer.tools.function import NeedsApproval, Tool, tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["sql"]


class _Database(Protocol):
    """What a kind of database does for the tools."""

    kind: str

    async def tables(self) -> Rows: ...
    async def describe(self, table: str) -> Rows: ...
    async def query(self, query: str) -> Rows: ...


def sql(
    url: str,
    *,
    writable: bool = False,
    needs_approval: NeedsApproval = False,
    name: str = "sql",
    max_rows: int = 100,
    max_cell: int = 1_000,
    timeout: float = 30.0,
    max_connections: int = 8,
    allow_superuser: bool = False,
) -> Toolkit:
    """Make a toolkit with which a model looks at a database: list tables, describe one, query.

    Args:
        url: `sqlite:///file.db` (four slashes for an absolute path), `duckdb:///file.db` or `postgresql://…`. A
            password in it is shown to nobody: not to the model, nor in errors and logs.
        writable: whether a query may change the database. Where not, the database refuses it.
        needs_approval: whether a person decides before a query runs, where it may write.
        name: of the toolkit. Where a tool's name is taken, it is put before it, so that two databases can be given.
        max_rows: rows that a query gives.
        max_cell: characters of a cell and of a column's name; a longer one is cut and says so.
        timeout: seconds that a query may take; it is stopped then.
        max_connections: connections to Postgres at once, for each event loop; further queries wait.
        allow_superuser: let a read-only toolkit use a Postgres role that may read and write files of the server.
            A transaction is no bound for what such a role can do, so that it is refused.

    Returns:
        The toolkit. Each call makes a connection of its own, so that nothing of a query is left for the next one.

    Raises:
        ArgumentError: the URL is of no known kind, or a bound is out of range.
    """
    bounds = QueryBounds(max_rows, max_cell, timeout)
    if max_connections < 1:
        raise ArgumentError(f"max_connections must be at least 1, not {max_connections}")
    database = _open(url, writable, bounds, max_connections, allow_superuser)
    work = _Queries(database)
    grace = timeout + 30  # the database's own bound comes first, and says more
    query = tool(
        description=_QUERY.format(
            kind=database.kind,
            does="that may change it" if writable else "that reads from it; it cannot be changed",
            rows=max_rows,
            seconds=timeout,
        ),
        idempotent=not writable,
        exclusive=writable,
        needs_approval=needs_approval and writable,
        timeout=grace,
    )(work.query_sql)
    tools: list[Tool[..., Any]] = [
        tool(idempotent=True, timeout=grace)(work.list_tables),
        tool(idempotent=True, timeout=grace)(work.describe_table),
        query,
    ]
    verb = "Query and change" if writable else "Query"
    return Toolkit(name, tools, description=f"{verb} a {database.kind} database.", on_clash="rename")


class _Queries:
    """The tools' work."""

    def __init__(self, database: _Database) -> None:
        self._database = database

    async def list_tables(self) -> Rows:
        """List the tables and views of the database."""
        return await self._database.tables()

    async def describe_table(self, table: str) -> Rows:
        """Tell the columns of a table or view, with their types.

        Args:
            table: its name, as `list_tables` gives it; "schema.name" where there are several schemas.
        """
        return await self._database.describe(_checked(table, "table"))

    async def query_sql(self, query: str) -> Rows:
        """Run a query.

        Args:
            query: one statement, in the database's own dialect.
        """
        return await self._database.query(_checked(query, "query"))


_QUERY = """Run one SQL statement on the {kind} database {does}.

At most {rows} rows are given and {seconds:g} seconds are taken: aggregate, and name the columns that you need."""


def _open(
    url: str, writable: bool, bounds: QueryBounds, max_connections: int, allow_superuser: bool
) -> _Database:
    kind, found, rest = url.partition("://") if isinstance(url, str) else ("", "", "")  # pyright: ignore[reportUnnecessaryIsInstance]
    if kind in {"postgresql", "postgres"} and found:
        from gossamer.tools.builtin.sql_postgres import PostgresDatabase

        return PostgresDatabase(url, writable, bounds, max_connections, allow_superuser)
    if kind in {"sqlite", "duckdb"} and found:
        if not rest.startswith("/") or len(rest) < 2 or "\0" in rest:
            raise ArgumentError(f"url of a {kind} database is {kind}:///file, or {kind}:////folder/file")
        if kind == "sqlite":
            from gossamer.tools.builtin.sql_sqlite import SQLiteDatabase

            return SQLiteDatabase(rest[1:], writable, bounds)
        from gossamer.tools.builtin.sql_duckdb import DuckDBDatabase

        return DuckDBDatabase(rest[1:], writable, bounds)
    # Not the URL itself: there may be a password in it.
    raise ArgumentError("url must begin with sqlite:///, duckdb:/// or postgresql://")


def _checked(text: str, what: str) -> str:
    if not text.strip():
        raise QueryError(f"{what} must not be empty")
    if "\0" in text:
        raise QueryError(f"{what} has no NUL character")
    if len(text) > MAX_QUERY:
        raise QueryError(f"{what} has {len(text)} characters; at most {MAX_QUERY} are taken")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError(f"{what} has half of a surrogate pair, which is no character") from None
    return text
