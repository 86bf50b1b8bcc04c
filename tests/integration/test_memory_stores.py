"""Memories in both stores, asked through `store.memories`."""

from __future__ import annotations

import asyncio
import secrets
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import pytest
from tests.services import postgres  # noqa: F401 - a fixture

from gossamer import Session
from gossamer.errors import StoreError
from gossamer.ids import new_id
from gossamer.stores import SQLiteStore, Store
from gossamer.stores.memories import (
    Claimed,
    Extraction,
    MemoryChanges,
    MemoryOwner,
    MemoryQuery,
    NewMemory,
)

ANN = MemoryOwner("personal", "ann")
BOB = MemoryOwner("personal", "bob")


@pytest.fixture(params=["sqlite", "memory", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "postgres":
        from gossamer.stores import PostgresStore

        server = request.getfixturevalue("postgres")
        one: Store = PostgresStore(server.url(), schema=f"s{secrets.token_hex(6)}")
    else:
        one = SQLiteStore(":memory:" if request.param == "memory" else tmp_path / "memories.db")
    yield one
    await one.aclose()


async def put(store: Store, owner: MemoryOwner, *texts: str, **fields: object) -> list[str]:
    new = [NewMemory(secrets.token_hex(8), text, **{"user": owner.name, **fields}) for text in texts]  # type: ignore[arg-type]
    return await store.memories.change(MemoryChanges(owner, new))


async def texts_for(
    store: Store, owner: MemoryOwner, query: str, limit: int = 10, tool: str = ""
) -> list[str]:
    found = await store.memories.search(MemoryQuery(owner, query, limit, tool=tool))
    return [one.memory.text for one in sorted(found, key=lambda one: -(one.words or 0))]


async def test_a_memory_is_found_by_its_words_and_by_their_forms(store: Store) -> None:
    await put(store, ANN, "Ann likes green tea.", "Ann has two cats.", "Ann works in Zürich.")
    assert await texts_for(store, ANN, "does she like tea") == ["Ann likes green tea."]
    assert await texts_for(store, ANN, "CAT") == ["Ann has two cats."]
    assert await texts_for(store, ANN, "zurich") == ["Ann works in Zürich."]


@pytest.mark.parametrize("query", ["Straße", "STRASSE", "straße"])
async def test_letters_that_have_no_single_small_form_are_found(store: Store, query: str) -> None:
    await put(store, ANN, "Ann lives in Lange Straße.", "Ann has two cats.")
    assert await texts_for(store, ANN, query) == ["Ann lives in Lange Straße."]


async def test_a_rare_word_counts_more_than_a_frequent_one(store: Store) -> None:
    await put(store, ANN, *(f"Ann saw the film number{index}." for index in range(20)), "Ann saw a zebra.")
    assert (await texts_for(store, ANN, "film zebra saw"))[0] == "Ann saw a zebra."


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "\x00",
        '"',
        '"tea',
        "* ",
        "NEAR(",
        "tea OR",
        "AND",
        "words:",
        "'",
        "| & !",
        "-",
        "(((",
        "\\",
        "😀",
        "%s",
    ],
)
async def test_a_query_is_text_and_never_syntax(store: Store, query: str) -> None:
    await put(store, ANN, "Ann likes coffee.")
    assert await texts_for(store, ANN, query) == []
    assert await texts_for(store, ANN, f"{query} coffee") == ["Ann likes coffee."]


async def test_a_query_of_ten_kilobytes_is_cut(store: Store) -> None:
    await put(store, ANN, "Ann likes coffee.")
    assert await texts_for(store, ANN, "coffee " + "word " * 2000) == ["Ann likes coffee."]
    assert await texts_for(store, ANN, "x" * 10_000) == []


async def test_text_without_spaces_is_found_by_pairs_of_letters(store: Store) -> None:
    await put(store, ANN, "我喜欢苹果和香蕉", "私は寿司が好きです", "나는 김치를 좋아해요")
    assert await texts_for(store, ANN, "苹果") == ["我喜欢苹果和香蕉"]
    assert await texts_for(store, ANN, "果苹") == []
    assert await texts_for(store, ANN, "寿司は好き") == ["私は寿司が好きです"]
    assert await texts_for(store, ANN, "김치") == ["나는 김치를 좋아해요"]


