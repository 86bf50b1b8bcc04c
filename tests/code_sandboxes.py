"""Sandboxes for tests of code mode: `sandbox` is each that runs real code, `InProcess` one that tests can look into."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io

import pytest
from tests.services import bubblewrap

from gossamer.errors import CodeError
from gossamer.sandbox import BubblewrapSandbox, Execution, HostCall, MontySandbox

__all__ = ["InProcess", "bubblewrap", "every_sandbox", "kind", "sandbox"]


class InProcess:
    """Runs code in the tests' own process: no sandbox at all, but it tells what became of its sessions.

    Attributes:
        open: how many sessions are open.
        opened: how many ever were.
        fails: raised in place of running, if it is an error.
    """

    name = "in process"

    def __init__(self, fails: Exception | None = None) -> None:
        self.open = self.opened = 0
        self.fails = fails

    def session(self):
        return _Session(self)


class _Session:
    def __init__(self, sandbox: InProcess) -> None:
        self._sandbox = sandbox

    async def __aenter__(self):
        self._sandbox.open += 1
        self._sandbox.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sandbox.open -= 1

    async def run(self, code, *, functions):
        if self._sandbox.fails is not None:
            raise self._sandbox.fails
        host = _Host(functions)
        out = io.StringIO()
        names = {name: host.function(name) for name in functions.names}
        names["print"] = lambda *args, **options: print(*args, **options, file=out)
        try:
            tree = ast.parse(code)
            if tree.body and isinstance(last := tree.body[-1], ast.Expr):
                target = ast.Name("_shown", ast.Store())
                tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
                ast.fix_missing_locations(tree)
            value = eval(compile(tree, "<code>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(value):
                await value
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            raise CodeError(
                words, kind=type(error).__name__, traceback=words, stdout=out.getvalue()
            ) from error
        finally:
            await host.aclose()
        shown = names.get("_shown")
        return Execution(shown, "" if shown is None else repr(shown), out.getvalue())


class _Host:
    """Gathers the calls that the code makes before it has to wait, as a sandbox does."""

    def __init__(self, functions) -> None:
        self._functions = functions
        self._calls: list[tuple[HostCall, asyncio.Future]] = []
        self._tasks: set[asyncio.Task] = set()

    def function(self, name):
        async def call(*args, **kwargs):
            answered = asyncio.get_running_loop().create_future()
            self._calls.append((HostCall(name, args, kwargs), answered))
            if len(self._calls) == 1:
                task = asyncio.ensure_future(self._ask())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return await answered

        return call

    async def _ask(self) -> None:
        await asyncio.sleep(0)  # the tasks of a gather begin behind this one
        calls, self._calls = self._calls, []
        answers = await self._functions.answer([call for call, _ in calls])
        for (_, answered), answer in zip(calls, answers, strict=True):
            if answered.done():
                continue
            if answer.error is None:
                answered.set_result(answer.value)
            else:
                answered.set_exception(RuntimeError(answer.error))

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(params=["in_process", "monty"])
async def sandbox(request):
    """What code mode is tested on: a sandbox that begins quickly, and the tests' own process."""
    async with opened(request.param) as one:
        yield one


@pytest.fixture(params=["in_process", "monty", "bubblewrap"])
def kind(request) -> str:
    """Which sandbox; one that this machine cannot have is left out, and told."""
    if request.param == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    return request.param


@pytest.fixture
async def every_sandbox(kind):
    """The same, and each sandbox that there is."""
    async with opened(kind) as one:
        yield one


def opened(kind: str):
    match kind:
        case "monty":
            return MontySandbox()
        case "bubblewrap":
            return BubblewrapSandbox(size=2)
    return contextlib.nullcontext(InProcess())
