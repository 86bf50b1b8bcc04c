"""A SQLite store in processes that fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gossamer.stores import SQLiteStore

PROGRAM = """
import asyncio, os, signal, sys
from gossamer import Agent, Session, ToolCall, tool
from gossamer.models import ScriptedModel

@tool(inline=True)
def die() -> str:
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

agent = Agent(ScriptedModel([ToolCall.of("die")]), tools=[die])
asyncio.run(agent.run("die", session=Session("s", store=sys.argv[1])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_child_does_not_make_its_dead_parent_look_alive(tmp_path):
    path = tmp_path / "chats.db"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{path}"], stdout=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        try:
            assert process.wait(30) == -signal.SIGKILL
            async with SQLiteStore(path) as store:
                assert [info.status for info in await store.list_sessions()] == ["broken"]
                await store.hold("s")
        finally:
            os.kill(child, signal.SIGKILL)
