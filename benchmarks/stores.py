"""What does it cost to keep sessions in a store: an append, a run, a list, going on with a long session?

Wall-clock times, for most of it is waiting for the disk; on the file system of the temporary folder, with its fsync.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.measure import Row, figures, publish, quick, rival_row, run_loop
from benchmarks.postgres_server import postgres_server
from gossamer import Agent, Message, Session, Text
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.records import MessageRecord, encode
from gossamer.stores import Append, PostgresStore, SQLiteStore, Store

TOGETHER = 200
ROUNDS = 5 if quick() else 25
REPEATS = 2 if quick() else 5
LONG = 10_000
LISTED = 10_000
WORDS = "The quick brown fox jumps over the lazy dog. " * 5

RECORD = MessageRecord(run="1a2271cec3f-24c96fbe05-1000000002", message=Message.user(WORDS))

Open = Callable[[], Store]


# --- an append ------------------------------------------------------------------------------------------------


async def append_cost(store: Store) -> float:
    """Give the µs of an append of a record, 200 sessions at once, each waiting for the disk before its next one."""
    names = [uuid4().hex for _ in range(TOGETHER)]
    fences = [held.fence for held in await asyncio.gather(*[store.hold(name) for name in names])]
    lengths = [0] * TOGETHER

    async def write(number: int) -> None:
        for _ in range(ROUNDS):
            await store.append(Append(names[number], fences[number], lengths[number], (RECORD,)))
            lengths[number] += 1

    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        await asyncio.gather(*[write(number) for number in range(TOGETHER)])
        best = min(best, (time.perf_counter() - began) / (TOGETHER * ROUNDS))
    for name in names[:3]:
        assert await store.read(name, 0, 10_000) == [RECORD] * (ROUNDS * REPEATS)
    return best * 1e6


def sqlite_floor(folder: Path) -> float:
    """The same records put into a table by hand, 200 a transaction."""
    connection = sqlite3.connect(folder / f"{uuid4().hex}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE records (session INTEGER, place INTEGER, data BLOB, PRIMARY KEY (session, place)) WITHOUT ROWID"
    )
    best = float("inf")
    place = 0
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(ROUNDS):
            connection.execute("BEGIN IMMEDIATE")
            rows = [(number, place, encode(RECORD)) for number in range(TOGETHER)]
            connection.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
            place += 1
        best = min(best, (time.perf_counter() - began) / (TOGETHER * ROUNDS))
    connection.close()
    return best * 1e6


def postgres_floor(url: str) -> float:
    """The same records put into a table by hand, 200 a transaction and statement."""
    import psycopg

    best = float("inf")
    place = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS floor"
            " (session bigint, place bigint, data bytea, PRIMARY KEY (session, place))"
        )
        connection.execute("TRUNCATE floor")
        for _ in range(REPEATS):
            began = time.perf_counter()
            for _ in range(ROUNDS):
                connection.execute(
                    "INSERT INTO floor SELECT * FROM unnest(%b::bigint[], %b::bigint[], %b::bytea[])",
                    (
                        list(range(TOGETHER)),
                        [place] * TOGETHER,
                        [encode(RECORD) for _ in range(TOGETHER)],
                    ),
                )
                place += 1
            best = min(best, (time.perf_counter() - began) / (TOGETHER * ROUNDS))
    return best * 1e6


# --- a run ----------------------------------------------------------------------------------------------------


async def run_cost(store: Store) -> float:
    """Give the µs of a run that is kept, 200 sessions at once, each run on a fresh object as in a server."""
    agent = Agent(ScriptedModel(lambda request: "hello"))
    names = [uuid4().hex for _ in range(TOGETHER)]

    async def talk(name: str) -> None:
        for _ in range(ROUNDS // 5):
            result = await agent.run("hello", session=Session(name, store=store))
            assert result.output == "hello"

    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        await asyncio.gather(*[talk(name) for name in names])
        best = min(best, (time.perf_counter() - began) / (TOGETHER * (ROUNDS // 5)))
    for name in names[:3]:
        assert len(await store.read(name, 0, 10_000)) == 4 * (ROUNDS // 5) * REPEATS
    return best * 1e6


async def stall(store: Store | None) -> float:
    """Give the ms by which the loop was late at worst while 200 sessions talked, in the calmest of several rounds."""
    return min([await _stall(store) for _ in range(REPEATS)])


async def _stall(store: Store | None) -> float:
    agent = Agent(ScriptedModel(lambda request: "hello"))
    names = [uuid4().hex for _ in range(TOGETHER)]
    most = 0.0
    writing = True

    async def beat() -> None:
        nonlocal most
        while writing:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            most = max(most, time.perf_counter() - began - 0.001)

    async def talk(name: str, number: int) -> None:
        await asyncio.sleep(number * 0.0005)  # as users come, not all in the same moment
        for _ in range(ROUNDS // 5):
            await agent.run("hello", session=Session(name, store=store))
            await asyncio.sleep(0.05)

    beating = asyncio.create_task(beat())
    await asyncio.gather(*[talk(name, number) for number, name in enumerate(names)])
    writing = False
    await beating
    return most * 1000


# --- a list, a long session -----------------------------------------------------------------------------------


async def list_cost(store: Store) -> float:
    """Give the ms of a list of 10,000 sessions."""
    there = len(await store.list_sessions(limit=LISTED))
    for begin in range(there, LISTED, 500):
        names = [f"listed {begin} {number}" for number in range(min(500, LISTED - begin))]
        helds = await asyncio.gather(*[store.hold(name) for name in names])
        await asyncio.gather(
            *[
                store.append(Append(name, held.fence, 0, (RECORD,), release=True))
                for name, held in zip(names, helds, strict=True)
            ]
        )
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = await store.list_sessions(limit=LISTED)
        best = min(best, time.perf_counter() - began)
        assert len(found) == LISTED
    return best * 1000


class _Asked(Exception):  # noqa: N818 - ends the run where the model is asked
    pass


async def go_on_cost(store: Store) -> float:
    """Give the ms from the call of a run to that of its model, in a session of 10,000 messages with a view of 100."""
    session = Session(uuid4().hex, store=store, window=100)
    await session.load()
    for number in range(LONG // 2):
        session.add(Message.user(f"{number} {WORDS}"))
        session.add(Message("assistant", (Text(WORDS),)))
    await session.save()
    asked = 0.0
    seen = 0

    def reply(request: ModelRequest) -> str:
        nonlocal asked, seen
        asked = time.perf_counter()
        seen = len(request.messages)
        return "hello"

    agent = Agent(ScriptedModel(reply))
    best = float("inf")
    for _ in range(5 * REPEATS):
        began = time.perf_counter()
        await agent.run("hello", session=Session(session.id, store=store, window=100))
        best = min(best, asked - began)
        assert 75 <= seen <= 102
    return best * 1000


# --- all ------------------------------------------------------------------------------------------------------


async def measure(store: Store) -> dict[str, float]:
    measured = {
        "append": await append_cost(store),
        "run": await run_cost(store),
        "go_on": await go_on_cost(store),
        "stall": await stall(store),
        "list": await list_cost(store),
    }
    await store.aclose()
    return measured


def rows(
    name: str, measured: dict[str, float], floors: dict[str, float], aims: dict[str, float]
) -> list[Row]:
    """Make the rows of one store."""
    rivals: dict[str, dict[str, Any]] = {}
    if name == "SQLite":
        rivals = {case: rival_row(f"stored_{case}", names=("agno", "langgraph")) for case in ("run", "go_on")}
    told = {
        "append": (f"append a record, {TOGETHER} sessions at once", "µs"),
        "run": (f"a run that is kept, {TOGETHER} sessions at once", "µs"),
        "go_on": ("until the model is asked, in a session of 10,000 messages with a view of 100", "ms"),
        "list": ("list 10,000 sessions", "ms"),
        "stall": (f"the loop's longest delay while {TOGETHER} sessions talk", "ms"),
    }
    made: list[Row] = []
    for case, (what, unit) in told.items():
        aim = aims.get(case)
        faced = rivals.get(case, {})
        ok = None if aim is None else measured[case] <= aim
        target = "" if aim is None else f"≤ {aim:g} {unit}"
        if known := figures(faced):
            ok = ok is not False and measured[case] < min(known)
            target += " and less than every rival" if target else "less than every rival"
        made.append(
            Row(
                f"{name}: {what}",
                unit,
                measured[case],
                floors.get(case),
                faced,
                target,
                ok,
            )
        )
    return made


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gossamer-bench-") as name:
        folder = Path(name)
        floor = sqlite_floor(folder)
        measured = run_loop(measure(SQLiteStore(folder / "chats.db")))
        floor = min(floor, sqlite_floor(folder))
    calm = run_loop(stall(None))
    found = rows(
        "SQLite",
        measured,
        {"append": floor, "stall": calm},
        {"append": 50, "go_on": 2, "list": 50, "stall": 10},
    )
    with postgres_server() as url:
        if url is not None:
            floor = postgres_floor(url)
            measured = run_loop(measure(PostgresStore(url)))
            floor = min(floor, postgres_floor(url))
            found += rows(
                "Postgres",
                measured,
                {"append": floor, "stall": calm},
                {"append": 300, "list": 50, "stall": 10},
            )
    publish("stores", found)


if __name__ == "__main__":
    main()
