"""The store in a SQLite file: one thread writes, many writes a transaction; another one reads."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeVar

from gossamer.errors import (
    GossamerError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from gossamer.records import Record
from gossamer.stores import sqlite_sessions as sql
from gossamer.stores.base import Append, Held, SessionInfo, SessionStatus, StoredSession, check_id
from gossamer.stores.memories import MemoryStore
from gossamer.stores.presence import Presence
from gossamer.stores.sqlite_memories import ForgetOwner, SQLiteMemories
from gossamer.stores.sqlite_schema import migrate
from gossamer.stores.thread import Job, StoreThread

__all__ = ["SQLiteStore"]

T = TypeVar("T")

# How long a write waits for one of another process, in seconds.
_BUSY_SECONDS = 10.0

_FLUSH_SECONDS = 10.0


class SQLiteStore:
    """Keeps sessions in a SQLite file. Needs nothing beside the standard library.

    Write-ahead log, `synchronous=FULL`: what was acknowledged survives the power failing. Several processes may share
    a file, on a file system of this machine.

    Args:
        path: the file; made where it is missing, its folder is not. `:memory:` keeps everything in this process.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = None if str(path) == ":memory:" else Path(path).absolute()
        self._lock = Lock()
        self._opened: _Opened | None = None
        _flush_at_exit.add(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path or ':memory:')!r})"

    @property
    def url(self) -> str:
        """Where it is."""
        return "memory:" if self._path is None else f"sqlite:///{self._path}"

    @property
    def memories(self) -> MemoryStore:
        """What is remembered across sessions; see `Store.memories`."""
        return SQLiteMemories(self._open())

    async def hold(
        self, session: str, *, parent: str | None = None, inside: str = "", initial: Any = None
    ) -> Held:
        """Take hold of a session; see `Store.hold`."""
        check_id(session)
        opened = self._open()
        return await opened.write(sql.Hold(opened, session, parent, inside, initial))

    def append(self, append: Append) -> asyncio.Future[None]:
        """Append records; see `Store.append`."""
        opened = self._open()
        return opened.write(sql.AppendRecords(opened, append))

    async def load(self, session: str) -> StoredSession | None:
        """Load what is needed to go on with a session; see `Store.load`."""
        return await self._open().read(lambda connection: sql.load(connection, session))

    async def read(self, session: str, begin: int, end: int) -> list[Record]:
        """Read records of a journal; see `Store.read`."""
        return await self._open().read(lambda connection: sql.read(connection, session, begin, end))

    async def list_sessions(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        status: SessionStatus | None = None,
        limit: int = 100,
        before: float | None = None,
    ) -> list[SessionInfo]:
        """List sessions, those changed last first; see `Store.list_sessions`."""
        opened = self._open()
        wanted = sql.Wanted(user, agent, status, limit, before)
        return await opened.read(lambda connection: sql.list_sessions(connection, wanted, opened.is_alive))

    async def delete_session(self, session: str) -> bool:
        """Delete a session; see `Store.delete_session`."""
        return await self._open().write(sql.Delete("id", session)) > 0

    async def delete_user(self, user: str) -> int:
        """Delete all that is kept of a user; see `Store.delete_user`."""
        return await self._open().write(sql.Delete("user", user))

    async def aclose(self) -> None:
        """Finish what is under way and let everything go; see `Store.aclose`."""
        opened = self._opened
        if opened is not None:
            self._opened = None
            await asyncio.to_thread(opened.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def flush(self) -> None:
        """Do what was asked for, and let everything go: at the end of the process, when no loop runs any more."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.process == os.getpid():
            opened.close()

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            with self._lock:
                opened = self._opened
                if opened is None or opened.process != os.getpid():
                    opened = self._opened = _Opened(self._path)
                    weakref.finalize(self, opened.stop).atexit = False
        return opened


class _Opened:
    """The threads and connections of a store in one process.

    Attributes:
        process: the id of the process.
        token: names this user of the database to others.
        held: the sessions that are held; used by the writing thread alone.
        claimed: the extractions of memories that are under way here; the same.
    """

    def __init__(self, path: Path | None) -> None:
        self.process = os.getpid()
        self.token = secrets.token_hex(8)
        self.held: dict[str, int] = {}
        self.claimed: set[int] = set()
        self._path = path
        self._presence: Presence | None = None
        self._connecting = Lock()
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = StoreThread("gossamer-store-writer", self._write_together, self._close_writing)
        self._reader = (
            self._writer
            if path is None
            else StoreThread("gossamer-store-reader", self._read_together, self._close_reading)
        )

    def write(self, work: sql.Write[T]) -> asyncio.Future[T]:
        """Ask for a write."""
        return self._writer.submit(work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Ask for a read, on the reading thread; in memory there is one connection, and the writing thread has it."""
        return self._reader.submit(sql.Read(work) if self._path is None else work)

    def is_alive(self, token: str) -> bool:
        """Whether the process is alive that names itself so."""
        return token == self.token or (self._presence is not None and self._presence.is_alive(token))

    def stop(self) -> None:
        """Let both threads end, once they have done what they were asked for."""
        self._writer.stop()
        self._reader.stop()

    def close(self) -> None:
        """Let both threads do what they were asked for, and wait for their end."""
        self.stop()
        self._writer.join(_FLUSH_SECONDS)
        self._reader.join(_FLUSH_SECONDS)

    # --- on the threads ---------------------------------------------------------------------------------------

    def _write_together(self, jobs: list[Job]) -> None:
        """Do writes in one transaction; where that fails, all of them have failed and none was done."""
        ready: list[Job] = []
        done: list[Job] = []
        for job in jobs:
            try:
                job.work.prepare()
            except GossamerError as error:
                job.error = error
            else:
                ready.append(job)
        try:
            if self._writing is None:
                with self._connecting:
                    self._writing = self._connect()
            connection = self._writing
            connection.execute("BEGIN IMMEDIATE")
            try:
                for job in ready:
                    try:
                        job.result = job.work.do(connection)
                    except GossamerError as error:  # before it wrote anything
                        job.error = error
                    else:
                        done.append(job)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if any(isinstance(job.work, sql.Delete | ForgetOwner) for job in done):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # nor does the log keep it
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            failed = self._as_ours(error)
            for job in reversed(done):
                job.work.undo()
            for job in ready:
                job.error = job.error or failed

    def _read_together(self, jobs: list[Job]) -> None:
        for job in jobs:
            try:
                if self._reading is None:
                    with self._connecting:
                        self._reading = self._connect()
                self._reading.execute("BEGIN")  # one state of the database for all that the work reads
                try:
                    job.result = job.work(self._reading)
                finally:
                    self._reading.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
                job.error = self._as_ours(error)

    def _connect(self) -> sqlite3.Connection:
        where = str(self._path or ":memory:")
        connection = sqlite3.connect(
            where, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, where)
            if self._path is not None:
                connection.execute("PRAGMA journal_mode = WAL")
                if self._presence is None:
                    self._presence = Presence(self._path, self.token)
                    self._presence.sweep()
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_writing(self) -> None:
        if self._writing is not None:
            self._writing.close()
        if self._presence is not None:
            self._presence.end()

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def _as_ours(self, error: Exception) -> GossamerError:
        if isinstance(error, GossamerError):
            return error
        where = str(self._path or ":memory:")
        if not isinstance(error, sqlite3.Error):
            failure = StoreError(f"{where}: {type(error).__name__}: {error}")
        else:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind, advice = _KINDS.get(code, (StoreError, "see the message of SQLite"))
            failure = kind(f"{where}: {error}; {advice}")
        failure.__cause__ = error
        return failure


_KINDS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreBusyError, "another process holds it locked for long; try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusyError, "another process holds it locked for long; try again"),
    sqlite3.SQLITE_FULL: (StoreFullError, "make room on the disk; what was acknowledged is safe"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailableError, "check that its folder is there and may be written"),
    sqlite3.SQLITE_READONLY: (StoreUnavailableError, "it may not be written"),
    sqlite3.SQLITE_PERM: (StoreUnavailableError, "it may not be opened"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the disk failed, or is full"),
    sqlite3.SQLITE_NOTADB: (StoreDamagedError, "give the store a file of its own"),
    sqlite3.SQLITE_CORRUPT: (StoreDamagedError, "restore it from a copy"),
}

_flush_at_exit: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()


def _flush_all() -> None:
    for store in list(_flush_at_exit):
        store.flush()


atexit.register(_flush_all)
