"""Anthropic Messages: what one message holds, checked by itself and cut down to what the rest of a request needs."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from gossamer.simulator.dialect import RequestError
from gossamer.simulator.signatures import check
from gossamer.simulator.tokens import count

__all__ = ["BlockSum", "CacheControl", "MessageSum", "Text", "bad", "invalid", "read_message"]

_IMAGE_BYTES = 5 * 1024 * 1024
_IMAGE_TOKENS = 1600
_DOCUMENT_TOKENS = 3000
_CALL_TOKENS = 4
_CACHED_MESSAGE = 2048
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_encode = msgspec.json.encode

# --- wire structs -------------------------------------------------------------------------------------------


class CacheControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mark: the prompt up to here is worth caching."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class _Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    cache_control: CacheControl | None = None


class Text(_Block, frozen=True, tag="text"):
    """Text of any role."""

    text: str
    citations: Any = None


class _Base64Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class _UrlSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="url"):
    url: str


class _FileSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="file"):
    file_id: str


class _Image(_Block, frozen=True, tag="image"):
    source: _Base64Image | _UrlSource | _FileSource
    transformations: Any = None


class _Base64Pdf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="base64"):
    media_type: Literal["application/pdf"]
    data: str


class _PlainText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    media_type: Literal["text/plain"]
    data: str


class _ContentSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="content"
):
    content: str | list[Text | _Image]


class _Document(_Block, frozen=True, tag="document"):
    source: _Base64Pdf | _PlainText | _UrlSource | _FileSource | _ContentSource
    title: str | None = None
    context: str | None = None
    citations: Any = None


class _SearchResult(_Block, frozen=True, tag="search_result"):
    source: str
    title: str
    content: list[Text]
    citations: Any = None


class _Thinking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class _RedactedThinking(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="redacted_thinking"
):
    data: str


class _ToolUse(_Block, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, msgspec.Raw]
    caller: Any = None
    toolset_name: str | None = None


class _ToolReference(_Block, frozen=True, tag="tool_reference"):
    tool_name: str


class _BrowserState(_Block, frozen=True, tag="browser_state"):
    tabs: Any
    state_changes: Any = None


class _ToolResult(_Block, frozen=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | _Image | _Document | _SearchResult | _ToolReference | _BrowserState] = ""
    is_error: bool | None = None
    toolset_name: str | None = None


class _Server(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    cache_control: CacheControl | None = None
    id: str = ""
    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"null")
    content: msgspec.Raw = msgspec.Raw(b"null")
    file_id: str = ""


class _ServerToolUse(_Server, frozen=True, tag="server_tool_use"):
    pass


class _WebSearchResult(_Server, frozen=True, tag="web_search_tool_result"):
    pass


class _WebFetchResult(_Server, frozen=True, tag="web_fetch_tool_result"):
    pass


class _CodeResult(_Server, frozen=True, tag="code_execution_tool_result"):
    pass


class _BashResult(_Server, frozen=True, tag="bash_code_execution_tool_result"):
    pass


class _EditorResult(_Server, frozen=True, tag="text_editor_code_execution_tool_result"):
    pass


class _ToolSearchResult(_Server, frozen=True, tag="tool_search_tool_result"):
    pass


class _ContainerUpload(_Server, frozen=True, tag="container_upload"):
    pass


_AnyBlock = (
    Text
    | _Image
    | _Document
    | _SearchResult
    | _Thinking
    | _RedactedThinking
    | _ToolUse
    | _ToolResult
    | _ServerToolUse
    | _WebSearchResult
    | _WebFetchResult
    | _CodeResult
    | _BashResult
    | _EditorResult
    | _ToolSearchResult
    | _ContainerUpload
)


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[_AnyBlock]


_message_decoder = msgspec.json.Decoder(_Message)

# --- refusals -----------------------------------------------------------------------------------------------

_KINDS = {
    "int": "a valid integer",
    "str": "a valid string",
    "array": "a valid list",
    "object": "a valid dictionary",
    "bool": "a valid boolean",
    "float": "a valid number",
}


def bad(message: str) -> RequestError:
    """A request that is refused with 400."""
    return RequestError(400, message)


def invalid(error: msgspec.ValidationError, where: str = "") -> RequestError:
    """What the provider says where a field is missing, unknown, or of a wrong type."""
    detail, _, path = str(error).partition(" - at `$")
    path = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", path.rstrip("`"))
    place = (where + path).lstrip(".")
    name = detail.rpartition("`")[0].rpartition("`")[2]
    inner = f"{place}.{name}" if place else name
    if detail.startswith("Object missing required field"):
        return bad(f"{inner}: Field required")
    if detail.startswith("Object contains unknown field"):
        return bad(f"{inner}: Extra inputs are not permitted")
    expected = re.match(r"Expected `(\w+)", detail)
    if expected is not None:
        detail = f"Input should be {_KINDS.get(expected[1], expected[1])}"
    elif detail.startswith("Invalid value ") and path.endswith(".type"):
        given = detail.removeprefix("Invalid value ")
        place = place.removesuffix(".type")
        detail = f"Input tag {given} found using 'type' does not match any of the expected tags"
    return bad(f"{place}: {detail}" if place else detail)


# --- message → sum ------------------------------------------------------------------------------------------


class BlockSum(NamedTuple):
    """One block of a message, or a piece of the prompt before the messages.

    Attributes:
        key: hash of its content, cache marks left out.
        tokens: in it.
        mark: for how long it is to be cached up to its end: `5m`, `1h`, or an empty string for not at all.
    """

    key: int
    tokens: int
    mark: str


class MessageSum(NamedTuple):
    """What the rest of a request needs to know of a message.

    Attributes:
        role: who speaks.
        blocks: in order.
        calls: tool calls as (id, name).
        results: tool results as (id of the call, text).
        leading: how many results come before any other block.
        text: all text joined.
        first: type of the first block.
        cacheable: index of the last block that a cache mark may stand on; -1 for none.
        opened: calls of the provider's own tools without a result here, as (id, name).
        closed: ids of such calls of an earlier message whose results are here.
    """

    role: str
    blocks: tuple[BlockSum, ...]
    calls: tuple[tuple[str, str], ...]
    results: tuple[tuple[str, str], ...]
    leading: int
    text: str
    first: str
    cacheable: int
    opened: tuple[tuple[str, str], ...] = ()
    closed: tuple[str, ...] = ()


def read_message(raw: bytes, index: int) -> MessageSum:
    """Check a message and sum it up; short ones that were seen lately are not decoded again. O(len(raw)).

    Raises:
        RequestError: the message is one that the provider refuses wherever it stands.
    """
    try:
        return _sum_cached(raw) if len(raw) < _CACHED_MESSAGE else _sum(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, f"messages.{index}") from None
    except _BlockError as error:
        raise bad(f"messages.{index}{error}") from None


class _BlockError(Exception):
    def __init__(self, block: int, message: str) -> None:
        super().__init__(f".content.{block}{message}")


def _sum(raw: bytes) -> MessageSum:
    message = _message_decoder.decode(raw)
    content = message.content
    blocks: list[_AnyBlock] = [Text(text=content)] if isinstance(content, str) and content else []
    if not isinstance(content, str):
        blocks = content
    _check_roles(message.role, blocks)
    sums: list[BlockSum] = []
    calls: list[tuple[str, str]] = []
    results: list[tuple[str, str]] = []
    texts: list[str] = []
    opened: dict[str, str] = {}
    closed: list[str] = []
    leading = 0
    cacheable = -1
    for index, block in enumerate(blocks):
        if isinstance(block, _ServerToolUse):
            if not block.id.startswith("srvtoolu_"):
                raise _BlockError(
                    index, ".server_tool_use.id: String should match pattern '^srvtoolu_[a-zA-Z0-9_]+$'"
                )
            opened[block.id] = block.name
        elif isinstance(block, _Server) and block.tool_use_id:
            _check_found(block, index)
            if opened.pop(block.tool_use_id, None) is None:
                closed.append(block.tool_use_id)
        elif isinstance(block, Text):
            _check_text(block.text)
            texts.append(block.text)
        elif isinstance(block, _ToolUse):
            _check_call_id(block.id, index, "tool_use.id")
            calls.append((block.id, block.name))
        elif isinstance(block, _ToolResult):
            _check_call_id(block.tool_use_id, index, "tool_result.tool_use_id")
            leading += index == leading
            results.append((block.tool_use_id, _result_text(block, index)))
        elif isinstance(block, _Thinking):
            if not check(block.signature, block.thinking):
                raise _BlockError(index, ": Invalid `signature` in `thinking` block")
        elif isinstance(block, _Image):
            _check_image(block, index)
        mark = "" if isinstance(block, _Thinking | _RedactedThinking) else _mark(block.cache_control)
        sums.append(BlockSum(_key(message.role, block), _tokens(block), mark))
        if not isinstance(block, _Thinking | _RedactedThinking):
            cacheable = index
    first = "" if not blocks else str(blocks[0].__struct_config__.tag)
    return MessageSum(
        message.role,
        tuple(sums),
        tuple(calls),
        tuple(results),
        leading,
        "".join(texts),
        first,
        cacheable,
        tuple(opened.items()),
        tuple(closed),
    )


_sum_cached = lru_cache(maxsize=4096)(_sum)


def _check_found(block: _Server, index: int) -> None:
    """Refuse what a search found where it is not as it was given out."""
    if not isinstance(block, _WebSearchResult):
        return
    try:
        pages = msgspec.json.decode(block.content, type=list[_Page])
    except msgspec.ValidationError:
        return  # an error, as the search may find one
    if any(not check(page.encrypted_content, page.url) for page in pages):
        raise _BlockError(index, ": Invalid `encrypted_content` in `search_result` block")


class _Page(msgspec.Struct, frozen=True):
    url: str
    encrypted_content: str


def _mark(control: CacheControl | None) -> str:
    return "" if control is None else control.ttl


def _key(role: str, block: _AnyBlock) -> int:
    if isinstance(block, Text):
        return hash((role, block.text))
    if not isinstance(block, _Thinking | _RedactedThinking) and block.cache_control is not None:
        block = msgspec.structs.replace(block, cache_control=None)
    return hash((role, _encode(block)))


def _tokens(block: _AnyBlock) -> int:
    if isinstance(block, Text):
        return count(block.text)
    if isinstance(block, _Image):
        return _IMAGE_TOKENS
    if isinstance(block, _Document):
        source = block.source
        return count(source.data) if isinstance(source, _PlainText) else _DOCUMENT_TOKENS
    if isinstance(block, _Thinking):
        return count(block.thinking)
    if isinstance(block, _ToolUse):
        return _CALL_TOKENS + count(_encode(block.input).decode())
    if isinstance(block, _ToolResult):
        content = block.content
        if isinstance(content, str):
            return _CALL_TOKENS + count(content)
        return _CALL_TOKENS + sum(
            _tokens(part) for part in content if not isinstance(part, _ToolReference | _BrowserState)
        )
    return count(_encode(block).decode())


def _check_roles(role: str, blocks: list[_AnyBlock]) -> None:
    for index, block in enumerate(blocks):
        tag = str(block.__struct_config__.tag)
        if role == "system" and not isinstance(block, Text):
            raise _BlockError(index, f": `{tag}` blocks cannot be in `system` messages")
        if role == "user" and isinstance(block, _ToolUse | _Thinking | _RedactedThinking):
            raise _BlockError(index, f": `{tag}` blocks can only be in `assistant` messages")
        if role == "assistant" and isinstance(block, _ToolResult | _Image | _Document):
            raise _BlockError(index, f": `{tag}` blocks can only be in `user` messages")


def _check_text(text: str) -> None:
    if not text:
        raise bad("messages: text content blocks must be non-empty")
    if text.isspace():
        raise bad("messages: text content blocks must contain non-whitespace text")


def _check_call_id(call_id: str, index: int, field: str) -> None:
    if not _CALL_ID.fullmatch(call_id):
        raise _BlockError(index, f".{field}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_image(block: _Image, index: int) -> None:
    source = block.source
    if not isinstance(source, _Base64Image):
        return
    if len(source.data) > _IMAGE_BYTES:
        raise _BlockError(
            index,
            f".image.source.base64: image exceeds 5 MB maximum: {len(source.data)} bytes > {_IMAGE_BYTES} bytes",
        )
    try:
        empty = not b64decode(source.data, validate=True)
    except (Base64Error, ValueError):
        raise _BlockError(index, ".image.source.base64.data: Invalid base64 data") from None
    if empty:
        raise _BlockError(index, ".image.source.base64: image cannot be empty")


def _result_text(block: _ToolResult, index: int) -> str:
    content = block.content
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content:
        if isinstance(part, Text):
            _check_text(part.text)
            texts.append(part.text)
        elif isinstance(part, _Image):
            _check_image(part, index)
    return "".join(texts)
