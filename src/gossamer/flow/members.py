"""The agents of a pipeline or a hub: what may be one, and the errors that name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.delegation import Runnable
from gossamer.errors import ArgumentError, FanoutError
from gossamer.result import Result
from gossamer.schema import words_of

__all__ = ["check_concurrency", "fanout_error", "members_of"]


def members_of(agents: Any, what: str) -> tuple[Any, ...]:
    """Give agents as a tuple.

    Args:
        agents: what was passed for them.
        what: what they are to be part of, for the error.

    Raises:
        ArgumentError: they are no list of what runs.
    """
    if isinstance(agents, str | bytes) or not hasattr(agents, "__iter__"):
        raise ArgumentError(f"a {what} takes a list of agents, not {type(agents).__name__}")
    members: tuple[Any, ...] = tuple(agents)
    for one in members:
        if not (callable(getattr(one, "run", None)) and isinstance(getattr(one, "name", None), str)):
            raise ArgumentError(f"a {what} is made of agents, not of {type(one).__name__}")
    return members


def check_concurrency(most: int | None) -> None:
    """Check how many may run at once.

    Raises:
        ArgumentError: it is below 1.
    """
    if most is not None and (type(most) is not int or most < 1):
        raise ArgumentError(f"max_concurrency must be 1 or more, or None for all, not {most!r}")


def fanout_error(
    agents: Sequence[Runnable], results: Sequence[Result[Any] | None], errors: dict[int, Exception]
) -> FanoutError:
    """Make the error that tells which agents failed; its cause is what the first one failed with."""
    place, first = next(iter(errors.items()))
    more = len(errors) - 1
    others = f"; so did {more} other{'s'[: more > 1]}" if more else ""
    error = FanoutError(
        f"{agents[place].name!r}, number {place} of {len(agents)} agents, failed: "
        f"{type(first).__name__}: {words_of(first)}{others}",
        results=results,
        errors=errors,
    )
    error.__cause__ = first
    return error
