"""What does a cache in two tiers cost: in memory, in Redis, when a thousand ask at once, when another process changes?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
from redis.asyncio import Redis

from benchmarks.measure import (
    LOOP,
    ROOT,
    ROUNDS,
    SECONDS_A_ROUND,
    Row,
    cpu_of_awaits,
    cpu_of_statements,
    publish,
    quick,
    rival_row,
    run_loop,
)
from gossamer.cache import MemoryCache, MultiLevelCache, RedisCache

CACHES = ("aiocache", "cashews")
VALUE = {"text": "x" * 100}
MANY = 1000


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis in a folder of its own, on a free port, keeping nothing on disk; gives its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not there; get it with: make services")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gossamer-redis-") as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:
            try:
                for _ in range(1000):
                    with contextlib.suppress(OSError):
                        socket.create_connection(("127.0.0.1", port), timeout=1).close()
                        break
                    time.sleep(0.01)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                process.kill()
                process.wait()


async def wall_of_awaits(cases: dict[str, Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    """Time what waits for another process, by the wall's clock, in turns; µs of `await case()` of each."""
    seconds, rounds = (0.02, 3) if quick() else (SECONDS_A_ROUND, ROUNDS)
    best, numbers = dict.fromkeys(cases, float("inf")), dict.fromkeys(cases, 100)
    for _ in range(rounds + 1):
        for case, function in cases.items():
            began = time.perf_counter()
            for _ in range(numbers[case]):
                await function()
            spent = time.perf_counter() - began
            best[case] = min(best[case], spent / numbers[case] * 1e6)
            numbers[case] = max(100, int(numbers[case] * seconds / max(spent, 1e-6)))
    return best


async def in_memory() -> dict[str, float]:
    cache, bare, kept = MultiLevelCache(), MemoryCache(), {"key": VALUE}
    space = cache.namespace("space")
    await cache.set("key", VALUE)
    await cache.set("timed", VALUE, ttl=600)
    await space.set("key", VALUE)
    await bare.set("key", VALUE)
    assert cache.peek("key") == cache.peek("timed") == space.peek("key") == bare.peek("key") == VALUE

    async def nothing() -> None:
        """What awaiting costs by itself."""

    async def compute() -> Any:
        raise AssertionError("it is there")

    cpu = cpu_of_statements(
        {
            "peek": "peek('key')",
            "timed peek": "peek('timed')",
            "space peek": "space('key')",
            "memory": "memory('key')",
            "cachebox": "cachebox('key')",
            "dict": "find('key')",
        },
        {
            "peek": cache.peek,
            "space": space.peek,
            "memory": bare.peek,
            "cachebox": bare.find,
            "find": kept.get,
        },
    )
    cpu |= await cpu_of_awaits(
        {
            "get": lambda: cache.get("key"),
            "get or compute": lambda: cache.get_or_compute("key", compute),
            "await": nothing,
        }
    )
    assert cache.statistics().l1.misses == 0
    return cpu


async def in_redis(url: str) -> dict[str, float]:
    client = Redis.from_url(url, protocol=2)
    async with RedisCache(url) as l2, MultiLevelCache(l2=l2) as cache:
        await cache.set("key", VALUE)
        await l2.set("key", VALUE)
        await client.set("bare", msgspec.msgpack.encode(VALUE))
        memory = cache._l1

        async def two_tiers() -> Any:
            memory.drop("key")
            return await cache.get("key")

        async def bare() -> Any:
            return msgspec.msgpack.decode(await client.get("bare"))

        async def put() -> None:
            await cache.set("other", VALUE)

        async def bare_put() -> None:
            await client.set("bare", msgspec.msgpack.encode(VALUE), px=600_000)

        cases = {
            "l2 hit": two_tiers,
            "redis hit": lambda: l2.get("key"),
            "bare get": bare,
            "set": put,
            "bare set": bare_put,
        }
        assert await two_tiers() == await l2.get("key") == await bare() == VALUE
        hits = cache.statistics().l2.hits
        wall = await wall_of_awaits(cases)
        assert cache.statistics().l2.misses == 0
        assert cache.statistics().l2.hits > hits
        wall |= {f"cpu of {case}": cpu for case, cpu in (await cpu_of_awaits(cases)).items()}
    await client.aclose()
    return wall


async def stampede(url: str | None) -> float:
    """Give the ms of CPU that a thousand misses of one key take, which are answered by one computation."""
    best = float("inf")
    async with MultiLevelCache(l2=url) as cache:
        await cache.get("connect")
        for number in range(3 if quick() else 15):
            calls = 0

            async def compute() -> Any:
                nonlocal calls
                calls += 1
                await asyncio.sleep(0)
                return VALUE

            began = time.process_time()
            found = await asyncio.gather(
                *[cache.get_or_compute(f"key {number}", compute) for _ in range(MANY)]
            )
            best = min(best, time.process_time() - began)
            assert found == [VALUE] * MANY
            assert calls == 1, calls
    return best * 1e3


