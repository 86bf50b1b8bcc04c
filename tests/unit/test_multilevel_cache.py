"""The tiers' meaning without Redis: what is found, what is void, what is refused; the same with Redis beneath."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import subprocess
import sys

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gossamer import ArgumentError, CacheError, CacheValueError
from gossamer.cache import Cache, MemoryCache, MultiLevelCache, computing, memory, multilevel, tiers

GONE = "gone"


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; the one of the wall is never asked."""
    now = [1000.0]
    for module in (memory, multilevel, tiers, computing):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


class Quote(msgspec.Struct):
    amount: float


async def test_it_is_a_cache():
    cache = MultiLevelCache()
    assert isinstance(cache, Cache)
    assert cache.peek("k", GONE) == await cache.get("k", GONE) == GONE
    await cache.set("k", None)
    assert (cache.peek("k", GONE), await cache.get("k", GONE)) == (None, None)
    await cache.delete("k")
    await cache.delete("k")
    assert await cache.get("k", GONE) == GONE
    assert await cache.get("k") is None
    statistics = cache.statistics()
    assert (statistics.l1.hits, statistics.l1.misses, statistics.l2, statistics.up) == (2, 4, None, False)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"a": {"b"}}, {"a": ["b"]}),
        (Quote(1.5), {"amount": 1.5}),
        (bytearray(b"ab"), b"ab"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (math.inf, math.inf),
    ],
)
async def test_values_are_plain_in_memory_too(value, plain):
    cache = MultiLevelCache()
    await cache.set("k", value)
    assert cache.peek("k") == plain
    assert type(cache.peek("k")) is type(plain)


async def test_changing_what_was_set_does_not_change_the_cache():
    cache, value = MultiLevelCache(), {"a": [1]}
    await cache.set("k", value)
    value["a"].append(2)
    assert await cache.get("k") == {"a": [1]}


async def test_times_end_by_a_clock_that_does_not_jump(clock, monkeypatch):
    cache = MultiLevelCache(ttl=10, jitter=0)
    await cache.set("k", 1)
    await cache.set("l", 2, ttl=20, tags=("t",))
    monkeypatch.setattr("time.time", lambda: 0.0)  # the wall's clock is set back
    clock[0] += 9.9
    assert (cache.peek("k"), cache.peek("l")) == (1, 2)
    clock[0] += 0.1
    assert (cache.peek("k", GONE), await cache.get("k", GONE), await cache.get("l")) == (GONE, GONE, 2)
    clock[0] += 10
    assert cache.peek("l", GONE) == GONE
    assert cache.statistics().l1.entries == 0


async def test_times_are_shortened_at_random(clock):
    cache = MultiLevelCache(ttl=100, jitter=0.5)
    for number in range(100):
        await cache.set(str(number), number)
    clock[0] += 49.9
    assert await cache.warm(map(str, range(100))) == 100
    clock[0] += 25
    assert 5 < await cache.warm(map(str, range(100))) < 95
    clock[0] += 25.2
    assert await cache.warm(map(str, range(100))) == 0


async def test_a_namespace_is_a_view_on_the_same_tiers():
    cache = MultiLevelCache(MemoryCache(max_entries=3))
    x, y = cache.namespace("x"), MultiLevelCache(namespace="x")
    for one in (cache, x, cache.namespace("y")):
        await one.set("k", one._space.name)
    assert await cache.get("k") == ""
    assert await cache.namespace("x").get("k") == "x"
    assert await x.namespace("").get("k") == ""
    assert "namespace='x'" in repr(x)
    assert y.peek("k", GONE) == GONE
    await cache.set("l", 1)
    assert cache.statistics().l1.entries == 3
    assert x.statistics() == cache.statistics()


async def test_keys_that_look_like_a_namespaces_never_give_its_values():
    cache = MultiLevelCache()
    await cache.namespace("x").set("k", "of x")
    assert cache.peek("\0x\0k", GONE) == GONE
    await cache.set("\0x\0k", "of the root")
    assert await cache.namespace("x").get("k", GONE) in {GONE, "of x"}
    assert await cache.get("\0x\0k") == "of the root"


async def test_namespaces_that_nobody_has_are_forgotten():
    cache = MultiLevelCache(MemoryCache(max_entries=10))
    for number in range(1000):
        await cache.namespace(f"n{number}").set("k", number, tags=(f"t{number}",))
    await cache.get("k")
    import gc

    gc.collect()
    assert len(cache._tiers._spaces) <= 12
    assert await cache.namespace("n999").get("k") == 999


async def test_warm_takes_items_and_refuses_one_key():
    cache = MultiLevelCache()
    assert await cache.warm({"a": 1, "b": 2}, ttl=60, tags=("t",)) == 2
    assert await cache.warm(key for key in "abc") == 2
    await cache.drop_tag("t")
    assert await cache.warm(["a", "b"]) == 0
    for bad in ("abc", b"abc"):
        with pytest.raises(ArgumentError, match="one key"):
            await cache.warm(bad)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ttl": 0},
        {"ttl": math.nan},
        {"jitter": 1},
        {"jitter": -0.1},
        {"lease": 0},
        {"lease": math.inf},
        {"l1": {}},
        {"l2": MemoryCache()},
        {"max_waiting": 0},
        {"namespace": "a:b"},
        {"namespace": "a\0"},
        {"namespace": "x" * 129},
        {"namespace": None},
        {"l2": "http://localhost"},
    ],
)
async def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        MultiLevelCache(**arguments)


