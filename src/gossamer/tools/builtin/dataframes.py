"""Tables out of CSV, Parquet and JSON files for a model: what is in them, statistics, and SQL over all of them.

On DuckDB, for it reads all three by itself, answers SQL over them, and can be shut: once the tables are loaded, the
engine opens no file any more and no setting can be changed, whatever a query says. The SQL of polars can name files, and
nothing in it turns that off.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeAlias

import msgspec

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.builtin.duckdb_queries import (
    CONFIGURATION,
    inside_duckdb,
    load_duckdb,
    query_duckdb,
    run_duckdb,
)
from gossamer.tools.builtin.rows import MAX_QUERY, QueryBounds, QueryError, Rows
from gossamer.tools.function import Tool, tool
from gossamer.tools.rooted import FilesError, Rooted, kind_of, opened_file
from gossamer.tools.threads import run_in_thread
from gossamer.tools.toolkit import Toolkit

if TYPE_CHECKING:
    import duckdb

__all__ = ["MAX_TABLES", "dataframes"]

# Tables of one toolkit.
MAX_TABLES = 100

# EXPLAIN is none of them: with ANALYZE it runs what it explains, and makes secrets, which no transaction bounds.
_KINDS = frozenset(("SELECT",))

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
    ".parquet": "read_parquet",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

Source: TypeAlias = str | os.PathLike[str]


def dataframes(
    tables: Mapping[str, Source] | Source,
    *,
    name: str = "dataframes",
    max_rows: int = 100,
    max_cell: int = 1_000,
    timeout: float = 30.0,
    max_bytes: int = 256_000_000,
    max_memory: int = 2_000_000_000,
) -> Toolkit:
    """Make a toolkit with which a model looks into tables: list, describe, first rows, statistics, SQL.

    The files are read once, when the first run needs them, and kept in memory until `async with agent:` ends, or until
    nobody has the toolkit any more. No file but these can be reached, and none is changed.

    Args:
        tables: names of tables and their files (`.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson`, `.parquet`); or a folder,
            whose files of these kinds become tables named after them. Links in the folder are not followed.
        name: of the toolkit. Where a tool's name is taken, it is put before it.
        max_rows: rows that a call gives.
        max_cell: characters of a cell and of a column's name; a longer one is cut and says so.
        timeout: seconds that a query may take.
        max_bytes: of all files together.
        max_memory: bytes that DuckDB may hold, tables and queries together.

    Returns:
        The toolkit. Opening it raises `ToolkitError` where a file cannot be loaded, or DuckDB is not installed.

    Raises:
        ArgumentError: a name or kind of file cannot be used, the folder is not there, or a bound is out of range.
    """
    bounds = QueryBounds(max_rows, max_cell, timeout)
    if max_bytes < 1:
        raise ArgumentError(f"max_bytes must be at least 1, not {max_bytes}")
    if max_memory < 64_000_000:
        raise ArgumentError(f"max_memory must be at least 64,000,000 bytes, not {max_memory}")
    find = _named(tables) if isinstance(tables, Mapping) else _in_folder(tables)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[list[Tool[..., Any]]]:
        # Here alone the connection is kept, so that it is gone for all when it is closed.
        kept: list[duckdb.DuckDBPyConnection] = []
        dropped = Event()
        try:
            names = await run_in_thread(lambda: _open(kept, dropped, find, max_bytes, max_memory))
        except BaseException:
            dropped.set()
            raise
        try:
            work = _Frames(kept, names, bounds)
            tools: list[Any] = [
                work.list_dataframes,
                work.describe_dataframe,
                work.head_dataframe,
                work.summarize_dataframe,
                work.query_dataframes,
            ]
            yield [tool(idempotent=True, timeout=timeout + 30)(one) for one in tools]
        finally:
            await run_in_thread(lambda: _close(kept))

    return Toolkit(name, description="Look into tables, by SQL too.", open=opened, on_clash="rename")


class _Frames:
    """The tools' work."""

    def __init__(self, kept: list[duckdb.DuckDBPyConnection], names: list[str], bounds: QueryBounds) -> None:
        self._kept = kept
        self._names = names
        self._bounds = bounds

    async def list_dataframes(self) -> Rows:
        """List the tables, with how many rows and columns each has."""
        parts = [
            f'SELECT \'{name}\' AS "table", (SELECT count(*) FROM "{name}") AS rows, '  # noqa: S608 - names of ours
            f"(SELECT count(*) FROM duckdb_columns() WHERE table_name = '{name}') AS columns"
            for name in self._names
        ]
        bounds = msgspec.structs.replace(self._bounds, max_rows=MAX_TABLES)
        return await self._query(" UNION ALL ".join(parts), bounds)

    async def describe_dataframe(self, table: str) -> Rows:
        """Tell the columns of a table, with their types.

        Args:
            table: its name.
        """
        known = self._known(table)
        columns = f'SELECT column_name AS "column", column_type AS type FROM (DESCRIBE "{known}")'  # noqa: S608
        return await self._query(columns)

    async def head_dataframe(
        self, table: str, rows: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    ) -> Rows:
        """Give the first rows of a table.

        Args:
            table: its name.
            rows: how many.
        """
        bounds = msgspec.structs.replace(self._bounds, max_rows=min(rows, self._bounds.max_rows))
        return await self._query(f'FROM "{self._known(table)}"', bounds)

    async def summarize_dataframe(self, table: str) -> Rows:
        """Give statistics of each column: least, greatest, different values, mean, deviation, quartiles, missing ones.

        Args:
            table: its name.
        """
        return await self._query(f'SUMMARIZE "{self._known(table)}"')

    async def query_dataframes(self, query: str) -> Rows:
        """Run a query over the tables.

        Args:
            query: one SELECT in the SQL of DuckDB; tables by their names.
        """
        if len(query) > MAX_QUERY or "\0" in query:
            raise QueryError(f"a query has at most {MAX_QUERY} characters, and no NUL among them")
        return await self._query(query)

    async def _query(self, query: str, bounds: QueryBounds | None = None) -> Rows:
        def connect() -> duckdb.DuckDBPyConnection:
            try:
                cursor = self._kept[0].cursor()  # its own, so that stopping it stops no other
            except IndexError:
                raise QueryError("the tables are closed") from None
            # What comes along with a SELECT may write too: `WITH x AS (DELETE … RETURNING …)`.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor

        def work(cursor: duckdb.DuckDBPyConnection) -> Rows:
            return query_duckdb(cursor, query, bounds or self._bounds, kinds=_KINDS)

        return await run_duckdb(connect, work, self._bounds.timeout)

    def _known(self, table: str) -> str:
        if table not in self._names:
            raise QueryError(f"there is no table {table!r}; there are {', '.join(self._names)}")
        return table


