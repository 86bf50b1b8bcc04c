"""How dialects talk to their providers: requests over the wire, failures as model errors, answers bounded."""

from __future__ import annotations

import asyncio
import email.utils
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from gossamer.errors import (
    AuthenticationError,
    ConnectError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    PoolTimeoutError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ReadTimeoutError,
    StreamBrokenError,
    TooLargeError,
    WireError,
)
from gossamer.models.base import ModelSettings
from gossamer.schema import is_object
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.wire import Endpoint, Frame, SSEDecoder, Stream, Timeouts

__all__ = [
    "MAX_ANSWER_BYTES",
    "UNREADABLE",
    "Answer",
    "Decoder",
    "ErrorTold",
    "Outgoing",
    "Tape",
    "Transport",
    "read_error",
    "url_below",
]

# A longer answer is an error: no answer of a model is, and memory is not for the server to take.
MAX_ANSWER_BYTES = 32 * 1024 * 1024

# What decoding raises for bytes that are no JSON, no UTF-8, or nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_MAX_ERROR_BYTES = 64 * 1024
_SHOWN_ERROR_CHARS = 500
_MAX_ENDPOINTS = 16
# How long a server that has said its last word may take to end its answer, before the connection is given up.
_LAST_WORD_SECONDS = 0.2
# How long one may be silent that has said why the answer ended, but not that this was all.
_LATE_SECONDS = 5.0

_NO_CODES: Mapping[str, type[ModelError]] = {}
_NO_FRAMES: list[Frame] = []

_CONTEXT_LENGTH = re.compile(
    r"context.?length|context.?window|context.?limit|maximum.?context|too many tokens|input token count|prompt is too long",
    re.IGNORECASE,
)
_CONTENT_FILTER = re.compile(r"content.?filter|content.?policy|safety|moderation", re.IGNORECASE)


_HINTS: Mapping[type[ModelError], str] = {
    AuthenticationError: "; check the key and what it may use",
    NotFoundError: "; check the model's name and the base URL",
    ContextLengthError: "; send fewer or shorter messages, with Session(window=…) for example",
    QuotaExceededError: "; waiting does not help: see the account's credit and limits",
}


class ErrorTold(msgspec.Struct, frozen=True):
    """What the body of an error says.

    Attributes:
        code: the provider's own code, empty where it gave none.
        message: its words.
        status: the HTTP status that the body tells, which counts where the answer has none.
        retry_after: seconds that the body asks to wait, which count where no header does.
    """

    code: str
    message: str
    status: int | None = None
    retry_after: float | None = None


