"""What the rivals' programs share: arguments, clocks, the reference answer, load, the one JSON line.

Runs inside each rival's own environment, so it stands on the standard library alone.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import inspect
import json
import logging
import os
import platform
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

from wires import read_pieces

__all__ = [
    "CALL_ID",
    "MODEL",
    "PROMPT",
    "REPLY",
    "TOOL_ARGUMENTS",
    "TOOL_CALLS",
    "add",
    "cpu_of_adds",
    "cpu_of_awaits",
    "cpu_of_calls",
    "created",
    "import_cost",
    "load",
    "main",
    "openai_http_client",
    "prepare",
    "run_loop",
    "setting",
    "stored_go_on",
    "stored_run",
    "streamed",
    "tools",
    "turn_costs",
    "wall_of_awaits",
]

PROMPT = "hello"
REPLY = "hello"
MODEL = "gpt-4o-mini"
CALL_ID = "call_1"
TOOL_ARGUMENTS = '{"a": 2, "b": 3}'
REPEATS = 7
SECONDS_A_REPEAT = 0.15
AGENTS = 10_000
TURNS = (10, 100, 1_000)

_settings: dict[str, str] = {}


def setting(name: str, default: str = "") -> str:
    """Return the value given as `name=value` on the command line."""
    if name == "url" and not _settings.get("url"):
        raise SystemExit("this case needs url=: without it a client would ask its provider")
    return _settings.get(name, default)


# What every rival's agent is given -------------------------------------------------------------------

TOOL_CALLS: list[tuple[int, int]] = []


async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    TOOL_CALLS.append((a, b))
    return a + b


def tools() -> list:
    """Return four plain functions, as a user writes them."""

    def search(query: str, limit: int = 10) -> str:
        """Search the catalogue.

        Args:
            query: what to look for.
            limit: the most results to return.
        """
        return f"{query} {limit}"

    def convert(amount: float, rate: float) -> float:
        """Convert an amount of money.

        Args:
            amount: in the source currency.
            rate: target units for one source unit.
        """
        return amount * rate

    def weather(city: str, days: int = 1) -> str:
        """Tell the weather.

        Args:
            city: where.
            days: how many days ahead.
        """
        return f"{city} {days}"

    def note(title: str, text: str, pinned: bool = False) -> str:
        """Keep a note.

        Args:
            title: its title.
            text: its text.
            pinned: whether it stays on top.
        """
        return f"{title} {text} {pinned}"

    return [search, convert, weather, note]


# Clocks ----------------------------------------------------------------------------------------------


def cpu_of_calls(function) -> float:
    """Return µs of CPU for one call: the minimum over repeats of at least SECONDS_A_REPEAT each."""
    function()
    number, spent = 1, 0.0
    while True:
        start = time.process_time()
        for _ in range(number):
            function()
        spent = time.process_time() - start
        if spent >= SECONDS_A_REPEAT:
            break
        number = max(number * 2, int(number * SECONDS_A_REPEAT / max(spent, 1e-6)))
    best = spent / number
    for _ in range(REPEATS - 1):
        start = time.process_time()
        for _ in range(number):
            function()
        best = min(best, (time.process_time() - start) / number)
    return best * 1e6


async def cpu_of_awaits(function) -> float:
    """Return µs of CPU for one awaited call of `function`: as `cpu_of_calls`, on the running loop."""
    await function()
    number, spent = 1, 0.0
    while True:
        start = time.process_time()
        for _ in range(number):
            await function()
        spent = time.process_time() - start
        if spent >= SECONDS_A_REPEAT:
            break
        number = max(number * 2, int(number * SECONDS_A_REPEAT / max(spent, 1e-6)))
    best = spent / number
    for _ in range(REPEATS - 1):
        start = time.process_time()
        for _ in range(number):
            await function()
        best = min(best, (time.process_time() - start) / number)
    return best * 1e6


async def wall_of_awaits(function) -> float:
    """Return µs of wall clock for one awaited call of `function`, as `cpu_of_awaits`: what waits elsewhere counts."""
    await function()
    number, best = 100, float("inf")
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        for _ in range(number):
            await function()
        spent = time.perf_counter() - start
        best = min(best, spent / number)
        number = max(100, int(number * SECONDS_A_REPEAT / max(spent, 1e-6)))
    return best * 1e6


def created(build) -> dict:
    """Measure `build`: µs of CPU each, and bytes each keeps while AGENTS of them are alive.

    Where building one takes over 0.5 ms, 1,000 are kept; `agents` says how many.
    """
    cost = cpu_of_calls(build)
    count = AGENTS if cost < 500 else 1_000
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [build() for _ in range(count)]
    gc.collect()
    retained = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    assert len({id(agent) for agent in kept}) == count
    return {"value": round(cost, 3), "unit": "us", "retained_bytes": round(retained), "agents": count}


async def cpu_of_adds(prepare) -> float:
    """Return µs of CPU for adding one message to a history of 1,000 that cannot shrink again.

    Args:
        prepare: `await prepare()` builds a history of 1,000 messages and returns an async function that
            adds one. Fifty are added to each, seven histories are built, the minimum counts.
    """
    best = float("inf")
    for _ in range(REPEATS):
        add_one = await prepare()
        await add_one()
        gc.collect()
        start = time.process_time()
        for _ in range(50):
            await add_one()
        best = min(best, (time.process_time() - start) / 50)
    return best * 1e6


async def turn_costs(given=None, kept=None) -> dict:
    """Measure one turn at message 10, 100 and 1,000; `value` is the cheaper way's at 1,000.

    Args:
        given: `await given(n)` returns an async function that runs one turn on the same n messages, handed
            over by the caller, and returns (final text, messages the model was given).
        kept: the same on a conversation of n messages that the framework itself keeps. The function is
            called once: each repeat gets a conversation of its own, in which a turn was run before.
    """
    result: dict = {"unit": "us"}

    def check(answer: tuple[str, int], count: int) -> None:
        text, seen = answer
        assert text == REPLY, text
        assert seen in (count + 1, count + 2), (
            f"the model was given {seen} messages, not {count} and the new one"
        )

    if given is not None:
        result["given_at"] = {}
        for count in TURNS:
            turn = await given(count)
            check(await turn(), count)
            result["given_at"][str(count)] = round(await cpu_of_awaits(turn), 2)
    if kept is not None:
        result["kept_at"] = {}
        for count in TURNS:
            best = float("inf")
            for _ in range(REPEATS + 2):
                turn = await kept(count)
                start = time.process_time()
                answer = await turn()
                best = min(best, time.process_time() - start)
                check(answer, count)
            result["kept_at"][str(count)] = round(best * 1e6, 2)
    last = str(TURNS[-1])
    return {"value": min(result[way][last] for way in ("given_at", "kept_at") if way in result)} | result


async def stored_run(run) -> dict:
    """Measure runs whose session is kept in a file: 200 sessions at once, five runs each, all three times.

    Args:
        run: `await run(session)` runs one turn in a session, which is an id, and returns the final text.
    """
    best = float("inf")
    for repeat in range(3):

        async def talk(number: int, repeat: int = repeat) -> None:
            for _ in range(5):
                assert await run(f"{repeat}-{number}") == REPLY

        start = time.perf_counter()
        await asyncio.gather(*[talk(number) for number in range(200)])
        best = min(best, (time.perf_counter() - start) / 1000)
    return {"value": round(best * 1e6, 2), "unit": "us"}


async def stored_go_on(turn) -> dict:
    """Measure from the call of a run to that of its model, in a kept session of 10,000 messages.

    Args:
        turn: `await turn()` runs one turn and returns when the model was asked, by `time.perf_counter`.
    """
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        best = min(best, await turn() - start)
    return {"value": round(best * 1e3, 3), "unit": "ms"}


def import_cost(code: str) -> dict:
    """Measure `code` in fresh processes: CPU ms beyond a bare interpreter, the least of six each."""
    tail = "\nimport time, sys; sys.stdout.write('@' + repr(time.process_time()))"

    def least(source: str) -> float:
        best = float("inf")
        for _ in range(6):
            command = [sys.executable, "-c", source + tail]
            output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
            best = min(best, float(output.rpartition("@")[2]))
        return best

    # aiohttp is there for another case only; an installation as documented does not have it.
    hidden = "aiohttp" in sys.modules and sys.modules["aiohttp"] is None
    hide = "import sys; sys.modules['aiohttp'] = None\n" if hidden else ""
    bare = least("")
    return {
        "value": round((least(hide + code) - bare) * 1e3, 1),
        "unit": "ms",
        "bare_ms": round(bare * 1e3, 1),
    }


def memory_mb(field: str) -> float:
    """Return a field of this process's status, e.g. VmHWM (the peak) or VmRSS, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


