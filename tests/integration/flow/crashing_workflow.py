"""A workflow of all kinds of steps that dies at a point of one's choice.

As a program it runs the same workflow again and again, each time in a child process that is killed at the next point,
until one comes to its end: `python -m tests.integration.flow.crashing_workflow URL FOLDER`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from tests.integration.stores.crashing import (
    MOST_POINTS,
    Effects,
    Points,
    die_at_each_point,
    session_id,
    watch_writes,
)

from gossamer import (
    Agent,
    Condition,
    Loop,
    Map,
    Parallel,
    Router,
    Session,
    Step,
    StepContext,
    ToolCall,
    Workflow,
    tool,
)
from gossamer.flow import add_up
from gossamer.journal import Journal
from gossamer.models import ScriptedModel
from gossamer.stores import open_store

__all__ = ["EXPECTED", "WHAT_STEPS_GIVE", "Seen", "order_workflow"]


@dataclasses.dataclass
class Seen:
    """What the steps remember."""

    paid: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


# What a person would say a step gave that was cut off behind its effect.
WHAT_STEPS_GIVE = {
    "pay": 7,
    "side/left/stamp": 8,
    "side/right/ship": 107,
    "each[0]/mark": 10,
    "each[1]/mark": 11,
    "each[2]/mark": 12,
    "rounds[0]/count": 34,
    "rounds[1]/count": 35,
    "rounds[2]/count": 36,
    "route/big/send": "sent 36",
    "condition/then": "sent 36, filed",
    "deep/bury": "sent 36, filed, buried",
}
EXPECTED = "sent 36, filed, buried, done"


def order_workflow(effects: Effects, reach=lambda _: None) -> Workflow:
    """The workflow.

    Args:
        effects: where its steps leave traces.
        reach: is told of each point that is reached.
    """

    def trace(line: str) -> None:
        reach("before an effect")
        effects.add(line)
        reach("after an effect")

    async def pay(order: int, context: StepContext[Seen]) -> int:
        context.state.paid += 1
        trace("pay")
        await asyncio.sleep(0)
        return order + 1

    async def look(order: int) -> int:
        effects.add("look")
        reach("after a look")
        return order

    def stamp(order: int, context: StepContext[Seen]) -> int:
        context.state.paid += 1
        trace("stamp")
        return order + 1

    async def ship(order: int, context: StepContext[Seen]) -> int:
        context.state.paid += 1
        trace("ship")
        return order + 100

    async def mark(number: int) -> int:
        trace(f"mark {number}")
        await asyncio.sleep(0)
        return number + 10

    async def count(total: int) -> int:
        trace(f"count {total}")
        return total + 1

    async def send(total: int, context: StepContext[Seen]) -> str:
        context.state.names.append("sent")
        trace("send")
        return f"sent {total}"

    async def file(words: str) -> str:
        trace("file")
        return f"{words}, filed"

    async def bury(words: str) -> str:
        trace("bury")
        return f"{words}, buried"

    @tool(idempotent=True)
    async def search(words: str) -> str:
        """Search."""
        effects.add("search")
        reach("after a search")
        return f"found {words}"

    def model(request):
        if request.messages[-1].role == "tool":
            return "done"
        return ToolCall.of("search", words="it")

    clerk = Agent(ScriptedModel(model), name="clerk", tools=[search])
    deep = Workflow("deep", [bury])
    return Workflow(
        "order",
        [
            pay,
            Step(look, idempotent=True),
            Parallel(
                {"left": [stamp], "right": [ship], "agent": [Step(str, inline=True, idempotent=True), clerk]},
                name="side",
                merge={"paid": add_up},
            ),
            Step(
                lambda outputs: [0, 1, 2] if outputs["agent"] == "done" else [], name="items", idempotent=True
            ),
            Map(mark, name="each", max_concurrency=2),
            Step(sum, inline=True, idempotent=True, name="total"),
            Loop(count, until=lambda total: total >= 36, name="rounds"),
            Router(
                lambda total: "big" if total > 30 else "small", {"big": [send], "small": [str]}, name="route"
            ),
            Condition(lambda words: words.startswith("sent"), file),
            deep,
            Step(lambda words: f"{words}, done", name="last", idempotent=True, inline=True),
        ],
        state=Seen(),
    )


def watch_waits(points: Points) -> None:
    """Make a point of the moments before what is new is waited for, and after it is on disk, in any store."""
    settle = Journal.settle

    async def watched(self):
        points.reach("before it is on disk")
        await settle(self)
        points.reach("after it is on disk")

    Journal.settle = watched


def run(url: str, folder: Path, point: int) -> None:
    """Run the workflow, and die at a point."""
    points = Points(point)
    watch_writes(points)
    watch_waits(points)
    effects = Effects(folder / f"effects-{point}")

    async def main() -> None:
        session = Session(session_id(point), store=url)
        result = await order_workflow(effects, points.reach).run(6, session=session)
        assert result.output == EXPECTED, result.output
        await open_store(url).aclose()

    asyncio.run(main())


if __name__ == "__main__":
    die_at_each_point(run, MOST_POINTS)
