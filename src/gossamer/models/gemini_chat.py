"""Google's Gemini API, `generateContent`.

Wire format: https://ai.google.dev/api/generate-content; thinking and its signatures:
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from gossamer.errors import (
    AuthenticationError,
    ContentFilterError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
)
from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import (
    Audio,
    Citation,
    File,
    Image,
    Message,
    Part,
    ProviderBlock,
    ProviderData,
    Text,
    Thinking,
    ToolCall,
)
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, Price, uncounted
from gossamer.models.gemini_request import DIALECT, body
from gossamer.models.output_tool import OUTPUT_TOOL, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, ErrorTold, Transport, read_error
from gossamer.schema import is_array, is_object
from gossamer.usage import Usage
from gossamer.wire import Timeouts

__all__ = ["GeminiChat"]

_FINISH_REASONS: dict[str | None, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
}

# Generations 1 and 2, and the open models, refuse a schema of the answer beside tools and know no stand-in for signatures.
_BEFORE_3 = re.compile(r"(?:models/)?(?:gemini-[12]\b|gemma)")

_NOTHING = msgspec.Raw()


# --- wire structs -------------------------------------------------------------------------------------------


class _FunctionCall(msgspec.Struct, gc=False):
    id: str | None = None
    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Blob(msgspec.Struct, gc=False, rename="camel"):
    mime_type: str = ""
    data: str = ""


class _Piece(msgspec.Struct, gc=False, rename="camel"):
    """A part of a turn, or a piece of one."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Piece] = []


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: Any = None
    citation_metadata: Any = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    """A whole answer, or one chunk of a stream; the usage comes with each, and only the last is read."""

    candidates: list[_Candidate] = []
    usage_metadata: msgspec.Raw = _NOTHING
    model_version: str | None = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(_Usage | None).decode


# --- frame → deltas -----------------------------------------------------------------------------------------


class _Assembly:
    """What has been streamed so far; pieces are joined once, when a part ends.

    A part that is signed stays a part of its own, for it goes back as it came.

    Args:
        output_tool: the tool whose arguments are the answer itself, or None.
    """

    __slots__ = (
        "_parts",
        "_said",
        "citations",
        "finish_reason",
        "grounding",
        "model",
        "output_tool",
        "text",
        "thinking",
        "usage",
    )

    def __init__(self, output_tool: str | None) -> None:
        self.output_tool = output_tool
        self.text: list[str] = []
        self.thinking: list[str] = []  # of the part that is under way
        self._parts: list[Part] = []
        self._said = 0  # how many pieces of the text are in parts
        self.finish_reason: str | None = None
        self.grounding: Any = None
        self.citations: Any = None
        self.model = ""
        self.usage = _NOTHING

    def take(self, pieces: list[_Piece], payload: bytes) -> list[Delta]:
        """Add pieces that are more than plain text, and give their deltas.

        Args:
            pieces: the pieces.
            payload: what they were read from: kinds that are not known here are kept as they came.

        Raises:
            ValueError: media that are no base64.
        """
        deltas: list[Delta] = []
        for place, piece in enumerate(pieces):
            if piece.function_call is not None:
                self._take_call(piece.function_call, piece.thought_signature, deltas)
            elif piece.text is not None:
                self._take_text(piece.text, piece, deltas)
            elif piece.inline_data is not None and not piece.thought:
                self._end_part()
                self._parts.append(
                    _media_of(
                        piece.inline_data.mime_type, piece.inline_data.data, _signed(piece.thought_signature)
                    )
                )
            else:
                self._end_part()
                raw = msgspec.json.decode(payload)["candidates"][0]["content"]["parts"][place]
                self._parts.append(ProviderBlock(DIALECT, raw))
        return deltas

    def _take_text(self, text: str, piece: _Piece, deltas: list[Delta]) -> None:
        signature = piece.thought_signature
        if signature or (self._said < len(self.text) if piece.thought else self.thinking):
            self._end_part()
        pieces: list[str] = self.thinking if piece.thought else self.text
        if text:
            pieces.append(text)
            deltas.append(ThinkingDelta(text) if piece.thought else TextDelta(text))
        if signature and piece.thought:
            self._parts.append(Thinking(text, True, _signed(signature)))
            self.thinking.clear()
        elif signature:
            self._parts.append(Text(text, _signed(signature)))
            self._said = len(self.text)

    def _take_call(self, function: _FunctionCall, signature: str | None, deltas: list[Delta]) -> None:
        """Add a call, which always comes whole."""
        self._end_part()
        arguments = msgspec.json.format(bytes(function.args), indent=-1).decode()
        own = {"id": function.id, "thoughtSignature": signature}
        own = {name: value for name, value in own.items() if value}
        arguments = "{}" if arguments == "null" else arguments
        call = ToolCall(function.name, arguments, new_id(), {DIALECT: own} if own else None)
        self._parts.append(call)
        if call.name == self.output_tool:
            deltas.append(TextDelta(arguments))
        else:
            deltas += (ToolCallStarted(call.id, call.name), ToolArgumentsDelta(call.id, arguments))

    def _end_part(self) -> None:
        """Join what is under way: thinking or text, never both."""
        if self.thinking:
            self._parts.append(Thinking("".join(self.thinking)))
            self.thinking.clear()
        if self._said < len(self.text):
            self._parts.append(Text("".join(self.text[self._said :])))
            self._said = len(self.text)

    def parts(self) -> tuple[Part, ...]:
        """The whole message."""
        self._end_part()
        if self.grounding is not None or self.citations is not None:
            self._parts += _citations_of("".join(self.text), self.grounding, self.citations)
        return tuple(self._parts) or (Text(""),)


