"""Requests to Anthropic's Messages: history, tools and settings as bytes.

Wire format: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import base64
import functools
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from gossamer.messages import (
    Audio,
    Citation,
    File,
    Image,
    Message,
    Part,
    ProviderBlock,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.models.base import ModelRequest, ModelSettings
from gossamer.models.extra_body import lay_over, with_tools
from gossamer.models.hosted import chosen, hosted_tools
from gossamer.models.media import IMAGE_TYPES, ImageRules, fit_images, note_of
from gossamer.models.output_tool import answer_choice, output_tool
from gossamer.models.pairing import REFUSED_IN_NAMES, fit_names, leading_results, paired, unanswered
from gossamer.models.transport import UNREADABLE
from gossamer.schema import HostedTool, ToolSchema, is_object
from gossamer.view import MessageView

__all__ = ["DIALECT", "as_input", "body"]

DIALECT = "anthropic_chat"

# The API wants a bound on every answer. This one is enough for long answers with thinking, and every model takes it.
_MAX_TOKENS = 16_000
_LEAST_BUDGET = 1024  # of thinking, in tokens
# What words mean to the models up to 4.5, which think on a budget alone.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 32_000}
_VERSION_IN_NAME = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:[-.](\d)(?!\d))?")
_LEAST_TOP_P_THINKING = 0.95

# The versions of the provider's own tools that every model takes which takes any.
_HOSTED = {"web_search": "web_search_20250305", "code_execution": "code_execution_20250825"}
_DATE = re.compile(r"_\d{8}$")
_MAX_LOOK_BACK = 100  # messages in which a container of the provider's is looked for

# 10 MiB as base64, which is what the API counts.
_IMAGE_RULES = ImageRules("Anthropic", IMAGE_TYPES, 10 * 1024 * 1024 // 4 * 3)

_NO_SETTINGS = ModelSettings()
_COMMA = ord(",")

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


# --- messages -----------------------------------------------------------------------------------------------

# The API knows two roles. What begins a message ends the one before; neighbours of one role become one message.
_BEGIN = {
    "user": b']},{"role":"user","content":[',
    "assistant": b']},{"role":"assistant","content":[',
}
_OPEN = b'{"role":"user","content":['
_NOT_SHOWN = b'{"type":"text","text":"[The conversation began before this.]"}'


def _conversation(messages: MessageView) -> tuple[bytes | memoryview, ...]:
    """Give the messages up to the end of the last one's content, beginning with a user's as the API wants it."""
    orphans = leading_results(messages)
    told = [
        block
        for message in messages[:orphans]
        for block in _said_blocks(unanswered(fit_images(message, _IMAGE_RULES)))
    ]
    opening = _OPEN + _encode(told)[1:-1]
    if orphans == len(messages):
        return (opening if told else _OPEN + _NOT_SHOWN,)
    rest = messages.part(orphans, len(messages))
    bodies = rest.encoded(DIALECT, functools.partial(_encode_message, messages))
    begin = _BEGIN[_role_of(rest[0])]
    bodies = bodies[1:] if bodies[0] == _COMMA else bodies[len(begin) :]
    if begin is _BEGIN["assistant"]:
        return opening + (b"" if told else _NOT_SHOWN) + begin, bodies
    return opening + (b"," if told else b""), bodies


def _role_of(message: Message) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _encode_message(view: MessageView, message: Message, previous: Message | None) -> bytes:
    """Encode a message behind what separates it from the one before."""
    message = fit_names(fit_images(message, _IMAGE_RULES), REFUSED_IN_NAMES)
    if message.role == "assistant":
        blocks = _assistant_blocks(message)
    elif message.role == "tool":
        blocks = _result_blocks(message, _caller_of(message, previous, view))
    else:
        blocks = _said_blocks(message)
    role = _role_of(message)
    joined = previous is not None and _role_of(previous) == role
    return (b"," if joined else _BEGIN[role]) + _encode(blocks or [_text("[empty]")])[1:-1]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _is_blank(text: str) -> bool:
    return not text or text.isspace()  # which the API refuses as a block of text


def _said_blocks(message: Message) -> list[dict[str, Any]]:
    """What a user said, or the system in the middle."""
    blocks: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, Text):
            blocks += _shown_blocks(part)
        elif not _is_blank(part.text):
            blocks.append(
                _text(f"<system>\n{part.text}\n</system>" if message.role == "system" else part.text)
            )
    if message.author and blocks:
        if blocks[0]["type"] == "text":
            blocks[0] = _text(f"{message.author}: {blocks[0]['text']}")
        else:
            blocks.insert(0, _text(f"{message.author}:"))
    return blocks


def _shown_blocks(part: Part) -> list[dict[str, Any]]:
    """What a user or a tool shows; what the API does not take is told."""
    if isinstance(part, Image):
        return [_image_block(part)]
    if isinstance(part, File):
        return [_document_block(part)]
    if isinstance(part, ToolResult):
        return _said_blocks(unanswered(Message("tool", (part,))))
    return _other_blocks(part)


def _other_blocks(part: Part) -> list[dict[str, Any]]:
    """Express what may stand in any message."""
    if isinstance(part, Refusal):
        # What the provider said about its refusal is none of the model's words.
        own = part.provider is not None and DIALECT in part.provider
        return [] if own or _is_blank(part.text) else [_text(part.text)]
    if isinstance(part, ProviderBlock) and part.dialect == DIALECT:
        return [part.raw]
    if isinstance(part, ProviderBlock | Citation | Image | Audio | File):
        return [_text(note_of(part))]
    return []


def _image_block(part: Image) -> dict[str, Any]:
    if part.data is None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    data = base64.b64encode(part.data).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": data}}


def _document_block(part: File) -> dict[str, Any]:
    kind = part.media_type.partition(";")[0].strip()
    source: dict[str, Any] | None = None
    if kind == "application/pdf" and part.data is not None:
        data = base64.b64encode(part.data).decode()
        source = {"type": "base64", "media_type": kind, "data": data}
    elif kind == "application/pdf":
        source = {"type": "url", "url": part.url}
    elif part.data and (kind.startswith("text/") or kind in {"application/json", "application/xml"}):
        words = part.data.decode("utf-8", "replace")
        source = None if _is_blank(words) else {"type": "text", "media_type": "text/plain", "data": words}
    if source is not None:
        return {"type": "document", "source": source, "title": part.name}
    return _text(note_of(part) if part.url else f"[attachment {part.name}, {part.media_type}; not shown]")


def _caller_of(results: Message, previous: Message | None, view: MessageView) -> Message | None:
    """Find the message whose calls these are results of: the one before, unless the results came in several."""
    if previous is None or previous.role != "tool":
        return previous
    found = False
    for message in reversed(view):
        if found and message.role != "tool":
            return message
        found = found or message is results
    return None


def _result_blocks(message: Message, caller: Message | None) -> list[dict[str, Any]]:
    """Give the results first, as the API wants; one whose call is not right before it is told as text."""
    ids = {call.id: _id_of(call) for call in caller.tool_calls} if caller is not None else {}
    results: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, ToolResult) or part.call_id not in ids:
            rest += _said_blocks(Message("user", (part,))) if isinstance(part, Text) else _shown_blocks(part)
            continue
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": ids[part.call_id]}
        media: list[dict[str, Any]] = []
        if not isinstance(part.content, str):
            media = [
                shown for item in part.content if type(item) is not Text for shown in _shown_blocks(item)
            ]
        if media:
            block["content"] = media if _is_blank(part.text) else [_text(part.text), *media]
        elif not _is_blank(part.text):
            block["content"] = part.text
        if part.outcome != "ok":
            block["is_error"] = True
        results.append(block)
    return results + rest


def _id_of(call: ToolCall) -> str:
    """The provider's own id where it gave one, so that its answer goes back as it came; else ours."""
    own = (call.provider or {}).get(DIALECT)
    return re.sub(r"[^a-zA-Z0-9_-]", "_", (own.get("id") if is_object(own) else None) or call.id)


