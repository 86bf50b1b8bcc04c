"""Middleware: code around the run, each model call, each tool call and each delta."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from gossamer.context import RunContext
from gossamer.events import Delta
from gossamer.messages import ToolCall, ToolResult
from gossamer.models.base import ModelRequest, ModelResponse

__all__ = [
    "CallModel",
    "CallTool",
    "Hooks",
    "Layers",
    "Middleware",
    "Proceed",
    "layers",
    "wrap_model",
    "wrap_run",
]

Proceed: TypeAlias = Callable[[], Awaitable[Any]]
CallModel: TypeAlias = Callable[[ModelRequest], Awaitable[ModelResponse]]
CallTool: TypeAlias = Callable[[ToolCall], Awaitable[ToolResult]]


class Middleware:
    """Override what you need; what is not overridden costs nothing.

    Call `next` to go on, change what goes in or comes out, call it again to retry, or leave it out to answer
    yourself. Messages, requests, calls and results are frozen: replace them with `msgspec.structs.replace`.
    `next` must be awaited in place, not in a task of its own: on streams, events pass through it.
    """

    async def run(self, context: RunContext[Any], next: Proceed) -> Any:  # noqa: A002, ARG002
        """Wrap the whole run; returns the `Result`. `next` may be called once: a run has one budget and one id."""
        return await next()

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002, ARG002
        """Wrap one model call. On streams its deltas pass beneath, before `next` returns."""
        return await next(request)

    async def tool(self, context: RunContext[Any], call: ToolCall, next: CallTool) -> ToolResult:  # noqa: A002, ARG002
        """Wrap one tool call, checks of its arguments included."""
        return await next(call)

    def delta(self, context: RunContext[Any], delta: Delta) -> Delta | None:  # noqa: ARG002
        """Change a delta on its way to the user, or hold it back with None; the answer itself stays as it is."""
        return delta


class Hooks(Middleware):
    """Middleware out of plain functions, sync or async, called before or after something happens.

    Args:
        before_run: called with the context.
        after_run: called with the context and the result.
        before_model: called with the context and the request.
        after_model: called with the context and the response.
        before_tool: called with the context and the call.
        after_tool: called with the context, the call and the result.
    """

    def __init__(
        self,
        *,
        before_run: Callable[[RunContext[Any]], Any] | None = None,
        after_run: Callable[[RunContext[Any], Any], Any] | None = None,
        before_model: Callable[[RunContext[Any], ModelRequest], Any] | None = None,
        after_model: Callable[[RunContext[Any], ModelResponse], Any] | None = None,
        before_tool: Callable[[RunContext[Any], ToolCall], Any] | None = None,
        after_tool: Callable[[RunContext[Any], ToolCall, ToolResult], Any] | None = None,
    ) -> None:
        self._before_run, self._after_run = before_run, after_run
        self._before_model, self._after_model = before_model, after_model
        self._before_tool, self._after_tool = before_tool, after_tool

    async def run(self, context: RunContext[Any], next: Proceed) -> Any:  # noqa: A002
        """Call the hooks around the run."""
        await _call(self._before_run, context)
        result = await next()
        await _call(self._after_run, context, result)
        return result

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002
        """Call the hooks around a model call."""
        await _call(self._before_model, context, request)
        response = await next(request)
        await _call(self._after_model, context, response)
        return response

    async def tool(self, context: RunContext[Any], call: ToolCall, next: CallTool) -> ToolResult:  # noqa: A002
        """Call the hooks around a tool call."""
        await _call(self._before_tool, context, call)
        result = await next(call)
        await _call(self._after_tool, context, call, result)
        return result


async def _call(hook: Callable[..., Any] | None, *arguments: Any) -> None:
    if hook is not None:
        value = hook(*arguments)
        if inspect.isawaitable(value):
            await value


class Layers(msgspec.Struct, frozen=True, eq=False):
    """The methods of an agent's middleware that do something, outermost first.

    Attributes:
        run: around the run.
        model: around each model call.
        tool: around each tool call.
        delta: on each delta.
    """

    run: tuple[Callable[..., Awaitable[Any]], ...]
    model: tuple[Callable[..., Awaitable[ModelResponse]], ...]
    tool: tuple[Callable[..., Awaitable[ToolResult]], ...]
    delta: tuple[Callable[..., Delta | None], ...]


def layers(middleware: Sequence[Middleware]) -> Layers:
    """Find the methods of middleware that do something; which those are is looked up once for each class."""
    run: list[Any] = []
    model: list[Any] = []
    tool: list[Any] = []
    delta: list[Any] = []
    for one in middleware:
        names = _overridden(type(one))
        if "run" in names:
            run.append(one.run)
        if "model" in names:
            model.append(one.model)
        if "tool" in names:
            tool.append(one.tool)
        if "delta" in names:
            delta.append(one.delta)
    return Layers(tuple(run), tuple(model), tuple(tool), tuple(delta))


_METHODS = ("run", "model", "tool", "delta")


@functools.lru_cache(maxsize=1024)
def _overridden(kind: type[Middleware]) -> frozenset[str]:
    return frozenset(name for name in _METHODS if getattr(kind, name) is not getattr(Middleware, name))


def wrap_model(wrappers: Sequence[Any], context: RunContext[Any], innermost: CallModel) -> CallModel:
    """Lay middleware around a model call."""
    call = innermost
    for wrapper in reversed(wrappers):
        call = functools.partial(wrapper, context, next=call)
    return call


def wrap_run(wrappers: Sequence[Any], context: RunContext[Any], innermost: Proceed) -> Proceed:
    """Lay middleware around a run."""
    call = innermost
    for wrapper in reversed(wrappers):
        call = functools.partial(wrapper, context, next=call)
    return call
