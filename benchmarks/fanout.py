"""What does it cost to ask ten thousand agents at once, beyond their runs?"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.floors import REPLY
from benchmarks.measure import Row, publish, quick, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, MessageHub, fanout_pipeline
from gossamer.models import ModelRequest, ModelResponse

AGENTS = 10_000
ROUNDS = 9
AT_ONCE = 100
PEER = "agentscope_v1"


class SuspendingModel(PrebuiltModel):
    """Lets the loop go round once before it answers: the least that waiting can be."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.sleep(0)
        return self.answer


async def in_turn(agents: list[Agent]) -> list[Any]:
    return [await agent.run("hello") for agent in agents]


async def gathered(agents: list[Agent]) -> list[Any]:
    return await asyncio.gather(*[agent.run("hello") for agent in agents])


async def fanned_out(agents: list[Agent]) -> list[Any]:
    return await fanout_pipeline(agents, "hello")


async def bounded(agents: list[Agent]) -> list[Any]:
    return await fanout_pipeline(agents, "hello", max_concurrency=AT_ONCE)


async def measured(agents: list[Agent]) -> dict[str, float]:
    """µs of CPU an agent of each way to ask all of them, the least of several rounds, in turns."""
    ways: tuple[Callable[[list[Agent]], Awaitable[list[Any]]], ...] = (in_turn, gathered, fanned_out, bounded)
    best = dict.fromkeys((way.__name__ for way in ways), float("inf"))
    for _ in range(3 if quick() else ROUNDS):
        for way in ways:
            gc.collect()
            began = time.process_time()
            results = await way(agents)
            spent = (time.process_time() - began) / len(agents) * 1e6
            best[way.__name__] = min(best[way.__name__], spent)
            assert len(results) == len(agents)
            assert all(result.output == REPLY for result in results)
            del results
    return best


async def hub_of_others() -> dict[str, float]:
    """What a run costs with and without a hub open in which its agent takes no part."""
    agents = [Agent(PrebuiltModel())] * AGENTS
    without = (await measured(agents))["in_turn"]
    async with MessageHub([Agent("offline", name="other")]):
        inside = (await measured(agents))["in_turn"]
    return {"without": without, "inside": inside}


async def all_of_it() -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    quick_ones, waiting = Agent(PrebuiltModel()), Agent(SuspendingModel())
    return (
        await measured([quick_ones] * AGENTS),
        await measured([waiting] * AGENTS),
        await hub_of_others(),
    )


def main() -> None:
    no_op, waiting, hub = run_loop(all_of_it())
    rivals = rival_row("fanout", lambda line: line["value"] - line["in_turn"], names=(PEER,))
    beyond, gather_beyond = no_op["fanned_out"] - no_op["in_turn"], no_op["gathered"] - no_op["in_turn"]
    publish(
        "fanout",
        [
            Row(
                f"fan-out to {AGENTS:,} no-op agents, each, beyond its run",
                "µs",
                beyond,
                gather_beyond,
                rivals,
                "≤ 5 µs",
                beyond <= 5,
            ),
            Row(
                f"fan-out to {AGENTS:,} no-op agents, each",
                "µs",
                no_op["fanned_out"],
                no_op["gathered"],
                rival_row("fanout", names=(PEER,)),
            ),
            Row(f"the same, at most {AT_ONCE} at once", "µs", no_op["bounded"], no_op["gathered"]),
            Row(
                f"fan-out to {AGENTS:,} agents that wait once, each",
                "µs",
                waiting["fanned_out"],
                waiting["gathered"],
            ),
            Row(f"the same, at most {AT_ONCE} at once", "µs", waiting["bounded"], waiting["gathered"]),
            Row("a run while a hub of others is open", "µs", hub["inside"], hub["without"]),
        ],
    )


if __name__ == "__main__":
    main()
