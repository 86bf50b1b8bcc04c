"""Two tiers and several caches on one real Redis: refilling, invalidation and its races, outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.cache.serving import eventually

from gossamer import CacheValueError, disable_metrics, enable_metrics
from gossamer.cache import Cache, MemoryCache, MultiLevelCache, RedisCache

GONE = "gone"


@contextlib.asynccontextmanager
async def cache_at(url, l1=None, *, timeout=5.0, **options):
    async with RedisCache(url, timeout=timeout) as l2, MultiLevelCache(l1, l2, **options) as cache:
        yield cache


@pytest.fixture
async def a(redis):
    async with cache_at(redis.url) as cache:
        yield cache


@pytest.fixture
async def b(redis):
    """What another process would be: it shares nothing with `a` but Redis."""
    async with cache_at(redis.url) as cache:
        yield cache


@pytest.fixture
async def held(proxy):
    """A cache whose way to Redis can be held up and cut."""
    async with cache_at(proxy.url) as cache:
        await cache.get("connect")
        yield cache


def up(cache):
    return lambda: cache.statistics().up


# --- looking --------------------------------------------------------------------------------------------------------


async def test_a_hit_in_redis_refills_memory(a, b):
    assert isinstance(a, Cache)
    await a.set("k", {"n": (1, 2)}, tags=("t",))
    assert a.peek("k") == {"n": [1, 2]}
    assert b.peek("k", GONE) == GONE
    assert await b.get("k") == {"n": [1, 2]}
    assert b.peek("k") == {"n": [1, 2]}
    assert await b.get("k") == {"n": [1, 2]}
    statistics = b.statistics()
    assert (statistics.l1.hits, statistics.l1.misses, statistics.l2.hits, statistics.l2.misses) == (
        2,
        2,
        1,
        0,
    )
    assert await b.get("x", GONE) == GONE
    assert b.statistics().l2.misses == 1


async def test_none_is_a_value_in_both_tiers(a, b):
    await a.set("k", None)
    assert a.peek("k", GONE) is None
    assert await b.get("k", GONE) is None

    async def not_wanted() -> None:
        raise AssertionError

    assert await b.get_or_compute("k", not_wanted) is None


async def test_memory_does_not_outlive_redis(a, b):
    await a.set("k", 1, ttl=0.3)
    assert await b.get("k") == 1
    while await a._tiers.l2.execute(b"EXISTS", b"gossamer:v::=k"):
        await asyncio.sleep(0.01)
    # Redis ended it, so memory has ended it too, or does within its clock's grain.
    await eventually(lambda: a.peek("k", GONE) == GONE and b.peek("k", GONE) == GONE)
    assert await b.get("k", GONE) == GONE


async def test_times_are_spread_and_never_longer(redis):
    async with cache_at(redis.url, jitter=0.5) as cache:
        for number in range(50):
            await cache.set(str(number), number, ttl=1000)
        left = [int(redis.command(b"PTTL", b"gossamer:v::=%d" % number)[1:]) for number in range(50)]
    assert max(left) <= 1_000_000
    assert min(left) >= 499_000
    assert len({one // 10_000 for one in left}) > 10


async def test_memorys_own_time_is_kept_too(redis):
    async with cache_at(redis.url, MemoryCache(ttl=0.02)) as cache:
        await cache.set("k", 1, ttl=1000)
        await eventually(lambda: cache.peek("k", GONE) == GONE)
        assert await cache.get("k") == 1


@pytest.mark.parametrize("key", ["", "\0", "\0n\0k", "x" * 10_240, "\ud800€", "a:b"])
async def test_keys_and_tags_may_be_anything_that_is_text(a, b, key):
    await a.namespace("n").set("k", "of the namespace")
    await a.set(key, "of the key", tags=(key, "t"))
    assert await b.get(key) == "of the key"
    assert await b.namespace("n").get("k") == "of the namespace"
    await a.delete(key)
    await eventually(lambda: b.peek(key, GONE) == GONE)
    await a.set(key, "again", tags=(key,))
    assert await b.get(key) == "again"
    await a.drop_tag(key)
    await eventually(lambda: b.peek(key, GONE) == GONE)
    assert await b.get(key, GONE) == GONE
    assert await b.namespace("n").get("k") == "of the namespace"


@pytest.mark.parametrize("place", [b"gossamer:v::=k", b"gossamer:l::=k", b"gossamer:n:", b"gossamer:t::=t"])
@pytest.mark.parametrize(
    "command", [(b"SET", b"theirs"), (b"LPUSH", b"theirs"), (b"SET", b"GSM\x01\x00\x02zz")]
)
async def test_data_of_somebody_else_under_our_keys(a, b, redis, place, command):
    redis.command(command[0], place, command[1])
    assert await a.get("k", GONE) == GONE

    async def compute():
        return "computed"

    assert await a.get_or_compute("k", compute, tags=("t",)) == "computed"
    assert await b.get("k") == "computed"
    redis.command(b"DEL", place)
    redis.command(command[0], place, command[1])
    await a.set("k", "set", tags=("t",))
    assert a.peek("k") == "set"
    await eventually(lambda: b.peek("k", GONE) == GONE)
    assert await b.get("k") == "set"
    await a.drop_tag("t")
    assert await a.get("k", GONE) == GONE


async def test_a_damaged_value_is_computed_anew(a, b, redis):
    await a.set("k", "x" * 100)
    size = await a._tiers.l2.execute(b"STRLEN", b"gossamer:v::=k")
    redis.command(b"SETRANGE", b"gossamer:v::=k", str(size - 102).encode(), b"\xc1")
    assert await b.get("k", GONE) == GONE

    async def compute():
        return "new"

    assert await b.get_or_compute("k", compute) == "new"
    assert await a.get("k") == "new"


async def test_what_cannot_be_serialised_changes_nothing(a, b):
    await a.set("k", 1)
    with pytest.raises(CacheValueError):
        await a.set("k", object())
    assert (a.peek("k"), await b.get("k")) == (1, 1)

    async def compute():
        return object()

    with pytest.raises(CacheValueError):
        await a.get_or_compute("x", compute)
    assert await b.get("x", GONE) == GONE
    assert await b.get_or_compute("x", lambda: asyncio.sleep(0, "of b")) == "of b"


async def test_warming(a, b):
    assert await a.warm({str(number): number for number in range(40)}, tags=("t",)) == 40
    assert await b.warm([*map(str, range(40)), "unknown"]) == 40
    assert [b.peek(str(number)) for number in range(40)] == list(range(40))


# --- invalidation ---------------------------------------------------------------------------------------------------


async def test_changes_reach_the_others(a, b):
    for change in (a.set("k", 2), a.delete("k"), a.drop_tag("t"), a.drop_namespace()):
        await b.set("k", 1, tags=("t",))
        assert b.peek("k") == 1
        await change
        await eventually(lambda: b.peek("k", GONE) == GONE)
    assert a.statistics().invalidations > 0


async def test_namespaces_and_tags_are_dropped_whole_and_alone(a, b):
    for name in ("", "x", "y"):
        for number in range(20):
            await a.namespace(name).set(str(number), number, tags=(f"t{number % 2}",))
    views = {name: b.namespace(name) for name in ("", "x", "y")}
    for view in views.values():
        assert await view.warm(map(str, range(20))) == 20
    await a.namespace("x").drop_namespace()
    await eventually(lambda: views["x"].peek("0", GONE) == GONE)
    await a.namespace("y").drop_tag("t1")
    await eventually(lambda: views["y"].peek("1", GONE) == GONE)
    assert await views["x"].warm(map(str, range(20))) == 0
    assert await views["y"].warm(map(str, range(20))) == 10
    assert await views[""].warm(map(str, range(20))) == 20
    await a.namespace("x").set("0", "new")
    assert await views["x"].get("0") == "new"


async def test_a_version_that_redis_evicted_voids_values_and_brings_none_back(a, b, redis):
    await a.set("k", 1, tags=("t",))
    await a.set("l", 1)
    await a.drop_tag("t")
    redis.command(b"DEL", b"gossamer:t::=t")
    await a.set("m", 1, tags=("t",))
    assert [await b.get(key, GONE) for key in "klm"] == [GONE, 1, 1]
    redis.command(b"DEL", b"gossamer:n:")
    async with cache_at(redis.url) as c:
        assert [await c.get(key, GONE) for key in "klm"] == [GONE, GONE, GONE]
        await c.set("n", 1)
        assert [await c.get(key, GONE) for key in "klmn"] == [GONE, GONE, GONE, 1]


async def test_versions_live_longer_than_what_names_them(a, redis):
    await a.set("k", 1, ttl=10, tags=("t",))
    await a.set("l", 1, ttl=10_000, tags=("t",))
    await a.set("m", 1, ttl=10, tags=("t",))
    for place in (b"gossamer:n:", b"gossamer:t::=t"):
        assert int(redis.command(b"PTTL", place)[1:]) > 9_000_000
    async with RedisCache(redis.url, ttl=None) as l2, MultiLevelCache(l2=l2) as forever:
        await forever.set("n", 1, tags=("t",))
    assert redis.command(b"PTTL", b"gossamer:n:") == redis.command(b"PTTL", b"gossamer:t::=t") == b":-1"


@pytest.mark.parametrize("change", ["delete", "set", "drop_tag", "drop_namespace", "own delete", "own set"])
async def test_what_was_read_before_a_change_is_not_kept_after_it(a, held, proxy, change):
    await a.set("k", "old", tags=("t",))
    await eventually(lambda: held.statistics().invalidations == 1)  # of this, and not of what comes
    proxy.answers.clear()
    reading = asyncio.create_task(held.get("k"))
    await eventually(lambda: proxy.held)  # Redis has answered, and the answer is on its way
    heard = held.statistics().invalidations
    changes = {
        "delete": lambda: a.delete("k"),
        "set": lambda: a.set("k", "new"),
        "drop_tag": lambda: a.drop_tag("t"),
        "drop_namespace": lambda: a.drop_namespace(),
        "own delete": lambda: held.delete("k"),
        "own set": lambda: held.set("k", "new"),
    }
    changing = asyncio.create_task(changes[change]())
    if "own" not in change:
        await changing
        await eventually(lambda: held.statistics().invalidations > heard)
    else:
        await eventually(lambda: proxy.held == 2)
    proxy.answers.set()
    await asyncio.gather(reading, changing)
    assert reading.result() == "old"  # it was so when it was asked
    assert held.peek("k", GONE) != "old"
    assert await held.get("k", GONE) == ("new" if "set" in change else GONE)


async def test_two_who_set_at_the_same_time_agree_afterwards(a, held, proxy):
    proxy.answers.clear()
    setting = [asyncio.create_task(held.set("k", number)) for number in range(5)]
    await eventually(lambda: proxy.held == 5)
    proxy.answers.set()
    await asyncio.gather(*setting)
    value = await a.get("k")
    assert held.peek("k", value) == value
    assert await held.get("k") == value


@pytest.mark.parametrize("change", ["delete", "set", "drop_tag", "drop_namespace"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_change_voids_a_computation_under_way(a, b, change, where):
    began, go = asyncio.Event(), asyncio.Event()

    async def compute():
        began.set()
        await go.wait()
        return "old"

    computing = asyncio.create_task(a.get_or_compute("k", compute, tags=("t",)))
    await began.wait()
    changer = a if where == "here" else b
    heard = a.statistics().invalidations
    await {
        "delete": lambda: changer.delete("k"),
        "set": lambda: changer.set("k", "new"),
        "drop_tag": lambda: changer.drop_tag("t"),
        "drop_namespace": lambda: changer.drop_namespace(),
    }[change]()
    if where == "elsewhere":
        await eventually(lambda: a.statistics().invalidations > heard)
    if change != "set":  # whoever asks after the change has it computed anew, and is not given the old
        later = asyncio.create_task(a.get_or_compute("k", lambda: asyncio.sleep(0, "new"), tags=("t",)))
    go.set()
    assert await computing == "old"
    if change != "set":
        assert await later == "new"
    assert a.peek("k", "new") == "new"
    assert await a.get("k") == "new"
    assert await b.get("k") == "new"


async def test_who_waited_for_another_process_has_its_value_in_memory(a, b):
    """That the other one stored it is no reason not to keep it."""
    began, go = asyncio.Event(), asyncio.Event()

    async def compute():
        began.set()
        await go.wait()
        return "value"

    computing = asyncio.create_task(a.get_or_compute("k", compute, tags=("t",)))
    await began.wait()
    waiting = asyncio.create_task(b.get_or_compute("k", lambda: asyncio.sleep(0, "other"), tags=("t",)))
    flights = b._tiers.on_loop.here().flights.flights
    await eventually(lambda: "k" in flights and flights["k"].woken._waiters)
    go.set()
    assert await asyncio.gather(computing, waiting) == ["value", "value"]
    assert b.peek("k", GONE) == "value"
    await a.drop_tag("t")
    await eventually(lambda: b.peek("k", GONE) == GONE)


# --- deafness -------------------------------------------------------------------------------------------------------


async def test_what_was_missed_while_deaf_is_dropped(a, held, proxy):
    await held.set("k", "old")
    await held.namespace("n").set("k", "old")
    proxy.refusing_subscriptions = True
    proxy.cut(subscriptions_only=True)
    await eventually(lambda: not held.statistics().up)
    await a.set("k", "new")
    await a.namespace("n").delete("k")
    assert held.peek("k") == "old"  # nobody could tell
    proxy.refusing_subscriptions = False
    await eventually(up(held))
    assert held.peek("k", GONE) == GONE
    assert await held.get("k") == "new"
    assert await held.namespace("n").get("k", GONE) == GONE


async def test_what_is_read_while_deaf_is_not_kept(a, held, proxy):
    await a.set("k", "old")
    await eventually(lambda: held.statistics().invalidations == 1)
    proxy.answers.clear()
    reading = asyncio.create_task(held.get("k"))
    await eventually(lambda: proxy.held)
    proxy.refusing_subscriptions = True
    proxy.cut(subscriptions_only=True)
    await eventually(lambda: not held.statistics().up)
    await a.set("k", "new")
    proxy.answers.set()
    assert await reading == "old"
    assert held.peek("k", GONE) == GONE
    proxy.refusing_subscriptions = False
    await eventually(up(held))
    assert await held.get("k") == "new"


async def test_a_subscription_that_is_silent_is_given_up(a, proxy, monkeypatch):
    monkeypatch.setattr("gossamer.cache.link._HEARTBEAT_SECONDS", 0.02)
    async with cache_at(proxy.url) as cache:
        await cache.set("k", "old")
        assert cache.statistics().up
        for _ in range(10):  # alive: each beat is answered
            await asyncio.sleep(0.02)
        assert cache.peek("k") == "old"
        proxy.mute = True
        await eventually(lambda: not cache.statistics().up)
        await a.set("k", "new")
        proxy.mute = False
        await eventually(up(cache))
        assert await cache.get("k") == "new"


# --- outages --------------------------------------------------------------------------------------------------------


async def test_redis_goes_and_comes_back(redis, caplog):
    caplog.set_level(logging.INFO, "gossamer")
    registry = CollectorRegistry()
    enable_metrics(registry)
    try:
        async with cache_at(redis.url) as a, cache_at(redis.url) as b:
            await a.set("k", 1, tags=("t",))
            await b.get("connect")
            redis.kill()
            await eventually(lambda: not a.statistics().up and not b.statistics().up)
            assert await a.get("k") == 1, "memory goes on"
            assert await a.get("x", GONE) == GONE
            await a.set("l", 2)
            assert await a.get("l") == 2
            assert await a.get_or_compute("m", lambda: asyncio.sleep(0, 3)) == 3
            assert a.peek("m") == 3
            for _ in range(20):
                assert await b.get("x", GONE) == GONE
            await a.delete("k")
            await a.drop_tag("t")
            await a.drop_namespace()
            assert a.peek("l", GONE) == GONE
            assert a.statistics().degraded == 6
            await asyncio.to_thread(redis.start)
            await eventually(lambda: a.statistics().up and b.statistics().up)
            await a.set("k", 4)
            assert await b.get("k") == 4
            await b.set("k", 5)
            await eventually(lambda: a.peek("k", GONE) == GONE)
            assert await a.get("k") == 5

            def sample(name, **labels):
                return registry.get_sample_value(f"gossamer_cache_{name}_total", labels)

            assert sample("degraded", operation="get") == 21
            assert sample("degraded", operation="set") == sample("degraded", operation="compute") == 1
            assert sample("tier_changes", state="down") == sample("tier_changes", state="up") == 2
            assert sample("requests", tier="l2", outcome="hit") == 2
            assert sample("requests", tier="l1", outcome="hit") >= 2
            assert sample("invalidations", kind="key", origin="elsewhere") >= 1
            assert sample("computations", outcome="computed") == 1
    finally:
        disable_metrics()
    lines = [record.message for record in caplog.records]
    assert len([line for line in lines if "in memory alone" in line]) == 2, lines  # one a cache
    assert len([line for line in lines if "answers again" in line]) == 2, lines


async def test_it_begins_without_redis_and_finds_it_later(redis):
    redis.kill()
    async with cache_at(redis.url) as cache:
        await cache.set("k", 1)
        assert await cache.get("k") == 1
        assert not cache.statistics().up
        await asyncio.to_thread(redis.start)
        await eventually(up(cache))
        assert await cache.get("k", GONE) == GONE, "it could not be told, so nobody has it"
        await cache.set("k", 2)
        assert await cache.get("k") == 2


async def test_changes_that_could_not_be_told_are_told_later(a, held, proxy, redis):
    for key in ("deleted", "set", "computed"):
        await a.set(key, "old")
    await a.namespace("n").set("k", "old")
    await a.set("tagged", "old", tags=("t",))
    proxy.refusing = True
    proxy.cut()
    await eventually(lambda: not held.statistics().up)
    await held.delete("deleted")
    await held.set("set", "new")
    await held.drop_tag("t")
    await held.namespace("n").drop_namespace()
    assert await held.get_or_compute("computed", lambda: asyncio.sleep(0, "other")) == "other"
    assert await a.get("deleted") == "old"
    proxy.refusing = False
    await eventually(up(held))
    for cache in (held, a):
        await eventually(lambda cache=cache: cache.peek("deleted", GONE) == GONE)
        assert await cache.get("deleted", GONE) == GONE
        assert await cache.get("set", GONE) == GONE
        assert await cache.get("tagged", GONE) == GONE
        assert await cache.namespace("n").get("k", GONE) == GONE
        assert await cache.get("computed") == "old", "nobody changed it"


async def test_more_changes_than_are_remembered_drop_their_namespaces(a, held, proxy, monkeypatch):
    monkeypatch.setattr("gossamer.cache.tiers._MAX_OWED", 10)
    for number in range(30):
        await a.namespace("n").set(str(number), "old")
    await a.set("k", "old")
    proxy.refusing = True
    proxy.cut()
    await eventually(lambda: not held.statistics().up)
    for number in range(20):
        await held.namespace("n").delete(str(number))
    assert len(held._tiers._owed) <= 10
    proxy.refusing = False
    await eventually(up(held))
    assert await a.get("k") == "old"
    await eventually(lambda: a.namespace("n").peek("0", GONE) == GONE)
    for number in range(30):
        assert await a.namespace("n").get(str(number), GONE) == GONE


async def test_a_slow_redis_is_waited_for_once(redis, caplog):
    async with cache_at(redis.url, timeout=0.1) as cache:
        await cache.set("k", 1)
        redis.freeze()
        assert await cache.get("x", GONE) == GONE  # waits for the time limit
        failures = cache.statistics().l2.failures
        for number in range(100):
            assert await cache.get("x", GONE) == GONE
            await cache.set(str(number), number)
        assert cache.statistics().l2.failures <= failures + 5, "only the link's own attempts"
        assert await cache.get("k") == 1
        redis.thaw()
        await eventually(up(cache))
        await cache.set("k", 2)
        assert await cache.get("k") == 2
    assert len([one for one in caplog.records if "in memory alone" in one.message]) <= 3


async def test_a_crowd_waits_for_a_slow_redis_once(redis):
    async with RedisCache(redis.url, timeout=0.2, max_connections=2) as l2, MultiLevelCache(l2=l2) as cache:
        await cache.set("k", 1)
        redis.freeze()
        found = await asyncio.gather(*[cache.get(f"x{number}", GONE) for number in range(300)])
        assert found == [GONE] * 300
        assert l2.statistics().failures <= 6, "two that were sent, and the link's own attempts"
        assert cache.statistics().degraded == 300


async def test_a_redis_that_is_full_is_as_good_as_down(redis):
    async with cache_at(redis.url) as cache:
        await cache.set("k", 1, ttl=1000)
        try:
            assert redis.command(b"CONFIG", b"SET", b"maxmemory", b"1") == b"+OK"
            await cache.set("k", 2, ttl=10)
            assert cache.peek("k") == 2
            assert not cache.statistics().up
        finally:
            redis.command(b"CONFIG", b"SET", b"maxmemory", b"0")
        await eventually(up(cache))
        assert await cache.get("k", 2) == 2


async def test_messages_of_somebody_else_on_our_channel_are_passed_over(a, redis):
    await a.set("k", 1)
    for message in (
        b"",
        b"\xc1",
        b"hello",
        b"\x94\xc4\x01a\xc4\x01z\xc4\x00\xc4\x00",
        b"\x94\xc4\x01a\xc4\x01k\xc4\x01\xff\xc4\x00",
    ):
        assert redis.command(b"PUBLISH", b"gossamer:invalidations", message) == b":1"
    await a.set("l", 2)
    assert (a.peek("k"), await a.get("l")) == (1, 2)
    assert a.statistics().up


def test_event_loops_share_memory_and_hear_for_themselves(redis, watch):
    l2 = RedisCache(redis.url)
    cache = MultiLevelCache(l2=l2)

    async def first():
        await cache.set("k", 1)
        assert cache.peek("k") == 1

    asyncio.run(first())
    assert cache.peek("k", GONE) == GONE, "nobody hears, so nothing is known"

    async def second():
        assert await cache.get("k") == 1
        found = []

        def work():
            async def other_loop():
                await cache.set("k", 2)
                found.append(await cache.get("k"))

            asyncio.run(other_loop())

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert found == [2]
        assert await cache.get("k") == 2

    asyncio.run(second())
    assert cache.peek("k", GONE) == GONE
    assert {"gossamer-cache-link" in one or "gossamer-cache-reader" in one for one in watch.leaked_tasks} == {
        True
    }
    watch.leaked_tasks.clear()  # a cache that nobody closed ends with its loops


def test_it_works_on_uvloop(redis):
    import uvloop

    async def main():
        async with cache_at(redis.url) as a, cache_at(redis.url) as b:
            await a.set("k", 1)
            assert await b.get("k") == 1
            await a.delete("k")
            await eventually(lambda: b.peek("k", GONE) == GONE)
            found = await asyncio.gather(
                *[
                    one.get_or_compute("l", lambda: asyncio.sleep(0.01, 2))
                    for one in (a, b)
                    for _ in range(50)
                ]
            )
            assert found == [2] * 100
            assert a.statistics().computations + b.statistics().computations == 1
            redis.kill()
            await eventually(lambda: not a.statistics().up)
            assert await a.get("x", GONE) == GONE
            await asyncio.to_thread(redis.start)
            await eventually(lambda: a.statistics().up and b.statistics().up)
            await b.set("k", 3)
            assert await a.get("k") == 3
        return True

    assert uvloop.run(main())


async def test_memory_counts_time_from_before_redis_does(a, held, proxy):
    await a.set("k", 1, ttl=0.3)
    proxy.answers.clear()
    reading = asyncio.create_task(held.get("k"))
    setting = asyncio.create_task(held.set("l", 2, ttl=0.3))
    await eventually(lambda: proxy.held == 2)
    await asyncio.sleep(0.35)  # by now Redis has ended both
    proxy.answers.set()
    assert await reading == 1
    await setting
    assert (held.peek("k", GONE), held.peek("l", GONE)) == (GONE, GONE)


async def test_closing_ends_everything_and_it_can_be_used_again(redis):
    cache = MultiLevelCache(l2=redis.url)
    before = {task.get_name() for task in asyncio.all_tasks()}
    await cache.set("k", 1)
    await cache.aclose()
    assert {task.get_name() for task in asyncio.all_tasks()} == before
    assert cache.peek("k", GONE) == GONE
    assert await cache.get("k") == 1
    await cache.aclose()
