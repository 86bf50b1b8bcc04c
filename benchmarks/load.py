"""`python -m benchmarks.load CLIENT CASE key=value…`: one load in a process of its own; prints one line of JSON.

CLIENT is `gossamer` or `floor`. The text of every answer is compared with one read by the standard library.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.floors import FloorClient
from benchmarks.measure import run_loop
from benchmarks.peers.wires import read_pieces

if TYPE_CHECKING:
    from gossamer.models import Model

MODEL = "gpt-4o-mini"
PROMPT = "hello"
STAMP = "X-Simulator-Stamp"
TEAM = 10


def memory_mb(field: str) -> float:
    """A field of this process's status, such as VmHWM (the peak) or VmRSS."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def chosen_model(dialect: str, url: str, ca: str) -> Model:
    """The model of a dialect on a server."""
    models = importlib.import_module("gossamer.models")
    root = url.removesuffix("/v1")
    if dialect == "ollama_chat":
        return models.OllamaChat(MODEL, base_url=root, ca_file=ca or None)
    kind = {
        "openai_chat": "OpenAIChat",
        "openai_responses": "OpenAIResponses",
        "anthropic_chat": "AnthropicChat",
        "gemini_chat": "GeminiChat",
    }[dialect]
    base = url if dialect.startswith("openai") else root
    return getattr(models, kind)(MODEL, base_url=base, api_key="sk-none", ca_file=ca or None)


def gossamer_streams(
    url: str, ca: str, dialect: str, *, stamped: bool
) -> Callable[[Callable[[str], None]], Coroutine[Any, Any, None]]:
    """An agent's stream, event by event."""
    from gossamer import Agent
    from gossamer.events import TextDelta
    from gossamer.models import ModelSettings

    model = chosen_model(dialect, url, ca)
    settings = ModelSettings(extra_headers={STAMP: "1"}) if stamped else None
    agent = Agent(model, settings=settings)

    async def consume(take: Callable[[str], None]) -> None:
        async with agent.stream(PROMPT) as stream:
            async for event in stream:
                if type(event) is TextDelta:
                    take(event.text)
        assert stream.result.finish_reason == "stop"

    return consume


def floor_streams(
    url: str, ca: str, dialect: str, *, stamped: bool
) -> Callable[[Callable[[str], None]], Coroutine[Any, Any, None]]:
    """The floor's stream, piece by piece."""
    client = FloorClient(url, ca, f"{STAMP}: 1\r\n" if stamped else "", dialect)

    async def consume(take: Callable[[str], None]) -> None:
        async for text in client.stream(MODEL, PROMPT):
            take(text)

    return consume


STREAMS = {"gossamer": gossamer_streams, "floor": floor_streams}


