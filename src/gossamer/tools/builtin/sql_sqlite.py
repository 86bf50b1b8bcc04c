"""SQLite: a connection that is read-only, and a list of what a statement may do that SQLite itself holds to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows, rows_of, run_query

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteDatabase"]

_STEPS = 1_000  # of SQLite's machine between two looks at whether to stop

# What a query may make SQLite hold at once. A value longer than that cannot be read, nor made.
_MAX_VALUE = 10_000_000

_TABLES = """SELECT name AS "table", type FROM sqlite_master
WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"""
_COLUMNS = """SELECT c.name AS "column", c.type, NOT c."notnull" AS nullable, c.dflt_value AS "default",
CASE WHEN c.pk > 0 THEN 'primary key' ELSE (
    SELECT group_concat('references ' || f."table" || '(' || coalesce(f."to", '') || ')', ', ')
    FROM pragma_foreign_key_list(?1) f WHERE f."from" = c.name
) END AS "key" FROM pragma_table_xinfo(?1) c ORDER BY c.cid"""

# Told of a statement before it runs: everything else is denied, other files and settings among it.
_READING = ("SELECT", "READ", "FUNCTION", "RECURSIVE")
_WRITING = (
    *("INSERT", "UPDATE", "DELETE", "ALTER_TABLE", "REINDEX", "ANALYZE"),
    *("CREATE_TABLE", "CREATE_INDEX", "CREATE_VIEW", "CREATE_TRIGGER"),
    *("DROP_TABLE", "DROP_INDEX", "DROP_VIEW", "DROP_TRIGGER"),
)
_PRAGMAS = frozenset(
    ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list")
)
# load_extension runs a program, the others give at memory or files; most are not there to begin with.
_DENIED_FUNCTIONS = frozenset(
    ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "fileio_ls")
)


class SQLiteDatabase:
    """A file of SQLite; each call opens it anew, in a thread.

    Args:
        path: of the file, which must be there.
        writable: whether it may be changed.
        bounds: of each query.
    """

    kind = "SQLite"

    def __init__(self, path: str, writable: bool, bounds: QueryBounds) -> None:
        self._url = f"{Path(path).absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
        self._writable = writable
        self._bounds = bounds

    async def tables(self) -> Rows:
        """List the tables and views.

        Raises:
            QueryError: the file cannot be read.
        """
        return await self._run(lambda connection: self._rows(connection, _TABLES))

    async def describe(self, table: str) -> Rows:
        """Tell the columns of a table.

        Raises:
            QueryError: there is no such table.
        """
        rows = await self._run(lambda connection: self._rows(connection, _COLUMNS, (table,)))
        if not rows.rows:
            raise QueryError(f"there is no table {table!r}; list_tables tells what there is")
        return rows

    async def query(self, query: str) -> Rows:
        """Run one statement, in a transaction of its own.

        Raises:
            QueryError: SQLite refused or failed to run it, or it took too long.
        """
        return await self._run(lambda connection: self._rows(connection, query))

    async def _run(self, work: Callable[[sqlite3.Connection], Rows]) -> Rows:
        stopped = threading.Event()
        opened: list[sqlite3.Connection] = []

        def run() -> Rows:
            with self._connected(stopped) as connection:
                opened.append(connection)
                return work(connection)

        def stop() -> None:
            stopped.set()
            for connection in opened:  # sooner than the next look, where single steps take long
                with contextlib.suppress(Exception):  # closed just now
                    connection.interrupt()

        return await run_query(run, stop, self._bounds.timeout)

    @contextlib.contextmanager
    def _connected(self, stopped: threading.Event) -> Generator[sqlite3.Connection]:
        import sqlite3

        try:
            connection = sqlite3.connect(self._url, uri=True, isolation_level=None, timeout=5.0)
            try:
                self._guard(connection, stopped)
                yield connection
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise QueryError("the query was stopped") from None
            raise QueryError(str(error)) from None
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            raise QueryError(self._explained(str(error))) from None

    def _guard(self, connection: sqlite3.Connection, stopped: threading.Event) -> None:
        import sqlite3

        connection.text_factory = _decoded
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        # A long pattern takes time without a step of SQLite's machine, after which it could be stopped.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
        connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
        # A view of a hostile file calls no function that has effects.
        connection.execute("PRAGMA trusted_schema=OFF")
        if self._writable:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("PRAGMA query_only=ON")
        allowed = _READING + _WRITING if self._writable else _READING
        codes = {getattr(sqlite3, f"SQLITE_{name}") for name in allowed}
        pragma, function, update = sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_UPDATE

        def authorise(action: int, first: str | None, second: str | None, *_: Any) -> int:
            if action == pragma:
                return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY
            if action == function and (second or "").lower() in _DENIED_FUNCTIONS:
                return sqlite3.SQLITE_DENY
            if action == update and first == "sqlite_master":
                # So SQLite asks when it meets json_each or an index of words. A statement of one's own that would
                # change that table is refused by SQLite in any case.
                return sqlite3.SQLITE_OK
            return sqlite3.SQLITE_OK if action in codes else sqlite3.SQLITE_DENY

        connection.set_authorizer(authorise)
        connection.set_progress_handler(stopped.is_set, _STEPS)

    def _rows(self, connection: sqlite3.Connection, query: str, parameters: Sequence[str] = ()) -> Rows:
        cursor = connection.execute(query, parameters)
        columns = [column[0] for column in cursor.description or ()]
        rows = rows_of(columns, cursor, self._bounds)
        cursor.close()
        if self._writable:
            connection.set_authorizer(None)
            changed = connection.total_changes
            connection.execute("COMMIT")
            if not columns:
                return Rows(["changed rows"], [[changed]])
        return rows

    def _explained(self, message: str) -> str:
        if message == "not authorized" or "prohibited" in message:
            what = (
                "this statement" if self._writable else "the database is read-only here, and this statement"
            )
            return f"{message}: {what} may not be run; there is neither ATTACH nor a setting or transaction to make"
        return message


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")
