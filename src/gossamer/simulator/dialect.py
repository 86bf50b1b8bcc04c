"""What a wire format has to provide; each lives in a folder of its own."""

from __future__ import annotations

from typing import Protocol

import msgspec

from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["Dialect", "FrameStream", "Request", "RequestError"]


class Request(msgspec.Struct, gc=False):
    """One HTTP request, read to its end.

    Attributes:
        method: for example b"POST".
        path: without the query.
        query: what follows the question mark; b"" where there is none.
        headers: those that dialects look at, by their names in small letters: the kind of answer that is accepted,
            keys and the version of the API.
        body: the whole body.
        keep_alive: whether the connection may be used again.
        chunked: whether the client understands the chunked transfer coding (HTTP/1.1).
        stamp: whether frames are to carry the time they were made.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    chunked: bool
    stamp: bool


class RequestError(Exception):
    """A request that the provider refuses; becomes an HTTP error in the dialect's form.

    Attributes:
        status: the HTTP status.
        param: the field that is wrong, where one is.
        code: the provider's word for it, where there is one.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class FrameStream(Protocol):
    """The frames of one streamed answer.

    Attributes:
        length: how often `frame` may be called: once a token that is shown.
    """

    length: int

    def opening(self) -> bytes:
        """What is sent together with the head of the answer; called once."""
        ...

    def frame(self) -> bytes:
        """The next token as a frame, with whatever the format sends before and after it. O(1)."""
        ...

    def unknown(self) -> bytes:
        """A well-formed frame of a type that does not exist; may be called at any time and as often as wanted."""
        ...

    def failure(self) -> bytes:
        """The frames by which the provider tells of an error of its own; nothing follows them."""
        ...

    def closing(self) -> bytes:
        """What follows the last token; called once."""
        ...


class Dialect(Protocol):
    """A provider's wire format."""

    @property
    def name(self) -> str:
        """The name of the format, as the models have it: `openai_chat`."""
        ...

    @property
    def stream_type(self) -> bytes:
        """The content type of a streamed answer."""
        ...

    @property
    def id_header(self) -> bytes:
        """The name of the header that carries the request's id."""
        ...

    def answers(self, path: bytes) -> bool:
        """Whether POST requests to this path ask the model in this format."""
        ...

    def look_up(self, request: Request) -> bytes | None:
        """The JSON answer to a request that asks no model: models, versions; None where it is none of this format.

        Raises:
            RequestError: it is one of this format, but wrong.
        """
        ...

    def read(self, request: Request, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request; raises `RequestError`."""
        ...

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one JSON object."""
        ...

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> FrameStream:
        """The answer as a stream; with `stamp` each text begins with the time it was made, in monotonic ns."""
        ...

    def error(
        self,
        status: int,
        message: str = "",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> bytes:
        """An error body; what is not given is the usual for this status."""
        ...
