"""Requests to OpenAI's Chat Completions: history, tools and settings as bytes.

Wire format: https://platform.openai.com/docs/api-reference/chat/create.
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
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.models.base import ModelRequest, ModelSettings
from gossamer.models.extra_body import lay_over, with_tools
from gossamer.models.hosted import chosen, hosted_tools, no_such_tool
from gossamer.models.media import data_url, fit_images, note_of, told_media
from gossamer.models.mistral import mistral_objects
from gossamer.models.openai_terms import IMAGE_RULES, prompt_cache_fields
from gossamer.models.output_tool import answer_choice, output_tool
from gossamer.models.pairing import REFUSED_IN_NAMES, fit_names, leading_results, paired, unanswered
from gossamer.schema import HostedTool, ToolSchema
from gossamer.view import EncodeMessage, MessageView

__all__ = ["DIALECT", "Form", "body"]

DIALECT = "openai_chat"

_COMMA = ord(",")

# OpenAI's own models, at OpenAI and at Azure: strict schemas, and a field of their own for the longest answer.
_OPENAIS = frozenset({"openai", "azure"})

# Who takes `web_search_options`; and whose tools are functions, but for that.
_SEARCHES = frozenset({"openai", "openrouter", "perplexity"})
_FUNCTIONS_ONLY = frozenset({"openai", "azure", "mistral"})

_encode = msgspec.json.Encoder().encode


class Form(msgspec.Struct, frozen=True):
    """How a server takes its requests.

    Attributes:
        provider: whose it is.
        send_thinking: whether the model gets its thinking back while a tool loop lasts.
        as_mistral: whether messages are written as Mistral takes them.
        checks_images: whether pictures that OpenAI refuses are refused here already.
        images: whether the model sees pictures; otherwise it is told of them.
        files: whether it reads files; likewise.
    """

    provider: str
    send_thinking: bool = False
    as_mistral: bool = False
    checks_images: bool = False
    images: bool = True
    files: bool = True


# --- messages -----------------------------------------------------------------------------------------------


def _encode_message(message: Message, _: Message | None) -> bytes:
    """Encode a settled message, with the comma that goes behind it."""
    return _joined(_as_objects(message, send_thinking=False))


def _encode_for_openai(message: Message, previous: Message | None) -> bytes:
    """Encode a message whose pictures and names of tools OpenAI takes."""
    return _encode_message(fit_names(fit_images(message, IMAGE_RULES), REFUSED_IN_NAMES), previous)


def _encode_in_tool_loop(message: Message, _: Message | None) -> bytes:
    """Encode a message whose thinking goes back to the provider."""
    return _joined(_as_objects(message, send_thinking=True))


def _encode_for_mistral(message: Message, previous: Message | None) -> bytes:
    """Encode a message in the form that Mistral takes."""
    message = fit_images(message, IMAGE_RULES)  # the types are the same
    return _joined(mistral_objects(_as_objects(message, send_thinking=False), message, previous))


def _joined(objects: list[dict[str, Any]]) -> bytes:
    return _encode(objects)[1:-1] + b"," if objects else b""


def _as_objects(message: Message, *, send_thinking: bool) -> list[dict[str, Any]]:
    if message.role == "tool":
        return _tool_objects(message)
    said: dict[str, Any]
    if len(message.parts) == 1 and type(message.parts[0]) is Text and not message.author:  # most are
        return [{"role": message.role, "content": message.parts[0].text}]
    if message.role != "assistant":
        said = {"role": message.role, "content": _as_content(message.parts)}
        if message.author:
            said["name"] = re.sub(r"[^a-zA-Z0-9_-]", "_", message.author)[:64]
        return [said]
    said = {"role": "assistant"}
    text = "".join([_words(part) for part in message.parts])
    refusal = "".join(part.text for part in message.parts if isinstance(part, Refusal))
    calls = message.tool_calls
    if text or not (calls or refusal):
        said["content"] = text
    if refusal:
        said["refusal"] = refusal
    if calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    if send_thinking:
        thinking = "".join(part.text for part in message.parts if isinstance(part, Thinking))
        if thinking:
            said["reasoning_content"] = thinking
    return [said]


def _words(part: Part) -> str:
    """What an answer says in words, with a note for what only another provider's model could say."""
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Citation) and part.provider and DIALECT in part.provider:
        return ""  # came of the model's own search, which it does not take back
    return "" if isinstance(part, Thinking | Refusal | ToolCall | ToolResult) else f" {note_of(part)}"


