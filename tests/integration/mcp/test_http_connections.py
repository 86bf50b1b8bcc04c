"""Connections of a server over HTTP: what may keep one, and what is written about them to the log."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from tests.integration.mcp.serving import http_server, until
from tests.integration.mcp.test_http import answering, plain_answer

from gossamer import Agent, Answer, Session, ToolCall
from gossamer.errors import MCPTimeoutError
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer


async def test_calls_that_wait_for_a_person_leave_connections_to_others():
    def answer(request):
        return ToolCall.of("greet") if len(request.messages) == 1 else request.messages[-1].parts[0].text

    async with http_server() as http:
        server = MCPServer(url=http.url, max_concurrent=1)
        agent = Agent(ScriptedModel(answer), tools=[server])
        async with agent:
            sessions = [Session() for _ in range(24)]
            waiting = [(await agent.run("x", session=one)).pending[0] for one in sessions]
            assert await server.call("add", {"a": 1, "b": 1}) == "2"
            result = await agent.resume(sessions[0], {waiting[0].call_id: Answer("Ada")})
            assert result.output == "Hello Ada"


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nid: 1\ndata:\n\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    ],
    ids=["silent", "events", "json"],
)
async def test_what_is_given_up_lets_its_connection_go(beginning):
    held = set()
    told = []

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(one.split(b":")[1]) for one in lines if b"content-length" in one), 0)
                message = json.loads(await reader.readexactly(length) or b"{}")
                if message.get("method") in {"tools/call", "resources/list"}:
                    held.add(writer)
                    writer.write(beginning)
                    await reader.read()
                    return
                told.append(message.get("method"))
                writer.write(plain_answer(message, None))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            held.discard(writer)
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    async with listening, MCPServer(url=url, timeout=0.2) as server:
        for _ in range(3):
            with pytest.raises(MCPTimeoutError):
                await server.call("echo")
        with pytest.raises(MCPTimeoutError):
            await server.list_resources()
        await until(lambda: told.count("notifications/cancelled") == 4)
        assert len(held) == 4
        await until(lambda: not held)


async def test_the_log_holds_no_user_and_no_query(caplog):
    listening, url = await answering(
        lambda head, message: plain_answer(message, {"content": [{"type": "text", "text": "fine"}]})
    )
    secret = url.replace("//", "//ada:sesame@") + "?key=swordfish"
    with caplog.at_level(logging.DEBUG, logger="mcp"), caplog.at_level(logging.INFO, logger="httpx2"):
        async with listening, MCPServer(url=secret) as server:
            assert await server.call("echo") == "fine"
    assert f"HTTP Request: POST {url} " in caplog.text
    assert "sesame" not in caplog.text
    assert "swordfish" not in caplog.text
