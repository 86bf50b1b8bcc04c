"""What a wire format has to provide; each lives in a file of its own."""

from __future__ import annotations

from typing import Protocol

from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Speech
from gossamer.simulator.tokens import PrefixCache

__all__ = ["Dialect", "FrameStream", "RequestError"]


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
        length: how often `frame` may be called.
    """

    length: int

    def opening(self) -> bytes:
        """What is sent together with the head of the answer."""
        ...

    def frame(self) -> bytes:
        """The next token as a frame."""
        ...

    def closing(self) -> bytes:
        """What follows the last token."""
        ...


class Dialect(Protocol):
    """A provider's wire format."""

    @property
    def stream_type(self) -> bytes:
        """The content type of a streamed answer."""
        ...

    def answers(self, path: bytes) -> bool:
        """Whether requests to this path are in this format."""
        ...

    def read(self, path: bytes, body: bytes, prefixes: PrefixCache) -> Prompt:
        """Decode and check a request; raises `RequestError`."""
        ...

    def whole(self, prompt: Prompt, speech: Speech, number: int) -> bytes:
        """The answer as one body."""
        ...

    def stream(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> FrameStream:
        """The answer as a stream."""
        ...

    def error(
        self, status: int, message: str = "", param: str | None = None, code: str | None = None
    ) -> bytes:
        """An error body."""
        ...
