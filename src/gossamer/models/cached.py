"""A model whose answers are kept: what was asked before is answered without asking again."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import msgspec

from gossamer.cache import Cache, MemoryCache, MultiLevelCache
from gossamer.errors import CacheError
from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Audio, File, Image, Message, Part, ProviderData, ToolCall, ToolResult
from gossamer.models.base import FinishReason, Model, ModelRequest, ModelResponse, ModelSettings
from gossamer.models.registry import resolve
from gossamer.models.scripted import as_deltas
from gossamer.models.wrapping import WrappedModel
from gossamer.schema import HostedTool, OutputSchema, ToolSchema
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger
from gossamer.usage import Usage
from gossamer.view import MessageView

__all__ = ["CachedModel"]

# Raised when what goes into a key, or what is stored under it, changes its form: old answers are then not found.
_VERSION = 1

# Answers that ended in another way may be other, or better, the next time.
_KEPT_REASONS = frozenset({"stop", "tool_calls"})

# A stream of more deltas is kept as its message alone and cut anew when it is replayed.
_MAX_PIECES = 10_000

# How many equal calls under way one waits for: one that fails may take long, and so may the next.
_MOST_WAITS = 2

# How often it is looked whether a stream rests at one delta, its consumer doing something else, while others wait for
# its answer; one that rests from one look to the next is waited for no longer.
_LOOK_SECONDS = 1.0

_FROM_CACHE = Usage(cached_calls=1)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


# --- what is stored -----------------------------------------------------------------------------------------


class _Piece(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A delta that is not plain text; calls are numbered, as they get new ids each time."""

    kind: Literal["thinking", "call", "arguments"]
    text: str
    call: int = 0


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer without what is new each time: when it was given, its calls' ids, what it cost.

    Attributes:
        parts: the message's; calls without ids.
        author: the message's.
        provider: the message's.
        finish_reason: as in `ModelResponse`.
        model: as in `ModelResponse`.
        pieces: the deltas as they came, text as it is; None where the answer came in one piece.
    """

    parts: tuple[Part, ...]
    author: str | None
    provider: ProviderData | None
    finish_reason: FinishReason
    model: str
    pieces: list[str | _Piece] | None = None

    @classmethod
    def of(cls, response: ModelResponse, deltas: Sequence[Any] | None = None) -> _Answer:
        """Take an answer apart."""
        message = response.message
        numbers = {call.id: number for number, call in enumerate(message.tool_calls)}
        parts = tuple(
            msgspec.structs.replace(part, id="") if type(part) is ToolCall else part for part in message.parts
        )
        pieces = None if deltas is None else _pieces_of(deltas, numbers)
        return cls(parts, message.author, message.provider, response.finish_reason, response.model, pieces)

    def response(self) -> ModelResponse:
        """Give the answer as a new one: made now, its calls with ids of their own, nothing spent."""
        parts = self.parts
        for part in parts:
            if type(part) is ToolCall:
                parts = tuple(
                    msgspec.structs.replace(one, id=new_id()) if type(one) is ToolCall else one
                    for one in parts
                )
                break
        message = Message("assistant", parts, self.author, provider=self.provider)
        return ModelResponse(message, _FROM_CACHE, self.finish_reason, self.model)

    def deltas(self, response: ModelResponse) -> Iterator[Delta]:
        """Give the deltas of the answer, for a response made of it."""
        if self.pieces is None:
            yield from as_deltas(response.message)
            return
        ids = [call.id for call in response.message.tool_calls]
        for piece in self.pieces:
            if isinstance(piece, str):
                yield TextDelta(piece)
            elif piece.kind == "thinking":
                yield ThinkingDelta(piece.text)
            elif piece.kind == "call":
                yield ToolCallStarted(ids[piece.call], piece.text)
            else:
                yield ToolArgumentsDelta(ids[piece.call], piece.text)


# JSON, as in the journal: all that parts hold has a form in it.
_decode = msgspec.json.Decoder(_Answer).decode


def _pieces_of(deltas: Sequence[Any], numbers: dict[str, int]) -> list[str | _Piece] | None:
    """Give deltas as they are stored; None where they are too many, or do not fit the message."""
    if len(deltas) > _MAX_PIECES:
        return None
    pieces: list[str | _Piece] = []
    for delta in deltas:
        if isinstance(delta, TextDelta):
            pieces.append(delta.text)
        elif isinstance(delta, ThinkingDelta):
            pieces.append(_Piece("thinking", delta.text))
        elif isinstance(delta, ToolCallStarted) and delta.call_id in numbers:
            pieces.append(_Piece("call", delta.name, numbers[delta.call_id]))
        elif isinstance(delta, ToolArgumentsDelta) and delta.call_id in numbers:
            pieces.append(_Piece("arguments", delta.text, numbers[delta.call_id]))
        else:
            return None
    return pieces


# --- what is asked ------------------------------------------------------------------------------------------


def _identity(model: Model) -> list[Any]:
    """What of a model changes its answers: the wire format, the name, the address, the dialect's own options."""
    if isinstance(model, WrappedModel):
        return _identity(model.model)  # asking again, or asking later, changes no answer
    told: list[Any] = [model.dialect, model.name, getattr(model, "provider", None), model.capabilities]
    models: Sequence[Model] = getattr(model, "models", ())
    told += [_identity(one) for one in models]
    url = getattr(getattr(model, "_transport", None), "url", None)
    if url is not None:  # one of our own dialects
        told.append(url)
        slots = sorted(
            {name for kind in type(model).__mro__ for name in getattr(kind, "__slots__", ())} - {"price"}
        )
        options = {name: getattr(model, name, None) for name in slots}
        told.append(
            {
                name: value
                for name, value in options.items()
                if isinstance(value, bool | int | str | msgspec.Struct)
            }
        )
    return told


