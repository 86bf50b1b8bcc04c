"""One run in Monty: it goes from one thing that the code asks for to the next, within limits, until the code ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any, Literal

from pydantic_monty import (
    NOT_HANDLED,
    AsyncFunctionSnapshot,
    AsyncFutureSnapshot,
    AsyncMontySession,
    AsyncNameLookupSnapshot,
    MontyComplete,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
)

from gossamer.errors import (
    ArgumentError,
    CodeError,
    SandboxCrashedError,
    SandboxError,
    SandboxLimitError,
)
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.host_functions import HostAnswer, HostCall, HostFunctions, never_awaited
from gossamer.sandbox.limits_reached import limit_error
from gossamer.sandbox.monty_files import FOLDER, MontyFiles
from gossamer.sandbox.monty_values import NotPlainError, TooLargeError, plain

__all__ = ["MontyRun"]

# How long, in seconds, code that has written too much may go on to its end, so that its session need not be ended.
_FLOODED_SECONDS = 0.1

_MOST_SLEEPS = 1000  # at once
_MOST_ARGUMENTS = 1024 * 1024  # bytes of all calls that wait to be answered
_MOST_WORDS = 20_000  # characters of an error's words, and of its traceback

# What the library says where a limit of its own ended the code; nothing in there can catch it.
_OUT_OF_MEMORY = ("MemoryError: memory limit exceeded", "MemoryError: the worker exceeded its memory limit")
_OUT_OF_TIME = "TimeoutError: feed time limit exceeded"


class MontyRun:
    """A run of code; it is used once.

    Args:
        raw: the library's session.
        files: those of the session.
        limits: the sandbox's.
        seconds: how long it may take, without what the host answers.
        functions: functions of the host.

    Attributes:
        over: whether the session is over with it.
    """

    __slots__ = (
        "_calls",
        "_count",
        "_end",
        "_files",
        "_flooded",
        "_functions",
        "_left",
        "_limits",
        "_loop",
        "_out",
        "_raw",
        "_reached",
        "_seconds",
        "_since",
        "_sleeps",
        "_timer",
        "_waiting_bytes",
        "_waits",
        "_written",
        "over",
    )

    def __init__(
        self,
        raw: AsyncMontySession,
        files: MontyFiles,
        limits: SandboxLimits,
        seconds: float,
        functions: HostFunctions | None,
    ) -> None:
        self._raw = raw
        self._files = files
        self._limits = limits
        self._seconds = self._left = seconds
        self._functions = functions
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        # What the run waits for, and what is to be raised in place of it once something else has ended the run.
        self._waits: asyncio.Future[Any] | None = None
        self._end: SandboxError | None = None
        self._out: dict[str, StringIO] = {}
        self._written = 0
        self._flooded = False
        self._calls: dict[int, HostCall] = {}
        self._waiting_bytes = 0
        self._count = 0
        self._sleeps: dict[int, float] = {}
        self._reached = files.reached
        self.over = False

    @property
    def output(self) -> tuple[str, str]:
        """What was written to stdout and stderr."""
        return tuple(self._out[name].getvalue() if name in self._out else "" for name in ("stdout", "stderr"))  # pyright: ignore[reportReturnType]

    async def execute(self, code: str) -> Any:
        """Run code to its end.

        Args:
            code: Python.

        Returns:
            The value of its last expression, as the library gives it.

        Raises:
            SandboxError: something ended it; with what was written until then.
        """
        self._go_on()
        try:
            value = await self._drive(code)
            if self._flooded:
                raise limit_error("output_bytes", self._limits)
        except SandboxError as error:
            error.stdout, error.stderr = self.output
            raise
        finally:
            self._stand_still()
        return value

    def end(self, error: SandboxError) -> None:
        """End it from outside, whatever it waits for; the session is over.

        Args:
            error: what it raises.
        """
        if self._end is None:
            self._end = error
        self.over = True
        if self._waits is not None:
            self._waits.cancel()

    # --- the way through --------------------------------------------------------------------------------------------

    async def _drive(self, code: str) -> Any:
        try:
            at = await self._step(self._raw.feed_start(code, cwd=FOLDER, print_callback=self._print))
            while True:
                if isinstance(at, MontyComplete):
                    if self._end is not None:
                        raise self._end
                    if self._calls:
                        raise never_awaited(call.name for call in self._calls.values())
                    return _value(at)
                if isinstance(at, AsyncFunctionSnapshot):
                    at = await (self._system(at) if at.is_os_function else self._called(at))
                elif isinstance(at, AsyncNameLookupSnapshot):
                    at = await self._step(self._named(at))
                else:
                    at = await self._step(at.resume(await self._settled(at)))
        except (MontySyntaxError, MontyRuntimeError) as error:
            raise self._why(error) from None
        except MontyCrashedError as error:
            self.over = True
            if error.timed_out:
                raise self._out_of_time() from error
            raise SandboxCrashedError(
                f"the process in which the code ran has died ({error}); the session is closed, begin another one"
            ) from error
        except MontyError as error:  # what the host gave could not be taken in there
            self.over = True
            raise CodeError(f"the code cannot go on: {error}", kind="TypeError") from error
        except (SandboxError, ArgumentError):
            raise
        except BaseException:  # cancelled, or a function of the host failed: the code stands in the middle
            self.over = True
            raise

    async def _step(self, future: Any) -> Any:
        """Wait for the library, which says with a plain RuntimeError that it can no longer speak with its process."""
        try:
            return await self._wait(future)
        except RuntimeError as error:
            self.over = True
            if self._end is not None:  # the process was taken away meanwhile
                raise self._end from None
            raise SandboxCrashedError(
                f"the process in which the code ran is lost ({error}); the session is closed, begin another one"
            ) from error

    async def _wait(self, future: asyncio.Future[Any] | Any) -> Any:
        """Wait for something, which anybody may end by `end`."""
        self._waits = waits = asyncio.ensure_future(future)
        if self._end is not None:
            waits.cancel()
        try:
            return await waits
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._end is None or (task is not None and task.cancelling()):
                self.over = True
                raise
            raise self._end from None
        finally:
            self._waits = None

    def _named(self, at: AsyncNameLookupSnapshot) -> Any:
        """Give a function of the host that the code speaks of, such as `ask = search`; else there is no such name."""
        name = at.variable_name
        if self._functions is None or at.object_id is not None or name not in self._functions.names:
            return at.resume()
        return at.resume(value=_function(name))

    async def _system(self, at: AsyncFunctionSnapshot) -> Any:
        """Answer what the code asks of its system: to wait, or something about files."""
        name = at.function_name
        if name == "time.sleep":
            await self._wait(self._sleeping(_seconds(at.args)))
            return await self._step(at.resume({"return_value": None}))
        if name == "asyncio.sleep":
            if len(self._sleeps) >= _MOST_SLEEPS:
                return await self._step(
                    _raising(at, RuntimeError(f"more than {_MOST_SLEEPS:,} sleeps at once"))
                )
            self._sleeps[at.call_id] = self._loop.time() + _seconds(at.args)
            return await self._step(at.resume({"future": ...}))
        try:
            value = self._files.call(name, at.args, at.kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the code is told
            return await self._step(_raising(at, error))
        if value is NOT_HANDLED:
            return await self._step(at.resume_not_handled())
        return await self._step(at.resume({"return_value": value}))

    async def _called(self, at: AsyncFunctionSnapshot) -> Any:
        """Note a call of a function of the host; it is answered when the code cannot go on without."""
        name = at.function_name
        if self._functions is None or at.object_id is not None or name not in self._functions.names:
            return await self._step(_raising(at, NameError(f"name {name[:100]!r} is not defined")))
        self._count += 1
        if self._count > self._limits.host_calls:
            reached = limit_error("host_calls", self._limits)
            self._reached[str(reached)] = reached
            return await self._step(_raising(at, RuntimeError(str(reached))))
        try:
            room = _MOST_ARGUMENTS - self._waiting_bytes
            (args, kwargs), left = plain([list(at.args), at.kwargs], room)
        except NotPlainError:
            return await self._step(_raising(at, TypeError(f"{name}() takes plain data alone")))
        except TooLargeError:
            words = f"{name}() is given too much: the arguments of calls that wait have {_MOST_ARGUMENTS:,} bytes at most"
            return await self._step(_raising(at, RuntimeError(words)))
        self._waiting_bytes += room - left
        self._calls[at.call_id] = HostCall(name, tuple(args), kwargs)
        return await self._step(at.resume({"future": ...}))

    async def _settled(self, at: AsyncFutureSnapshot) -> dict[int, Any]:
        """Answer the calls that the code waits for, all in one step; or wait for the first of its sleeps."""
        pending = sorted(at.pending_call_ids)
        asked = [one for one in pending if one in self._calls]
        settled: dict[int, Any] = {}
        if asked:
            answers = await self._answer([self._calls.pop(one) for one in asked])
            if not self._calls:
                self._waiting_bytes = 0
            settled.update(zip(asked, map(_told, answers), strict=True))
        sleeps = {one: self._sleeps[one] for one in pending if one in self._sleeps}
        until = self._loop.time()
        if not settled and sleeps:  # the one that ends first, and others with it: they wake up in their order
            until = min(sleeps.values())
            await self._wait(self._sleeping(until - self._loop.time()))
        for one, time in sleeps.items():
            if time <= until:
                del self._sleeps[one]
                settled[one] = {"return_value": None}
        if not settled:
            self.over = True
            raise SandboxCrashedError(
                "the process of the session waits for what nobody owes it; begin another one"
            )
        return settled

    async def _answer(self, calls: Sequence[HostCall]) -> Sequence[HostAnswer]:
        functions = self._functions
        assert functions is not None
        self._stand_still()
        try:
            answers = await self._wait(functions.answer(calls))
        finally:
            self._go_on()
        if len(answers) != len(calls):
            self.over = True
            raise ArgumentError(f"functions: {len(answers)} answers were given to {len(calls)} calls")
        return answers

    # --- time -------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        self._since = self._loop.time()
        left = min(self._left, _FLOODED_SECONDS) if self._flooded else self._left
        self._timer = self._loop.call_later(left, self._late)

    def _stand_still(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left = max(self._left - (self._loop.time() - self._since), 0.0)

    def _late(self) -> None:
        if self._flooded:
            self.end(limit_error("output_bytes", self._limits))
        else:
            self.end(limit_error("timeout", self._limits, allowed=self._seconds))

    def _sleeping(self, seconds: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(max(seconds, 0.0), _wake, future)
        future.add_done_callback(lambda _: timer.cancel())
        return future

    # --- what is written --------------------------------------------------------------------------------------------

    def _print(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Keep what the code writes, up to the limit; called by a thread of the library's."""
        if self._flooded:
            return
        data = text if text.isascii() else text.encode()
        room = self._limits.output_bytes - self._written
        self._written += len(data)
        if len(data) > room:
            self._flooded = True
            text = data[:room] if isinstance(data, str) else data[:room].decode(errors="ignore")
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._flood)
        self._out.setdefault(stream, StringIO()).write(text)

    def _flood(self) -> None:
        if self._timer is not None:  # else the host answers, or it has ended
            self._stand_still()
            self._go_on()

    # --- what went wrong --------------------------------------------------------------------------------------------

    def _why(self, error: MontySyntaxError | MontyRuntimeError) -> SandboxError:
        """Say in our errors what ended the code."""
        whole = error.display("type-msg")  # once: it may be as long as memory goes
        if whole.startswith(_OUT_OF_MEMORY):
            self.over = self._raw.worker_pid is None
            return limit_error("memory_bytes", self._limits)
        if whole.startswith(_OUT_OF_TIME):
            self.over = True
            return self._out_of_time()
        kind, _, words = whole.partition(": ")
        reached = self._reached.get(words)
        if reached is not None:
            return reached
        self.over = self._raw.worker_pid is None
        return CodeError(
            _cut(whole), kind=_kind(kind) or "Exception", traceback=_cut(error.display("traceback"))
        )

    def _out_of_time(self) -> SandboxLimitError:
        if self._limits.timeout <= self._limits.cpu_seconds:
            return limit_error("timeout", self._limits, allowed=self._seconds)
        return limit_error("cpu_seconds", self._limits)


