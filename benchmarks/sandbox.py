"""What does a run in a sandbox cost: Monty's fresh session, a warm worker of bubblewrap, many at once, and memory?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, publish, quick, rival_row, run_loop
from gossamer import SandboxUnavailableError
from gossamer.sandbox import BubblewrapSandbox, MontySandbox
from gossamer.sandbox.process_tree import descendants

CODE = "1 + 1"
ROUNDS = 40 if quick() else 300
SLOW_ROUNDS = 10 if quick() else 60
AT_ONCE = 200
PLACES = 8
RIVAL = ("smolagents",)


def median(values: list[float]) -> float:
    """The one in the middle."""
    return sorted(values)[len(values) // 2]


async def timed(
    cases: dict[str, Callable[[], Awaitable[Any]]], rounds: int, pause: float = 0.0
) -> dict[str, float]:
    """Milliseconds on the wall of each case, taken in turns; the median, for much of it is other processes' work."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 5):
        for name, case in cases.items():
            await asyncio.sleep(pause)
            began = time.perf_counter()
            await case()
            if number >= 5:
                taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(values) for name, values in taken.items()}


async def python_c() -> None:
    """A bare interpreter, without isolation."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", f"print({CODE})", stdout=subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert told == b"2\n"


async def monty() -> list[Row]:
    """A fresh session, beside the library's own."""
    from pydantic_monty import AsyncMonty

    async with MontySandbox(size=2) as sandbox, AsyncMonty(max_processes=2) as bare:

        async def ours() -> None:
            assert (await sandbox.run(CODE)).value == 2

        async def floor() -> None:
            async with bare.checkout() as session:
                assert await session.feed_run(CODE) == 2

        cost = await timed({"ours": ours, "floor": floor}, ROUNDS)
        async with sandbox.session() as session, bare.checkout() as kept:

            async def again() -> None:
                assert (await session.run(CODE)).value == 2

            async def bare_again() -> None:
                assert await kept.feed_run(CODE) == 2

            lasting = await timed({"ours": again, "floor": bare_again}, ROUNDS)
    rivals = rival_row("sandbox", "fresh_ms", RIVAL)
    kept_rivals = rival_row("sandbox", "kept_ms", RIVAL)
    return [
        Row(
            "Monty, a fresh session and 1 + 1",
            "ms",
            cost["ours"],
            cost["floor"],
            rivals,
            "≤ 0.5",
            cost["ours"] <= 0.5,
        ),
        Row("Monty, 1 + 1 in a session that is open", "ms", lasting["ours"], lasting["floor"], kept_rivals),
    ]


async def bubblewrap() -> list[Row]:
    """A session out of the warm pool, and one that is open, beside a bare interpreter."""
    async with BubblewrapSandbox(warm=2) as sandbox:

        async def fresh() -> None:
            assert (await sandbox.run(CODE)).value == 2

        cost = await timed({"ours": fresh, "python": python_c}, SLOW_ROUNDS, pause=0.02)
        async with sandbox.session() as session:

            async def again() -> None:
                assert (await session.run(CODE)).value == 2

            lasting = await timed({"ours": again}, ROUNDS)
    began = time.perf_counter()
    async with BubblewrapSandbox(warm=0) as cold:
        assert (await cold.run(CODE)).value == 2
        opened = (time.perf_counter() - began) * 1e3
    rivals = {"python -c": cost["python"], **rival_row("sandbox", "fresh_ms", RIVAL)}
    return [
        Row(
            "bubblewrap, a warm worker and 1 + 1",
            "ms",
            cost["ours"],
            None,
            rivals,
            "≤ 15",
            cost["ours"] <= 15,
        ),
        Row("bubblewrap, 1 + 1 in a session that is open", "ms", lasting["ours"]),
        Row("bubblewrap, the box opened and 1 + 1", "ms", opened, None, {"python -c": cost["python"]}),
    ]


async def memory() -> Row:
    """The pool's processes, shared pages shared out among them."""
    async with BubblewrapSandbox(size=4, warm=4) as sandbox:
        sessions = [sandbox.session() for _ in range(4)]
        await asyncio.gather(*(session.run(CODE) for session in sessions))
        total = sum(proportional(pid) for pid in descendants(os.getpid())) / 2**20
        for session in sessions:
            await session.aclose()
    return Row(
        "bubblewrap, memory of four sessions and all that holds them",
        "MB",
        total,
        None,
        {},
        "≤ 150",
        total <= 150,
    )


def proportional(pid: int) -> int:
    """Memory of a process in bytes, each shared page divided by those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


async def crowd() -> list[Row]:
    """Two hundred fresh sessions at once on eight places, and how long the slowest waited."""

    async def all_of(run: Callable[[], Awaitable[Any]]) -> float:
        best = float("inf")
        for _ in range(1 if quick() else 3):
            began = time.perf_counter()
            await asyncio.gather(*(run() for _ in range(AT_ONCE)))
            best = min(best, time.perf_counter() - began)
        return best

    async with (
        BubblewrapSandbox(size=PLACES, warm=PLACES) as sandbox,
        MontySandbox(size=PLACES) as snippets,
    ):

        async def boxed() -> None:
            assert (await sandbox.run(CODE)).value == 2

        async def snippet() -> None:
            assert (await snippets.run(CODE)).value == 2

        places = asyncio.Semaphore(PLACES)

        async def bare() -> None:
            async with places:
                await python_c()

        slowest, quickest, floor = await all_of(boxed), await all_of(snippet), await all_of(bare)
    rivals = {"python -c": floor}
    return [
        Row(
            "bubblewrap, 200 sessions at once on 8 places, the last",
            "s",
            slowest,
            None,
            rivals,
            "all end",
            ok=True,
        ),
        Row(
            "Monty, 200 sessions at once on 8 places, the last",
            "s",
            quickest,
            None,
            rivals,
            "all end",
            ok=True,
        ),
    ]


async def main() -> list[Row]:
    """All rows; those of bubblewrap where this machine can have it."""
    rows = await monty()
    try:
        await BubblewrapSandbox().check()
    except SandboxUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return rows
    return [*rows, *await bubblewrap(), await memory(), *await crowd()]


if __name__ == "__main__":
    publish("sandbox", run_loop(main()))
