"""Connections to Postgres that never hang for ever, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8BinaryDumper

from gossamer.errors import (
    GossamerError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from gossamer.stores.postgres_batch import lock_of

__all__ = ["Connection", "as_ours", "close_unheard", "connect", "is_lost", "is_repeatable", "say_alive"]

T = TypeVar("T")

_CONNECT_SECONDS = 10

# A peer that vanished without a word is given up, on both sides, after idle + interval * count seconds.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

# How long a write waits for one of another process, in seconds.
_LOCK_SECONDS = 10.0


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up waiting for a server that does not answer.

    Attributes:
        seconds: how long it waits for the answer to what it has sent, at most.
    """

    seconds: float = 60.0

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for the server, for a limited time."""
        return super().wait(_bounded(gen, self.seconds), *args, **options)


def _bounded(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    deadline = monotonic() + seconds
    try:
        waits_for = next(gen)
        while True:
            ready = yield waits_for  # nothing, now and then, where there was nothing to be had
            if not ready and monotonic() > deadline:
                gen.close()
                raise psycopg.OperationalError(f"the server did not answer within {seconds:g} seconds")
            waits_for = gen.send(ready)
    except StopIteration as stop:
        return stop.value


def connect(url: str, schema: str, timeout: float) -> Connection:
    """Connect to a database.

    Args:
        url: where it is; its options come before those of ours.
        schema: the name of the schema that is looked into, an identifier.
        timeout: the longest that a statement may take, in seconds.
    """
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "application_name": "gossamer",
        "keepalives": 1,
        **_KEEPALIVE,
        "tcp_user_timeout": int(timeout * 1000),
        **conninfo_to_dict(url),
    }
    connection = Connection.connect(autocommit=True, **options)
    try:
        connection.seconds = 2 * timeout  # the server's own bound comes first
        # One type for all whole numbers, so that a statement is prepared once.
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        connection.execute(
            "SELECT set_config('search_path', %s, false),"
            " set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false),"
            # Who stops in the midst of a transaction does not hold up the others for ever.
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('tcp_keepalives_idle', %s, false),"
            " set_config('tcp_keepalives_interval', %s, false),"
            " set_config('tcp_keepalives_count', %s, false),"
            " set_config('client_encoding', 'UTF8', false),"
            # What a call has given back is on disk.
            " CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END",
            (
                f'"{schema}"',
                str(int(timeout * 1000)),
                str(int(min(_LOCK_SECONDS, timeout) * 1000)),
                str(int(timeout * 1000)),
                *map(str, _KEEPALIVE.values()),
            ),
        )
    except BaseException:
        connection.close()
        raise
    return connection


def say_alive(connection: Connection, token: str) -> None:
    """Take the lock that says that this process lives, for as long as the connection does.

    Where an earlier connection of this process has it still, as the server has not heard of its end, it is ended.
    """
    lock = lock_of(token)
    taken = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock,)).fetchone()
    if taken != (True,):
        connection.execute(
            "SELECT pg_terminate_backend(pid, 500) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (classid::bigint << 32) | objid::bigint = %s",
            (lock,),
        )
        connection.execute("SELECT pg_advisory_lock(%s)", (lock,))


def close_unheard(connection: Connection) -> None:
    """In a forked child: let go of a connection, which stays the parent's; the server hears nothing of it."""
    if not connection.closed:
        os.close(connection.pgconn.socket)


# --- errors ---------------------------------------------------------------------------------------------------


def is_lost(connection: Connection) -> bool:
    """Whether a connection cannot be used any more."""
    return connection.closed or connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN


def is_repeatable(error: BaseException) -> bool:
    """Whether the server has undone a transaction that may succeed at another try, as others were in its way."""
    return isinstance(error, psycopg.Error) and error.sqlstate in {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "23503",  # foreign_key_violation: media that others deleted in this moment
    }


def as_ours(error: Exception, where: str, url: str) -> GossamerError:
    """Give an error as one of ours, without a password in it.

    Args:
        error: what was raised.
        where: the database's URL without a password.
        url: the same with it.
    """
    if isinstance(error, GossamerError):
        return error
    if not isinstance(error, psycopg.Error):
        failure = StoreError(f"{where}: {type(error).__name__}: {_clean(str(error), url)}")
    else:
        state = error.sqlstate or ""
        kind, advice = _KINDS.get(state) or _CLASSES.get(state[:2]) or _otherwise(error)
        failure = kind(f"{where}: {_clean(str(error), url)}; {advice}")
    failure.__cause__ = None if _clean(str(error), url) != str(error) else error
    failure.__suppress_context__ = True
    return failure


def _otherwise(error: psycopg.Error) -> tuple[type[StoreError], str]:
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.NotSupportedError):
        return StoreError, "it can never be stored"
    return StoreUnavailableError, "see the message of Postgres"


_BUSY = (StoreBusyError, "other processes hold it up; try again")
_LOST = (StoreUnavailableError, "see that the server runs and can be reached; what was acknowledged is safe")
_NOT_OURS = (StoreDamagedError, "give the store a schema of its own, or restore it from a copy")
_KINDS: dict[str, tuple[type[StoreError], str]] = {
    "": _LOST,
    "53100": (StoreFullError, "make room on the server's disk; what was acknowledged is safe"),
    "53300": (StoreUnavailableError, "let the server take more connections, or put a pooler before it"),
    "55P03": _BUSY,
    "57014": _BUSY,
    "25P03": _BUSY,
    "25P04": _BUSY,
    "25006": (StoreUnavailableError, "it may not be written; is this a standby?"),
    "42501": (StoreUnavailableError, "let this user create a schema, or use the one that is there"),
    "42P01": _NOT_OURS,
    "42703": _NOT_OURS,
    "3F000": _NOT_OURS,
    "3D000": (StoreUnavailableError, "create the database"),
    "54000": (StoreError, "it can never be stored"),
}
_CLASSES: dict[str, tuple[type[StoreError], str]] = {
    "08": _LOST,
    "28": (StoreUnavailableError, "check user and password"),
    "40": _BUSY,
    "53": (StoreUnavailableError, "the server lacks what it needs"),
    "57": _LOST,
    "58": (StoreUnavailableError, "the server's disk failed"),
    "XX": (StoreDamagedError, "restore it from a copy"),
}


def _clean(text: str, url: str) -> str:
    for secret in _secrets(url):
        text = text.replace(secret, "…")
    return text.strip().partition("\n")[0] if len(text) > 2000 else " ".join(text.split())


def _secrets(url: str) -> list[str]:
    """Give the password in a URL, as it is written and as it is meant, in all places where it may be."""
    parsed = urlsplit(url)
    written = parsed.netloc.rpartition("@")[0].partition(":")[2]
    named = [value for key in ("password", "sslpassword") for value in parse_qs(parsed.query).get(key, ())]
    return sorted({one for one in (written, unquote(written), *named) if one}, key=len, reverse=True)