async def test_nothing_of_another_owner_is_found_read_or_changed(store: Store) -> None:
    (anns,) = await put(store, ANN, "The secret is tea.")
    await put(store, BOB, "Bob likes coffee.")
    other_kind = MemoryOwner("task", "ann")
    for owner in (BOB, other_kind, MemoryOwner("personal", "ANN"), MemoryOwner("personal", "ann ")):
        assert await texts_for(store, owner, "secret tea owner1owner owner") == []
        assert "The secret is tea." not in [one.text for one in await store.memories.read(owner)]
        assert not await store.memories.forget(owner, anns)
        await store.memories.change(MemoryChanges(owner, forget=[anns]))
    with pytest.raises(StoreError):  # its id is taken, and not by a memory of Bob's
        await store.memories.change(MemoryChanges(BOB, [NewMemory(anns, "Overwritten.")]))
    assert [one.text for one in await store.memories.read(ANN)] == ["The secret is tea."]


async def test_who_has_most_memories_and_who_has_few_find_their_own(store: Store) -> None:
    await put(store, ANN, "Ann likes tea.")
    await put(store, BOB, *(f"Bob likes tea number{index}." for index in range(10)))
    assert await texts_for(store, ANN, "tea likes") == ["Ann likes tea."]
    assert await texts_for(store, ANN, "bob") == []
    assert len(await texts_for(store, BOB, "tea likes", limit=20)) == 10
    assert await texts_for(store, BOB, "ann") == []
    assert await texts_for(store, BOB, "number3") == ["Bob likes tea number3."]


async def test_what_says_the_same_takes_the_other_ones_place(store: Store) -> None:
    (first,) = await put(store, ANN, "Ann likes tea", importance=0.9)
    (second,) = await put(store, ANN, "ann LIKES  tea.", importance=0.1)
    assert first == second
    (kept,) = await store.memories.read(ANN)
    assert (kept.text, kept.importance) == ("ann LIKES  tea.", 0.9)
    (third,) = await put(store, ANN, "Ann prefers coffee")
    await store.memories.change(MemoryChanges(ANN, [NewMemory(third, "Ann likes tea!")]))
    assert [one.id for one in await store.memories.read(ANN)] == [first]


async def test_those_of_least_use_go(store: Store) -> None:
    ids = await put(store, ANN, *(f"Fact number{index}" for index in range(10)))
    await store.memories.note_uses(ids[:3])
    new = [NewMemory(secrets.token_hex(8), "One more fact", importance=0.0)]
    await store.memories.change(MemoryChanges(ANN, new, most=4))
    assert {one.text for one in await store.memories.read(ANN)} == {
        "One more fact",
        "Fact number0",
        "Fact number1",
        "Fact number2",
    }
    assert await texts_for(store, ANN, "number9") == []


async def test_metadata_and_source_come_back(store: Store) -> None:
    await put(store, ANN, "Ann likes tea", session="s", run="r", metadata={"tags": ["drink"]})
    (one,) = await store.memories.read(ANN)
    assert (one.session, one.run, one.metadata, one.uses) == ("s", "r", {"tags": ["drink"]}, 0)
    await store.memories.note_uses([one.id])
    (used,) = await store.memories.read(ANN)
    assert used.uses == 1
    assert used.used >= one.used


async def test_pages_go_back_in_time(store: Store) -> None:
    for index in range(5):
        await put(store, ANN, f"Fact number{index}")
    first = await store.memories.read(ANN, limit=2)
    rest = await store.memories.read(ANN, before=first[-1].updated)
    assert [one.text for one in [*first, *rest]] == [f"Fact number{index}" for index in (4, 3, 2, 1, 0)]


async def test_a_tools_memories_are_told_from_others(store: Store) -> None:
    agent = MemoryOwner("tool", "agent")
    await put(store, agent, "Wants dates as 2026-01-31", tool="get_weather")
    await put(store, agent, "Wants dates as seconds", tool="get_weather_history")
    assert await texts_for(store, agent, "dates", tool="get_weather") == ["Wants dates as 2026-01-31"]
    assert len(await texts_for(store, agent, "dates")) == 2


def vector(*values: float) -> bytes:
    return array("f", values).tobytes()


async def test_the_nearest_vectors_are_found(store: Store) -> None:
    pytest.importorskip("numpy")
    await put(store, ANN, "Ann drinks oolong", vector=vector(1, 0), embedder="e")
    await put(store, ANN, "Ann owns a car", vector=vector(0, 1), embedder="e")
    await put(store, ANN, "Of another embedder", vector=vector(1, 0), embedder="other")
    await put(store, ANN, "Of another length", vector=vector(1, 0, 0), embedder="e")
    await put(store, BOB, "Bob drinks oolong", vector=vector(1, 0), embedder="e")
    found = await store.memories.search(MemoryQuery(ANN, "nothing", 5, vector(2, 0), "e"))
    assert {one.memory.text: round(one.cosine or 0, 3) for one in found} == {
        "Ann drinks oolong": 1.0,
        "Ann owns a car": 0.0,
    }


# --- deleting ---------------------------------------------------------------------------------------------------


