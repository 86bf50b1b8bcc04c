"""Requests to OpenAI's Responses: history, tools and settings as bytes. Messages become items of the input.

Wire format: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from gossamer.messages import (
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
from gossamer.models.media import data_url, fit_images, note_of
from gossamer.models.openai_terms import IMAGE_RULES, prompt_cache_fields
from gossamer.models.output_tool import answer_choice, output_tool
from gossamer.models.pairing import REFUSED_IN_NAMES, fit_names, leading_results, paired, unanswered
from gossamer.schema import HostedTool, ToolSchema, is_object
from gossamer.view import MessageView

__all__ = ["DIALECT", "body"]

DIALECT = "openai_responses"

_COMMA = ord(",")

_encode = msgspec.json.Encoder().encode


# --- messages -----------------------------------------------------------------------------------------------


def _encode_message(message: Message, _: Message | None) -> bytes:
    """Encode a message as items, each with the comma that goes behind it; one that says nothing is no item."""
    if message.role == "tool":
        items = [_result_item(part) for part in message.parts if isinstance(part, ToolResult)]
    elif message.role == "assistant":
        items = _assistant_items(message)
    else:
        items = [{"role": message.role, "content": _as_content(message)}]
    return _encode(items)[1:-1] + b"," if items else b""


def _encode_for_openai(message: Message, previous: Message | None) -> bytes:
    """Encode a message whose pictures and names of tools OpenAI takes."""
    return _encode_message(fit_names(fit_images(message, IMAGE_RULES), REFUSED_IN_NAMES), previous)


def _assistant_items(message: Message) -> list[dict[str, Any]]:
    """The items that an answer was made of.

    Reasoning goes before the item that came of it, and only with it: the provider refuses one that leads nowhere.
    """
    items: list[dict[str, Any]] = []
    reasoning: list[dict[str, Any]] = []
    said: dict[str, Any] = {}
    for part in message.parts:
        own = part.provider.get(DIALECT) if part.provider else None
        own = own if is_object(own) else {}
        if isinstance(part, Thinking) and not own.get("phase"):
            if own.get("encrypted_content") or own.get("content"):
                reasoning.append(_reasoning_item(part, own))
            continue
        if isinstance(part, Text) and not part.text:
            continue
        if isinstance(part, Citation) and own and said.get("id") and is_object(said["content"][-1]):
            said["content"][-1].setdefault("annotations", []).append(own)
            continue
        if isinstance(part, ToolCall):
            items += (*reasoning, _call_item(part, own))
            said = {}
        elif isinstance(part, ProviderBlock) and part.dialect == DIALECT and not own:
            items += (*reasoning, part.raw)
            said = {}
        elif isinstance(part, Text | Refusal | ProviderBlock | Thinking) and own.get("id"):
            if said.get("id") != own["id"]:
                said = _message_item(own)
                items += (*reasoning, said)
            said["content"].append(_said(part))
        else:
            words = part.text if isinstance(part, Text | Refusal | Thinking) else note_of(part)
            if said and "id" not in said:
                said["content"] += words if isinstance(part, Text) else f" {words}"
            else:
                said = {"role": "assistant", "content": words}
                items.append(said)
        reasoning.clear()
    return items


def _reasoning_item(part: Thinking, own: Mapping[str, Any]) -> dict[str, Any]:
    item: dict[str, Any] = {name: own[name] for name in ("id", "encrypted_content") if own.get(name)}
    item |= {"type": "reasoning", "summary": []}
    if own.get("content"):
        item["content"] = [{"type": "reasoning_text", "text": part.text}]
    elif part.text:
        texts = own.get("summary") or [part.text]
        item["summary"] = [{"type": "summary_text", "text": text} for text in texts]
    return item


def _message_item(own: Mapping[str, Any]) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "message",
        "id": own["id"],
        "role": "assistant",
        "status": "completed",
        "content": [],
    }
    if own.get("phase"):
        item["phase"] = own["phase"]
    return item


def _said(part: Text | Refusal | ProviderBlock | Thinking) -> dict[str, Any]:
    if isinstance(part, ProviderBlock):
        return part.raw
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": []}


def _call_item(call: ToolCall, own: Mapping[str, Any]) -> dict[str, Any]:
    item = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
    if own.get("item_id"):
        item["id"] = own["item_id"]
    return item | {name: own[name] for name in ("namespace", "caller") if own.get(name)}


def _result_item(result: ToolResult) -> dict[str, Any]:
    output: Any = result.content
    if not isinstance(output, str):
        output = [_as_content_part(part) for part in output] or ""
    return {"type": "function_call_output", "call_id": result.call_id, "output": output}


def _as_content(message: Message) -> str | list[dict[str, Any]]:
    """What somebody else said; items have no place for a name, so it goes before the words."""
    parts = message.parts
    if message.author:
        parts = (Text(f"{message.author}: "), *parts)
    if all(isinstance(part, Text) for part in parts):
        return "".join([part.text for part in parts if isinstance(part, Text)])
    return [_as_content_part(part) for part in parts if not isinstance(part, Text) or part.text]


def _as_content_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url or data_url(part), "detail": "auto"}
    if isinstance(part, File) and part.url:
        return {"type": "input_file", "file_url": part.url}
    if isinstance(part, File):
        return {"type": "input_file", "filename": part.name, "file_data": data_url(part)}
    return {"type": "input_text", "text": note_of(part)}


# --- tools, settings ----------------------------------------------------------------------------------------


# The tools of OpenAI's that go by one name at all providers.
_HOSTED: dict[str, dict[str, Any]] = {
    "web_search": {"type": "web_search"},
    "code_execution": {"type": "code_interpreter", "container": {"type": "auto"}},
}
# What is told of hosted calls only where it is asked for, and is lost on the model's next turn where it is not.
_TOLD_OF = {"code_interpreter": "code_interpreter_call.outputs", "file_search": "file_search_call.results"}


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema | HostedTool, ...]) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple."""
    return _encode([_tool_object(tool) for tool in tools])


