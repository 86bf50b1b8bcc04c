"""Streams of a run: the loop is stepped inside the reader's own task, so an event costs no task and no queue.

`emit` yields an event out of the loop's coroutine. Whoever drives the coroutine tells events from the futures that
the event loop wants to see, gives the former to the reader and passes the latter on.
"""

from __future__ import annotations

import asyncio
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Self

from gossamer.closing import stopped_outside
from gossamer.context import RunContext
from gossamer.errors import ArgumentError, LimitError, SteeringError
from gossamer.events import Event, RunFailed, RunFinished, TextDelta
from gossamer.limits import Limits
from gossamer.messages import Message
from gossamer.result import Result

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OutputT = TypeVar("OutputT", default=str)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["RunStream", "emit", "run_limited"]


@types.coroutine
def emit(event: Event) -> Generator[Event, None, None]:
    """Hand an event to the reader of the stream; goes on when the next one is asked for."""
    yield event


class RunStream(Generic[OutputT]):
    """The events of a run, as an async iterator and an async context manager.

    The run goes forward while the next event is awaited, and only then: a slow reader slows the run, and a reader
    that leaves the `async with` block stops it. Made by `agent.stream`.

    Args:
        loop: the coroutine of the run, which hands out events with `emit`.
        context: the run.
        limits: the run's limits; `max_seconds` counts from the first event on.
    """

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_context",
        "_ended",
        "_failure",
        "_interrupting",
        "_loop",
        "_max_seconds",
        "_reading",
        "_result",
        "_started",
        "_timer",
        "_waited_for",
    )

    def __init__(
        self,
        loop: Coroutine[Any, Any, Result[OutputT]],
        context: RunContext[Any],
        limits: Limits | None = None,
    ) -> None:
        self._max_seconds = _max_seconds(limits, loop)
        self._loop: Coroutine[Any, Any, Result[OutputT]] | None = loop
        self._context = context
        self._timer: asyncio.TimerHandle | None = None
        self._result: Result[OutputT] | None = None
        self._failure: BaseException | None = None
        self._waited_for: Any = None  # the future that the run waits for while it is being stepped
        self._ended: asyncio.Future[None] | None = None
        self._started = self._reading = self._cancelled = self._interrupting = False

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._context.run_id

    @property
    def result(self) -> Result[OutputT]:
        """The result, once the last event has been read.

        Raises:
            ArgumentError: the stream has not been read to its end, or the run was cancelled.
            GossamerError: the run failed with this error.
        """
        if self._cancelled and self._result is None:
            raise ArgumentError("the run was cancelled before it had a result")
        if self._failure is not None:
            raise self._failure
        if self._result is None:
            raise ArgumentError(
                "the stream has not been read to its end; iterate over it before reading .result"
            )
        return self._result

    def __aiter__(self) -> Self:
        return self

    @types.coroutine
    def __anext__(self) -> Generator[Any, Any, Event]:
        """Step the run to its next event. Cost: no task, no queue, no copy."""
        loop = self._loop
        if loop is None:
            if self._failure is not None and not self._cancelled:
                raise self._failure
            raise StopAsyncIteration
        if self._reading:
            raise ArgumentError("this stream is being read by another task; a stream has one reader")
        self._reading = self._started = True
        if self._max_seconds is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._max_seconds, _expirer(self))
        step: Any = loop.send
        argument: Any = None
        try:
            while True:
                if self._interrupting:
                    self._interrupting = False
                    step, argument = loop.throw, asyncio.CancelledError()
                item: Any = step(argument)
                if type(item) is TextDelta:
                    return item
                # Nearly all that comes is one of the two, and `isinstance` of a struct costs several comparisons.
                if type(item) is not asyncio.Future and isinstance(item, Event):
                    if type(item) is RunFinished:  # whatever comes now, the run has its result
                        self._result = item.result
                        self._stop_timer()
                    return item
                self._waited_for = item
                try:
                    argument = yield item
                    step = loop.send
                except BaseException as error:  # noqa: BLE001 - the loop decides what a cancellation means
                    if not self._interrupting:  # from outside, and so no longer a matter of time
                        self._context.stopped = None
                    self._interrupting = False
                    step, argument = loop.throw, error
        except StopIteration as stop:
            self._result = stop.value
            self._end()
        except BaseException as error:
            wanted = self._cancelled
            if self._result is not None and not isinstance(error, Exception):
                wanted = True  # the reader left after the last event
            elif (
                isinstance(error, asyncio.CancelledError) and self._context.stopped is not None and not wanted
            ):
                # The time ran out where the loop does not see it: in middleware around the run.
                self._result = stopped_outside(self._context)
                wanted = True
            elif isinstance(error, Exception):
                self._failure = error
            else:  # kept, it would cancel whoever reads the stream next, and hold the agent by its traceback
                self._cancelled = True
            self._end()
            if isinstance(error, Exception):
                return RunFailed(type(error).__name__, str(error))
            if not wanted:
                raise
        finally:
            self._waited_for = None
            self._reading = False
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Stop the run: its model connection and its tools. Returns at once; the stream ends soon after.

        A session is left whole: finished text stays as an interrupted message, and every call has a result.
        """
        if self._loop is not None:
            self._cancelled = True
            self._interrupt()

    def steer(self, message: str | Message) -> None:
        """Put a message into the run; see `RunContext.steer`."""
        if self._loop is None:
            raise SteeringError(f"run {self.run_id} is over; put the message into the next one")
        self._context.steer(message)

    async def aclose(self) -> None:
        """Stop the run and wait until its model connection is closed and its tools have cleaned up."""
        if self._loop is None:
            return
        if not self._started:
            self._loop.close()
            self._loop = None
            return
        self.cancel()
        if self._reading:  # by another task, which has just been woken
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)
            return
        async for _ in self:
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _interrupt(self) -> None:
        if self._result is not None:
            return
        self._interrupting = self._context.stopping = True
        waited_for = self._waited_for
        if waited_for is not None:
            waited_for.cancel()

    def _expire(self) -> None:
        seconds = self._max_seconds or 0.0
        self._context.stopped = LimitError(
            f"the run took longer than max_seconds of {seconds:g}",
            limit="max_seconds",
            allowed=seconds,
            used=seconds,
        )
        self._interrupt()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._loop = None
        self._stop_timer()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _expirer(stream: RunStream[Any]) -> Callable[[], None]:
    """Give what stops a stream when its time is over; the timer does not keep a dropped stream alive."""
    expire = weakref.WeakMethod(stream._expire)  # pyright: ignore[reportPrivateUsage] - of this very class

    def call() -> None:
        alive = expire()
        if alive is not None:
            alive()

    return call


def run_limited(
    loop: Coroutine[Any, Any, Result[OutputT]], context: RunContext[Any], limits: Limits
) -> Coroutine[Any, Any, Result[OutputT]]:
    """Give a coroutine that drives a run nobody listens to, and stops it when its time is over."""
    return loop if _max_seconds(limits, loop) is None else _run_within(loop, context, limits)


def _max_seconds(limits: Limits | None, loop: Coroutine[Any, Any, Any]) -> float | None:
    if limits is None:
        return None
    if not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
        loop.close()  # it will not run, and must not be missed
        raise ArgumentError(f"limits must be a Limits, not {type(limits).__name__}")
    return limits.max_seconds


async def _run_within(
    loop: Coroutine[Any, Any, Result[OutputT]], context: RunContext[Any], limits: Limits
) -> Result[OutputT]:
    stream = RunStream(loop, context, limits)
    async with stream:
        async for _ in stream:
            pass
    return stream.result
