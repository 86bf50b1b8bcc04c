"""Ollama's own chat API.

Wire format: https://docs.ollama.com/api/chat, streams as https://docs.ollama.com/api/streaming: a line of JSON each.
"""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gossamer.errors import ModelError
from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Image, Message, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from gossamer.models.base import (
    Capabilities,
    FinishReason,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    Price,
    uncounted,
)
from gossamer.models.extra_body import lay_over, with_tools
from gossamer.models.hosted import hosted_tools, no_such_tool
from gossamer.models.media import ImageRules, fit_images, note_of, told_media
from gossamer.models.output_tool import OUTPUT_TOOL, output_tool, take_answer
from gossamer.models.pairing import paired
from gossamer.models.presets import server_url
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.schema import ToolSchema, is_object
from gossamer.usage import Usage
from gossamer.wire import NDJSONDecoder, Timeouts

__all__ = ["OllamaChat"]

_COMMA = ord(",")

# The runners decode these; a model may take fewer. Pictures have no limit of size but the request's.
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"})
_IMAGE_RULES = ImageRules("Ollama", _IMAGE_TYPES, 100 * 1024 * 1024)

_THINKING: dict[str, bool] = {"on": True, "true": True, "off": False, "none": False, "false": False}

_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length", None: "stop"}


# --- wire structs -------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _ToolCall(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    """A message, or a piece of one."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Answer(msgspec.Struct, gc=False):
    """A whole answer, or one line of a stream."""

    message: _Said | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


# --- request → bytes ----------------------------------------------------------------------------------------


def _encode_message(message: Message, _: Message | None) -> bytes:
    """Encode a message, with the comma that goes behind it."""
    objects = _as_objects(fit_images(message, _IMAGE_RULES))
    return _encode(objects)[1:-1] + b"," if objects else b""


def _encode_for_blind(message: Message, previous: Message | None) -> bytes:
    """Encode a message for a model that sees no pictures: it is told of them."""
    return _encode_message(told_media(message, images=False, files=True), previous)


def _as_objects(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return _tool_objects(message)
    if message.role == "assistant":
        return [_assistant_object(message)]
    said = {"role": message.role, **_as_content(message.parts)}
    if message.author:
        said["content"] = f"{message.author}: {said['content']}"
    return [said]


def _assistant_object(message: Message) -> dict[str, Any]:
    thoughts = [part for part in message.parts if isinstance(part, Thinking)]
    said: dict[str, Any] = {"role": "assistant"}
    said |= _as_content(tuple(part for part in message.parts if not isinstance(part, Thinking | ToolCall)))
    # The thoughts of other providers' models are not its own.
    thinking = "".join(
        part.text for part in thoughts if part.provider and OllamaChat.dialect in part.provider
    )
    if thinking:
        said["thinking"] = thinking
    calls = message.tool_calls
    if calls:
        said["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _arguments_of(call)}}
            for call in calls
        ]
    return said


def _arguments_of(call: ToolCall) -> dict[str, Any]:
    """Give the arguments as the object that Ollama wants; what is none goes under `_raw`, so that it stays visible."""
    try:
        arguments = msgspec.json.decode(call.arguments)
    except UNREADABLE:
        arguments = None
    return arguments if is_object(arguments) else {"_raw": call.arguments}


def _tool_objects(message: Message) -> list[dict[str, Any]]:
    """One object for each result; media, which Ollama's models look for in users' messages, follow in one."""
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
        objects.append(
            {"role": "tool", "content": content, "tool_name": part.name, "tool_call_id": part.call_id}
        )
    if media:
        objects.append({"role": "user", **_as_content(tuple(media))})
    return objects


def _as_content(parts: tuple[Part, ...]) -> dict[str, Any]:
    """Split parts into text and pictures; of what is neither the model is told."""
    texts: list[str] = []
    images: list[str] = []
    for part in parts:
        if isinstance(part, Text | Refusal):
            texts.append(part.text)
        elif isinstance(part, Image) and part.data is not None and part.media_type in _IMAGE_TYPES:
            images.append(base64.b64encode(part.data).decode())
        else:
            texts.append(note_of(part))
    said: dict[str, Any] = {"content": "\n".join(texts) if len(texts) > 1 else "".join(texts)}
    if images:
        said["images"] = images
    return said


@functools.lru_cache(maxsize=256)
def _encode_tools(tools: tuple[ToolSchema, ...]) -> bytes:
    """Encode the schemas of a tuple of tools, once for each tuple."""
    return _encode([_tool_object(tool) for tool in tools])


def _tool_object(tool: ToolSchema) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _settings_fields(settings: ModelSettings) -> dict[str, Any]:
    options = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "num_predict": settings.max_tokens,
        "stop": settings.stop,
        "seed": settings.seed,
    }
    fields: dict[str, Any] = {}
    options = {name: value for name, value in options.items() if value is not None}
    if options:
        fields["options"] = options
    if settings.thinking is not None:
        fields["think"] = _THINKING.get(settings.thinking.lower(), settings.thinking)
    if settings.prompt_cache is not None:
        cache = settings.prompt_cache
        fields["keep_alive"] = int(cache) if re.fullmatch(r"-?\d+", cache) else cache
    return fields


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Assembly:
    """What has been streamed so far; pieces are joined once, at the end.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
    """

    __slots__ = ("calls", "last", "model", "output_tool", "text", "thinking")

    def __init__(self, output_tool: str | None) -> None:
        self.output_tool = output_tool
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.calls: list[ToolCall] = []
        self.model = ""
        self.last: _Answer | None = None

    def take(self, said: _Said) -> list[Delta]:
        """Add a piece that is more than plain text, and give its deltas."""
        deltas: list[Delta] = []
        if said.thinking:
            self.thinking.append(said.thinking)
            deltas.append(ThinkingDelta(said.thinking))
        if said.content:
            self.text.append(said.content)
            deltas.append(TextDelta(said.content))
        for call in said.tool_calls or ():
            self._take_call(call, deltas)
        return deltas

    def _take_call(self, piece: _ToolCall, deltas: list[Delta]) -> None:
        """Add a call, which always comes whole."""
        function = piece.function or _Function()
        arguments = bytes(function.arguments).decode()
        provider = {OllamaChat.dialect: {"id": piece.id}} if piece.id else None
        call = ToolCall(function.name, "{}" if arguments == "null" else arguments, new_id(), provider)
        self.calls.append(call)
        if call.name == self.output_tool:
            deltas.append(TextDelta(call.arguments))
        else:
            deltas += (ToolCallStarted(call.id, call.name), ToolArgumentsDelta(call.id, call.arguments))

    def parts(self) -> tuple[Part, ...]:
        """The whole message."""
        parts: list[Part] = []
        if self.thinking:
            parts.append(Thinking("".join(self.thinking), provider={OllamaChat.dialect: {}}))
        if self.text:
            parts.append(Text("".join(self.text)))
        return (*parts, *self.calls) or (Text(""),)


