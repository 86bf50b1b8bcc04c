"""One statement on a file of SQLite, in a process of its own. On the standard library alone: this file is run as it is.

A single function of SQLite can take hours, and nothing stops a thread within it; what it holds and writes is bounded for
a whole process only. So a query has a process, which costs some 30 ms, has limits from the system, and can be killed.
"""

from __future__ import annotations

import contextlib
import json
import runpy
import signal
import sqlite3
import sys
from pathlib import Path
from time import monotonic
from typing import Any

__all__ = ["MAX_HEAP", "main"]

# Bytes that SQLite may hold at once: rows that are sorted or grouped, and the values of a row.
MAX_HEAP = 256_000_000

# And a single value in it. A longer one cannot be read, nor made.
_MAX_VALUE = 10_000_000

# What the system holds the process to. Files: a query that reads writes none but the index of a write-ahead log.
_MAX_MEMORY = 1_000_000_000
_MAX_FILE = 64_000_000

_STEPS = 1_000  # of SQLite's machine between two looks at whether to stop

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


def main() -> None:
    """Read a question from standard input and write the answer to standard output, both as JSON."""
    question: dict[str, Any] = json.load(sys.stdin.buffer)
    _limit(question["seconds"], question["writable"])
    try:
        answer = _answer(**question)
    except MemoryError:
        answer = {"error": f"out of memory: a query may hold {MAX_HEAP} bytes; sort, group and select less"}
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
        stopped = str(error) == "interrupted"
        answer = {"error": "the query was stopped" if stopped else str(error)[:2_000]}
    sys.stdout.write(json.dumps(answer))


def _limit(seconds: float, writable: bool) -> None:
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        time = int(seconds) + 2  # of the processor, in case whoever started the process is gone
        limits = {"CPU": time, "AS": _MAX_MEMORY, "CORE": 0, **({} if writable else {"FSIZE": _MAX_FILE})}
        for name, limit in limits.items():
            with contextlib.suppress(AttributeError, ValueError, OSError):  # not here, or already lower
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _answer(
    url: str, query: str, parameters: list[str], writable: bool, max_rows: int, max_cell: int, seconds: float
) -> dict[str, Any]:
    cut_rows = runpy.run_path(str(Path(__file__).with_name("rows_cut.py")))["cut_rows"]
    connection = sqlite3.connect(url, uri=True, isolation_level=None, timeout=5.0)
    try:
        _guard(connection, writable, monotonic() + seconds)
        cursor = connection.execute(query, parameters)
        columns = [column[0] for column in cursor.description or ()]
        rows, more = cut_rows(len(columns), cursor, max_rows, max_cell)
        cursor.close()
        if writable:
            connection.set_authorizer(None)
            changed = connection.total_changes
            connection.execute("COMMIT")
            if not columns:
                columns, rows = ["changed rows"], [[changed]]
        return {"columns": columns, "rows": rows, "more": more}
    finally:
        connection.close()


def _guard(connection: sqlite3.Connection, writable: bool, deadline: float) -> None:
    connection.text_factory = _decoded
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    # Both take time without a step of SQLite's machine, after which a statement could be stopped and take back.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200)
    connection.execute(f"PRAGMA hard_heap_limit={MAX_HEAP}")
    # A view of a hostile file calls no function that has effects.
    connection.execute("PRAGMA trusted_schema=OFF")
    if writable:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA temp_store=MEMORY")  # where it is bounded
    allowed = _READING + _WRITING if writable else _READING
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
    # A statement that writes is told to stop before it is killed, so that it takes back what it has done.
    stopped: list[int] = []
    if writable:
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    connection.set_progress_handler(lambda: bool(stopped) or monotonic() > deadline, _STEPS)


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


if __name__ == "__main__":
    main()
