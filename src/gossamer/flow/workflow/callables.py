"""Functions as steps: what they take and give, and how they are called."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError
from gossamer.flow.workflow.step_context import StepContext
from gossamer.tools.function import Tool

__all__ = ["Callee", "read_callable"]

Kind: TypeAlias = Literal["async", "inline", "thread"]


class Callee(msgspec.Struct, frozen=True, eq=False):
    """A function as a step calls it.

    Attributes:
        name: the function's.
        kind: how it is called.
        takes: the type of the value that it takes; Any where it does not say, or takes none.
        gives: the type that it returns; Any where it does not say.
        call: calls it with a value and a context.
        wants_context: whether the context is looked at.
        idempotent: whether it says so itself.
    """

    name: str
    kind: Kind
    takes: Any
    gives: Any
    call: Callable[[Any, StepContext[Any] | None], Any]
    wants_context: bool
    idempotent: bool = False


def read_callable(function: Callable[..., Any], inline: bool, place: str) -> Callee:
    """Read the signature of a function.

    Args:
        function: a function, a tool, a callable object or a partial.
        inline: run it on the loop where it is sync.
        place: where in the workflow, for errors.

    Raises:
        ArgumentError: it is a generator, or takes more than a value and contexts.
    """
    if isinstance(function, Tool):
        callee = read_callable(function.function, inline or function.kind == "inline", place)
        return msgspec.structs.replace(callee, name=function.name, idempotent=function.idempotent)
    name = _name_of(function)
    inner = _inside(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ArgumentError(
            f"{place or name}: a generator is no step; give a function that returns its value"
        )
    hints = _hints_of(inner, place or name)
    value, contexts = _parameters(function, hints, place or name)
    kind: Kind = "async" if inspect.iscoroutinefunction(inner) else "inline" if inline else "thread"
    takes = Any if value is None else hints.get(value.name, Any)
    gives = hints.get("return", Any)
    if isinstance(function, type):  # a class makes an instance of itself
        gives = function
    call = _caller(function, value, contexts)
    return Callee(name, kind, takes, gives, call, bool(contexts))


def _inside(function: Any) -> Any:
    """Give what is called in the end: inside partials, or the `__call__` of an object, or a class's `__init__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return function.__init__
    return function if inspect.isroutine(function) else type(function).__call__


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def _hints_of(inner: Any, place: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inner, include_extras=True)
    except NameError as error:
        raise ArgumentError(
            f"{place}: a type hint cannot be resolved: {error}; define the type above the function, at module level"
        ) from error
    except (AttributeError, TypeError) as error:
        if getattr(inner, "__annotations__", None):
            raise ArgumentError(f"{place}: its type hints cannot be read: {error}") from error
        return {}  # something built in


def _parameters(
    function: Any, hints: dict[str, Any], place: str
) -> tuple[inspect.Parameter | None, dict[str, Callable[[StepContext[Any]], Any]]]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # built in, and does not tell
        return inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY), {}
    value: inspect.Parameter | None = None
    contexts: dict[str, Callable[[StepContext[Any]], Any]] = {}
    for parameter in parameters:
        context = _context_for(hints.get(parameter.name))
        if context is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
            contexts[parameter.name] = context
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif value is None and parameter.kind is not parameter.KEYWORD_ONLY:
            value = parameter
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
            raise ArgumentError(
                f"{place}: a step takes one value, and {parameter.name!r} is one more; put the values into a dataclass, "
                "or fix it with functools.partial"
            )
    return value, contexts


def _context_for(hint: Any) -> Callable[[StepContext[Any]], Any] | None:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    hint = get_origin(hint) or hint
    if hint is StepContext:
        return lambda context: context
    if hint is RunContext:
        return lambda context: context.run
    return None


def _caller(
    function: Callable[..., Any],
    value: inspect.Parameter | None,
    contexts: dict[str, Callable[[StepContext[Any]], Any]],
) -> Callable[[Any, StepContext[Any] | None], Any]:
    if not contexts:
        if value is None:
            return lambda _value, _context: function()
        return lambda value, _context: function(value)

    def call(given: Any, context: StepContext[Any] | None) -> Any:
        assert context is not None, "a function that wants a context gets one"
        arguments = {name: of(context) for name, of in contexts.items()}
        if value is None:
            return function(**arguments)
        if value.kind is value.POSITIONAL_OR_KEYWORD:  # the context may stand before it
            arguments[value.name] = given
            return function(**arguments)
        return function(given, **arguments)

    return call
