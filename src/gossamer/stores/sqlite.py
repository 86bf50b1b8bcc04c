"""The store in a SQLite file: one thread writes, many writes a transaction; another one reads."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeVar

from gossamer.errors import (
    ArgumentError,
    GossamerError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from gossamer.records import Record
from gossamer.stores import sqlite_sessions as sql
from gossamer.stores.base import (
    Append,
    Held,
    SessionInfo,
    SessionStatus,
    StoredSession,
    check_id,
    check_name,
)
from gossamer.stores.changes import Clock
from gossamer.stores.holds import Holds
from gossamer.stores.lifetime import Lifetime
from gossamer.stores.listing import Wanted, check_wanted
from gossamer.stores.memories import MemoryStore
from gossamer.stores.presence import Presence
from gossamer.stores.sqlite_memories import ForgetOwner, SQLiteMemories
from gossamer.stores.sqlite_schema import migrate
from gossamer.stores.thread import Job, StoreThread
from gossamer.telemetry.logging import logger

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_FLUSH_SECONDS = 10.0

# A file up to this size is written anew where a user is deleted.
_VACUUM_BYTES = 256 * 1024 * 1024


class SQLiteStore:
    """Keeps sessions in a SQLite file. Needs nothing beside the standard library.

    Write-ahead log, `synchronous=FULL`: what was acknowledged survives the power failing. Several processes may share
    a file, on a file system of this machine.

    What is deleted is overwritten. Pieces of it may be left in the free space of pages, where SQLite has moved rows
    before; `delete_user` removes these too, by writing the file anew, where that has at most 256 MiB. A larger one wants
    a `VACUUM` at a quiet hour.

    Args:
        path: the file; made where it is missing, its folder is not. `:memory:` keeps everything in this process.
        busy_timeout: the longest that a write waits for those of other processes, in seconds.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(self, path: str | Path, *, busy_timeout: float = 10.0) -> None:
        if busy_timeout < 0:
            raise ArgumentError(f"busy_timeout must not be negative, not {busy_timeout}")
        if "\x00" in str(path):
            raise ArgumentError(f"path must not have a NUL byte: {str(path)[:100]!r}")
        self._path = None if str(path) == ":memory:" else Path(path).absolute()
        where = self._path
        self._lifetime: Lifetime[_Opened] = Lifetime(lambda closing: _Opened(where, busy_timeout, closing))

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path or ':memory:')!r})"

    @property
    def url(self) -> str:
        """Where it is."""
        return "memory:" if self._path is None else f"sqlite:///{self._path}"

    @property
    def memories(self) -> MemoryStore:
        """What is remembered across sessions; see `Store.memories`."""
        return SQLiteMemories(self._lifetime)

    async def hold(
        self, session: str, *, parent: str | None = None, inside: str = "", initial: Any = None
    ) -> Held:
        """Take hold of a session; see `Store.hold`."""
        check_id(session)
        if parent is not None:
            check_id(parent)
        asked: list[tuple[_Opened, sql.Hold]] = []

        def ask(opened: _Opened) -> asyncio.Future[Held] | None:
            hold = sql.Hold(opened, session, parent, inside, initial)
            asked[:] = [(opened, hold)]
            return opened.write(hold)

        try:
            return await self._lifetime.submit(ask)
        except (asyncio.CancelledError, GeneratorExit):  # nobody waits any more
            opened, hold = asked[0]
            opened.write(sql.LetGo(opened, hold), always=True)
            raise

    def append(self, append: Append) -> asyncio.Future[None]:
        """Append records; see `Store.append`."""
        return self._lifetime.submit(
            lambda opened: opened.write(sql.AppendRecords(opened, append), always=append.release)
        )

    async def load(self, session: str) -> StoredSession | None:
        """Load what is needed to go on with a session; see `Store.load`."""
        check_id(session)
        return await self._read(lambda connection, _: sql.load(connection, session))

    async def read(self, session: str, begin: int, end: int) -> list[Record]:
        """Read records of a journal; see `Store.read`."""
        check_id(session)
        return await self._read(lambda connection, _: sql.read(connection, session, begin, end))

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
        wanted = Wanted(user, agent, status, limit, before)
        check_wanted(wanted)
        return await self._read(
            lambda connection, opened: sql.list_sessions(connection, wanted, opened.is_alive)
        )

    async def delete_session(self, session: str) -> bool:
        """Delete a session; see `Store.delete_session`."""
        check_id(session)
        return await self._lifetime.submit(lambda opened: opened.write(sql.Delete("id", session))) > 0

    async def delete_user(self, user: str) -> int:
        """Delete all that is kept of a user; see `Store.delete_user`."""
        check_name("a user", user)
        return await self._lifetime.submit(lambda opened: opened.write(sql.Delete("user", user)))

    async def aclose(self) -> None:
        """Finish what is under way and let everything go; see `Store.aclose`."""
        await self._lifetime.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _read(self, work: Callable[[sqlite3.Connection, _Opened], T]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.read(lambda connection: work(connection, opened)))


