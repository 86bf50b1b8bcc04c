"""The interpreter of a session: runs code in one namespace, and tells the value of the last expression, plots and errors."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import io
import linecache
import os
import selectors
import sys
import traceback
import types
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from gossamer.sandbox.inside.frames import Channel, NotPlainError, pack, plain, receive, restored
from gossamer.sandbox.inside.walls import FILES

__all__ = ["Interpreter", "LimitReachedError", "failure"]

_MOST_TRACEBACK = 20_000
_MOST_SHOWN = 1_000_000
_MOST_MADE = 1_000  # calls that are looked through for those that nobody waits for


class LimitReachedError(Exception):
    """A limit of `SandboxLimits`, which is named, does not allow it."""


class Interpreter:
    """Runs code; what it defines stays.

    Args:
        channel: to the host, for calls of its functions.
    """

    def __init__(self, channel: Channel) -> None:
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = self._module
        sys.path.insert(0, "")
        self._runs = 0
        self._value: Any = None
        self._calls = _Calls(channel)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, code: str, functions: list[str]) -> dict[str, Any]:
        """Run code and tell of its last expression.

        Args:
            code: Python.
            functions: the functions of the host that it may call.

        Raises:
            BaseException: whatever it raised.
        """
        self._runs += 1
        self._value = None
        name = f"<run {self._runs}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        namespace = self._module.__dict__
        for function in functions:
            namespace[function] = self._calls.function(function)
        self._calls.begin(functions)
        tree = ast.parse(code, name)
        last: Any = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        try:
            if tree.body:
                self._execute(compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
            if last is not None:
                expression = ast.Expression(last.value)
                self._value = self._execute(compile(expression, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        except SystemExit as ended:
            if ended.code not in {None, 0}:
                raise
        self._calls.check()
        return _described(self._value)

    def _execute(self, code: types.CodeType) -> Any:
        value = eval(code, self._module.__dict__)  # noqa: S307 - that is what it is for
        return self._wait(value) if code.co_flags & inspect.CO_COROUTINE else value

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.SelectorEventLoop(_Selector(self._calls.send))
            asyncio.set_event_loop(self._loop)
        self._calls.loop = self._loop
        return self._loop.run_until_complete(coroutine)

    def images(self) -> list[bytes]:
        """Give the plots that are open, which are closed, and the last value where it is an image; as PNG."""
        found: list[bytes] = []
        plots: Any = sys.modules.get("matplotlib.pyplot")
        if plots is not None:
            for number in plots.get_fignums():
                data = io.BytesIO()
                plots.figure(number).savefig(data, format="png")
                found.append(data.getvalue())
            plots.close("all")
        draw: Any = getattr(self._value.__class__, "_repr_png_", None)
        if not found and callable(draw):
            drawn: Any = draw(self._value)
            if isinstance(drawn, bytes):
                found.append(drawn)
        return found

    def flush(self) -> None:
        """Write out what is still to be written to stdout and stderr."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):  # code may have put anything there
                stream.flush()


def _described(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    shown = repr(value)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]} … ({len(shown):,} characters)"
    told = {"shown": shown.encode(errors="replace").decode()}
    with suppress(NotPlainError, RecursionError):
        told["value"] = plain(value)
    return told


def failure(error: BaseException) -> dict[str, str]:
    """Tell of an error: its kind, its words, where it was raised, and the limit behind it, if one is."""
    limit = _limit_behind(error)
    try:
        words = str(error)
    except BaseException as another:  # noqa: BLE001 - its __str__ is the code's
        words = f"(its words raised {type(another).__name__})"
    try:
        lines = traceback.TracebackException.from_exception(error, limit=-100, compact=True)
        # What is above the code is ours, and the library's that reads it.
        while lines.stack and not lines.stack[0].filename.startswith("<run "):
            del lines.stack[0]
        text = "".join(lines.format())
    except BaseException:  # noqa: BLE001 - as above
        text = ""
    if len(text) > _MOST_TRACEBACK:
        text = f"{text[: _MOST_TRACEBACK // 2]}\n…\n{text[-_MOST_TRACEBACK // 2 :]}"
    told = {
        "kind": type(error).__name__,
        "message": words[:_MOST_TRACEBACK],
        "traceback": text,
        "limit": limit,
    }
    return {key: str(value).encode(errors="replace").decode() for key, value in told.items()}


