"""The simulator's own bytes, taken apart at every byte, or many of them: in two packets, broken off, ended."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.dialects.contract import DIALECTS, MODELS, simulator
from tests.integration.server import LAST_CHUNK, Close, Server, chunk

from gossamer import Message
from gossamer.errors import StreamBrokenError
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import ToolCall
from gossamer.models import ModelRequest, ModelResponse, ModelSettings
from gossamer.schema import ToolSchema
from gossamer.view import MessageView

CONVERT = ToolSchema(
    "convert",
    "Convert.",
    {"type": "object", "properties": {"unit": {"type": "string"}}, "required": ["unit"]},
)
REPLY = {"thinking": "Hm.", "text": "é 😀", "tool": "convert", "arguments": {"unit": "€ \n"}}


def request():
    messages = [Message.user("go")]
    return ModelRequest(
        MessageView(messages, 0, 1), tools=(CONVERT,), settings=ModelSettings(thinking="high")
    )


async def streamed(model):
    """What a stream gives: its text, its thinking, its calls' arguments, and the message, all without our ids."""
    said, thought, called, names = [], [], [], []
    response = None
    async for delta in model.stream(request()):
        match delta:
            case TextDelta():
                said.append(delta.text)
            case ThinkingDelta():
                thought.append(delta.text)
            case ToolCallStarted():
                names.append(delta.name)
            case ToolArgumentsDelta():
                called.append(delta.text)
            case ModelResponse():
                response = delta
    assert response is not None
    parts = [
        (part.name, part.arguments, part.provider) if isinstance(part, ToolCall) else part
        for part in response.message.parts
    ]
    return "".join(said), "".join(thought), names, "".join(called), parts


async def recorded(dialect):
    """The head and the body of the simulator's streamed answer, and what it says."""
    answers = []
    async with simulator(REPLY) as provider:
        port = int(provider.url.removesuffix("/v1").rpartition(":")[2])

        async def pass_on(connection, asked):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            headers = "".join(
                f"{name}: {value}\r\n" for name, value in asked.headers.items() if name != "connection"
            )
            writer.write(f"POST {asked.target} HTTP/1.1\r\n{headers}\r\n".encode() + asked.raw)
            data = b""
            while not data.endswith(LAST_CHUNK):
                data += await reader.read(65536)
            writer.close()
            answers.append(data)
            await connection.send(data)

        async with Server(pass_on) as between:
            said = await streamed(MODELS[dialect](between.url.removesuffix("/v1")))
    head, _, rest = answers[0].partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return head + b"\r\n\r\n", body, said


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_in_two_packets_says_the_same(dialect):
    head, body, said = await recorded(dialect)
    assert said[0] == "é 😀"
    assert said[1] == "Hm."
    assert "€" in said[3]
    answers = [
        [head, chunk(body[:cut]), chunk(body[cut:]), LAST_CHUNK]
        for cut in range(1, len(body), len(body) // 1500 + 1)
    ]
    async with Server(*answers) as server:
        model = MODELS[dialect](server.url.removesuffix("/v1"))
        for _ in answers:
            assert await streamed(model) == said


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("formally", [True, False], ids=["ended", "broken off"])
async def test_a_stream_that_ends_at_any_byte_is_whole_or_broken(dialect, formally):
    head, body, said = await recorded(dialect)
    end = LAST_CHUNK if formally else b""
    answers = [Close(head + chunk(body[:cut]) + end) for cut in range(1, len(body), len(body) // 300 + 1)]
    broken = []
    async with Server(*answers) as server:
        model = MODELS[dialect](server.url.removesuffix("/v1"))
        for _ in answers:
            try:
                assert await streamed(model) == said
            except StreamBrokenError as error:
                broken.append(error.text)
            else:
                broken.append(None)
    # Broken up to where the answer is complete, and what had arrived only grows.
    complete = broken.index(None) if None in broken else len(broken)
    assert set(broken[complete:]) <= {None} or not formally
    texts = broken[:complete]
    assert all(said[0].startswith(text) for text in texts)
    assert texts == sorted(texts, key=len)
    assert texts[-1] == said[0]