def _assistant_blocks(message: Message) -> list[dict[str, Any]]:
    """What a model said. Its blocks go back as they came, for the signature of a thought covers what is before it."""
    blocks: list[dict[str, Any]] = []
    for part in message.parts:
        own: Any = (part.provider or {}).get(DIALECT)
        if isinstance(part, Text):
            if not _is_blank(part.text):
                blocks.append(_text(part.text))
        elif isinstance(part, ToolCall):
            more = own if is_object(own) else {}
            block = {**more, "type": "tool_use", "id": _id_of(part), "name": part.name}
            blocks.append({**block, "input": as_input(part.arguments)})
        elif isinstance(part, Thinking):
            if is_object(own) and "data" in own:
                blocks.append({"type": "redacted_thinking", "data": own["data"]})
            elif is_object(own):
                blocks.append({"type": "thinking", "thinking": part.text, "signature": own.get("signature")})
        elif isinstance(part, Citation) and own is not None and blocks and blocks[-1]["type"] == "text":
            blocks[-1].setdefault("citations", []).append(own)
        elif isinstance(part, Image | Audio | File):
            blocks.append(_text(note_of(part)))
        else:
            blocks += _other_blocks(part)
    if blocks and blocks[-1]["type"] in {"thinking", "redacted_thinking"}:
        blocks.append(_text("[empty]"))  # an answer that ends with thinking is refused
    return blocks


