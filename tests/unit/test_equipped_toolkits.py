"""What toolkits that are opened may give beside tools, and what becomes of them while they open."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap

import pytest

from gossamer import Agent, Toolkit, tool
from gossamer.events import ToolProgress
from gossamer.messages import ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.execution import LastWord


@tool
async def walk():
    """Walk."""
    yield "a step"
    yield LastWord("there")


class Guide:
    """Tells tools and has something to say of itself."""

    def __init__(self) -> None:
        self.instructions = "Walk slowly."
        self.tools = (walk,)

    def __call__(self):
        return self.tools


async def test_an_opened_toolkit_has_something_to_say():
    guide = Guide()

    @contextlib.asynccontextmanager
    async def open_guide():
        yield guide

    def reply(request):
        guide.instructions = "Walk fast."
        return ToolCall.of("walk") if len(request.messages) == 1 else "done"

    model = ScriptedModel(reply)
    agent = Agent(
        model, tools=[Toolkit("guide", open=open_guide, instructions="Mind the step.", scope="run")]
    )
    async with agent.stream("x") as stream:
        progress = [event.value async for event in stream if isinstance(event, ToolProgress)]
    assert progress == ["a step"]
    assert stream.result.messages[-2].parts[0].content == "there"
    assert [one.instructions for one in model.requests] == [
        "Mind the step.\n\nWalk slowly.",
        "Mind the step.\n\nWalk fast.",
    ]


async def test_a_run_cancelled_while_a_toolkit_opens_leaves_nothing():
    opening, left = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def open_never():
        try:
            opening.set()
            await asyncio.sleep(3600)
            yield ()
        finally:
            left.set()

    agent = Agent(ScriptedModel(["x"]), tools=[Toolkit("never", open=open_never, scope="run")])
    running = asyncio.ensure_future(agent.run("x"))
    await opening.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(10):
        await left.wait()


async def test_a_name_to_include_may_go_later_and_not_be_missing_at_first():
    other = walk.replace(name="run_fast")
    now = [(walk, other)]

    @contextlib.asynccontextmanager
    async def open_changing():
        yield lambda: now[0]

    def reply(request):
        now[0] = (other,)
        return ToolCall.of("walk") if len(request.messages) == 1 else "done"

    model = ScriptedModel(reply)
    agent = Agent(model, tools=[Toolkit("t", open=open_changing, include=["walk"], scope="run")])
    await agent.run("x")
    assert [[one.name for one in request.tools] for request in model.requests] == [["walk"], []]
    from gossamer import ArgumentError

    agent = Agent(model, tools=[Toolkit("t", open=open_changing, include=["walk"], scope="run")])
    with pytest.raises(ArgumentError, match="has no tool walk"):
        await agent.run("x")


def test_what_run_sync_holds_open_is_closed_at_the_end_of_python():
    program = """
        import contextlib
        from gossamer import Agent, Toolkit, tool
        from gossamer.models import ScriptedModel

        @contextlib.asynccontextmanager
        async def opened():
            try:
                yield ()
            finally:
                print("closed")

        agent = Agent(ScriptedModel(["fine"]), tools=[Toolkit("kit", open=opened)])
        print(agent.run_sync("x").output)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("fine\nclosed\n", "")
