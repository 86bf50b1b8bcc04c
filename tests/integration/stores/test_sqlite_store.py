"""What can go wrong with a SQLite file, and what is said then."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from gossamer import Agent, Message, Session
from gossamer.errors import (
    ArgumentError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreVersionError,
)
from gossamer.models import ScriptedModel
from gossamer.records import MessageRecord
from gossamer.stores import Append, SQLiteStore, open_store
from gossamer.stores.sqlite_schema import MIGRATIONS, migrate

agent = Agent(ScriptedModel(lambda request: f"heard {request.messages[-1].text[:100]}"), name="ear")


@pytest.fixture
async def opened():
    async with contextlib.AsyncExitStack() as stack:

        def open_(path, **options) -> SQLiteStore:
            store = SQLiteStore(path, **options)
            stack.push_async_callback(store.aclose)
            return store

        yield open_


def texts(records) -> list[str]:
    return [record.message.text for record in records if isinstance(record, MessageRecord)]


async def append(store, session: str, *said: str) -> None:
    held = await store.hold(session)
    records = [MessageRecord(run="r", message=Message.user(text)) for text in said]
    await store.append(Append(session, held.fence, held.length, records, release=True))


# --- files ----------------------------------------------------------------------------------------------------


async def test_a_url_names_one_store(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    store = open_store(url)
    assert open_store(url) is store
    assert store.url == url
    await agent.run("x", session=Session("s", store=url))
    assert [info.id for info in await store.list_sessions()] == ["s"]
    await store.aclose()
    for wrong in ("sqlite://a.db", "sqlite:///", "mysql://x", "chats.db", "", "postgres:x", "memory:x"):
        with pytest.raises(ArgumentError):
            open_store(wrong)
    with pytest.raises(ArgumentError):
        open_store(tmp_path)  # pyright: ignore[reportArgumentType]


def test_a_store_is_one_however_its_url_is_spelled(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = open_store("sqlite:///chats.db")
    assert open_store("sqlite:///./chats.db") is here
    assert open_store(f"sqlite:///{tmp_path}/chats.db") is here
    assert open_store("memory:") is open_store("memory://")
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    assert open_store("sqlite:///chats.db").url == f"sqlite:///{tmp_path}/inside/chats.db"


def test_what_is_in_memory_stays_however_many_stores_are_named(tmp_path) -> None:
    kept = open_store("memory:")
    for number in range(300):
        open_store(f"sqlite:///{tmp_path}/{number}.db")
    assert open_store("memory:") is kept


@pytest.mark.parametrize("options", [{"path": "a\x00b"}, {"path": "a", "busy_timeout": -1}], ids=str)
def test_arguments_that_cannot_be(options: dict) -> None:
    with pytest.raises(ArgumentError):
        SQLiteStore(**options)


async def test_a_missing_folder(tmp_path, opened) -> None:
    store = opened(tmp_path / "nowhere" / "chats.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="folder"):
            await store.list_sessions()
    session = Session("s", store=store)
    with pytest.raises(StoreUnavailableError):
        await agent.run("x", session=session)
    (tmp_path / "nowhere").mkdir()
    assert (await agent.run("x", session=session)).output == "heard x"


async def test_a_folder_in_place_of_a_file(tmp_path, opened) -> None:
    with pytest.raises(StoreUnavailableError):
        await opened(tmp_path).hold("s")


async def test_a_file_that_is_no_database(tmp_path, opened) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, " * 1000)
    with pytest.raises(StoreDamagedError, match="file of its own"):
        await opened(path).hold("s")
    assert path.read_text() == "Dear Ada, " * 1000


async def test_a_database_of_somebody_else(tmp_path, opened) -> None:
    path = tmp_path / "theirs.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (id TEXT)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError, match="not one of Gossamer's"):
        await opened(path).hold("s")
    assert path.read_bytes() == before


async def test_a_damaged_database(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store = opened(path)
    for number in range(50):
        await append(store, f"s{number}", "x" * 3000)
    await store.aclose()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with pytest.raises(StoreError) as failure:
        for number in range(50):
            await store.load(f"s{number}")
    assert isinstance(failure.value, StoreDamagedError)


# --- versions -------------------------------------------------------------------------------------------------


async def test_an_old_database_is_brought_forward(tmp_path, opened, monkeypatch) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, "a.db", MIGRATIONS[:1])
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    store = opened(path)
    await append(store, "s", "kept")
    await store.aclose()
    later = (*MIGRATIONS, "ALTER TABLE sessions ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'")
    monkeypatch.setattr("gossamer.stores.sqlite.migrate", partial(migrate, migrations=later))
    store = opened(path)
    await append(store, "s", "more")
    assert texts(await store.read("s", 0, 9)) == ["kept", "more"]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT colour FROM sessions").fetchall() == [("blue",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    await store.aclose()
    monkeypatch.undo()
    with pytest.raises(StoreVersionError, match=f"version {len(later)}"):
        await opened(path).load("s")


@pytest.mark.parametrize("statement", [1, 2, 3, 4])
def test_another_process_makes_the_tables_before_a_statement_of_ours(tmp_path, statement) -> None:
    class Watched(sqlite3.Connection):
        executed = 0

        def execute(self, *arguments):
            self.executed += 1
            if self.executed == statement:
                migrate(other, "a.db")
            return super().execute(*arguments)

    with (
        contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other,
        contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, factory=Watched)) as ours,
    ):
        migrate(ours, "a.db")
        assert ours.executed >= statement
        assert ours.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


async def test_a_step_that_fails_leaves_the_database_as_it_was(tmp_path, opened, monkeypatch) -> None:
    path = tmp_path / "a.db"
    store = opened(path)
    await append(store, "s", "kept")
    await store.aclose()
    later = (*MIGRATIONS, "ALTER TABLE sessions ADD COLUMN a TEXT;\n ALTER TABLE nowhere ADD COLUMN b TEXT")
    monkeypatch.setattr("gossamer.stores.sqlite.migrate", partial(migrate, migrations=later))
    with pytest.raises(StoreError, match="nowhere"):
        await store.load("s")
    monkeypatch.undo()
    assert texts(await store.read("s", 0, 9)) == ["kept"]


# --- what the disk does -----------------------------------------------------------------------------------------


async def test_a_locked_file(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store = opened(path, busy_timeout=0.1)
    session = Session("s", store=store)
    await agent.run("one", session=session)
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read(1)"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert await other.stdout.readline() == b"locked\n"

    async def reply(request):
        await session.settle()
        return "x"

    with pytest.raises(StoreBusyError, match="another process"):
        await agent.run("two", session=session)
    with pytest.raises(StoreBusyError):
        await store.hold("t")
    assert [info.id for info in await store.list_sessions()] == ["s"]  # reading goes on
    other.stdin.close()
    await other.wait()
    result = await agent.run("three", session=session)
    assert [message.text for message in result.messages][:2] == ["one", "heard one"]
    assert [message.text for message in result.messages][-2:] == ["three", "heard three"]


async def test_a_file_that_is_locked_while_a_run_is_under_way(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store = opened(path, busy_timeout=0.05)
    session = Session("s", store=store)
    connection = sqlite3.connect(path, isolation_level=None)

    async def reply(request):
        await session.settle()
        connection.execute("BEGIN IMMEDIATE")
        return "spoken"

    with pytest.raises(StoreBusyError):
        await Agent(ScriptedModel(reply)).run("one", session=session)
    assert [message.text for message in session.messages] == ["one", "spoken"]
    connection.execute("ROLLBACK")
    connection.close()
    result = await agent.run("two", session=session)  # writes what could not be written
    assert [message.text for message in result.messages] == ["one", "spoken", "two", "heard two"]
    assert texts(await store.read("s", 0, 99)) == ["one", "spoken", "two", "heard two"]
    (info,) = await store.list_sessions()
    assert (info.messages, info.status) == (4, "idle")


async def test_a_session_that_could_not_be_let_go_is_free_with_the_next_write(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store, other = opened(path, busy_timeout=0.05), opened(path)
    session = Session("s", store=store)
    connection = sqlite3.connect(path, isolation_level=None)

    async def reply(request):
        await session.settle()
        connection.execute("BEGIN IMMEDIATE")
        return "spoken"

    with pytest.raises(StoreBusyError):
        await Agent(ScriptedModel(reply)).run("one", session=session)
    connection.execute("ROLLBACK")
    connection.close()
    await agent.run("two", session=Session("t", store=store))
    assert [info.status for info in await other.list_sessions()] == ["idle", "broken"]
    assert (await other.hold("s")).length == 2


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk that is full wants root, to mount a small one")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk(small_disk: Path, opened) -> None:
    store = opened(small_disk / "a.db")
    session = Session("s", store=store)
    await agent.run("one", session=session)
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(b"x" * (free - 20_000))
    with pytest.raises(StoreFullError, match="room"):
        await agent.run("two " + "x" * 400_000, session=session)
    assert texts(await store.read("s", 0, 99)) == ["one", "heard one"]
    ballast.unlink()
    result = await agent.run("three", session=session)
    assert [message.text[:11] for message in result.messages][-2:] == ["three", "heard three"]
    stored = texts(await store.read("s", 0, 99))
    assert [text[:5] for text in stored][::2] == ["one", "two x", "three"]
    await store.aclose()


async def test_a_file_that_may_not_be_written(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store = opened(path)
    await append(store, "s", "kept")
    await store.aclose()
    if os.geteuid() == 0:
        done = subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("root may write everything here")
    else:
        path.chmod(0o400)
    try:
        with pytest.raises(StoreUnavailableError):
            await append(opened(path), "s", "more")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(path)], check=True)
    assert texts(await store.read("s", 0, 9)) == ["kept"]


def content(path) -> bytes:
    """Read a file in another process: closing it in this one would let go of SQLite's locks on it."""
    return subprocess.run(["cat", str(path)], capture_output=True, check=True).stdout