# Load ------------------------------------------------------------------------------------------------


def reference_answer(chunks: int) -> str:
    """Return the server's streamed answer to PROMPT, read with the standard library alone."""
    root = setting("url").removesuffix("/v1")
    parts = read_pieces(root, setting("dialect", "openai_chat"), MODEL, PROMPT, setting("ca"))
    assert len(parts) == chunks, f"the server sends {len(parts)} chunks, chunks={chunks} was given"
    return "".join(parts)


async def streamed(run) -> dict:
    """Measure `streams` concurrent streaming runs, each consumed event by event.

    Args:
        run: `await run()` streams one run and returns its pieces of text as the events brought them.
    """
    streams, chunks = int(setting("streams", "300")), int(setting("chunks", "50"))
    expected = await asyncio.to_thread(reference_answer, chunks)
    assert "".join(await run()) == expected
    gc.collect()
    rss_before = memory_mb("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(run() for _ in range(streams)), return_exceptions=True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert not failures, f"{len(failures)} of {streams} failed, the first with {failures[0]!r}"
    wrong = sum("".join(answer) != expected for answer in answers)
    assert not wrong, f"{wrong} of {streams} answers are not complete"
    # Some rivals join pieces: what the user got is shown beside what the server sent.
    return {
        "value": round(cpu / (streams * chunks) * 1e6, 2),
        "unit": "us/chunk",
        "cpu_ms_per_run": round(cpu / streams * 1e3, 3),
        "peak_rss_mb": round(memory_mb("VmHWM"), 1),
        "rss_before_mb": round(rss_before, 1),
        "wall_s": round(wall, 2),
        "streams": streams,
        "chunks": chunks,
        "text_events_per_run": round(sum(map(len, answers)) / streams, 1),
    }


async def load(fresh, shared) -> dict:
    """Measure calls for `seconds`, `concurrency` at a time.

    Args:
        fresh: `await fresh()` builds client and agent, makes one call and returns the text.
        shared: `await shared()` makes one call on the one client and agent, and returns the text.
    """
    concurrency, seconds = int(setting("concurrency", "8")), float(setting("seconds", "3"))
    call = {"fresh": fresh, "shared": shared}[setting("mode", "shared")]
    expected = await call()
    # Some frameworks give a failure out as the answer's text.
    assert "hello" in expected, f"not the server's answer: {expected!r}"
    done = errors = 0
    first_error = None

    async def caller(until: float) -> None:
        nonlocal done, errors, first_error
        while time.perf_counter() < until:
            try:
                text = await call()
                assert text == expected, text
                done += 1
            except Exception as error:
                errors += 1
                first_error = first_error or repr(error)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(wall + seconds) for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "value": round(done / wall, 1),
        "unit": "calls/s",
        "cpu_us_per_call": round(cpu / max(done, 1) * 1e6, 1),
        "errors": errors,
        "first_error": first_error,
        "concurrency": concurrency,
        "mode": setting("mode", "shared"),
        "calls": done,
        "peak_rss_mb": round(memory_mb("VmHWM"), 1),
    }