@functools.lru_cache(maxsize=256)
def _key_of_tools(tools: tuple[ToolSchema | HostedTool, ...]) -> bytes:
    return _encode(tools)


@functools.lru_cache(maxsize=256)
def _key_of_schema(schema: OutputSchema) -> bytes:
    return _encode((schema.name, schema.description, schema.schema, schema.strict))


def _key_of_settings(settings: ModelSettings) -> dict[str, Any]:
    told = {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}
    told.pop("timeout", None)  # how long to wait changes no answer
    return told


def _key_of_message(view: MessageView, message: Message, previous: Message | None) -> bytes:
    """Encode what of a message changes the answer to it: all but its time and the ids of calls."""
    parts = [_key_of_part(part, view, message, previous) for part in message.parts]
    return _encode((message.role, message.author, message.provider, parts))


def _key_of_part(part: Part, view: MessageView, message: Message, previous: Message | None) -> Any:
    if isinstance(part, ToolCall):
        return ("call", part.name, part.arguments, part.provider)
    if isinstance(part, ToolResult):
        content: Any = part.content
        if not isinstance(content, str):
            content = [_key_of_part(one, view, message, previous) for one in content]
        place = _place_of_call(part.call_id, view, message, previous)
        return ("result", place, part.name, content, part.outcome, part.provider)
    if isinstance(part, Image | Audio | File) and part.data is not None:
        digest = sha256(part.data).digest()
        name = part.name if isinstance(part, File) else None
        return (type(part).__name__, digest, part.media_type, name, part.provider)
    return part


def _place_of_call(
    call_id: str, view: MessageView, message: Message, previous: Message | None
) -> int | tuple[int, int] | str:
    """Say which call a result belongs to without naming its id: its number in the message just before, or how many
    messages back and its number there; the id where there is no such call.
    """  # noqa: D205 - one sentence
    for number, call in enumerate(previous.tool_calls if previous is not None else ()):
        if call.id == call_id:
            return number
    back = -1
    for earlier in reversed(view):
        if earlier is message:
            back = 0
        elif back >= 0:
            back += 1
            for number, call in enumerate(earlier.tool_calls):
                if call.id == call_id:
                    return back, number
    return call_id


# --- calls in flight ----------------------------------------------------------------------------------------


