"""What Ollama says, as bytes for the server of the tests: whole and streamed."""

from __future__ import annotations

import json

from tests.integration.server import LAST_CHUNK, chunk, http

from gossamer import Agent
from gossamer.models import OllamaChat

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTS = {"prompt_eval_count": 10, "eval_count": 5}


def call(name, arguments, **more):
    """A call of a tool."""
    return {"function": {"name": name, "arguments": arguments}, **more}


def body(content="", *, done=None, counts=COUNTS, **said):
    """A whole answer, or one line of a stream; `done` is the reason."""
    answer = {"model": "sim:latest", "created_at": "2026-01-01T00:00:00Z"}
    answer |= {"message": {"role": "assistant", "content": content, **said}, "done": done is not None}
    return answer | ({"done_reason": done, "total_duration": 1, **counts} if done is not None else {})


def line(data):
    """One line of a stream."""
    return json.dumps(data).encode() + b"\n"


def lines(*words, done="stop", counts=COUNTS, **said):
    """The lines of a streamed answer: thinking, a word each, the calls, and the end."""
    for piece in said.get("thinking", ()):
        yield line(body("", thinking=piece))
    for word in words:
        yield line(body(word))
    for one in said.get("tool_calls", ()):
        yield line(body("", tool_calls=[one]))
    yield line(body("", done=done, counts=counts))


def stream(*events):
    """A whole streamed answer in one packet."""
    return HEAD + (chunk(b"".join(events)) if events else b"") + LAST_CHUNK


def answer(streamed, *words, done="stop", counts=COUNTS, **said):
    """An answer, streamed or not."""
    if streamed:
        return stream(*lines(*words, done=done, counts=counts, **said))
    if "thinking" in said:
        said["thinking"] = "".join(said["thinking"])
    return http(body("".join(words), done=done, counts=counts, **said))


def model(server, name="sim", **options):
    """A model on the server of a test."""
    return OllamaChat(name, base_url=f"127.0.0.1:{server.port}", **options)


def agent(server, *, capabilities=None, **options):
    """An agent on that model."""
    return Agent(model(server, **({"capabilities": capabilities} if capabilities else {})), **options)
