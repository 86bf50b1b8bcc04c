"""The cache in Redis by itself, on a real server."""

from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
import threading

import msgspec
import pytest
from tests.integration.cache.serving import eventually

from gossamer import ArgumentError, CacheBusyError, CacheError, CacheUnavailableError, CacheValueError
from gossamer.cache import Cache, RedisCache


@pytest.fixture
async def cache(redis):
    async with RedisCache(redis.url, timeout=10) as one:  # how long it waits is no matter of these tests
        yield one


class Quote(msgspec.Struct):
    amount: float


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        (1.5, 1.5),
        (True, True),
        ("", ""),
        ("a\0ü€😀", "a\0ü€😀"),
        (b"\x00\xff", b"\x00\xff"),
        ([1, [2]], [1, [2]]),
        ((1, 2), [1, 2]),
        ({"a": {1: None}}, {"a": {1: None}}),
        (Quote(2.5), {"amount": 2.5}),
    ],
)
async def test_values_come_back_as_plain_data(cache, value, plain):
    assert isinstance(cache, Cache)
    assert await cache.get("a", "none") == "none"
    await cache.set("a", value)
    found = await cache.get("a", "none")
    assert found == plain
    assert type(found) is type(plain)
    await cache.delete("a")
    await cache.delete("a")
    assert await cache.get("a", "none") == "none"
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.foreign) == (1, 2, 0)


async def test_values_end_and_are_shared(cache, redis):
    async with RedisCache(redis.url) as other, RedisCache(redis.url, prefix="elsewhere") as elsewhere:
        await cache.set("a", 1, ttl=0.05)
        await cache.set("b", 2)
        await cache.set("c", 3, ttl=math.inf)
        assert (await other.get("b"), await other.get("c"), await elsewhere.get("b")) == (2, 3, None)
        while await other.get("a") is not None:
            await asyncio.sleep(0.01)
        assert await cache.get("b") == 2
    assert 86_000_000 < int(redis.command(b"PTTL", b"gossamer:k:=b")[1:]) <= 86_400_000
    forever = RedisCache(redis.url, ttl=None)
    await forever.set("d", 1)
    await forever.aclose()
    assert redis.command(b"PTTL", b"gossamer:k:=d") == b":-1"


async def test_keys_may_be_anything_that_is_text(cache):
    keys = [
        "",
        "\0",
        "a\0b",
        "a:b",
        "x" * 10_240,
        "x" * 10_239 + "y",
        "€" * 5000,
        "\ud800",
        "=a",
        "#",
        "a b\r\n",
    ]
    for number, key in enumerate(keys):
        await cache.set(key, number)
    assert [await cache.get(key) for key in keys] == list(range(len(keys)))
    for bad in (b"a", 1, None):
        with pytest.raises(ArgumentError, match="text"):
            await cache.get(bad)


@pytest.mark.parametrize(
    "command",
    [
        (b"SET", b"somebody else's"),
        (b"SET", b""),
        (b"SET", b"GSM\x01"),
        (b"SET", b"GSM\x01\x00\x00"),
        (b"SET", b"GSM\x01\x00\x00\xc1"),
        (b"SET", b"GSM\x01\xff\xff\x01"),
        (b"SET", b"GSM\x02\x00\x00\x01"),
        (b"LPUSH", b"a list"),
        (b"SADD", b"a set"),
    ],
)
async def test_data_of_somebody_else_is_a_miss_told_once_and_overwritten(cache, redis, caplog, command):
    for key in (b"a", b"b"):
        redis.command(command[0], b"gossamer:k:=" + key, command[1])
    assert await cache.get("a", "none") == "none"
    assert await cache.get("b", "none") == "none"
    assert len([one for one in caplog.records if "not of this cache" in one.message]) == 1
    assert cache.statistics().foreign == 2
    await cache.set("a", 1)
    assert await cache.get("a") == 1


@pytest.mark.parametrize("value", [object(), {1j}, 2**70, {"a": lambda: 0}, RuntimeError("x")])
async def test_what_cannot_be_serialised_is_refused_and_nothing_is_written(cache, value):
    await cache.set("a", "before")
    with pytest.raises(CacheValueError, match="cannot be cached"):
        await cache.set("a", value)
    assert await cache.get("a") == "before"
    loop = []
    loop.append(loop)
    with pytest.raises(CacheValueError):
        await cache.set("a", loop)


