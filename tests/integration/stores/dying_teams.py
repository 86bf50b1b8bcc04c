"""A team of teams and of a workflow whose members act, and whose process dies at an act of one's choice.

As a program: `python -m tests.integration.stores.dying_teams URL FOLDER ACT`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from gossamer import Agent, Parallel, Session, Team, ToolCall, Workflow, tool
from gossamer.models import ScriptedModel
from gossamer.stores import open_store

__all__ = ["team"]


def team(act: Callable[[str], None]) -> Team:
    """A team of each kind inside another one, and a workflow; eight members act once."""

    @tool
    async def do(name: str) -> str:
        """Act; not to be done twice."""
        act(name)
        await asyncio.sleep(0)
        return f"{name} acted"

    def member(name: str) -> Agent:
        def reply(request):
            done = any(message.role == "tool" for message in request.messages)
            return f"{name} done" if done else ToolCall.of("do", name=name)

        return Agent(ScriptedModel(reply), name=name, tools=[do])

    def lead(request):
        done = any(message.role == "tool" for message in request.messages)
        return "led" if done else [ToolCall.of("ask_c", prompt="1"), ToolCall.of("ask_d", prompt="2")]

    line = Team([member("a"), member("b")], mode="sequential", name="line")
    led = Team([member("c"), member("d")], leader=ScriptedModel(lead), name="led")
    pair = Team([member("h")], mode="broadcast", name="pair")
    flow = Workflow("flow", [member("f"), Parallel({"g": member("g"), "h": pair})])
    return Team([line, led, member("e"), flow], mode="broadcast", name="all")


def main() -> None:
    """Run it, and die when the act begins that is asked for."""
    url, folder, deadly = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    begun = 0

    def act(name: str) -> None:
        nonlocal begun
        with (folder / f"acts-{deadly}").open("a") as file:
            file.write(name + "\n")
        if begun == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        begun += 1

    async def run() -> None:
        await team(act).run("go", session=Session(f"s{deadly}", store=url))
        await open_store(url).aclose()

    asyncio.run(run())


if __name__ == "__main__":
    main()
