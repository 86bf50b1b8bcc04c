"""A process that is killed between its answer and the extraction, and another one that goes on."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.services import postgres  # noqa: F401 - a fixture

from gossamer import Agent, Approve, Session, ToolCall, tool
from gossamer.memory import Memory
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.stores import PostgresStore, SQLiteStore, Store
from gossamer.stores.sqlite_schema import MIGRATIONS, migrate

PROGRAM = """
import asyncio, json, os, signal, sys
from gossamer import Agent, Session
from gossamer.memory import Memory
from gossamer.models import ScriptedModel
from gossamer.stores import PostgresStore, SQLiteStore

url, schema, how = sys.argv[1:]
store = PostgresStore(url, schema=schema) if schema else SQLiteStore(url)

async def reply(request):
    if request.output_schema is None:
        return "Noted."
    if how == "extracting":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "busy":
        print("extracting", flush=True)
        await asyncio.sleep(60)
    text = request.messages[0].text
    number = text.partition("fact ")[2].partition("!")[0]
    print("did", number, flush=True)
    await asyncio.sleep(0.01)
    return json.dumps({"changes": [{"action": "add", "text": f"Ann said number{number} of many"}]})

async def main():
    memory = Memory(store)
    agent = Agent(ScriptedModel(reply), name="agent", memory=memory)
    if how == "ended":
        memory._background._wake = lambda here: None  # no extraction begins before the process dies
    if how == "many":
        async def say(index):
            await agent.run(f"fact {index}!", user="ann", session=Session(f"s{index}", store=store))
            print("said", flush=True)
        await asyncio.gather(*(say(index) for index in range(200)))
    for index in range(20 if how == "shared" else 1):
        session = Session(f"s{index}", store=store)
        await agent.run(f"fact {index}!", user="ann", session=session)
        if how == "ended":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "shared":
            print("asked", flush=True) if index == 0 else None
    await memory.flush()
    print("flushed", flush=True)

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgres"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Store, tuple[str, str]]]:
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        arguments = server.url(), f"s{secrets.token_hex(6)}"
        store: Store = PostgresStore(arguments[0], schema=arguments[1])
    else:
        arguments = str(tmp_path / "chats.db"), ""
        store = SQLiteStore(arguments[0])
    yield store, arguments
    await store.aclose()


async def start(arguments: tuple[str, str], how: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments, how, stdout=subprocess.PIPE
    )


def extracts(request: ModelRequest) -> Any:
    if request.output_schema is None:
        return "Hello."
    text = request.messages[0].text
    number = text.partition("fact ")[2].partition("!")[0]
    return json.dumps(
        {"changes": [{"action": "add", "text": f"Ann said number{number} of many"}]}
        if number
        else {"changes": []}
    )


@pytest.mark.parametrize("how", ["ended", "extracting"])
async def test_a_killed_process_loses_no_extraction(place: tuple[Store, tuple[str, str]], how: str) -> None:
    """The answer was given, so the run's end is on disk; then its extraction is too, and the next run wakes it."""
    store, arguments = place
    process = await start(arguments, how)
    await process.communicate()
    assert process.returncode == -signal.SIGKILL
    (info,) = await store.list_sessions()
    assert (info.id, info.status) == ("s0", "idle")
    memory = Memory(store)
    assert await store.memories.count_waiting("personal", None) == 1
    agent = Agent(ScriptedModel(extracts), name="agent", memory=memory)
    await agent.run("Hello", user="bob")
    await memory.aclose()
    assert [one.text for one in await memory.memories(user="ann")] == ["Ann said number0 of many"]
    assert await store.memories.count_waiting("personal", None) == 0


@pytest.mark.parametrize("said", [1, 40, 150])
async def test_whatever_moment_a_process_is_killed_at_each_finished_run_is_learned_from(
    place: tuple[Store, tuple[str, str]], said: int
) -> None:
    store, arguments = place
    process = await start(arguments, "many")
    assert process.stdout is not None
    while said:
        said -= (await process.stdout.readline()).startswith(b"said")
    process.kill()
    await process.communicate()
    finished = {
        info.id for info in await store.list_sessions(status="idle", limit=1000) if info.messages == 2
    }
    assert finished
    async with Memory(store, model=ScriptedModel(extracts)) as memory:
        await memory.flush()
        while await memory.waiting():
            await memory.flush()
        kept = {one.text for one in await memory.memories(user="ann", limit=1000)}
    assert {f"Ann said number{id_[1:]} of many" for id_ in finished} <= kept


async def test_what_a_living_process_does_is_left_to_it(place: tuple[Store, tuple[str, str]]) -> None:
    store, arguments = place
    process = await start(arguments, "busy")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"extracting\n"
    memory = Memory(store, model=ScriptedModel(extracts))
    try:
        async with memory:
            pass
        assert await memory.memories(user="ann") == []
        assert await memory.waiting() == 1
    finally:
        process.kill()
        await process.wait()
    while await memory.waiting():  # a server may hear of the death a moment later
        await memory.flush()
    assert len(await memory.memories(user="ann")) == 1
    await memory.aclose()


async def test_two_processes_do_each_extraction_once(place: tuple[Store, tuple[str, str]]) -> None:
    _store, arguments = place
    first = await start(arguments, "shared")
    assert first.stdout is not None
    assert (await first.stdout.readline()).strip() in {b"asked", b"did 0"}
    second = await start((arguments[0], arguments[1]), "joining")
    ours, theirs = await asyncio.gather(first.communicate(), second.communicate())
    assert first.returncode == second.returncode == 0
    memory = Memory(_store)
    texts = [one.text for one in await memory.memories(user="ann", limit=100)]
    assert len(texts) == len(set(texts)) == 20
    done = (ours[0] + theirs[0]).count(b"did")
    assert done <= 21  # 20 facts, and one that the second process said again
    assert await _store.memories.count_waiting("personal", None) == 0


async def test_a_run_that_is_resumed_in_another_process_is_learned_from(
    place: tuple[Store, tuple[str, str]],
) -> None:
    store, _ = place
    texts: list[str] = []

    @tool(needs_approval=True)
    def act() -> str:
        """Act."""
        return "done"

    def reply(request: ModelRequest) -> Any:
        if request.output_schema is not None:
            texts.append(request.messages[0].text)
            return '{"changes": []}'
        return ToolCall.of("act") if len(request.messages) == 1 else "Done."

    def agent() -> Agent[Any, str]:
        return Agent(ScriptedModel(reply), name="agent", tools=[act], memory=Memory(store, mode="around"))

    first = agent()
    paused = await first.run("fact 7!", user="ann", session=Session("s", store=store))
    assert paused.pending
    second = agent()  # nothing of the first one is known to it
    await second.resume(Session("s", store=store), {paused.pending[0].call_id: Approve()}, user="ann")
    await second.memory[0].aclose()  # type: ignore[index]
    assert len(texts) == 1
    assert "[user] fact 7!" in texts[0]
    assert "[assistant] Done." in texts[0]


async def test_a_store_of_the_version_before_gets_its_memories(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, str(path), MIGRATIONS[:1])
    connection.close()
    async with SQLiteStore(path) as store:
        await Memory(store).record("Ann likes tea", user="ann")
        assert len(await Memory(store).retrieve("tea", user="ann")) == 1