# --- loading --------------------------------------------------------------------------------------------------------

# Finds the files: what it is given is called for each with a table's name, a reader, and a function that copies it.
_Copy: TypeAlias = Callable[[BinaryIO, int], None]
_Find: TypeAlias = Callable[[Callable[[str, str, _Copy], None]], None]


def _open(
    kept: list[duckdb.DuckDBPyConnection], dropped: Event, find: _Find, max_bytes: int, max_memory: int
) -> list[str]:
    with inside_duckdb(kept):
        names = _load(kept, find, max_bytes, max_memory)
        if dropped.is_set():  # nobody waits for it any more
            kept.pop().close()
        return names


def _close(kept: list[duckdb.DuckDBPyConnection]) -> None:
    with inside_duckdb([], parked=False):
        kept.pop().close()


def _load(kept: list[duckdb.DuckDBPyConnection], find: _Find, max_bytes: int, max_memory: int) -> list[str]:
    """Load the files into a DuckDB in memory and shut it.

    Each is copied first, from its descriptor, to a name of ours: DuckDB takes `*` and `://` in a name for something else,
    and looks a second time at what may have been swapped.

    Raises:
        ToolkitError: a file cannot be loaded.
    """
    load_duckdb()
    import duckdb

    names: list[str] = []
    settings = {**CONFIGURATION, "enable_external_access": True, "memory_limit": f"{max_memory}B"}
    connection = duckdb.connect(":memory:", config=settings)
    kept.append(connection)
    left = max_bytes
    try:
        with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:

            def load(name: str, suffix: str, copy: _Copy) -> None:
                nonlocal left
                if len(names) == MAX_TABLES:
                    raise ToolkitError(
                        f"there are more than {MAX_TABLES} tables; give those that are needed by name"
                    )
                path = Path(folder) / f"{len(names)}{suffix}"
                with path.open("wb") as file:
                    copy(file, left)
                    left -= file.tell()
                try:
                    connection.execute(f'CREATE TABLE "{name}" AS FROM {_READERS[suffix]}(?)', [str(path)])
                except duckdb.Error as error:
                    reason = str(error).replace(str(path), name)[:1_000]
                    raise ToolkitError(f"table {name!r} cannot be loaded: {reason}") from None
                finally:
                    path.unlink()
                names.append(name)

            find(load)
        if not names:
            raise ToolkitError("there is no table: no file in the folder is of a known kind")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    except BaseException:
        kept.clear()
        connection.close()
        raise
    return names


