"""The store in a Postgres database: one thread writes, many writes a transaction; a few others read."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from gossamer.errors import ArgumentError, GossamerError, StoreError
from gossamer.records import Record
from gossamer.stores import postgres_sessions as sql
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
from gossamer.stores.postgres_batch import Batch
from gossamer.stores.postgres_link import Link, Place
from gossamer.stores.postgres_memories import MemoryWrite, PostgresMemories
from gossamer.stores.thread import Job, StoreThread
from gossamer.telemetry.logging import logger

if TYPE_CHECKING:
    from gossamer.stores.postgres_connection import Connection

__all__ = ["PostgresStore"]

T = TypeVar("T")

_FLUSH_SECONDS = 10.0

# A read waits for several answers of the server, one after the other; one that is long must not hold up the others.
_READERS = 4


class PostgresStore:
    """Keeps sessions in a Postgres database, for processes on several machines. Needs psycopg: `gossamer[postgres]`.

    Each process has one connection that writes and up to four that read. The one that writes holds an advisory lock for
    as long as it lives, by which other processes know that this one does: between it and the server there may be a
    pooler for sessions, but none for transactions. A machine that vanishes is given up within about a minute, and its
    sessions are free then.

    Args:
        url: `postgresql://user:password@host:5432/database`, with libpq's options behind a `?`.
        schema: the schema of the tables, made where it is missing: lower case letters, digits and underscores.
        timeout: the longest that a statement may take, in seconds; a server that says nothing is given up after twice
            that, and connecting after 10 s, or `connect_timeout` of the URL.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(self, url: str, *, schema: str = "gossamer", timeout: float = 30.0) -> None:
        self._url = _shown(url)
        if not (schema.isidentifier() and schema.isascii() and schema == schema.lower() and len(schema) < 64):
            raise ArgumentError(
                f"schema must be lower case letters, digits and underscores, fewer than 64: {schema[:100]!r}"
            )
        if timeout <= 0:
            raise ArgumentError(f"timeout must be more than 0 seconds, not {timeout}")
        self._schema = schema
        where = self._url if schema == "gossamer" else f"{self._url}, schema {schema}"
        self._lifetime: Lifetime[_Opened] = Lifetime(
            lambda closing: _Opened(Place(url, where, schema, timeout), closing)
        )

    def __repr__(self) -> str:
        return f"PostgresStore({self._url!r})"

    @property
    def url(self) -> str:
        """Where it is, without password and options."""
        return self._url

    @property
    def memories(self) -> MemoryStore:
        """What is remembered across sessions; see `Store.memories`."""
        return PostgresMemories(self._lifetime)

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
        return await self._read(lambda connection: sql.load(connection, session))

    async def read(self, session: str, begin: int, end: int) -> list[Record]:
        """Read records of a journal; see `Store.read`."""
        check_id(session)
        return await self._read(lambda connection: sql.read(connection, session, begin, end))

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
        return await self._read(lambda connection: sql.list_sessions(connection, wanted))

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

    def _read(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        return self._lifetime.submit(lambda opened: opened.read(work))


class _Opened:
    """The threads and connections of a store in one process.

    Args:
        place: where it is.
        closing: what is being closed still; it is waited for, so that what was asked for first is done first.

    Attributes:
        holds: the sessions that are held.
        claims: the extractions of memories that are under way, by their numbers.
        clock: tells the time.
    """

    def __init__(self, place: Place, closing: _Opened | None) -> None:
        token = secrets.token_hex(8)
        self.holds = Holds(token)
        self.claims = Holds(token)
        self.clock = Clock()
        self._place = place
        self._closing = closing
        self._paused: list[StoreThread] = []
        self._link = Link(place, self.holds.token)
        self._writer = StoreThread("write", self._write_together, self._link.close)
        self._readers = [_Reader(place) for _ in range(_READERS)]

    def write(
        self, work: sql.Write[T] | sql.Delete | MemoryWrite[T], *, always: bool = False
    ) -> asyncio.Future[T] | None:
        """Ask for a write; see `StoreThread.submit`."""
        return self._writer.submit(work, always=always)

    def read(self, work: Callable[[Connection], T]) -> asyncio.Future[T] | None:
        """Ask for a read, on the reading thread that has least to do; the first of them where several have nothing."""
        return min(self._readers, key=_Reader.load).read(work)

    def stop(self) -> None:
        """Let all threads end, once they have done what they were asked for."""
        self._writer.stop()
        for reader in self._readers:
            reader.thread.stop()

    def close(self) -> None:
        """Let all threads do what they were asked for, and wait for their end."""
        self.stop()
        self._writer.join(_FLUSH_SECONDS)
        for reader in self._readers:
            reader.thread.join(_FLUSH_SECONDS)
        if self._writer.is_alive():
            logger.error("%s: what was asked for was not done within %s s", self._place.shown, _FLUSH_SECONDS)

    def is_at_work(self) -> bool:
        """Whether one of the threads has not ended yet."""
        return self._writer.is_alive() or any(reader.thread.is_alive() for reader in self._readers)

    def pause(self) -> None:
        """Hold the threads for a fork."""
        threads = [self._writer, *(reader.thread for reader in self._readers)]
        self._paused = [thread for thread in threads if thread.pause()]

    def go_on(self) -> None:
        """Go on after a fork."""
        for thread in self._paused:
            thread.go_on()
        self._paused.clear()

    def forget(self) -> None:
        """In a forked child: let go of the connections, which stay the parent's."""
        for link in (self._link, *(reader.link for reader in self._readers)):
            link.forget()

    # --- on the writing thread --------------------------------------------------------------------------------

    def _write_together(self, jobs: list[Job]) -> None:
        """Do writes in one transaction; where that fails, all of them have failed and none was done."""
        if self._closing is not None:
            self._closing.close()
            self._closing = None
        ready: list[Job] = []
        for job in jobs:
            if isinstance(job.work, sql.Delete | MemoryWrite):  # alone, behind what comes before it
                self._write_ready(ready)
                ready = []
                self._write_alone(job)
                continue
            try:
                job.work.prepare()
            except Exception as error:  # noqa: BLE001 - as below
                job.error = self._place.as_ours(error)
            else:
                ready.append(job)
        self._write_ready(ready)

    def _write_ready(self, jobs: list[Job]) -> None:
        more = bool(jobs)
        while more:
            more = False
            batch: Batch | None = None
            try:
                if self.holds.untold:
                    sql.tell(self._link.connected(), self.holds)
                batch = Batch(self._link.connected(), self.holds.token, self.clock)
                self._write_in_one_transaction(batch, jobs)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
                for job in reversed(jobs):
                    job.work.undo()
                more = self._link.may_try_again(
                    error, is_committing=batch is not None and batch.is_committing
                )
                if not more:
                    self._tell(jobs, self._place.as_ours(error))
            else:
                self._link.succeeded()

    def _write_in_one_transaction(self, batch: Batch, jobs: list[Job]) -> None:
        batch.begin([job.work for job in jobs])
        for job in jobs:
            job.error = None
            try:
                job.result = job.work.do(batch)
            except GossamerError as error:  # before it wrote anything
                job.error = error
        batch.commit()

    def _tell(self, jobs: list[Job], error: GossamerError) -> None:
        if len(jobs) > 1 and type(error) is StoreError:
            for job in jobs:  # it is one of them, and not the database
                self._write_ready([job])
            return
        for job in jobs:
            job.error = job.error or error

    def _write_alone(self, job: Job) -> None:
        work: sql.Delete | MemoryWrite[Any] = job.work
        more = True
        while more:
            more = False
            try:
                job.result = work.do(self._link.connected())
            except Exception as error:  # noqa: BLE001 - as above
                more = self._link.may_try_again(error, is_committing=work.is_committing)
                if not more:
                    job.error = self._place.as_ours(error)
            else:
                self._link.succeeded()


class _Reader:
    """A thread that reads, and its connection.

    Args:
        place: where the store is.

    Attributes:
        thread: the thread.
        link: its connection.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._under_way = 0
        self.link = Link(place)
        self.thread = StoreThread("read", self._read_together, self.link.close)

    def load(self) -> int:
        """Tell how many reads wait or are under way."""
        return self.thread.waiting + self._under_way

    def read(self, work: Callable[[Connection], T]) -> asyncio.Future[T] | None:
        """Ask for a read; see `StoreThread.submit`."""
        return self.thread.submit(work)

    def _read_together(self, jobs: list[Job]) -> None:
        self._under_way = len(jobs)
        for job in jobs:
            more = True
            while more:
                more = False
                try:
                    job.result = self._read(job.work)
                except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
                    more = self.link.may_try_again(error, is_committing=False)
                    if not more:
                        job.error = self._place.as_ours(error)
                else:
                    self.link.succeeded()
            self._under_way -= 1

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = self.link.connected()
        with connection.pipeline():
            # One state of the database for all that the work reads.
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            result = work(connection)
            connection.execute("COMMIT")
        return result


def _shown(url: str) -> str:
    """Give a URL without password and options.

    Raises:
        ArgumentError: it is none of Postgres.
    """
    try:
        parsed = urlsplit(url)
        _ = parsed.port if "," not in parsed.netloc else None
    except ValueError:  # its own message would tell the password where an '@' or '/' in it was not escaped
        raise ArgumentError(
            "url of the Postgres database cannot be read; escape @, /, #, ? and : in its password"
        ) from None
    if not url.startswith(("postgres://", "postgresql://")):
        raise ArgumentError("url of a Postgres database begins with postgresql://")
    user, at, host = parsed.netloc.rpartition("@")
    return f"{parsed.scheme}://{user.partition(':')[0]}{at}{host}{parsed.path}"
