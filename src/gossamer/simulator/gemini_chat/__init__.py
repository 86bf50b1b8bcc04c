"""The Gemini dialect, as https://ai.google.dev/api/generate-content describes it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.gemini_chat.answer import ContentStream, whole_answer
from gossamer.simulator.gemini_chat.request import count_request, read_request
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["GeminiChatDialect"]

_encode = msgspec.json.encode
_ASKING = (b":generateContent", b":streamGenerateContent")

# --- errors -------------------------------------------------------------------------------------------------

_KINDS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "The requested model is not found for API version v1beta."),
    429: (
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    499: ("CANCELLED", "The operation was cancelled."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_CLIENT_KIND = ("FAILED_PRECONDITION", "The request failed.")
_SERVER_KIND = ("INTERNAL", "An internal error has occurred.")


def _check_key(request: Request) -> None:
    headers = request.headers
    if (
        not headers.get(b"x-goog-api-key")
        and not headers.get(b"authorization")
        and b"key=" not in request.query
    ):
        raise RequestError(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
            "other form of API consumer identity to call this API.",
        )


class GeminiChatDialect:
    """Gemini's `generateContent`, with its models and its counting of tokens.

    Models before Gemini 3, told by their names, take what that generation took. A stream is sent as server-sent
    events, so it needs `alt=sse`.
    """

    __slots__ = ()

    name = "gemini_chat"
    id_header = b"x-request-id"
    stream_type = b"text/event-stream"

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        return path.endswith(_ASKING)

    def look_up(self, request: Request) -> bytes | None:
        """The list of models, one of them, or the number of a prompt's tokens."""
        path = request.path
        if request.method == b"POST" and path.endswith(b":countTokens"):
            _check_key(request)
            total = count_request(request)
            return _encode(
                {"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]}
            )
        # Other providers list their models at a path that may be the same; the header tells whose are meant.
        named = b"x-goog-api-key" in request.headers or (b"/v1beta/" in path and b"/openai/" not in path)
        if request.method != b"GET" or not named:
            return None
        if path.endswith(b"/models"):
            _check_key(request)
            return _encode({"models": [self._model("models/simulator")]})
        _, found, name = path.rpartition(b"/models/")
        return _encode(self._model(f"models/{unquote(name.decode('latin-1'))}")) if found and name else None

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request. O(bytes) for hashing, O(new contents) for decoding and counting.

        Raises:
            RequestError: the request is one that Gemini refuses, or wants a stream that is no server-sent events.
        """
        _check_key(request)
        if request.path.endswith(b":streamGenerateContent") and b"alt=sse" not in request.query:
            raise RequestError(
                400, "Only streams of server-sent events are simulated; add alt=sse to the query."
            )
        return read_request(request, prefixes)

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON object."""
        return whole_answer(prompt, speech, number)

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> ContentStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        return ContentStream(prompt, speech, number, stamp=stamp)

    def error(
        self,
        status: int,
        message: str = "",
        param: str | None = None,  # noqa: ARG002 - Gemini names the field in the message
        code: str | None = None,
        retry_after: float | None = None,
    ) -> bytes:
        """An error body; what is not given is the usual for this status."""
        kind, usual = _KINDS.get(status, _CLIENT_KIND if status < 500 else _SERVER_KIND)
        error: dict[str, Any] = {"code": status, "message": message or usual, "status": code or kind}
        if retry_after is not None:
            delay = f"{retry_after:.3f}".rstrip("0").rstrip(".") + "s"
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        return _encode({"error": error})

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "version": "001",
            "displayName": name.removeprefix("models/"),
            "description": "A simulated model.",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "maxTemperature": 2,
            "thinking": True,
        }