def _named(tables: Mapping[str, Source]) -> _Find:
    if not 0 < len(tables) <= MAX_TABLES:
        raise ArgumentError(f"tables must be 1 to {MAX_TABLES}, not {len(tables)}")
    known: dict[str, Path] = {}
    for name, source in tables.items():
        if not _NAME.fullmatch(name):
            raise ArgumentError(f"{name!r} is no name for a table: letters, digits and '_', at most 64")
        if name.lower() in {one.lower() for one in known}:
            raise ArgumentError(
                f"two tables are named {name!r}; capital and small letters are the same in SQL"
            )
        path = Path(source).absolute()
        if path.suffix.lower() not in _READERS:
            raise ArgumentError(
                f"file of table {name!r} must end in {', '.join(_READERS)}, not {path.name!r}"
            )
        known[name] = path

    def find(load: Callable[[str, str, _Copy], None]) -> None:
        for name, path in known.items():
            load(name, path.suffix.lower(), _copier(path, name))

    return find


def _in_folder(folder: Source) -> _Find:
    rooted = Rooted(folder)

    def find(load: Callable[[str, str, _Copy], None]) -> None:
        taken: set[str] = set()
        walk = rooted.walk(".", 1, 100 * MAX_TABLES)
        for found, descriptor, entry in walk:
            stem, suffix = os.path.splitext(entry)  # noqa: PTH122 - of a name, not of a path
            if found.kind != "file" or suffix.lower() not in _READERS:
                continue
            plain = re.sub(r"[^A-Za-z0-9_]", "_", stem)[:60]
            plain = plain if _NAME.fullmatch(plain) else f"t_{plain}"
            name, number = plain, 2
            while name.lower() in taken:
                name, number = f"{plain}_{number}", number + 1
            taken.add(name.lower())

            def copy(target: BinaryIO, most: int, *, at: int = descriptor, of: str = entry) -> None:
                try:
                    with opened_file(at, of, of) as (file, size):
                        _copy(file, size, target, most, of)
                except (OSError, FilesError) as error:
                    raise ToolkitError(f"{of!r} cannot be read: {error}") from None

            load(name, suffix.lower(), copy)
        if walk.left_out:  # a table among it would be missed in silence
            raise ToolkitError(f"the folder cannot be read in whole: {walk.left_out}")

    return find


def _copier(path: Path, name: str) -> _Copy:
    def copy(target: BinaryIO, most: int) -> None:
        try:
            # Not blocking: a pipe would wait for somebody at its other end.
            with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
                status = os.fstat(file.fileno())
                if kind_of(status.st_mode) != "file":
                    raise ToolkitError(f"file of table {name!r} is no regular file: {path}")
                _copy(file, status.st_size, target, most, name)
        except OSError as error:
            raise ToolkitError(f"file of table {name!r} cannot be read: {error}") from None

    return copy


def _copy(file: Any, size: int, target: BinaryIO, most: int, name: str) -> None:
    while size <= most and (piece := file.read(1_048_576)):
        target.write(piece)
        size = max(size, target.tell())  # it may grow meanwhile
    if size > most:
        raise ToolkitError(f"{name!r} is too large: it has {size} bytes, and {most} of max_bytes are left")
