"""What Anthropic's Messages say, as bytes for the server of the tests: whole and streamed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tests.integration.server import Server, http, packets, stream

from gossamer import Agent
from gossamer.models import AnthropicChat, ModelRequest
from gossamer.view import MessageView

USAGE = {"input_tokens": 10, "output_tokens": 5}
MODEL = "claude-test-20260101"


@dataclass
class Block:
    """One block of an answer: whole, and as its beginning and the pieces that follow."""

    whole: dict
    start: dict
    deltas: list = field(default_factory=list)


def text(*words, citations=()):
    """A block of text, a piece a word."""
    whole = {"type": "text", "text": "".join(words)}
    if citations:
        whole["citations"] = list(citations)
    deltas = [{"type": "text_delta", "text": word} for word in words]
    deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
    return Block(whole, {"type": "text", "text": ""}, deltas)


def thinking(*words, signature="sig"):
    """A thought, with its signature where there is one."""
    whole = {"type": "thinking", "thinking": "".join(words), "signature": signature}
    deltas = [{"type": "thinking_delta", "thinking": word} for word in words]
    if signature:
        deltas.append({"type": "signature_delta", "signature": signature})
    return Block(whole, {"type": "thinking", "thinking": "", "signature": ""}, deltas)


def calls(call_id, name, arguments, kind="tool_use", **more):
    """A call of a tool; its arguments are JSON as text, streamed a character at a time."""
    start = {"type": kind, "id": call_id, "name": name, "input": {}, **more}
    try:
        whole = {**start, "input": json.loads(arguments)}
    except ValueError:
        whole = None  # cannot be said in one piece
    return Block(whole, start, [{"type": "input_json_delta", "partial_json": piece} for piece in arguments])


def block(**fields):
    """A block of any kind, in one piece."""
    return Block(fields, fields)


def event(kind, **fields):
    """One event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def events(*blocks, stop="end_turn", usage=USAGE, details=None, model=MODEL):
    """The events of a streamed answer."""
    counted = {**usage, "output_tokens": 1}
    message = {"id": "msg", "type": "message", "role": "assistant", "content": [], "model": model}
    yield event("message_start", message={**message, "stop_reason": None, "usage": counted})
    yield event("ping")
    for index, said in enumerate(blocks):
        yield event("content_block_start", index=index, content_block=said.start)
        for delta in said.deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    later = {"output_tokens": usage["output_tokens"]}
    if "output_tokens_details" in usage:
        later["output_tokens_details"] = usage["output_tokens_details"]
    end = {"stop_reason": stop, "stop_sequence": None, "stop_details": details}
    yield event("message_delta", delta=end, usage=later)
    yield event("message_stop")


def whole(*blocks, stop="end_turn", usage=USAGE, details=None, model=MODEL):
    """The body of an answer in one piece."""
    body = {"id": "msg", "type": "message", "role": "assistant", "model": model}
    body["content"] = [said.whole for said in blocks]
    return {**body, "stop_reason": stop, "stop_sequence": None, "stop_details": details, "usage": usage}


def answer(streamed, *blocks, **options):
    """An answer, streamed or not."""
    return stream(*events(*blocks, **options)) if streamed else http(whole(*blocks, **options))


def say(streamed, *words, **options):
    """An answer of text."""
    return answer(streamed, text(*words), **options)


def in_packets(*blocks, **options):
    """A streamed answer, each event in a packet of its own."""
    return packets(*events(*blocks, **options))


def error(status, kind, message="not now", *headers):
    """An answer that is an error."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return http(body, status, *headers)


def model(server, name="claude-test", **options):
    """A model on the server of a test."""
    return AnthropicChat(name, base_url=server.url, api_key="secret", **options)


def agent(server, *, capabilities=None, **options):
    """An agent on that model."""
    return Agent(model(server, **({"capabilities": capabilities} if capabilities else {})), **options)


# --- what is asked ------------------------------------------------------------------------------------------


def request_of(*messages, **fields):
    """A request of these messages."""
    view = MessageView(list(messages), 0, len(messages))
    return ModelRequest(view, **fields)


async def asked(*messages, name="claude-test", **fields):
    """The body that a request becomes, answered by a server."""
    async with Server(say(False, "ok")) as server:
        await model(server, name).respond(request_of(*messages, **fields))
    return server.requests[0].body


def user(*blocks):
    """A user's message on the wire."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    """A model's message on the wire."""
    return {"role": "assistant", "content": list(blocks)}


def words(said):
    """A block of text on the wire."""
    return {"type": "text", "text": said}
