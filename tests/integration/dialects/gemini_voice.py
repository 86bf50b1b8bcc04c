"""What Gemini says, as bytes for the server of the tests: whole and streamed."""

from __future__ import annotations

import json

from tests.integration.server import http, packets, stream

from gossamer import Agent
from gossamer.models import GeminiChat

USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
MODEL = "gemini-test-001"


def text(said, **more):
    """A part of text."""
    return {"text": said, **more}


def thought(said, **more):
    """A part of thinking."""
    return {"text": said, "thought": True, **more}


def calls(name, arguments, *, call_id="call_theirs", signature=None):
    """A call of a tool."""
    call = {"functionCall": {"id": call_id, "name": name, "args": arguments}}
    return call | ({"thoughtSignature": signature} if signature else {})


def body(*parts, finish="STOP", usage=USAGE, **more):
    """A whole answer, or the last chunk of a streamed one."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "r"}


def event(data):
    """One event of a stream."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\r\n\r\n"


def events(*parts, finish="STOP", usage=USAGE, **more):
    """The events of a streamed answer: a part each, and the end in one of its own."""
    for part in parts:
        yield event(body(part, finish=None, usage={"promptTokenCount": 10}))
    yield event(body(finish=finish, usage=usage, **more))


def answer(streamed, *parts, **options):
    """An answer, streamed or not; pieces of text stay pieces."""
    if streamed:
        return stream(*events(*parts, **options))
    return http(json.dumps(body(*parts, **options), indent=2).encode())


def say(streamed, *words, **options):
    """An answer of text."""
    return answer(streamed, *map(text, words), **options)


def in_packets(*parts, **options):
    """A streamed answer, each event in a packet of its own."""
    return packets(*events(*parts, **options))


def error(code, status, message="not now", *details, headers=()):
    """An answer that is an error."""
    told = {"code": code, "message": message, "status": status}
    if details:
        told["details"] = list(details)
    return http({"error": told}, code, *headers)


def model(server, name="gemini-2.5-test", **options):
    """A model on the server of a test."""
    return GeminiChat(name, base_url=server.url, api_key="secret", **options)


def agent(server, name="gemini-2.5-test", *, capabilities=None, **options):
    """An agent on that model."""
    return Agent(model(server, name, **({"capabilities": capabilities} if capabilities else {})), **options)