def _limit_behind(error: BaseException) -> str:
    if isinstance(error, LimitReachedError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory_bytes"
    if isinstance(error, OSError):
        if error.errno == errno.EFBIG:
            return "file_bytes"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return "disk_bytes" if os.statvfs(FILES).f_favail else "files"
        if error.errno == errno.ENOMEM:
            return "memory_bytes"
        if error.errno == errno.EAGAIN and _no_more_processes():
            return "processes"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "processes"
    return ""


def _no_more_processes() -> bool:
    """Tell whether the limit of processes is reached, rather than that a socket had nothing to read."""
    try:
        pid = os.fork()
    except OSError:
        return True
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return False


# --- functions of the host ------------------------------------------------------------------------------------


class _Selector(selectors.DefaultSelector):
    """Sends the calls that have gathered when the loop has nothing else to do: those of one step go together."""

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__()
        self._send = send

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self._send()
        return super().select(timeout)


class _Calls:
    """The calls of host functions: gathered, sent, and answered."""

    def __init__(self, channel: Channel) -> None:
        self.allowed: frozenset[str] = frozenset()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._channel = channel
        self._gathered: list[tuple[dict[str, Any], asyncio.Future[Any]]] = []
        self._made: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        self._sent: list[asyncio.Future[Any]] = []

    def begin(self, functions: list[str]) -> None:
        """Begin a run: these may be called, and what an earlier one called and did not wait for is forgotten."""
        self.allowed = frozenset(functions)
        if self._sent and self.loop is not None and not self.loop.is_closed():
            self.loop.remove_reader(self._channel)
        self._gathered.clear()
        self._sent.clear()
        self._made.clear()

    def function(self, name: str) -> Callable[..., Any]:
        """Make the function of a name."""

        async def wait(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if name not in self.allowed:
                raise RuntimeError(f"{name} cannot be called in this run")
            try:
                made = {"name": name, "args": plain(args), "kwargs": plain(kwargs)}
            except NotPlainError:
                raise TypeError(
                    f"{name}: arguments must be plain data: None, numbers, text, bytes, lists, dicts"
                ) from None
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Any] = loop.create_future()
            self._gathered.append((made, future))
            return await future

        def call(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            waiting = wait(args, kwargs)
            self._made.append((name, waiting))
            if len(self._made) > _MOST_MADE:
                self._made = [
                    one for one in self._made if inspect.getcoroutinestate(one[1]) == inspect.CORO_CREATED
                ]
            return waiting

        call.__name__ = call.__qualname__ = name
        return call

    def check(self) -> None:
        """See that all that was called was waited for.

        Raises:
            RuntimeError: something was not, and so was not called at all.
        """
        made, self._made = self._made, []
        missed: list[str] = []
        for name, waiting in made:
            if inspect.getcoroutinestate(waiting) == inspect.CORO_CREATED:
                waiting.close()
                missed.append(f"{name}()")
        if missed:
            told = ", ".join(dict.fromkeys(missed))
            raise RuntimeError(
                f"{told} was called without await, and did not run; write `await {missed[0][:-1]}…)`"
            )

    def send(self) -> None:
        """Send what has gathered, unless the last calls have no answer yet."""
        loop = self.loop
        if not self._gathered or self._sent or loop is None:
            return
        gathered = [one for one in self._gathered if not one[1].done()]
        self._gathered.clear()
        if gathered:
            self._sent = [future for _, future in gathered]
            self._channel.write(pack({"is": "calls", "calls": [call for call, _ in gathered]}))
            loop.add_reader(self._channel, self._answered)

    def _answered(self) -> None:
        assert self.loop is not None
        self.loop.remove_reader(self._channel)
        frame = receive(self._channel)
        sent, self._sent = self._sent, []
        if frame is None:
            os._exit(0)
        for future, answer in zip(sent, frame[0]["answers"], strict=False):
            if future.done():
                continue
            if answer.get("error") is not None:
                future.set_exception(RuntimeError(answer["error"]))
            else:
                future.set_result(restored(answer["value"]))
