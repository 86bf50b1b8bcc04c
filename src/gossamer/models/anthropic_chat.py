"""Anthropic's Messages.

Wire format: https://platform.claude.com/docs/en/api/messages, version 2023-06-01, which takes all that the later ones
do and sampling parameters too. Streams: https://platform.claude.com/docs/en/build-with-claude/streaming. Thinking:
https://platform.claude.com/docs/en/build-with-claude/thinking. Caching of prompts:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
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
from gossamer.events import Delta, TextDelta
from gossamer.messages import Message, ToolCall
from gossamer.models.anthropic_answer import Assembly, decode_answer, decode_event, finished
from gossamer.models.anthropic_request import DIALECT, body
from gossamer.models.anthropic_schema import native_schema
from gossamer.models.base import Capabilities, FinishReason, ModelRequest, ModelResponse, Price
from gossamer.models.output_tool import OUTPUT_TOOL, take_answer
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, ErrorTold, Transport, read_error
from gossamer.schema import OutputSchema
from gossamer.view import MessageView
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
    "pause_turn": "other",  # paused more often than an answer is asked to go on
}


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

    Hosted tools: `web_search`, `code_execution`, and any other type of the API's by its own name, as in
    `web_fetch_20250910`; `{"type": "web_search_20260318"}` among the options takes another version. An answer that the
    API pauses while its tools work is asked to go on, up to 8 times, and comes as one; under limits on tokens or money
    each time counts as a repeated attempt.

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
        assembly = Assembly(self._output_tool(request), self._transport.unknown)
        asked = request
        while True:
            data = await self._transport.ask(self._body(asked, stream=False), request.settings)
            self._take_answer(assembly, data)
            if not assembly.paused:
                return self._response(assembly)
            asked = _continued(request, assembly)

    def _take_answer(self, assembly: Assembly, data: bytes) -> None:
        """Read a whole answer, or one piece of it.

        Raises:
            ModelError: it is none, or tells of a failure.
        """
        try:
            answer = decode_answer(data)
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
        assembly.container = answer.container or assembly.container

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`."""
        transport = self._transport
        assembly = Assembly(self._output_tool(request), transport.unknown)
        texts = assembly.text
        asked = request
        while True:
            answer = await transport.stream(self._body(asked, stream=True), request.settings, texts)
            try:
                done = False
                while not done and (frames := await answer.frames()):
                    for frame in frames:
                        payload = frame.data
                        try:
                            event = decode_event(payload)
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
            if not assembly.paused:
                break
            asked = _continued(request, assembly)
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

    def _response(self, assembly: Assembly) -> ModelResponse:
        message = assembly.message()
        parts = message.parts
        reason = _FINISH_REASONS.get(assembly.finish_reason, "other")
        if assembly.output_tool is not None:
            parts, reason = take_answer(parts, reason)
        if reason == "stop" and any(isinstance(part, ToolCall) for part in parts):
            reason = "tool_calls"  # some servers say "end_turn" whatever they did
        message = Message("assistant", finished(parts), provider=message.provider)
        return ModelResponse(message, assembly.whole_usage(self.price), reason, assembly.model or self.name)


def _continued(request: ModelRequest, assembly: Assembly) -> ModelRequest:
    """Give the request that goes on with a paused answer: it ends with what there is of it.

    Raises:
        LimitError: the run's limits leave no room for another call.
    """
    if request.on_repeat is not None:
        request.on_repeat()
    messages = [*request.messages, assembly.message()]
    assembly.go_on()
    return msgspec.structs.replace(request, messages=MessageView(messages, 0, len(messages)))
