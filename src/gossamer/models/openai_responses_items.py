"""The items of OpenAI's Responses: messages become items of the input, and items of the output become parts.

Wire format: https://platform.openai.com/docs/api-reference/responses/input-items. Items of kinds that are not known
here are kept whole and go back as they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gossamer.ids import new_id
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
from gossamer.models.media import IMAGE_TYPES, check_image, data_url, note_of
from gossamer.models.openai_terms import MAX_IMAGE_BYTES
from gossamer.schema import is_object

__all__ = ["DIALECT", "Item", "Kind", "add_item", "decode_item", "decode_kind", "encode_message"]

DIALECT = "openai_responses"


# --- wire structs -------------------------------------------------------------------------------------------


class _Content(msgspec.Struct, gc=False):
    """A piece of an item: text, a refusal, a summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None


class Item(msgspec.Struct, gc=False):
    """An item of the output: a message, a call, reasoning."""

    type: str = ""
    id: str | None = None
    phase: str | None = None
    content: list[msgspec.Raw] | None = None
    summary: list[_Content] | None = None
    encrypted_content: str | None = None
    name: str | None = None
    arguments: str | None = None
    call_id: str | None = None
    namespace: str | None = None
    caller: Any = None


class Kind(msgspec.Struct, gc=False):
    """As much of an item as tells what it is."""

    type: str = ""
    name: str | None = None


decode_item = msgspec.json.Decoder(Item).decode
decode_kind = msgspec.json.Decoder(Kind).decode
_decode_content = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


# --- messages → items ---------------------------------------------------------------------------------------


def encode_message(message: Message, _: Message | None) -> bytes:
    """Encode a message as items, each with the comma that goes behind it; one that says nothing is no item."""
    if message.role == "tool":
        items = [_result_item(part) for part in message.parts if isinstance(part, ToolResult)]
    elif message.role == "assistant":
        items = _assistant_items(message)
    else:
        items = [{"role": message.role, "content": _as_content(message)}]
    return _encode(items)[1:-1] + b"," if items else b""


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
        if isinstance(part, Thinking):
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
        elif isinstance(part, Text | Refusal | ProviderBlock) and own.get("id"):
            if said.get("id") != own["id"]:
                said = _message_item(own)
                items += (*reasoning, said)
            said["content"].append(_said(part))
        else:
            words = part.text if isinstance(part, Text | Refusal) else note_of(part)
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


def _said(part: Text | Refusal | ProviderBlock) -> dict[str, Any]:
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
        check_image(part, "OpenAI", IMAGE_TYPES, MAX_IMAGE_BYTES)
        return {"type": "input_image", "image_url": part.url or data_url(part), "detail": "auto"}
    if isinstance(part, File) and part.url:
        return {"type": "input_file", "file_url": part.url}
    if isinstance(part, File):
        return {"type": "input_file", "filename": part.name, "file_data": data_url(part)}
    return {"type": "input_text", "text": note_of(part)}


# --- items → parts ------------------------------------------------------------------------------------------


def add_item(parts: list[Part], data: bytes, call_id: str | None) -> None:
    """Add the parts that an item of the output is made of.

    Args:
        parts: the message so far.
        data: the item.
        call_id: our id of the call that the item is, where one was given out while it was streamed.
    """
    kind = decode_kind(data).type
    if kind not in {"message", "reasoning", "function_call"}:
        parts.append(ProviderBlock(DIALECT, msgspec.json.decode(data)))
        return
    item = decode_item(data)
    provider: dict[str, Any] = {"id": item.id}
    if kind == "message":
        provider["phase"] = item.phase
        _add_content(parts, item.content or (), _provider(provider))
    elif kind == "reasoning":
        texts = [_decode_content(piece).text or "" for piece in item.content or ()]
        summary = [piece.text or "" for piece in item.summary or ()]
        provider |= {"encrypted_content": item.encrypted_content, "content": bool(texts)}
        provider["summary"] = summary if len(summary) > 1 and not texts else None
        text = "\n\n".join(texts or summary)
        if text or item.encrypted_content:
            parts.append(Thinking(text, bool(item.encrypted_content), _provider(provider)))
    else:
        provider = {"id": item.call_id, "item_id": item.id}
        provider |= {"namespace": item.namespace, "caller": item.caller}
        parts.append(
            ToolCall(item.name or "", item.arguments or "{}", call_id or new_id(), _provider(provider))
        )


def _add_content(parts: list[Part], content: Sequence[msgspec.Raw], provider: Any) -> None:
    for data in content:
        piece = _decode_content(data)
        if piece.type == "output_text":
            parts.append(Text(piece.text or "", provider))
            parts += [
                _as_citation(note, piece.text or "") for note in piece.annotations or () if is_object(note)
            ]
        elif piece.type == "refusal":
            parts.append(Refusal(piece.refusal or "", provider))
        else:
            parts.append(ProviderBlock(DIALECT, msgspec.json.decode(data), provider))


def _as_citation(note: dict[str, Any], text: str) -> Citation:
    """Make a citation of an annotation, which is kept as it is too."""
    start, end = note.get("start_index"), note.get("end_index")
    start, end = (start, end) if type(start) is int and type(end) is int else (None, None)
    return Citation(
        str(note.get("url") or note.get("filename") or note.get("file_id") or ""),
        str(note.get("title") or ""),
        text[start:end] if start is not None else "",
        start,
        end,
        {DIALECT: note},
    )


def _provider(fields: dict[str, Any]) -> dict[str, Any] | None:
    """What of an item goes back to the provider, without what it left out."""
    known = {name: value for name, value in fields.items() if value}
    return {DIALECT: known} if known else None