async def gathered() -> float:
    """The floor of a stampede: a thousand tasks that wait for one future."""
    best = float("inf")
    for _ in range(3 if quick() else 15):
        answer = asyncio.get_running_loop().create_future()

        async def wait(answer: asyncio.Future[Any] = answer) -> Any:
            return await answer

        began = time.process_time()
        waiting = asyncio.gather(*[wait() for _ in range(MANY)])
        await asyncio.sleep(0)
        answer.set_result(VALUE)
        assert await waiting == [VALUE] * MANY
        best = min(best, time.process_time() - began)
    return best * 1e3


async def other_process(url: str) -> None:
    """What the second process does: it joins stampedes, and tells when it hears of a change."""
    loop = asyncio.get_running_loop()
    async with RedisCache(url, timeout=5) as l2, MultiLevelCache(l2=l2) as cache:
        await cache.get("connect")
        print(json.dumps("ready"), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            word, key = json.loads(line)
            if word == "stampede":
                answer: Any = await thousand(cache, l2, key)
            else:
                await cache.get(key)
                print(json.dumps("has it"), flush=True)
                while cache.peek(key) is not None:
                    await asyncio.sleep(0)
                answer = time.monotonic()
            print(json.dumps(answer), flush=True)


async def thousand(cache: MultiLevelCache, l2: RedisCache, key: str) -> list[int]:
    async def compute() -> Any:
        await asyncio.sleep(0.02)
        return await l2.execute(b"INCR", b"computations")

    return sorted(set(await asyncio.gather(*[cache.get_or_compute(key, compute) for _ in range(MANY)])))


async def two_processes(url: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.cache_tiers", "other-process", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def heard() -> Any:
        return json.loads(await process.stdout.readline())

    def say(*words: str) -> None:
        process.stdin.write(json.dumps(words).encode() + b"\n")

    rounds = 3 if quick() else 10
    async with RedisCache(url, timeout=5) as l2, MultiLevelCache(l2=l2) as cache:
        assert await heard() == "ready"
        await cache.get("connect")
        for number in range(rounds):
            say("stampede", f"both {number}")
            here = await thousand(cache, l2, f"both {number}")
            assert here == await heard() == [number + 1], "not one computation for both processes"
        computations = await l2.execute(b"INCR", b"computations") - 1
        delays: list[float] = []
        for number in range(20 if quick() else 200):
            key = f"changing {number}"
            await cache.set(key, 1)
            say("watch", key)
            assert await heard() == "has it"
            began = time.monotonic()
            await cache.delete(key)
            delays.append((await heard() - began) * 1e3)
    process.stdin.close()
    await process.wait()
    assert min(delays) > 0
    return {
        "computations": computations / rounds,
        "median": statistics.median(delays),
        "longest": max(delays),
    }


def main() -> None:
    if sys.argv[1:2] == ["other-process"]:
        run_loop(other_process(sys.argv[2]))
        return
    cpu = run_loop(in_memory())
    with redis_server() as url:
        wall = run_loop(in_redis(url))
        alone, shared, floor = run_loop(stampede(None)), run_loop(stampede(url)), run_loop(gathered())
        both = run_loop(two_processes(url))
        rivals = {
            figure: rival_row("cache_tiers", figure, CACHES, redis=url, loop=LOOP)
            for figure in ("value", "l2_us", "stampede_ms", "computations")
        }
    publish(
        "cache_tiers",
        [
            Row(
                "memory hit, sync peek", "µs", cpu["peek"], cpu["dict"], {}, "≤ 0.15 µs", cpu["peek"] <= 0.15
            ),
            Row("memory hit, sync peek, with a time to end", "µs", cpu["timed peek"], cpu["cachebox"]),
            Row("memory hit, sync peek, in a namespace", "µs", cpu["space peek"], cpu["cachebox"]),
            Row(
                "memory hit, async get",
                "µs",
                cpu["get"],
                cpu["await"],
                rivals["value"],
                "≤ 0.3 µs",
                cpu["get"] <= 0.3,
            ),
            Row("memory hit, get_or_compute", "µs", cpu["get or compute"], cpu["await"]),
            Row(
                "Redis hit through both tiers, wall clock",
                "µs",
                wall["l2 hit"],
                wall["bare get"],
                {},
                "≤ 150 µs",
                wall["l2 hit"] <= 150,
            ),
            Row("Redis hit through both tiers, CPU", "µs", wall["cpu of l2 hit"], wall["cpu of bare get"]),
            Row("RedisCache hit, wall clock", "µs", wall["redis hit"], wall["bare get"], rivals["l2_us"]),
            Row("set in both tiers, told to all, wall clock", "µs", wall["set"], wall["bare set"]),
            Row(f"{MANY:,} misses at once, memory alone, CPU", "ms", alone, floor),
            Row(f"{MANY:,} misses at once, with Redis, CPU", "ms", shared, floor, rivals["stampede_ms"]),
            Row(
                f"computations for {MANY:,} misses at once in each of two processes",
                "",
                both["computations"],
                None,
                {},
                "1",
                both["computations"] == 1,
            ),
            Row("a change reaches another process's memory, median", "ms", both["median"]),
            Row(
                "a change reaches another process's memory, longest of 200",
                "ms",
                both["longest"],
                None,
                {},
                "≤ 100 ms",
                both["longest"] <= 100,
            ),
        ],
    )


if __name__ == "__main__":
    main()