def _tool_objects(message: Message) -> list[dict[str, Any]]:
    """One object for each result; media, which tool messages cannot hold, follow in a user's message."""
    objects: list[dict[str, Any]] = []
    media: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            continue
        content = part.text
        if not isinstance(part.content, str):
            shown = [item for item in part.content if not isinstance(item, Text)]
            if shown:
                content = f"{content}\n[{len(shown)} attached, shown below]".strip()
                media += [Text(f"Attached by {part.name}:"), *shown]
        objects.append({"role": "tool", "tool_call_id": part.call_id, "content": content})
    if media:
        objects.append({"role": "user", "content": _as_content(tuple(media))})
    return objects


def _as_content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    spoken = [part for part in parts if not isinstance(part, Text) or part.text]  # empty texts are refused
    if not spoken:
        return ""
    if len(spoken) == 1 and isinstance(spoken[0], Text):
        return spoken[0].text
    return [_as_content_part(part) for part in spoken]


def _as_content_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url or data_url(part)}}
    if isinstance(part, Audio) and part.data is not None:
        format_ = part.media_type.rpartition("/")[2].replace("mpeg", "mp3").replace("x-wav", "wav")
        data = base64.b64encode(part.data).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": format_}}
    if isinstance(part, File) and part.data is not None:
        return {"type": "file", "file": {"filename": part.name, "file_data": data_url(part)}}
    return {
        "type": "text",
        "text": note_of(part),
    }  # such as a file by URL, which Chat Completions does not fetch


# --- tools, settings ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema | HostedTool, ...], strict: bool) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple."""
    return _encode([_tool_object(tool, strict=strict) for tool in tools])


def _tool_object(tool: ToolSchema | HostedTool, *, strict: bool) -> dict[str, Any]:
    if isinstance(tool, HostedTool):
        return {"type": tool.name, **tool.options}
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if strict and tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _place_hosted(
    fields: dict[str, Any], request: ModelRequest, model: str, provider: str
) -> tuple[ToolSchema | HostedTool, ...]:
    """Put the tools that the provider runs where they belong, and give the others.

    Args:
        fields: the request's; a search goes there.
        request: what the model is asked.
        model: its name.
        provider: who runs it.

    Raises:
        ArgumentError: the provider has no such tool here.
    """
    tools: list[ToolSchema | HostedTool] = []
    for tool in request.tools:
        if not isinstance(tool, HostedTool):
            tools.append(tool)
        elif tool.name == "web_search" and provider in _SEARCHES:
            if request.tool_choice != "none":
                fields["web_search_options"] = tool.options
        elif tool.name in {"web_search", "code_execution"} or provider in _FUNCTIONS_ONLY:
            instead = (
                "use OpenAIResponses" if provider == "openai" else "name a type of its own, or use extra_body"
            )
            instead = "leave it out" if provider in {"azure", "mistral"} else instead
            raise no_such_tool(
                tool, model, DIALECT, f"{provider} does not document it for Chat Completions; {instead}"
            )
        else:
            tools.append(tool)
    return tuple(tools)


def _settings_fields(settings: ModelSettings, provider: str) -> dict[str, Any]:
    # OpenAI's own models refuse `max_tokens`; others know nothing else.
    longest = "max_completion_tokens" if provider in _OPENAIS else "max_tokens"
    fields = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        longest: settings.max_tokens,
        "stop": settings.stop,
        "random_seed" if provider == "mistral" else "seed": settings.seed,
        "parallel_tool_calls": settings.parallel_tool_calls,
        "reasoning_effort": "none" if settings.thinking == "off" else settings.thinking,
        **(prompt_cache_fields(settings.prompt_cache, ("30m",)) if provider == "openai" else {}),
    }
    return {name: value for name, value in fields.items() if value is not None}


# --- the request --------------------------------------------------------------------------------------------


