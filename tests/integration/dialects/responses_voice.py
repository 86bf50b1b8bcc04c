"""OpenAI Responses' answers as bytes, whole and streamed, for the server that answers what a test tells it to."""

from __future__ import annotations

import json

from tests.integration.server import LAST_CHUNK, STREAM_HEAD, chunk, http

from gossamer.models import OpenAIResponses

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 8},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 130,
}


def model(server, name="gpt-test", **options):
    return OpenAIResponses(name, base_url=server.url, api_key="secret", **options)


# --- items --------------------------------------------------------------------------------------------------


def message(*texts, item="msg_1", refusal=None, annotations=(), **more):
    content = [
        {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}
        for text in texts
    ]
    if refusal is not None:
        content.append({"type": "refusal", "refusal": refusal})
    return {
        "type": "message",
        "id": item,
        "status": "completed",
        "role": "assistant",
        "content": content,
        **more,
    }


def reasoning(*summary, item="rs_1", encrypted="gAAAA", **more):
    said = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": item, "summary": said, "encrypted_content": encrypted, **more}


def call(call_id, name, arguments, **more):
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
        **more,
    }


# --- answers ------------------------------------------------------------------------------------------------


def response(*output, status="completed", reason=None, usage=None, error=None, **more):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-test-2026",
        "status": status,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": list(output),
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **more,
    }


def frame(kind, **fields):
    """One event, in the provider's form: its type in the line before the data, and in the data."""
    return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def item_frames(place, item, cut=4):
    """The events in which an item comes, its text cut into pieces."""
    at = {"output_index": place, "item_id": item.get("id")}
    empty = {key: [] if key in {"content", "summary"} else value for key, value in item.items()}
    if item["type"] == "function_call":
        empty["arguments"] = ""
    yield frame("response.output_item.added", output_index=place, item={**empty, "status": "in_progress"})
    for index, part in enumerate(item.get("summary", ())):
        where = {**at, "summary_index": index}
        yield frame(
            "response.reasoning_summary_part.added", part={"type": "summary_text", "text": ""}, **where
        )
        for piece in _pieces(part["text"], cut):
            yield frame("response.reasoning_summary_text.delta", delta=piece, **where)
        yield frame("response.reasoning_summary_text.done", text=part["text"], **where)
        yield frame("response.reasoning_summary_part.done", part=part, **where)
    for index, part in enumerate(item.get("content", ())):
        yield from _content_frames({**at, "content_index": index}, part, cut)
    if item["type"] == "function_call":
        for piece in _pieces(item["arguments"], cut):
            yield frame("response.function_call_arguments.delta", delta=piece, **at)
        yield frame("response.function_call_arguments.done", arguments=item["arguments"], **at)
    yield frame("response.output_item.done", output_index=place, item=item)


def _content_frames(where, part, cut):
    kind, field = {
        "output_text": ("output_text", "text"),
        "refusal": ("refusal", "refusal"),
        "reasoning_text": ("reasoning_text", "text"),
    }[part["type"]]
    yield frame("response.content_part.added", part={**part, field: ""}, **where)
    for piece in _pieces(part[field], cut):
        yield frame(f"response.{kind}.delta", delta=piece, **where)
    for index, note in enumerate(part.get("annotations", ())):
        yield frame("response.output_text.annotation.added", annotation=note, annotation_index=index, **where)
    yield frame(f"response.{kind}.done", **{field: part[field]}, **where)
    yield frame("response.content_part.done", part=part, **where)


def _pieces(text, cut):
    return [text[place : place + cut] for place in range(0, len(text), cut)]


def frames(*output, status="completed", cut=4, **options):
    """The events of a whole answer."""
    begun = response(status="in_progress")
    events = [frame("response.created", response=begun), frame("response.in_progress", response=begun)]
    for place, item in enumerate(output):
        events += item_frames(place, item, cut)
    return [*events, frame(f"response.{status}", response=response(*output, status=status, **options))]


def streamed_answer(*events):
    return STREAM_HEAD + chunk(b"".join(events)) + LAST_CHUNK


def reply(streamed, *output, **options):
    """An answer, whole or streamed; text stands for a message of it."""
    items = [message(item) if isinstance(item, str) else item for item in output or ("ok",)]
    if streamed:
        return streamed_answer(*frames(*items, **options))
    options.pop("cut", None)
    return http(response(*items, **options))


def whole_items(*items):
    """Items that come whole, with a kind of event that nobody knows between them."""
    yield frame("response.created", response=response(status="in_progress"))
    for place, item in enumerate(items):
        yield frame("response.hologram.delta", output_index={"x": place}, delta={"y": [1]})
        yield frame("response.output_item.done", output_index=place, item=item)
    yield frame("response.completed", response=response(*items))
