"""Gemini: what one content of a request holds, checked by itself and cut down to what the rest needs."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec

from gossamer.simulator.dialect import RequestError
from gossamer.simulator.signatures import check
from gossamer.simulator.tokens import count

__all__ = [
    "Call",
    "Content",
    "ContentSum",
    "Part",
    "bad",
    "call_text",
    "camel",
    "decode",
    "invalid",
    "read_content",
    "text_of",
]

_MEDIA_TOKENS = 258
_CALL_TOKENS = 4
_CACHED_CONTENT = 2048
_MEDIA = re.compile(
    r"image/(?:png|jpeg|webp|heic|heif)|audio/[\w.+-]+|video/[\w.+-]+|text/[\w.+-]+"
    r"|application/(?:pdf|json|rtf|x-javascript|x-python|x-typescript|x-sh)"
)
# What clients may send in place of a signature for calls that another model made.
_SKIPPING = frozenset({"skip_thought_signature_validator", "context_engineering_is_the_way_to_go"})
_URL_SAFE = str.maketrans("-_", "+/")
_encode = msgspec.json.encode

# --- wire structs -------------------------------------------------------------------------------------------


class _Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    mime_type: str = ""
    data: str = ""
    display_name: str = ""


class _FileData(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    mime_type: str = ""
    file_uri: str = ""
    display_name: str = ""


class _FunctionCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    args: dict[str, Any] | None = None
    id: str = ""


class _FunctionResponsePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    video_metadata: Any = None
    media_resolution: Any = None
    media_processing: Any = None
    audio_metadata: Any = None
    document_metadata: Any = None
    spreadsheet_metadata: Any = None


class _FunctionResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: str = ""
    response: dict[str, Any] | None = None
    id: str = ""
    parts: list[_FunctionResponsePart] | None = None
    scheduling: str = ""
    will_continue: bool = False


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A part of a content; one of its data fields is set."""

    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    function_call: _FunctionCall | None = None
    function_response: _FunctionResponse | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None
    video_metadata: Any = None
    media_resolution: Any = None
    media_processing: Any = None
    audio_metadata: Any = None
    audio_transcription: Any = None
    document_metadata: Any = None
    part_metadata: Any = None
    speech_metadata: Any = None
    spreadsheet_metadata: Any = None


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one side said, or the instructions."""

    parts: list[Part] = []
    role: str = ""


_content_decoder = msgspec.json.Decoder(Content)
_DATA = (
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
)

# --- other ways to write a field ----------------------------------------------------------------------------

_T = TypeVar("_T")
_REPEATED = frozenset(
    {"allowedFunctionNames", "contents", "functionDeclarations", "parts", "stopSequences", "tools"}
)
_OPAQUE = frozenset(
    {"args", "default", "enum", "example", "parametersJsonSchema", "partMetadata", "responseJsonSchema"}
)


def decode(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    """Decode what is written in any of the ways that Google reads. O(len(raw)).

    A field may be named `systemInstruction` or `system_instruction`, and Google's own client mixes them; it may be null
    instead of missing, and a list of one may be written without its brackets, as Google's own examples have it. What is
    written as in the reference costs one decoding, everything else three.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return decoder.decode(_encode(_renamed(msgspec.json.decode(raw))))


def camel(name: str) -> str:
    """A field's name in the way of the API's reference: `systemInstruction` for `system_instruction`."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _renamed(value: Any, around: str = "") -> Any:
    if isinstance(value, list):
        return [_renamed(each, around) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    if around == "properties":
        return {name: _renamed(each) for name, each in fields.items()}
    renamed: dict[str, Any] = {}
    for name, each in fields.items():
        known = camel(name)
        opaque = known in _OPAQUE or (known == "response" and around == "functionResponse")
        if not opaque and each is None:
            continue
        value = each if opaque else _renamed(each, known)
        renamed[known] = [value] if known in _REPEATED and not isinstance(value, list) else value
    return renamed


# --- refusals -----------------------------------------------------------------------------------------------

_KINDS = {"int": "TYPE_INT32", "str": "TYPE_STRING", "bool": "TYPE_BOOL", "float": "TYPE_FLOAT"}


def bad(message: str) -> RequestError:
    """A request that is refused with 400."""
    return RequestError(400, message)


def invalid(error: msgspec.ValidationError, where: str = "") -> RequestError:
    """What the provider says where a field is unknown or of a wrong type."""
    detail, _, path = str(error).partition(" - at `$")
    place = re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", (where + path.rstrip("`")).lstrip("."))
    if detail.startswith("Object contains unknown field"):
        name = detail.rpartition("`")[0].rpartition("`")[2]
        at = f" at '{place}'" if place else ""
        return bad(f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.')
    expected = re.match(r"Expected `(\w+)", detail)
    kind = f" ({_KINDS[expected[1]]})" if expected is not None and expected[1] in _KINDS else ""
    return bad(f"Invalid value at '{place}'{kind}, {detail}")


# --- content → sum ------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A function call.

    Attributes:
        name: of the function.
        id: of the call; may be empty.
        signature: what became of its thought signature.
    """

    name: str
    id: str
    signature: Literal["good", "missing", "corrupted"]


class ContentSum(NamedTuple):
    """What the rest of a request needs to know of a content.

    Attributes:
        role: who speaks.
        calls: function calls in order.
        results: function responses as (name, id, text).
        text: all text joined, thoughts left out.
        corrupted: whether a signature is none of the simulator's.
        tokens: in it.
    """

    role: str
    calls: tuple[Call, ...]
    results: tuple[tuple[str, str, str], ...]
    text: str
    corrupted: bool
    tokens: int


