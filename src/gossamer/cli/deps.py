"""The `deps` of runs that a command goes on with: no store keeps them, so a function of the user's gives them anew."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

from gossamer.cli.target import call_without_arguments, load_target
from gossamer.context import AgentLike, RunContext
from gossamer.errors import ArgumentError
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["choose_deps", "wanted_deps"]


def choose_deps(target: str) -> Callable[[], Awaitable[Any]]:
    """Give what makes the deps: to be called once, on the event loop of the runs.

    Args:
        target: a function, sync or async, as `app.py:make_deps` or `package.module:make_deps`.

    Raises:
        ArgumentError: there is no such function; at the call, it wants arguments.
    """
    function, _ = load_target(target, "make_deps")
    if not callable(function):
        raise ArgumentError(
            f"--deps names a function that gives the deps; {target!r} is of type {type(function).__name__}"
        )

    async def make() -> Any:
        made = call_without_arguments(function, target)
        return await made if inspect.isawaitable(made) else made

    return make


def wanted_deps(agent: AgentLike) -> str:
    """Name the first function of an agent whose annotations say that it wants deps; "" where there is none.

    That is a context of `RunContext[X]`, in a tool or in what gives instructions or tools, of the agent or of one that
    it asks or hands over to. What a bare `RunContext` finds in its deps, nothing tells before it runs.
    """
    for one in _reached(agent):
        for what, function in _functions(one):
            if wanted := _deps_in(function):
                return f"{what} of {one.name} wants RunContext[{wanted}]"
    return ""


def _reached(agent: AgentLike) -> Iterator[AgentLike]:
    waiting: list[Any] = [agent]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen or not hasattr(one, "instructions"):  # a pool of agents has none
            continue
        seen.add(id(one))
        yield one
        for tool in _tools(one):
            if isinstance(tool, Tool):
                waiting.append(cast("Tool[..., Any]", tool).delegates_to)
                if tool.hands_to is not None:
                    waiting.append(tool.hands_to())


def _tools(agent: AgentLike) -> Iterator[Any]:
    for item in () if callable(agent.tools) else agent.tools:
        if isinstance(item, Toolkit):
            yield from item.tools
        else:
            yield item


def _functions(agent: AgentLike) -> Iterator[tuple[str, Any]]:
    if callable(agent.instructions):
        yield "what gives the instructions", agent.instructions
    if callable(agent.tools):
        yield "what gives the tools", agent.tools
    for item in _tools(agent):
        if isinstance(item, Tool):
            tool = cast("Tool[..., Any]", item)
            yield f"tool {tool.name}", tool.function
        elif inspect.isroutine(item):  # a toolkit's plain function
            yield f"tool {item.__name__}", item


def _deps_in(function: Any) -> str:
    """Name the type of deps that a function's context says it has; "" where it says none, or None is one of them."""
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    try:
        hints = typing.get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except (NameError, TypeError, AttributeError):
        return ""
    for hint in hints.values():
        if get_origin(hint) is RunContext:
            (deps,) = get_args(hint)
            choices = get_args(deps) if get_origin(deps) in {Union, UnionType} else (deps,)
            if not isinstance(deps, TypeVar) and not {Any, object, NoneType} & set(choices):
                return inspect.formatannotation(deps)
    return ""
