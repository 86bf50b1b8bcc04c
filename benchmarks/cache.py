"""What does an answer from a cache cost, and a look into the cache itself?"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec

from benchmarks.floors import REPLY
from benchmarks.measure import Row, cpu_of_awaits, cpu_of_statements, publish, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Message
from gossamer.cache import MemoryCache
from gossamer.models import CachedModel, ModelRequest
from gossamer.view import MessageView

PROMPT = "hello"
LONG = 1000


class Asked(msgspec.Struct):
    """What the floor takes a request for."""

    model: str
    role: str
    text: str


def floor_model() -> Any:
    """The least that a cached call can be: encode the request, hash it, look it up in a dict, decode the answer."""
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Message).decode
    answer = msgspec.json.encode(Message.assistant(REPLY))
    kept = {hashlib.sha256(encode(Asked("prebuilt", "user", PROMPT))).digest(): answer}

    async def ask(text: str) -> Message:
        return decode(kept[hashlib.sha256(encode(Asked("prebuilt", "user", text))).digest()])

    return functools.partial(ask, PROMPT)


async def hashed(data: bytes) -> bytes:
    """The floor of a long conversation's key: a hash of its messages, encoded long since."""
    return hashlib.sha256(data).digest()


def grown(count: int) -> list[Message]:
    return [Message.user(f"message {number}, about as long as one is") for number in range(count)]


async def hits() -> dict[str, float]:
    bare, cached = Agent(PrebuiltModel()), Agent(CachedModel(PrebuiltModel()))
    await cached.run(PROMPT)
    again = await cached.run(PROMPT)
    assert again.output == REPLY
    assert again.usage.cached_calls == 1, "the cache was not asked"
    assert again.usage.model_calls == 0
    model = CachedModel(PrebuiltModel())
    cases: dict[str, Any] = {
        "bare": functools.partial(bare.run, PROMPT),
        "cached": functools.partial(cached.run, PROMPT),
        "floor": floor_model(),
    }
    assert (await cases["floor"]()).text == REPLY
    for count in (1, 10, LONG):
        items, encodings = grown(count), {}
        request = ModelRequest(MessageView(items, 0, count, encodings))
        await model.respond(request)
        assert (await model.respond(request)).usage.cached_calls == 1
        cases[f"hit at {count}"] = functools.partial(model.respond, request)
        data = b"".join([msgspec.msgpack.encode((one.role, one.parts)) for one in items])
        cases[f"hash at {count}"] = functools.partial(hashed, data)
    cache = MemoryCache()
    await cache.set("key", b"value")
    assert await cache.get("key") == b"value"
    cases["get"] = functools.partial(cache.get, "key")

    async def nothing() -> None:
        """What awaiting costs by itself."""

    cases["await"] = nothing
    return await cpu_of_awaits(cases)


def peeks() -> dict[str, float]:
    cache, kept = MemoryCache(), {"key": b"value"}
    run_loop(cache.set("key", b"value"))
    assert cache.peek("key") == kept.get("key") == b"value"
    before = cache.statistics().hits
    cpu = cpu_of_statements(
        {"peek": "peek('key')", "dict": "find('key')"}, {"peek": cache.peek, "find": kept.get}
    )
    assert cache.statistics().hits > before
    return cpu


def main() -> None:
    cpu = run_loop(hits()) | peeks()
    beyond = cpu["cached"] - cpu["bare"]
    publish(
        "cache",
        [
            Row(
                "cached hit beyond the run itself",
                "µs",
                beyond,
                cpu["floor"],
                {},
                "≤ 5 µs",
                beyond <= 5,
            ),
            Row("run answered from the cache", "µs", cpu["cached"], cpu["bare"]),
            Row(
                "CachedModel.respond, a hit with 1 message",
                "µs",
                cpu["hit at 1"],
                cpu["floor"],
                rival_row("cache", names=("langgraph",)),
            ),
            Row("CachedModel.respond, a hit with 10 messages", "µs", cpu["hit at 10"], cpu["hash at 10"]),
            Row(
                f"CachedModel.respond, a hit with {LONG:,} messages",
                "µs",
                cpu[f"hit at {LONG}"],
                cpu[f"hash at {LONG}"],
            ),
            Row(
                "memory cache, hit, sync peek",
                "µs",
                cpu["peek"],
                cpu["dict"],
                {},
                "≤ 0.15 µs",
                cpu["peek"] <= 0.15,
            ),
            Row(
                "memory cache, hit, async get",
                "µs",
                cpu["get"],
                cpu["await"],
                {},
                "≤ 0.3 µs",
                cpu["get"] <= 0.3,
            ),
        ],
    )


if __name__ == "__main__":
    main()