def _value(at: MontyComplete) -> Any:
    try:
        return at.output
    except Exception as error:
        raise CodeError(
            f"the code's value cannot be taken out: {error}", kind=type(error).__name__
        ) from error


def _told(answer: HostAnswer) -> dict[str, Any]:
    if answer.error is not None:
        return {"exception": RuntimeError(answer.error)}
    try:
        return {"return_value": plain(answer.value, 1 << 60)[0]}
    except (NotPlainError, RecursionError):
        kind = type(answer.value).__name__
        return {"exception": RuntimeError(f"TypeError: the function gave {kind}, which is no plain data")}


def _raising(at: AsyncFunctionSnapshot, error: Exception) -> Any:
    return at.resume({"exception": error})


def _function(name: str) -> Callable[..., None]:
    """Make what stands for a function of the host where the code takes it for a value; its name is all that matters."""

    def function() -> None: ...

    function.__name__ = function.__qualname__ = name
    return function


def _seconds(args: Sequence[Any]) -> float:
    """Give how long code wants to sleep; a year for whatever is no time."""
    try:
        seconds = float(args[0])
    except (IndexError, TypeError, ValueError, OverflowError):
        return 3e7
    return min(max(seconds, 0.0), 3e7) if seconds == seconds else 3e7  # noqa: PLR0124 - nan


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _kind(words: str) -> str:
    """Give the name of a class out of `json.JSONDecodeError`; empty where there is none."""
    name = words[:200].rpartition(".")[2].strip()
    return name if name.isidentifier() else ""


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_WORDS else f"{text[: _MOST_WORDS // 2]} … {text[-_MOST_WORDS // 2 :]}"