def read_content(raw: bytes, index: int) -> ContentSum:
    """Check a content and sum it up; short ones that were seen lately are not decoded again. O(len(raw)).

    Raises:
        RequestError: the content is one that the provider refuses wherever it stands.
    """
    try:
        return _sum_cached(raw) if len(raw) < _CACHED_CONTENT else _sum(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, f"contents[{index}]") from None
    except _PartError as error:
        raise bad(error.told(f"contents[{index}]")) from None


class _PartError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)

    def told(self, where: str) -> str:
        return str(self).replace("$", where)


def text_of(content: Content) -> str:
    """All text of a content."""
    return "".join(part.text for part in content.parts if part.text and not part.thought)


def call_text(name: str, arguments: str) -> str:
    """What the signature of a call stands for: the same however its arguments are written down."""
    try:
        plain = _numbers_decoder.decode(arguments)
    except msgspec.DecodeError:
        plain = arguments
    return f"{name} {_encode(plain, order='sorted').decode()}"


def _plain_number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


# Some clients make 1.0 of 1 and the other way round on the way back.
_numbers_decoder = msgspec.json.Decoder(Any, float_hook=_plain_number)


def _sum(raw: bytes) -> ContentSum:
    content = decode(_content_decoder, raw)
    if content.role not in {"", "user", "model", "function"}:
        raise bad("Please use a valid role: user, model.")
    if not content.parts:
        raise _PartError("* GenerateContentRequest.$.parts: contents.parts must not be empty.")
    calls: list[Call] = []
    results: list[tuple[str, str, str]] = []
    corrupted = False
    tokens = 0
    for index, part in enumerate(content.parts):
        where = f"$.parts[{index}]"
        _check_part(part, where)
        tokens += _tokens(part)
        signature = part.thought_signature
        call = part.function_call
        if call is not None:
            if not call.name:
                raise _PartError(
                    f"* GenerateContentRequest.{where}.function_call.name: Name cannot be empty."
                )
            said = call_text(call.name, _encode(call.args or {}).decode())
            calls.append(Call(call.name, call.id, _signature(signature, said)))
        elif signature and _signature(signature, None) == "corrupted":
            corrupted = True
        if part.function_response is not None:
            results.append(_result(part.function_response, where))
    role = "user" if content.role == "function" else content.role or "user"
    return ContentSum(role, tuple(calls), tuple(results), text_of(content), corrupted, tokens)


_sum_cached = lru_cache(maxsize=4096)(_sum)


def _signature(signature: str, said: str | None) -> Literal["good", "missing", "corrupted"]:
    if not signature:
        return "missing"
    if check(signature, said) or signature in _SKIPPING or _decoded(signature) in _SKIPPING:
        return "good"
    return "corrupted"


def _decoded(signature: str) -> str:
    # The field holds bytes: clients that keep the placeholder as bytes send it as base64.
    try:
        return b64decode(signature.translate(_URL_SAFE), validate=True).decode()
    except (Base64Error, ValueError):
        return ""


def _result(response: _FunctionResponse, where: str) -> tuple[str, str, str]:
    if not response.name:
        raise _PartError(f"* GenerateContentRequest.{where}.function_response.name: Name cannot be empty.")
    for each in response.parts or ():
        if each.inline_data is not None:
            _check_blob(each.inline_data, f"{where}.function_response.parts")
    said = response.response or {}
    # Most clients wrap a result that is no object of its own.
    value = (
        next(iter(said.values())) if len(said) == 1 and said.keys() & {"result", "output", "error"} else said
    )
    text = value if isinstance(value, str) else _encode(value).decode()
    return response.name, response.id, text


def _check_part(part: Part, where: str) -> None:
    fields = [name for name in _DATA if getattr(part, name) is not None]
    if not fields:
        if part.thought_signature:
            return
        raise _PartError(
            f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one initialized field"
        )
    if len(fields) > 1:
        raise _PartError(
            f"Invalid value at '{where}' (oneof), oneof field 'data' is already set. Cannot set '{fields[1]}'"
        )
    if part.inline_data is not None:
        _check_blob(part.inline_data, f"{where}.inline_data")
    if part.file_data is not None and not part.file_data.file_uri:
        raise _PartError(f"* GenerateContentRequest.{where}.file_data.file_uri: required field is missing")


def _check_blob(blob: _Blob, where: str) -> None:
    if not _MEDIA.fullmatch(blob.mime_type.partition(";")[0]):
        raise _PartError(f"Unsupported MIME type: {blob.mime_type}")
    try:
        b64decode(blob.data.translate(_URL_SAFE), validate=True)
    except (Base64Error, ValueError):
        start = blob.data[:20]
        raise _PartError(
            f"Invalid value at '{where}.data' (TYPE_BYTES), Base64 decoding failed for \"{start}\""
        ) from None


def _tokens(part: Part) -> int:
    if part.text is not None:
        return count(part.text)
    if part.function_call is not None:
        return _CALL_TOKENS + count(_encode(part.function_call.args or {}).decode())
    if part.function_response is not None:
        media = len(part.function_response.parts or ())
        said = _encode(part.function_response.response or {}).decode()
        return _CALL_TOKENS + count(said) + media * _MEDIA_TOKENS
    return 0 if part.inline_data is None and part.file_data is None else _MEDIA_TOKENS