async def test_what_is_deleted_is_in_no_file_any_more(tmp_path, opened) -> None:
    path = tmp_path / "a.db"
    store = opened(path)
    secret = "s3cr3t-of-ada"
    chance = Random(7)
    for _ in range(300):  # many sessions, so that pages are split and what is on them moves
        name = chance.choice(["ada", "bob", "cyd", "dan", "eve"])
        words = f"{secret if name == 'ada' else name} " * chance.randrange(1, 40)
        await agent.run(words, session=Session(secret if name == "ada" else name, store=store), user=name)
    assert any(secret.encode() in content(one) for one in tmp_path.iterdir())
    assert await store.delete_user("ada") == 1
    for one in tmp_path.iterdir():
        assert secret.encode() not in content(one), one.name
    await store.aclose()
    for one in tmp_path.iterdir():
        assert secret.encode() not in content(one), one.name


async def test_nothing_is_left_beside_the_file(tmp_path, opened) -> None:
    store = opened(tmp_path / "a[b]*.db")
    await append(store, "s", "x")
    (tmp_path / "a[b]*.db-holder-00112233445566ff").touch()  # of a process that was killed
    other = opened(tmp_path / "a[b]*.db")
    await append(other, "s", "y")
    assert not (tmp_path / "a[b]*.db-holder-00112233445566ff").exists()
    await store.aclose()
    await other.aclose()
    assert [one.name for one in tmp_path.iterdir()] == ["a[b]*.db"]


async def test_nothing_is_left_beside_a_file_that_was_read_last(tmp_path) -> None:
    for _ in range(20):
        store = SQLiteStore(tmp_path / "chats.db")
        listing = asyncio.ensure_future(store.list_sessions())
        await asyncio.sleep(0)
        await store.aclose()
        assert await listing == []
        assert list(tmp_path.glob("*-holder-*")) == []


def test_a_process_that_ends_without_closing_loses_nothing(tmp_path) -> None:
    code = """
import asyncio, sys
from gossamer import Message, Session
from gossamer.records import MessageRecord
from gossamer.stores import Append, SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1])
    held = await store.hold("s")
    for place in range(500):
        store.append(Append("s", held.fence, place, [MessageRecord(run="r", message=Message.user(str(place)))]))

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.db")], check=True, timeout=60)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*), max(place) FROM records").fetchall() == [(500, 499)]
    assert [one.name for one in tmp_path.iterdir()] == ["a.db"]
