"""Requests to Google's Gemini API: history, tools and settings as bytes.

Wire format: https://ai.google.dev/api/generate-content; turns: https://ai.google.dev/api/caching#Content. A turn belongs to `user` or to `model`; results of tools belong to
`user`, and all results of an answer's calls to one turn, so neighbours of one role share a turn.
"""

from __future__ import annotations

import base64
import functools
import re
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
from gossamer.models.hosted import chosen, hosted_tools, no_such_tool
from gossamer.models.media import ImageRules, fit_images, note_of
from gossamer.models.output_tool import answer_choice, output_tool
from gossamer.models.pairing import fit_names, leading_results, paired, unanswered
from gossamer.schema import HostedTool, ToolSchema, is_object
from gossamer.view import EncodeMessage, MessageView

__all__ = ["DIALECT", "body"]

DIALECT = "gemini_chat"

# https://ai.google.dev/gemini-api/docs/image-understanding and /file-input-methods: what is read, and the largest
# request of 100 MB, of which base64 takes a third more.
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
_IMAGE_RULES = ImageRules("Gemini", _IMAGE_TYPES, 75_000_000)
_FILE_TYPES = (
    "application/pdf",
    "application/json",
    "application/rtf",
    "text/",
    "audio/",
    "video/",
)

# https://ai.google.dev/gemini-api/docs/openai#thinking: what words mean to models that think on a budget of tokens.
_BUDGETS = {"minimal": "1024", "low": "1024", "medium": "8192", "high": "24576"}

# Gemini 3 refuses the first call of an answer without a signature; a call that another model made has none. These
# words stand in for it, as the documentation says.
_NO_SIGNATURE = "skip_thought_signature_validator"

# A name without a letter is refused; others stay, for the signature of a call covers its name.
_REFUSED_IN_NAMES = re.compile(r"(?!)")

_BEGINS = "[The conversation begins here.]"
_EMPTY = "[empty message]"
_COMMA = ord(",")

_encode = msgspec.json.Encoder().encode


# --- messages -----------------------------------------------------------------------------------------------


def _encode_message(message: Message, previous: Message | None) -> bytes:
    """Encode a message as parts, behind what separates it from the one before: a comma, or the turn of another role."""
    return _separator(message, previous) + _encode(_parts_of(message))[1:-1]


def _encode_signed(message: Message, previous: Message | None) -> bytes:
    """Encode a message like `_encode_message`, for models that want a signature with every answer that calls tools."""
    parts = _parts_of(message)
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = _NO_SIGNATURE
    return _separator(message, previous) + _encode(parts)[1:-1]


def _contents(messages: MessageView, key: str, encode: EncodeMessage) -> list[bytes | memoryview]:
    """Give the turns of a request, to be joined.

    A request begins with a turn of the user; results whose calls are not in view are told as text.

    Args:
        messages: the conversation.
        key: under which the encoded messages are kept.
        encode: encodes one.
    """
    begin = leading_results(messages)
    opening = [
        part for late in messages[:begin] for part in _user_parts(unanswered(fit_images(late, _IMAGE_RULES)))
    ]
    first = messages[begin] if begin < len(messages) else None
    if not opening and (first is None or first.role == "assistant"):
        opening.append({"text": _BEGINS})
    pieces: list[bytes | memoryview] = [b'{"role":"user","parts":[', _encode(opening)[1:-1]]
    if first is not None:
        turn = _turn_of(first)
        bodies = messages.part(begin, len(messages)).encoded(key, encode)
        if turn != _USER_TURN:
            pieces.append(turn)
        elif opening:
            pieces.append(b",")
        # What separates the first message from one that is not in view goes.
        pieces.append(bodies[1:] if bodies[0] == _COMMA else bodies[len(turn) :])
    pieces.append(b"]}")
    return pieces


_USER_TURN = b']},{"role":"user","parts":['
_MODEL_TURN = b']},{"role":"model","parts":['


def _turn_of(message: Message) -> bytes:
    return _MODEL_TURN if message.role == "assistant" else _USER_TURN


def _separator(message: Message, previous: Message | None) -> bytes:
    turn = _turn_of(message)
    return b"," if previous is not None and _turn_of(previous) is turn else turn


