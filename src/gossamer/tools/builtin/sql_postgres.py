"""Postgres: one statement in a read-only transaction of a connection of its own.

The extended protocol takes one statement, so that nothing can follow a `COMMIT`. A statement that gives no rows, such as
`COMMIT`, `SET` or `COPY`, is not run at all where nothing may be written, and Postgres lets no function make a
read-only transaction one that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakKeyDictionary

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.builtin.rows import QueryBounds, QueryError, Rows, rows_of
from gossamer.tools.builtin.rows_cut import cut_names
from gossamer.tools.threads import run_in_thread

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.pq.abc import PGresult

__all__ = ["PostgresDatabase"]

_CONNECT_SECONDS = 10
_GRACE_SECONDS = 3.0  # for the server to stop a statement by itself before it is told to
_MOST_COLUMNS = 1_600

# Types by their numbers, whose values cannot be long: bool, integers, floating numbers.
_SHORT = frozenset((16, 20, 21, 23, 26, 700, 701))

_TABLES = """SELECT n.nspname AS "schema", c.relname AS "table", CASE c.relkind WHEN 'r' THEN 'table'
WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS type,
CASE WHEN c.reltuples >= 0 AND c.relkind IN ('r', 'm', 'p') THEN c.reltuples::bigint END AS "rows, about",
obj_description(c.oid, 'pg_class') AS comment
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND has_table_privilege(c.oid, 'SELECT')
ORDER BY 1, 2"""
_COLUMNS = """SELECT a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
pg_get_expr(d.adbin, d.adrelid) AS "default", (SELECT string_agg(pg_get_constraintdef(k.oid), '; ' ORDER BY k.contype)
FROM pg_constraint k WHERE k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey)) AS "key",
col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
# Rights that reach past any transaction: to files and programs of the server.
_RIGHTS = """SELECT rolsuper OR EXISTS (SELECT FROM pg_roles r WHERE pg_has_role(session_user, r.oid, 'MEMBER')
AND r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files'))
FROM pg_roles WHERE rolname = session_user"""


