"""The Anthropic Messages dialect, as https://platform.claude.com/docs/en/api/messages describes it."""

from __future__ import annotations

from typing import Any

import msgspec

from gossamer.simulator.anthropic_chat.answer import MessageStream, whole_answer
from gossamer.simulator.anthropic_chat.request import count_request, read_request
from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["AnthropicChatDialect"]

_encode = msgspec.json.encode

# --- errors -------------------------------------------------------------------------------------------------

_KINDS = {
    400: ("invalid_request_error", "The request is not valid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing or payment information."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum allowed number of bytes."),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out while processing."),
    529: ("overloaded_error", "Overloaded"),
}
_CLIENT_KIND = ("invalid_request_error", "The request failed.")
_SERVER_KIND = ("api_error", "Internal server error")


def _check_headers(request: Request) -> None:
    headers = request.headers
    if not headers.get(b"x-api-key") and not headers.get(b"authorization"):
        raise RequestError(401, "x-api-key header is required")
    if b"anthropic-version" not in headers:
        raise RequestError(400, "anthropic-version: header is required")


class AnthropicChatDialect:
    """Anthropic Messages, with its models and its counting of tokens.

    What a request may ask for depends on the model's version, as far as its name tells one. Thinking is sent where
    the request turns it on, or where the model thinks unless told not to; a request that enables it with a budget
    always gets a thinking block, if only an empty one. Prompts are cached as the request's `cache_control` marks say,
    from the first token on.
    """

    __slots__ = ()

    name = "anthropic_chat"
    id_header = b"request-id"
    stream_type = b"text/event-stream; charset=utf-8"

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        return path.endswith(b"/messages")

    def look_up(self, request: Request) -> bytes | None:
        """The list of models, one of them, or the number of a prompt's tokens."""
        if request.method == b"POST":
            if not request.path.endswith(b"/messages/count_tokens"):
                return None
            _check_headers(request)
            return _encode({"input_tokens": count_request(request.body)})
        if request.method != b"GET" or b"anthropic-version" not in request.headers:
            return None
        if request.path.endswith(b"/models"):
            _check_headers(request)
            model = self._model("simulator")
            return _encode(
                {"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]}
            )
        _, found, name = request.path.rpartition(b"/models/")
        return _encode(self._model(name.decode("latin-1"))) if found and name else None

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request. O(bytes) for decoding, O(messages) for their order and the cache marks.

        Raises:
            RequestError: the request is one that Anthropic refuses.
        """
        _check_headers(request)
        return read_request(request.body, prefixes)

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON object."""
        return whole_answer(prompt, speech, number)

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> MessageStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        return MessageStream(prompt, speech, number, stamp=stamp)

    def error(
        self,
        status: int,
        message: str = "",
        param: str | None = None,  # noqa: ARG002 - Anthropic names the field in the message
        code: str | None = None,
        retry_after: float | None = None,  # noqa: ARG002 - Anthropic tells it in the headers
    ) -> bytes:
        """An error body; what is not given is the usual for this status."""
        kind, usual = _KINDS.get(status, _CLIENT_KIND if status < 500 else _SERVER_KIND)
        error = {"type": code or kind, "message": message or usual}
        return _encode({"type": "error", "error": error, "request_id": None})

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "2023-11-14T00:00:00Z",
            "lifecycle": "active",
            "max_input_tokens": 200_000,
            "max_tokens": 64_000,
        }
