"""The dialect of Ollama's own API: https://docs.ollama.com/api/chat."""

from __future__ import annotations

from typing import Any

import msgspec

from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.ollama_chat.answer import OllamaStream, whole_answer
from gossamer.simulator.ollama_chat.request import read_request
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["OllamaChatDialect"]

_encode = msgspec.json.encode

# --- errors -------------------------------------------------------------------------------------------------

_USUAL = {
    401: "unauthorized",
    404: "model not found",
    429: "too many requests",
    503: "server busy, please try again. maximum pending requests exceeded",
}


class OllamaChatDialect:
    """Ollama's chat: a line of JSON a token, whole tool calls, thinking in a field of its own."""

    __slots__ = ()

    name = "ollama_chat"
    id_header = b"x-request-id"
    stream_type = b"application/x-ndjson"

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        return path.endswith(b"/api/chat")

    def look_up(self, request: Request) -> bytes | None:
        """The models, one of them, or the version."""
        path = request.path
        if request.method == b"GET":
            if path.endswith(b"/api/tags"):
                return _encode({"models": [{"name": "simulator", "model": "simulator", **_FILE}]})
            if path.endswith(b"/api/ps"):
                return _encode({"models": []})
            if path.endswith(b"/api/version"):
                return _encode({"version": _VERSION})
        elif request.method == b"POST" and path.endswith(b"/api/show"):
            return _shown(request.body)
        return None

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request.

        Costs O(bytes) for hashing and O(new messages) for decoding and counting.

        Raises:
            RequestError: the request is one that Ollama refuses.
        """
        return read_request(request.body, prefixes)

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON body."""
        return whole_answer(prompt, speech, number)

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> OllamaStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        return OllamaStream(prompt, speech, number, stamp=stamp)

    def error(
        self,
        status: int,
        message: str = "",
        param: str | None = None,  # noqa: ARG002 - Ollama tells the message only
        code: str | None = None,  # noqa: ARG002
        retry_after: float | None = None,  # noqa: ARG002
    ) -> bytes:
        """An error body; where no message is given it is the usual for this status."""
        usual = "the model failed to generate a response" if status >= 500 else "invalid request"
        return _encode({"error": message or _USUAL.get(status, usual)})


# --- models -------------------------------------------------------------------------------------------------

_VERSION = "0.13.0"
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "simulator",
    "families": ["simulator"],
    "parameter_size": "0B",
    "quantization_level": "F16",
}
_FILE: dict[str, Any] = {
    "modified_at": "2025-01-01T00:00:00Z",
    "size": 0,
    "digest": "0" * 64,
    "details": _DETAILS,
}


class _Show(msgspec.Struct, frozen=True):
    model: str = ""
    name: str = ""


def _shown(body: bytes) -> bytes:
    try:
        asked = msgspec.json.decode(body, type=_Show)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, str(error)) from None
    if not (asked.model or asked.name):
        raise RequestError(400, "model is required")
    return _encode(
        {
            "license": "",
            "modelfile": f"FROM {asked.model or asked.name}\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {"general.architecture": "simulator", "simulator.context_length": 131_072},
            "capabilities": ["completion", "tools", "vision", "thinking", "embedding"],
            "modified_at": _FILE["modified_at"],
        }
    )
