"""OpenAI's Chat Completions, and whatever speaks the same.

Wire format: https://platform.openai.com/docs/api-reference/chat. Thinking comes as `reasoning_content` from DeepSeek
and Qwen and as `reasoning` from OpenRouter and Groq.
"""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, AuthenticationError
from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Audio, File, Image, Message, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, ModelSettings, Price
from gossamer.models.media import IMAGE_TYPES, check_image, data_url, leading_results, note_of, unanswered
from gossamer.models.mistral import mistral_objects, split_content
from gossamer.models.openai_terms import ERROR_CODES, MAX_IMAGE_BYTES, prompt_cache_fields
from gossamer.models.output_tool import OUTPUT_TOOL, output_tool, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.schema import ToolSchema
from gossamer.usage import Usage
from gossamer.view import MessageView
from gossamer.wire import Timeouts

__all__ = ["OpenAIChat"]

_COMMA = ord(",")

# OpenAI's own models, at OpenAI and at Azure: strict schemas, and a field of their own for the longest answer.
_OPENAIS = frozenset({"openai", "azure"})

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
_encode = msgspec.json.Encoder().encode


# --- request → bytes ----------------------------------------------------------------------------------------


def _encode_message(message: Message, _: Message | None) -> bytes:
    """Encode a settled message, with the comma that goes behind it."""
    return _joined(_as_objects(message, send_thinking=False))


def _encode_in_tool_loop(message: Message, _: Message | None) -> bytes:
    """Encode a message whose thinking goes back to the provider."""
    return _joined(_as_objects(message, send_thinking=True))


def _encode_for_mistral(message: Message, previous: Message | None) -> bytes:
    """Encode a message in the form that Mistral takes."""
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
        check_image(part, "Chat Completions", IMAGE_TYPES, MAX_IMAGE_BYTES)
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


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema, ...], strict: bool) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple."""
    return _encode([_tool_object(tool, strict=strict) for tool in tools])


def _tool_object(tool: ToolSchema, *, strict: bool) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if strict and tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


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
        "reasoning_effort": settings.thinking,
        **(prompt_cache_fields(settings.prompt_cache, ("30m",)) if provider == "openai" else {}),
        **(settings.extra_body or {}),
    }
    return {name: value for name, value in fields.items() if value is not None}


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Assembly:
    """What has been streamed so far; pieces are joined once, at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
    """

    __slots__ = (
        "arguments",
        "calls",
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
        if self.text:
            parts.append(Text("".join(self.text)))
        if self.refusal:
            parts.append(Refusal("".join(self.refusal)))
        for (call_id, name, theirs), arguments in zip(self.calls, self.arguments, strict=True):
            provider = {OpenAIChat.dialect: {"id": theirs}} if theirs else None
            parts.append(ToolCall(name, "".join(arguments) or "{}", call_id, provider))
        return tuple(parts) or (Text(""),)


def _as_usage(usage: _Usage | None, price: Price | None) -> Usage:
    if usage is None:
        return Usage(model_calls=1)  # nothing was counted, so nothing can be priced
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

    __slots__ = (
        "_send_thinking",
        "_short_call_ids",
        "_transport",
        "capabilities",
        "name",
        "price",
        "provider",
    )

    dialect = "openai_chat"

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
        if provider == "openai":
            base_url = base_url or os.environ.get("OPENAI_BASE_URL")
            api_key = api_key or os.environ.get("OPENAI_API_KEY")
        elif not base_url:
            # The key of one provider must never go to another.
            raise ArgumentError(f"OpenAIChat(provider={provider!r}) needs the base_url= of that provider")
        if not api_key and not base_url:
            raise AuthenticationError(
                "OpenAIChat has no key: set OPENAI_API_KEY, or pass api_key= or the base_url= of a server that needs none",
                provider=provider,
            )
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        url = (base_url or "https://api.openai.com/v1").rstrip("/") + "/chat/completions"
        self.name = model
        self.provider = provider
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(provider, model)
        self._send_thinking = send_thinking
        self._short_call_ids = short_call_ids
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
            while not done and (frames := await answer.frames()):
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
        """Encode a request. Messages are encoded once for all requests of their conversation."""
        fields: dict[str, Any] = {"model": self.name}
        if stream:
            fields["stream"] = True
        if (
            stream and self.provider != "mistral"
        ):  # which refuses the field, and counts in its last chunk anyway
            fields["stream_options"] = {"include_usage": True}
        if request.settings is not None:
            fields |= _settings_fields(request.settings, self.provider)
        tools = request.tools
        choice = request.tool_choice
        schema = request.output_schema
        if schema is not None and self.capabilities.native_schema:
            format_ = {"name": schema.name, "schema": schema.schema, "strict": schema.strict}
            fields["response_format"] = {"type": "json_schema", "json_schema": format_}
        elif schema is not None:
            tools = (*tools, output_tool(schema))
            choice = choice or "required"
        if tools and choice is not None:
            named = {"type": "function", "function": {"name": choice}}
            fields["tool_choice"] = choice if choice in {"auto", "none", "required"} else named
        pieces: list[bytes | memoryview] = [_encode(fields)[:-1], b',"messages":[']
        if request.instructions:
            pieces += (_encode({"role": "system", "content": request.instructions}), b",")
        pieces += self._bodies(request.messages)
        while pieces[-1] == b"":
            pieces.pop()
        if pieces[-1][-1] == _COMMA:
            pieces[-1] = pieces[-1][:-1]
        if tools:
            pieces += (b'],"tools":', _encode_tools(tools, self.provider in _OPENAIS), b"}")
        else:
            pieces.append(b"]}")
        return b"".join(pieces)

    def _bodies(self, messages: MessageView) -> tuple[bytes | memoryview, ...]:
        if lost := leading_results(messages):
            results = [_encode_message(unanswered(messages[place]), None) for place in range(lost)]
            return b"".join(results), *self._bodies(messages.part(lost, len(messages)))
        if self._short_call_ids:
            return (messages.encoded(f"{self.dialect}:mistral", _encode_for_mistral),)
        if not self._send_thinking:
            return (messages.encoded(self.dialect, _encode_message),)
        begin = len(messages)  # the tool loop that is under way begins behind the last question
        while begin > 0 and messages[begin - 1].role != "user":
            begin -= 1
        settled = messages.part(0, begin).encoded(self.dialect, _encode_message)
        loop = messages.part(begin, len(messages)).encoded(f"{self.dialect}:loop", _encode_in_tool_loop)
        return settled, loop

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
