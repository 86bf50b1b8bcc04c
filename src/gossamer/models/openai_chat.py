"""OpenAI's Chat Completions, and whatever speaks the same.

Wire format: https://platform.openai.com/docs/api-reference/chat. Thinking comes as `reasoning_content` from DeepSeek
and Qwen and as `reasoning` from OpenRouter and Groq.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Message, Part, Refusal, Text, Thinking, ToolCall
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, Price, uncounted
from gossamer.models.mistral import split_content
from gossamer.models.openai_chat_request import DIALECT, Form, body
from gossamer.models.openai_terms import ERROR_CODES, as_citation, is_openai, openai_access
from gossamer.models.output_tool import OUTPUT_TOOL, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.schema import is_object
from gossamer.usage import Usage
from gossamer.wire import Timeouts

__all__ = ["OpenAIChat"]

_FINISH_REASONS: dict[str | None, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


# --- wire structs -------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    """A message, or a piece of one."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    annotations: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    """A whole answer, or one chunk of a stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Assembly:
    """What has been streamed so far; pieces are joined once, at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
    """

    __slots__ = (
        "arguments",
        "calls",
        "citations",
        "finish_reason",
        "model",
        "output_tool",
        "places",
        "refusal",
        "text",
        "thinking",
        "usage",
    )

    def __init__(self, output_tool: str | None) -> None:
        self.output_tool = output_tool
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.refusal: list[str] = []
        self.citations: list[Any] = []
        self.calls: list[tuple[str, str, str | None]] = []  # our id, name, the provider's id
        self.arguments: list[list[str]] = []
        self.places: dict[int, int] = {}  # the provider's index → place in `calls`
        self.finish_reason: str | None = None
        self.model = ""
        self.usage: _Usage | None = None

    def take(self, said: _Said) -> list[Delta]:
        """Add a piece that is more than plain text, and give its deltas."""
        deltas: list[Delta] = []
        thinking = said.reasoning_content or said.reasoning
        text = said.content
        if isinstance(text, list):
            text, thought = split_content(text)
            thinking = thinking or thought
        if thinking:
            self.thinking.append(thinking)
            deltas.append(ThinkingDelta(thinking))
        if text:
            self.text.append(text)
            deltas.append(TextDelta(text))
        if said.refusal:
            self.refusal.append(said.refusal)
            deltas.append(TextDelta(said.refusal))
        self.citations += said.annotations or ()
        for call in said.tool_calls or ():
            self._take_call(call, deltas)
        return deltas

    def _take_call(self, call: _ToolCall, deltas: list[Delta]) -> None:
        function = call.function or _Function()
        name, arguments = function.name or "", function.arguments
        place = self._place_of(call, name)
        if place is None:
            place = len(self.calls)
            self.calls.append((new_id(), name, call.id or None))
            self.arguments.append([])
            if call.index is not None:
                self.places[call.index] = place
            if name != self.output_tool:
                deltas.append(ToolCallStarted(self.calls[place][0], name))
        if arguments:
            self.arguments[place].append(arguments)
            our_id, known_name, _ = self.calls[place]
            answers = known_name == self.output_tool
            deltas.append(TextDelta(arguments) if answers else ToolArgumentsDelta(our_id, arguments))

    def _place_of(self, call: _ToolCall, name: str) -> int | None:
        """Find the call that this is a piece of; None where it begins a new one."""
        if call.index is None:
            # Without an index a name begins a call, unless it comes again with the same id.
            if not self.calls or (name and not (call.id and call.id == self.calls[-1][2])):
                return None
            return len(self.calls) - 1
        place = self.places.get(call.index)
        # Some servers give every call the index 0 and tell them apart by id.
        if place is not None and call.id and name and self.calls[place][2] not in {None, call.id}:
            return None
        return place

    def parts(self) -> tuple[Part, ...]:
        """The whole message."""
        parts: list[Part] = []
        if self.thinking:
            parts.append(Thinking("".join(self.thinking)))
        text = "".join(self.text)
        if text:
            parts.append(Text(text))
        parts += [
            as_citation(cited, text, {DIALECT: note})
            for note in self.citations
            if is_object(note) and is_object(cited := note.get("url_citation"))
        ]
        if self.refusal:
            parts.append(Refusal("".join(self.refusal)))
        for (call_id, name, theirs), arguments in zip(self.calls, self.arguments, strict=True):
            provider = {DIALECT: {"id": theirs}} if theirs else None
            parts.append(ToolCall(name, "".join(arguments) or "{}", call_id, provider))
        return tuple(parts) or (Text(""),)


def _as_usage(usage: _Usage | None, price: Price | None) -> Usage:
    if usage is None:
        return uncounted(price)
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    written = usage.prompt_tokens_details.cache_write_tokens if usage.prompt_tokens_details else None
    reasoned = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    used = Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=cached or usage.prompt_cache_hit_tokens or 0,
        cache_write_tokens=written or 0,
        reasoning_tokens=reasoned or 0,
        model_calls=1,
        unpriced_calls=1 if price is None else 0,
    )
    return used if price is None else msgspec.structs.replace(used, cost=price.of(used))


# --- errors -------------------------------------------------------------------------------------------------

_ERROR_CODES = ERROR_CODES


# --- the class ----------------------------------------------------------------------------------------------


