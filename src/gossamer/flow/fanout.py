"""One message to many agents at once."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

from gossamer.agent import Agent
from gossamer.delegation import Runnable
from gossamer.errors import ArgumentError
from gossamer.flow.branches import Branches
from gossamer.flow.members import check_concurrency, fanout_error, members_of
from gossamer.flow.merged import MergedStream, stream_pipeline
from gossamer.opening import Prompt, as_messages
from gossamer.result import Result

__all__ = ["FanoutPipeline", "OnError", "fanout_pipeline"]

OutputT = TypeVar("OutputT")

# What an agent's error does: cancel the others and be raised, or take the place of its result.
OnError: TypeAlias = Literal["raise", "collect"]


class FanoutPipeline:
    """Agents that are all asked the same at once; a value, safe to share.

    Args:
        agents: what is run, in order; one may be there more than once.
        enable_gather: whether they run at once, or one after another.
        max_concurrency: how many run at once; None for all.
        on_error: `raise` cancels the others at the first error and raises `FanoutError`; `collect` lets all end and
            gives errors in place of results.

    Raises:
        ArgumentError: an argument is of the wrong type or out of range.
    """

    __slots__ = ("agents", "enable_gather", "max_concurrency", "on_error")

    def __init__(
        self,
        agents: Sequence[Runnable],
        enable_gather: bool = True,
        max_concurrency: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.agents: tuple[Runnable, ...] = members_of(agents, "fan-out")
        check_concurrency(max_concurrency)
        if on_error not in {"raise", "collect"}:
            raise ArgumentError(f"on_error must be 'raise' or 'collect', not {on_error!r}")
        self.enable_gather = enable_gather
        self.max_concurrency = max_concurrency
        self.on_error: OnError = on_error

    async def run(self, msg: Prompt = None, *, deps: Any = None, user: str | None = None) -> list[Any]:
        """Ask all of them; see `fanout_pipeline`."""
        as_messages(msg)  # what is wrong in it is wrong for all
        agents = self.agents
        raises = self.on_error == "raise"
        if not self.enable_gather:
            return await self._one_after_another(msg, deps, user)

        def start(place: int) -> Awaitable[Result[Any]]:
            return agents[place].run(msg, deps=deps, user=user)

        branches = Branches(start, len(agents), self.max_concurrency, stop_at_first=raises)
        await branches.run()
        return _outcomes(agents, branches.results, branches.errors, raises=raises)

    __call__ = run

    def stream(self, msg: Prompt = None, *, deps: Any = None, user: str | None = None) -> MergedStream:
        """Ask all of them and read their events in one stream; see `stream_pipeline`, which also says what errors do."""
        most = self.max_concurrency if self.enable_gather else 1
        return stream_pipeline(self.agents, msg, max_concurrency=most, deps=deps, user=user)

    async def _one_after_another(self, msg: Prompt, deps: Any, user: str | None) -> list[Any]:
        results: list[Result[Any] | None] = [None] * len(self.agents)
        errors: dict[int, Exception] = {}
        for place, agent in enumerate(self.agents):
            try:
                results[place] = await agent.run(msg, deps=deps, user=user)
            except Exception as error:  # noqa: BLE001 - raised or given in its place
                errors[place] = error
                if self.on_error == "raise":
                    break
        return _outcomes(self.agents, results, errors, raises=self.on_error == "raise")


def _outcomes(
    agents: Sequence[Runnable], results: list[Any], errors: dict[int, Exception], *, raises: bool
) -> list[Any]:
    if not errors:
        return results
    if raises:
        raise fanout_error(agents, results, errors)
    for place, error in errors.items():
        results[place] = error
    return results


@overload
async def fanout_pipeline(
    agents: Sequence[Agent[Any, OutputT]],
    msg: Prompt = None,
    enable_gather: bool = True,
    max_concurrency: int | None = None,
    on_error: Literal["raise"] = "raise",
    *,
    deps: Any = None,
    user: str | None = None,
) -> list[Result[OutputT]]: ...
@overload
async def fanout_pipeline(
    agents: Sequence[Agent[Any, OutputT]],
    msg: Prompt = None,
    enable_gather: bool = True,
    max_concurrency: int | None = None,
    *,
    on_error: Literal["collect"],
    deps: Any = None,
    user: str | None = None,
) -> list[Result[OutputT] | Exception]: ...
@overload
async def fanout_pipeline(
    agents: Sequence[Runnable],
    msg: Prompt = None,
    enable_gather: bool = True,
    max_concurrency: int | None = None,
    on_error: Literal["raise"] = "raise",
    *,
    deps: Any = None,
    user: str | None = None,
) -> list[Result[Any]]: ...
@overload
async def fanout_pipeline(
    agents: Sequence[Runnable],
    msg: Prompt = None,
    enable_gather: bool = True,
    max_concurrency: int | None = None,
    on_error: OnError = "raise",
    *,
    deps: Any = None,
    user: str | None = None,
) -> list[Result[Any] | Exception]: ...
async def fanout_pipeline(
    agents: Sequence[Runnable],
    msg: Prompt = None,
    enable_gather: bool = True,
    max_concurrency: int | None = None,
    on_error: OnError = "raise",
    *,
    deps: Any = None,
    user: str | None = None,
) -> list[Any]:
    """Ask many agents the same at once.

        results = await fanout_pipeline([writer, critic, editor], "…")

    Takes as long as the slowest. Each run has its own context variables and, from its first step to its last, one
    task; runs that do not wait share one. Messages are frozen, so that all may be given the same. Cancelled, it cancels
    all runs and waits until they have cleaned up.

    Args:
        agents: what is run, in order; one may be there more than once.
        msg: what each is asked, as for `Agent.run`; without it they start from their instructions.
        enable_gather: whether they run at once, or one after another.
        max_concurrency: how many run at once; the others wait without a task. None for all.
        on_error: what the first error does. `raise` cancels the others, waits until they have cleaned up and raises
            `FanoutError`; `collect` lets all end and gives errors in place of results.
        deps: as for `Agent.run`, for all of them.
        user: as for `Agent.run`, for all of them.

    Returns:
        The results in the order of the agents, also of runs that paused or were stopped by a limit.

    Raises:
        FanoutError: an agent failed, and `on_error` is `raise`; it holds the results so far, and the errors.
        ArgumentError: an argument is of the wrong type or out of range.
    """
    pipeline = FanoutPipeline(agents, enable_gather, max_concurrency, on_error)
    return await pipeline.run(msg, deps=deps, user=user)
