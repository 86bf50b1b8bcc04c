"""Answers of Anthropic's Messages: events of a stream, or whole answers → deltas and messages.

Wire format: https://platform.claude.com/docs/en/api/messages; streams:
https://platform.claude.com/docs/en/build-with-claude/streaming; tools that the provider runs, and answers that it pauses
meanwhile: https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Citation, Message, Part, ProviderBlock, Refusal, Text, Thinking, ToolCall
from gossamer.models.anthropic_request import DIALECT, as_input
from gossamer.models.base import Price, uncounted
from gossamer.schema import is_object
from gossamer.usage import Usage

__all__ = ["Assembly", "decode_answer", "decode_event", "finished"]

# A tool of the provider's may take long: the answer comes in pieces then, and the same request goes on with it.
_PAUSED = "pause_turn"
_MAX_PAUSES = 8

_WITHOUT_INPUT = frozenset(("text", "thinking", "redacted_thinking"))


# --- wire structs -------------------------------------------------------------------------------------------


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None


class _StopDetails(msgspec.Struct, gc=False):
    category: str | None = None
    explanation: str | None = None


class _Block(msgspec.Struct, gc=False):
    """A block of content, or the beginning of one."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"")
    citations: list[Any] | None = None


class _Delta(msgspec.Struct, gc=False):
    """A piece of a block, or the end of a message."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    container: Any = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer, or the beginning of a streamed one."""

    content: list[msgspec.Raw] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    container: Any = None
    usage: _Usage | None = None
    error: Any = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str = ""
    index: int = -1
    delta: _Delta | None = None
    content_block: msgspec.Raw = msgspec.Raw(b"")
    message: Answer | None = None
    usage: _Usage | None = None


decode_event = msgspec.json.Decoder(Event).decode
decode_answer = msgspec.json.Decoder(Answer).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_raw = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Said:
    """A block of an answer, as far as it has come.

    Args:
        kind: its type.
        begin: where its text begins among all pieces of text.
    """

    __slots__ = ("begin", "call_id", "citations", "end", "kind", "more", "name", "pieces", "raw", "signature")

    def __init__(self, kind: str, begin: int) -> None:
        self.kind = kind
        self.begin = begin
        self.end: int | None = None
        self.pieces: list[str] = []
        self.citations: list[Any] = []
        self.signature = ""
        self.call_id = ""
        self.name = ""
        self.raw: dict[str, Any] = {}
        self.more: dict[str, list[str]] = {}

    def take_unknown(self, delta: dict[str, Any]) -> None:
        """Add a piece of a kind that is not known to a block of such a kind: texts go on, the rest is laid over."""
        for name, value in delta.items():
            if isinstance(value, str) and name != "type":
                self.more.setdefault(name, []).append(value)
            elif name != "type":
                self.raw[name] = value

    def whole(self) -> dict[str, Any]:
        """The block of a kind that is kept as it is, with all its pieces."""
        raw = dict(self.raw)
        for name, pieces in self.more.items():
            begun = raw.get(name)
            raw[name] = (begun if isinstance(begun, str) else "") + "".join(pieces)
        if self.pieces:
            raw["input"] = _decode_raw(_encode(as_input("".join(self.pieces))))
        return raw


