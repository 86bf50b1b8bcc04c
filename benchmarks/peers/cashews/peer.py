"""cashews: Redis with a cache on the client's side, which the server tells of changes."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from cashews import Cache


async def cache_tiers() -> dict:
    value = {"text": "x" * 100}
    tiers = Cache()
    tiers.setup(common.setting("redis"), client_side=True)
    await tiers.init()
    await tiers.set("key", value, expire=600)
    assert await tiers.get("key") == value
    in_memory = await common.cpu_of_awaits(lambda: tiers.get("key"))

    shared = Cache()
    shared.setup(common.setting("redis"))
    await shared.init()
    await shared.set("key", value, expire=600)
    in_redis = await common.wall_of_awaits(lambda: shared.get("key"))
    assert await shared.get("key") == value

    calls = 0

    @tiers(ttl="1m", lock=True)
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
    await tiers.close()
    await shared.close()
    return {
        "value": round(in_memory, 3),
        "unit": "us",
        "l2_us": round(in_redis, 1),
        "stampede_ms": round(best * 1e3, 2),
        "computations": calls,
    }


common.main({"cache_tiers": cache_tiers}, packages=("cashews", "redis", "hiredis"))