class Decoder(Protocol):
    """Makes frames of the bytes of a stream, in whatever pieces they come."""

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and give the frames they complete."""
        ...


class Outgoing(msgspec.Struct, frozen=True, eq=False):
    """A request as it is about to be sent.

    Attributes:
        url: the model's URL.
        path: put behind the path of the URL, or None.
        headers: all that are sent, keys among them.
        body: its bytes.
    """

    url: str
    path: str | None
    headers: Mapping[str, str]
    body: bytes


class Tape(Protocol):
    """Stands between all models of the process and the wire: records what goes over it, or plays it back."""

    async def exchange(self, request: Outgoing, send: Callable[[], Awaitable[Stream]]) -> Stream:
        """Give the answer to a request, by sending it or in another way."""
        ...


# Read by every request, like the recorder of the metrics; None is no tape.
tape: Tape | None = None


class Transport:
    """Requests of one model to one URL.

    Args:
        url: where requests go.
        headers: sent with each.
        provider: named in errors.
        error_codes: what the provider's own codes of errors mean; statuses decide for all others.
        read_error: reads the body of an error, where the provider has a form of its own.
        timeouts: how long to wait; the defaults of the wire where None.
        ca_file: a PEM file of authorities to trust, or None for the system's.
    """

    __slots__ = (
        "_ca_file",
        "_endpoints",
        "_error_codes",
        "_headers",
        "_read_error",
        "_timeouts",
        "provider",
        "url",
    )

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        provider: str,
        *,
        error_codes: Mapping[str, type[ModelError]] = _NO_CODES,
        read_error: Callable[[bytes], ErrorTold] | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.url = url
        self.provider = provider
        self._error_codes = error_codes
        self._read_error = read_error
        self._headers = dict(headers)
        self._ca_file = ca_file
        self._timeouts = timeouts or Timeouts()
        first = Endpoint(url, headers=headers, timeouts=self._timeouts, ca_file=ca_file)
        self._endpoints: dict[float | None, Endpoint] = {None: first}

    async def send(
        self, body: bytes, settings: ModelSettings | None = None, path: str | None = None
    ) -> Stream:
        """Send a request.

        Args:
            body: its bytes.
            settings: may hold a timeout and more headers.
            path: put behind the path of the URL; its query behind the query of the URL.

        Returns:
            The answer, whose status is a success.

        Raises:
            ModelError: no answer, or one that says why not.
        """
        seconds = None if settings is None else settings.timeout
        headers = None if settings is None else settings.extra_headers
        endpoint = self._endpoints.get(seconds) or self._endpoint_for(seconds)
        try:
            if tape is None:
                stream = await endpoint.send(body, headers=headers, path=path)
            else:
                sent = Outgoing(self.url, path, {**self._headers, **(headers or {})}, body)
                stream = await tape.exchange(sent, lambda: endpoint.send(body, headers=headers, path=path))
            if stream.status >= 300:
                raise await self._refusal(stream)
        except WireError as error:
            raise self.failure(error) from error
        return stream

    async def ask(self, body: bytes, settings: ModelSettings | None = None, path: str | None = None) -> bytes:
        """Send a request and read its answer as one piece; see `send`.

        Raises:
            ModelError: no answer, one that says why not, one that broke off, or one larger than 32 MiB.
        """
        stream = await self.send(body, settings, path)
        try:
            return await stream.read_all(MAX_ANSWER_BYTES)
        except WireError as error:
            raise self.failure(error) from error
        finally:
            stream.close()

    async def stream(
        self,
        body: bytes,
        settings: ModelSettings | None,
        heard: list[str],
        path: str | None = None,
        decoder: Decoder | None = None,
    ) -> Answer:
        """Send a request whose answer is streamed; see `send`.

        Args:
            body: its bytes.
            settings: may hold a timeout and more headers.
            heard: the text that has arrived, kept up by the caller: an error of a broken stream tells of it.
            path: put behind the path of the URL.
            decoder: makes the frames; server-sent events where None.

        Returns:
            The answer, to be closed whatever comes.

        Raises:
            ModelError: no answer, one that says why not, or one that is no stream.
        """
        stream = await self.send(body, settings, path)
        if decoder is None:
            await self._must_be_events(stream)
        return Answer(self, stream, decoder or SSEDecoder(), heard)

    def error(self, data: bytes, status: int | None = None) -> ModelError:
        """The error that the provider tells of in the body of an answer, or in a frame of a stream."""
        return error_for(self.provider, status, data, self._error_codes, read=self._read_error)

    def unknown(self, kind: str) -> None:
        """Count a frame of a kind that is not known here: it is passed over, and told of."""
        logger.debug("%s sent a frame of the unknown kind %r; passed over", self.provider, kind)
        if metrics.recorder is not None:
            metrics.recorder.unknown_frame(self.provider, kind)

    def failure(self, error: WireError, heard: str | None = None) -> ModelError:
        """Say what a failure of the wire means for a model call.

        Args:
            error: the failure.
            heard: the text that had arrived, where an answer was being streamed.
        """
        message = f"{self.provider}: {error}"
        if isinstance(error, TooLargeError):
            return InvalidResponseError(message, provider=self.provider)
        if heard is not None and not isinstance(error, ReadTimeoutError):
            return StreamBrokenError(
                f"{message}; {len(heard)} characters had arrived", text=heard, provider=self.provider
            )
        if isinstance(error, ReadTimeoutError | PoolTimeoutError):
            return ModelTimeoutError(message, provider=self.provider)
        if isinstance(error, ConnectError):
            return ModelConnectionError(message, provider=self.provider)
        return ModelConnectionError(f"{message}; the connection to {self.url} broke", provider=self.provider)

    def invalid(self, what: str, data: bytes) -> InvalidResponseError:
        """The error of an answer that is not the provider's protocol."""
        shown = data[:_SHOWN_ERROR_CHARS].decode("utf-8", "replace")
        return InvalidResponseError(
            f"{self.provider} answered with {what}: {shown!r}", provider=self.provider, body=shown
        )

    async def _must_be_events(self, stream: Stream) -> None:
        """Check that an answer that was asked for as a stream is one, as far as its headers tell.

        Closes the stream where it is not.

        Raises:
            ModelError: a page or a JSON object came instead, such as an error with the status of a success.
        """
        kind = stream.headers.get("content-type", "") or ""
        if "json" not in kind and "html" not in kind:
            return
        data = await self._read_some(stream)
        try:
            error = msgspec.json.decode(data).get("error")
        except (*UNREADABLE, AttributeError):
            error = None
        if error is not None:
            raise self.error(data)
        raise self.invalid(f"{kind} instead of a stream of events", data)

    async def _refusal(self, stream: Stream) -> ModelError:
        """Read an answer that is an error."""
        data = await self._read_some(stream)
        if stream.status < 400:
            return InvalidResponseError(
                f"{self.provider} answered {stream.status} and points to "
                f"{stream.headers.get('location') or 'no other place'}; redirects are not followed, as they would "
                "take the key along: set base_url to where the API is",
                provider=self.provider,
                status=stream.status,
                body=data[:_MAX_ERROR_BYTES].decode("utf-8", "replace"),
            )
        retry_after = _retry_after(stream.headers.get("retry-after-ms"), 1000)
        if retry_after is None:
            retry_after = _retry_after(stream.headers.get("retry-after"))
        request_id = stream.headers.get("x-request-id") or stream.headers.get("request-id")
        return error_for(
            self.provider,
            stream.status,
            data,
            self._error_codes,
            read=self._read_error,
            retry_after=retry_after,
            request_id=request_id,
        )

    async def _read_some(self, stream: Stream) -> bytes:
        """Read the beginning of an answer that is an error, as far as it comes, and close it."""
        data = b""
        try:
            while len(data) < _MAX_ERROR_BYTES and (piece := await stream.read()):
                data += piece
        except WireError:
            pass  # what is known by now says enough
        finally:
            stream.close()
        return data

    def _endpoint_for(self, seconds: float | None) -> Endpoint:
        assert seconds is not None
        if len(self._endpoints) >= _MAX_ENDPOINTS:
            self._endpoints = {None: self._endpoints[None]}
        timeouts = msgspec.structs.replace(self._timeouts, read=seconds)
        endpoint = self._endpoints[seconds] = Endpoint(
            self.url, headers=self._headers, timeouts=timeouts, ca_file=self._ca_file
        )
        return endpoint