def _parts_of(message: Message) -> list[dict[str, Any]]:
    message = fit_names(fit_images(message, _IMAGE_RULES), _REFUSED_IN_NAMES)
    if message.role == "tool":
        parts = _result_parts(message)
    elif message.role == "assistant":
        parts = _model_parts(message)
    else:
        parts = _user_parts(message)
    return parts or [{"text": _EMPTY}]  # Gemini refuses a turn without parts, and a part without text


def _user_parts(message: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if message.role == "system":
        parts.append({"text": "[system message]"})
    elif message.author:
        parts.append({"text": f"{message.author}:"})
    parts += [_part_of(part) for part in message.parts if not (isinstance(part, Text) and not part.text)]
    return parts


def _model_parts(message: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        own = part.provider.get(DIALECT) if part.provider else None
        signature = own.get("thoughtSignature") if is_object(own) else None
        if isinstance(part, Thinking):
            if not signature:  # a summary for people; the model wants back only what is signed
                continue
            encoded: dict[str, Any] = {"text": part.text, "thought": True}
        elif isinstance(part, Citation):
            if own is not None:  # came of the model's own search, which it does not take back
                continue
            encoded = {"text": note_of(part)}
        elif isinstance(part, Text | Refusal) and not part.text and not signature:
            continue
        else:
            encoded = _part_of(part)
        if signature:
            encoded["thoughtSignature"] = signature
        parts.append(encoded)
    return parts


def _result_parts(message: Message) -> list[dict[str, Any]]:
    """One part for each result; media follow behind, as only some of the models look for them inside."""
    results: list[dict[str, Any]] = []
    media: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            continue
        content = part.text
        if not isinstance(part.content, str):
            shown = [item for item in part.content if not isinstance(item, Text)]
            if shown:
                content = f"{content}\n[{len(shown)} attached, shown below]".strip()
                media += [{"text": f"Attached by {part.name}:"}, *map(_part_of, shown)]
        told = {"output" if part.outcome == "ok" else "error": content}
        results.append({"functionResponse": {"id": part.call_id, "name": part.name, "response": told}})
    return results + media


def _part_of(part: Part) -> dict[str, Any]:
    if isinstance(part, Text | Refusal):
        return {"text": part.text}
    if isinstance(part, ToolCall):
        return {"functionCall": {"id": part.id, "name": part.name, "args": _arguments_of(part)}}
    if isinstance(part, Image | Audio | File) and _is_read(part):
        if part.data is not None:
            data = base64.b64encode(part.data).decode()
            return {"inlineData": {"mimeType": part.media_type, "data": data}}
        named = part.media_type != File.default_media_type
        return {"fileData": {"fileUri": part.url} | ({"mimeType": part.media_type} if named else {})}
    if isinstance(part, ProviderBlock) and part.dialect == DIALECT and is_object(part.raw):
        return dict(part.raw)
    return {"text": note_of(part)}


def _is_read(part: Image | Audio | File) -> bool:
    """Tell whether Gemini reads media of this type; what stands behind a URL of no known type is for it to see."""
    if isinstance(part, Image) or part.media_type.startswith("image/"):
        return part.data is None or part.media_type in _IMAGE_TYPES
    return part.media_type.startswith(_FILE_TYPES) or (
        part.data is None and part.media_type == File.default_media_type
    )


def _arguments_of(call: ToolCall) -> dict[str, Any]:
    """Give the arguments as the object that Gemini wants; what is none goes under `_raw`, so that it stays visible."""
    try:
        arguments = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    return arguments if is_object(arguments) else {"_raw": call.arguments}


# --- tools, settings ----------------------------------------------------------------------------------------


# The tools of Google's that go by one name at all providers.
_HOSTED = {"web_search": "googleSearch", "code_execution": "codeExecution"}


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema | HostedTool, ...]) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple."""
    functions = [_tool_object(tool) for tool in tools if isinstance(tool, ToolSchema)]
    objects: list[dict[str, Any]] = [{"functionDeclarations": functions}] if functions else []
    objects += [
        {_HOSTED.get(tool.name, tool.name): tool.options} for tool in tools if isinstance(tool, HostedTool)
    ]
    return _encode(objects)


def _hosted_config(
    model: str, request: ModelRequest, tool: HostedTool, *, functions: bool, signed: bool
) -> dict[str, Any]:
    """Give what the configuration of tools must say for those that Google runs.

    Args:
        model: the model's name.
        request: what it is asked.
        tool: the first of those tools.
        functions: whether there are others beside them.
        signed: whether it is a Gemini 3 or later.

    Raises:
        ArgumentError: this model does not take them so.
    """
    if functions and not signed:
        raise no_such_tool(
            tool,
            model,
            DIALECT,
            "before Gemini 3 there are no tools of yours, and no output type, beside those that Google runs; leave "
            "one or the other out, or take a newer model",
        )
    choice = request.tool_choice
    forced = chosen(choice, request.tools)
    if forced is not None or (choice == "required" and not functions):
        raise no_such_tool(
            forced or tool,
            model,
            DIALECT,
            f"with tool_choice={choice!r}: nothing makes Gemini use a tool that Google runs; take 'auto'",
        )
    return {"includeServerSideToolInvocations": True} if functions else {}


def _tool_object(tool: ToolSchema) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}


def _tool_choice_field(choice: str) -> dict[str, Any]:
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    if choice in modes:
        return {"functionCallingConfig": {"mode": modes[choice]}}
    return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice]}}


def _settings_fields(settings: ModelSettings, *, levels: bool) -> dict[str, Any]:
    thinking = settings.thinking
    config = {
        "temperature": settings.temperature,
        "topP": settings.top_p,
        "maxOutputTokens": settings.max_tokens,
        "stopSequences": settings.stop,
        "seed": settings.seed,
        "thinkingConfig": None if thinking is None else _thinking_field(thinking, levels=levels),
    }
    return {name: value for name, value in config.items() if value is not None}


def _thinking_field(thinking: str, *, levels: bool) -> dict[str, Any]:
    if not levels:  # before Gemini 3
        thinking = _BUDGETS.get(thinking.lower(), thinking)
    if thinking.lower() in {"off", "none", "0"}:
        return {"thinkingBudget": 0}
    if re.fullmatch(r"-?\d+", thinking):
        return {"thinkingBudget": int(thinking), "includeThoughts": True}
    return {"thinkingLevel": thinking.upper(), "includeThoughts": True}


# --- the request --------------------------------------------------------------------------------------------


def body(model: str, request: ModelRequest, *, native: bool, signed: bool) -> bytes:
    """Encode a request. Messages are encoded once for all requests of their conversation.

    O(new messages), and a copy of the bytes of all. Model and kind of answer are in the URL.

    Args:
        model: the model's name, told in errors.
        request: what the model is asked.
        native: whether it answers to a schema by itself; otherwise its answer comes through a tool.
        signed: whether it wants a signature with every answer that calls tools, and thinks by level: since Gemini 3.
    """
    messages = paired(request)
    settings = request.settings
    fields: dict[str, Any] = {}
    if request.instructions:
        fields["systemInstruction"] = {"parts": [{"text": request.instructions}]}
    config = {} if settings is None else _settings_fields(settings, levels=signed)
    tools = request.tools
    choice = request.tool_choice
    schema = request.output_schema
    if schema is not None and native:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = schema.schema
    elif schema is not None:
        tools = (*tools, output_tool(schema))
        choice = answer_choice(choice)
    if config:
        fields["generationConfig"] = config
    hosted = hosted_tools(request.tools)
    if hosted and request.tool_choice == "none":  # which says something of functions alone to Gemini
        tools, hosted = tuple(tool for tool in tools if isinstance(tool, ToolSchema)), ()
    functions = len(tools) > len(hosted)
    tool_config: dict[str, Any] = {}
    if hosted:
        tool_config = _hosted_config(model, request, hosted[0], functions=functions, signed=signed)
    if functions and choice is not None:
        tool_config |= _tool_choice_field(choice)
    if tool_config:
        fields["toolConfig"] = tool_config
    more_tools = lay_over(fields, settings.extra_body if settings is not None else None)
    key, encode = (f"{DIALECT}:signed", _encode_signed) if signed else (DIALECT, _encode_message)
    pieces: list[bytes | memoryview] = [b'{"contents":[', *_contents(messages, key, encode), b"]"]
    if tools or more_tools:
        pieces += (b',"tools":', with_tools(_encode_tools(tools), more_tools))
    pieces.append(b"," + _encode(fields)[1:] if fields else b"}")
    return b"".join(pieces)
