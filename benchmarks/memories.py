"""What does long-term memory cost: a search among 100,000 memories, a memory kept, a run with memory around it?"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, publish, quick, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent
from gossamer.memory import Memory
from gossamer.models import ModelRequest, ModelResponse, ScriptedModel
from gossamer.stores import SQLiteStore
from gossamer.stores.memories import MemoryChanges, MemoryOwner, NewMemory

COUNT = 5_000 if quick() else 100_000
USERS = 1_000
WORDS = 15  # of a memory
ASKED = 6  # words of a query
QUERIES = 10 if quick() else 60
ROUNDS = 2 if quick() else 5
AT_ONCE = 200
LIMIT = 5
RUNS = 20 if quick() else 200

# Words by Zipf's law, as in a language: the most frequent one stands in more than half of the memories.
_VOCABULARY = [f"word{index}" for index in range(20_000)]
_WEIGHTS = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(_VOCABULARY))))


def text_of(random_: random.Random, count: int) -> str:
    return " ".join(random_.choices(_VOCABULARY, cum_weights=_WEIGHTS, k=count))


async def fill(store: SQLiteStore, owner: MemoryOwner, texts: list[str]) -> None:
    for start in range(0, len(texts), 1_000):
        new = [
            NewMemory(f"{owner.name}-{start + index}", text)
            for index, text in enumerate(texts[start : start + 1_000])
        ]
        await store.memories.change(MemoryChanges(owner, new, most=10**9))


async def search(memory: Memory, queries: list[str], **whose: str) -> tuple[list[float], list[list[str]]]:
    """ms of each query, the least of the rounds, and the texts that it found."""
    best = [float("inf")] * len(queries)
    texts: list[list[str]] = [[] for _ in queries]
    for _ in range(ROUNDS):
        for index, query in enumerate(queries):
            start = time.perf_counter()
            found = await memory.retrieve(query, LIMIT, **whose)
            best[index] = min(best[index], time.perf_counter() - start)
            texts[index] = [one.text for one in found]
    return [seconds * 1e3 for seconds in best], texts


def by_hand(connection: sqlite3.Connection, queries: list[str]) -> tuple[list[float], list[list[str]]]:
    """The floor: all words asked of FTS5, nothing left out."""
    best = [float("inf")] * len(queries)
    texts: list[list[str]] = [[] for _ in queries]
    for _ in range(min(ROUNDS, 2)):
        for index, query in enumerate(queries):
            words = " OR ".join(f'"{word}"' for word in query.split())
            start = time.perf_counter()
            rows = connection.execute(
                "SELECT words FROM bare WHERE bare MATCH ? ORDER BY rank LIMIT ?", (words, LIMIT)
            ).fetchall()
            best[index] = min(best[index], time.perf_counter() - start)
            texts[index] = [text for (text,) in rows]
    return [seconds * 1e3 for seconds in best], texts


def share_of_best(
    connection: sqlite3.Connection, queries: list[str], ours: list[list[str]], theirs: list[list[str]]
) -> float:
    """What is found scores by all words of the query, as a share of what the best score."""

    def scores(query: str, texts: list[str]) -> float:
        words = " OR ".join(f'"{word}"' for word in query.split())
        marks = ", ".join("?" * len(texts))
        rows = connection.execute(
            f"SELECT bm25(bare) FROM bare WHERE bare MATCH ? AND words IN ({marks})", (words, *texts)
        )
        return -sum(score for (score,) in rows)

    chosen = range(0, len(queries), 3)  # each is a look at all that match
    shares = [
        scores(queries[one], ours[one]) / scores(queries[one], theirs[one]) for one in chosen if theirs[one]
    ]
    return statistics.fmean(shares)


async def searching(folder: Path) -> list[Row]:
    random_ = random.Random(7)
    texts = [text_of(random_, WORDS) for _ in range(COUNT)]
    queries = [text_of(random_, ASKED) for _ in range(QUERIES)]
    bare = sqlite3.connect(folder / "bare.db")
    bare.execute(
        "CREATE VIRTUAL TABLE bare USING fts5 (words, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    bare.executemany("INSERT INTO bare VALUES (?)", [(text,) for text in texts])
    bare.commit()
    rows: list[Row] = []
    async with SQLiteStore(folder / "one.db") as store:
        await fill(store, MemoryOwner("task", "agent"), texts)
        found, ours = await search(Memory(store, "task"), queries, agent="agent")
        floor, theirs = by_hand(bare, queries)
        agree = share_of_best(bare, queries, ours, theirs)
        assert agree >= 0.9, agree
        middle, worst = statistics.median(found), max(found)
        rows += [
            Row(
                f"search {COUNT:,} memories of one agent by BM25, median of {QUERIES} queries of {ASKED} words",
                "ms",
                middle,
                statistics.median(floor),
                {},
                "≤ 10 ms",
                middle <= 10,
            ),
            Row("the slowest of these queries", "ms", worst, max(floor), {}, "≤ 10 ms", worst <= 10),
            Row(f"BM25 of the {LIMIT} found, as a share of the {LIMIT} best", "%", agree * 100),
        ]
    bare.close()
    async with SQLiteStore(folder / "many.db") as store:
        share = COUNT // USERS
        for user in range(USERS):
            await fill(
                store, MemoryOwner("personal", f"user{user}"), texts[user * share : (user + 1) * share]
            )
        found, ours = await search(Memory(store), queries, user="user7")
        own = set(texts[7 * share : 8 * share])
        assert all(text in own for several in ours for text in several)
        middle = statistics.median(found)
        rows.append(
            Row(
                f"search one of {USERS:,} users' memories, {COUNT:,} in all",
                "ms",
                middle,
                None,
                {},
                "≤ 10 ms",
                middle <= 10,
            )
        )
    return rows


async def keeping(folder: Path) -> Row:
    """µs of a memory recorded, with its search for one that says the same, 200 at once, each on disk."""
    random_ = random.Random(11)
    async with SQLiteStore(folder / "keep.db") as store:
        memory = Memory(store, max_memories=10**6)
        best = float("inf")
        kept = 0
        for round_ in range(ROUNDS + 1):
            texts = [f"{text_of(random_, WORDS)} {round_}x{index}" for index in range(AT_ONCE)]
            start = time.perf_counter()
            await asyncio.gather(
                *(memory.record(text, user=f"user{index % 50}") for index, text in enumerate(texts))
            )
            best = min(best, time.perf_counter() - start)
            kept += AT_ONCE
        assert (
            sum([len(await memory.memories(user=f"user{index}", limit=1000)) for index in range(50)]) == kept
        )
    floor = float("inf")
    bare = sqlite3.connect(folder / "bare-keep.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE memories (number INTEGER PRIMARY KEY, text TEXT)")
    bare.execute(
        "CREATE VIRTUAL TABLE bare USING fts5 (words, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    for _ in range(ROUNDS):
        texts = [text_of(random_, WORDS) for _ in range(AT_ONCE)]
        start = time.perf_counter()
        bare.execute("BEGIN")
        for text in texts:
            number = bare.execute("INSERT INTO memories (text) VALUES (?)", (text,)).lastrowid
            bare.execute("INSERT INTO bare (rowid, words) VALUES (?, ?)", (number, text))
        bare.execute("COMMIT")
        floor = min(floor, time.perf_counter() - start)
    bare.close()
    return Row(
        f"record a memory, {AT_ONCE} at once, on disk", "µs", best / AT_ONCE * 1e6, floor / AT_ONCE * 1e6
    )


class AskedModel(PrebuiltModel):
    """Answers at once; asked for changes to memories, it says that there are none."""

    nothing = ScriptedModel(['{"changes": []}'])

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer."""
        if request.output_schema is None:
            return self.answer
        if self.call is self.answer:
            self.call = await self.nothing.respond(request)
        return self.call


