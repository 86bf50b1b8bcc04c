"""Code that calls tools, one of them an agent, in a process that dies at a point of one's choice.

As a program it runs the same code again and again, each time in a child process that is killed at the next point:
`python -m tests.integration.stores.dying_code URL FOLDER`. See `crashing`, which has the points.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.code_sandboxes import InProcess
from tests.integration.stores.crashing import (
    MOST_POINTS,
    Effects,
    Points,
    die_at_each_point,
    rounds,
    session_id,
    watch_writes,
)

from gossamer import Agent, RunContext, Session, ToolCall, code_mode, tool
from gossamer.models import ScriptedModel
from gossamer.stores import open_store

__all__ = ["agent"]

CODE = """\
import asyncio

async def certain(call):
    try:
        return await call
    except RuntimeError as error:
        if 'unknown' not in str(error):
            raise
        return 'unknown'

got = await asyncio.gather(certain(pay(1)), certain(look('here')), certain(note('x')))
for amount in (2, 1):
    got.append(await certain(pay(amount)))
got.append(await certain(ask_clerk('A')))
print(*got, sep='; ')
"""


def agent(effects: Effects, reach=lambda _: None) -> Agent:
    """The agent whose model writes the code.

    Args:
        effects: where its tools leave traces.
        reach: is told of each point that is reached.
    """

    @tool
    async def pay(context: RunContext, amount: int) -> str:
        """Pay an amount; not to be done twice."""
        effects.add(f"pay {amount}")
        reach("after an effect")
        context.session.update(paid=context.state["paid"] + 1)
        await asyncio.sleep(0)
        return f"paid {amount}"

    @tool(idempotent=True)
    async def look(where: str) -> str:
        """Look something up; may be done again."""
        effects.add(f"look {where}")
        reach("after a look")
        return f"seen {where}"

    @tool(inline=True)
    def note(text: str) -> str:
        """Take a note, in place; not to be done twice."""
        effects.add(f"note {text}")
        reach("after a note")
        return "noted"

    @tool
    async def stamp(paper: str) -> str:
        """Stamp a paper; not to be done twice."""
        effects.add(f"stamp {paper}")
        reach("after a stamp")
        return f"{paper} stamped"

    def clerk_says(request):
        return ToolCall.of("stamp", paper="A") if rounds(request) == 0 else "done"

    def says(request):
        reach("the model")
        return ToolCall.of("run_code", code=CODE) if rounds(request) == 0 else "all done"

    clerk = Agent(ScriptedModel(clerk_says), name="clerk", tools=[stamp])
    tools = [pay, look, note, clerk.as_tool("ask_clerk", "Stamps papers.")]
    return code_mode(Agent(ScriptedModel(says), name="till", tools=tools), InProcess())


def run(url: str, folder: Path, point: int) -> None:
    """Run the code, and die at a point."""
    points = Points(point)
    watch_writes(points)
    effects = Effects(folder / f"effects-{point}")

    async def main() -> None:
        session = Session(session_id(point), store=url, state={"paid": 0})
        result = await agent(effects, points.reach).run("Go", session=session)
        assert result.output == "all done"
        await open_store(url).aclose()

    asyncio.run(main())


if __name__ == "__main__":
    die_at_each_point(run, MOST_POINTS)
