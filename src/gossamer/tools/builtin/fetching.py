"""What the toolkits share that ask a service: a request, its answer within bounds, and failures in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from gossamer.errors import (
    ArgumentError,
    ConnectError,
    ReadTimeoutError,
    ServiceError,
    TooLargeError,
    WireError,
)
from gossamer.tools.threads import run_in_thread

if TYPE_CHECKING:
    from gossamer.wire import Headers, Stream

__all__ = ["USER_AGENT", "Service", "retry_after_of"]

USER_AGENT = "gossamer (library for AI agents)"
"""What services are told of who asks, where the user says nothing else."""

_NO_SECRETS = frozenset({"accept", "user-agent"})
_MAX_CONNECTIONS = 4
_MAX_REFUSAL_BYTES = 4_096
_MAX_SHOWN_CHARS = 300
_MAX_INLINE_BYTES = 256 * 1024  # beyond it an answer is decoded in a thread

T = TypeVar("T")


def retry_after_of(headers: Headers) -> float | None:
    """Read `Retry-After`: a number of seconds, or a date.

    Args:
        headers: of an answer.

    Returns:
        Seconds to wait, not negative; None where nothing is said, or nothing that can be read.
    """
    value = (headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


class Service:
    """A service that is asked over HTTP, and what it is called in errors.

    Redirects are not followed, as they could take a key along. At most four connections are open at once.

    Args:
        name: as people know it.
        url: what the paths of its requests are put behind.
        headers: sent with every request; where an answer repeats a value of theirs, errors do not.
        timeout: seconds for a whole request, and for the wait that `pause` may cause before it.
        max_bytes: the most bytes of an answer, after decompression.
        pause: seconds between the beginnings of two requests, where the service asks for it.
        advice: what to do where the service refuses a key, or for want of one.
        retry_after: reads from the headers of a refusal how many seconds to wait.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
    """

    __slots__ = (
        "_advice",
        "_endpoint",
        "_free",
        "_max_bytes",
        "_pause",
        "_retry_after",
        "_secrets",
        "_timeout",
        "name",
    )

    def __init__(
        self,
        name: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20.0,
        max_bytes: int = 4_000_000,
        pause: float = 0.0,
        advice: str = "",
        retry_after: Callable[[Headers], float | None] = retry_after_of,
    ) -> None:
        if max_bytes < 1:
            raise ArgumentError(f"max_bytes is {max_bytes!r}; give 1 or more")
        if not pause >= 0:
            raise ArgumentError(f"pause is {pause!r}; give seconds, 0 or more")
        given = headers or {}
        self.name = name
        from gossamer.wire import (  # with what speaks HTTP, which other toolkits do not need
            Endpoint,
            Timeouts,
        )

        self._endpoint = Endpoint(
            url,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **given},
            timeouts=Timeouts(connect=10.0, read=timeout, total=timeout, pool=timeout),
            max_connections=_MAX_CONNECTIONS,
        )
        # Of `Bearer …` the last word is the key.
        words = (value.split() for key, value in given.items() if key.lower() not in _NO_SECRETS)
        self._secrets = tuple(parts[-1] for parts in words if parts)
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._pause = pause
        self._free = 0.0
        self._advice = advice
        self._retry_after = retry_after

    async def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> bytes:
        """Ask for something and give the body of the answer.

        Args:
            path: put behind the URL; each part of it is encoded already.
            parameters: of the query.

        Raises:
            ServiceError: no answer came, or none with status 200, or one that is too large.
        """
        query = urlencode(parameters or {}, quote_via=quote)
        return await self._ask("GET", f"{path}?{query}" if query else path)

    async def get_json(
        self, path: str, parameters: Mapping[str, str | int] | None = None, *, answer: type[T]
    ) -> T:
        """Ask for something and decode the answer.

        Args:
            path: as of `get`.
            parameters: as of `get`.
            answer: the type of the answer.

        Raises:
            ServiceError: as of `get`, or the answer is not JSON of that type.
        """
        return await self._decode_large(await self.get(path, parameters), answer)

    async def post_json(self, path: str, question: Any, *, answer: type[T]) -> T:
        """Send a question as JSON and decode the answer.

        Args:
            path: as of `get`.
            question: anything with a JSON form.
            answer: the type of the answer.

        Raises:
            ServiceError: as of `get_json`.
        """
        data = await self._ask("POST", path, msgspec.json.encode(question))
        return await self._decode_large(data, answer)

    def decode(self, data: bytes, answer: type[T]) -> T:
        """Decode an answer of JSON.

        Args:
            data: the answer.
            answer: its type.

        Raises:
            ServiceError: it is something else.
        """
        try:
            return msgspec.json.decode(data, type=answer)
        except (ValueError, RecursionError) as error:
            raise self.error(
                f"answered with something that it does not document ({error}): {self._shown(data)!r}", 200
            ) from error

    def error(self, message: str, status: int | None = None) -> ServiceError:
        """Make an error of this service.

        Args:
            message: what happened, behind the name of the service.
            status: of its answer.
        """
        return ServiceError(f"{self.name} {message}", service=self.name, status=status)

    async def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        await self._wait_for_turn()
        headers = {"Content-Type": "application/json"} if body else None
        try:
            stream = await self._endpoint.send(body, method=method, path=path, headers=headers)
            if stream.status != 200:
                raise await self._refusal(stream)
            return await stream.read_all(self._max_bytes)
        except TooLargeError as error:
            raise self.error(f"answered with more than {self._max_bytes:,} bytes; ask for less") from error
        except ConnectError as error:
            raise self.error(f"could not be reached: {error}") from error
        except ReadTimeoutError as error:
            raise self.error(f"did not answer within {self._timeout:g} s; try again later") from error
        except WireError as error:
            raise self.error(f"did not answer properly: {error}") from error

    async def _wait_for_turn(self) -> None:
        if not self._pause:
            return
        now = monotonic()
        begin = max(now, self._free)
        if begin - now > self._timeout:
            raise self.error(
                f"takes a request every {self._pause:g} s, and those that wait already take longer than "
                f"{self._timeout:g} s; ask for less at once"
            )
        self._free = begin + self._pause
        if begin > now:
            await asyncio.sleep(begin - now)

    async def _decode_large(self, data: bytes, answer: type[T]) -> T:
        if len(data) <= _MAX_INLINE_BYTES:
            return self.decode(data, answer)
        return await run_in_thread(partial(self.decode, data, answer))

    async def _refusal(self, stream: Stream) -> ServiceError:
        """Make an error of an answer without success, with the first words of what the service says itself."""
        data = b""
        try:
            while len(data) < _MAX_REFUSAL_BYTES and (piece := await stream.read()):
                data += piece
        except WireError:
            pass  # what is known by now says enough
        finally:
            stream.close()
        status = stream.status
        seconds: float | None = None
        if status in {429, 503}:
            seconds = self._retry_after(stream.headers)
        later = "later" if seconds is None else f"in {seconds:.0f} s"
        if status == 429:
            what = f"takes no more requests for now (429); try again {later}"
        elif status >= 500:
            what = f"failed on its side ({status}); try again {later}"
        elif status in {401, 402, 403} or (self._advice and status == 422):
            what = f"refused the request ({status})" + (f"; {self._advice}" if self._advice else "")
        elif status == 404:
            what = "does not have this (404)"
        elif 300 <= status < 400:
            to = stream.headers.get("location") or "no other place"
            what = f"points to {to} ({status}), which is not followed; set the URL to where the service is"
        else:
            what = f"refused the request ({status})"
        kind = stream.headers.get("content-type") or ""
        said = self._shown(data) if "json" in kind or "text/plain" in kind else ""
        error = self.error(f"{what}: {said}" if said else what, status)
        error.retry_after = seconds
        return error

    def _shown(self, data: bytes) -> str:
        text = " ".join(data[:_MAX_REFUSAL_BYTES].decode("utf-8", "replace").split())
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
