"""The cache in memory: bounded in entries and bytes, least recently used out first, values good for a while."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import ArgumentError
from gossamer.cache import Cache, MemoryCache, memory


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(memory, "monotonic", lambda: now[0])
    return now


async def test_values_are_found_until_they_are_deleted():
    cache = MemoryCache()
    assert isinstance(cache, Cache)
    assert await cache.get("a") is None
    assert await cache.get("a", "none") == "none"
    await cache.set("a", b"1")
    assert await cache.get("a") == b"1"
    assert cache.peek("a") == b"1"
    await cache.set("a", {"b": [2]})
    assert await cache.get("a") == {"b": [2]}
    await cache.delete("a")
    await cache.delete("a")
    assert cache.peek("a", "gone") == "gone"


async def test_none_is_a_value():
    cache = MemoryCache()
    await cache.set("a", None)
    assert await cache.get("a", "missing") is None
    assert cache.peek("a", "missing") is None
    assert cache.statistics().hits == 2


async def test_what_was_not_used_for_longest_goes_first():
    cache = MemoryCache(max_entries=3)
    for key in "abc":
        await cache.set(key, key)
    await cache.get("a")
    assert cache.peek("b") == "b"
    await cache.set("d", "d")
    assert [key for key in "abcd" if cache.peek(key)] == ["a", "b", "d"]
    await cache.set("d", "new")  # no new entry, so nothing goes
    assert [key for key in "abcd" if cache.peek(key)] == ["a", "b", "d"]
    assert cache.statistics().evictions == 1


async def test_bytes_are_bounded():
    cache = MemoryCache(max_bytes=10_000)
    for number in range(100):
        await cache.set(str(number), bytes(1000))
        assert cache.statistics().bytes <= 10_000
    statistics = cache.statistics()
    assert 5 <= statistics.entries <= 9
    assert statistics.evictions == 100 - statistics.entries
    assert cache.peek("99") == bytes(1000)
    assert cache.peek("0") is None


async def test_a_value_larger_than_the_cache_is_not_kept_and_replaces_nothing_else():
    cache = MemoryCache(max_bytes=2000)
    await cache.set("a", b"small")
    await cache.set("b", bytes(3000))
    assert cache.peek("b") is None
    assert cache.peek("a") == b"small"
    await cache.set("a", bytes(3000))
    assert cache.peek("a", "gone") == "gone"  # the old value would be wrong


async def test_plain_values_are_measured_whole():
    cache = MemoryCache(max_bytes=5000)
    await cache.set("a", [["x" * 100] * 100])
    assert cache.peek("a") is None
    await cache.set("b", object())
    assert cache.peek("b") is not None


async def test_values_are_good_for_their_time(clock):
    cache = MemoryCache(ttl=10)
    await cache.set("a", 1)
    await cache.set("b", 2, ttl=20)
    clock[0] += 9.9
    assert (cache.peek("a"), await cache.get("b")) == (1, 2)
    clock[0] += 0.1
    assert (await cache.get("a", "old"), cache.peek("b")) == ("old", 2)
    clock[0] += 10
    assert cache.peek("b", "old") == "old"
    assert cache.statistics().entries == 0
    await cache.set("b", 3)
    assert cache.peek("b") == 3


async def test_statistics_count():
    cache = MemoryCache(max_entries=1)
    await cache.set("a", b"12345")
    await cache.get("a")
    cache.peek("x")
    await cache.set("b", b"")
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.evictions, statistics.entries) == (1, 1, 1, 1)
    cache.clear()
    assert cache.statistics().bytes == 0


@pytest.mark.parametrize(
    "arguments", [{"max_entries": 0}, {"max_bytes": 0}, {"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}]
)
async def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        MemoryCache(**arguments)
    if "ttl" in arguments:
        with pytest.raises(ArgumentError, match="ttl"):
            await MemoryCache().set("a", 1, **arguments)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 400))), st.integers(1, 4))
def test_it_is_a_bounded_least_recently_used_dict(steps, bound):
    async def compare():
        cache, model = MemoryCache(max_entries=bound, max_bytes=1200), {}
        for key, size in steps:
            if size is None:
                value = model.pop(key, None)
                if value is not None:
                    model[key] = value
                assert await cache.get(key) == value
                continue
            await cache.set(key, bytes(size))
            model.pop(key, None)
            model[key] = bytes(size)
            while len(model) > bound or sum(201 + len(value) for value in model.values()) > 1200:
                del model[next(iter(model))]
        assert {key: cache.peek(key) for key in model} == model
        assert cache.statistics().entries == len(model)

    asyncio.run(compare())


def test_threads_can_share_it():
    cache = MemoryCache(max_entries=50)

    def work(seed):
        async def steps():
            for number in range(2000):
                key = str((number * seed) % 97)
                await cache.set(key, key)
                assert cache.peek(key, key) == key

        asyncio.run(steps())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    statistics = cache.statistics()
    assert statistics.entries == 50
    assert statistics.bytes == sum(len(key) * 2 + 200 for key in map(str, range(97)) if cache.peek(key))
