"""The same work by hand: what a competent engineer would write for one case, with the same data and no framework.

Runs: the coroutine that asks a model, calls its tool and gives a result. Streams: httptools under an
`asyncio.Protocol`, frames cut at blank lines, each decoded into a struct and put into the queue of its consumer.
Nothing of Gossamer is imported here, so that a floor's memory is its own.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from benchmarks.peers.wires import WIRES

__all__ = ["ARGUMENTS", "REPLY", "FloorClient", "FloorModel", "floor_run", "floor_tool_run"]

REPLY = "hello"
MODEL = "gpt-4o-mini"
ARGUMENTS = '{"a": 2, "b": 3}'


# --- runs ---------------------------------------------------------------------------------------------------


class FloorText(msgspec.Struct, frozen=True, gc=False):
    """What is said."""

    text: str


class FloorCall(msgspec.Struct, frozen=True, gc=False):
    """What the model wants done."""

    name: str
    arguments: str
    id: str


class FloorMessage(msgspec.Struct, frozen=True, gc=False):
    """Who says what."""

    role: str
    parts: tuple[Any, ...]
    created: float


class FloorUsage(msgspec.Struct, frozen=True, gc=False):
    """Tokens and calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0


class FloorResponse(msgspec.Struct, frozen=True, gc=False):
    """A model's answer."""

    message: FloorMessage
    usage: FloorUsage
    finish_reason: str
    calls: tuple[FloorCall, ...] = ()


class FloorResult(msgspec.Struct, frozen=True):
    """The end of a run."""

    output: str
    messages: list[FloorMessage]
    usage: FloorUsage
    run_id: str
    finish_reason: str
    duration: float


class FloorToolResult(msgspec.Struct, frozen=True, gc=False):
    """What a tool returned, as the model reads it."""

    call_id: str
    name: str
    content: str


class FloorModel:
    """The counterpart of `prebuilt.PrebuiltModel`: its answers lie ready."""

    def __init__(self, call: str | None = None) -> None:
        usage = FloorUsage(10, 5, 1)
        self.answer = FloorResponse(
            FloorMessage("assistant", (FloorText(REPLY),), time.time()), usage, "stop"
        )
        self.call = self.answer
        if call is not None:
            calls = (FloorCall(call, ARGUMENTS, "call_1"),)
            self.call = FloorResponse(
                FloorMessage("assistant", calls, time.time()), usage, "tool_calls", calls
            )

    async def respond(self, messages: list[FloorMessage]) -> FloorResponse:
        """Call the tool where the last word is the user's, else answer."""
        return self.call if messages[-1].role == "user" else self.answer


_next_run = itertools.count().__next__


async def floor_run(model: FloorModel, prompt: str) -> FloorResult:
    """One run without tools: the user's message, the model's answer, usage, id and duration."""
    began = time.perf_counter()
    messages = [FloorMessage("user", (FloorText(prompt),), time.time())]
    response = await model.respond(messages)
    messages.append(response.message)
    return FloorResult(
        response.message.parts[0].text,
        messages,
        response.usage,
        f"run-{_next_run()}",
        response.finish_reason,
        time.perf_counter() - began,
    )


async def floor_tool_run(
    model: FloorModel, prompt: str, tools: dict[str, tuple[Callable[[str], Any], Callable[[Any], Any]]]
) -> FloorResult:
    """One run with tools: decode the arguments, call, tell the model, until it answers.

    Args:
        model: the model.
        prompt: the user's.
        tools: by name, the decoder of the arguments and an async function that takes what it gives.
    """
    began = time.perf_counter()
    messages = [FloorMessage("user", (FloorText(prompt),), time.time())]
    sent = received = calls = 0
    turns = 0
    while True:
        response = await model.respond(messages)
        turns += 1
        messages.append(response.message)
        sent += response.usage.input_tokens
        received += response.usage.output_tokens
        if not response.calls:
            return FloorResult(
                response.message.parts[0].text,
                messages,
                FloorUsage(sent, received, turns, calls),
                f"run-{_next_run()}",
                response.finish_reason,
                time.perf_counter() - began,
            )
        results = []
        for call in response.calls:
            decode, function = tools[call.name]
            value = await function(decode(call.arguments))
            results.append(FloorToolResult(call.id, call.name, str(value)))
            calls += 1
        messages.append(FloorMessage("tool", tuple(results), time.time()))


# --- streams and calls --------------------------------------------------------------------------------------


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Chunk).decode


class _Event(msgspec.Struct, gc=False):
    """A frame of OpenAI's Responses."""

    type: str
    delta: Any = None


