"""What can go wrong with Postgres, and what is said then."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from tests.services import Postgres, postgres_server

from gossamer import Agent, Message, Session, stores
from gossamer.errors import (
    ArgumentError,
    SessionBusyError,
    SessionLostError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreVersionError,
)
from gossamer.models import ScriptedModel
from gossamer.records import MessageRecord
from gossamer.stores import Append, PostgresStore, open_store
from gossamer.stores.postgres_schema import MIGRATIONS, migrate

psycopg = pytest.importorskip("psycopg")

agent = Agent(ScriptedModel(lambda request: f"heard {request.messages[-1].text[:100]}"), name="ear")
PASSWORD = "p4ss-w0rd-of-the-tests"


@pytest.fixture
def schema(postgres) -> str:
    name = f"t_{uuid4().hex}"
    yield name
    postgres.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def opened(schema):
    async with contextlib.AsyncExitStack() as stack:

        def open_(url: str, **options) -> PostgresStore:
            store = PostgresStore(url, **{"schema": schema, **options})
            stack.push_async_callback(store.aclose)
            return store

        yield open_


def texts(records) -> list[str]:
    return [record.message.text for record in records if isinstance(record, MessageRecord)]


def said(text: str) -> MessageRecord:
    return MessageRecord(run="r", message=Message.user(text))


# --- URLs -----------------------------------------------------------------------------------------------------


def test_a_url_names_one_store_and_hides_its_password() -> None:
    url = "postgresql://ada:s3cr3t@db.example:5433/chats?connect_timeout=3&password=other"
    store = open_store(url)
    assert open_store(url) is store
    assert isinstance(store, PostgresStore)
    assert store.url == "postgresql://ada@db.example:5433/chats"
    assert "s3cr3t" not in repr(store)
    assert PostgresStore("postgres:///chats").url == "postgres:///chats"
    assert PostgresStore("postgresql://a,b:5433/chats").url == "postgresql://a,b:5433/chats"


@pytest.mark.parametrize(
    "url", ["postgres:x", "mysql://x", "", "postgresql://u:s3cr3t@[host/db", "postgresql://u:s3cr3t/x@h:1/db"]
)
def test_urls_that_cannot_be_read(url: str) -> None:
    with pytest.raises(ArgumentError) as failure:
        PostgresStore(url)
    assert "s3cr3t" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__ or failure.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [{"schema": 'a"; DROP'}, {"schema": ""}, {"schema": "A"}, {"schema": "x" * 64}, {"timeout": 0}],
    ids=str,
)
def test_arguments_that_cannot_be(options: dict) -> None:
    with pytest.raises(ArgumentError):
        PostgresStore("postgresql://h/d", **options)


async def test_a_server_that_is_not_there(opened) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = opened(f"postgresql://ada:s3cr3t@127.0.0.1:{port}/chats")
    for ask in (lambda: store.hold("s"), store.list_sessions, lambda: store.delete_session("s")):
        with pytest.raises(StoreUnavailableError) as failure:
            await ask()
        assert "s3cr3t" not in str(failure.value)
        assert str(port) in str(failure.value)


async def test_a_wrong_password_or_database(postgres: Postgres, opened) -> None:
    with pytest.raises(StoreUnavailableError, match="password") as failure:
        await opened(postgres.url(password="wr0ng-0ne")).hold("s")
    assert "wr0ng-0ne" not in str(failure.value)
    with pytest.raises(StoreUnavailableError, match="nowhere"):
        await opened(postgres.url(database="nowhere")).hold("s")
    bad = f"{postgres.url()}?password=s3cr3t%20x&no_such_option=1"
    with pytest.raises(StoreError) as failure:
        await opened(bad).hold("s")
    assert "s3cr3t" not in str(failure.value)


async def test_the_search_path_of_a_user_does_not_matter(postgres: Postgres, opened, schema: str) -> None:
    url = f"{postgres.url()}?options=-csearch_path%3Dnowhere"
    await agent.run("x", session=Session("s", store=opened(url)))
    assert postgres.execute(f"SELECT id FROM {schema}.sessions") == [("s",)]


# --- schemas and versions -------------------------------------------------------------------------------------


async def test_tables_of_somebody_else(postgres: Postgres, opened, schema: str) -> None:
    postgres.execute(f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.sessions (id text)")
    with pytest.raises(StoreDamagedError, match="schema of its own"):
        await opened(postgres.url()).hold("s")
    assert postgres.execute(f"SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'") == [(1,)]


async def test_an_old_database_is_brought_forward(
    postgres: Postgres, opened, schema: str, monkeypatch
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f'SET search_path = "{schema}"')
        migrate(connection, schema, "here", MIGRATIONS[:1])
    store = opened(postgres.url())
    await agent.run("kept", session=Session("s", store=store))
    await store.aclose()
    later = (*MIGRATIONS, "ALTER TABLE sessions ADD COLUMN colour text NOT NULL DEFAULT 'blue'")
    monkeypatch.setattr("gossamer.stores.postgres_link.migrate", partial(migrate, migrations=later))
    result = await agent.run("more", session=Session("s", store=store))
    assert len(result.messages) == 4
    assert postgres.execute(f"SELECT colour FROM {schema}.sessions") == [("blue",)]
    await store.aclose()
    monkeypatch.undo()
    with pytest.raises(StoreVersionError, match=f"version {len(later)}"):
        await store.load("s")


@pytest.mark.parametrize("statement", [1, 2])
def test_another_process_makes_the_tables_before_a_statement_of_ours(
    postgres: Postgres, schema: str, statement: int
) -> None:
    class Watched(psycopg.Connection):
        executed = 0

        def execute(self, *arguments, **options):
            self.executed += 1
            if self.executed == statement:
                migrate(other, schema, "here")
            return super().execute(*arguments, **options)

    with (
        psycopg.connect(postgres.url(), autocommit=True) as other,
        Watched.connect(postgres.url(), autocommit=True) as ours,
    ):
        other.execute(f'SET search_path = "{schema}"')
        psycopg.Connection.execute(ours, f'SET search_path = "{schema}"')
        migrate(ours, schema, "here")
        assert ours.executed >= statement
        assert other.execute("SELECT count(*) FROM gossamer_migrations").fetchone() == (len(MIGRATIONS),)


async def test_a_step_that_fails_leaves_the_database_as_it_was(postgres, opened, schema, monkeypatch) -> None:
    store = opened(postgres.url())
    await agent.run("kept", session=Session("s", store=store))
    await store.aclose()
    later = (*MIGRATIONS, "ALTER TABLE sessions ADD COLUMN a text; ALTER TABLE nowhere ADD COLUMN b text")
    monkeypatch.setattr("gossamer.stores.postgres_link.migrate", partial(migrate, migrations=later))
    with pytest.raises(StoreError, match="nowhere"):
        await store.load("s")
    monkeypatch.undo()
    assert len(texts(await store.read("s", 0, 9))) == 2


async def test_a_user_who_may_not(postgres: Postgres, opened, schema: str) -> None:
    user = f"u_{uuid4().hex}"
    postgres.execute(f"CREATE USER {user} PASSWORD 'x'")
    store = opened(postgres.url(user=user, password="x"))
    try:
        with pytest.raises(StoreUnavailableError, match="permission"):
            await store.hold("s")
        postgres.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {user}")  # nothing more is needed
        await agent.run("x", session=Session("s", store=store))
        await store.aclose()
        postgres.execute(f"ALTER USER {user} SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await store.hold("s")
        assert len(await store.list_sessions()) == 1
    finally:
        await store.aclose()
        postgres.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE", f"DROP USER {user}")


# --- what the server does -------------------------------------------------------------------------------------


def terminate(postgres: Postgres, what: str = "true") -> None:
    postgres.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE application_name = 'gossamer' AND pid <> pg_backend_pid() AND {what}"
    )


async def test_a_connection_that_is_lost_between_two_writes_is_made_anew(postgres: Postgres, opened) -> None:
    store = opened(postgres.url())
    session = Session("s", store=store)

    async def reply(request):
        await session.settle()
        await asyncio.to_thread(terminate, postgres)
        return "spoken"

    assert (await Agent(ScriptedModel(reply)).run("one", session=session)).output == "spoken"
    assert (await agent.run("two", session=session)).output == "heard two"
    assert texts(await store.read("s", 0, 99)) == ["one", "spoken", "two", "heard two"]


async def test_a_connection_that_is_lost_while_it_commits(postgres: Postgres, opened, schema: str) -> None:
    store = opened(postgres.url())
    session = Session("s", store=store)
    await agent.run("one", session=session)
    postgres.execute(
        f"CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {schema}.records DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.slow()",
    )

    def kill() -> None:
        while not postgres.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
        terminate(postgres, "wait_event = 'PgSleep'")

    killing = asyncio.create_task(asyncio.to_thread(kill))
    with pytest.raises(StoreUnavailableError):
        await agent.run("two", session=session)
    await killing
    assert texts(await store.read("s", 0, 99)) == ["one", "heard one"]
    postgres.execute(f"DROP TRIGGER slow ON {schema}.records")
    await agent.run("three", session=session)
    assert texts(await store.read("s", 0, 99))[::2] == ["one", "two", "three"]
    (info,) = await store.list_sessions()
    assert (info.records, info.messages) == (12, 6)


class Proxy:
    """Stands between a store and its server, and can keep an answer back."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_after: bytes | None = None
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                seen = [False]
                for one in (
                    threading.Thread(target=self._pump, args=(client, server, seen, True), daemon=True),
                    threading.Thread(target=self._pump, args=(server, client, seen, False), daemon=True),
                ):
                    self._threads.append(one)
                    one.start()

    def _pump(self, source: socket.socket, sink: socket.socket, seen: list[bool], asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if asks and self.cut_after is not None and self.cut_after in data:
                    seen[0] = True
                if not asks and seen[0]:
                    self.cut_after = None
                    break  # the server has done it, and nobody hears of it
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)