class Assembly:
    """What has been streamed so far; pieces are joined once, at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
        unknown: told of each kind of event that is not known.
    """

    __slots__ = (
        "blocks",
        "container",
        "finish_reason",
        "model",
        "open_text",
        "output_tool",
        "places",
        "stop_details",
        "text",
        "unknown",
        "usage",
        "used",
    )

    def __init__(self, output_tool: str | None, unknown: Callable[[str], None]) -> None:
        self.output_tool = output_tool
        self.unknown = unknown
        self.text: list[str] = []  # of all blocks, each of which knows its part
        self.blocks: list[_Said] = []
        self.places: dict[int, _Said] = {}  # the provider's index → block
        self.open_text = -2  # the index of the block whose text is coming; no event has this one
        self.finish_reason: str | None = None
        self.stop_details: _StopDetails | None = None
        self.model = ""
        self.container: Any = None  # where the provider ran code
        self.usage: _Usage | None = None
        self.used: list[_Usage | None] = []  # by the pieces of the answer that ended with a pause

    @property
    def paused(self) -> bool:
        """Whether the answer goes on when the provider is asked again, which it may be."""
        return self.finish_reason == _PAUSED and len(self.used) < _MAX_PAUSES

    def go_on(self) -> None:
        """Make ready for the next piece of an answer, whose blocks are numbered anew."""
        self.used.append(self.usage)
        self.usage = self.finish_reason = None
        self.places.clear()
        self._close_text()

    def take(self, event: Event, payload: bytes) -> Iterable[Delta]:
        """Add an event that is more than a piece of the text under way, and give its deltas."""
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            return self._take_delta(event.index, event.delta, payload)
        if kind == "content_block_start":
            return self.begin(event.index, event.content_block)
        if kind == "message_start" and event.message is not None:
            self.model = event.message.model or ""
            self.container = event.message.container or self.container
            self.usage = event.message.usage
        elif kind == "message_delta":
            if event.delta is not None:
                self.finish_reason = event.delta.stop_reason or self.finish_reason
                self.stop_details = event.delta.stop_details
                self.container = event.delta.container or self.container
            if event.usage is not None:
                self.usage = _later_usage(self.usage, event.usage)
        elif kind not in {"content_block_stop", "ping"}:
            self.unknown(kind)
        return ()

    def begin(self, index: int, raw: msgspec.Raw) -> list[Delta]:
        """Begin a block, which may be whole already, and give its deltas."""
        block = _decode_block(raw)
        said = self._open(index, block.type)
        if block.type == "text":
            said.citations += block.citations or ()
            self.open_text = index
            if block.text:
                self.text.append(block.text)
                return [TextDelta(block.text)]
        elif block.type == "thinking":
            said.signature = block.signature or ""
            if block.thinking:
                said.pieces.append(block.thinking)
                return [ThinkingDelta(block.thinking)]
        elif block.type == "redacted_thinking":
            said.raw = {"data": block.data or ""}
        elif block.type == "tool_use":
            return self._begin_call(said, block, raw)
        else:
            said.raw = _decode_raw(raw)
        return []

    def _begin_call(self, said: _Said, block: _Block, raw: msgspec.Raw) -> list[Delta]:
        said.call_id = new_id()
        said.name = block.name or ""
        more = {"type", "name", "input", "cache_control"}
        said.raw = {name: value for name, value in _decode_raw(raw).items() if name not in more}
        whole = bytes(block.input).decode()
        answers = said.name == self.output_tool
        deltas: list[Delta] = [] if answers else [ToolCallStarted(said.call_id, said.name)]
        if whole not in {"", "{}", "null"}:
            said.pieces.append(whole)
            deltas.append(TextDelta(whole) if answers else ToolArgumentsDelta(said.call_id, whole))
        return deltas

    def _close_text(self) -> None:
        if self.blocks:
            self.blocks[-1].end = len(self.text)
        self.open_text = -2

    def _open(self, index: int, kind: str) -> _Said:
        self._close_text()
        said = self.places[index] = _Said(kind, len(self.text))
        self.blocks.append(said)
        return said

    def _take_delta(self, index: int, delta: _Delta, payload: bytes) -> Sequence[Delta]:
        said = self.places.get(index)
        if delta.text is not None and index == self.open_text:
            return ()  # no text in it
        if delta.text is not None and (said is None or said.kind == "text"):
            self._open(index, "text")  # its block was not begun, or another has begun since
            self.open_text = index
            self.text.append(delta.text)
            return (TextDelta(delta.text),) if delta.text else ()
        kind = said.kind if said is not None else None
        if said is None:
            self.unknown(delta.type)
        elif delta.partial_json is not None and kind not in _WITHOUT_INPUT:
            said.pieces.append(delta.partial_json)
            if delta.partial_json and said.call_id:
                answers = said.name == self.output_tool
                words = delta.partial_json
                return (TextDelta(words) if answers else ToolArgumentsDelta(said.call_id, words),)
        elif delta.thinking is not None and kind == "thinking":
            said.pieces.append(delta.thinking)
            return (ThinkingDelta(delta.thinking),) if delta.thinking else ()
        elif delta.signature is not None and kind == "thinking":
            said.signature = delta.signature
        elif delta.citation is not None and kind == "text":
            said.citations.append(delta.citation)
        else:
            self.unknown(delta.type)
            if kind not in _WITHOUT_INPUT and not said.call_id:
                said.take_unknown(_decode_raw(payload)["delta"])
        return ()

    def whole_usage(self, price: Price | None) -> Usage:
        """What all pieces of the answer used; each is a call of its own, and priced by its own length."""
        usage = _as_usage(self.usage, price)
        for told in self.used:
            usage += _as_usage(told, price)
        return usage

    def message(self) -> Message:
        """The whole message, or what there is of one that is paused."""
        provider = {DIALECT: {"container": self.container}} if is_object(self.container) else None
        return Message("assistant", self._parts(), provider=provider)

    def _parts(self) -> tuple[Part, ...]:
        parts: list[Part] = []
        offset = 0
        for said in self.blocks:
            if said.kind == "text":
                text = "".join(self.text[said.begin : said.end])
                if text:
                    parts.append(Text(text))
                parts += [_as_citation(raw, offset, offset + len(text)) for raw in said.citations]
                offset += len(text)
            elif said.kind == "thinking":
                provider = {DIALECT: {"signature": said.signature}} if said.signature else None
                if said.pieces or provider:
                    parts.append(Thinking("".join(said.pieces), bool(said.signature), provider))
            elif said.kind == "redacted_thinking":
                parts.append(Thinking("", signed=True, provider={DIALECT: said.raw}))
            elif said.kind == "tool_use":
                provider = {DIALECT: said.raw} if said.raw else None
                parts.append(ToolCall(said.name, "".join(said.pieces) or "{}", said.call_id, provider))
            else:
                parts.append(ProviderBlock(DIALECT, said.whole()))
        if self.finish_reason == "refusal":
            parts.append(_as_refusal(self.stop_details))
        return tuple(parts) or (Text(""),)


