"""Servers that do what they should not: each ends in a typed error or a warning, none holds anything up."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from tests.integration.mcp.serving import calling, raw, results, until

from gossamer import ToolCall
from gossamer.errors import MCPConnectionError, MCPError, MCPTimeoutError
from gossamer.tools.mcp import MCPServer


async def test_one_that_prints_where_it_should_not(caplog):
    async with MCPServer(command=raw("garbage")) as server:
        assert await server.call("echo", {"n": 1}) == "1"
    assert "printed what is no message: Welcome to the server!" in caplog.text
    assert "printed what is no message: {not json}" in caplog.text


@pytest.mark.parametrize("mode", ["silent", "only-garbage"])
async def test_one_that_does_not_introduce_itself(mode):
    server = MCPServer(command=raw(mode), connect_timeout=0.5)
    with pytest.raises(MCPTimeoutError, match=r"did not answer within 0\.5 seconds of connecting"):
        await server.call("echo", {"n": 1})
    with pytest.raises(MCPTimeoutError):
        await calling(then="x", tools=[server]).run("x")


async def test_one_that_dies_at_its_start():
    with pytest.raises(MCPConnectionError) as caught:
        await MCPServer(command=raw("dies-at-start"), name="dying").call("echo", {"n": 1})
    words = str(caught.value)
    assert "MCP server 'dying'" in words
    assert "it ended with code 3; it said last:\ncannot read my settings" in words
    assert caught.value.server == "dying"


async def test_one_that_floods():
    async with MCPServer(command=raw("floods"), max_message_bytes=1_000_000) as server:
        for _ in range(2):
            with pytest.raises(MCPConnectionError, match="sent a message of more than 1000000 bytes"):
                await server.call("echo", {"n": 1})


async def test_one_that_floods_with_messages_does_not_hold_up_the_loop():
    async with MCPServer(command=raw("flood-of-notifications")) as server:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        assert await server.call("echo", {"n": 1}) == "1"
        ticking.cancel()
        assert ticks > 100


async def test_one_whose_schemas_are_not_valid(caplog):
    agent = calling(ToolCall.of("echo", n=1), tools=[MCPServer(command=raw("invalid-schemas"))])
    async with agent:
        (told,) = results(await agent.run("x"))
    assert told.content == "1"
    assert [one.name for one in agent.model.requests[0].tools] == ["echo"]
    for name in ("no-schema", "bad-type", "no-object", "large", "not even an object"):
        assert f"'{name}' is left out" in caplog.text
    assert "'integr' is not valid" in caplog.text


async def test_one_with_two_tools_of_one_name(caplog):
    agent = calling(then="x", tools=[MCPServer(command=raw("twins"))])
    async with agent:
        await agent.run("x")
    assert [one.description for one in agent.model.requests[0].tools] == ["Say n."]
    assert "two tools are called 'echo'; the second is left out" in caplog.text


async def test_one_whose_patterns_would_never_end():
    agent = calling(ToolCall.of("echo", n="a" * 40 + "!"), tools=[MCPServer(command=raw("patterns"))])
    async with agent:
        (told,) = results(await agent.run("x"))
    assert told.content == "a" * 40 + "!"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("not-the-protocol", "it answered with what is not the protocol"),
        ("bad-media", "media that are not base64"),
        ("another-id", "quota used up"),
    ],
)
async def test_answers_that_are_none(mode, words):
    async with MCPServer(command=raw(mode)) as server:
        with pytest.raises(MCPError, match=words) as caught:
            await server.call("echo", {"n": 1})
        assert caught.value.code == (-32050 if mode == "another-id" else None)


async def test_messages_that_nobody_understands(tmp_path):
    log = tmp_path / "log"
    async with MCPServer(command=raw("odd-messages", str(log))) as server:
        for n in range(3):
            assert await server.call("echo", {"n": n}) == str(n)
    assert log.read_text().count("called echo\n") == 3


async def test_nothing_is_left_open():
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def use(mode: str) -> None:
        server = MCPServer(command=raw(mode), connect_timeout=1)
        with contextlib.suppress(MCPError):
            async with server:
                with contextlib.suppress(MCPError):
                    await server.call("echo", {"n": 1})

    await use("plain")
    before = count()
    for mode in ("plain", "dies", "dies-at-start", "garbage") * 3:
        await use(mode)
    await until(lambda: count() <= before)


async def test_huge_arguments_reach_it():
    async with MCPServer(command=raw("plain")) as server:
        assert await server.call("echo", {"n": "x" * 3_000_000}) == "x" * 3_000_000
