"""The watch over all tests sees what it is there to see."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tests import watch as watching

from gossamer import Agent, ToolCall, tool
from gossamer.models import ScriptedModel


def agent_with(made):
    return Agent(ScriptedModel([ToolCall.of(made.name), "done"]), tools=[made])


async def test_a_sleep_in_an_inline_tool_is_seen(watch):
    await agent_with(tool(name="doze", inline=True)(lambda: time.sleep(0.001))).run("go")
    assert "time.sleep(0.001) blocked an event loop" in watch.blocked[0]
    watch.blocked.clear()


async def test_a_sleep_in_a_thread_is_fine(watch):
    await agent_with(tool(name="doze")(lambda: time.sleep(0.001))).run("go")
    assert not watch.blocked


def test_a_long_wait_for_a_lock_is_seen(watch):
    found = threading.Event()

    def wait():
        while not watch.blocked and not found.wait(watching.TICK):
            pass

    async def run():  # on a loop whose callbacks can be watched
        await asyncio.ensure_future(agent_with(tool(name="wait", inline=True)(wait)).run("go"))

    asyncio.run(run())
    assert "ticks blocked an event loop" in watch.blocked[0]
    watch.blocked.clear()


@pytest.mark.parametrize("kind", ["task", "thread"])
def test_what_is_left_behind_is_seen(watch, kind, monkeypatch):
    gate = threading.Event()
    watch.patience = 0
    monkeypatch.setattr(watching, "PATIENCE", 0)

    async def leave():
        if kind == "task":
            hang = tool(name="hang")(never)
            asyncio.get_running_loop().create_task(agent_with(hang).run("go"))
        else:
            threading.Thread(target=gate.wait, daemon=True).start()
        await asyncio.sleep(0)

    asyncio.run(leave())
    (complaint,) = watch.complaints()
    assert f"a {kind} is left" in complaint
    gate.set()
    watch.leaked_tasks.clear()


async def never() -> str:
    await asyncio.Event().wait()
    return "never"