async def test_deleting_a_user_deletes_all_that_is_remembered_of_them(store: Store) -> None:
    agent = MemoryOwner("task", "agent")
    await put(store, ANN, "Ann likes tea")
    await put(store, BOB, "Bob likes tea")
    await put(store, agent, "It worked for Ann", user="ann")
    await put(store, agent, "Both did so", user="ann")
    await put(store, agent, "both did so.", user="bob")
    await put(store, agent, "It worked for Bob", user="bob")
    await store.memories.queue(extraction(user="ann"), 10)
    await store.memories.queue(extraction(owner=agent, user="ann"), 10)
    await store.memories.queue(extraction(owner=BOB, user="bob"), 10)
    await store.delete_user("ann")
    assert await store.memories.read(ANN) == []
    assert await texts_for(store, ANN, "tea") == []
    assert [one.text for one in await store.memories.read(BOB)] == ["Bob likes tea"]
    assert [one.text for one in await store.memories.read(agent)] == ["It worked for Bob"]
    assert await texts_for(store, agent, "worked") == ["It worked for Bob"]
    assert await store.memories.count_waiting("personal", None) == 1
    assert await store.memories.count_waiting("task", None) == 0


async def test_deleting_a_session_deletes_what_waits_of_it_and_leaves_memories(store: Store) -> None:
    session = Session("s", store=store)
    async with session:
        session.update(seen=True)
    await put(store, ANN, "Ann likes tea", session="s")
    await store.memories.queue(extraction(session="s"), 10)
    await store.memories.queue(extraction(session="other"), 10)
    assert await store.delete_session("s")
    assert await store.memories.count_waiting("personal", None) == 1
    assert len(await store.memories.read(ANN)) == 1


async def test_an_owner_is_forgotten(store: Store) -> None:
    await put(store, ANN, "Ann likes tea", "Ann has a cat")
    await put(store, BOB, "Bob likes tea")
    await store.memories.queue(extraction(), 10)
    assert await store.memories.forget_owner(ANN) == 2
    assert await store.memories.forget_owner(ANN) == 0
    assert await store.memories.read(ANN) == []
    assert await store.memories.count_waiting("personal", None) == 0
    assert await texts_for(store, BOB, "tea") == ["Bob likes tea"]


async def test_no_word_of_a_deleted_user_stays_in_the_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "memories.db")
    await put(store, BOB, *(f"Bob said something else{index}" for index in range(200)))
    await put(store, ANN, "Ann collects xylophones", tool="didgeridoo")
    await store.memories.queue(extraction(material="[user] a glockenspiel"), 10)
    await store.delete_user("ann")
    await store.aclose()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir()).lower()
    for word in (b"xylophon", b"didgeridoo", b"glockenspiel"):
        assert word not in data
    assert b"something" in data


# --- extractions ------------------------------------------------------------------------------------------------


def extraction(
    owner: MemoryOwner = ANN,
    agent: str = "agent",
    user: str | None = "ann",
    session: str | None = None,
    material: str = "[user] hello",
) -> Extraction:
    return Extraction(owner, agent, user, session, new_id(), material)


async def test_an_extraction_is_taken_once_and_oldest_first(store: Store) -> None:
    asked = [extraction(), extraction()]
    for one in asked:
        assert await store.memories.queue(one, 10) == 0
    first = await store.memories.claim("personal", ["agent"], time())
    second = await store.memories.claim("personal", None, time())
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert [first.extraction, second.extraction] == asked
    assert await store.memories.claim("personal", None, time()) is None
    assert await store.memories.claim("task", None, time()) is None


async def test_one_behind_many_that_wait_for_their_time_is_found(store: Store) -> None:
    for _ in range(205):
        await store.memories.queue(extraction(), 1_000)
        claimed = await store.memories.claim("personal", None, 100.0)
        assert isinstance(claimed, Claimed)
        await store.memories.put_back(claimed, 150.0, counted=True)
    assert await store.memories.claim("personal", None, 100.0) == 150.0
    free = extraction()
    await store.memories.queue(free, 1_000)
    found = await store.memories.claim("personal", None, 100.0)
    assert isinstance(found, Claimed)
    assert found.extraction == free


async def test_other_agents_extractions_are_left(store: Store) -> None:
    await store.memories.queue(extraction(agent="one"), 10)
    assert await store.memories.claim("personal", ["other"], time()) is None
    assert isinstance(await store.memories.claim("personal", ["other", "one"], time()), Claimed)


