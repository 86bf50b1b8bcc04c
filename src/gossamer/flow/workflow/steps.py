"""What a workflow is made of: values that say what to do, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from gossamer.delegation import Runnable
from gossamer.errors import ArgumentError
from gossamer.flow.workflow.state import Merge

__all__ = ["Condition", "HumanInput", "Loop", "Map", "Parallel", "Retry", "Router", "Step", "StepLike"]


class Retry(msgspec.Struct, frozen=True):
    """How often a step is tried, and how long to wait in between.

    Attributes:
        attempts: how often at most, the first one included.
        first_wait: the longest wait after the first attempt, in seconds; it doubles with each further one, and a
            random part of it is waited.
        longest_wait: the longest wait of all.
        on: the errors that are worth another attempt; a timeout is a `StepTimeoutError`.

    Raises:
        ArgumentError: a number is out of range.
    """

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 30.0
    on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= 1000:
            raise ArgumentError(f"attempts must be a number from 1 to 1,000, not {self.attempts!r}")
        if not (self.first_wait >= 0 and self.longest_wait >= 0):
            raise ArgumentError(
                f"waits must not be negative, not {self.first_wait!r} and {self.longest_wait!r}"
            )


class Step(msgspec.Struct, frozen=True, eq=False):
    """One thing to do: `Step(fetch, retry=Retry(3), timeout=10)`. What needs no options stands for itself.

    Attributes:
        do: a function, sync or async, that takes the value of the step before; or an agent, a team or a workflow. A
            parameter annotated `StepContext` or `RunContext` is filled in. A sync function runs in a thread.
        name: tells it apart from the steps beside it; that of the function or agent where None.
        retry: try again after an error, so often or as a `Retry` says; None: once.
        timeout: seconds after which an attempt is stopped; None waits as long as it takes.
        fallback: a step that takes the same value where this one has failed for good.
        idempotent: may run again where a crash left unknown how an earlier start ended.
        inline: run a sync function on the event loop itself: for pure, quick ones.
    """

    do: Callable[..., Any] | Runnable
    name: str | None = None
    retry: Retry | int | None = None
    timeout: float | None = None
    fallback: StepLike | None = None
    idempotent: bool = False
    inline: bool = False


class Parallel(msgspec.Struct, frozen=True, eq=False):
    """Steps that run at the same time, each with the same value; their outputs come as a dict by name.

    Attributes:
        branches: the steps, as a list, or a dict by the names of the branches. A branch of several steps is a list.
        name: see `Step`.
        merge: how changes of one field of the state by several branches go together: a function for all fields, or
            one for each, by name; see `add_up`, `join_lists` and `take_last`. What is not declared is an error.
        output: a dataclass, Struct or TypedDict that is made of the outputs by name, in place of the dict.
        max_concurrency: how many branches run at once.
    """

    branches: Sequence[StepLike] | Mapping[str, StepLike]
    name: str | None = None
    merge: Merge | None = None
    output: Any = None
    max_concurrency: int = 100


class Condition(msgspec.Struct, frozen=True, eq=False):
    """One of two ways, as a test of the value says; both take the value itself.

    Attributes:
        test: gives True or False: a function, an agent with `output=bool`, or a `HumanInput`.
        then: the step, or a list of steps, where it gives True.
        otherwise: the same for False; None passes the value on.
        name: see `Step`.
    """

    test: StepLike
    then: StepLike
    otherwise: StepLike | None = None
    name: str | None = None


class Loop(msgspec.Struct, frozen=True, eq=False):
    """Steps that run again and again, each time with what they gave.

    Attributes:
        body: the step, or a list of steps.
        until: gives True for the value that ends the loop: a function, an agent or a `HumanInput`. Where None, the
            loop runs `max_iterations` times.
        max_iterations: with `until`, the loop fails with `LoopLimitError` where it has not ended by then.
        name: see `Step`.
    """

    body: StepLike
    until: StepLike | None = None
    max_iterations: int = 10
    name: str | None = None


class Router(msgspec.Struct, frozen=True, eq=False):
    """One of several ways, as something says by name; each takes the value itself.

    Attributes:
        choose: gives the name of a branch: a function, an agent or a `HumanInput`.
        routes: the steps by name.
        default: the step where the name is none of these; None: that is a `RouteError`.
        name: see `Step`.
    """

    choose: StepLike
    routes: Mapping[str, StepLike]
    default: StepLike | None = None
    name: str | None = None


class Map(msgspec.Struct, frozen=True, eq=False):
    """A step for each item of a list; the outputs come as a list, in the order of the items.

    Attributes:
        body: the step, or a list of steps, for one item.
        name: see `Step`.
        merge: see `Parallel`; a branch is an item.
        max_concurrency: how many items are worked on at once.
        max_items: the longest list.
    """

    body: StepLike
    name: str | None = None
    merge: Merge | None = None
    max_concurrency: int = 10
    max_items: int = 100_000


class HumanInput(msgspec.Struct, frozen=True, eq=False):
    """A question to a person: the run pauses, and the answer is what the step gives.

    Attributes:
        question: what is asked: text, or a function of the value that gives it.
        type: the type of the answer.
        name: see `Step`.
        decide_within: seconds after which nobody may answer any more and the step fails; None waits forever.
    """

    question: str | Callable[..., str]
    type: Any = str
    name: str | None = None
    decide_within: float | None = None


# Whatever can be a step; a list is steps one after the other.
StepLike: TypeAlias = "Step | Parallel | Condition | Loop | Router | Map | HumanInput | Runnable | Callable[..., Any] | Sequence[Any]"