def as_input(arguments: str) -> Any:
    """Give a call's arguments as the object that the API wants; what is none is put into one as it is.

    O(length of the arguments); their text is checked and not changed.
    """
    try:
        _decode_object(arguments)
    except UNREADABLE:
        return {} if _is_blank(arguments) else {"_raw": arguments}
    return msgspec.Raw(arguments.encode())


# --- tools, settings ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema | HostedTool, ...], cache: str | None) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple; the last one marked where that is wanted."""
    objects = [_tool_object(tool) for tool in tools]
    if cache and objects:
        objects[-1]["cache_control"] = _cache_mark(cache)
    return _encode(objects)


def _tool_object(tool: ToolSchema | HostedTool) -> dict[str, Any]:
    if isinstance(tool, HostedTool):
        kind = _HOSTED.get(tool.name, tool.name)
        name = _DATE.sub("", kind)  # a type without a date, such as `mcp_toolset`, has no name
        return {"type": kind, **({"name": name} if name != kind else {}), **tool.options}
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": tool.parameters}


def _cache_mark(keep: str) -> dict[str, Any]:
    return {"type": "ephemeral", "ttl": keep}


@functools.lru_cache(maxsize=256)
def _thinks_on_budget(model: str) -> bool:
    """Tell whether a model knows no effort of thinking, only a number of tokens."""
    version = _VERSION_IN_NAME.match(model)
    return version is not None and (int(version[1]), int(version[2] or 0)) < (4, 6)