async def test_a_commit_whose_answer_got_lost_is_not_done_twice(postgres: Postgres, opened) -> None:
    proxy = Proxy((postgres.host, postgres.port))
    try:
        store = opened(postgres.url().replace(str(postgres.port), str(proxy.port)))
        session = Session("s", store=store)

        async def reply(request):
            await session.settle()
            proxy.cut_after = b"COMMIT"
            return "spoken"

        with pytest.raises(StoreUnavailableError):
            await Agent(ScriptedModel(reply)).run("one", session=session)
        assert texts(await store.read("s", 0, 99))[-2:] == ["one", "spoken"]  # it was done
        result = await agent.run("two", session=session)
        assert [message.text for message in result.messages][-4:] == ["one", "spoken", "two", "heard two"]
        assert texts(await store.read("s", 0, 99)) == [message.text for message in result.messages]
        await store.aclose()
    finally:
        proxy.close()


async def test_a_server_that_is_killed_and_comes_back(tmp_path) -> None:
    servers = postgres_server()
    server = next(servers)
    restarted: subprocess.Popen | None = None
    try:
        store = PostgresStore(server.url(), timeout=10)
        acknowledged: dict[str, int] = {}
        told: list[StoreError] = []
        stop = asyncio.Event()

        async def talk(name: str) -> None:
            session = Session(name, store=store)
            turn = 0
            while not stop.is_set():
                try:
                    await agent.run(f"{turn}", session=session)
                    acknowledged[name] = turn
                except (StoreError, SessionLostError) as error:
                    told.append(error)
                    await asyncio.sleep(0.05)
                turn += 1

        talks = [asyncio.create_task(talk(f"s{number}")) for number in range(10)]
        while len(acknowledged) < 10:
            await asyncio.sleep(0.01)
        ((data,),) = await asyncio.to_thread(server.execute, "SHOW data_directory")
        postmaster = int(Path(data, "postmaster.pid").read_text().split()[0])
        command = Path(f"/proc/{postmaster}/cmdline").read_bytes().decode().split("\0")[:-1]
        os.kill(postmaster, signal.SIGQUIT)  # at once: nothing is finished
        while not told:
            await asyncio.sleep(0.01)
        known = dict(acknowledged)

        def restart() -> subprocess.Popen:
            while Path(data, "postmaster.pid").exists():
                pass
            drop = (
                ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
                if os.geteuid() == 0
                else []
            )
            program = os.path.realpath(command[0])
            return subprocess.Popen(
                [*drop, program, *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=data
            )

        restarted = await asyncio.to_thread(restart)
        while any(acknowledged[name] <= turn for name, turn in known.items()):
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*talks)
        for name, last in acknowledged.items():
            found = texts(await store.read(name, 0, 100_000))
            asked = [text for text in found if not text.startswith("heard")]
            assert str(last) in asked
            assert len(asked) == len(set(asked))  # nothing twice
            kept = [turn for turn in range(known[name] + 1) if str(turn) in asked]
            assert kept == list(range(known[name] + 1))  # what was acknowledged is there
        assert all(isinstance(error, StoreUnavailableError | SessionLostError) for error in told)
        await store.aclose()
    finally:
        if restarted is not None:
            restarted.send_signal(signal.SIGINT)
            restarted.wait(30)
        servers.close()