class _Piece(msgspec.Struct, gc=False):
    text: str | None = None


class _Block(msgspec.Struct, gc=False):
    """A frame of Anthropic's Messages."""

    delta: _Piece | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Piece] = []


class _Candidate(msgspec.Struct, gc=False):
    content: _Content | None = None


class _Generated(msgspec.Struct, gc=False):
    """A frame of Gemini."""

    candidates: list[_Candidate] = []


class _Line(msgspec.Struct, gc=False):
    """A line of Ollama."""

    message: _Delta | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_generated = msgspec.json.Decoder(_Generated).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def _chat_text(data: bytes) -> str | None:
    choices = _decode(data).choices
    return choices[0].delta.content if choices and choices[0].delta is not None else None


def _responses_text(data: bytes) -> str | None:
    event = _decode_event(data)
    return event.delta if event.type == "response.output_text.delta" else None


def _anthropic_text(data: bytes) -> str | None:
    delta = _decode_block(data).delta
    return delta.text if delta is not None else None


def _gemini_text(data: bytes) -> str | None:
    candidates = _decode_generated(data).candidates
    content = candidates[0].content if candidates else None
    return content.parts[0].text if content is not None and content.parts else None


def _ollama_text(data: bytes) -> str | None:
    message = _decode_line(data).message
    return message.content if message is not None else None


_TEXTS: dict[str, Callable[[bytes], str | None]] = {
    "openai_chat": _chat_text,
    "openai_responses": _responses_text,
    "anthropic_chat": _anthropic_text,
    "gemini_chat": _gemini_text,
    "ollama_chat": _ollama_text,
}


# What ends a frame, where it is not an empty line.
_BETWEEN = {"gemini_chat": b"\r\n\r\n", "ollama_chat": b"\n"}


class FloorConnection(asyncio.Protocol):
    """One connection that carries one answer after another."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.body = b""
        self.whole: asyncio.Future[bytes] | None = None
        self.streams = False
        self.between = b"\n\n"
        self.text_of = _chat_text

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        if not self.streams:
            self.body += data
            return
        *frames, self.body = (self.body + data).split(self.between)
        for frame in frames:
            if frame == b"data: [DONE]":
                self.queue.put_nowait(None)
            elif text := self.text_of(frame[frame.find(b"{") :]):
                self.queue.put_nowait(text)

    def on_message_complete(self) -> None:
        if self.whole is not None:
            self.whole.set_result(self.body)
        else:
            self.queue.put_nowait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.queue.put_nowait(None)


class FloorClient:
    """A client of one URL that keeps its connections.

    Args:
        url: up to and with `/v1`.
        ca: a PEM file of the authority to trust, for an https URL.
        headers: sent with each request.
        dialect: the format, one of `WIRES`.
    """

    def __init__(self, url: str, ca: str = "", headers: str = "", dialect: str = "openai_chat") -> None:
        parts = urlsplit(url)
        self.dialect, self.wire = dialect, WIRES[dialect]
        path = self.wire.path.format(model=MODEL)
        headers += "".join(f"{name}: {value}\r\n" for name, value in self.wire.headers.items())
        self.host, self.port = parts.hostname, parts.port
        self.ssl = ssl.create_default_context(cafile=ca) if ca else None
        self.head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{headers}Content-Length: "
        self.idle: list[FloorConnection] = []

    async def _send(self, fields: dict[str, Any], *, streams: bool) -> FloorConnection:
        if self.idle:
            connection = self.idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(FloorConnection, self.host, self.port, ssl=self.ssl)
        body = msgspec.json.encode(fields)
        connection.body = b""
        connection.streams = streams
        connection.text_of = _TEXTS[self.dialect]
        connection.between = _BETWEEN.get(self.dialect, b"\n\n")
        connection.transport.write(f"{self.head}{len(body)}\r\n\r\n".encode() + body)
        return connection

    async def stream(self, model: str, prompt: str) -> AsyncGenerator[str, None]:
        """Give the pieces of an answer's text as they come."""
        connection = await self._send(self.wire.body(model, prompt), streams=True)
        while (text := await connection.queue.get()) is not None:
            yield text
        connection.transport.close()

    async def call(self, model: str, prompt: str) -> str:
        """Give the text of a whole answer."""
        connection = await self._send(
            {"model": model, "messages": [{"role": "user", "content": prompt}]}, streams=False
        )
        connection.whole = asyncio.get_running_loop().create_future()
        message = _decode(await connection.whole).choices[0].message
        self.idle.append(connection)
        assert message is not None
        return message.content or ""
