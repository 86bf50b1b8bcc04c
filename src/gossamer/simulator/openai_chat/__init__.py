"""The OpenAI Chat Completions dialect; thinking is sent as `reasoning_content`."""

from __future__ import annotations

from typing import Any

import msgspec

from gossamer.simulator.dialect import Request
from gossamer.simulator.openai_chat.answer import ChatStream, whole_answer
from gossamer.simulator.openai_chat.request import read_request
from gossamer.simulator.openai_errors import error_body
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["OpenAIChatDialect"]

_encode = msgspec.json.encode


class OpenAIChatDialect:
    """OpenAI Chat Completions; thinking is sent as `reasoning_content`, the way DeepSeek and Qwen send it."""

    __slots__ = ()

    name = "openai_chat"
    id_header = b"x-request-id"
    stream_type = b"text/event-stream; charset=utf-8"

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        return path.endswith(b"/chat/completions")

    def look_up(self, request: Request) -> bytes | None:
        """The list of models, or one of them."""
        if request.method != b"GET":
            return None
        if request.path.endswith(b"/models"):
            return _encode({"object": "list", "data": [self._model("simulator")]})
        _, found, name = request.path.rpartition(b"/models/")
        return _encode(self._model(name.decode("latin-1"))) if found and name else None

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request.

        Costs O(bytes) for hashing and O(new messages) for decoding and counting.

        Raises:
            RequestError: the request is one that OpenAI refuses.
        """
        return read_request(request.path, request.body, prefixes)

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON body."""
        return whole_answer(prompt, speech, number)

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> ChatStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        return ChatStream(prompt, speech, number, stamp=stamp)

    def error(
        self,
        status: int,
        message: str = "",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,  # noqa: ARG002 - OpenAI tells it in the headers
    ) -> bytes:
        """An error body; what is not given is the usual for this status."""
        return error_body(status, message, param, code)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "gossamer"}
