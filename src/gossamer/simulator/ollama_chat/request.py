"""Ollama chat: request → prompt."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, cast

import msgspec

from gossamer.simulator.dialect import RequestError
from gossamer.simulator.history import History
from gossamer.simulator.replies import Prompt
from gossamer.simulator.tokens import PrefixCache, PrefixState, count

__all__ = ["read_request"]

_IMAGE_TOKENS = 256
_MESSAGE_TOKENS = 3
_CACHED_TOOLS = 64 * 1024

# --- wire structs -------------------------------------------------------------------------------------------


class _CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] = {}


class _Call(msgspec.Struct, frozen=True):
    function: _CalledFunction
    id: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def tokens(self) -> int:
        total = _MESSAGE_TOKENS + count(self.content or "") + count(self.thinking or "")
        total += _IMAGE_TOKENS * len(self.images or ())
        for call in self.tool_calls or ():
            total += 1 + count(msgspec.json.encode(call.function.arguments).decode())
        return total


class _Function(msgspec.Struct, frozen=True):
    name: str
    parameters: Any = None


class _Tool(msgspec.Struct, frozen=True):
    function: _Function
    type: str = "function"


class _Options(msgspec.Struct, frozen=True):
    num_predict: int | None = None
    stop: list[str] | None = None


class _Request(msgspec.Struct, frozen=True):
    model: str = ""
    messages: list[msgspec.Raw] | None = None
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    think: bool | str | None = None
    format: Any = None
    options: _Options | None = None


_request_decoder = msgspec.json.Decoder(_Request)
_message_decoder = msgspec.json.Decoder(_Message)
_tools_decoder = msgspec.json.Decoder(list[_Tool] | None)

# --- request → prompt ---------------------------------------------------------------------------------------


def _read_tools(raw: bytes) -> tuple[dict[str, Any], int]:
    tools = {
        tool.function.name: tool.function.parameters or {"type": "object"}
        for tool in _tools_decoder.decode(raw) or ()
    }
    return tools, count(raw.decode()) if tools else 0


_read_tools_cached = lru_cache(maxsize=32)(_read_tools)


def _read_message(raw: msgspec.Raw, index: int) -> _Message:  # noqa: ARG001 - Ollama tells no place
    return _message_decoder.decode(raw)


def _follow(state: PrefixState, message: _Message, index: int) -> PrefixState:  # noqa: ARG001 - any may follow any
    return PrefixState(state.tokens + message.tokens(), ())


def _complete(state: PrefixState, index: int) -> None:
    """Ollama takes a history that ends anywhere."""


def _results(tail: list[_Message]) -> tuple[tuple[tuple[str, str], ...], int]:
    by_id: dict[str, str] = {}
    in_order: list[str] = []
    results: list[tuple[str, str]] = []
    total = 0
    for message in tail:
        if message.role == "assistant":
            results.clear()
            calls = message.tool_calls or ()
            in_order = [call.function.name for call in calls]
            by_id.update((call.id, call.function.name) for call in calls if call.id is not None)
        elif message.role == "tool":
            total += 1
            place = len(results)
            usual = in_order[place] if place < len(in_order) else "tool"
            name = message.tool_name or by_id.get(message.tool_call_id or "", usual)
            results.append((name, message.content or ""))
    return tuple(results), total


def _shape(wanted: object) -> tuple[object, bool]:
    if wanted is None or wanted == "":
        return None, False
    if wanted == "json":
        return None, True
    if not isinstance(wanted, dict):
        raise RequestError(
            400, f'invalid format: {wanted!r:.80}; expected "json" or a valid JSON Schema object'
        )
    return cast("object", wanted), False


def _limits(options: _Options) -> tuple[int | None, tuple[str, ...]]:
    most = options.num_predict
    # Below zero is without an end, or to the end of the context.
    limit = most if most is not None and most >= 0 else None
    return limit, tuple(each for each in options.stop or () if each)


def read_request(body: bytes, prefixes: PrefixCache) -> Prompt:
    """Decode and check a request. O(bytes) for hashing, O(new messages) for decoding and counting.

    Raises:
        RequestError: the request is one that Ollama refuses.
    """
    try:
        return _read(body, prefixes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"invalid request: {error}") from None


def _read(body: bytes, prefixes: PrefixCache) -> Prompt:
    request = _request_decoder.decode(body)
    if not request.model:
        raise RequestError(400, "model is required")
    if isinstance(request.think, str) and request.think not in {"low", "medium", "high", "max"}:
        raise RequestError(
            400,
            f'invalid think value: "{request.think}" (must be "high", "medium", "low", "max", true, or false)',
        )
    raw_tools = bytes(request.tools)
    read_tools = _read_tools_cached if len(raw_tools) < _CACHED_TOOLS else _read_tools
    tools, tools_tokens = read_tools(raw_tools) if raw_tools else ({}, 0)
    schema, json_object = _shape(request.format)
    max_tokens, stop = _limits(request.options or _Options())
    messages = History(
        request.messages or [],
        hash(("ollama_chat", request.model, raw_tools)),
        tools_tokens,
        prefixes,
        read=_read_message,
        follow=_follow,
        complete=_complete,
    )
    tail = messages.since_user()
    results, results_total = _results(tail)
    return Prompt(
        model=request.model,
        said=tail[0].content or "" if tail and tail[0].role == "user" else "",
        turn=sum(message.role == "assistant" for message in tail),
        tools=tools,
        results=results,
        results_total=results_total,
        schema=schema,
        json_object=json_object,
        max_tokens=max_tokens,
        stop=stop,
        thinks=request.think is not False,
        stream=request.stream is not False,
        tokens=messages.tokens,
        cached_tokens=messages.cached_tokens,
    )