async def test_one_that_failed_waits_for_its_time(store: Store) -> None:
    await store.memories.queue(extraction(), 10)
    claimed = await store.memories.claim("personal", None, 100.0)
    assert isinstance(claimed, Claimed)
    await store.memories.put_back(claimed, 150.0, counted=True)
    assert await store.memories.claim("personal", None, 100.0) == 150.0
    again = await store.memories.claim("personal", None, 150.0)
    assert isinstance(again, Claimed)
    assert again.attempts == 2
    await store.memories.put_back(again, 0.0, counted=False)
    third = await store.memories.claim("personal", None, 150.0)
    assert isinstance(third, Claimed)
    assert third.attempts == 2
    await store.memories.put_back(third, None, counted=True)
    assert await store.memories.count_waiting("personal", None) == 0


async def test_what_comes_of_an_extraction_and_its_end_are_one(store: Store) -> None:
    await store.memories.queue(extraction(), 10)
    claimed = await store.memories.claim("personal", None, time())
    assert isinstance(claimed, Claimed)
    changes = MemoryChanges(ANN, [NewMemory(new_id(), "Ann likes tea")], claimed=claimed)
    await store.memories.change(changes)
    assert await store.memories.count_waiting("personal", None) == 0
    with pytest.raises(StoreError):
        await store.memories.change(
            MemoryChanges(ANN, [NewMemory(new_id(), "Ann likes coffee")], claimed=claimed)
        )
    assert [one.text for one in await store.memories.read(ANN)] == ["Ann likes tea"]


async def test_nothing_comes_of_an_extraction_whose_user_was_deleted_meanwhile(store: Store) -> None:
    await store.memories.queue(extraction(), 10)
    claimed = await store.memories.claim("personal", None, time())
    assert isinstance(claimed, Claimed)
    await store.delete_user("ann")
    with pytest.raises(StoreError):
        await store.memories.change(
            MemoryChanges(ANN, [NewMemory(new_id(), "Ann was here")], claimed=claimed)
        )
    assert await store.memories.read(ANN) == []


async def test_a_run_waits_once_for_each_owner(store: Store) -> None:
    one = extraction()
    await store.memories.queue(one, 10)
    await store.memories.queue(one, 10)
    await store.memories.queue(Extraction(BOB, "agent", "bob", None, one.run, "[user] hi"), 10)
    assert await store.memories.count_waiting("personal", ["agent"]) == 2


async def test_beyond_the_bound_the_oldest_are_dropped(store: Store) -> None:
    asked = [extraction() for _ in range(5)]
    dropped = [await store.memories.queue(one, 3) for one in asked]
    assert dropped == [0, 0, 0, 1, 1]
    claimed = await store.memories.claim("personal", None, time())
    assert isinstance(claimed, Claimed)
    assert claimed.extraction == asked[2]


async def test_the_one_under_way_is_not_dropped(store: Store) -> None:
    asked = [extraction() for _ in range(3)]
    await store.memories.queue(asked[0], 1)
    claimed = await store.memories.claim("personal", None, time())
    assert isinstance(claimed, Claimed)
    assert [await store.memories.queue(one, 1) for one in asked[1:]] == [0, 1]
    await store.memories.change(MemoryChanges(ANN, [NewMemory(new_id(), "Ann likes tea")], claimed=claimed))
    assert [one.text for one in await store.memories.read(ANN)] == ["Ann likes tea"]
    left = await store.memories.claim("personal", None, time())
    assert isinstance(left, Claimed)
    assert left.extraction == asked[2]


async def test_many_at_once_agree(store: Store) -> None:
    """Writers of one owner meet: equal texts become one, the count stays right."""
    await asyncio.gather(*(put(store, ANN, f"Fact number{index % 7}") for index in range(50)))
    assert len(await store.memories.read(ANN)) == 7
    await store.memories.change(MemoryChanges(ANN, [NewMemory(new_id(), "One more")], most=8))
    assert len(await store.memories.read(ANN)) == 8


async def test_many_memories_of_others_hide_nobodys(tmp_path: Path) -> None:
    """A word that stands in more memories than one search ranks is still found in the memories of who has few."""
    agent = MemoryOwner("task", "agent")
    async with SQLiteStore(tmp_path / "memories.db") as store:
        await put(store, ANN, *(f"Ann said common number{index}" for index in range(1100)))
        await put(store, BOB, "Bob said common things", "Bob said nothing")
        new = [NewMemory(f"a{index}", f"common task{index}") for index in range(9000)]
        await store.memories.change(MemoryChanges(agent, new, most=10_000))
        assert await texts_for(store, BOB, "common") == ["Bob said common things"]
        assert len(await texts_for(store, ANN, "common")) == 10
        assert (await texts_for(store, ANN, "common number7"))[0] == "Ann said common number7"
        assert len(await texts_for(store, agent, "common", 10)) == 10
        assert (await texts_for(store, agent, "common task77"))[0] == "common task77"
