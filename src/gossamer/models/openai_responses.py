"""OpenAI's Responses, and whatever speaks the same.

Wire format: https://platform.openai.com/docs/api-reference/responses. Nothing is stored at the provider: each request
holds the whole conversation, and reasoning goes back encrypted, as
https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items asks for.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Message, Part, ProviderBlock, Refusal, Text, Thinking, ToolCall
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, Price, uncounted
from gossamer.models.openai_responses_request import DIALECT, body
from gossamer.models.openai_terms import ERROR_CODES, as_citation, is_openai, openai_access
from gossamer.models.output_tool import OUTPUT_TOOL, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.schema import is_object
from gossamer.usage import Usage
from gossamer.wire import Timeouts

__all__ = ["OpenAIResponses"]

_FINISH_REASONS: dict[str | None, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}

# Models that do not reason refuse to be asked for encrypted reasoning.
_NO_REASONING = re.compile(r"(ft:)?(gpt-3|gpt-4|gpt-5-chat|chatgpt-)")


# --- wire structs -------------------------------------------------------------------------------------------


class _Content(msgspec.Struct, gc=False):
    """A piece of an item: text, a refusal, a summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None


class _Item(msgspec.Struct, gc=False):
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


class _Kind(msgspec.Struct, gc=False):
    """As much of an item as tells what it is."""

    type: str = ""
    name: str | None = None
    phase: str | None = None


class _CacheWrites(msgspec.Struct, gc=False):
    ttl_12h_tokens: int | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _CacheWrites | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    """A whole answer."""

    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    model: str | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    """One event of a stream; what only some kinds have is read when the kind is known."""

    type: str = ""
    delta: Any = None
    output_index: Any = None
    summary_index: Any = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_content = msgspec.json.Decoder(_Content).decode

_THINKING = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
# What a model says on the way to its answer.
_COMMENTARY = "commentary"

_LAST = frozenset({"response.completed", "response.incomplete"})

# Events that say what others say as well.
_SILENT = re.compile(
    r"response\.(created|in_progress|queued|content_part\.(added|done)|output_text\.(delta|done|annotation\.added)"
    r"|refusal\.done|function_call_arguments\.done|reasoning_(text|summary_text|summary_part)\.done"
    # Tools that the provider runs: their items come whole when they are done.
    r"|(web_search|file_search|code_interpreter|image_generation|mcp)_call\.\w+|mcp_list_tools\.\w+"
    r"|(code_interpreter_call_code|mcp_call_arguments)\.(delta|done))"
)


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Assembly:
    """What has been streamed so far; items come whole when they are done, and become parts at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
        structured: whether the answer has a schema; what the model says beside it is thinking then.
    """

    __slots__ = ("answer", "aside", "calls", "items", "output_tool", "structured", "text")

    def __init__(self, output_tool: str | None, *, structured: bool) -> None:
        self.output_tool = output_tool
        self.structured = structured
        self.aside = -1  # the place of what is said beside the answer
        self.text: list[str] = []
        self.calls: dict[int, tuple[str, bool]] = {}  # place in the output → our id, whether it is the answer
        self.items: dict[int, bytes] = {}  # place in the output → the item, once it is done
        self.answer: _Answer | None = None

    def take(self, event: _Event) -> list[Delta] | None:
        """Add an event that is more than plain text, and give its deltas; None for a kind that is not known."""
        kind, delta, place = event.type, event.delta, event.output_index
        if type(place) is not int:
            place = len(self.items)
        if kind == "response.function_call_arguments.delta" and type(delta) is str:
            our_id, answers = self.calls.get(place) or self._begin(place, "")
            return [TextDelta(delta) if answers else ToolArgumentsDelta(our_id, delta)] if delta else []
        if kind in _THINKING or (kind == "response.output_text.delta" and place == self.aside):
            return [ThinkingDelta(delta)] if type(delta) is str and delta else []
        if kind == "response.reasoning_summary_part.added":
            return [ThinkingDelta("\n\n")] if event.summary_index else []
        if kind == "response.refusal.delta":
            return [TextDelta(delta)] if type(delta) is str and delta else []
        if kind == "response.output_item.added":
            item = _decode_kind(event.item)
            if self.structured and item.phase == _COMMENTARY:
                self.aside = place
            if item.type != "function_call":
                return []
            our_id, answers = self._begin(place, item.name or "")
            return [] if answers else [ToolCallStarted(our_id, item.name or "")]
        if kind == "response.output_item.done":
            return self._finish(place, bytes(event.item))
        return [] if _SILENT.fullmatch(kind) else None

    def _begin(self, place: int, name: str) -> tuple[str, bool]:
        call = self.calls[place] = (new_id(), name == self.output_tool)
        return call

    def _finish(self, place: int, data: bytes) -> list[Delta]:
        """Keep a whole item; a call that was never begun is told of now."""
        self.items[place] = data
        item = _decode_item(data)
        if item.type != "function_call" or place in self.calls:
            return []
        name, arguments = item.name or "", item.arguments or ""
        our_id, answers = self._begin(place, name)
        if answers:
            return [TextDelta(arguments)] if arguments else []
        return [
            ToolCallStarted(our_id, name),
            *([ToolArgumentsDelta(our_id, arguments)] if arguments else ()),
        ]

    def parts(self) -> tuple[Part, ...]:
        """The whole message."""
        output = self.answer.output or () if self.answer is not None else ()
        if len(output) > len(self.items):  # a whole answer, or a server that does not say when items are done
            self.items = {place: bytes(item) for place, item in enumerate(output)}
        parts: list[Part] = []
        for place in sorted(self.items):
            call_id = self.calls[place][0] if place in self.calls else None
            _add_item(parts, self.items[place], call_id, structured=self.structured)
        if not parts and self.text:  # a server that streams text and never says what it was a part of
            parts.append(Text("".join(self.text)))
        return tuple(parts) or (Text(""),)


