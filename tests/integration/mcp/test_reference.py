"""The reference servers, which are not ours and not Python: over standard streams and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.integration.mcp.serving import calling, free_port, results

from gossamer import Answer, Audio, Image, Session, ToolCall
from gossamer.events import ToolProgress
from gossamer.tools.mcp import MCPServer

VERSION = "2026.8.31"
PACKAGES = ("server-everything", "server-filesystem")
PREFIX = Path(__file__).parents[3] / ".venv" / "mcp-reference"


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder with the reference servers, installed at the first use."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        reason = "the reference servers need Node.js: bash scripts/services.sh"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = PREFIX / "node_modules"
    installed = [folder / "@modelcontextprotocol" / one / "package.json" for one in PACKAGES]
    if not all(one.exists() and json.loads(one.read_text())["version"] == VERSION for one in installed):
        wanted = [f"@modelcontextprotocol/{one}@{VERSION}" for one in PACKAGES]
        command = [npm, "install", "--prefix", str(PREFIX), "--no-audit", "--no-fund", *wanted]
        PREFIX.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            reason = f"{' '.join(command)} failed: {done.stderr[-300:]}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
    return folder / ".bin"


@pytest.fixture(params=["stdio", "http"])
async def everything(request, programs):
    """How to reach the server that has everything."""
    program = str(programs / "mcp-server-everything")
    if request.param == "stdio":
        yield {"command": [program, "stdio"]}
        return
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        "streamableHttp",
        env={**os.environ, "PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield {"url": f"http://127.0.0.1:{port}/mcp", "name": "everything"}
    finally:
        process.kill()
        await process.wait()


async def test_everything(everything):
    server = MCPServer(**everything, instructions="Ours first.")
    calls = [
        ToolCall.of("echo", message="hi"),
        ToolCall.of("get-sum", a=2, b=40),
        ToolCall.of("get-tiny-image"),
        ToolCall.of("get-structured-content", location="Chicago"),
        ToolCall.of("get-resource-reference", resourceType="Blob", resourceId=2),
        ToolCall.of("get-resource-links", count=2),
        ToolCall.of("get-sum", a="two", b=40),
        ToolCall.of("trigger-long-running-operation", duration=0.1, steps=2),
    ]
    agent = calling(*calls, tools=[server])
    progress = []
    async with agent, agent.stream("x") as stream:
        progress += [event.value async for event in stream if isinstance(event, ToolProgress)]
    told = results(stream.result)
    assert told[0].content == "Echo: hi"
    assert "42" in told[1].content
    assert any(isinstance(part, Image) and part.data for part in told[2].content)
    assert "temperature" in told[3].content
    assert told[4].outcome == "ok"
    assert "demo://resource" in told[5].content
    assert (told[6].outcome, "Invalid arguments" in told[6].content) == ("error", True)
    assert told[7].outcome == "ok"
    assert [(one["progress"], one["total"]) for one in progress] == [(1, 2), (2, 2)]
    said = agent.model.requests[0].instructions
    assert said.startswith("Ours first.\n\n# Everything Server")


async def test_resources_and_prompts_of_everything(everything):
    async with MCPServer(**everything) as server:
        found = {one.uri for one in await server.list_resources()}
        assert "demo://resource/static/document/architecture.md" in found
        (text,) = await server.read_resource("demo://resource/static/document/architecture.md")
        assert "Everything Server" in text.text
        assert "simple-prompt" in {one.name for one in await server.list_prompts()}
        (message,) = await server.prompt("args-prompt", {"city": "Graz"})
        assert "Graz" in message.text


async def test_a_question_of_everything(everything):
    agent = calling(ToolCall.of("trigger-elicitation-request"), tools=[MCPServer(**everything)])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        asked = json.loads(pending.call.arguments)
        assert "name" in asked["schema"]["properties"]
        result = await agent.resume(session, {pending.call_id: Answer({"name": "Ada"})})
    (told,) = results(result)
    assert "Ada" in told.text


async def test_an_address_that_a_person_is_to_visit(everything):
    url = "https://example.com/pay"
    agent = calling(ToolCall.of("trigger-url-elicitation", url=url), tools=[MCPServer(**everything)])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        assert json.loads(pending.call.arguments)["url"] == url
        result = await agent.resume(session, {pending.call_id: Answer("paid")})
    (told,) = results(result)
    assert "accept" in told.text


async def test_the_file_system(programs, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "sound.mp3").write_bytes(b"ID3")
    server = MCPServer(
        command=[str(programs / "mcp-server-filesystem"), str(tmp_path)],
        exclude=["edit_file", "move_file"],
        needs_approval=lambda path="", **_: path.startswith("/etc"),
    )
    calls = [
        ToolCall.of("write_file", path=str(tmp_path / "note.txt"), content="buy milk"),
        ToolCall.of("read_text_file", path=str(tmp_path / "note.txt")),
        ToolCall.of("read_text_file", path=str(tmp_path / "none.txt")),
        ToolCall.of("read_media_file", path=str(tmp_path / "picture.png")),
        ToolCall.of("read_media_file", path=str(tmp_path / "sound.mp3")),
        ToolCall.of("read_text_file", path="/etc/hostname"),
    ]
    agent = calling(*calls, tools=[server])
    async with agent:
        result = await agent.run("x")
    assert result.pending[0].call.arguments == '{"path":"/etc/hostname"}'
    told = results(result)
    assert (tmp_path / "note.txt").read_text() == "buy milk"
    assert told[1].content == "buy milk"
    assert (told[2].outcome, "ENOENT" in told[2].content) == ("error", True)
    assert isinstance(told[3].content[0], Image)
    assert isinstance(told[4].content[0], Audio)
    names = {one.name for one in agent.model.requests[0].tools}
    assert "read_text_file" in names
    assert not names & {"edit_file", "move_file"}
