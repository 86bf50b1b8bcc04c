"""The OpenAI Responses dialect: https://platform.openai.com/docs/api-reference/responses."""

from __future__ import annotations

from gossamer.simulator.dialect import Request
from gossamer.simulator.openai_errors import error_body
from gossamer.simulator.openai_responses.answer import ResponseStream, whole_answer
from gossamer.simulator.openai_responses.request import read_request
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["OpenAIResponsesDialect"]


class OpenAIResponsesDialect:
    """OpenAI Responses: messages, function calls and reasoning; nothing is stored, so no answer can be referred to.

    Thinking is a reasoning item. Its text is shown as a summary where the request asks for one, and its
    `encrypted_content`, where the request includes that, is checked when it comes back.
    """

    __slots__ = ()

    name = "openai_responses"
    id_header = b"x-request-id"
    stream_type = b"text/event-stream; charset=utf-8"

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        return path.endswith(b"/responses")

    def look_up(self, request: Request) -> bytes | None:  # noqa: ARG002 - OpenAI's models are told by the chat dialect
        """Nothing: every request in this format asks the model."""
        return None

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request.

        Costs O(bytes) for hashing and O(new items) for decoding and counting.

        Raises:
            RequestError: the request is one that OpenAI refuses.
        """
        return read_request(request.body, prefixes)

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON body."""
        return whole_answer(prompt, speech, number)

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> ResponseStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        return ResponseStream(prompt, speech, number, stamp=stamp)

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