def _signed(signature: str | None) -> dict[str, Any] | None:
    return {DIALECT: {"thoughtSignature": signature}} if signature else None


def _media_of(media_type: str, encoded: str, provider: ProviderData | None) -> Part:
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


def _citations_of(text: str, grounding: Any, citations: Any) -> Iterator[Citation]:
    """Give what the answer rests on: the passages of a search, and works that are quoted at length.

    Args:
        text: the whole answer.
        grounding: `groundingMetadata`, as it came.
        citations: `citationMetadata`, as it came.
    """
    encoded = text.encode()
    chunks = _objects_of(grounding, "groundingChunks")
    supports = _objects_of(grounding, "groundingSupports")
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
    for cited in _objects_of(citations, "citationSources") or _objects_of(citations, "citations"):
        start, end = _place_of("", encoded, text, cited)
        source, title = str(cited.get("uri") or ""), str(cited.get("title") or "")
        yield Citation(source, title, "", start, end, {DIALECT: {}})


def _objects_of(data: Any, name: str) -> list[dict[str, Any]]:
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


def _as_usage(raw: msgspec.Raw, price: Price | None) -> Usage:
    usage = None if raw is _NOTHING else _decode_usage(raw)
    if usage is None:
        return uncounted(price)
    used = Usage(
        input_tokens=usage.prompt_token_count + usage.tool_use_prompt_token_count,
        output_tokens=usage.candidates_token_count + usage.thoughts_token_count,
        cached_tokens=usage.cached_content_token_count,
        reasoning_tokens=usage.thoughts_token_count,
        model_calls=1,
        unpriced_calls=1 if price is None else 0,
    )
    return used if price is None else msgspec.structs.replace(used, cost=price.of(used))


# --- errors -------------------------------------------------------------------------------------------------

_QUOTA_OF_DAY = "quota of the day"

# By status, or by the reason that the details give. INVALID_ARGUMENT is many things: the words decide.
_ERROR_CODES: dict[str, type[ModelError]] = {
    _QUOTA_OF_DAY: QuotaExceededError,
    "API_KEY_INVALID": AuthenticationError,
    "API_KEY_SERVICE_BLOCKED": AuthenticationError,
    "DEADLINE_EXCEEDED": ModelTimeoutError,
    "INTERNAL": ProviderError,
    "NOT_FOUND": NotFoundError,
    "PERMISSION_DENIED": AuthenticationError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "UNAUTHENTICATED": AuthenticationError,
    "UNAVAILABLE": OverloadedError,
}