def body(model: str, request: ModelRequest, form: Form, *, native: bool, stream: bool) -> bytes:
    """Encode a request. Messages are encoded once for all requests of their conversation.

    O(new messages), and a copy of the bytes of all.

    Args:
        model: the model's name.
        request: what it is asked.
        form: how the server takes it.
        native: whether the model answers to a schema by itself; otherwise its answer comes through a tool.
        stream: whether the answer comes piece by piece.
    """
    messages = paired(request)
    fields: dict[str, Any] = {"model": model}
    if stream:
        fields["stream"] = True
    if stream and form.provider != "mistral":  # which refuses the field, and counts in its last chunk anyway
        fields["stream_options"] = {"include_usage": True}
    if request.settings is not None:
        fields |= _settings_fields(request.settings, form.provider)
    tools = request.tools
    choice = request.tool_choice
    if hosted_tools(tools):
        tools = _place_hosted(fields, request, model, form.provider)
        forced = chosen(choice, request.tools)
        if forced is not None and forced not in tools:
            choice = None  # a model that is given the options of a search does search
        elif forced is not None:
            raise no_such_tool(
                forced, model, DIALECT, f"it cannot be forced with tool_choice={choice!r}; take 'auto'"
            )
    schema = request.output_schema
    if schema is not None and native:
        format_ = {"name": schema.name, "schema": schema.schema, "strict": schema.strict}
        fields["response_format"] = {"type": "json_schema", "json_schema": format_}
    elif schema is not None:
        tools = (*tools, output_tool(schema))
        choice = answer_choice(choice)
    if tools and choice is not None:
        named = {"type": "function", "function": {"name": choice}}
        fields["tool_choice"] = choice if choice in {"auto", "none", "required"} else named
    more_tools = lay_over(fields, request.settings.extra_body if request.settings is not None else None)
    if not tools and not more_tools:
        fields.pop("parallel_tool_calls", None)  # OpenAI refuses it where there is nothing to call
    pieces: list[bytes | memoryview] = [_encode(fields)[:-1], b',"messages":[']
    if request.instructions:
        pieces += (_encode({"role": "system", "content": request.instructions}), b",")
    pieces += _bodies(messages, form)
    while pieces[-1] == b"":
        pieces.pop()
    if pieces[-1][-1] == _COMMA:
        pieces[-1] = pieces[-1][:-1]
    pieces.append(b"]")
    if tools or more_tools:
        encoded = _encode_tools(tools, form.provider in _OPENAIS)
        pieces += (b',"tools":', with_tools(encoded, more_tools))
    pieces.append(b"}")
    return b"".join(pieces)


def _bodies(messages: MessageView, form: Form) -> tuple[bytes | memoryview, ...]:
    if lost := leading_results(messages):
        told = (unanswered(messages[place]) for place in range(lost))
        shown = (told_media(message, images=form.images, files=form.files) for message in told)
        results = [_encode_message(message, None) for message in shown]
        return b"".join(results), *_bodies(messages.part(lost, len(messages)), form)
    if form.checks_images:
        return (_encoded(messages, form, f"{DIALECT}:openai", _encode_for_openai),)
    if form.as_mistral:
        return (_encoded(messages, form, f"{DIALECT}:mistral", _encode_for_mistral),)
    if not form.send_thinking:
        return (_encoded(messages, form, DIALECT, _encode_message),)
    begin = len(messages)  # the tool loop that is under way begins behind the last question
    while begin > 0 and messages[begin - 1].role != "user":
        begin -= 1
    settled = _encoded(messages.part(0, begin), form, DIALECT, _encode_message)
    loop = _encoded(messages.part(begin, len(messages)), form, f"{DIALECT}:loop", _encode_in_tool_loop)
    return settled, loop


def _encoded(messages: MessageView, form: Form, key: str, encode: EncodeMessage) -> bytes | memoryview:
    """Give the bodies of messages, with notes in place of what the model cannot be shown."""
    if form.images and form.files:
        return messages.encoded(key, encode)

    def encode_told(message: Message, previous: Message | None) -> bytes:
        return encode(told_media(message, images=form.images, files=form.files), previous)

    return messages.encoded(f"{key}:{form.images:d}{form.files:d}", encode_told)
