"""One agent after another, each asked what the one before it answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from gossamer.context import hub_of, open_hubs
from gossamer.delegation import Runnable
from gossamer.errors import PipelineError
from gossamer.flow.members import members_of
from gossamer.flow.merged import Channel, MergedStream, pass_on
from gossamer.flow.reply import reply_message
from gossamer.ids import new_id
from gossamer.messages import Message
from gossamer.opening import Prompt, as_messages
from gossamer.result import Result
from gossamer.schema import words_of
from gossamer.usage import Usage
from gossamer.view import MessageView

__all__ = ["SequentialPipeline", "sequential_pipeline"]


class SequentialPipeline:
    """Agents that run one after another, each on the answer of the one before it; a value, safe to share.

    Args:
        agents: what is run, in order; one may be there more than once.

    Raises:
        ArgumentError: they are no list of agents.
    """

    __slots__ = ("agents",)

    def __init__(self, agents: Sequence[Runnable]) -> None:
        self.agents: tuple[Runnable, ...] = members_of(agents, "pipeline")

    async def run(self, msg: Prompt = None, *, deps: Any = None, user: str | None = None) -> Result[Any]:
        """Run them; see `sequential_pipeline`."""
        agents = self.agents

        def step(place: int, prompt: Prompt) -> Awaitable[Result[Any]]:
            return agents[place].run(prompt, deps=deps, user=user)

        results = await _in_turn(agents, msg, step)
        return _sum(results) if results else _nothing_to_do(msg)

    __call__ = run

    def stream(
        self, msg: Prompt = None, *, buffer: int = 100, deps: Any = None, user: str | None = None
    ) -> MergedStream[Any]:
        """Run them and read their events in one stream, one agent's behind the other's.

        Args:
            msg: as for `sequential_pipeline`.
            buffer: how many events may wait for the reader; the runs wait when so many do.
            deps: as for `Agent.run`, for all of them.
            user: as for `Agent.run`, for all of them.

        Returns:
            The stream, whose `results` are those of all agents that ran; nothing happens before its first event is
            asked for.
        """
        agents = self.agents
        as_messages(msg)

        async def feed(channel: Channel) -> list[Any]:
            def step(place: int, prompt: Prompt) -> Awaitable[Result[Any]]:
                return pass_on(channel, place, agents[place], prompt, deps, user)

            return await _in_turn(agents, msg, step)

        return MergedStream(feed, buffer)


async def sequential_pipeline(
    agents: Sequence[Runnable], msg: Prompt = None, *, deps: Any = None, user: str | None = None
) -> Result[Any]:
    """Run agents one after another.

        result = await sequential_pipeline([writer, critic, editor], "…")

    Each one is asked with what the one before it answered, as a user's message with that agent's name as its author: the
    words of the answer, a structured one as JSON, and its media. Thinking and tool calls stay behind. Participants of a
    `MessageHub` have heard it there, and are not told twice. An agent that
    pauses, or is stopped by a limit, ends the pipeline; the result is its own, and says so.

    Args:
        agents: what is run, in order; one may be there more than once.
        msg: what the first one is asked, as for `Agent.run`; without it it starts from its instructions.
        deps: as for `Agent.run`, for all of them.
        user: as for `Agent.run`, for all of them.

    Returns:
        The result of the last one, but with the usage and the duration of all together. Without agents, a result whose
        output is `msg`.

    Raises:
        PipelineError: an agent failed, or said nothing that the next one could be asked; it holds the results so far.
        ArgumentError: an argument is of the wrong type.
    """
    return await SequentialPipeline(agents).run(msg, deps=deps, user=user)


async def _in_turn(
    agents: Sequence[Runnable], msg: Prompt, step: Callable[[int, Prompt], Awaitable[Result[Any]]]
) -> list[Result[Any]]:
    as_messages(msg)  # what is wrong in it is no agent's failure
    results: list[Result[Any]] = []
    prompt = msg
    for place, agent in enumerate(agents):
        try:
            result = await step(place, prompt)
        except Exception as error:
            raise PipelineError(
                f"{agent.name!r}, step {place + 1} of {len(agents)}, failed: {type(error).__name__}: {words_of(error)}",
                results=results,
                errors={place: error},
            ) from error
        results.append(result)
        if result.pending or result.stopped is not None or place + 1 == len(agents):
            break
        prompt = reply_message(result.value, _last_of(result), result.agent or agent.name)
        if prompt is None:
            raise PipelineError(
                f"{agent.name!r}, step {place + 1} of {len(agents)}, said nothing that {agents[place + 1].name!r} could "
                "be asked",
                results=results,
            )
        if open_hubs and _has_heard(agents[place + 1], agent):
            prompt = None
    return results


def _has_heard(agent: Runnable, speaker: Runnable) -> bool:
    """Tell whether an agent has heard the answer of the one before it already, in a hub."""
    hub = hub_of(agent)
    return hub is not None and agent is not speaker and hub.enable_auto_broadcast and hub_of(speaker) is hub


def _last_of(result: Result[Any]) -> Message | None:
    return result.new[-1] if result.new else None


def _sum(results: Sequence[Result[Any]]) -> Result[Any]:
    """Give the last result with what all of them used and took."""
    usage, duration = Usage(), 0.0
    for result in results:
        usage += result.usage
        duration += result.duration
    return msgspec.structs.replace(results[-1], usage=usage, duration=duration)


def _nothing_to_do(msg: Prompt) -> Result[Any]:
    messages = as_messages(msg)
    view = MessageView(messages, 0, len(messages))
    return Result(msg, view, new_id(), Usage(), "stop", "", 0.0, None, messages)
