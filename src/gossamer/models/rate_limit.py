"""Keeping to a provider's limits on our side: calls wait for their turn, first come, first served."""

from __future__ import annotations

import asyncio
import math
import os
from collections import deque
from collections.abc import AsyncGenerator
from threading import RLock
from time import monotonic
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, ModelError, QueueFullError
from gossamer.events import Delta
from gossamer.messages import Message, Text, Thinking, ToolCall, ToolResult
from gossamer.models.base import Model, ModelRequest, ModelResponse
from gossamer.models.failures import may_have_cost
from gossamer.models.wrapping import WrappedModel
from gossamer.telemetry import metrics

__all__ = ["RateLimitedModel"]

# What is not known before a call, guessed; the usage corrects it afterwards.
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_MEDIA = 1000
_TOKENS_PER_ANSWER = 500

# A message weighs one byte for so many tokens in the buffer that keeps what messages weigh: its length is the sum.
_TOKENS_PER_BYTE = 8

# How often one who is not the first in line looks whether the first can still go on.
_LOOK_SECONDS = 5.0


class RateLimitedModel(WrappedModel):
    """Keeps the calls to a model within so many requests and tokens a minute.

    Two buckets, of requests and of tokens, hold one minute's worth each, are full at the beginning and fill up
    evenly. A call waits until both hold what it needs, behind those that came before it: over any span of `t` seconds
    at most `limit * (1 + t / 60)` begin. A call that needs more tokens than a minute has waits for a full bucket and
    leaves it in debt.

    Tokens are estimated before a call, one for four bytes of the request and `max_tokens` of the settings, or 500,
    for the answer; what the call really used corrects the bucket afterwards. A call that was refused gives its
    tokens back, not its place among the requests.

    Share one instance wherever the limit is shared: it is safe under threads and several event loops. Put it inside
    a `RetryModel`, not around it, so that repeated calls count.

    Args:
        model: the model to ask; a string means the bare model, without retries.
        requests_per_minute: calls a minute, or None for no limit.
        tokens_per_minute: tokens a minute, sent and received, or None for no limit.
        max_waiting: how many calls may wait; one more raises `QueueFullError`.

    Raises:
        ArgumentError: no limit, one that is not above 0, or the model is none.
    """

    __slots__ = (
        "_lock",
        "_pid",
        "_queue",
        "_requests",
        "_schemas",
        "_tokens",
        "max_waiting",
        "requests_per_minute",
        "tokens_per_minute",
    )

    def __init__(
        self,
        model: Model | str,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_waiting: int = 1000,
    ) -> None:
        super().__init__(model)
        if requests_per_minute is None and tokens_per_minute is None:
            raise ArgumentError("set requests_per_minute, tokens_per_minute or both")
        for name, limit in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            if limit is not None and not limit > 0:
                raise ArgumentError(f"{name} must be above 0, not {limit!r}; leave it out for no limit")
        if max_waiting < 0:
            raise ArgumentError(f"max_waiting must not be below 0, but is {max_waiting!r}")
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.max_waiting = max_waiting
        self._lock = (
            RLock()
        )  # a call that is thrown away leaves the line while memory is collected, wherever that is
        self._pid = os.getpid()
        self._queue: deque[_Waiting] = deque()
        self._requests = _Bucket(requests_per_minute)
        self._tokens = _Bucket(tokens_per_minute)
        self._schemas: tuple[Any, int] = ((), 0)  # the tools that were asked with last, and their tokens

    @property
    def waiting(self) -> int:
        """How many calls wait now."""
        with self._lock:
            return len(self._queue)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece when it is this call's turn; see `Model.respond`.

        Raises:
            QueueFullError: `max_waiting` calls wait already.
        """
        tokens = self._estimate(request)
        await self._take_turn(tokens)
        try:
            response = await self.model.respond(request)
        except ModelError as error:
            self._correct(tokens, error)
            raise
        self._correct(tokens, response)
        return response

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece when it is this call's turn; see `Model.stream`. O(1) a delta.

        Raises:
            QueueFullError: `max_waiting` calls wait already.
        """
        tokens = self._estimate(request)
        await self._take_turn(tokens)
        delta: Delta | ModelResponse | None = None
        deltas = self.model.stream(request)
        try:
            async for delta in deltas:
                yield delta
        except ModelError as error:
            if delta is None:
                self._correct(tokens, error)
            raise
        finally:
            await deltas.aclose()
            if type(delta) is ModelResponse:
                self._correct(tokens, delta)

    async def _take_turn(self, tokens: int) -> None:
        """Wait for this call's turn, and take what it needs out of the buckets."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._drop_the_dead()
            if not self._queue and not self._seconds_until(tokens):
                self._take(tokens)
                return
            if len(self._queue) >= self.max_waiting:
                raise QueueFullError(
                    f"{len(self._queue)} calls wait for {self.name} already, as many as max_waiting allows; send fewer "
                    "at once, or raise max_waiting or the limits"
                )
            me = _Waiting(loop)
            self._queue.append(me)
        began = monotonic()
        try:
            while True:
                with self._lock:
                    self._drop_the_dead()
                    if me.dropped:
                        me.dropped = False
                        self._queue.append(me)
                    first = self._queue[0] is me
                    seconds = self._seconds_until(tokens) if first else _LOOK_SECONDS
                    if first and not seconds:
                        self._take(tokens)
                        break
                # The others are woken when they come to be the first.
                timer = loop.call_later(seconds, me.woken.set)
                try:
                    await me.woken.wait()
                finally:
                    timer.cancel()
                me.woken.clear()
        finally:
            with self._lock:
                if not me.dropped:
                    self._queue.remove(me)
            self._wake_the_first()
        if metrics.recorder is not None:
            metrics.recorder.rate_limit_waited(self.name, monotonic() - began)

    def _seconds_until(self, tokens: int) -> float:
        now = monotonic()
        return max(self._requests.seconds_until(1, now), self._tokens.seconds_until(tokens, now))

    def _take(self, tokens: int) -> None:
        self._requests.level -= 1
        self._tokens.level -= tokens

    def _correct(self, estimated: int, outcome: ModelResponse | ModelError) -> None:
        """Put the tokens that a call really used in the place of its estimate."""
        if isinstance(outcome, ModelError):
            used = estimated if may_have_cost(outcome) else 0
        else:
            used = outcome.usage.total_tokens or estimated  # some providers do not count
        if used != estimated:
            with self._lock:
                self._tokens.give_back(estimated - used, monotonic())
            self._wake_the_first()

    def _wake_the_first(self) -> None:
        """Have the first in line look at the buckets again."""
        while True:
            with self._lock:
                if not self._queue:
                    return
                first = self._queue[0]
            try:
                first.loop.call_soon_threadsafe(first.woken.set)
            except RuntimeError:  # its loop was closed over it
                with self._lock:
                    if self._queue and self._queue[0] is first:
                        self._queue.popleft()
                        first.dropped = True
            else:
                return

    def _drop_the_dead(self) -> None:
        """Take those out of the line who cannot go on, for their event loop stands still; they may come back."""
        if self._pid != os.getpid():  # a forked child has nobody in line
            self._pid = os.getpid()
            while self._queue:
                self._queue.popleft().dropped = True
        while self._queue and not self._queue[0].loop.is_running():
            self._queue.popleft().dropped = True

    def _estimate(self, request: ModelRequest) -> int:
        """Guess the tokens of a call. O(new messages): what a message weighs is kept with its conversation."""
        if self.tokens_per_minute is None:
            return 0
        tokens = len(request.messages.encoded("tokens", _weigh)) * _TOKENS_PER_BYTE
        tokens += len((request.instructions or "").encode()) // _BYTES_PER_TOKEN
        if request.tools:
            tools, weight = self._schemas
            if tools is not request.tools:
                weight = len(msgspec.json.encode(request.tools)) // _BYTES_PER_TOKEN
                self._schemas = (request.tools, weight)
            tokens += weight
        if request.output_schema is not None:
            tokens += len(msgspec.json.encode(request.output_schema.schema)) // _BYTES_PER_TOKEN
        longest = None if request.settings is None else request.settings.max_tokens
        return tokens + (longest or _TOKENS_PER_ANSWER)


class _Waiting:
    """A call that waits for its turn."""

    __slots__ = ("dropped", "loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken = asyncio.Event()
        self.dropped = False


class _Bucket:
    """What may still be used of a limit; holds a minute's worth and fills up evenly."""

    __slots__ = ("at", "level", "size")

    def __init__(self, per_minute: float | None) -> None:
        self.size = math.inf if per_minute is None else per_minute
        self.level = self.size
        self.at = monotonic()

    def fill(self, now: float) -> None:
        """Add what has come since the last time."""
        if self.size != math.inf:
            self.level = min(self.size, self.level + max(now - self.at, 0.0) * self.size / 60)
            self.at = now

    def seconds_until(self, wanted: float, now: float) -> float:
        """How long until so much is there; never more than the bucket holds is waited for."""
        self.fill(now)
        lacking = min(wanted, self.size) - self.level
        # A rest smaller than a clock can tell is nothing.
        return lacking * 60 / self.size if lacking > self.size * 1e-9 else 0.0

    def give_back(self, amount: float, now: float) -> None:
        """Put back what was not used, or take what was used beyond."""
        self.fill(now)
        self.level = min(self.size, self.level + amount)


def _weigh(message: Message, _: Message | None) -> bytes:
    """Give a byte for every few tokens of a message."""
    size = media = 0
    for part in message.parts:
        if isinstance(part, Text | Thinking):
            size += len(part.text.encode())
        elif isinstance(part, ToolCall):
            size += len(part.arguments.encode()) + len(part.name)
        elif isinstance(part, ToolResult):
            size += len(part.text.encode())
        else:
            media += 1
    tokens = size // _BYTES_PER_TOKEN + media * _TOKENS_PER_MEDIA + _TOKENS_PER_MESSAGE
    return bytes(-(-tokens // _TOKENS_PER_BYTE))
