"""OpenAI Chat Completions: request → prompt."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import msgspec

from gossamer.simulator.azure_paths import deployment
from gossamer.simulator.dialect import RequestError
from gossamer.simulator.history import History
from gossamer.simulator.openai_errors import bad, below_minimum, invalid
from gossamer.simulator.openai_tools import check_format, check_tool
from gossamer.simulator.replies import Prompt
from gossamer.simulator.tokens import PrefixCache, PrefixState, count

__all__ = ["read_request"]

_MEDIA_TOKENS = 85
_MESSAGE_TOKENS = 3
_CACHED_TOOLS = 64 * 1024

# --- wire structs -------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    refusal: str = ""


class _CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    function: _CalledFunction


class _Message(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None

    def text(self) -> str:
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(part.text for part in content) if content else ""

    def tokens(self) -> int:
        total = _MESSAGE_TOKENS
        if isinstance(self.content, str):
            total += count(self.content)
        elif self.content:
            for part in self.content:
                total += (
                    count(part.text or part.refusal) if part.type in {"text", "refusal"} else _MEDIA_TOKENS
                )
        for call in self.tool_calls or ():
            total += 1 + count(call.function.arguments)
        return total


class _Function(msgspec.Struct, frozen=True):
    name: str
    parameters: Any = None
    strict: bool | None = None


class _Tool(msgspec.Struct, frozen=True):
    type: str
    function: _Function | None = None


class _NamedFunction(msgspec.Struct, frozen=True):
    name: str


class _NamedTool(msgspec.Struct, frozen=True):
    type: str
    function: _NamedFunction | None = None


class _AllowedTools(msgspec.Struct, frozen=True):
    mode: Literal["auto", "required"]
    tools: list[_NamedTool]


class _ToolChoice(msgspec.Struct, frozen=True):
    type: Literal["function", "allowed_tools"]
    function: _NamedFunction | None = None
    allowed_tools: _AllowedTools | None = None


class _JsonSchema(msgspec.Struct, frozen=True):
    name: str
    schema: Any = None
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["approximate"]
    approximate: dict[str, str]


class _SearchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: _Place | None = None


class _Request(msgspec.Struct, frozen=True):
    messages: list[msgspec.Raw]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    reasoning_effort: str | None = None
    web_search_options: _SearchOptions | None = None


_request_decoder = msgspec.json.Decoder(_Request)
_message_decoder = msgspec.json.Decoder(_Message)
_tools_decoder = msgspec.json.Decoder(list[_Tool] | None)

# --- request → prompt ---------------------------------------------------------------------------------------


def _read_tools(raw: bytes) -> tuple[dict[str, Any], int]:
    tools: dict[str, Any] = {}
    for index, tool in enumerate(_tools_decoder.decode(raw) or ()):
        if tool.type != "function" or tool.function is None:
            raise bad(
                f"Unsupported tool type {tool.type!r}: only 'function' is simulated.", f"tools[{index}].type"
            )
        if tool.function.name in tools:
            raise bad(f"Two tools are named {tool.function.name!r}.", f"tools[{index}].function.name")
        check_tool(
            tool.function.name,
            tool.function.parameters,
            f"tools[{index}].function",
            strict=tool.function.strict is True,
        )
        tools[tool.function.name] = tool.function.parameters or {"type": "object"}
    return tools, count(raw.decode())


_read_tools_cached = lru_cache(maxsize=32)(_read_tools)


def _tools(raw: bytes) -> tuple[dict[str, Any], int]:
    try:
        return _read_tools_cached(raw) if len(raw) < _CACHED_TOOLS else _read_tools(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, "tools") from None


def _read_message(raw: msgspec.Raw, index: int) -> _Message:
    try:
        return _message_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, f"messages[{index}]") from None


def _unanswered(pending: tuple[str, ...], index: int) -> RequestError:
    return bad(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(pending)}",
        f"messages[{index}].role",
    )


def _follow(state: PrefixState, message: _Message, index: int) -> PrefixState:
    """Check that a message may stand where it stands, and count it."""
    pending = state.pending
    if message.role == "tool":
        if message.tool_call_id is None:
            param = f"messages[{index}].tool_call_id"
            raise bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        if message.tool_call_id not in pending:
            raise bad(
                "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                "'tool_calls'.",
                f"messages[{index}].role",
            )
        pending = tuple(each for each in pending if each != message.tool_call_id)
    elif pending:
        raise _unanswered(pending, index)
    elif message.tool_calls:
        pending = tuple(call.id for call in message.tool_calls)
    elif message.content is None and message.role != "assistant":
        raise bad(
            f"Invalid value for 'content': expected a string, got null (messages[{index}]).",
            f"messages[{index}].content",
        )
    return PrefixState(state.tokens + message.tokens(), pending)


def _complete(state: PrefixState, index: int) -> None:
    if state.pending:
        raise _unanswered(state.pending, index)


def _results(tail: list[_Message]) -> tuple[tuple[tuple[str, str], ...], int]:
    names: dict[str, str] = {}
    results: list[tuple[str, str]] = []
    total = 0
    for message in tail:
        if message.role == "assistant":
            results.clear()
            names.update((call.id, call.function.name) for call in message.tool_calls or ())
        elif message.role == "tool":
            total += 1
            results.append((names.get(message.tool_call_id or "", "tool"), message.text()))
    return tuple(results), total


def _choose_tools(request: _Request, tools: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        if choice is not None and choice != "none" and not tools:
            raise bad("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
        return tools, choice or "auto", ""
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        names = [tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None]
        kept = {name: tools[name] for name in names if name in tools}
        if len(kept) != len(choice.allowed_tools.tools) or not kept:
            raise bad(
                "'allowed_tools' names a tool that is not in 'tools'.", "tool_choice.allowed_tools.tools"
            )
        return kept, choice.allowed_tools.mode, ""
    if choice.type != "function" or choice.function is None:
        raise bad(f"Missing required parameter: 'tool_choice.{choice.type}'.", f"tool_choice.{choice.type}")
    if choice.function.name not in tools:
        raise bad(f"Tool choice {choice.function.name!r} not found in 'tools' parameter.", "tool_choice")
    return tools, "function", choice.function.name


def _schema(shape: _ResponseFormat | None) -> Any:
    if shape is None or shape.type != "json_schema":
        return None
    wanted = shape.json_schema
    if wanted is None:
        param = "response_format.json_schema"
        raise bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    name_at = "response_format.json_schema.name"
    check_format(wanted.name, wanted.schema, name_at, "response_format", strict=wanted.strict is True)
    return wanted.schema


def _decode(body: bytes) -> _Request:
    try:
        return _request_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def _limits(request: _Request) -> tuple[int | None, tuple[str, ...]]:
    if request.n not in {None, 1}:
        raise bad(f"Invalid 'n': the simulator makes 1 choice, not {request.n}.", "n", "unsupported_value")
    if request.max_completion_tokens is not None and request.max_tokens is not None:
        raise bad("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    for name in ("max_completion_tokens", "max_tokens"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise below_minimum(name, value, 1)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    if len(stop) > 4:
        raise bad(f"Invalid 'stop': expected at most 4 sequences, got {len(stop)}.", "stop")
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    return limit, tuple(each for each in stop if each)


def read_request(path: bytes, body: bytes, prefixes: PrefixCache) -> Prompt:
    """Decode and check a request. O(bytes) for hashing, O(new messages) for decoding and counting.

    Args:
        path: Azure's names the deployment, which stands for the model.
        body: the rest of the request.
        prefixes: seen before.

    Raises:
        RequestError: the request is one that OpenAI refuses.
    """
    try:
        return _read(path, body, prefixes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"We could not parse the JSON body of your request: {error}") from None


def _read(path: bytes, body: bytes, prefixes: PrefixCache) -> Prompt:
    request = _decode(body)
    model = request.model or deployment(path)
    if not model:
        raise bad("you must provide a model parameter")
    max_tokens, stop = _limits(request)
    if not request.messages:
        raise bad("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    if request.stream_options is not None and not request.stream:
        raise bad(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    raw_tools = bytes(request.tools)
    tools, tools_tokens = _tools(raw_tools) if raw_tools else ({}, 0)
    allowed, choice, forced = _choose_tools(request, tools)
    if request.parallel_tool_calls is not None and not tools:
        raise bad(
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified.",
            "parallel_tool_calls",
        )
    messages = History(
        request.messages,
        hash(("openai_chat", model, raw_tools)),
        tools_tokens,
        prefixes,
        read=_read_message,
        follow=_follow,
        complete=_complete,
    )
    tail = messages.since_user()
    results, results_total = _results(tail)
    shape = request.response_format
    schema = _schema(shape)
    return Prompt(
        model=model,
        said=tail[0].text() if tail[0].role == "user" else "",
        turn=sum(message.role == "assistant" for message in tail),
        tools=allowed,
        results=results,
        results_total=results_total,
        tool_choice=choice,
        forced=forced,
        hosted=() if request.web_search_options is None else ("web_search",),
        parallel=request.parallel_tool_calls is not False,
        schema=schema,
        json_object=shape is not None and shape.type == "json_object",
        max_tokens=max_tokens,
        stop=stop,
        thinks=request.reasoning_effort != "none",
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
        tokens=messages.tokens,
        cached_tokens=messages.cached_tokens,
    )
