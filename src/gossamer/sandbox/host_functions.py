"""Functions of the host that code in a sandbox may call: what is called, what is answered, and who answers."""

from __future__ import annotations

import asyncio
import inspect
import keyword
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gossamer.errors import ArgumentError, CodeError

__all__ = ["HostAnswer", "HostCall", "HostFunctions", "as_host_functions", "never_awaited"]


class HostCall(msgspec.Struct, frozen=True):
    """A call of a function of the host. Whatever is in it was made by code that nobody has read.

    Attributes:
        name: the function's; one of those offered.
        args: its positional arguments, plain data.
        kwargs: those by name.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


class HostAnswer(msgspec.Struct, frozen=True):
    """What the code gets for a call.

    Attributes:
        value: plain data.
        error: raised in the code as a RuntimeError with these words, where not None.
    """

    value: Any = None
    error: str | None = None


class HostFunctions(Protocol):
    """Answers calls. `as_host_functions` makes one of plain functions."""

    @property
    def names(self) -> Collection[str]:
        """The functions that may be called; each becomes `async def name(*args, **kwargs)` in the sandbox."""
        ...

    async def answer(self, calls: Sequence[HostCall]) -> Sequence[HostAnswer]:
        """Answer calls, in their order.

        Args:
            calls: those that the code made before it had to wait: several where it gathers them.

        Returns:
            An answer for each; the code goes on when it has all.
        """
        ...


def as_host_functions(
    functions: Mapping[str, Callable[..., Any]] | HostFunctions | None,
) -> HostFunctions | None:
    """Give what answers calls of functions, those of a step at once.

    Args:
        functions: async or plain functions by name, something that answers already, or None. Plain ones run on the event
            loop and must be quick.

    Raises:
        ArgumentError: a name is no Python name, or something is no function.
    """
    if functions is None:
        return None
    if not isinstance(functions, Mapping) and not callable(getattr(functions, "answer", None)):
        raise ArgumentError(
            f"functions must be a dict of functions by name, as in {{'search': search}}, not {type(functions).__name__}"
        )
    made = _Called(functions) if isinstance(functions, Mapping) else functions
    for name in made.names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"functions: {name!r} is no name that Python code can call")
    return made


class _Called:
    """Plain functions, each called for itself; what one raises is told to the code."""

    __slots__ = ("_functions",)

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = dict(functions)
        for name, function in self._functions.items():
            if not callable(function):
                raise ArgumentError(f"functions: {name!r} is {type(function).__name__}, and no function")

    @property
    def names(self) -> Collection[str]:
        return self._functions.keys()

    async def answer(self, calls: Sequence[HostCall]) -> Sequence[HostAnswer]:
        if len(calls) == 1:
            return (await self._call(calls[0]),)
        return await asyncio.gather(*map(self._call, calls))

    async def _call(self, call: HostCall) -> HostAnswer:
        try:
            value = self._functions[call.name](*call.args, **call.kwargs)
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:  # noqa: BLE001 - whatever it is, the code is told
            return HostAnswer(error=f"{type(error).__name__}: {error}")
        return HostAnswer(value)


def never_awaited(names: Iterable[str]) -> CodeError:
    """Make the error of code that has called functions of the host and did not wait for them: they were not called.

    Args:
        names: the functions, one for each call.
    """
    told = ", ".join(f"{name}()" for name in dict.fromkeys(names))
    first = told.partition(",")[0]
    words = f"{told} was called without await, and did not run; write `await {first[:-1]}…)`"
    return CodeError(f"RuntimeError: {words}", kind="RuntimeError", traceback=f"RuntimeError: {words}\n")