def url_below(base_url: str, path: str) -> str:
    """Put a path behind that of a URL, and in front of its query."""
    base, mark, query = base_url.partition("?")
    return base.rstrip("/") + path + mark + query


class Answer:
    """A streamed answer: its frames, as they come.

    Args:
        transport: whose answer it is.
        stream: its bytes.
        decoder: makes the frames.
        heard: the text that has arrived, kept up by the reader.
    """

    __slots__ = ("_decoder", "_heard", "_size", "_stream", "_transport")

    def __init__(self, transport: Transport, stream: Stream, decoder: Decoder, heard: list[str]) -> None:
        self._transport = transport
        self._stream = stream
        self._decoder = decoder
        self._heard = heard
        self._size = 0

    async def frames(self) -> list[Frame]:
        """Give the next frames, as many as one packet completed; none at the end of the stream.

        O(bytes), one wait; nothing is kept.

        Raises:
            ModelError: the stream broke, or is larger than 32 MiB.
        """
        stream = self._stream
        try:
            while True:
                if (data := stream.take()) is None:
                    await stream.arrival()
                    continue
                if not data:
                    break
                self._size += len(data)
                if self._size > MAX_ANSWER_BYTES:
                    raise self._transport.invalid(f"a stream of more than {MAX_ANSWER_BYTES} bytes", data)
                if frames := self._decoder.feed(data):
                    return frames
        except asyncio.CancelledError:
            stream.close()
            raise
        except WireError as error:
            raise self._transport.failure(error, "".join(self._heard)) from error
        return _NO_FRAMES

    async def late_frames(self) -> list[Frame]:
        """Give the next frames of an answer that has said why it ended, such as its usage; none if it stays silent.

        Waits 5 seconds at most: nothing needs to come any more, and a server may forget to end its stream.

        Raises:
            ModelError: see `frames`.
        """
        try:
            async with asyncio.timeout(_LATE_SECONDS):
                return await self.frames()
        except TimeoutError:
            return _NO_FRAMES

    def cut_off(self) -> StreamBrokenError:
        """The error of a stream that ended, in good form, before the answer was complete."""
        heard = "".join(self._heard)
        provider = self._transport.provider
        return StreamBrokenError(
            f"{provider} ended its stream before the answer was complete; {len(heard)} characters had arrived",
            text=heard,
            provider=provider,
        )

    async def finish(self) -> None:
        """Let go of an answer that is complete, waiting a moment for its formal end to keep the connection."""
        stream = self._stream
        if stream.at_end:
            return
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                while await stream.read():
                    pass
        except (TimeoutError, WireError):
            pass
        finally:
            stream.close()

    def close(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        self._stream.close()


def error_for(
    provider: str,
    status: int | None,
    data: bytes,
    codes: Mapping[str, type[ModelError]] = _NO_CODES,
    *,
    read: Callable[[bytes], ErrorTold] | None = None,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> ModelError:
    """Give the error that a provider's answer means, whatever its body: JSON, HTML or nothing.

    Args:
        provider: named in the message.
        status: the HTTP status; None for an error in the middle of a stream.
        data: the body.
        codes: what the provider's own codes mean.
        read: reads the body, where it is not in one of the usual forms.
        retry_after: seconds to wait, as the provider asked.
        request_id: the provider's id.
    """
    told = (read or read_error)(data)
    code, message = told.code, told.message
    shown = message[:_SHOWN_ERROR_CHARS]
    status = status or told.status or _status_of(code)
    kind: type[ModelError]
    if code in codes:
        kind = codes[code]
    elif status in {401, 403}:
        kind = AuthenticationError
    elif status == 404:
        kind = NotFoundError
    elif status == 408:
        kind = ModelTimeoutError
    elif status == 429:
        kind = RateLimitError
    elif status == 413 or _CONTEXT_LENGTH.search(f"{code} {message}"):
        kind = ContextLengthError
    elif _CONTENT_FILTER.search(code):
        kind = ContentFilterError
    elif status in {503, 529}:
        kind = OverloadedError
    elif status is not None and status >= 500:
        kind = ProviderError
    elif status is not None and status >= 400:
        kind = InvalidRequestError
    else:
        kind = ProviderError
    answered = f"{provider} answered {status if status is not None else 'with an error'}"
    return kind(
        f"{answered}: {shown or 'an empty body'}{_HINTS.get(kind, '')}",
        provider=provider,
        status=status,
        retry_after=told.retry_after if retry_after is None else retry_after,
        request_id=request_id,
        body=data[:_MAX_ERROR_BYTES].decode("utf-8", "replace"),
    )


def read_error(data: bytes) -> ErrorTold:
    """Find code and message in the forms that providers use; any other body is its own message."""
    text = data.decode("utf-8", "replace").strip()
    try:
        body: Any = msgspec.json.decode(data)
    except UNREADABLE:
        return ErrorTold("", re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip())
    error: Any = body.get("error", body) if is_object(body) else body
    if not is_object(error):
        return ErrorTold("", str(error))
    code = error.get("code") or error.get("type") or error.get("status") or ""
    return ErrorTold(str(code), str(error.get("message") or error.get("detail") or text))


def _status_of(code: str) -> int | None:
    """The status behind a code that came inside a stream, where there is no status."""
    if code.isdigit():
        return int(code)
    lowered = code.lower()
    if "rate_limit" in lowered or "quota" in lowered:
        return 429
    if "overloaded" in lowered or "unavailable" in lowered:
        return 503
    if "invalid_request" in lowered:
        return 400
    return None


def _retry_after(value: str | None, parts: int = 1) -> float | None:
    """Read a Retry-After header: seconds, or so many parts of one, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(seconds / parts, 0.0) if math.isfinite(seconds) else None
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)