async def test_a_server_that_is_gone_is_told_and_found_again(cache, redis):
    await cache.set("a", 1)
    redis.kill()
    for call in (cache.get("a"), cache.set("a", 2), cache.delete("a")):
        with pytest.raises(CacheUnavailableError, match=r"127\.0\.0\.1"):
            await call
    assert cache.statistics().failures == 3
    await asyncio.to_thread(redis.start)
    assert await cache.get("a", "none") == "none"
    await cache.set("a", 3)
    assert await cache.get("a") == 3


async def test_a_connection_that_broke_in_between_is_not_an_error(cache, redis):
    await cache.set("a", 1)
    redis.kill()
    await asyncio.to_thread(redis.start)
    await cache.set("a", 2)
    assert await cache.get("a") == 2
    assert cache.statistics().failures == 0


async def test_a_slow_server_is_not_waited_for(redis):
    async with RedisCache(redis.url, timeout=0.05, max_connections=1, max_waiting=1) as cache:
        await cache.set("a", 1)
        redis.freeze()
        first, second = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
        await eventually(lambda: cache.statistics().waiting == 1)
        with pytest.raises(CacheBusyError, match="max_waiting"):
            await cache.get("a")
        with pytest.raises(CacheUnavailableError, match=r"within 0\.05 s"):
            await first
        with pytest.raises(CacheUnavailableError, match="while this one waited"):
            await second
        redis.thaw()
        assert await cache.get("a") == 1


async def test_a_cancelled_call_leaves_nothing_behind_for_the_next(redis):
    async with RedisCache(redis.url, max_connections=1, timeout=10) as cache:
        await cache.set("a", "of a")
        await cache.set("b", "of b")
        redis.freeze()
        call = asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        redis.thaw()
        assert await cache.get("b") == "of b"  # and not the answer that the other did not wait for


async def test_many_calls_share_few_connections(redis):
    async with RedisCache(redis.url, max_connections=4) as cache:
        await asyncio.gather(*[cache.set(str(number), number) for number in range(500)])
        found = await asyncio.gather(*[cache.get(str(number)) for number in range(500)])
        assert found == list(range(500))
        clients = await cache.execute(b"CLIENT", b"LIST")
        assert clients.count(b"cmd=") <= 5


def test_event_loops_have_connections_of_their_own(redis):
    cache = RedisCache(redis.url)

    async def use(number):
        await cache.set(f"a{number}", number)
        return await cache.get(f"a{number}")

    assert [asyncio.run(use(number)) for number in range(3)] == [0, 1, 2]
    assert len(cache._clients.all()) == 0, "they are closed with their loop"
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(asyncio.run(use(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [0, 1, 2, 3]


def test_a_fork_leaves_the_parents_connections_alone(redis):
    program = """
import asyncio, os, sys
from gossamer.cache import MultiLevelCache, RedisCache
l2 = RedisCache(sys.argv[1])
cache = MultiLevelCache(l2=l2)
async def main():
    await cache.set("a", 1)
    assert await l2.get("x") is None and cache.peek("a") == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.events._set_running_loop(None)
            async def inside():
                assert cache.peek("a") is None, "nobody tells the child of changes yet"
                assert await cache.get("a") == 1
                await cache.set("b", 2)
                await cache.delete("a")
                await cache.aclose()
                await l2.aclose()
            asyncio.run(inside())
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 0
    for _ in range(1000):
        if cache.peek("a") is None:
            break
        await asyncio.sleep(0.01)
    assert cache.peek("a") is None, "the parent hears its child"
    assert await cache.get("b") == 2
    await cache.aclose()
    await l2.aclose()
asyncio.run(main())
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program, redis.url],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stderr
    assert not done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "http://localhost"},
        {"url": "redis://localhost:port/0"},
        {"timeout": 0},
        {"timeout": math.nan},
        {"ttl": 0},
        {"max_connections": 0},
        {"max_waiting": -1},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        RedisCache(**arguments)


async def test_no_password_is_shown(redis, caplog):
    caplog.set_level(logging.DEBUG)
    url = f"redis://user:s3cret@127.0.0.1:{redis.port}/0"
    async with RedisCache(url) as cache:
        with pytest.raises(CacheUnavailableError) as caught:
            await cache.get("a")
        assert "s3cret" not in f"{caught.value!r} {cache!r} {caplog.text}"
        assert isinstance(caught.value, CacheError)
    with pytest.raises(ArgumentError) as refused:
        RedisCache("http://user:s3cret@localhost")
    assert "s3cret" not in str(refused.value)