def _read_error(data: bytes) -> ErrorTold:
    """Read an error in Google's form: a status in words, and details with the reason, the quota and the delay."""
    try:
        body: Any = msgspec.json.decode(data)
    except UNREADABLE:
        return read_error(data)
    body = body[0] if is_array(body) and body else body
    error = body.get("error") if is_object(body) else None
    if not is_object(error):
        return read_error(data)
    code = str(error.get("status") or "")
    message = str(error.get("message") or "")
    retry_after = None
    for detail in _objects_of(error, "details"):
        kind = str(detail.get("@type")).rpartition(".")[2]
        if kind == "RetryInfo":
            found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay")))
            retry_after = float(found[1]) if found else None
        elif kind == "ErrorInfo" and detail.get("reason") in _ERROR_CODES:
            code = str(detail["reason"])
        elif code == "RESOURCE_EXHAUSTED" and "PerDay" in str(
            [detail.get("violations"), detail.get("metadata")]
        ):
            code = _QUOTA_OF_DAY
    if code == "RESOURCE_EXHAUSTED" and "credits are depleted" in message:
        code = _QUOTA_OF_DAY
    status = error.get("code")
    return ErrorTold(code, message, status if type(status) is int else None, retry_after)


# --- the class ----------------------------------------------------------------------------------------------


