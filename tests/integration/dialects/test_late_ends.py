"""A server that has said why the answer ended, and then forgets to end its stream: the answer is whole."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.asking import agent as chat_agent
from tests.integration.dialects import gemini_voice
from tests.integration.server import STREAM_HEAD, Server, chunk, frame

from gossamer.models import transport


@pytest.mark.parametrize("dialect", ["openai_chat", "gemini_chat"])
async def test_an_answer_whose_stream_is_held_open_is_whole(dialect, monkeypatch):
    monkeypatch.setattr(transport, "_LATE_SECONDS", 0.05)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    events = {
        "openai_chat": [frame({"content": "one"}), frame({}, finish="stop"), frame(usage=usage)],
        "gemini_chat": list(gemini_voice.events(gemini_voice.text("one"))),
    }[dialect]

    async def hold(connection, request):
        await connection.send(STREAM_HEAD, *map(chunk, events))
        await connection.wait_closed_by_client()

    async with Server(hold) as server, asyncio.timeout(10):
        agent = (chat_agent if dialect == "openai_chat" else gemini_voice.agent)(server)
        async with agent.stream("hi") as running:
            async for _ in running:
                pass
        assert running.result.output == "one"
        assert running.result.usage.output_tokens
        await server.connections[0].gone.wait()
