"""The parts of Gemini's turns: what messages become in a request, and what media and sources of an answer become.

Wire format: https://ai.google.dev/api/caching#Content. A turn belongs to `user` or to `model`; results of tools belong to
`user`, and all results of an answer's calls to one turn, so neighbours of one role share a turn.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
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
    ProviderData,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.models.media import check_image, leading_results, note_of, unanswered
from gossamer.schema import is_array, is_object
from gossamer.view import EncodeMessage, MessageView

__all__ = [
    "DIALECT",
    "citations_of",
    "contents_of",
    "encode_message",
    "encode_message_signed",
    "media_of",
    "objects_of",
]

DIALECT = "gemini_chat"

# https://ai.google.dev/gemini-api/docs/image-understanding and /file-input-methods: what is read, and the largest
# request of 100 MB, of which base64 takes a third more.
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
_MAX_IMAGE_BYTES = 75_000_000
_FILE_TYPES = (
    "application/pdf",
    "application/json",
    "application/rtf",
    "text/",
    "image/",
    "audio/",
    "video/",
)

# Gemini 3 refuses the first call of an answer without a signature; a call that another model made has none. These
# words stand in for it, as the documentation says.
_NO_SIGNATURE = "skip_thought_signature_validator"

_BEGINS = "[The conversation begins here.]"
_EMPTY = "[empty message]"
_COMMA = ord(",")

_encode = msgspec.json.Encoder().encode


# --- turns --------------------------------------------------------------------------------------------------


def encode_message(message: Message, previous: Message | None) -> bytes:
    """Encode a message as parts, behind what separates it from the one before: a comma, or the turn of another role."""
    return _separator(message, previous) + _encode(_parts_of(message))[1:-1]


def encode_message_signed(message: Message, previous: Message | None) -> bytes:
    """Encode a message like `encode_message`, for models that want a signature with every answer that calls tools."""
    parts = _parts_of(message)
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = _NO_SIGNATURE
    return _separator(message, previous) + _encode(parts)[1:-1]


def contents_of(messages: MessageView, key: str, encode: EncodeMessage) -> list[bytes | memoryview]:
    """Give the turns of a request, to be joined.

    A request begins with a turn of the user; results whose calls are not in view are told as text.

    Args:
        messages: the conversation.
        key: under which the encoded messages are kept.
        encode: encodes one.
    """
    begin = leading_results(messages)
    opening = [part for late in messages[:begin] for part in _user_parts(unanswered(late))]
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


# --- messages → parts ---------------------------------------------------------------------------------------


def _parts_of(message: Message) -> list[dict[str, Any]]:
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
    for part in message.parts:
        if isinstance(part, Image):
            check_image(part, "Gemini", _IMAGE_TYPES, _MAX_IMAGE_BYTES)
        if not (isinstance(part, Text) and not part.text):
            parts.append(_part_of(part))
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
    if isinstance(part, Image):
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


# --- answers → parts ----------------------------------------------------------------------------------------


def media_of(media_type: str, encoded: str, provider: ProviderData | None) -> Part:
    """Make a part of media that the model made.

    Args:
        media_type: such as `image/png`.
        encoded: base64.
        provider: the part's data of this dialect.

    Raises:
        binascii.Error: media that are no base64.
    """
    data = base64.b64decode(encoded, validate=True)
    kind = media_type.partition("/")[0]
    if kind == "image":
        return Image(data=data, media_type=media_type, provider=provider)
    if kind == "audio":
        return Audio(data=data, media_type=media_type, provider=provider)
    return File(data=data, media_type=media_type, provider=provider)


def citations_of(text: str, grounding: Any, citations: Any) -> Iterator[Citation]:
    """Give what the answer rests on: the passages of a search, and works that are quoted at length.

    Args:
        text: the whole answer.
        grounding: `groundingMetadata`, as it came.
        citations: `citationMetadata`, as it came.
    """
    encoded = text.encode()
    chunks = objects_of(grounding, "groundingChunks")
    supports = objects_of(grounding, "groundingSupports")
    for support in supports:
        segment = support.get("segment")
        segment = segment if is_object(segment) else {}
        said = str(segment.get("text") or "")
        start, end = _place_of(said, encoded, text, segment)
        for index in support.get("groundingChunkIndices") or ():
            if type(index) is int and 0 <= index < len(chunks):
                source, title = _source_of(chunks[index])
                yield Citation(source, title, said, start, end, {DIALECT: {}})
    for chunk in () if supports else chunks:
        yield Citation(*_source_of(chunk), provider={DIALECT: {}})
    for cited in objects_of(citations, "citationSources") or objects_of(citations, "citations"):
        start, end = _place_of("", encoded, text, cited)
        source, title = str(cited.get("uri") or ""), str(cited.get("title") or "")
        yield Citation(source, title, "", start, end, {DIALECT: {}})


def objects_of(data: Any, name: str) -> list[dict[str, Any]]:
    """Give the objects of a list that is a field of an object; none where the data are of another form."""
    items = data.get(name) if is_object(data) else None
    return [item for item in items if is_object(item)] if is_array(items) else []


def _source_of(chunk: dict[str, Any]) -> tuple[str, str]:
    """The address and title of a passage, whatever it was found in: `web`, `maps`, `retrievedContext`."""
    places = [value for value in chunk.values() if is_object(value)]
    found = places[0] if places else {}
    source = found.get("uri") or found.get("sourceUri") or found.get("documentName") or ""
    return str(source), str(found.get("title") or "")


def _place_of(said: str, encoded: bytes, text: str, place: dict[str, Any]) -> tuple[int | None, int | None]:
    """Turn offsets in bytes into offsets in characters; where they do not fit the words, the words are looked for."""
    start, end = place.get("startIndex", 0), place.get("endIndex")
    if type(start) is int and type(end) is int and 0 <= start <= end <= len(encoded):
        words = encoded[start:end].decode("utf-8", "replace")
        if not said or words == said:
            begin = len(encoded[:start].decode("utf-8", "replace"))
            return begin, begin + len(words)
    found = text.find(said) if said else -1
    return (None, None) if found < 0 else (found, found + len(said))