def _add_item(parts: list[Part], data: bytes, call_id: str | None, *, structured: bool) -> None:
    """Add the parts that an item of the output is made of.

    Args:
        parts: the message so far.
        data: the item.
        call_id: our id of the call that the item is, where one was given out while it was streamed.
        structured: whether the answer has a schema.
    """
    kind = _decode_kind(data).type
    if kind not in {"message", "reasoning", "function_call"}:
        parts.append(ProviderBlock(DIALECT, msgspec.json.decode(data)))
        return
    item = _decode_item(data)
    provider: dict[str, Any] = {"id": item.id}
    if kind == "message":
        provider["phase"] = item.phase
        if structured and item.phase == _COMMENTARY:
            texts = [_decode_content(piece).text or "" for piece in item.content or ()]
            parts.append(Thinking("".join(texts), provider=_provider(provider)))
        else:
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
                as_citation(note, piece.text or "", {DIALECT: note})
                for note in piece.annotations or ()
                if is_object(note)
            ]
        elif piece.type == "refusal":
            parts.append(Refusal(piece.refusal or "", provider))
        else:
            parts.append(ProviderBlock(DIALECT, msgspec.json.decode(data), provider))


def _provider(fields: dict[str, Any]) -> dict[str, Any] | None:
    """What of an item goes back to the provider, without what it left out."""
    known = {name: value for name, value in fields.items() if value}
    return {DIALECT: known} if known else None


def _as_usage(usage: _Usage | None, price: Price | None) -> Usage:
    if usage is None:
        return uncounted(price)
    sent = usage.input_tokens_details or _InputDetails()
    reasoned = usage.output_tokens_details.reasoning_tokens if usage.output_tokens_details else None
    used = Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=sent.cached_tokens or 0,
        cache_write_tokens=sent.cache_write_tokens or 0,
        reasoning_tokens=reasoned or 0,
        model_calls=1,
        unpriced_calls=1 if price is None else 0,
    )
    if price is None:
        return used
    long = (
        sent.cache_write_tokens_details.ttl_12h_tokens
        if sent.cache_write_tokens_details is not None
        else None
    )
    return msgspec.structs.replace(used, cost=price.of(used, long or 0))


# --- errors -------------------------------------------------------------------------------------------------

_ERROR_CODES = ERROR_CODES


# --- the class ----------------------------------------------------------------------------------------------