async def stream(
    client: str, url: str, streams: int, ca: str = "", dialect: str = "openai_chat"
) -> dict[str, Any]:
    """So many streaming runs at once: CPU a chunk, CPU a run, memory."""
    expected = await asyncio.to_thread(read_pieces, url.removesuffix("/v1"), dialect, MODEL, PROMPT, ca)
    consume = STREAMS[client](url, ca, dialect, stamped=False)

    async def one() -> str:
        pieces: list[str] = []
        await consume(pieces.append)
        assert len(pieces) == len(expected), f"{len(pieces)} chunks of {len(expected)}"
        return "".join(pieces)

    assert await one() == "".join(expected)
    gc.collect()
    before = memory_mb("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(one() for _ in range(streams)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert answers == ["".join(expected)] * streams
    return {
        "cpu_us_per_chunk": cpu / (streams * len(expected)) * 1e6,
        "cpu_us_per_run": cpu / streams * 1e6,
        "peak_rss_mb": memory_mb("VmHWM"),
        "kb_per_stream": max(memory_mb("VmHWM") - before, 0) * 1024 / streams,
        "wall_s": wall,
    }


async def scale(client: str, url: str, streams: int, chunks: int) -> dict[str, Any]:
    """So many slow streams alive at once: errors, peak memory, how late a chunk reaches its consumer."""
    expected = await asyncio.to_thread(read_pieces, url.removesuffix("/v1"), "openai_chat", MODEL, PROMPT)
    assert len(expected) == chunks
    consume = STREAMS[client](url, "", "openai_chat", stamped=True)
    late = array.array("q")
    live = most = whole = errors = 0
    first_error = ""

    async def one() -> None:
        nonlocal live, most, whole, errors, first_error
        seen = 0

        def take(text: str) -> None:
            nonlocal seen, live, most
            now = time.monotonic_ns()
            stamp, _, piece = text.partition(" ")
            assert piece == expected[seen], f"chunk {seen} is {text!r}"
            late.append(now - int(stamp))
            seen += 1
            if seen == 1:
                live += 1
                most = max(most, live)
            elif seen == chunks:
                live -= 1

        try:
            await consume(take)
            assert seen == chunks, f"{seen} of {chunks} chunks"
            whole += 1
        except Exception as error:
            errors += 1
            first_error = first_error or repr(error)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(streams)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert whole + errors == streams
    assert errors or len(late) == streams * chunks
    ordered = sorted(late)
    return {
        "errors": errors,
        "first_error": first_error,
        "most_live": most,
        "cpu_us_per_chunk": cpu / (streams * chunks) * 1e6,
        "peak_rss_mb": memory_mb("VmHWM"),
        "p50_ms": ordered[len(ordered) // 2] / 1e6,
        "p95_ms": ordered[len(ordered) * 95 // 100] / 1e6,
        "wall_s": wall,
    }


async def inflight(url: str, runs: int, chunks: int) -> dict[str, Any]:
    """So many slow runs alive at once, in teams of ten, whose members' events are read through the team."""
    from gossamer import Agent, Team
    from gossamer.events import InnerEvent, TextDelta
    from gossamer.models import ModelSettings

    expected = await asyncio.to_thread(read_pieces, url.removesuffix("/v1"), "openai_chat", MODEL, PROMPT)
    assert len(expected) == chunks
    model = chosen_model("openai_chat", url, "")
    settings = ModelSettings(extra_headers={STAMP: "1"})
    members = [Agent(model, name=f"m{number}", settings=settings) for number in range(TEAM)]
    team = Team(members, mode="broadcast")
    late = array.array("q")
    live = most = whole = errors = 0
    first_error = ""

    async def one() -> None:
        nonlocal live, most, whole, errors, first_error
        seen: dict[str, int] = {}
        try:
            async with team.stream(PROMPT) as stream:
                async for event in stream:
                    if type(event) is not InnerEvent or type(event.event) is not TextDelta:
                        continue
                    now = time.monotonic_ns()
                    stamp, _, piece = event.event.text.partition(" ")
                    member = event.path[-1]
                    place = seen.get(member, 0)
                    assert piece == expected[place], f"chunk {place} of {member} is {piece!r}"
                    late.append(now - int(stamp))
                    seen[member] = place + 1
                    if place == 0:
                        live += 1
                        most = max(most, live)
                    elif place + 1 == chunks:
                        live -= 1
            assert stream.result.usage.model_calls == TEAM
            assert list(seen.values()) == [chunks] * TEAM, f"{seen} of {chunks} chunks each"
            whole += 1
        except Exception as error:
            errors += 1
            first_error = first_error or repr(error)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(runs // TEAM)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert errors or len(late) == runs * chunks
    ordered = sorted(late)
    return {
        "errors": errors,
        "first_error": first_error,
        "most_live": most,
        "cpu_us_per_chunk": cpu / (runs * chunks) * 1e6,
        "peak_rss_mb": memory_mb("VmHWM"),
        "p50_ms": ordered[len(ordered) // 2] / 1e6,
        "p95_ms": ordered[len(ordered) * 95 // 100] / 1e6,
        "wall_s": wall,
    }


async def calls(client: str, url: str, concurrency: int, seconds: float, fresh: bool) -> dict[str, Any]:
    """Calls that are not streamed, so many at once, each by a new client and agent or all by one."""
    from gossamer import Agent
    from gossamer.models import OpenAIChat

    def agent() -> Agent[Any, Any]:
        return Agent(OpenAIChat(MODEL, base_url=url, api_key="sk-none"))

    async def by_floor(shared: FloorClient) -> str:
        return await shared.call(MODEL, PROMPT)

    async def by_agent(shared: Agent[Any, Any]) -> str:
        return (await (agent() if fresh else shared).run(PROMPT)).output

    shared: Any = FloorClient(url) if client == "floor" else agent()
    call: Callable[[Any], Coroutine[Any, Any, str]] = by_floor if client == "floor" else by_agent
    expected = await call(shared)
    assert expected == f"You said: {PROMPT}", expected
    done = 0

    async def caller(until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            assert await call(shared) == expected
            done += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(wall + seconds) for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"calls_per_s": done / wall, "cpu_us_per_call": cpu / done * 1e6}


def main() -> None:
    client, case, *pairs = sys.argv[1:]
    keys = dict(pair.split("=", 1) for pair in pairs)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url = keys["url"]
    if case == "stream":
        work = stream(
            client, url, int(keys["streams"]), keys.get("ca", ""), keys.get("dialect", "openai_chat")
        )
    elif case == "inflight":
        work = inflight(url, int(keys["streams"]), int(keys["chunks"]))
    elif case == "scale":
        work = scale(client, url, int(keys["streams"]), int(keys["chunks"]))
    else:
        work = calls(client, url, int(keys["concurrency"]), float(keys["seconds"]), keys["mode"] == "fresh")
    print(json.dumps(run_loop(work)))


if __name__ == "__main__":
    main()
