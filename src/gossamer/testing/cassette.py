"""Record what providers answered, and replay it without them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from gossamer.errors import ArgumentError, CassetteError, WireError
from gossamer.models import embeddings, presets, registry, transport
from gossamer.models.transport import Outgoing
from gossamer.testing.meaning import Asked, asked, differences
from gossamer.testing.recording import Answered, Exchange, Failure, answered, load, write
from gossamer.testing.secrets import Secrets
from gossamer.wire import Headers, Stream

__all__ = ["Cassette", "CassetteMode"]

CassetteMode: TypeAlias = Literal["once", "replay", "record"]

_SHOWN_DIFFERENCES = 5

# How an answer ends in the recording whose reader did not want the rest.
_LEFT = Failure("ProtocolError", "the recording ends here: its reader went away before the answer was whole")


class Cassette:
    """A recording of what models asked and what came back: `with Cassette("weather.json"): …`.

    While it is in place, every model and embedder of the process goes through it, in all threads and event loops; they
    run through their true wire formats. One cassette at a time.

    Requests are matched by what they mean: URL and JSON body, whatever the order of keys, the ids of calls, the key
    used and the port of a server on this machine; media by their hash. Equal requests get their answers in the order
    of the recording. Errors and streams that broke are recorded as well; a request that never got an answer is not.
    While a recording answers, models and embedders that strings name need no key.

    The file holds no headers of requests and no secrets: keys that went over the wire, those in environment variables,
    what fields named `authorization`, `api_key` or `password` hold, and what looks like a key are taken out of
    everything. A key that the answer spells in pieces of a stream is not seen.

    Args:
        path: a JSON file.
        mode: `once`: replay where the file is there, else record; `replay`: never ask a provider; `record`: ask, and
            write the file anew.

    Attributes:
        path: as given.
        mode: as given.
        recording: whether requests go out.

    Raises:
        ArgumentError: another mode.
    """

    __slots__ = ("_answers", "_exchanges", "_lock", "_secrets", "_taken", "mode", "path", "recording")

    def __init__(self, path: str | Path, mode: CassetteMode = "once") -> None:
        if mode not in get_args(CassetteMode):
            raise ArgumentError(f"mode must be one of {', '.join(get_args(CassetteMode))}, not {mode!r}")
        self.path = Path(path)
        self.mode: CassetteMode = mode
        self.recording = False
        self._lock = Lock()
        self._secrets = Secrets()
        # While recording, a place each in the order of the requests; None until the answer is whole.
        self._exchanges: list[Exchange | None] = []
        self._answers: dict[bytes, deque[Answered]] = {}
        self._taken: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"Cassette({str(self.path)!r}, {self.mode!r})"

    def open(self) -> None:
        """Put the cassette between the models and the wire.

        Raises:
            CassetteError: another one is in place, or the file is missing in mode `replay`, or cannot be read.
        """
        if transport.tape is not None:
            raise CassetteError(f"{transport.tape!r} is in place already; close it before {self!r} is opened")
        there = self.path.exists()
        if self.mode == "replay" and not there:
            raise CassetteError(
                f"there is no recording at {self.path}; make it once where the provider can be reached, with mode "
                "'once' or --cassette=once"
            )
        self.recording = self.mode == "record" or not there
        exchanges = [] if self.recording else load(self.path)
        self._exchanges = list(exchanges)
        self._answers, self._taken = {}, {}
        for exchange in exchanges:
            key = exchange.request.without(self._secrets).key
            self._answers.setdefault(key, deque()).append(exchange.response)
        presets.replaying = not self.recording
        transport.tape = self

    def close(self, *, keep: bool = True) -> None:
        """Take the cassette out and write what was recorded; idempotent.

        Args:
            keep: False leaves the file as it was: half a recording, made by code that failed, would be replayed for
                ever.

        Raises:
            CassetteError: the file cannot be written; what it held before is still there.
        """
        if transport.tape is not self:
            return
        transport.tape = None
        if presets.replaying:
            presets.replaying = False
            # Models of strings may have been built without the key that they need from now on.
            registry.resolve.cache_clear()
            embeddings.embedder.cache_clear()
        if not self.recording or not keep:
            return
        with self._lock:
            told = [msgspec.to_builtins(one) for one in self._exchanges if one is not None]
            # Once more over everything: a key may have been used after the answer that held it.
            write(self.path, [self._secrets.remove(one) for one in told])

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=error is None)

    async def exchange(self, request: Outgoing, send: Callable[[], Awaitable[Stream]]) -> Stream:
        """Answer a request from the recording, or send it and record what comes; called by the models' transport.

        Raises:
            CassetteError: the recording has no such request; nothing was sent.
        """
        with self._lock:
            self._secrets.learn(request.headers, f"{request.url}?{request.path or ''}".partition("?")[2])
            wanted = asked(request.url, request.path, request.body, self._secrets)
            if not self.recording:
                return self._play(wanted)
            exchanges = (
                self._exchanges
            )  # those of this recording: the answer may be left after the next one began
            place = len(exchanges)
            exchanges.append(None)
        stream = await send()

        def done(body: bytes, failure: Failure | None) -> None:
            exchanges[place] = Exchange(wanted, answered(stream.status, stream.headers, body, failure))

        return _Taped(stream, done)

    def _play(self, wanted: Asked) -> Stream:
        key = wanted.key
        answers = self._answers.get(key)
        if not answers:
            raise self._unknown(wanted, self._taken.get(key, 0))
        self._taken[key] = self._taken.get(key, 0) + 1
        return _Played(answers.popleft())

    def _unknown(self, wanted: Asked, taken: int) -> CassetteError:
        advice = "nothing was sent. Record anew with --cassette=record, or Cassette(…, mode='record')"
        if taken:
            return CassetteError(
                f"{self.path} holds {taken} answers to this request, and it was asked for once more; {advice}.\n"
                f"  {wanted.method} {wanted.url}"
            )
        found: tuple[int, int, list[str]] | None = None
        for number, exchange in enumerate(self._exchanges):
            if exchange is None:
                continue
            told = list(islice(_differences(exchange.request, wanted), 1000))
            if found is None or len(told) < found[0]:
                found = len(told), number + 1, told
        if found is None:
            return CassetteError(
                f"{self.path} is empty, and {wanted.method} {wanted.url} was asked for; {advice}"
            )
        count, number, told = found
        lines = "".join(f"\n  {line}" for line in told[:_SHOWN_DIFFERENCES])
        more = f"\n  and {count - _SHOWN_DIFFERENCES} more" if count > _SHOWN_DIFFERENCES else ""
        return CassetteError(
            f"{self.path} has no answer to a request; {advice}.\n"
            f"The nearest request of the recording, number {number}, differs:{lines}{more}"
        )


def _differences(recorded: Asked, wanted: Asked) -> Iterator[str]:
    if recorded.url != wanted.url:
        yield f"url: recorded {recorded.url}, asked {wanted.url}"
    yield from differences(recorded.body, wanted.body)


class _Nobody:
    """The source of streams that no connection feeds."""

    def resume(self, stream: Stream) -> None:
        """Nothing was paused."""

    def abandon(self, stream: Stream) -> None:
        """Nothing is held."""


_NOBODY = _Nobody()


class _Played(Stream):
    """An answer out of a recording; each read gives an event or a line."""

    __slots__ = ()

    def __init__(self, answer: Answered) -> None:
        super().__init__(_NOBODY, asyncio.get_running_loop())
        block = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self._begin(answer.status, Headers(f"\n{block}".encode("latin-1", "replace")))
        self._pieces = answer.pieces()[::-1]
        self._end(None if answer.failure is None else answer.failure.error())

    def take(self) -> bytes | None:
        if self._pieces:
            return self._pieces.pop()
        if self._error is not None:
            raise self._error
        return b""


class _Taped(Stream):
    """An answer that is recorded while it is read.

    Args:
        stream: the answer.
        done: called once with what was read, and with how it broke off.
    """

    __slots__ = ("_done", "_heard", "_stream")

    def __init__(self, stream: Stream, done: Callable[[bytes, Failure | None], None]) -> None:
        super().__init__(_NOBODY, asyncio.get_running_loop())
        self.status = stream.status
        self.headers = stream.headers
        self._stream = stream
        self._heard: list[bytes] = []
        self._done: Callable[[bytes, Failure | None], None] | None = done

    def take(self) -> bytes | None:
        try:
            data = self._stream.take()
        except WireError as error:
            self._finish(Failure(type(error).__name__, str(error)))
            raise
        if data:
            self._heard.append(data)
        elif data is not None:
            self._finish(None)
        return data

    def arrival(self) -> asyncio.Future[None]:
        return self._stream.arrival()

    @property
    def at_end(self) -> bool:
        return self._stream.at_end

    def close(self) -> None:
        self._finish(None if self._stream.at_end else _LEFT)
        self._stream.close()

    def _finish(self, failure: Failure | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(b"".join(self._heard), failure)