def finished(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Leave out calls of the provider's own tools that came to no result: the API refuses them where a user speaks next.

    Beside calls of ours they stay: the provider runs them when it gets our results.
    """
    blocks = [part.raw for part in parts if isinstance(part, ProviderBlock) and is_object(part.raw)]
    answered = {block.get("tool_use_id") for block in blocks}
    lost = [
        block
        for block in blocks
        if block.get("type") == "server_tool_use" and block.get("id") not in answered
    ]
    if not lost or any(isinstance(part, ToolCall) for part in parts):
        return tuple(parts)
    kept = tuple(
        part
        for part in parts
        if not isinstance(part, ProviderBlock) or not any(part.raw is one for one in lost)
    )
    return kept or (Text(""),)


def _as_citation(raw: Any, start: int, end: int) -> Citation:
    """A source of the text block that lies there."""
    known: dict[str, Any] = raw if is_object(raw) else {}
    title = known.get("title") or known.get("document_title") or ""
    source = known.get("url") or known.get("source") or known.get("file_id") or title
    quote = known.get("cited_text") or ""
    return Citation(
        str(source or f"document {known.get('document_index', '')}"),
        str(title),
        str(quote),
        start,
        end,
        {DIALECT: raw},
    )


def _as_refusal(details: _StopDetails | None) -> Refusal:
    """What the provider says about its refusal, marked as its words and not the model's."""
    category = details.category if details is not None else None
    words = details.explanation if details is not None else None
    why = f" ({category})" if category else ""
    provider = {DIALECT: {"category": category}}
    return Refusal(words or f"The provider stopped the answer as a refusal{why}.", provider)


def _later_usage(first: _Usage | None, later: _Usage) -> _Usage:
    """Lay counts over earlier ones: those at the end are of the whole answer, and may leave out what is known."""
    if first is None:
        return later
    told = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
    return msgspec.structs.replace(first, **told)


def _as_usage(usage: _Usage | None, price: Price | None) -> Usage:
    if usage is None:
        return uncounted(price)
    read = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    long = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else None
    thought = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else None
    used = Usage(
        input_tokens=(usage.input_tokens or 0) + read + written,
        output_tokens=usage.output_tokens or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=thought or 0,
        model_calls=1,
        unpriced_calls=1 if price is None else 0,
    )
    return used if price is None else msgspec.structs.replace(used, cost=price.of(used, long or 0))