class _Flight:
    """A call under way, and those who wait for its answer.

    Args:
        flights: the calls under way; while there is no other in its place, equal calls find this one there.
        place: of the call.

    Attributes:
        resting: whether it is a stream whose consumer has a delta and has not come back for the next.
        moves: how many deltas the consumer has come back from.
    """

    __slots__ = ("_flights", "_place", "_timer", "_waiters", "moves", "resting")

    def __init__(self, flights: _Flights, place: _Place) -> None:
        self._flights = flights
        self._place = place
        self._waiters: dict[asyncio.Future[_Answer | None], None] = {}  # in the order in which they came
        self._timer: asyncio.TimerHandle | None = None
        self.resting = False
        self.moves = 0
        flights.setdefault(place, self)

    async def landed(self) -> _Answer | None:
        """Wait for the answer; None where the call failed, was cancelled, or is a stream that rests."""
        waiter: asyncio.Future[_Answer | None] = self._place[0].create_future()
        self._waiters[waiter] = None
        if self._timer is None:
            self._timer = self._place[0].call_later(_LOOK_SECONDS, self._look, -1)
        try:
            return await waiter
        finally:
            self._waiters.pop(waiter, None)

    def land(self, answer: _Answer | None) -> None:
        """Leave the place and wake those who wait; without an answer the first of them takes the place."""
        if self._flights.get(self._place) is self:
            del self._flights[self._place]
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(answer)

    def _look(self, moves: int) -> None:
        """Give up a stream that has not moved since the last look."""
        if self.resting and self.moves == moves:
            self.land(None)
            return
        self._timer = self._place[0].call_later(_LOOK_SECONDS, self._look, self.moves)


# By loop too, for nobody can wait for another loop's call.
_Place: TypeAlias = tuple[asyncio.AbstractEventLoop, str]
_Flights: TypeAlias = dict[_Place, _Flight]


class _NotKept(Exception):  # noqa: N818 - a way out of a computation, and no error
    """An answer was given that is not to be kept."""


# --- the class ----------------------------------------------------------------------------------------------


