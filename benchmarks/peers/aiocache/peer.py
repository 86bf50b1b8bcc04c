"""aiocache: a cache in memory, a cache in Redis, and its decorator against stampedes."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from aiocache import Cache, SimpleMemoryCache, cached_stampede


async def cache_tiers() -> dict:
    place = urlsplit(common.setting("redis"))
    value = {"text": "x" * 100}
    memory = SimpleMemoryCache()
    await memory.set("key", value)
    assert await memory.get("key") == value
    in_memory = await common.cpu_of_awaits(lambda: memory.get("key"))

    options = {"endpoint": place.hostname, "port": place.port, "pool_max_size": 1_000}
    shared = Cache(Cache.REDIS, **options)
    await shared.set("key", value)
    in_redis = await common.wall_of_awaits(lambda: shared.get("key"))
    assert await shared.get("key") == value

    calls = 0

    @cached_stampede(lease=2, ttl=60, cache=Cache.REDIS, **options)
    async def compute(number: int) -> dict:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return value

    best = float("inf")
    for number in range(5):
        calls, began = 0, time.process_time()
        found = await asyncio.gather(*[compute(number) for _ in range(1000)])
        best = min(best, time.process_time() - began)
        assert found == [value] * 1000
    await shared.close()
    await compute.cache.close()
    return {
        "value": round(in_memory, 3),
        "unit": "us",
        "l2_us": round(in_redis, 1),
        "stampede_ms": round(best * 1e3, 2),
        "computations": calls,
    }


common.main({"cache_tiers": cache_tiers}, packages=("aiocache", "redis", "hiredis"))