class OpenAIResponses:
    """A model behind OpenAI's Responses, or any server that speaks the same.

    Of the settings, `stop` and `seed` are left aside: the API has neither; and it refuses `max_tokens` below 16.
    `prompt_cache` takes `30m` and `12h` (the least time, for the newer models) and `24h` and `in_memory` (the policy,
    for the older ones); other words are left aside. `thinking` is the effort, `off` is none. What `extra_body` holds
    is laid over the request; its objects and arrays are put together with ours.

    Hosted tools: `web_search`, `code_execution`, and any other type of the API's by its own name, with its fields as
    options. What they did comes as `ProviderBlock`s and goes back with the next request.

    Args:
        model: the model's name, as in `gpt-5-mini`.
        base_url: where the API begins, as in `http://localhost:8000/v1`; `OPENAI_BASE_URL`, then OpenAI, where None.
        api_key: the key; `OPENAI_API_KEY` where None. A server at a `base_url` of yours may need none.
        provider: named in errors and metrics; any but `openai` needs a `base_url`.
        capabilities: what the model can do.
        price: what it costs; the list price where None, if it is known.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used, or is missing for a provider that is not OpenAI.
    """

    __slots__ = ("_is_openai", "_reasons", "_transport", "capabilities", "name", "price", "provider")

    dialect = DIALECT
    least_output_tokens = 16  # the API refuses a lower cap

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        provider: str = "openai",
        capabilities: Capabilities = Capabilities(thinking=True),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        url, headers = openai_access("OpenAIResponses", "/responses", base_url, api_key, provider)
        self.name = model
        self.provider = provider
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(provider, model)
        self._is_openai = is_openai(url)
        self._reasons = capabilities.thinking and not _NO_REASONING.match(model)
        self._transport = Transport(
            url, headers, provider, error_codes=_ERROR_CODES, timeouts=timeouts, ca_file=ca_file
        )

    def __repr__(self) -> str:
        return f"OpenAIResponses({self.name!r}, provider={self.provider!r})"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`."""
        data = await self._transport.ask(self._body(request, stream=False), request.settings)
        assembly = _Assembly(self._output_tool(request), structured=request.output_schema is not None)
        self._take_answer(assembly, data)
        return self._response(assembly, request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = _Assembly(self._output_tool(request), structured=request.output_schema is not None)
        texts = assembly.text
        answer = await transport.stream(self._body(request, stream=True), request.settings, texts)
        try:
            while assembly.answer is None and (frames := await answer.frames()):
                for frame in frames:
                    payload = frame.data
                    if payload == b"[DONE]":
                        continue
                    try:
                        event = _decode(payload)
                        kind = event.type
                        if (
                            kind == "response.output_text.delta"
                            and type(text := event.delta) is str
                            and text
                            and event.output_index != assembly.aside
                        ):
                            texts.append(text)
                            yield TextDelta(text)
                            continue
                        if kind in _LAST:
                            self._take_answer(assembly, bytes(event.response))
                            break
                        if kind == "response.failed":
                            raise transport.error(bytes(event.response))
                        if kind == "error":
                            raise transport.error(payload)
                        deltas = assembly.take(event)
                    except UNREADABLE as error:
                        raise transport.invalid(f"an event that is none ({error})", payload) from error
                    if deltas is None:
                        transport.unknown(kind)
                        continue
                    for delta in deltas:
                        yield delta
            if assembly.answer is None:
                raise answer.cut_off()
            await answer.finish()
        finally:
            answer.close()
        yield self._response(assembly, request)

    def _take_answer(self, assembly: _Assembly, data: bytes) -> None:
        """Read a whole response, or what the last event tells of it.

        Raises:
            ModelError: it is none, or tells of a failure.
        """
        try:
            answer = _decode_answer(data)
        except UNREADABLE as error:
            raise self._transport.invalid(f"something that is no response ({error})", data) from error
        if answer.error is not None:
            raise self._transport.error(data)
        if answer.status not in {"completed", "incomplete"}:
            raise self._transport.invalid(f"a response whose status is {answer.status!r}", data)
        assembly.answer = answer

    def _output_tool(self, request: ModelRequest) -> str | None:
        """Name the tool through which the answer comes, or None where it comes as text."""
        return None if request.output_schema is None or self.capabilities.native_schema else OUTPUT_TOOL

    def _body(self, request: ModelRequest, *, stream: bool) -> bytes:
        """Encode a request; see `openai_responses_request.body`."""
        native = self.capabilities.native_schema
        return body(
            self.name,
            request,
            native=native,
            reasons=self._reasons,
            checks_images=self._is_openai,
            stream=stream,
        )

    def _response(self, assembly: _Assembly, request: ModelRequest) -> ModelResponse:
        answer = assembly.answer
        assert answer is not None
        try:
            parts = assembly.parts()
        except UNREADABLE as error:
            raise self._transport.invalid(
                f"an item that is none ({error})", b"".join(assembly.items.values())
            ) from error
        calls = any(isinstance(part, ToolCall) for part in parts)
        reason: FinishReason = "tool_calls" if calls else "stop"
        if answer.status == "incomplete":
            details = answer.incomplete_details
            reason = _FINISH_REASONS.get(details.reason if details else None, "other")
        if request.output_schema is not None and not self.capabilities.native_schema:
            parts, reason = take_answer(parts, reason)
        if any(isinstance(part, Refusal) for part in parts):
            reason = "refusal"
        return ModelResponse(
            Message("assistant", parts),
            _as_usage(answer.usage, self.price),
            reason,
            answer.model or self.name,
        )