class PostgresDatabase:
    """A Postgres database; each call connects anew, so that nothing of a query is left for the next one.

    Args:
        url: as libpq takes it.
        writable: whether it may be changed.
        bounds: of each query.
        max_connections: at once, for each event loop.
        allow_superuser: whether a role that may more than a transaction bounds may be used for reading.

    Raises:
        ArgumentError: the URL cannot be read.
    """

    kind = "Postgres"

    def __init__(
        self, url: str, writable: bool, bounds: QueryBounds, max_connections: int, allow_superuser: bool
    ) -> None:
        self._url = url
        self._secrets = _secrets(url)
        self._writable = writable
        self._bounds = bounds
        self._max_connections = max_connections
        self._allow_superuser = allow_superuser
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def tables(self) -> Rows:
        """List the tables and views that the role may read.

        Raises:
            QueryError: the database cannot be reached.
        """
        async with self._connected() as connection:
            return await self._stream(connection, _TABLES, None)

    async def describe(self, table: str) -> Rows:
        """Tell the columns of a table.

        Raises:
            QueryError: there is no such table.
        """
        async with self._connected() as connection:
            rows = await self._stream(connection, _COLUMNS, (table,))
        if not rows.rows:
            raise QueryError(f"there is no table {table!r}; list_tables tells what there is")
        return rows

    async def query(self, query: str) -> Rows:
        """Run one statement, in a transaction of its own.

        Raises:
            QueryError: Postgres refused or failed to run it, or it took too long.
        """
        async with self._connected() as connection:
            rows = await self._run(connection, query)
            if self._writable:
                await connection.execute("COMMIT")
            return rows

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[AsyncConnection[Any]]:
        """Hold a connection within a transaction, and turn what fails in it into words without a password."""
        await run_in_thread(_load)  # takes a tenth of a second at the first time
        import psycopg

        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(self._max_connections)
        async with slots:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=_CONNECT_SECONDS,
                    application_name="gossamer",
                    client_encoding="UTF8",
                )
            except psycopg.Error as error:
                raise QueryError(f"the database cannot be reached: {self._words(error)}") from None
            try:
                async with asyncio.timeout(self._bounds.timeout + _GRACE_SECONDS):
                    await self._begin(connection)
                    yield connection
            except psycopg.errors.QueryCanceled:
                raise self._overdue() from None
            except TimeoutError:
                raise self._overdue() from None
            except psycopg.Error as error:
                raise QueryError(self._words(error)) from None
            finally:
                await connection.close()

    async def _begin(self, connection: AsyncConnection[Any]) -> None:
        milliseconds = max(int(self._bounds.timeout * 1000), 1)
        mode = "READ WRITE" if self._writable else "READ ONLY"
        settings = (
            f"SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds};"
            f"SET default_transaction_read_only = {'off' if self._writable else 'on'}; BEGIN TRANSACTION {mode}"
        )
        await connection.execute(settings.encode())
        if self._writable or self._allow_superuser:
            return
        row = await (await connection.execute(_RIGHTS)).fetchone()
        if row is None or row[0]:
            raise QueryError(
                "the database's role is a superuser, or may read and write files of the server, so that a read-only "
                "transaction is no bound for it; whoever set this up gives a role with fewer rights"
            )

    async def _run(self, connection: AsyncConnection[Any], query: str) -> Rows:
        import psycopg

        described = await _described(connection, query)
        if not described.nfields:
            if not self._writable:
                raise QueryError(
                    "the database is read-only here; only a statement that gives rows may be run, such as SELECT"
                )
            cursor = await connection.execute(query.encode(), prepare=True)
            return Rows(["done"], [[cursor.statusmessage or "done"]])
        if described.nfields > _MOST_COLUMNS:
            raise QueryError(f"a query gives at most {_MOST_COLUMNS} columns")
        names = [
            (described.fname(number) or b"").decode("utf-8", "replace") for number in range(described.nfields)
        ]
        bounded = self._bounded(query, described)
        try:
            async with connection.transaction():
                await _described(connection, bounded)
        except psycopg.Error as error:
            if not await self._is_plain(connection, query):
                bounded = query  # EXPLAIN and SHOW cannot stand inside another statement, and give little
            elif self._writable:
                bounded = query  # as can INSERT … RETURNING inside WITH
            else:
                raise QueryError(
                    f"the query cannot be bounded: {self._words(error)}; give one SELECT with nothing behind it"
                ) from None
        rows = await self._stream(connection, bounded, None)
        return Rows(cut_names(names, self._bounds.max_cell), rows.rows, rows.more)

    def _bounded(self, query: str, described: PGresult) -> str:
        """Put a query inside another that cuts rows and cells on the server: the client holds a cell as a whole."""
        columns = [f"c{number}" for number in range(described.nfields)]
        cells = [
            name if described.ftype(number) in _SHORT else f"left({name}::text, {self._bounds.max_cell + 1})"
            for number, name in enumerate(columns)
        ]
        inner = query.strip().rstrip("; \n\t")
        return (
            f"WITH result ({', '.join(columns)}) AS (\n{inner}\n) "  # noqa: S608 - read as one statement before
            f"SELECT {', '.join(cells)} FROM result LIMIT {self._bounds.max_rows + 1}"
        )

    async def _is_plain(self, connection: AsyncConnection[Any], query: str) -> bool:
        """Ask the database whether a statement is a SELECT, INSERT and the like, which can be explained."""
        import psycopg

        try:
            async with connection.transaction():
                await _described(connection, "EXPLAIN " + query)
        except psycopg.Error:
            return False
        return True

    async def _stream(
        self, connection: AsyncConnection[Any], query: str, parameters: Sequence[str] | None
    ) -> Rows:
        """Take rows one by one, always by the extended protocol, and no more than may be given."""
        found: list[Any] = []
        async with connection.cursor() as cursor:
            stream: Any = cursor.stream(query.encode(), parameters)
            async with contextlib.aclosing(stream):
                async for row in stream:
                    found.append(row)
                    if len(found) > self._bounds.max_rows:
                        break
            columns = [column.name for column in cursor.description or ()]
        return rows_of(columns, found, self._bounds)

    def _overdue(self) -> QueryError:
        return QueryError(
            f"the query took longer than {self._bounds.timeout:g} seconds and was stopped; ask for less"
        )

    def _words(self, error: Exception) -> str:
        message = str(error).strip() or type(error).__name__
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message


async def _described(connection: AsyncConnection[Any], query: str) -> PGresult:
    """Let the server read a statement without running it, and tell the columns that it would give.

    Raises:
        psycopg.Error: it is several statements, or wrong.
    """
    import psycopg
    from psycopg import generators
    from psycopg.pq import ExecStatus

    async with connection.lock:
        pg = connection.pgconn
        for send in (partial(pg.send_prepare, b"", query.encode()), partial(pg.send_describe_prepared, b"")):
            send()
            result = (await connection.wait(generators.execute(pg)))[-1]
            if result.status != ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return result


def _secrets(url: str) -> list[str]:
    """Give what must be shown to nobody: the URL, and the password in it as it is written and as it is meant."""
    try:
        parsed = urlsplit(url)
        written = (parsed.netloc.rpartition("@")[0]).partition(":")[2]
        named = [
            value for key in ("password", "sslpassword") for value in parse_qs(parsed.query).get(key, ())
        ]
        _ = parsed.port
    except ValueError:  # its own message would tell the password where an '@' or '/' in it was not escaped
        raise ArgumentError(
            "url of the Postgres database cannot be read; escape @, / and : in its password"
        ) from None
    secrets = {url, written, unquote(written), *named}
    return sorted((one for one in secrets if one), key=len, reverse=True)


def _load() -> None:
    try:
        import psycopg
    except ImportError as error:
        raise ToolkitError(
            "psycopg is missing, or the library libpq is; install it with: pip install 'gossamer[sql]'"
        ) from error
    del psycopg