def _is_half(line: bytes, error: Exception) -> bool:
    """Tell whether a line that cannot be read is the beginning of one that could."""
    return line.startswith(b"{") and not isinstance(error, msgspec.ValidationError)


def _as_usage(last: _Answer | None, price: Price | None) -> Usage:
    if last is None or (last.prompt_eval_count is None and last.eval_count is None):
        return uncounted(price)
    used = Usage(
        input_tokens=last.prompt_eval_count or 0,
        output_tokens=last.eval_count or 0,
        model_calls=1,
        unpriced_calls=1 if price is None else 0,
    )
    return used if price is None else msgspec.structs.replace(used, cost=price.of(used))


# --- errors -------------------------------------------------------------------------------------------------

# Ollama has no codes: an error is `{"error": "words"}`, and its status decides.
_ERROR_CODES: dict[str, type[ModelError]] = {}


# --- the class ----------------------------------------------------------------------------------------------


class OllamaChat:
    """A model of an Ollama server, by Ollama's own API.

    Of `ModelSettings`: `thinking` is `on`, `off`, or the level that a model such as gpt-oss takes; `prompt_cache`
    becomes `keep_alive`, for the server's cache of the prompt lives as long as the model stays loaded; `tool_choice` is
    kept to for `none` alone, as Ollama can force no call, and `parallel_tool_calls` is left aside. What else Ollama
    takes goes through `extra_body`, as in `{"options": {"num_ctx": 16384}}`.

    A schema of the answer constrains every word, so that no tool could be called beside it: where a request has tools,
    the answer comes through a tool too. Pictures by URL, sound and documents are told to the model, not shown. A call
    whose arguments are no JSON object, which only a model of another provider can have made, goes as `{"_raw": text}`.

    Args:
        model: the model's name, as in `qwen3:8b`.
        base_url: where the server is, with or without scheme and port; `OLLAMA_HOST`, then this machine, where None.
        api_key: the key of a server that wants one.
        capabilities: what the model can do.
        price: what it costs; the list price where None, if it is known.
        timeouts: how long to wait for the server; it may be silent while it loads a model.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        ArgumentError: the URL cannot be used.
    """

    __slots__ = ("_transport", "capabilities", "name", "price", "provider")

    dialect = "ollama_chat"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        capabilities: Capabilities = Capabilities(files=False, thinking=True),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        url = server_url(base_url or os.environ.get("OLLAMA_HOST") or "127.0.0.1") + "/api/chat"
        self.name = model
        self.provider = "ollama"
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(self.provider, model)
        self._transport = Transport(
            url, headers, self.provider, error_codes=_ERROR_CODES, timeouts=timeouts, ca_file=ca_file
        )

    def __repr__(self) -> str:
        return f"OllamaChat({self.name!r})"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`."""
        data = await self._transport.ask(self._body(request, stream=False), request.settings)
        try:
            answer = _decode(data)
        except UNREADABLE as error:
            raise self._transport.invalid(f"something that is no answer of a chat ({error})", data) from error
        if answer.error is not None:
            raise self._transport.error(data)
        if answer.message is None:
            raise self._transport.invalid("no message", data)
        assembly = _Assembly(self._output_tool(request))
        assembly.take(answer.message)
        assembly.last = answer
        assembly.model = answer.model or self.name
        return self._response(assembly, request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = _Assembly(self._output_tool(request))
        texts = assembly.text
        decoder = NDJSONDecoder()
        answer = await transport.stream(
            self._body(request, stream=True), request.settings, texts, decoder=decoder
        )
        try:
            done = began = ended = False
            while not done and not ended:
                frames = await answer.frames()
                if not frames:
                    ended = True
                    rest = decoder.close()  # a last line may lack its line feed, or be half a line
                    frames = [rest] if rest is not None else []
                for frame in frames:
                    payload = frame.data
                    try:
                        chunk = _decode(payload)
                    except UNREADABLE as error:
                        if ended and (began or _is_half(payload, error)):
                            raise answer.cut_off() from error
                        raise transport.invalid(f"a line that is no chunk ({error})", payload) from error
                    said = chunk.message
                    if said is not None:
                        text = said.content
                        if text and said.tool_calls is None and not said.thinking:
                            texts.append(text)
                            yield TextDelta(text)
                        else:
                            for delta in assembly.take(said):
                                yield delta
                    if chunk.done:
                        assembly.last = chunk
                        assembly.model = chunk.model or self.name
                        done = True
                        break
                    if said is None:
                        if chunk.error is not None:
                            raise transport.error(payload)
                        transport.unknown("line without a message")
                began = True
            if not done:
                raise answer.cut_off()
            await answer.finish()
        finally:
            answer.close()
        yield self._response(assembly, request)

    def _output_tool(self, request: ModelRequest) -> str | None:
        """Name the tool through which the answer comes, or None where it comes as text."""
        if request.output_schema is None or (self.capabilities.native_schema and not request.tools):
            return None
        return OUTPUT_TOOL

    def _body(self, request: ModelRequest, *, stream: bool) -> bytes:
        """Encode a request. Messages are encoded once for all requests of their conversation."""
        messages = paired(request)
        fields: dict[str, Any] = {"model": self.name, "stream": stream}
        if request.settings is not None:
            fields |= _settings_fields(request.settings)
        if hosted := hosted_tools(request.tools):
            raise no_such_tool(
                hosted[0], self.name, self.dialect, "Ollama runs no tools itself; leave it out"
            )
        tools = () if request.tool_choice == "none" else request.tools
        schema = request.output_schema
        if schema is not None and self._output_tool(request) is None:
            fields["format"] = schema.schema
        elif schema is not None:
            tools = (*tools, output_tool(schema))
        more_tools = lay_over(fields, request.settings.extra_body if request.settings is not None else None)
        pieces: list[bytes | memoryview] = [_encode(fields)[:-1], b',"messages":[']
        if request.instructions:
            pieces += (_encode({"role": "system", "content": request.instructions}), b",")
        if self.capabilities.images:
            pieces.append(messages.encoded(self.dialect, _encode_message))
        else:
            pieces.append(messages.encoded(f"{self.dialect}:blind", _encode_for_blind))
        while pieces[-1] == b"":
            pieces.pop()
        if pieces[-1][-1] == _COMMA:
            pieces[-1] = pieces[-1][:-1]
        pieces.append(b"]")
        if tools or more_tools:
            pieces += (b',"tools":', with_tools(_encode_tools(tools), more_tools))
        pieces.append(b"}")
        return b"".join(pieces)

    def _response(self, assembly: _Assembly, request: ModelRequest) -> ModelResponse:
        parts = assembly.parts()
        reason = _FINISH_REASONS.get(assembly.last.done_reason if assembly.last else None, "other")
        if self._output_tool(request) is not None:
            parts, reason = take_answer(parts, reason)
        if reason == "stop" and isinstance(parts[-1], ToolCall):
            reason = "tool_calls"  # Ollama says "stop" whatever the model did
        return ModelResponse(
            Message("assistant", parts),
            _as_usage(assembly.last, self.price),
            reason,
            assembly.model or self.name,
        )
