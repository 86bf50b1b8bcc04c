"""SQLite: a connection that is read-only, and a list of what a statement may do that SQLite itself holds to.

Each call has a process of its own, see `sql_sqlite_process`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from gossamer.tools.builtin import sql_sqlite_process
from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows, run_query
from gossamer.tools.builtin.rows_cut import cut_names

__all__ = ["SQLiteDatabase"]

_STOPS = 20  # how often a process that writes is told to end before it is killed: a second long

_TABLES = """SELECT name AS "table", type FROM sqlite_master
WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"""
_COLUMNS = """SELECT c.name AS "column", c.type, NOT c."notnull" AS nullable, c.dflt_value AS "default",
CASE WHEN c.pk > 0 THEN 'primary key' ELSE (
    SELECT group_concat('references ' || f."table" || '(' || coalesce(f."to", '') || ')', ', ')
    FROM pragma_foreign_key_list(?1) f WHERE f."from" = c.name
) END AS "key" FROM pragma_table_xinfo(?1) c ORDER BY c.cid"""


class SQLiteDatabase:
    """A file of SQLite; each call opens it anew, in a process.

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
        return await self.query(_TABLES)

    async def describe(self, table: str) -> Rows:
        """Tell the columns of a table.

        Raises:
            QueryError: there is no such table.
        """
        rows = await self.query(_COLUMNS, table)
        if not rows.rows:
            raise QueryError(f"there is no table {table!r}; list_tables tells what there is")
        return rows

    async def query(self, query: str, *parameters: str) -> Rows:
        """Run one statement, in a transaction of its own.

        Raises:
            QueryError: SQLite refused or failed to run it, or it took too long.
        """
        bounds = self._bounds
        question = msgspec.json.encode(
            {
                "url": self._url,
                "query": query,
                "parameters": parameters,
                "writable": self._writable,
                "max_rows": bounds.max_rows,
                "max_cell": bounds.max_cell,
                "seconds": bounds.timeout,
            }
        )
        started: list[subprocess.Popen[bytes]] = []
        stops = 0

        def stop() -> None:
            nonlocal stops
            for process in started:
                stops += 1
                with contextlib.suppress(OSError):  # ended just now
                    if self._writable and stops <= _STOPS:
                        process.terminate()
                    else:
                        process.kill()

        return await run_query(lambda: self._asked(question, started), stop, bounds.timeout)

    def _asked(self, question: bytes, started: list[subprocess.Popen[bytes]]) -> Rows:
        # Without the folders, variables and packages of this Python (-I, -S): the standard library is enough.
        command = [sys.executable, "-I", "-S", sql_sqlite_process.__file__]
        pipe = subprocess.PIPE
        try:
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:  # noqa: S603 - nothing of the query is in it
                started.append(process)
                told, failed = process.communicate(question)
        except OSError as error:
            raise QueryError(f"no process could be started for the query: {error}") from None
        if process.returncode != 0:
            said = " ".join(failed[-300:].decode("utf-8", "replace").split())
            raise QueryError(f"the process of the query ended with {process.returncode}: {said or 'no word'}")
        answer: dict[str, Any] = msgspec.json.decode(told)
        if "error" in answer:
            raise QueryError(self._explained(answer["error"]))
        return Rows(cut_names(answer["columns"], self._bounds.max_cell), answer["rows"], answer["more"])

    def _explained(self, message: str) -> str:
        if message == "not authorized" or "prohibited" in message:
            what = (
                "this statement" if self._writable else "the database is read-only here, and this statement"
            )
            return f"{message}: {what} may not be run; there is neither ATTACH nor a setting or transaction to make"
        return message
