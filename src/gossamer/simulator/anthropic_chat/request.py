"""Anthropic Messages: request → prompt."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple, NoReturn, cast

import msgspec

from gossamer.simulator.anthropic_chat.caching import count_prompt
from gossamer.simulator.anthropic_chat.content import (
    BlockSum,
    CacheControl,
    MessageSum,
    Text,
    bad,
    invalid,
    read_message,
)
from gossamer.simulator.anthropic_chat.models import Abilities, abilities
from gossamer.simulator.hosted import HOSTED
from gossamer.simulator.replies import Prompt
from gossamer.simulator.tokens import PrefixCache, count

__all__ = ["Wire", "count_request", "read_request"]

_LEAST_THINKING = 1024
_CACHED_TOOLS = 64 * 1024
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SERVER_TOOL = re.compile(
    r"(?:bash|browser|code_execution|computer|memory|mcp|text_editor|tool_search|web_fetch|web_search)_\w+"
)
_UNSUPPORTED = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
}
_encode = msgspec.json.encode

# --- wire structs -------------------------------------------------------------------------------------------


class _Tool(msgspec.Struct, frozen=True):
    name: str = ""
    type: str | None = None
    input_schema: Any = None
    description: str = ""
    strict: bool | None = None
    cache_control: CacheControl | None = None


class _ToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class _Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: _Format | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    task_budget: Any = None


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    model: str
    messages: list[msgspec.Raw]
    max_tokens: int
    stream: bool = False
    system: str | list[Text] = ""
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    cache_control: CacheControl | None = None
    stop_sequences: list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    inference_geo: str | None = None
    container: Any = None
    context_management: Any = None
    diagnostics: Any = None
    fallbacks: Any = None
    mcp_servers: Any = None
    user_profile_id: str | None = None
    workspace_id: str | None = None


_request_decoder = msgspec.json.Decoder(_Request)
_tools_decoder = msgspec.json.Decoder(list[_Tool])


class Wire(NamedTuple):
    """What an answer tells of its request.

    Attributes:
        written: tokens written to the cache for five minutes and for an hour.
        must_think: an answer begins with a thinking block, if only with an empty one.
        shows: whether the text of the thinking is sent.
        goes_on: the call of the provider's own tool at which the answer was paused, as (id, name); its result comes first.
    """

    written: tuple[int, int] = (0, 0)
    must_think: bool = False
    shows: bool = True
    goes_on: tuple[str, str] | None = None


# --- tools and schemas --------------------------------------------------------------------------------------


def _check_schema(node: object, where: str) -> None:
    """Refuse what the provider's constrained decoding does not know."""
    if isinstance(node, list):
        for each in cast("list[object]", node):
            _check_schema(each, where)
        return
    if not isinstance(node, dict):
        return
    schema = cast("dict[str, Any]", node)
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise bad(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    if isinstance(kind, str):
        wrong = [name for name in _UNSUPPORTED.get(kind, ()) if name in schema]
        if wrong:
            raise bad(f"{where}: For '{kind}' type, properties {', '.join(wrong)} are not supported")
        if kind == "array" and schema.get("minItems", 0) not in (0, 1):
            raise bad(f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    if "oneOf" in schema:
        raise bad(f"{where}: Schema type 'oneOf' is not supported")
    for name in ("properties", "$defs", "definitions"):
        fields = schema.get(name, {})
        if not isinstance(fields, dict):
            raise bad(f"{where}.{name}: Input should be a valid dictionary")
        for each in cast("dict[str, object]", fields).values():
            _check_schema(each, where)
    for name in ("items", "anyOf", "allOf", "prefixItems"):
        _check_schema(schema.get(name), where)


class _Tools(NamedTuple):
    schemas: dict[str, Any]
    sums: tuple[BlockSum, ...]
    names: frozenset[str]
    hosted: tuple[str, ...] = ()


def _read_tools(raw: bytes) -> _Tools:
    schemas: dict[str, Any] = {}
    names: set[str] = set()
    hosted: list[str] = []
    sums: list[BlockSum] = []
    for index, tool in enumerate(_tools_decoder.decode(raw)):
        where = f"tools.{index}"
        if tool.type in {None, "custom"}:
            where += ".custom"
            if not _TOOL_NAME.fullmatch(tool.name):
                raise bad(f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
            schema = tool.input_schema
            if not isinstance(schema, dict):
                raise bad(f"{where}.input_schema: Field required")
            fields = cast("dict[str, Any]", schema)
            if fields.get("type") != "object":
                raise bad(f"{where}.input_schema.type: Input should be 'object'")
            if any(name in fields for name in ("oneOf", "allOf", "anyOf")):
                raise bad(
                    f"{where}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level"
                )
            if tool.strict:
                _check_schema(fields, where)
            schemas[tool.name] = fields
        elif tool.type is None or not _SERVER_TOOL.fullmatch(tool.type):
            raise bad(
                f"{where}: Input tag '{tool.type}' found using 'type' does not match any of the expected tags"
            )
        elif tool.name in HOSTED:
            if not tool.type.startswith(f"{tool.name}_"):
                raise bad(f"{where}.{tool.type}.name: Input should be '{tool.type.rpartition('_')[0]}'")
            hosted.append(tool.name)
        if tool.name in names:
            raise bad("tools: Tool names must be unique.")
        names.add(tool.name)
        bare = _encode(msgspec.structs.replace(tool, cache_control=None))
        mark = "" if tool.cache_control is None else tool.cache_control.ttl
        sums.append(BlockSum(hash(bare), count(bare.decode()), mark))
    return _Tools(schemas, tuple(sums), frozenset(names), tuple(hosted))


_read_tools_cached = lru_cache(maxsize=32)(_read_tools)


def _tools(raw: bytes) -> _Tools:
    if not raw or raw == b"null":
        return _Tools({}, (), frozenset())
    try:
        return _read_tools_cached(raw) if len(raw) < _CACHED_TOOLS else _read_tools(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, "tools") from None


def _choose(request: _Request, tools: _Tools) -> tuple[str, str, bool]:
    choice = request.tool_choice
    if choice is None:
        return "auto", "", True
    if not tools.names:
        raise bad("tool_choice may only be specified while providing tools.")
    if choice.type in {"any", "tool"} and _thinks(request):
        raise bad("Thinking may not be enabled when tool_choice forces tool use.")
    parallel = not choice.disable_parallel_tool_use
    if choice.type == "tool":
        if choice.name is None:
            raise bad("tool_choice.tool.name: Field required")
        if choice.name not in tools.names:
            raise bad(f"Tool '{choice.name}' not found in provided tools")
        if choice.name in tools.hosted:
            return "auto", choice.name, parallel
        if choice.name not in tools.schemas:
            raise bad(
                f"Tool '{choice.name}' is the provider's own; the simulator does not know how to call it."
            )
        return "function", choice.name, parallel
    if choice.name is not None:
        raise bad(f"tool_choice.{choice.type}.name: Extra inputs are not permitted")
    return "required" if choice.type == "any" else choice.type, "", parallel


# --- messages -----------------------------------------------------------------------------------------------


def _check_order(messages: list[MessageSum], model: Abilities) -> None:
    """Refuse messages that may not stand where they stand; neighbours of one role count as one message."""
    if not messages:
        raise bad("messages: at least one message is required")
    if messages[0].role != "user":
        raise bad('messages: first message must use the "user" role')
    last = len(messages) - 1
    pending: list[str] = []
    caller = 0
    before = ""
    seen: set[str] = set()
    opened: dict[str, str] = {}
    for index, message in enumerate(messages):
        role = message.role
        _follow_hosted(message, index, opened)
        if not message.blocks and not (index == last and role == "assistant"):
            raise bad(
                f"messages.{index}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        if role == "system":
            if not model.system_messages:
                raise bad(f"messages.{index}.role: role 'system' is not supported on this model")
            if before != "user" or pending:
                raise bad(f"messages.{index}: `system` messages must come after a `user` message")
        elif role == "assistant":
            if pending and before != "assistant":
                _refuse_unanswered(pending, caller)
            for call_id, _ in message.calls:
                if call_id in seen:
                    raise bad(f"messages.{index}: `tool_use` ids must be unique")
                seen.add(call_id)
                pending.append(call_id)
            caller = index
        else:
            pending = _answered(message, index, pending, caller)
        before = role
    if pending:
        _refuse_unanswered(pending, caller)


def _follow_hosted(message: MessageSum, index: int, opened: dict[str, str]) -> None:
    """Refuse calls of the provider's own tools that lost their results; those beside calls of ours wait for theirs."""
    if message.role == "user" and not message.results and opened:
        call_id, name = next(iter(opened.items()))
        raise bad(
            f"messages.{index - 1}: `{name}` tool use with id `{call_id}` was found without a corresponding "
            f"`{name}_tool_result` block"
        )
    for call_id in message.closed:
        if opened.pop(call_id, None) is None:
            raise bad(
                f"messages.{index}: unexpected `tool_use_id` found in a server tool's result: {call_id}"
            )
    opened.update(message.opened)


def _answered(message: MessageSum, index: int, pending: list[str], caller: int) -> list[str]:
    left = list(pending)
    for place, (call_id, _) in enumerate(message.results):
        if place >= message.leading:
            break
        if call_id not in left:
            if call_id in pending:
                raise bad(
                    f"messages.{index}.content.{place}: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {call_id}"
                )
            raise bad(
                f"messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{call_id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                "message."
            )
        left.remove(call_id)
    if left and (len(message.blocks) > message.leading or not message.results):
        _refuse_unanswered(left, caller)
    if len(message.results) > message.leading:
        call_id = message.results[message.leading][0]
        raise bad(
            f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. "
            "`tool_result` blocks must come first in the content."
        )
    return left


def _refuse_unanswered(pending: list[str], index: int) -> NoReturn:
    raise bad(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(pending)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _check_end(request: _Request, messages: list[MessageSum], model: Abilities) -> None:
    last = messages[-1]
    if last.role == "assistant" and not last.opened:
        if not model.prefill:
            raise bad(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        if last.text != last.text.rstrip():
            raise bad("messages: final assistant content cannot end with trailing whitespace")
    thinking = request.thinking
    if thinking is None or thinking.type != "enabled":
        return
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role == "user" and not message.results:
            return
        if message.role == "assistant":
            if message.calls and message.first not in {"thinking", "redacted_thinking"}:
                raise bad(
                    f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                    f"`{message.first}`. When `thinking` is enabled, a final `assistant` message must start with a "
                    "thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). To avoid "
                    "this requirement, disable `thinking`."
                )
            return


# --- request → prompt ---------------------------------------------------------------------------------------


def _thinks(request: _Request) -> bool:
    return request.thinking is not None and request.thinking.type != "disabled"


def _check_settings(request: _Request, model: Abilities) -> None:
    if not request.model:
        raise bad("model: String should have at least 1 character")
    if request.max_tokens < 0:
        raise bad("max_tokens: Input should be greater than or equal to 0")
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 1:
            raise bad(f"{name}: range: 0..1")
    for name in ("temperature", "top_p", "top_k"):
        if getattr(request, name) not in {None, 1} and not model.sampling:
            raise bad(f"`{name}` is deprecated for this model.")
    if any(not each or each.isspace() for each in request.stop_sequences):
        raise bad("stop_sequences: each stop sequence must contain non-whitespace")
    if request.thinking is not None:
        _check_thinking(request, request.thinking, model)


def _check_thinking(request: _Request, thinking: _Thinking, model: Abilities) -> None:
    kind = thinking.type
    takes = {
        "enabled": model.budget,
        "adaptive": model.adaptive,
        "disabled": model.disabled,
        "between_tools": model.between_tools,
    }
    if not takes[kind]:
        raise bad(
            f'"thinking.type.{kind}" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
            if model.adaptive
            else f'"thinking.type.{kind}" is not supported for this model.'
        )
    if kind != "enabled":
        if thinking.budget_tokens is not None:
            raise bad(f"thinking.{kind}.budget_tokens: Extra inputs are not permitted")
    elif thinking.budget_tokens is None:
        raise bad("thinking.enabled.budget_tokens: Field required")
    elif thinking.budget_tokens < _LEAST_THINKING:
        raise bad(
            f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_THINKING}"
        )
    elif thinking.budget_tokens >= request.max_tokens:
        raise bad("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if kind != "disabled" and request.temperature not in {None, 1}:
        raise bad("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")


def _schema(request: _Request) -> Any:
    config = request.output_config
    shape = request.output_format if config is None or config.format is None else config.format
    if shape is None:
        return None
    _check_schema(shape.schema, "output_config.format.schema")
    return shape.schema


def _system(request: _Request) -> list[BlockSum]:
    system = request.system
    if isinstance(system, str):
        return [BlockSum(hash(system), count(system), "")] if system else []
    if any(not block.text for block in system):
        raise bad("system: text content blocks must be non-empty")
    return [
        BlockSum(hash(each.text), count(each.text), each.cache_control.ttl if each.cache_control else "")
        for each in system
    ]


def _results(tail: list[MessageSum]) -> tuple[tuple[tuple[str, str], ...], int]:
    names: dict[str, str] = {}
    results: list[tuple[str, str]] = []
    total = 0
    for message in tail:
        if message.role == "assistant":
            results.clear()
            names.update(message.calls)
        if message.text and message.role == "user":
            # What is said goes before what the tools said.
            continue
        for call_id, text in message.results:
            total += 1
            results.append((names.get(call_id, "tool"), text))
    return tuple(results), total


def read_request(body: bytes, prefixes: PrefixCache) -> Prompt:
    """Decode and check a request. O(bytes) for decoding, O(messages) for the order and the cache marks.

    Raises:
        RequestError: the request is one that Anthropic refuses.
    """
    try:
        return _read(body, prefixes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"The request body is not valid JSON: {error}") from None


def count_request(body: bytes) -> int:
    """The tokens of a prompt that is not answered; the request needs no `max_tokens`.

    Raises:
        RequestError: the request is one that Anthropic refuses.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        fields.setdefault("max_tokens", msgspec.Raw(b"1000000000"))
        return read_request(_encode(fields), PrefixCache()).tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"The request body is not valid JSON: {error}") from None


def _read(body: bytes, prefixes: PrefixCache) -> Prompt:
    try:
        request = _request_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    model = abilities(request.model)
    _check_settings(request, model)
    if isinstance(request.container, str) and not request.container.startswith("container_"):
        raise bad(f"container: no container {request.container!r} was found.")
    tools = _tools(bytes(request.tools))
    choice, forced, parallel = _choose(request, tools)
    messages = [read_message(bytes(raw), index) for index, raw in enumerate(request.messages)]
    _check_order(messages, model)
    _check_end(request, messages, model)
    counted = count_prompt(
        request.model,
        (*tools.sums, *_system(request)),
        _encode((request.tool_choice, request.thinking)),
        messages,
        request.cache_control,
        prefixes,
    )
    tail = _since_said(messages)
    results, results_total = _results(tail)
    thinking = request.thinking
    display = None if thinking is None else thinking.display
    goes_on = messages[-1].opened[-1] if messages[-1].role == "assistant" and messages[-1].opened else None
    return Prompt(
        model=request.model,
        said=tail[0].text,
        turn=sum(message.role == "assistant" for message in tail),
        tools=tools.schemas,
        results=results,
        results_total=results_total,
        tool_choice=choice,
        forced=forced if forced in tools.schemas else "",
        hosted=tools.hosted,
        hosted_forced=forced if forced in tools.hosted else "",
        pauses=True,
        parallel=parallel,
        schema=_schema(request),
        max_tokens=request.max_tokens,
        stop=tuple(request.stop_sequences),
        thinks=model.thinks if thinking is None else thinking.type != "disabled",
        stream=request.stream,
        tokens=counted.tokens,
        cached_tokens=counted.read,
        wire=Wire(
            written=counted.written,
            must_think=thinking is not None and thinking.type == "enabled",
            shows=model.shows if display is None else display == "summarized",
            goes_on=goes_on,
        ),
    )


def _since_said(messages: list[MessageSum]) -> list[MessageSum]:
    """The last message in which the user says something other than tool results, and all after it."""
    for index in range(len(messages) - 1, 0, -1):
        if messages[index].role == "user" and (messages[index].text or not messages[index].results):
            return messages[index:]
    return messages
