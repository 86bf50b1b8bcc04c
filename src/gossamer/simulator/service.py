"""From a request to what has to be sent for it, before any byte moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.instances import SchemaError
from gossamer.simulator.anthropic_chat import AnthropicChatDialect
from gossamer.simulator.dialect import Dialect, FrameStream, Request, RequestError
from gossamer.simulator.embeddings import EmbeddingFormat, embedding_format
from gossamer.simulator.faults import Fault, FaultDice
from gossamer.simulator.gemini_chat import GeminiChatDialect
from gossamer.simulator.ollama_chat import OllamaChatDialect
from gossamer.simulator.openai_chat import OpenAIChatDialect
from gossamer.simulator.openai_responses import OpenAIResponsesDialect
from gossamer.simulator.replies import Prompt, Reply, default_reply
from gossamer.simulator.script import Script
from gossamer.simulator.speech import speech_of
from gossamer.simulator.stats import DialectStats, SimulatorStats
from gossamer.simulator.stats_page import stats_page
from gossamer.simulator.tokens import PrefixCache

__all__ = ["Service", "Streamed", "Whole"]

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    529: b"Overloaded",
}


class Whole(msgspec.Struct, gc=False):
    """An answer with a length.

    Attributes:
        head: status line and headers, without those of the connection and the empty line.
        body: all of it.
        delay: seconds to wait before.
        fault: how it breaks.
    """

    head: bytes
    body: bytes
    delay: float = 0.0
    fault: Fault | None = None


class Streamed(msgspec.Struct):
    """A streamed answer.

    Attributes:
        head: status line and headers, without those of the connection and the empty line.
        stream: makes the frames.
        tokens: said in all, thinking that is not shown included.
        delay: seconds before the first byte.
        interval: seconds from frame to frame.
        fault: how it breaks.
        after: frames before it breaks; -1 for before the first byte.
        counts: of the wire format.
    """

    head: bytes
    stream: FrameStream
    tokens: int
    delay: float
    interval: float
    fault: Fault | None
    after: int
    counts: DialectStats


class Service:
    """Answers requests; knows nothing of connections.

    Args:
        script: what to say, before the default behaviour.
        dice: decides which requests fail.
        latency: seconds before the first byte.
        tps: chunks a second in one answer; 0 for as fast as possible.
        chunks: tokens of an echoed answer; None for as many as it has.
    """

    __slots__ = (
        "_chunks",
        "_dialects",
        "_dice",
        "_latency",
        "_number",
        "_position",
        "_prefixes",
        "_script",
        "_tps",
        "stats",
    )

    def __init__(
        self, *, script: Script | None, dice: FaultDice, latency: float, tps: float, chunks: int | None
    ) -> None:
        self._script = script
        self._dice = dice
        self._latency = latency
        self._tps = tps
        self._chunks = chunks
        self._number = self._position = 0
        self._prefixes = PrefixCache()
        self._dialects: tuple[Dialect, ...] = (
            AnthropicChatDialect(),
            GeminiChatDialect(),
            _OPENAI,
            OpenAIResponsesDialect(),
            OllamaChatDialect(),
        )
        self.stats = SimulatorStats()

    def answer(self, request: Request) -> Whole | Streamed:
        """What has to be sent for a request."""
        self.stats.requests += 1
        path = request.path
        if request.method == b"POST":
            asked = self.dialect_of(path)
            if asked is not None:
                return self._model_answer(asked, request)
            found = embedding_format(path)
            if found is not None:
                return self._embeddings(found, request)
        elif request.method == b"GET":
            # The URL that clients are given ends in /v1.
            path = path.removeprefix(b"/v1")
            if path == b"/health":
                return self._json(200, b'{"status":"ok"}', _OPENAI)
            if path == b"/stats":
                return self._stats(request)
        for dialect in self._dialects:
            try:
                found = dialect.look_up(request)
            except RequestError as error:
                return self._refused(dialect, error)
            if found is not None:
                return self._json(200, found, dialect)
        where = f"{request.method.decode('latin-1')} {request.path.decode('latin-1')}"
        return self.refusal(404, f"Invalid URL ({where})")

    def dialect_of(self, path: bytes) -> Dialect | None:
        """The wire format in which POST requests to this path ask the model, or None."""
        for dialect in self._dialects:
            if dialect.answers(path):
                return dialect
        return None

    def refusal(self, status: int, message: str, *, dialect: Dialect | None = None, **details: Any) -> Whole:
        """An error answer in a dialect's form, counted."""
        form = dialect or _OPENAI
        self.stats.count_error(str(status))
        if dialect is not None:
            self.stats.of(dialect.name).errors += 1
        return self._json(status, form.error(status, message, **details), form)

    def _stats(self, request: Request) -> Whole:
        # A browser asks for HTML first; everything else gets the numbers.
        if b"text/html" in request.headers.get(b"accept", b""):
            return self._body(200, stats_page(self.stats), b"text/html; charset=utf-8", _OPENAI)
        return self._json(200, msgspec.json.encode(self.stats), _OPENAI)

    def _refused(self, dialect: Dialect, error: RequestError) -> Whole:
        return self.refusal(error.status, str(error), dialect=dialect, param=error.param, code=error.code)

    def _model_answer(self, dialect: Dialect, request: Request) -> Whole | Streamed:
        stats = self.stats
        counts = stats.of(dialect.name)
        counts.requests += 1
        try:
            prompt = dialect.read(request, self._prefixes)
            reply = self._choose(prompt)
        except RequestError as error:
            return self._refused(dialect, error)
        except SchemaError as error:
            return self.refusal(400, f"Invalid schema: {error}.", dialect=dialect)
        stats.prompt_tokens += prompt.tokens
        stats.cached_tokens += prompt.cached_tokens
        counts.prompt_tokens += prompt.tokens
        latency = self._latency if reply.latency is None else reply.latency
        tps = self._tps if reply.tps is None else reply.tps
        if reply.error is not None:
            return self._scripted_error(dialect, reply, latency)
        fault = reply.fault
        if fault is not None:
            stats.count_error(fault)
            counts.errors += 1
        speech = speech_of(prompt, reply)
        self._number += 1
        if not prompt.stream:
            stats.completion_tokens += speech.tokens
            counts.completion_tokens += speech.tokens
            answer = self._whole(dialect, dialect.whole(prompt, speech, self._number), fault)
            answer.delay = latency + (speech.tokens / tps if tps else 0.0)
            return answer
        counts.streamed += 1
        stream = dialect.stream(prompt, speech, self._number, stamp=request.stamp)
        interval = 1 / tps if tps else 0.0
        after = stream.length // 2 if reply.after is None else min(reply.after, stream.length)
        if reply.after == 0 and fault in {"reset", "stall", "close"}:
            after = -1
        return Streamed(
            head=_STREAM_HEAD % dialect.stream_type + self._request_id(dialect),
            stream=stream,
            tokens=speech.tokens,
            # Thinking that is not shown takes its time all the same.
            delay=latency + (speech.tokens - stream.length) * interval,
            interval=interval,
            fault=fault,
            after=after,
            counts=counts,
        )

    def _embeddings(self, wanted: EmbeddingFormat, request: Request) -> Whole:
        stats = self.stats
        dialect = next((each for each in self._dialects if each.name == wanted.dialect), _OPENAI)
        counts = stats.of(dialect.name)
        counts.requests += 1
        try:
            made = wanted.embed(request.path, request.body)
        except RequestError as error:
            return self._refused(dialect, error)
        stats.prompt_tokens += made.tokens
        counts.prompt_tokens += made.tokens
        reply = self._trouble() or self._scripted_trouble(made.texts) or Reply()
        latency = self._latency if reply.latency is None else reply.latency
        if reply.error is not None:
            return self._scripted_error(dialect, reply, latency)
        if reply.fault is not None:
            stats.count_error(reply.fault)
            counts.errors += 1
        stats.embeddings += len(made.texts)
        answer = self._whole(dialect, made.body, reply.fault)
        answer.delay = latency
        return answer

    def _scripted_trouble(self, texts: Sequence[str]) -> Reply | None:
        # What a script says is not for embeddings, but where it names a text that fails, that text fails here too.
        for text in texts if self._script is not None else ():
            reply = self._script.matching(text, 0) if self._script is not None else None
            if reply is not None and reply.silent:
                return reply
        return None

    def _whole(self, dialect: Dialect, body: bytes, fault: Fault | None) -> Whole:
        if fault == "error_frame":
            return self._json(500, dialect.error(500), dialect)
        if fault == "unknown_frame":
            return self._json(200, _UNKNOWN_FIELD + body[1:], dialect)
        answer = self._json(200, body, dialect)
        answer.fault = fault
        return answer

    def _scripted_error(self, dialect: Dialect, reply: Reply, latency: float) -> Whole:
        assert reply.error is not None
        seconds = reply.retry_after
        answer = self.refusal(
            reply.error, reply.message, dialect=dialect, code=reply.code, retry_after=seconds
        )
        answer.delay = latency
        if seconds is not None:
            answer.head += _retry_after(seconds)
        return answer

    def _trouble(self) -> Reply | None:
        kind = self._dice.roll()
        if kind is None:
            return None
        if kind == "429":
            return Reply(error=429, retry_after=1.0)
        return Reply(error=500) if kind == "500" else Reply(fault=kind, silent=True)

    def _choose(self, prompt: Prompt) -> Reply:
        trouble = self._trouble()
        if trouble is not None:
            return self._filled(trouble, prompt)
        script = self._script
        scripted = None if script is None else script.matching(prompt.said, prompt.turn)
        if script is not None and scripted is None:
            scripted = script.in_turn(self._position)
            self._position += 1
        if scripted is None:
            return default_reply(prompt, self._chunks)
        return self._filled(scripted, prompt)

    def _filled(self, reply: Reply, prompt: Prompt) -> Reply:
        if not reply.silent or reply.error is not None:
            return reply
        said = default_reply(prompt, self._chunks)
        return msgspec.structs.replace(
            reply, text=said.text, calls=said.calls, hosted=said.hosted, chunks=said.chunks
        )

    def _json(self, status: int, body: bytes, dialect: Dialect) -> Whole:
        return self._body(status, body, b"application/json", dialect)

    def _body(self, status: int, body: bytes, content_type: bytes, dialect: Dialect) -> Whole:
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n" % (
            status,
            _REASONS.get(status, b"Error"),
            content_type,
            self._request_id(dialect),
            len(body),
        )
        return Whole(head, body)

    def _request_id(self, dialect: Dialect) -> bytes:
        return b"%b: req_%024d\r\n" % (dialect.id_header, self.stats.requests)


_OPENAI = OpenAIChatDialect()
_UNKNOWN_FIELD = b'{"simulator_unknown":{"of":["no","type"]},'
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncache-control: no-cache\r\n"


def _retry_after(seconds: float) -> bytes:
    # The header knows whole seconds only; the exact time goes beside it, where OpenAI puts it.
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (math.ceil(seconds), round(seconds * 1000))