class _Opened:
    """The threads and connections of a store in one process.

    Args:
        path: see `SQLiteStore`.
        busy_timeout: the same.
        closing: what is being closed still; it is waited for, so that what was asked for first is done first.

    Attributes:
        holds: the sessions that are held.
        claims: the extractions of memories that are under way, by their numbers.
        clock: tells the time.
    """

    def __init__(self, path: Path | None, busy_timeout: float, closing: _Opened | None) -> None:
        token = secrets.token_hex(8)
        self.holds = Holds(token)
        self.claims = Holds(token)
        self.clock = Clock()
        self._path = path
        self._busy_timeout = busy_timeout
        self._closing = closing
        self._presence: Presence | None = None
        self._connecting = Lock()
        self._paused: list[StoreThread] = []
        self._threads = 1 if path is None else 2
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = StoreThread("write", self._write_together, self._close_writing)
        self._reader = (
            self._writer if path is None else StoreThread("read", self._read_together, self._close_reading)
        )

    def write(self, work: sql.Write[T], *, always: bool = False) -> asyncio.Future[T] | None:
        """Ask for a write; see `StoreThread.submit`."""
        return self._writer.submit(work, always=always)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T] | None:
        """Ask for a read, on the reading thread; in memory there is one connection, and the writing thread has it."""
        return self._reader.submit(sql.Read(work) if self._path is None else work)

    def is_alive(self, token: str) -> bool:
        """Whether the process is alive that names itself so."""
        return token == self.holds.token or (self._presence is not None and self._presence.is_alive(token))

    def stop(self) -> None:
        """Let both threads end, once they have done what they were asked for."""
        self._writer.stop()
        self._reader.stop()

    def close(self) -> None:
        """Let both threads do what they were asked for, and wait for their end."""
        # One after the other: SQLite removes its log with the last connection, and two that go at once both leave it.
        for thread in (self._reader, self._writer):
            thread.stop()
            thread.join(_FLUSH_SECONDS)
        if self._writer.is_alive():
            logger.error("%s: what was asked for was not done within %s s", self, _FLUSH_SECONDS)

    def is_at_work(self) -> bool:
        """Whether one of the threads has not ended yet."""
        return self._writer.is_alive() or self._reader.is_alive()

    def pause(self) -> None:
        """Hold the threads for a fork, and close the file: SQLite in a child takes its parent's locks for its own."""
        self._paused = [thread for thread in {self._writer, self._reader} if thread.pause()]
        if self._path is not None and len(self._paused) == 2:
            for connection in (self._writing, self._reading):
                if connection is not None:
                    connection.close()
            self._writing = self._reading = None

    def go_on(self) -> None:
        """Go on after a fork; the file is opened anew when it is needed."""
        for thread in self._paused:
            thread.go_on()
        self._paused.clear()

    def forget(self) -> None:
        """In a forked child: let go of the lock, which stays the parent's."""
        if self._presence is not None:
            self._presence.forget()

    # --- on the threads ---------------------------------------------------------------------------------------

    def _write_together(self, jobs: list[Job]) -> None:
        """Do writes in one transaction; where that fails, all of them have failed and none was done."""
        ready: list[Job] = []
        for job in jobs:
            try:
                job.work.prepare()
            except Exception as error:  # noqa: BLE001 - as below
                job.error = self._as_ours(error)
            else:
                ready.append(job)
        try:
            self._write_in_one_transaction(ready)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            if len(ready) > 1 and not isinstance(error, sqlite3.OperationalError | GossamerError):
                for job in ready:  # it is one of them, and not the database
                    job.error = None
                    self._write_together([job])
                return
            for job in ready:
                job.error = job.error or self._as_ours(error)

    def _write_in_one_transaction(self, jobs: list[Job]) -> None:
        try:
            if self._writing is None:
                if self._closing is not None:
                    self._closing.close()
                    self._closing = None
                with self._connecting:
                    self._writing = self._connect()
            connection = self._writing
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self.holds.untold:
                    sql.tell(connection, self.holds)
                for job in jobs:
                    try:
                        job.result = job.work.do(connection)
                    except GossamerError as error:  # before it wrote anything
                        job.error = error
                connection.execute("COMMIT")
                self.holds.untold.clear()
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except BaseException:
            for job in reversed(jobs):
                job.work.undo()
            raise
        deleted = [job for job in jobs if isinstance(job.work, sql.Delete | ForgetOwner)]
        try:
            if deleted and self._path is not None:
                if any(job.work.is_thorough for job in deleted) and self._size(connection) <= _VACUUM_BYTES:
                    connection.execute("VACUUM")  # pieces of rows that SQLite has moved lie in free space
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # nor does the log keep it
        except sqlite3.Error as error:
            for job in deleted:
                job.error = job.error or self._as_ours(error)

    def _size(self, connection: sqlite3.Connection) -> int:
        (pages,), (bytes_,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
        )
        return pages * bytes_

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
                    if self._reading.in_transaction:
                        self._reading.execute("ROLLBACK")
            except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
                job.error = self._as_ours(error)

    def _connect(self) -> sqlite3.Connection:
        where = str(self._path or ":memory:")
        connection = sqlite3.connect(
            where,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # From the first write on: what moves to another page must not stay where it was, to be found after a deletion.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, where)
            if self._path is not None:
                connection.execute("PRAGMA journal_mode = WAL")
                if self._presence is None:
                    self._presence = Presence(self._path, self.holds.token)
                    self._presence.sweep()
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_writing(self) -> None:
        if self._writing is not None:
            self._writing.close()
        self._end_thread()

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
        self._end_thread()

    def _end_thread(self) -> None:
        with self._connecting:
            self._threads -= 1
            if not self._threads and self._presence is not None:  # either may have begun it
                self._presence.end()

    def _as_ours(self, error: Exception) -> GossamerError:
        if isinstance(error, GossamerError):
            return error
        where = str(self._path or ":memory:")
        if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError):
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            kind, advice = _KINDS.get(code, (_otherwise(error), "see the message of SQLite"))
            failure = kind(f"{where}: {error}; {advice}")
        else:
            failure = StoreError(f"{where}: {type(error).__name__}: {error}")
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


def _otherwise(error: sqlite3.Error) -> type[StoreError]:
    """Tell what cannot be written now from what never can."""
    return StoreUnavailableError if isinstance(error, sqlite3.OperationalError) else StoreError
