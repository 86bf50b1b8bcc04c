"""What does a workflow cost for each step: nothing kept, kept in memory, kept on disk; and in a long run?"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Row, cpu_of_awaits, figures, publish, quick, rival, rival_row, run_loop
from gossamer import Loop, Session, Step, Workflow
from gossamer.stores import open_store

STEPS = 10
LONG = 10_000
SHORT = 100
RUNS = 200
RIVALS = ("langgraph", "agno")


async def add_one(value: int) -> int:
    return value + 1


def add_one_inline(value: int) -> int:
    return value + 1


def chain(**options: Any) -> Workflow:
    """Ten steps, one after the other."""
    function = add_one_inline if options.get("inline") else add_one
    return Workflow("chain", [Step(function, name=f"step{number}", **options) for number in range(STEPS)])


async def by_hand(value: int) -> int:
    """The floor: the same coroutines awaited one after the other."""
    for _ in range(STEPS):
        value = await add_one(value)
    return value


async def in_memory() -> dict[str, float]:
    """µs of CPU a step."""
    workflow, inline = chain(), chain(inline=True)
    loops = {length: Workflow("long", [Loop(add_one, max_iterations=length)]) for length in (SHORT, LONG)}

    async def ours() -> None:
        assert (await workflow.run(0)).output == STEPS

    async def sync() -> None:
        assert (await inline.run(0)).output == STEPS

    async def floor() -> None:
        assert await by_hand(0) == STEPS

    async def session() -> None:
        assert (await workflow.run(0, session=Session())).output == STEPS

    async def long(length: int) -> None:
        session = Session()
        assert (await loops[length].run(0, session=session)).output == length
        assert len(session.journal) == 2 * length + 3

    cpu = await cpu_of_awaits({"ours": ours, "inline": sync, "floor": floor, "session": session})
    lengths = await cpu_of_awaits({"short": lambda: long(SHORT), "long": lambda: long(LONG)})
    per_step = {case: value / STEPS for case, value in cpu.items()}
    return per_step | {"short": lengths["short"] / SHORT, "long": lengths["long"] / LONG}


async def stored(runs: int) -> tuple[float, float]:
    """µs of CPU and of wall time a step, many workflows at once, each step on disk before the next one begins."""
    workflow = chain()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/workflow.db")
        await workflow.run(0, session=Session("first", store=store))
        began, used = time.perf_counter(), time.process_time()
        results = await asyncio.gather(
            *(workflow.run(0, session=Session(f"s{number}", store=store)) for number in range(runs))
        )
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        assert all(result.output == STEPS for result in results)
        for number in (0, runs - 1):
            kept = await store.read(f"s{number}", 0, 100)
            assert sum(type(record).__name__ == "StepFinishedRecord" for record in kept) == STEPS + 1
            assert type(kept[-1]).__name__ == "RunFinishedRecord"
        await store.aclose()
    return cpu / runs / STEPS * 1e6, wall / runs / STEPS * 1e6


async def best_of(times: int, measure: Callable[[], Any]) -> tuple[float, float]:
    taken = [await measure() for _ in range(times)]
    return min(cpu for cpu, _ in taken), min(wall for _, wall in taken)


async def measure() -> list[Row]:
    step = await in_memory()
    rivals = rival_row("workflow", names=RIVALS, steps=STEPS)
    cpu, wall = await best_of(2 if quick() else 5, lambda: stored(20 if quick() else RUNS))
    kept = rival("langgraph", "workflow_stored", steps=STEPS, runs=RUNS)
    at_end: float | str = "keeps a run at its end, not each step"
    missing = kept.get("unsupported", "")
    return [
        Row(
            "a step, nothing kept",
            "µs",
            step["ours"],
            step["floor"],
            rivals,
            "≤ 10 µs",
            step["ours"] <= 10 and all(step["ours"] < one for one in figures(rivals)),
        ),
        Row(
            "a step that is a sync function, inline",
            "µs",
            step["inline"],
            step["floor"],
            target="≤ 10 µs",
            ok=step["inline"] <= 10,
        ),
        Row("a step, kept in a session in memory", "µs", step["session"], step["floor"]),
        Row(
            "a step on disk before the next begins, 200 workflows at once: CPU",
            "µs",
            cpu,
            None,
            {"langgraph": missing or kept["value"], "agno": at_end},
            "≤ 100 µs",
            cpu <= 100,
        ),
        Row(
            "the same: wall time",
            "µs",
            wall,
            None,
            {"langgraph": missing or kept["wall"], "agno": at_end},
            "≤ 100 µs",
            wall <= 100,
        ),
        Row(
            f"a step of a run of {LONG:,} steps against one of {SHORT}, in a session",
            "x",
            step["long"] / step["short"],
            target="≤ 1.5x",
            ok=step["long"] / step["short"] <= 1.5,
        ),
    ]


def main() -> None:
    publish("workflow", run_loop(measure()))


if __name__ == "__main__":
    main()