async def running(folder: Path) -> list[Row]:
    """µs of CPU of a run with memory around it, its extraction included or not, and of one without."""
    random_ = random.Random(13)
    async with SQLiteStore(folder / "run.db") as store:
        memory = Memory(store, mode="around")
        await fill(store, MemoryOwner("personal", "ann"), [text_of(random_, WORDS) for _ in range(1_000)])
        prompts = [text_of(random_, ASKED) for _ in range(RUNS)]
        model: Any = AskedModel()
        costs: dict[str, float] = dict.fromkeys(("waits", "all", "without"), float("inf"))
        for _ in range(ROUNDS):
            agent = Agent(model, memory=memory)
            start, wall = time.process_time(), time.perf_counter()
            for prompt in prompts:
                result = await agent.run(prompt, user="ann")
            waited = time.perf_counter() - wall
            assert any(one.author == "memory" for one in result.messages)
            await memory.flush()
            costs["all"] = min(costs["all"], time.process_time() - start)
            costs["waits"] = min(costs["waits"], waited)
            assert await memory.waiting() == 0
            bare = Agent(model)
            start = time.process_time()
            for prompt in prompts:
                await bare.run(prompt, user="ann")
            costs["without"] = min(costs["without"], time.process_time() - start)
        await memory.aclose()
    each = {name: seconds / RUNS * 1e6 for name, seconds in costs.items()}
    return [
        Row(
            "run with memory around it, time to the answer, one after another",
            "µs",
            each["waits"],
            each["without"],
        ),
        Row("the same, CPU with its extraction", "µs", each["all"], each["without"]),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gossamer-memories-") as name:
        folder = Path(name)
        rows = run_loop(searching(folder))
        rows.append(run_loop(keeping(folder)))
        rows += run_loop(running(folder))
    publish("memories", rows)


if __name__ == "__main__":
    main()