def _tool_object(tool: ToolSchema | HostedTool) -> dict[str, Any]:
    if isinstance(tool, HostedTool):
        return {**_HOSTED.get(tool.name, {"type": tool.name}), **tool.options}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,  # where it is left out, the provider takes it for true
    }


def _tool_choice_field(choice: str, tools: tuple[ToolSchema | HostedTool, ...]) -> str | dict[str, Any]:
    if choice in {"auto", "none", "required"}:
        return choice
    hosted = chosen(choice, tools)
    if hosted is None:
        return {"type": "function", "name": choice}
    declared = _tool_object(hosted)
    return {name: declared[name] for name in ("type", "server_label") if name in declared}


def _settings_fields(settings: ModelSettings) -> dict[str, Any]:
    effort = "none" if settings.thinking == "off" else settings.thinking
    fields: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_output_tokens": settings.max_tokens,
        "parallel_tool_calls": settings.parallel_tool_calls,
    }
    if effort is not None:
        fields["reasoning"] = (
            {"effort": effort} if effort == "none" else {"effort": effort, "summary": "auto"}
        )
    fields |= prompt_cache_fields(settings.prompt_cache, ("30m", "12h"))
    return {name: value for name, value in fields.items() if value is not None}


# --- the request --------------------------------------------------------------------------------------------


def body(
    model: str, request: ModelRequest, *, native: bool, reasons: bool, checks_images: bool, stream: bool
) -> bytes:
    """Encode a request. Messages are encoded once for all requests of their conversation.

    O(new messages), and a copy of the bytes of all.

    Args:
        model: the model's name.
        request: what it is asked.
        native: whether the model answers to a schema by itself; otherwise its answer comes through a tool.
        reasons: whether the model may reason, and is asked for its reasoning.
        checks_images: whether pictures that OpenAI refuses are refused here already.
        stream: whether the answer comes piece by piece.
    """
    messages = paired(request)
    settings = request.settings
    fields: dict[str, Any] = {"model": model, "store": False}
    if stream:
        fields["stream"] = True
    if reasons or (settings is not None and settings.thinking not in {None, "off", "none"}):
        fields["include"] = ["reasoning.encrypted_content"]
    if settings is not None:
        fields |= _settings_fields(settings)
    tools = request.tools
    if hosted := hosted_tools(tools):
        kinds = {_tool_object(tool)["type"] for tool in hosted}
        if told := [words for kind, words in _TOLD_OF.items() if kind in kinds]:
            fields["include"] = [*fields.get("include", ()), *told]
    choice = request.tool_choice
    schema = request.output_schema
    if schema is not None and native:
        format_ = {"type": "json_schema", "name": schema.name, "schema": schema.schema}
        fields["text"] = {"format": {**format_, "strict": schema.strict}}
    elif schema is not None:
        tools = (*tools, output_tool(schema))
        choice = answer_choice(choice)
    if tools and choice is not None:
        fields["tool_choice"] = _tool_choice_field(choice, request.tools)
    bodies = _bodies(messages, checks_images=checks_images)
    words = request.instructions
    if not any(bodies):  # a request of instructions alone is refused: they are what is said then
        said = {"role": "developer", "content": words} if words else {"role": "user", "content": "[empty]"}
        bodies = (_encode(said),)
    elif words:
        fields["instructions"] = words
    more_tools = lay_over(fields, settings.extra_body if settings is not None else None)
    pieces: list[bytes | memoryview] = [_encode(fields)[:-1], b',"input":[', *bodies]
    while pieces[-1] == b"":
        pieces.pop()
    if pieces[-1][-1] == _COMMA:
        pieces[-1] = pieces[-1][:-1]
    pieces.append(b"]")
    if tools or more_tools:
        pieces += (b',"tools":', with_tools(_encode_tools(tools), more_tools))
    pieces.append(b"}")
    return b"".join(pieces)


def _bodies(messages: MessageView, *, checks_images: bool) -> tuple[bytes | memoryview, ...]:
    key, encode = (f"{DIALECT}:openai", _encode_for_openai) if checks_images else (DIALECT, _encode_message)
    lost = leading_results(messages)
    if not lost:
        return (messages.encoded(key, encode),)
    results = b"".join([_encode_message(unanswered(messages[place]), None) for place in range(lost)])
    return results, messages.part(lost, len(messages)).encoded(key, encode)
