"""A process with a cache, driven by lines of JSON: `[method, args, kwargs]` in, the answer out."""

import asyncio
import json
import sys

from gossamer.cache import MultiLevelCache, RedisCache


async def main() -> None:
    l2 = RedisCache(sys.argv[1])
    async with l2, MultiLevelCache(l2=l2, lease=1.0) as cache:
        await cache.get("connect")

        async def count(
            key: str, *, seconds: float = 0.05, many: int = 1, say: bool = False, forever: bool = False
        ):
            """Ask many times at once for a value whose computations are counted in Redis."""

            async def compute():
                if say:
                    print(json.dumps("computing"), flush=True)
                await asyncio.sleep(1000 if forever else seconds)
                return await l2.execute(b"INCR", b"computations")

            return await asyncio.gather(*[cache.get_or_compute(key, compute) for _ in range(many)])

        async def peek(key: str):
            return cache.peek(key, "nothing")

        calls = {
            "count": count,
            "peek": peek,
            "get": cache.get,
            "set": cache.set,
            "delete": cache.delete,
            "drop_tag": cache.drop_tag,
            "drop_namespace": cache.drop_namespace,
        }
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            method, args, kwargs = json.loads(line)
            print(json.dumps(await calls[method](*args, **kwargs)), flush=True)


asyncio.run(main())