async def test_a_server_that_says_nothing_is_given_up(postgres: Postgres, opened, schema: str) -> None:
    store = opened(postgres.url(), timeout=0.5)
    await agent.run("one", session=Session("s", store=store))
    ((pid,),) = postgres.execute(
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND application_name = 'gossamer'"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises((StoreUnavailableError, StoreBusyError)):
            await asyncio.wait_for(store.hold("t"), 60)
        assert len(await store.list_sessions()) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (await store.hold("u")).length == 0


async def test_a_table_that_somebody_locks(postgres: Postgres, opened, schema: str) -> None:
    store = opened(postgres.url(), timeout=0.3)
    session = Session("s", store=store)
    await agent.run("one", session=session)
    with psycopg.connect(postgres.url()) as connection:
        connection.execute(f"LOCK TABLE {schema}.sessions IN EXCLUSIVE MODE")
        with pytest.raises(StoreBusyError):
            await store.hold("t")
        connection.rollback()
    assert (await agent.run("two", session=session)).output == "heard two"


async def test_a_full_disk(postgres: Postgres, opened, schema: str) -> None:
    store = opened(postgres.url())
    session = Session("s", store=store)
    await agent.run("one", session=session)
    postgres.execute(  # as the server says it where an extension of a file fails
        f"CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        f"CREATE TRIGGER full_ BEFORE INSERT ON {schema}.records FOR EACH ROW EXECUTE FUNCTION {schema}.full()",
    )
    with pytest.raises(StoreFullError, match="make room"):
        await agent.run("two", session=session)
    held = await store.hold("t")
    other = opened(postgres.url())
    there = await other.hold("s")  # is free for others with the next write
    await other.append(Append("s", there.fence, there.length, [], release=True))
    await store.append(Append("t", held.fence, held.length, [], release=True))
    assert texts(await store.read("s", 0, 99)) == ["one", "heard one"]
    postgres.execute(f"DROP TRIGGER full_ ON {schema}.records")
    await agent.run("three", session=session)
    assert texts(await store.read("s", 0, 99))[::2] == ["one", "two", "three"]


async def test_a_batch_is_a_handful_of_statements(
    postgres: Postgres, opened, schema: str, monkeypatch
) -> None:
    store = opened(postgres.url())
    names = [f"s{number}" for number in range(300)]
    helds = await asyncio.gather(*[store.hold(name) for name in names])
    asked: list[str] = []
    from gossamer.stores.postgres_connection import Connection

    execute = Connection.execute

    def noting(self, query, *arguments, **options):
        asked.append(str(query)[:20])
        return execute(self, query, *arguments, **options)

    monkeypatch.setattr(Connection, "execute", noting)
    appends = [
        store.append(Append(name, held.fence, 0, [said("x")]))
        for name, held in zip(names, helds, strict=True)
    ]
    await asyncio.gather(*appends)
    batches = asked.count("COMMIT")
    assert batches < 30
    assert len(asked) == 5 * batches
    assert postgres.execute(f"SELECT count(*), sum(length) FROM {schema}.sessions") == [(300, 300)]


async def test_who_makes_a_session_after_one_who_gave_up_holds_it(
    postgres: Postgres, opened, schema: str
) -> None:
    store, other = opened(postgres.url()), opened(postgres.url())
    held = await store.hold("first")
    with psycopg.connect(postgres.url()) as connection:
        connection.execute(f'SELECT FROM "{schema}".sessions FOR UPDATE')
        writing = store.append(Append("first", held.fence, 0, [], release=True))  # waits for the lock
        await asyncio.sleep(0.2)
        given_up = asyncio.ensure_future(store.hold("s"))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        holding = asyncio.ensure_future(store.hold("s"))
        await asyncio.sleep(0)
    await writing
    await holding
    with pytest.raises(SessionBusyError):
        await other.hold("s")


async def test_deleting_and_writing_the_same_picture_at_once(postgres: Postgres, opened, schema: str) -> None:
    from gossamer.messages import Image

    both = [opened(postgres.url()) for _ in range(2)]
    picture = Message("user", (Image(data=b"same" * 100, media_type="image/png"),))

    async def work(store, name: str) -> None:
        for turn in range(15):
            held = await store.hold(f"{name}{turn}")
            await store.append(
                Append(
                    f"{name}{turn}", held.fence, 0, [MessageRecord(run="r", message=picture)], release=True
                )
            )
            assert await store.delete_session(f"{name}{turn}")
        held = await store.hold(name)
        await store.append(
            Append(name, held.fence, 0, [MessageRecord(run="r", message=picture)], release=True)
        )

    await asyncio.gather(*[work(both[number % 2], f"n{number}") for number in range(6)])
    for number in range(6):
        (record,) = await both[0].read(f"n{number}", 0, 1)
        assert record.message == picture
    assert postgres.execute(f"SELECT count(*) FROM {schema}.media") == [(1,)]


async def test_without_psycopg(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "gossamer.stores.postgres_connection", raising=False)
    monkeypatch.delattr(stores, "postgres_connection", raising=False)
    store = PostgresStore("postgresql://h/d")
    with pytest.raises(StoreUnavailableError, match=r"gossamer\[postgres\]"):
        await store.hold("s")
    with pytest.raises(StoreUnavailableError, match=r"gossamer\[postgres\]"):
        await store.load("s")
    await store.aclose()
