"""Anthropic's Messages.

Wire format: https://platform.claude.com/docs/en/api/messages, version 2023-06-01, which takes all that the later ones
do and sampling parameters too. Streams: https://platform.claude.com/docs/en/build-with-claude/streaming. Thinking:
https://platform.claude.com/docs/en/build-with-claude/thinking. Caching of prompts:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import msgspec

from gossamer.errors import (
    AuthenticationError,
    ContextLengthError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
)
from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import (
    Citation,
    Message,
    Part,
    ProviderBlock,
    Refusal,
    Text,
    Thinking,
    ToolCall,
)
from gossamer.models.anthropic_request import DIALECT, as_input, body
from gossamer.models.anthropic_schema import native_schema
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, Price, uncounted
from gossamer.models.output_tool import OUTPUT_TOOL, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, ErrorTold, Transport, read_error
from gossamer.schema import OutputSchema, is_object
from gossamer.usage import Usage
from gossamer.wire import Timeouts

__all__ = ["AnthropicChat"]

_VERSION = "2023-06-01"

_FINISH_REASONS: dict[str | None, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "other",  # a tool of the provider's takes long; the next request goes on with it
}

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
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Answer(msgspec.Struct, gc=False):
    """A whole answer, or the beginning of a streamed one."""

    content: list[msgspec.Raw] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str = ""
    index: int = -1
    delta: _Delta | None = None
    content_block: msgspec.Raw = msgspec.Raw(b"")
    message: _Answer | None = None
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
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


class _Assembly:
    """What has been streamed so far; pieces are joined once, at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
        unknown: told of each kind of event that is not known.
    """

    __slots__ = (
        "blocks",
        "finish_reason",
        "model",
        "open_text",
        "output_tool",
        "places",
        "stop_details",
        "text",
        "unknown",
        "usage",
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
        self.usage: _Usage | None = None

    def take(self, event: _Event, payload: bytes) -> Iterable[Delta]:
        """Add an event that is more than a piece of the text under way, and give its deltas."""
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:
            return self._take_delta(event.index, event.delta, payload)
        if kind == "content_block_start":
            return self.begin(event.index, event.content_block)
        if kind == "message_start" and event.message is not None:
            self.model = event.message.model or ""
            self.usage = event.message.usage
        elif kind == "message_delta":
            if event.delta is not None:
                self.finish_reason = event.delta.stop_reason or self.finish_reason
                self.stop_details = event.delta.stop_details
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

    def _open(self, index: int, kind: str) -> _Said:
        if self.blocks:
            last = self.blocks[-1]
            last.end = len(self.text)
        self.open_text = -2
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

    def parts(self) -> tuple[Part, ...]:
        """The whole message."""
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


# --- errors -------------------------------------------------------------------------------------------------

_NO_CREDIT = re.compile(r"credit balance is too low|reached your specified API usage limits", re.IGNORECASE)

_ERROR_CODES: dict[str, type[ModelError]] = {
    "authentication_error": AuthenticationError,
    "billing_error": QuotaExceededError,
    "not_found_error": NotFoundError,
    "overloaded_error": OverloadedError,
    "permission_error": AuthenticationError,
    "rate_limit_error": RateLimitError,
    "request_too_large": ContextLengthError,
    "timeout_error": ModelTimeoutError,
}


def _read_error(data: bytes) -> ErrorTold:
    """Read an error; an account without credit is an invalid request by its code, and only the words tell."""
    told = read_error(data)
    if told.code == "invalid_request_error" and _NO_CREDIT.search(told.message):
        return msgspec.structs.replace(told, code="billing_error")
    return told


# --- the class ----------------------------------------------------------------------------------------------


class AnthropicChat:
    """A Claude model behind Anthropic's Messages, or a server that speaks the same.

    Settings: `max_tokens` is 16,000 where it is not set, as the API wants a bound. `thinking` is an effort (`low` to
    `max`; the model decides how long it thinks, and a summary is shown; a budget of tokens for the models up to 4.5,
    which know no effort), a number of tokens for models that think on a budget, `between_tools`, or `off`; while a model thinks the API takes no `temperature`, and no `top_p` below
    0.95, so they are left out. `prompt_cache` is `5m` or `1h`: tools and instructions are marked, and the end of the
    conversation, so that each request reads what the last one wrote. `seed` has no counterpart and is left aside.
    In `extra_body`, tools are added to the agent's, and objects are merged with ours.

    A system message in the middle goes as a user's text between `<system>` tags: the role of that name is for few
    models and places. Arguments that are no JSON object are sent as `{"_raw": …}`. A schema that the API cannot
    express, such as one with free keys or one that is part of itself, is answered through a tool, which must be called;
    models that always think refuse to be made to, and want `tool_choice="auto"` set there.

    Args:
        model: the model's name, as in `claude-sonnet-5`.
        base_url: where the API begins, with or without `/v1`; `ANTHROPIC_BASE_URL`, then Anthropic, where None.
        api_key: the key; `ANTHROPIC_API_KEY` where None. A server at a `base_url` of yours may need none.
        capabilities: what the model can do.
        price: what it costs; the list price where None, if it is known.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used.
    """

    __slots__ = ("_transport", "capabilities", "name", "price")

    dialect = DIALECT
    provider = "anthropic"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        capabilities: Capabilities = Capabilities(thinking=True),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL")
        api_key = api_key or os.environ.get("ANTHROPIC_API_KEY")
        if not api_key and not base_url:
            raise AuthenticationError(
                "AnthropicChat has no key: set ANTHROPIC_API_KEY, or pass api_key= or the base_url= of a server that "
                "needs none",
                provider=self.provider,
            )
        headers = {"Content-Type": "application/json", "anthropic-version": _VERSION}
        if api_key:
            headers["x-api-key"] = api_key
        url = (base_url or "https://api.anthropic.com").rstrip("/").removesuffix("/v1") + "/v1/messages"
        self.name = model
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(self.provider, model)
        self._transport = Transport(
            url,
            headers,
            self.provider,
            error_codes=_ERROR_CODES,
            read_error=_read_error,
            timeouts=timeouts,
            ca_file=ca_file,
        )

    def __repr__(self) -> str:
        return f"AnthropicChat({self.name!r}, base_url={self._transport.url.removesuffix('/v1/messages')!r})"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`."""
        data = await self._transport.ask(self._body(request, stream=False), request.settings)
        assembly = _Assembly(self._output_tool(request), self._transport.unknown)
        try:
            answer = _decode_answer(data)
            if answer.error is None:
                for index, block in enumerate(answer.content or ()):
                    assembly.begin(index, block)
        except UNREADABLE as error:
            raise self._transport.invalid(f"an answer that is none ({error})", data) from error
        if answer.error is not None:
            raise self._transport.error(data)
        if answer.content is None:
            raise self._transport.invalid("no content", data)
        assembly.finish_reason = answer.stop_reason
        assembly.stop_details = answer.stop_details
        assembly.usage = answer.usage
        assembly.model = answer.model or ""
        return self._response(assembly)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = _Assembly(self._output_tool(request), transport.unknown)
        texts = assembly.text
        answer = await transport.stream(self._body(request, stream=True), request.settings, texts)
        try:
            done = False
            while not done and (frames := await answer.frames()):
                for frame in frames:
                    payload = frame.data
                    try:
                        event = _decode(payload)
                        delta = event.delta
                        if delta is None or event.index != assembly.open_text or not (text := delta.text):
                            kind = event.type
                            if kind == "message_stop":
                                done = True
                                break
                            if kind == "error":
                                raise transport.error(payload)
                            deltas = assembly.take(event, payload)
                        else:
                            texts.append(text)
                            deltas = (TextDelta(text),)
                    except UNREADABLE as error:
                        raise transport.invalid(f"an event that is none ({error})", payload) from error
                    for piece in deltas:
                        yield piece
            if not done and assembly.finish_reason is None:
                raise answer.cut_off()
            await answer.finish()
        finally:
            answer.close()
        yield self._response(assembly)

    def _output_tool(self, request: ModelRequest) -> str | None:
        """Name the tool through which the answer comes, or None where it comes as text."""
        schema = request.output_schema
        return None if schema is None or self._native(schema) is not None else OUTPUT_TOOL

    def _native(self, schema: OutputSchema) -> dict[str, Any] | None:
        """Give a schema as the API takes it; None where the answer must come through a tool."""
        return native_schema(schema) if self.capabilities.native_schema else None

    def _body(self, request: ModelRequest, *, stream: bool) -> bytes:
        """Encode a request; see `anthropic_request.body`."""
        schema = request.output_schema
        return body(self.name, request, None if schema is None else self._native(schema), stream=stream)

    def _response(self, assembly: _Assembly) -> ModelResponse:
        parts = assembly.parts()
        reason = _FINISH_REASONS.get(assembly.finish_reason, "other")
        if assembly.output_tool is not None:
            parts, reason = take_answer(parts, reason)
        if reason == "stop" and any(isinstance(part, ToolCall) for part in parts):
            reason = "tool_calls"  # some servers say "end_turn" whatever they did
        return ModelResponse(
            Message("assistant", parts),
            _as_usage(assembly.usage, self.price),
            reason,
            assembly.model or self.name,
        )