class CachedModel(WrappedModel):
    """A model that remembers its answers: an equal request is answered from the cache.

    Equal is what the provider could not tell apart: same model, URL, instructions, messages with all their parts and
    media, tools, output schema and settings. When messages were made, ids of calls and timeouts do not count. Answers
    that end in `stop` or `tool_calls` are kept; broken, cut, filtered and refused ones are not.

    Equal requests under way in one event loop are asked once. Where that one call fails or is cancelled, another asks
    in its turn; after a second one that failed, those who still wait ask each for itself. A stream whose consumer does
    not come back for the next delta for two seconds is waited for no longer.

    With a `MultiLevelCache` in Redis that holds across processes too, for what is not streamed: one of them asks, and the
    others get its answer.

    A stream is replayed as the deltas that came, at once. An answer from the cache has ids and a time of its own;
    its usage is one of `cached_calls` and nothing else. A cache that fails is passed over, with a line in the log.

    Args:
        model: the model to ask; a string brings its retries along.
        cache: where answers are kept; a `MemoryCache` of its own where None.
        ttl: how long an answer is good, in seconds; the cache's own rule where None.

    Raises:
        ArgumentError: no model, or a string that names none.
    """

    __slots__ = ("_flights", "_told", "cache", "ttl")

    def __init__(self, model: Model | str, cache: Cache | None = None, *, ttl: float | None = None) -> None:
        super().__init__(model)
        self.cache: Cache = MemoryCache() if cache is None else cache
        self.ttl = ttl
        self._told: bytes | None = None
        self._flights: _Flights = {}

    def _named(self, name: str) -> Model:
        """Give the model that a string names, with its retries: only what is not cached is asked for."""
        return resolve(name)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer from the cache, else ask; see `Model.respond`. A hit costs a hash of the request and a decoding."""
        key = self.key(request)
        place = (asyncio.get_running_loop(), key)
        answer: _Answer | None = None
        if place in self._flights:
            answer = await self._wait_for(place)
            if answer is not None:
                return answer.response()
        flight = _Flight(self._flights, place)
        try:
            if isinstance(self.cache, MultiLevelCache):
                answer, response = await self._find_or_ask(self.cache, key, request)
                return answer.response() if response is None else response
            answer = await self._find(key)
            if answer is not None:
                return answer.response()
            response = await self.model.respond(request)
            answer = _Answer.of(response)
            await self._keep(key, answer)
            return response
        finally:
            flight.land(answer)

    async def _find_or_ask(
        self, cache: MultiLevelCache, key: str, request: ModelRequest
    ) -> tuple[_Answer, ModelResponse | None]:
        """Look an answer up, or ask as the one of all processes that does; gives the response where it was asked."""
        response: ModelResponse | None = None

        async def ask() -> bytes:
            nonlocal response
            response = await self.model.respond(request)
            if response.finish_reason not in _KEPT_REASONS:
                raise _NotKept
            return msgspec.json.encode(_Answer.of(response))

        answer: _Answer | None = None
        data: Any = None
        with suppress(_NotKept):
            try:
                data = await cache.get_or_compute(key, ask, self.ttl)
            except CacheError as error:
                logger.warning("the cache of model %r failed to give an answer: %r", self.name, error)
        if response is None and data is not None:
            try:
                answer = _decode(data)
            except (TypeError, msgspec.DecodeError) as error:
                logger.warning(
                    "the cache of model %r has no answer where one should be: %r", self.name, error
                )
        if response is None and answer is None:
            response = await self.model.respond(request)
            await self._keep(key, _Answer.of(response))
        self._count("hit" if response is None else "miss")
        if response is not None:
            answer = _Answer.of(response)
        assert answer is not None
        return answer, response

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Replay from the cache, else ask; see `Model.stream`."""
        key = self.key(request)
        place = (asyncio.get_running_loop(), key)
        answer = await self._wait_for(place) if place in self._flights else None
        response: ModelResponse | None = None
        if answer is None:
            flight = _Flight(self._flights, place)
            try:
                answer = await self._find(key)
                if answer is None:
                    heard: list[Delta] = []
                    deltas = self.model.stream(request)
                    try:
                        async for delta in deltas:
                            if type(delta) is ModelResponse:
                                response = delta
                                break
                            if len(heard) <= _MAX_PIECES:
                                heard.append(delta)  # type: ignore[arg-type]
                            flight.resting = True
                            yield delta
                            flight.resting = False
                            flight.moves += 1
                    finally:
                        await deltas.aclose()
                    if response is not None:  # else the caller tells of a model that broke its promise
                        answer = _Answer.of(response, heard)
                        await self._keep(key, answer)
            finally:
                flight.land(answer)
        if answer is not None and response is None:
            response = answer.response()
            for delta in answer.deltas(response):
                yield delta
        if response is not None:
            yield response

    async def _wait_for(self, place: _Place) -> _Answer | None:
        """Wait for the answer to an equal call under way; None where this one is to ask."""
        for _ in range(_MOST_WAITS):
            flight = self._flights.get(place)
            if flight is None:
                break
            answer = await flight.landed()
            if answer is not None:
                self._count("shared")
                return answer
        return None

    def key(self, request: ModelRequest) -> str:
        """Give the key of a request: equal for requests that the provider could not tell apart.

        O(bytes of the request) to hash; each message is encoded once for all requests of its conversation.
        """
        told = self._told
        if told is None:
            told = self._told = sha256(_encode((_VERSION, _identity(self.model)))).digest()
        tools = request.tools
        schema = request.output_schema
        settings = request.settings
        digest = sha256(
            _encode(
                (
                    told,
                    request.instructions,
                    request.tool_choice,
                    None if settings is None else _key_of_settings(settings),
                    len(tools),
                    schema is not None,
                )
            )
        )
        if tools:
            digest.update(_key_of_tools(tools))
        if schema is not None:
            digest.update(_key_of_schema(schema))
        messages = request.messages
        digest.update(messages.encoded("cache key", functools.partial(_key_of_message, messages)))
        return f"answer:{digest.hexdigest()}"

    async def _find(self, key: str) -> _Answer | None:
        """Look an answer up; a cache that fails, or holds what cannot be read, is as good as empty."""
        try:
            data = await self.cache.get(key)
            answer = None if data is None else _decode(data)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a cache, the model can answer
            logger.warning("the cache of model %r failed to give an answer: %r; asking it", self.name, error)
            answer = None
        self._count("miss" if answer is None else "hit")
        return answer

    async def _keep(self, key: str, answer: _Answer) -> None:
        if answer.finish_reason not in _KEPT_REASONS:
            return
        try:
            await self.cache.set(key, msgspec.json.encode(answer), self.ttl)
        except Exception as error:  # noqa: BLE001 - the answer is there, kept or not
            logger.warning("the cache of model %r failed to keep an answer: %r", self.name, error)

    def _count(self, outcome: str) -> None:
        if metrics.recorder is not None:
            metrics.recorder.cache_asked(self.name, outcome)
