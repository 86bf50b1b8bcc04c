"""Which memory a new one replaces, in what order those found are given, and what words a query has."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossamer.memory.merging import ranked, says_the_same
from gossamer.stores import SQLiteStore
from gossamer.stores.memories import (
    FoundMemory,
    MemoryChanges,
    MemoryOwner,
    MemoryQuery,
    NewMemory,
    StoredMemory,
    normalised,
    usefulness,
    vitality,
)
from gossamer.stores.query_words import MOST_WORDS, index_words, query_words, spaced

DAY = 86_400.0
NOW = 1_000 * DAY


def found(text: str, words: float | None = 1.0, cosine: float | None = None, **fields: object) -> FoundMemory:
    values = {"id": text, "updated": NOW, "used": NOW, **fields}
    return FoundMemory(StoredMemory(text=text, **values), words, cosine)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "old", "same"),
    [
        ("Ann likes tea", "ann  likes TEA.", True),
        ("Ann likes green tea with milk", "Ann, likes green tea (with milk)", True),
        ("Ann is a manager of Bob", "Bob is a manager of Ann", False),
        ("Ann really likes green tea with milk", "Ann likes green tea with milk", True),
        ("Ann likes tea", "Ann likes coffee", False),
        ("Room 12 on floor 3 has a screen", "Room 13 on floor 3 has a screen", False),
        ("The office opens at 9 on Mondays", "The office opens at 10 on Mondays", False),
        ("Ann likes C++", "Ann likes C", False),
        ("Ann likes tea", "Ann likes tea, two cats and her house in Oslo", False),
        ("我喜欢苹果", "我喜欢苹果。", True),
        ("?", "!", False),
    ],
)
def test_which_texts_say_the_same(new: str, old: str, same: bool) -> None:
    assert (says_the_same(new, "", [found(old)]) is not None) == same
    assert (says_the_same(old, "", [found(new)]) is not None) == same


def test_near_vectors_say_the_same_where_no_number_differs() -> None:
    assert says_the_same("Ann drinks tea", "", [found("She is fond of tea", None, 0.97)]) is not None
    assert says_the_same("Ann drinks tea", "", [found("She is fond of tea", None, 0.9)]) is None
    assert says_the_same("Room 12 is free", "", [found("Room 13 is free", None, 0.99)]) is None


def test_what_is_said_of_another_tool_is_another_thing() -> None:
    assert says_the_same("Takes https", "read", [found("Takes https", tool="write")]) is None
    assert says_the_same("Takes https", "read", [found("Takes https", tool="read")]) is not None


@given(st.text(min_size=1), st.text())
def test_a_text_says_the_same_as_itself_and_normalising_twice_changes_nothing(text: str, other: str) -> None:
    assert says_the_same(text, "", [found(other + "x1"), found(text)]) is not None
    once = normalised(text)
    assert normalised(once) == once


memories = st.lists(
    st.builds(
        lambda number, words, cosine, age, importance: found(
            f"m{number}", words, cosine, updated=NOW - age, used=NOW - age, importance=importance
        ),
        st.integers(0, 1000),
        st.none() | st.floats(1e-6, 100),
        st.none() | st.floats(-1, 1),
        st.floats(0, 1000 * DAY),
        st.floats(0, 1),
    ),
    unique_by=lambda one: one.memory.id,
    max_size=30,
)


@given(memories, st.integers(1, 10), st.floats(1, 1000 * DAY))
def test_ranking_gives_each_once_and_no_more_than_asked_for(
    several: list[FoundMemory], limit: int, half_life: float
) -> None:
    order = ranked(several, NOW, half_life, limit)
    assert len(order) == min(limit, len(several))
    assert len({one.id for one in order}) == len(order)
    assert {one.id for one in order} <= {one.memory.id for one in several}
    everything = ranked(several, NOW, half_life, 1000)
    assert everything[: len(order)] == order
    assert ranked(several[::-1], NOW, half_life, limit) == order


def test_the_better_match_comes_first_among_equals() -> None:
    several = [found("b", 1.0), found("a", 2.0), found("c", 0.5)]
    assert [one.id for one in ranked(several, NOW, DAY, 10)] == ["a", "b", "c"]


def test_age_counts_and_never_hides_a_much_better_match() -> None:
    old = found("old", 2.1, updated=NOW - 1000 * DAY, used=NOW - 1000 * DAY)
    assert [one.id for one in ranked([old, found("new", 2.0)], NOW, 90 * DAY, 2)] == ["new", "old"]
    assert [one.id for one in ranked([old, found("new", 0.9)], NOW, 90 * DAY, 2)] == ["old", "new"]


def test_what_both_lists_have_comes_before_what_one_has() -> None:
    several = [found("words", 5.0), found("both", 4.0, 0.8), found("vector", None, 0.9)]
    assert ranked(several, NOW, DAY, 3)[0].id == "both"


@given(st.floats(0, 1), st.integers(0, 1000), st.floats(0, 1e12), st.floats(1, 1e9))
def test_use_and_importance_never_make_a_memory_less_useful(
    importance: float, uses: int, idle: float, half_life: float
) -> None:
    base = usefulness(importance, uses, idle, half_life)
    assert base > 0 or idle > 100 * half_life
    assert usefulness(importance, uses + 1, idle, half_life) >= base
    assert usefulness(min(importance + 0.1, 1), uses, idle, half_life) >= base
    assert usefulness(importance, uses, idle + half_life, half_life) <= base
    assert vitality(-5, half_life) == 1


@given(st.text())
@example("\U0002ebe1")
@example("ジョン・スミス")
def test_any_query_is_one_that_full_text_search_takes(text: str) -> None:
    words = query_words(text)
    assert len(words) <= MOST_WORDS
    assert all(word and all(letter.isalnum() or letter in " _" for letter in word) for word in words)
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE t USING fts5 (words, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    connection.execute("INSERT INTO t VALUES (?)", (spaced(text).encode("utf-8", "replace").decode(),))
    for word in words:
        connection.execute("SELECT * FROM t WHERE t MATCH ?", (f'words : ("{word}")',)).fetchall()
    connection.close()


@given(st.text(alphabet="abcẞßİΣς 苹果香蕉 ,.", min_size=1))
def test_a_text_is_found_by_each_of_its_words(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5 (words, tokenize = 'unicode61')")
    connection.execute("INSERT INTO t VALUES (?)", (spaced(text),))
    for word in query_words(text):
        assert connection.execute("SELECT count(*) FROM t WHERE t MATCH ?", (f'"{word}"',)).fetchone() == (1,)
    connection.close()


def test_accents_and_marks_go_from_words_that_an_index_would_take_apart_otherwise() -> None:
    assert index_words("Zürich: ann@example.com, 苹果!") == "zurich ann example com 苹 果"


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "replace", "forget", "forget_owner", "delete_user"]),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["ann", "bob"]),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(operations)
def test_a_store_agrees_with_a_dict(several: list[tuple[str, str, str, int]]) -> None:
    """Whatever is put, replaced, forgotten and deleted, in any order: texts, index and counts agree."""

    async def play() -> None:
        store = SQLiteStore(":memory:")
        kept: dict[str, dict[str, tuple[str, set[str]]]] = {"ann": {}, "bob": {}}  # owner: id: text, users
        counter = itertools.count()
        for action, name, user, number in several:
            owner = MemoryOwner("task", name)
            text, mine = f"fact{number} of all", kept[name]
            equal = next((one for one, (other, _) in mine.items() if other == text), None)
            if action in {"put", "replace"}:
                old = next(iter(mine), None) if action == "replace" else None
                new = NewMemory(old or f"m{next(counter)}", text, user=user)
                (given_id,) = await store.memories.change(MemoryChanges(owner, [new]))
                users = {user}
                for one in {equal, old} - {None}:
                    users |= mine.pop(one)[1]  # type: ignore[arg-type]
                assert given_id == (equal or new.id)
                mine[given_id] = (text, users)
            elif action == "forget":
                assert await store.memories.forget(owner, equal or "none") == (equal is not None)
                mine.pop(equal or "none", None)
            elif action == "forget_owner":
                assert await store.memories.forget_owner(owner) == len(mine)
                mine.clear()
            else:
                await store.delete_user(user)
                for others in kept.values():
                    for one in [one for one, (_, users) in others.items() if user in users]:
                        del others[one]
        for name, mine in kept.items():
            owner = MemoryOwner("task", name)
            texts = {one.id: one.text for one in await store.memories.read(owner)}
            assert texts == {one: text for one, (text, _) in mine.items()}
            hits = await store.memories.search(MemoryQuery(owner, "fact0 fact1 fact2 fact3 fact4 fact5", 100))
            assert {one.memory.id for one in hits} == set(mine)
            # The count that bounds an owner is right: one more than there are pushes nothing out.
            last = NewMemory(f"last-{name}", "one last thing")
            await store.memories.change(MemoryChanges(owner, [last], most=len(mine) + 1))
            assert len(await store.memories.read(owner)) == len(mine) + 1
        await store.aclose()

    asyncio.run(play())