class OpenAIChat:
    """A model behind OpenAI's Chat Completions, or any server that speaks the same.

    `prompt_cache` takes `30m` (newer models), `24h` and `in_memory` (older ones) at OpenAI; other words are left aside.
    The hosted tool `web_search` becomes `web_search_options`, which OpenAI's search models, OpenRouter and Perplexity
    take; other hosted tools are sent as they are to servers whose tools are more than functions.

    Args:
        model: the model's name, as in `gpt-5-mini`.
        base_url: where the API begins, as in `http://localhost:8000/v1`; `OPENAI_BASE_URL`, then OpenAI, where None.
        api_key: the key; `OPENAI_API_KEY` where None. A server at a `base_url` of yours may need none.
        provider: named in errors and metrics; any but `openai` needs a `base_url`.
        capabilities: what the model can do.
        price: what it costs; the list price where None, if it is known.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.
        send_thinking: give the model its own thinking back while a tool loop lasts, as DeepSeek asks for.
        short_call_ids: write messages as Mistral takes them, with call ids of nine characters.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used, or is missing for a provider that is not OpenAI.
    """

    __slots__ = ("_form", "_transport", "capabilities", "name", "price", "provider")

    dialect = DIALECT

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        provider: str = "openai",
        capabilities: Capabilities = Capabilities(),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
        send_thinking: bool = False,
        short_call_ids: bool = False,
    ) -> None:
        url, headers = openai_access("OpenAIChat", "/chat/completions", base_url, api_key, provider)
        self.name = model
        self.provider = provider
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(provider, model)
        self._form = Form(
            provider, send_thinking, short_call_ids, is_openai(url), capabilities.images, capabilities.files
        )
        self._transport = Transport(
            url, headers, provider, error_codes=_ERROR_CODES, timeouts=timeouts, ca_file=ca_file
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, provider={self.provider!r})"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`."""
        data = await self._transport.ask(self._body(request, stream=False), request.settings)
        try:
            answer = _decode(data)
        except UNREADABLE as error:
            raise self._transport.invalid(f"something that is no chat completion ({error})", data) from error
        if answer.error is not None:
            raise self._transport.error(data)
        if not answer.choices or answer.choices[0].message is None:
            raise self._transport.invalid("no choices", data)
        assembly = _Assembly(self._output_tool(request))
        said = answer.choices[0].message
        for place, call in enumerate(said.tool_calls or ()):
            call.index = place  # each is a whole call, whatever ids it lacks
        assembly.take(said)
        assembly.finish_reason = answer.choices[0].finish_reason
        assembly.usage = answer.usage
        assembly.model = answer.model or self.name
        return self._response(assembly, request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = _Assembly(self._output_tool(request))
        texts = assembly.text
        answer = await transport.stream(self._body(request, stream=True), request.settings, texts)
        try:
            done = False
            while not done and (
                frames := await (answer.frames() if assembly.finish_reason is None else answer.late_frames())
            ):
                for frame in frames:
                    payload = frame.data
                    if payload == b"[DONE]":
                        done = True
                        break
                    try:
                        chunk = _decode(payload)
                    except UNREADABLE as error:
                        raise transport.invalid(f"a chunk that is none ({error})", payload) from error
                    if chunk.choices:
                        choice = chunk.choices[0]
                        said = choice.delta
                        if said is not None:
                            text = said.content
                            if (
                                type(text) is str
                                and text
                                and said.tool_calls is None
                                and said.reasoning_content is None
                                and said.reasoning is None
                                and said.refusal is None
                                and said.annotations is None
                            ):
                                texts.append(text)
                                yield TextDelta(text)
                            else:
                                for delta in assembly.take(said):
                                    yield delta
                        if choice.finish_reason is not None:
                            assembly.finish_reason = choice.finish_reason
                    if chunk.usage is not None:
                        assembly.usage = chunk.usage
                    if chunk.model and not assembly.model:
                        assembly.model = chunk.model
                    if chunk.error is not None:
                        raise transport.error(payload)
            if not done and assembly.finish_reason is None:
                raise answer.cut_off()
            await answer.finish()
        finally:
            answer.close()
        yield self._response(assembly, request)

    def _output_tool(self, request: ModelRequest) -> str | None:
        """Name the tool through which the answer comes, or None where it comes as text."""
        return None if request.output_schema is None or self.capabilities.native_schema else OUTPUT_TOOL

    def _body(self, request: ModelRequest, *, stream: bool) -> bytes:
        """Encode a request; see `openai_chat_request.body`."""
        return body(self.name, request, self._form, native=self.capabilities.native_schema, stream=stream)

    def _response(self, assembly: _Assembly, request: ModelRequest) -> ModelResponse:
        parts = assembly.parts()
        reason = _FINISH_REASONS.get(assembly.finish_reason, "other")
        if request.output_schema is not None and not self.capabilities.native_schema:
            parts, reason = take_answer(parts, reason)
        if any(isinstance(part, Refusal) for part in parts):
            reason = "refusal"
        elif reason == "stop" and assembly.calls and isinstance(parts[-1], ToolCall):
            reason = "tool_calls"  # some servers say "stop" whatever they did
        return ModelResponse(
            Message("assistant", parts),
            _as_usage(assembly.usage, self.price),
            reason,
            assembly.model or self.name,
        )