class GeminiChat:
    """A Gemini model, by Google's Gemini API.

    Of `ModelSettings`: `thinking` is a level such as `low` or `high` (before Gemini 3 a budget of tokens stands for
    it), a number of tokens (`-1` leaves it to the model) or `off`, and summaries of the thoughts are asked for;
    `parallel_tool_calls` is left aside, and so is `prompt_cache`, for Gemini caches by itself. What else Gemini takes
    goes through `extra_body`, laid over what stands there already: `{"generationConfig": {"topK": 40}}`,
    `{"cachedContent": "cachedContents/…"}`. Hosted tools: `web_search`, `code_execution`, and others by their fields,
    such as `urlContext`; before Gemini 3 neither tools of yours nor an output type stand beside them.

    Before Gemini 3 an answer cannot have a schema beside tools: it comes through a tool then. System messages in the
    middle and the names of authors are told in the text; a file's name is not sent. A call whose arguments are no JSON
    object, which only a model of another provider can have made, goes as `{"_raw": text}`.

    Args:
        model: the model's name, as in `gemini-2.5-flash`.
        base_url: where the API is, with or without its version; `GOOGLE_GEMINI_BASE_URL`, then Google, where None.
        api_key: the key; `GEMINI_API_KEY`, then `GOOGLE_API_KEY`, where None. A server at a `base_url` of yours may
            need none.
        capabilities: what the model can do.
        price: what it costs; the list price where None, if it is known.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used.
    """

    __slots__ = ("_path", "_since_3", "_transport", "capabilities", "name", "price", "provider")

    dialect = DIALECT

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        capabilities: Capabilities = Capabilities(audio=True, thinking=True),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        base_url = base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL")
        api_key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
        if not api_key and not base_url:
            raise AuthenticationError(
                "GeminiChat has no key: set GEMINI_API_KEY, or pass api_key= or the base_url= of a server that needs none",
                provider="gemini",
            )
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["x-goog-api-key"] = api_key
        url = (base_url or "https://generativelanguage.googleapis.com").rstrip("/")
        if not re.search(r"/v\d+(?:alpha|beta)?\d*$", url):
            url += "/v1beta"
        self.name = model
        self.provider = "gemini"
        self.capabilities = capabilities
        self.price = price if price is not None else price_for(self.provider, model)
        self._path = "/" + quote(model if "/" in model else f"models/{model}", safe="/@")
        self._since_3 = _BEFORE_3.match(model) is None
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
        return f"GeminiChat({self.name!r})"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`."""
        transport = self._transport
        data = await transport.ask(self._body(request), request.settings, f"{self._path}:generateContent")
        try:
            answer = _decode(data)
        except UNREADABLE as error:
            raise transport.invalid(f"something that is no generated content ({error})", data) from error
        if answer.error is not None:
            raise transport.error(data)
        if not answer.candidates:
            raise self._without_candidates(answer, data) or transport.invalid("no candidates", data)
        assembly = _Assembly(self._output_tool(request))
        self._take(assembly, answer.candidates[0], data)
        assembly.usage = answer.usage_metadata
        assembly.model = answer.model_version or self.name
        return self._response(assembly)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = _Assembly(self._output_tool(request))
        texts, thinking = assembly.text, assembly.thinking
        path = f"{self._path}:streamGenerateContent?alt=sse"
        answer = await transport.stream(self._body(request), request.settings, texts, path)
        try:
            while frames := await (
                answer.frames() if assembly.finish_reason is None else answer.late_frames()
            ):
                for frame in frames:
                    payload = frame.data
                    try:
                        chunk = _decode(payload)
                    except UNREADABLE as error:
                        raise transport.invalid(f"a chunk that is none ({error})", payload) from error
                    if chunk.candidates:
                        candidate = chunk.candidates[0]
                        content = candidate.content
                        if (
                            content is not None
                            and len(content.parts) == 1
                            and (text := (piece := content.parts[0]).text)
                            and not piece.thought
                            and piece.thought_signature is None
                            and piece.function_call is None
                            and candidate.finish_reason is None
                            and candidate.grounding_metadata is None
                            and candidate.citation_metadata is None
                            and not thinking
                        ):
                            texts.append(text)
                            yield TextDelta(text)
                        else:
                            for delta in self._take(assembly, candidate, payload):
                                yield delta
                    elif chunk.error is not None:
                        raise transport.error(payload)
                    elif chunk.usage_metadata is _NOTHING:
                        if (refused := self._without_candidates(chunk, payload)) is not None:
                            raise refused
                        transport.unknown("chunk without candidates")
                    if chunk.usage_metadata is not _NOTHING:
                        assembly.usage = chunk.usage_metadata
                    if chunk.model_version and not assembly.model:
                        assembly.model = chunk.model_version
            if assembly.finish_reason is None:
                raise answer.cut_off()
        finally:
            answer.close()
        yield self._response(assembly)

    def _take(self, assembly: _Assembly, candidate: _Candidate, payload: bytes) -> list[Delta]:
        """Add what is more than plain text, and give its deltas."""
        if candidate.finish_reason is not None:
            assembly.finish_reason = candidate.finish_reason
        if candidate.grounding_metadata is not None:
            assembly.grounding = candidate.grounding_metadata
        if candidate.citation_metadata is not None:
            assembly.citations = candidate.citation_metadata
        if candidate.content is None:
            return []
        try:
            return assembly.take(candidate.content.parts, payload)
        except binascii.Error as error:
            raise self._transport.invalid(f"media that are no base64 ({error})", payload) from error

    def _without_candidates(self, answer: _Answer, data: bytes) -> ModelError | None:
        """The error of an answer to a prompt that was refused; None where it was not."""
        reason = answer.prompt_feedback.block_reason if answer.prompt_feedback else None
        if reason is None:
            return None
        return ContentFilterError(
            f"{self.provider} refused the prompt: {reason}; change what is sent, or the safetySettings in extra_body",
            provider=self.provider,
            body=data[:2000].decode("utf-8", "replace"),
        )

    def _output_tool(self, request: ModelRequest) -> str | None:
        """Name the tool through which the answer comes, or None where it comes as text."""
        if request.output_schema is None:
            return None
        beside_tools = self._since_3 or not request.tools
        return None if self.capabilities.native_schema and beside_tools else OUTPUT_TOOL

    def _body(self, request: ModelRequest) -> bytes:
        """Encode a request; see `gemini_request.body`."""
        native = self._output_tool(request) is None
        return body(self.name, request, native=native, signed=self._since_3)

    def _response(self, assembly: _Assembly) -> ModelResponse:
        parts = assembly.parts()
        reason = _FINISH_REASONS.get(assembly.finish_reason, "other")
        if assembly.output_tool is not None:
            parts, reason = take_answer(parts, reason)
        if reason == "stop" and any(isinstance(part, ToolCall) for part in parts):
            reason = "tool_calls"  # Gemini says STOP whatever the model did
        try:
            usage = _as_usage(assembly.usage, self.price)
        except UNREADABLE as error:
            raise self._transport.invalid(f"a usage that is none ({error})", bytes(assembly.usage)) from error
        # What the search asks to be shown beside its findings stays with the message.
        provider = (
            None if assembly.grounding is None else {DIALECT: {"groundingMetadata": assembly.grounding}}
        )
        return ModelResponse(
            Message("assistant", parts, provider=provider), usage, reason, assembly.model or self.name
        )
