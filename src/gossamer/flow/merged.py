"""The events of many agents in one stream, each with the name of who speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, overload

import msgspec

from gossamer.agent import Agent
from gossamer.delegation import Runnable
from gossamer.errors import ArgumentError
from gossamer.events import (
    Event,
    HandoffEvent,
    MessageFinished,
    OutputDelta,
    OutputRestarted,
    TextDelta,
    ThinkingDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
)
from gossamer.flow.branches import Branches
from gossamer.flow.members import check_concurrency, fanout_error, members_of
from gossamer.opening import Prompt, as_messages
from gossamer.result import Result

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OutputT = TypeVar("OutputT", default=Any)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["AgentEvent", "Channel", "MergedStream", "pass_on", "stream_pipeline"]

# The events that a message of the model is made of; the others are the run's.
_OF_A_MESSAGE = frozenset(
    (
        TextDelta,
        ThinkingDelta,
        ToolCallStarted,
        ToolArgumentsDelta,
        OutputDelta,
        OutputRestarted,
        MessageFinished,
    )
)


class AgentEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of a merged stream, and whose it is.

    Attributes:
        agent: the name of the agent that speaks; after a handoff the other one's.
        place: which of the agents was asked, counted from 0.
        run_id: its run.
        message: which of the run's messages the event belongs to, counted from 0; None for an event of the run.
        last: whether the message ends with it: the event is a `MessageFinished`, which holds all of it.
        event: the event, as the agent's own stream gives it.
    """

    agent: str
    place: int
    run_id: str
    message: int | None
    last: bool
    event: Event


class _End(msgspec.Struct, frozen=True):
    """What stands behind the last event: the results, or the error."""

    results: list[Any]
    error: Exception | None = None


Channel: TypeAlias = asyncio.Queue[AgentEvent | _End]


