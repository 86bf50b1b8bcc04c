"""The execution of tool calls: one alone, in place; several at once, each in a task of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias, cast

import msgspec

from gossamer.context import CallPaused, RunContext, current_call
from gossamer.errors import EndRun, GuardrailError, ModelRetry, ToolError
from gossamer.events import Event, ToolCallFinished, ToolProgress
from gossamer.messages import Audio, File, Image, Outcome, Text, ToolCall, ToolResult
from gossamer.records import PendingCall, ToolResultRecord, ToolStartedRecord
from gossamer.schema import encode_value, stored_value, words_of
from gossamer.telemetry import metrics
from gossamer.tools.function import Tool
from gossamer.tools.offload import Offload
from gossamer.tools.threads import run_in_thread

__all__ = [
    "CLEANUP_SECONDS",
    "Interception",
    "LastWord",
    "Notify",
    "OverdueError",
    "ToolTurn",
    "run_calls",
    "wait_together",
    "within",
]

# Wraps the execution of a call, as middleware does.
Interception: TypeAlias = Callable[
    [RunContext[Any], ToolCall, Callable[[ToolCall], Awaitable[ToolResult]]], Awaitable[ToolResult]
]

# Takes an event while tools run; called on the loop, never blocks.
Notify: TypeAlias = Callable[[Event], None]

# How long a cancelled tool may take to clean up before it is left alone, in seconds.
CLEANUP_SECONDS = 5.0

_MAX_ERROR_CHARS = 4_000

_MEDIA = frozenset((Text, Image, Audio, File))


class ToolTurn(msgspec.Struct, eq=False):
    """The calls of one turn while they run, and what comes of them.

    Attributes:
        context: the run.
        tools: the tools by name.
        interceptions: middleware around each call, outermost first.
        check_result: checks what comes of a call and gives the result to be kept, or None.
        notify: takes `ToolProgress` and `ToolCallFinished` as they happen, or None where nobody listens.
        max_parallel: most calls at once, or None.
        stored: whether it is to be on disk that a tool starts before it does.
        results: results by call id.
        pending: calls that wait for decisions.
        ended: the signal of a tool that ended the run, if one did.
        ended_by: the id of its call.
        started: how many tools began.
        refused: how many did not for want of budget.
        decoded: the arguments that a policy looked at last, behind its tool and the text that they were decoded from.
        verdicts: what policies said of calls that may have to wait, by call id.
        guards: the run's guardrails, for a run inside a call that is to go by the same ones; or None.
    """

    context: RunContext[Any]
    tools: dict[str, Tool[..., Any]]
    interceptions: tuple[Interception, ...] = ()
    check_result: Callable[[RunContext[Any], ToolResult], Awaitable[ToolResult]] | None = None
    notify: Notify | None = None
    max_parallel: int | None = None
    stored: bool = False
    results: dict[str, ToolResult] = {}
    pending: list[PendingCall] = []
    ended: EndRun | None = None
    ended_by: str = ""
    started: int = 0
    refused: int = 0
    decoded: tuple[Tool[..., Any], str, Any] | None = None
    verdicts: dict[str, Any] | None = None
    guards: Any = None

    def runs_inline(self, tool: Tool[..., Any]) -> bool:
        """Whether a tool runs without a coroutine, as nothing is to be awaited before or after it."""
        return (
            tool.kind == "inline" and not self.interceptions and self.check_result is None and not self.stored
        )

    def finish(self, call: ToolCall, result: ToolResult) -> None:
        """Keep the result of a call, in the journal too: from here on the call never runs again."""
        self.results[call.id] = result
        context = self.context
        if context.session is not None and context.session.turn is not None:
            ends = self.ended is not None and self.ended_by == call.id
            output = stored_value(self.ended.output) if self.ended is not None and ends else None
            context.session.record(
                ToolResultRecord(run=context.run_id, result=result, ends_run=ends, output=output)
            )
            if self.stored:
                context.session.push()
        if self.notify is not None:
            self.notify(ToolCallFinished(call, result))


def run_calls(turn: ToolTurn, calls: Sequence[ToolCall]) -> Awaitable[None] | None:
    """Run calls, in parallel where there are several; results and signals go into the turn.

    A single call runs in place, without a task; an inline tool has run when this returns. Of several, inline tools
    run at once, exclusive ones alone at the end, the others in a task each. Cancellation reaches every tool and
    waits for it to clean up.

    Returns:
        What to await, or None where everything is done.

    Raises:
        ToolError: a tool failed in a way that the model cannot mend; the others are cancelled.
    """
    if len(calls) > 1:
        return _run_all(turn, calls)
    call = calls[0]
    tool = turn.tools.get(call.name)
    if tool is not None and turn.runs_inline(tool):
        return _run_inline(turn, tool, call)
    return _run(turn, call)


async def _run_all(turn: ToolTurn, calls: Sequence[ToolCall]) -> None:
    together: list[ToolCall] = []
    alone: list[ToolCall] = []
    slots = asyncio.Semaphore(turn.max_parallel) if turn.max_parallel else None
    for call in calls:
        tool = turn.tools.get(call.name)
        if tool is not None and tool.exclusive:
            alone.append(call)
        elif tool is not None and turn.runs_inline(tool):
            _run_inline(turn, tool, call)
        else:
            together.append(call)
    if together:  # only now, when no inline tool can fail any more and leave tasks behind
        begin = asyncio.get_running_loop().create_task
        works = [_run(turn, call) if slots is None else _run_in_turn(slots, turn, call) for call in together]
        await wait_together([begin(work) for work in works])
    for call in alone:
        await _run(turn, call)


async def _run_in_turn(slots: asyncio.Semaphore, turn: ToolTurn, call: ToolCall) -> None:
    async with slots:
        await _run(turn, call)


async def wait_together(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for all; when one fails, or the run is cancelled, cancel the rest and let them clean up."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    except BaseException as error:
        for task in tasks:
            task.cancel()
        if isinstance(error, GeneratorExit):  # the run was dropped; nothing may be awaited any more
            raise
        await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # marks it as seen: the first error speaks for all
        raise


def _run_inline(turn: ToolTurn, tool: Tool[..., Any], call: ToolCall) -> None:
    """Run an inline tool and keep its result. Cost: no coroutine, no task, no timer."""
    began = perf_counter() if metrics.recorder is not None else 0.0
    outer = current_call.get()
    try:
        arguments = begin_call(turn, tool, call)
        result = ToolResult(
            call.id, call.name, _content(turn.context, tool, tool.invoke(turn.context, arguments))
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tool raises, the model is told and the run goes on
        try:
            result = _result_of_failure(turn, tool, call, error)
        except ToolError as fatal:
            turn.finish(call, _result(call, str(fatal), "error"))
            raise
    finally:
        current_call.set(outer)
    _keep(turn, call, result, began)


async def _run(turn: ToolTurn, call: ToolCall) -> None:
    """Run a call of any kind with its interceptions and keep its result."""
    began = perf_counter() if metrics.recorder is not None else 0.0
    try:
        result = await (_execute_intercepted(turn, call) if turn.interceptions else execute(turn, call))
        if result.call_id != call.id:  # a middleware's, from its cache perhaps
            result = msgspec.structs.replace(result, call_id=call.id, name=call.name)
        if turn.check_result is not None:
            result = await turn.check_result(turn.context, result)
    except CallPaused as paused:
        turn.pending += paused.pending
    except asyncio.CancelledError:
        turn.finish(call, _result(call, "The call was interrupted.", "interrupted"))
        raise
    except (ToolError, GuardrailError) as error:
        turn.finish(call, _result(call, str(error), "error"))
        raise
    else:
        _keep(turn, call, result, began)


def _keep(turn: ToolTurn, call: ToolCall, result: ToolResult, began: float) -> None:
    if metrics.recorder is not None:
        name = call.name if call.name in turn.tools else "unknown"
        metrics.recorder.tool_called(name, result.outcome, perf_counter() - began)
    if turn.context.retries and result.outcome == "ok":
        turn.context.retries.pop(call.name, None)
    turn.finish(call, result)


async def _execute_intercepted(turn: ToolTurn, call: ToolCall) -> ToolResult:
    context = turn.context

    async def innermost(call: ToolCall) -> ToolResult:
        return await execute(turn, call)

    step: Callable[[ToolCall], Awaitable[ToolResult]] = innermost
    for interception in reversed(turn.interceptions):
        step = _wrap(interception, context, step)
    result: Any = await step(call)
    if not isinstance(result, ToolResult):
        raise ToolError(f"middleware around {call.name!r} gave {type(result).__name__}, not a ToolResult")
    return result


def _wrap(
    interception: Interception, context: RunContext[Any], step: Callable[[ToolCall], Awaitable[ToolResult]]
) -> Callable[[ToolCall], Awaitable[ToolResult]]:
    return lambda call: interception(context, call, step)


async def execute(turn: ToolTurn, call: ToolCall) -> ToolResult:
    """Check and run one call. What the model can mend comes back as a result that says so.

    Raises:
        CallPaused: the tool's own run waits for a decision.
        ToolError: the model tried too often, or no thread is left.
        StoreError: it could not be stored that the tool starts, so that it did not.
    """
    context = turn.context
    tool = turn.tools.get(call.name)
    if tool is None:
        known = ", ".join(turn.tools) or "none"
        return _result(call, f"There is no tool called {call.name!r}. Available: {known}.", "error")
    outer = current_call.get()
    try:
        arguments = begin_call(turn, tool, call)
    except Exception as error:  # noqa: BLE001 - as below
        return _result_of_failure(turn, tool, call, error)
    try:
        if turn.stored:
            await context.session.settle()
    except BaseException:
        current_call.set(outer)
        raise
    try:
        kind = tool.kind
        if kind == "async":
            work = tool.invoke(context, arguments)
            value = await (work if tool.timeout is None else within(tool.timeout, work))
        elif kind == "thread":
            value = await within(tool.timeout, run_in_thread(partial(tool.invoke, context, arguments)))
            if inspect.isawaitable(value):  # a lambda or a partial that gave a coroutine
                value = await within(tool.timeout, value)
        elif kind == "generator":
            work = partial(_drain, tool, context, arguments, _reporter(turn, call))
            value = await within(tool.timeout, run_in_thread(work))
        elif kind == "async_generator":
            value = await within(tool.timeout, _drain_async(tool.invoke(context, arguments), turn, call))
        else:
            value = tool.invoke(context, arguments)
        return ToolResult(call.id, call.name, _content(context, tool, value))
    except CallPaused:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if context.stopping or (task is not None and task.cancelling()):
            raise
        return _result_of_failure(turn, tool, call, RuntimeError(f"cancelled from within: {error}"))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tool raises, the model is told and the run goes on
        return _result_of_failure(turn, tool, call, error)
    finally:
        current_call.set(outer)  # not reset(token): a cancelled stream may be closed from another context


def begin_call(turn: ToolTurn, tool: Tool[..., Any], call: ToolCall) -> Any:
    """Decode the arguments, record that the tool starts, and make the call the current one.

    Raises:
        _InvalidArgumentsError: they are not JSON, or do not fit the tool's parameters.
    """
    known = turn.decoded
    try:
        if known is not None and known[0] is tool and known[1] is call.arguments:
            arguments = known[2]
        else:
            arguments = tool.decode(call.arguments)
    except (ValueError, RecursionError) as error:
        raise _InvalidArgumentsError(
            f"Invalid arguments for {tool.name}: {error}. Correct them and call again."
        ) from error
    context = turn.context
    session = context.session
    if session is None:
        turn.started += 1
    else:
        turn.started += call.id not in session.turn.started  # one that goes on was counted when it began
        session.record(ToolStartedRecord(run=context.run_id, call_id=call.id))
    current_call.set((context, call, turn))
    return arguments


def _result_of_failure(
    turn: ToolTurn, tool: Tool[..., Any], call: ToolCall, error: Exception | SystemExit
) -> ToolResult:
    """Turn what a tool raised into words for the model.

    Raises:
        ToolError: the model cannot mend it.
    """
    if isinstance(error, ModelRetry | _InvalidArgumentsError):
        return _hand_back(turn.context, tool, call, _cut(words_of(error), tool))
    if isinstance(error, EndRun):
        turn.ended, turn.ended_by = error, call.id
        return _result(call, _safe_text(error.output))
    if isinstance(error, ToolError):
        raise error
    if isinstance(error, OverdueError):
        return _result(
            call, f"{tool.name} did not finish within {tool.timeout} seconds and was stopped.", "timeout"
        )
    words = f"{tool.name} failed: {type(error).__name__}: {words_of(error)}"
    return _result(call, _cut(words, tool), "error")


def _cut(words: str, tool: Tool[..., Any]) -> str:
    """Bound what a model is told of an error, which may repeat what was wrong with a huge argument."""
    most = min(tool.max_result_chars, _MAX_ERROR_CHARS)
    return words if len(words) <= most else f"{words[:most]} … ({len(words)} characters)"


class _InvalidArgumentsError(Exception):
    """The arguments of a call do not fit its tool."""


async def within(seconds: float | None, awaitable: Any) -> Any:
    """Await something for a limited time; no timer is made for what finishes without suspending.

    Raises:
        OverdueError: the time is over; what was awaited has been cancelled.
    """
    if seconds is None:
        return await awaitable
    if inspect.iscoroutine(awaitable):
        coroutine = cast("Coroutine[Any, Any, Any]", awaitable)
        try:
            first = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        awaitable = _Rest(coroutine, first)
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await awaitable
    except TimeoutError:
        if timer.expired():
            raise OverdueError from None
        raise


class LastWord(msgspec.Struct, frozen=True):
    """What an async generator yields at its very end, where its result is not one more interim value.

    Attributes:
        value: the result.
    """

    value: Any


class OverdueError(Exception):
    """A call took longer than its tool allows."""


class _Rest:
    """The rest of a coroutine that has been stepped once: waits for what it waits for, then goes on."""

    __slots__ = ("coroutine", "first")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self.coroutine = coroutine
        self.first = first

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self.coroutine
        waited_for = self.first
        while True:
            try:
                sent = yield waited_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the coroutine decides what it means
                step, argument = coroutine.throw, error
            else:
                step, argument = coroutine.send, sent
            try:
                waited_for = step(argument)
            except StopIteration as stop:
                return stop.value


def _reporter(turn: ToolTurn, call: ToolCall) -> Callable[[Any], None] | None:
    """Give what a thread may call to report an interim value."""
    notify = turn.notify
    if notify is None:
        return None
    loop = asyncio.get_running_loop()

    def report(value: Any) -> None:
        loop.call_soon_threadsafe(notify, ToolProgress(call, value))

    return report


def _drain(
    tool: Tool[..., Any], context: RunContext[Any], arguments: Any, report: Callable[[Any], None] | None
) -> Any:
    generator: Generator[Any, Any, Any] = tool.invoke(context, arguments)
    value = None
    while True:
        try:
            value = next(generator)
        except StopIteration as stop:
            return value if stop.value is None else stop.value
        if report is not None:
            report(value)


async def _drain_async(generator: Any, turn: ToolTurn, call: ToolCall) -> Any:
    value = None
    async for item in generator:
        value = item
        if item.__class__ is LastWord:
            value = item.value
        elif turn.notify is not None:
            turn.notify(ToolProgress(call, item))
    return value


def _content(context: RunContext[Any], tool: Tool[..., Any], value: Any) -> Any:
    """Turn what a tool returned into the content of a result, keeping aside what is too long."""
    kind = value.__class__
    if kind is str and len(value) <= tool.max_result_chars and value.isascii():
        return value
    if kind is int:
        return str(value)
    if kind in _MEDIA:
        return (value,)
    if (kind is tuple or kind is list) and any(type(item) in _MEDIA for item in value):
        return tuple(Text(item) if type(item) is str else item for item in value)
    text = encode_value(value)
    if len(text) <= tool.max_result_chars:
        return text
    if context.session is not None:
        return context.session.keep_aside(text)
    if context.offload is None:
        context.offload = Offload()
    return context.offload.reference(text)[1]


def _hand_back(context: RunContext[Any], tool: Tool[..., Any], call: ToolCall, reason: str) -> ToolResult:
    """Tell the model what to do better; after too many times in a row, fail."""
    if context.retries is None:
        context.retries = {}
    tries = context.retries[tool.name] = context.retries.get(tool.name, 0) + 1
    if tries > tool.retries:
        raise ToolError(
            f"the model failed to call {tool.name!r} properly {tries} times in a row; last: {reason}"
        )
    return _result(call, reason, "error")


def _safe_text(value: Any) -> str:
    try:
        return encode_value(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _result(call: ToolCall, text: str, outcome: Outcome = "ok") -> ToolResult:
    if not text.isascii():
        text = text.encode(errors="replace").decode()  # half a surrogate pair would break the journal
    return ToolResult(call.id, call.name, text, outcome)
