"""One computation of a missing key: in one event loop, between loops, between processes, and when something dies."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.integration.cache.serving import eventually

from gossamer import CacheBusyError
from gossamer.cache import MultiLevelCache, RedisCache

GONE = "gone"


@pytest.fixture(params=["memory alone", "with Redis"])
async def cache(request):
    """What holds in one event loop holds with and without a shared tier."""
    if request.param == "memory alone":
        async with MultiLevelCache() as one:
            yield one
        return
    server = request.getfixturevalue("redis")
    async with RedisCache(server.url, timeout=5) as l2, MultiLevelCache(l2=l2) as one:
        yield one


class Compute:
    """A computation that waits to be told to go on, and counts."""

    def __init__(self, result="value", *, held: bool = True) -> None:
        self.result = result
        self.calls = self.cancelled = 0
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        if not held:
            self.go.set()

    async def __call__(self):
        self.calls += 1
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def ask(cache, compute, key="k", many=1, **options):
    return [asyncio.create_task(cache.get_or_compute(key, compute, **options)) for _ in range(many)]


async def test_a_thousand_misses_are_one_computation(cache):
    compute = Compute({"n": (1,)})
    asking = ask(cache, compute, many=1000)
    await compute.began.wait()
    await eventually(lambda: cache.statistics().waiting == 1000)
    compute.go.set()
    values = await asyncio.gather(*asking)
    assert compute.calls == 1
    assert values == [{"n": [1]}] * 1000
    statistics = cache.statistics()
    assert (statistics.computations, statistics.shared, statistics.waiting) == (1, 999, 0)
    assert await cache.get_or_compute("k", compute) == {"n": [1]}
    assert await cache.get("k") == {"n": [1]}
    assert compute.calls == 1
    tiers = cache._tiers
    assert not tiers.on_loop.here().flights.flights
    assert not tiers.changes._watched, "nothing is kept of what is over"


async def test_different_keys_do_not_wait_for_each_other(cache):
    slow, quick = Compute(), Compute("other", held=False)
    waiting = ask(cache, slow)
    await slow.began.wait()
    assert await cache.get_or_compute("l", quick) == "other"
    assert await cache.namespace("n").get_or_compute("k", quick) == "other"
    slow.go.set()
    assert await asyncio.gather(*waiting) == ["value"]


async def test_an_error_reaches_everybody_who_waits_and_is_not_kept(cache):
    compute = Compute(ValueError("broken"))
    asking = ask(cache, compute, many=50)
    await compute.began.wait()
    await eventually(lambda: cache.statistics().waiting == 50)
    compute.go.set()
    for one in await asyncio.gather(*asking, return_exceptions=True):
        assert one is compute.result
    assert compute.calls == 1
    assert await cache.get("k", GONE) == GONE
    assert await cache.get_or_compute("k", Compute("again", held=False)) == "again"


async def test_who_is_cancelled_fails_nobody_else(cache):
    compute = Compute()
    first, *others = ask(cache, compute, many=10)
    await compute.began.wait()
    await eventually(lambda: cache.statistics().waiting == 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    compute.go.set()
    assert await asyncio.gather(*others) == ["value"] * 9
    assert (compute.calls, compute.cancelled) == (1, 0)


async def test_when_nobody_waits_any_more_it_is_cancelled(cache):
    compute = Compute()
    asking = ask(cache, compute, many=3)
    await compute.began.wait()
    await eventually(lambda: cache.statistics().waiting == 3)
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)
    await eventually(lambda: compute.cancelled)
    # Its lease is given back, so that nobody waits for it to end.
    assert await cache.get_or_compute("k", Compute("again", held=False)) == "again"
    assert cache.statistics().waiting == 0


async def test_callers_who_wait_are_bounded(redis):
    for l2 in (None, redis.url):
        async with MultiLevelCache(l2=l2, max_waiting=3) as cache:
            compute = Compute()
            asking = ask(cache, compute, many=3)
            await eventually(lambda cache=cache: cache.statistics().waiting == 3)
            for key in ("k", "l"):
                with pytest.raises(CacheBusyError, match="max_waiting"):
                    await cache.get_or_compute(key, compute)
            compute.go.set()
            assert await asyncio.gather(*asking) == ["value"] * 3
            assert await cache.get_or_compute("k", compute) == "value"


def test_event_loops_share_a_computation(redis):
    l2 = RedisCache(redis.url, timeout=5)
    cache = MultiLevelCache(l2=l2)
    calls = []

    async def compute():
        calls.append(1)
        await asyncio.sleep(0.1)
        return "value"

    async def work():
        async with cache:
            values = await asyncio.gather(*[cache.get_or_compute("k", compute) for _ in range(100)])
        await l2.aclose()
        assert values == ["value"] * 100

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 1


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def l2(redis):
    async with RedisCache(redis.url, timeout=5) as one:
        yield one


@pytest.fixture
async def here(l2):
    async with MultiLevelCache(l2=l2, lease=1.0) as one:
        await one.get("connect")
        yield one


def counting(l2):
    async def compute():
        await asyncio.sleep(0.05)
        return await l2.execute(b"INCR", b"computations")

    return compute


async def test_a_thousand_misses_in_each_of_two_processes_are_one_computation(l2, here, peer):
    for number in range(3):
        key = f"k{number}"
        await peer.send("count", key, many=1000)
        values = await asyncio.gather(*ask(here, counting(l2), key, many=1000))
        assert set(values) == set(await peer.answer()) == {number + 1}
    assert await l2.execute(b"INCR", b"computations") == 4


async def test_a_computation_longer_than_its_lease_keeps_it(l2, here, peer):
    await peer.send("count", "k", seconds=2.5, say=True)  # its lease is for a second
    assert await peer.answer() == "computing"
    assert await here.get_or_compute("k", counting(l2)) == 1
    assert await peer.answer() == [1]
    assert here.statistics().computations == 0


async def test_a_holder_that_died_is_replaced(l2, here, peer):
    await peer.send("count", "k", forever=True, say=True)
    assert await peer.answer() == "computing"
    asking = asyncio.create_task(here.get_or_compute("k", counting(l2)))
    await asyncio.sleep(0.05)
    assert not asking.done()
    peer.process.kill()
    assert await asking == 1
    assert here.statistics().computations == 1


async def test_a_lease_that_was_lost_stores_nothing(l2, here, redis):
    compute = Compute("late")
    [asking] = ask(here, compute)
    await compute.began.wait()
    redis.command(b"SET", b"gossamer:l::=k", b"of another", b"PX", b"60000")
    compute.go.set()
    assert await asking == "late"
    assert here.peek("k", GONE) == GONE
    assert await here.get("k", GONE) == GONE
    assert redis.command(b"EXISTS", b"gossamer:l::=k") == b":1", "another's lease is not given back"


@pytest.mark.parametrize("outcome", ["stored", "failed", "cancelled", "deleted"])
async def test_who_waits_for_another_is_woken(redis, outcome):
    # Their leases are so long that looking now and then comes too late.
    async with (
        RedisCache(redis.url, timeout=5) as l2a,
        RedisCache(redis.url, timeout=5) as l2b,
        MultiLevelCache(l2=l2a, lease=10_000) as a,
        MultiLevelCache(l2=l2b, lease=10_000) as b,
    ):
        compute = Compute(ValueError("broken") if outcome == "failed" else "of a")
        [first] = ask(a, compute)
        await compute.began.wait()
        await b.get("connect")
        [second] = ask(b, Compute("of b", held=False))
        await asyncio.sleep(0.05)
        assert not second.done()
        if outcome == "cancelled":
            first.cancel()
        elif outcome == "deleted":
            await a.delete("k")
        else:
            compute.go.set()
        assert await asyncio.wait_for(second, 20) == ("of a" if outcome == "stored" else "of b")
        compute.go.set()
        await asyncio.wait([first])
        assert await a.get("k") == await b.get("k") == second.result()


async def test_redis_dies_while_one_computes_and_others_wait(l2, here, redis):
    async with RedisCache(redis.url, timeout=5) as l2b, MultiLevelCache(l2=l2b, lease=100) as other:
        await other.get("connect")
        compute, second = Compute(), Compute("of the other")
        [asking] = ask(here, compute)
        await compute.began.wait()
        [waiting] = ask(other, second)
        await eventually(lambda: other.statistics().waiting)
        redis.kill()
        await eventually(lambda: not other.statistics().up and not here.statistics().up)
        second.go.set()
        assert await waiting == "of the other"
        compute.go.set()
        assert await asking == "value"
        assert (here.peek("k"), other.peek("k")) == ("value", "of the other")
        await asyncio.to_thread(redis.start)
        await eventually(lambda: other.statistics().up and here.statistics().up)
        assert here.peek("k", GONE) == GONE
        assert await here.get_or_compute("k", Compute("new", held=False)) == "new"
        assert await other.get("k") == "new"


async def test_invalidations_reach_the_other_process(here, peer):
    space = here.namespace("n")
    for change in (
        lambda: here.delete("k"),
        lambda: here.set("k", "new"),
        lambda: here.drop_tag("t"),
        lambda: here.drop_namespace(),
    ):
        await peer("set", "k", "old", tags=["t"])
        assert await peer("peek", "k") == "old"
        assert await here.get("k") == "old"
        await change()
        await space.delete("something else")
        for _ in range(1000):
            if await peer("peek", "k") == "nothing":
                break
        else:
            pytest.fail("it was not reached")
        assert await peer("get", "k") == await here.get("k")
    await here.set("k", "mine")
    await peer("set", "k", "theirs")
    await eventually(lambda: here.peek("k", GONE) == GONE)
    assert await here.get("k") == "theirs"