async def test_bad_calls_are_refused_and_change_nothing():
    cache = MultiLevelCache()
    await cache.set("k", 1)
    for call in (
        lambda: cache.set("k", 2, ttl=0),
        lambda: cache.set("k", 2, tags="t"),
        lambda: cache.set("k", 2, tags=(1,)),
        lambda: cache.set("k", 2, tags=map(str, range(33))),
        lambda: cache.set(b"k", 2),
        lambda: cache.get(1),
        lambda: cache.delete(None),
        lambda: cache.drop_tag(1),
        lambda: cache.get_or_compute(1, None),
        lambda: cache.get_or_compute("x", None, ttl=-1),
        lambda: cache.get_or_compute("x", None, tags="t"),
    ):
        with pytest.raises(ArgumentError):
            await call()
    with pytest.raises(ArgumentError):
        cache.peek(1)
    with pytest.raises(CacheValueError, match="object cannot be cached"):
        await cache.set("k", [object()][0])
    assert cache.peek("k") == 1


async def test_closing_ends_all_computations_and_tells_those_who_wait():
    """Also one whose key was deleted since, and nobody who waits is taken for cancelled."""
    cache = MultiLevelCache()
    ended: list[str] = []

    async def compute(name):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    first = asyncio.create_task(cache.get_or_compute("k", lambda: compute("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.delete("k")
    second = asyncio.create_task(cache.get_or_compute("k", lambda: compute("second")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.aclose()
    assert sorted(ended) == ["first", "second"]
    for task in (first, second):
        with pytest.raises(CacheError, match="closed"):
            await task
    assert await cache.get_or_compute("k", lambda: asyncio.sleep(0, 1)) == 1


async def test_a_value_larger_than_memory_is_given_and_not_kept():
    cache = MultiLevelCache(MemoryCache(max_bytes=2000))
    assert await cache.get_or_compute("k", lambda: asyncio.sleep(0, bytes(5000))) == bytes(5000)
    assert cache.peek("k", GONE) == GONE
    await cache.set("k", b"small")
    await cache.set("k", bytes(5000))
    assert cache.peek("k", GONE) == GONE, "the old value would be wrong"


def test_redis_is_loaded_with_the_first_cache_in_it_and_its_lack_is_told():
    program = """
import sys
import gossamer.cache
cache = gossamer.cache.MultiLevelCache()
assert "redis" not in sys.modules
sys.modules["redis"] = sys.modules["redis.asyncio"] = sys.modules["redis.asyncio.connection"] = None
for make in (gossamer.cache.RedisCache, lambda: gossamer.cache.MultiLevelCache(l2="redis://localhost")):
    try:
        make()
    except ImportError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "RedisCache needs redis: pip install 'gossamer[redis]'\n" * 2


KEYS = st.sampled_from(["a", "b", "c", "\0x\0a"])
SPACES = st.sampled_from(["", "x", "y"])
TAGS = st.sampled_from([(), ("t",), ("u",), ("t", "u")])


class Tiers(RuleBasedStateMachine):
    """A cache is a dict by namespace and key, from which tags and namespaces can be dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.cache = MultiLevelCache()
        self.model: dict[tuple[str, str], tuple[object, tuple[str, ...]]] = {}

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def caches(self):
        return [self.cache]

    @rule(space=SPACES, key=KEYS, value=st.none() | st.integers(0, 9), tags=TAGS)
    def set(self, space, key, value, tags):
        self.run(self.cache.namespace(space).set(key, value, tags=tags))
        self.model[space, key] = (value, tags)

    @rule(space=SPACES, key=KEYS)
    def delete(self, space, key):
        self.run(self.cache.namespace(space).delete(key))
        self.model.pop((space, key), None)

    @rule(space=SPACES, tag=st.sampled_from("tu"))
    def drop_tag(self, space, tag):
        self.run(self.cache.namespace(space).drop_tag(tag))
        self.model = {at: kept for at, kept in self.model.items() if at[0] != space or tag not in kept[1]}

    @rule(space=SPACES)
    def drop_namespace(self, space):
        self.run(self.cache.namespace(space).drop_namespace())
        self.model = {at: kept for at, kept in self.model.items() if at[0] != space}

    @rule(space=SPACES, key=KEYS, value=st.integers(10, 19), tags=TAGS)
    def compute(self, space, key, value, tags):
        async def compute():
            return value

        found = self.run(self.cache.namespace(space).get_or_compute(key, compute, tags=tags))
        assert found == self.model.setdefault((space, key), (value, tags))[0]

    @rule(space=SPACES, key=KEYS)
    def change_while_it_is_computed(self, space, key):
        view = self.cache.namespace(space)
        if (space, key) in self.model:
            return

        async def compute():
            await view.delete(key)
            return "void"

        assert self.run(view.get_or_compute(key, compute)) == "void"

    @invariant()
    def everything_is_as_it_should_be(self):
        for space in ("", "x", "y"):
            for key in ("a", "b", "c", "\0x\0a"):
                for cache in self.caches():
                    wanted = self.model.get((space, key), (GONE,))[0]
                    assert self.run(cache.namespace(space).get(key, GONE)) == wanted, (space, key)

    def teardown(self):
        for cache in self.caches():
            self.run(cache.aclose())
        self.loop.close()


# A key that looks like a namespace's may push that one's value out of memory, which is allowed, and nothing else is.
class MemoryAlone(Tiers):
    @invariant()
    def everything_is_as_it_should_be(self):
        for space in ("", "x", "y"):
            for key in ("a", "b", "c", "\0x\0a"):
                wanted = self.model.get((space, key), (GONE,))[0]
                found = self.run(self.cache.namespace(space).get(key, GONE))
                if found == GONE and (space, key) in {("x", "a"), ("", "\0x\0a")}:
                    self.model.pop((space, key), None)
                    continue
                assert found == wanted, (space, key)


TestMemoryAlone = MemoryAlone.TestCase
TestMemoryAlone.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
