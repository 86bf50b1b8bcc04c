"""Ctrl-C in the chat while three tools run: one in a thread, one async, one of an MCP server."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.integration.mcp.serving import is_alive
from tests.integration.terminal import CTRL_C, CTRL_D, ESCAPES, terminal

SERVER = '''
import os, pathlib, sys, anyio
from mcp.server.mcpserver import MCPServer

folder = pathlib.Path(sys.argv[1])
(folder / f"server-{os.getpid()}.pid").write_text(str(os.getpid()))
server = MCPServer("slow")

@server.tool()
async def look_far() -> str:
    """Look for a long time."""
    (folder / "mcp").touch()
    try:
        await anyio.sleep(3600)
    except anyio.get_cancelled_exc_class():
        (folder / "mcp-cancelled").touch()
        raise
    return "never"

@server.tool()
async def look() -> str:
    """Look."""
    return "seen"

server.run("stdio")
'''

APP = '''
import asyncio, json, pathlib, sys, threading
from gossamer import Agent, Hooks, ToolCall, tool
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer

folder = pathlib.Path(__file__).parent

@tool
def wait_in_a_thread() -> str:
    """Wait in a thread."""
    (folder / "thread").touch()
    threading.Event().wait(3600)

@tool
async def wait() -> str:
    """Wait."""
    (folder / "async").touch()
    try:
        await asyncio.sleep(3600)
    finally:
        (folder / "async-cleaned").touch()

def reply(request):
    said = request.messages[-1]
    if said.role == "user" and "three" in said.text:
        return [ToolCall.of("wait_in_a_thread"), ToolCall.of("wait"), ToolCall.of("look_far")]
    if said.role == "user" and "look" in said.text:
        return ToolCall.of("look")
    if said.role == "tool":
        return "it was " + said.parts[0].text
    (folder / "view.json").write_text(json.dumps([
        [message.role, *[getattr(part, "outcome", "") for part in message.parts]] for message in request.messages
    ]))
    return "I am still here."

server = MCPServer(command=[sys.executable, str(folder / "server.py"), str(folder)], name="slow")
agent = Agent(ScriptedModel(reply), tools=[wait_in_a_thread, wait, server])
'''


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "server.py").write_text(SERVER)
    return tmp_path


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("server-*.pid")]


def all_started(chat, folder: Path) -> None:
    """Read what the chat says until all three tools have told that they run."""
    while not all((folder / name).exists() for name in ("thread", "async", "mcp")):
        chat.take_soon()


def test_ctrl_c_while_three_tools_run(app):
    with terminal("app.py:agent", cwd=app) as chat:
        chat.expect("> ")
        chat.say("three at once")
        all_started(chat, app)
        chat.press(CTRL_C)
        chat.expect("cancelled")
        chat.expect("> ")
        assert (app / "async-cleaned").exists()

        chat.say("are you there?")
        chat.expect("I am still here.")
        chat.expect("> ")
        view = json.loads((app / "view.json").read_text())
        assert [role for role, *_ in view] == ["user", "assistant", "tool", "user"]
        assert view[2][1:] == ["interrupted"] * 3  # each call has its result

        chat.say("look")
        chat.expect("it was seen")  # the connection still serves
        chat.expect("> ")
        (server,) = pids(app)
        assert is_alive(server)
        assert (app / "mcp-cancelled").exists()  # the server was told

        chat.press(CTRL_D)
        assert chat.ends() == 0  # the thread that cannot be stopped does not hold it up
        assert not is_alive(server)
        assert b"Traceback" not in ESCAPES.sub(b"", chat.seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_chat_that_is_ended_from_outside_leaves_no_server_behind(app, number):
    with terminal("app.py:agent", cwd=app) as chat:
        chat.expect("> ")
        chat.say("three at once")
        all_started(chat, app)
        (server,) = pids(app)
        os.kill(chat.process.pid, number)
        chat.process.wait(30)
        chat.wait_for(lambda: not is_alive(server))