class MergedStream(Generic[OutputT]):
    """The events of many agents, as an async iterator and an async context manager; made by `stream_pipeline`.

    Each run goes forward by itself, in a task of its own, and waits when `buffer` events wait for the reader: a slow reader
    slows all of them. A reader that leaves the `async with` block stops them. A reader that gives up waiting for an
    event loses nothing by it, and may ask again.

    Args:
        feed: puts the events of all runs into a channel and gives the results.
        buffer: how many events may wait for the reader.

    Raises:
        ArgumentError: `buffer` is below 1.
    """

    __slots__ = ("__weakref__", "_channel", "_end", "_feed", "_feeding", "_reading")

    def __init__(self, feed: Callable[[Channel], Awaitable[list[Any]]], buffer: int) -> None:
        self._feeding: asyncio.Task[None] | None = None
        if type(buffer) is not int or buffer < 1:
            raise ArgumentError(f"buffer must be 1 event or more, not {buffer!r}")
        self._feed = feed
        self._channel: Channel = asyncio.Queue(buffer)
        self._end: _End | None = None
        self._reading = False

    @property
    def results(self) -> list[Result[OutputT]]:
        """The results in the order of the agents, once the last event has been read.

        Raises:
            ArgumentError: the stream has not been read to its end.
            PipelineError: an agent failed; a `FanoutError` where they ran at once.
        """
        if self._end is None:
            raise ArgumentError(
                "the stream has not been read to its end; iterate over it before reading .results"
            )
        if self._end.error is not None:
            raise self._end.error
        return self._end.results

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentEvent:
        """Give the next event of any of the runs.

        Raises:
            PipelineError: at the end, when all runs have ended and one of them failed.
        """
        if self._end is None:
            if self._reading:
                raise ArgumentError("this stream is being read by another task; a stream has one reader")
            if self._feeding is None:
                self._feeding = asyncio.get_running_loop().create_task(_fill(self._feed, self._channel))
            self._reading = True
            try:
                item = await self._channel.get()
            finally:
                self._reading = False
            if type(item) is AgentEvent:
                return item
            if self._end is None:  # else the stream was closed meanwhile
                assert type(item) is _End
                self._end = item
                if item.error is not None:
                    raise item.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop all runs and wait until they have cleaned up."""
        feeding = self._feeding
        if feeding is None:
            if self._end is None:
                self._end = _closed()
            return
        feeding.cancel()
        await asyncio.wait([feeding])
        if self._end is None:
            self._end = _closed()
            if not self._channel.full():
                self._channel.put_nowait(self._end)  # for a reader that waits in another task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        feeding = self._feeding
        if feeding is not None and not feeding.done() and not feeding.get_loop().is_closed():
            feeding.get_loop().call_soon_threadsafe(feeding.cancel)


def _closed() -> _End:
    return _End([], ArgumentError("the stream was closed before it was read to its end"))


async def _fill(feed: Callable[[Channel], Awaitable[list[Any]]], channel: Channel) -> None:
    """Feed a channel and say at its end what came of it; knows nothing of the stream, which may be dropped."""
    try:
        end = _End(await feed(channel))
    except Exception as error:  # noqa: BLE001 - for the reader
        end = _End([], error)
    await channel.put(end)


async def pass_on(
    channel: Channel, place: int, agent: Runnable, prompt: Prompt, deps: Any, user: str | None
) -> Result[Any]:
    """Run an agent, put its events into a channel, and give its result."""
    name = agent.name
    number = 0
    async with agent.stream(prompt, deps=deps, user=user) as stream:
        run_id = stream.run_id
        async for event in stream:
            kind = type(event)
            if kind in _OF_A_MESSAGE:
                last = kind is MessageFinished
                await channel.put(AgentEvent(name, place, run_id, number, last, event))
                number += last
            else:
                if isinstance(event, HandoffEvent):
                    name = event.to
                await channel.put(AgentEvent(name, place, run_id, None, False, event))
    return stream.result


@overload
def stream_pipeline(
    agents: Sequence[Agent[Any, OutputT]],
    msg: Prompt = None,
    *,
    max_concurrency: int | None = None,
    buffer: int = 100,
    deps: Any = None,
    user: str | None = None,
) -> MergedStream[OutputT]: ...
@overload
def stream_pipeline(
    agents: Sequence[Runnable],
    msg: Prompt = None,
    *,
    max_concurrency: int | None = None,
    buffer: int = 100,
    deps: Any = None,
    user: str | None = None,
) -> MergedStream[Any]: ...
def stream_pipeline(
    agents: Sequence[Runnable],
    msg: Prompt = None,
    *,
    max_concurrency: int | None = None,
    buffer: int = 100,
    deps: Any = None,
    user: str | None = None,
) -> MergedStream[Any]:
    """Ask many agents the same at once and read what all of them say in one stream.

        async with stream_pipeline([writer, critic], "…") as stream:
            async for said in stream:
                print(said.agent, said.message, said.event)

    An agent that fails ends its own part, with a `RunFailed`; the others go on, and the error is raised at the end.

    Args:
        agents: what is run, in order; one may be there more than once.
        msg: what each is asked, as for `Agent.run`; without it they start from their instructions.
        max_concurrency: how many run at once; None for all, 1 for one after another.
        buffer: how many events may wait for the reader; the runs wait when so many do.
        deps: as for `Agent.run`, for all of them.
        user: as for `Agent.run`, for all of them.

    Returns:
        The stream; nothing happens before its first event is asked for.

    Raises:
        ArgumentError: an argument is of the wrong type or out of range.
    """
    members: tuple[Runnable, ...] = members_of(agents, "merged stream")
    check_concurrency(max_concurrency)
    as_messages(msg)  # what is wrong in it is wrong for all

    async def feed(channel: Channel) -> list[Any]:
        def start(place: int) -> Awaitable[Result[Any]]:
            return pass_on(channel, place, members[place], msg, deps, user)

        branches = Branches(start, len(members), max_concurrency, stop_at_first=False)
        await branches.run()
        if branches.errors:
            raise fanout_error(members, branches.results, branches.errors)
        return branches.results

    return MergedStream(feed, buffer)