# The program -----------------------------------------------------------------------------------------


def openai_http_client():
    """Return the HTTP client for the official OpenAI client: None for its own default.

    `transport=aiohttp` takes the transport its documentation offers "for improved concurrency performance".
    Past the default limit of 1,000 connections the limit is raised to what the case needs.
    """
    import httpx2
    import openai

    needed = int(setting("streams", "0"))
    if setting("transport", "default") == "default" and needed <= 1_000:
        return None
    kind = (
        openai.DefaultAioHttpClient if setting("transport") == "aiohttp" else openai.DefaultAsyncHttpxClient
    )
    return kind(limits=httpx2.Limits(max_connections=max(1_000, needed), max_keepalive_connections=100))


def run_loop(coroutine):
    """Run on asyncio's loop, or on uvloop where `loop=uvloop` was given."""
    if setting("loop", "asyncio") == "uvloop":
        import uvloop

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


def prepare(*, hide_aiohttp: bool = True) -> None:
    """Read the arguments and quieten the process. Call it before importing the rival.

    Args:
        hide_aiohttp: aiohttp is there for the official client's other transport only, an extra; hide it
            unless `transport=aiohttp` asks for it.
    """
    for argument in sys.argv[2:]:
        name, _, value = argument.partition("=")
        _settings[name] = value
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["OPENAI_API_KEY"] = "sk-none"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
    if setting("ca"):
        os.environ["SSL_CERT_FILE"] = setting("ca")
    if hide_aiohttp and setting("transport", "default") != "aiohttp":
        sys.modules["aiohttp"] = None  # type: ignore[assignment]


def main(cases: dict, packages: tuple[str, ...]) -> None:
    """Run the case named on the command line and print its one JSON line.

    Args:
        cases: a function (plain or async) for each case, or the reason why the rival cannot do it.
        packages: distributions whose versions the line shows.
    """
    if len(sys.argv) < 2 or sys.argv[1] not in cases:
        sys.exit(f"usage: peer.py CASE [key=value…], CASE one of: {', '.join(cases)}")
    case, function = sys.argv[1], cases[sys.argv[1]]
    line: dict = {"case": case}
    if isinstance(function, str):
        line["unsupported"] = function
    else:
        line["versions"] = {name: importlib.metadata.version(name) for name in packages}
        line["versions"]["python"] = platform.python_version()
        result = run_loop(function()) if inspect.iscoroutinefunction(function) else function()
        line |= result
        if "url" in _settings:
            line |= {"transport": setting("transport", "default"), "loop": setting("loop", "asyncio")}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
