"""What a guardrail is: a check of what goes in, comes out, or passes between a model and its tools."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args, overload

import msgspec
from msgspec.structs import force_setattr

from gossamer.context import RunContext
from gossamer.errors import ArgumentError

__all__ = ["Check", "Guardrail", "Place", "guardrail"]

# What is checked: what the user says; what the model answers; the arguments of a call, as JSON; the result of a call.
Place: TypeAlias = Literal["input", "output", "call", "result"]

# Gives None where a text may pass and another text to put in its place; raises GuardrailError to stop the run.
Check: TypeAlias = Callable[[RunContext[Any], str], str | Awaitable[str | None] | None]


class Guardrail(msgspec.Struct, frozen=True, eq=False):
    """A check of texts. A value; made by the functions of `gossamer.guardrails`, or of a function with `@guardrail`.

    A check that raises anything but `GuardrailError` fails the run too: what could not be checked does not pass.

    Attributes:
        name: tells guardrails apart in errors and metrics.
        check: the check, see `Check`. One that is not async runs on the event loop and must be quick. For calls and
            results it may raise `ModelRetry`: the model is told, and the run goes on.
        on: what is checked.
        beside: input is checked while the model is at work already; the model's call is cancelled when the check
            stops the run, and nothing of its answer is seen before. Such a check cannot replace the text.
        hold_back: on streams, the text of an answer is held back until it has passed; else it is shown as it comes and
            checked at its end.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
    """

    name: str
    check: Check
    on: Sequence[Place] = ("input",)
    beside: bool = False
    hold_back: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"name of a guardrail must be text that is not empty, not {self.name!r}")
        if not callable(self.check):
            raise ArgumentError(
                f"check of guardrail {self.name!r} must be a function, not {type(self.check).__name__}"
            )
        try:
            inspect.signature(self.check).bind(None, "")
        except ValueError:  # of something built in, which does not tell
            pass
        except TypeError as error:
            raise ArgumentError(
                f"check of guardrail {self.name!r} must take the run's context and a text: {error}"
            ) from error
        on: Any = self.on
        places = (on,) if isinstance(on, str) else tuple(on)
        if not places or any(place not in get_args(Place) for place in places):
            raise ArgumentError(
                f"on of guardrail {self.name!r} must be some of {', '.join(get_args(Place))}, not {on!r}"
            )
        if self.beside and places != ("input",):
            raise ArgumentError(f"guardrail {self.name!r}: only input can be checked beside the model's call")
        if self.hold_back and "output" not in places:
            raise ArgumentError(f"guardrail {self.name!r}: only output can be held back; add it to on")
        force_setattr(self, "on", places)


@overload
def guardrail(check: Check, /) -> Guardrail: ...
@overload
def guardrail(
    *,
    name: str | None = None,
    on: Sequence[Place] = ("input",),
    beside: bool = False,
    hold_back: bool = False,
) -> Callable[[Check], Guardrail]: ...
def guardrail(
    check: Check | None = None,
    /,
    *,
    name: str | None = None,
    on: Sequence[Place] = ("input",),
    beside: bool = False,
    hold_back: bool = False,
) -> Any:
    """Make a guardrail of a function of the run's context and a text, sync or async.

    Args:
        check: the function; see `Check`.
        name: the function's name where None.
        on: see `Guardrail`.
        beside: see `Guardrail`.
        hold_back: see `Guardrail`.

    Returns:
        The guardrail, or a decorator that makes it.

    Raises:
        ArgumentError: an argument cannot be used.
    """

    def make(check: Check) -> Guardrail:
        return Guardrail(name or getattr(check, "__name__", "guardrail"), check, on, beside, hold_back)

    return make if check is None else make(check)