def _settings_fields(settings: ModelSettings, model: str) -> dict[str, Any]:
    asked = settings.thinking
    if asked in _BUDGETS and _thinks_on_budget(model):
        asked = str(_BUDGETS[asked])
    longest, thinking = _thinking_field(asked, settings.max_tokens)
    kind = None if thinking is None else thinking["type"]
    thinks = kind not in {None, "disabled"}
    effort = asked if kind == "adaptive" else None
    top_p = settings.top_p
    fields = {
        "max_tokens": longest,
        "temperature": None if thinks else settings.temperature,
        "top_p": None if thinks and top_p is not None and top_p < _LEAST_TOP_P_THINKING else top_p,
        "stop_sequences": settings.stop,
        "thinking": thinking,
        "output_config": {"effort": effort} if effort and effort != "adaptive" else None,
        "cache_control": _cache_mark(settings.prompt_cache) if settings.prompt_cache else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _thinking_field(thinking: str | None, longest: int | None) -> tuple[int, dict[str, Any] | None]:
    """Give the bound on the answer, which thinking is part of, and how to think."""
    if thinking is not None and thinking.isdigit():
        budget = int(thinking)
        longest = longest or budget + _MAX_TOKENS
        if longest <= _LEAST_BUDGET:  # cut down by the run's limits: no room for the least thought
            return longest, None
        return longest, {"type": "enabled", "budget_tokens": min(budget, longest - 1)}
    longest = longest or _MAX_TOKENS
    if thinking is None:
        return longest, None
    if thinking in {"off", "none", "disabled"}:
        return longest, {"type": "disabled"}
    if thinking == "between_tools":
        return longest, {"type": thinking}
    return longest, {"type": "adaptive", "display": "summarized"}


def _tool_choice_field(
    choice: str | None, parallel: bool | None, tools: tuple[ToolSchema | HostedTool, ...]
) -> dict[str, Any] | None:
    if choice is None and parallel is not False:
        return None
    if (hosted := chosen(choice, tools)) is not None:
        choice = str(_tool_object(hosted).get("name", choice))
    known = {None: "auto", "auto": "auto", "none": "none", "required": "any"}
    field: dict[str, Any] = {"type": known[choice]} if choice in known else {"type": "tool", "name": choice}
    if parallel is False and choice != "none":
        field["disable_parallel_tool_use"] = True
    return field


def _container_of(messages: MessageView) -> str | None:
    """Give the container in which the provider ran code of this conversation, while it is there: a later call goes on in it."""
    for message in messages[-_MAX_LOOK_BACK:][::-1]:
        own = (message.provider or {}).get(DIALECT)
        container = own.get("container") if is_object(own) else None
        if is_object(container):
            try:
                expires = datetime.fromisoformat(str(container.get("expires_at")))
                gone = expires.astimezone(UTC) <= datetime.now(UTC)
            except ValueError:
                gone = False
            return None if gone else str(container.get("id"))
    return None


# --- the request --------------------------------------------------------------------------------------------


def body(model: str, request: ModelRequest, native: dict[str, Any] | None, *, stream: bool) -> bytes:
    """Encode a request. Messages are encoded once for all requests of their conversation.

    O(new messages), and a copy of the bytes of all.

    Args:
        model: the model's name.
        request: what it is asked.
        native: the schema of the answer as the API takes it; None where there is none, or the answer comes through
            a tool.
        stream: whether the answer comes piece by piece.
    """
    messages = paired(request)
    settings = request.settings or _NO_SETTINGS
    fields: dict[str, Any] = {"model": model, **_settings_fields(settings, model)}
    if stream:
        fields["stream"] = True
    tools = request.tools
    if hosted_tools(tools) and (container := _container_of(messages)) is not None:
        fields["container"] = container
    choice = request.tool_choice
    if native is not None:
        fields.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": native}
    elif request.output_schema is not None:
        tools = (*tools, output_tool(request.output_schema))
        if fields.get("thinking", {}).get("type", "disabled") == "disabled":
            choice = answer_choice(choice)
        elif choice == "none":
            choice = None  # a model that thinks cannot be made to call
    if (
        tools
        and (field := _tool_choice_field(choice, settings.parallel_tool_calls, request.tools)) is not None
    ):
        fields["tool_choice"] = field
    cache = settings.prompt_cache
    if request.instructions:
        fields["system"] = request.instructions
        if cache:  # tools stand before the instructions, and one mark behind both is enough
            fields["system"] = [{**_text(request.instructions), "cache_control": _cache_mark(cache)}]
            cache = None
    more_tools = lay_over(fields, settings.extra_body)
    pieces: list[bytes | memoryview] = [_encode(fields)[:-1]]
    if tools or more_tools:
        pieces += (b',"tools":', with_tools(_encode_tools(tools, cache), more_tools))
    if "messages" not in fields:
        pieces += (b',"messages":[', *_conversation(messages), b"]}]")
    pieces.append(b"}")
    return b"".join(pieces)
