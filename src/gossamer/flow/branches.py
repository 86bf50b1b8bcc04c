"""Many coroutines at once: each in one task from beginning to end, with context variables of its own.

A task costs several times what a run on a model in the same process does. So one task, the scout, steps one branch after
another for as long as none of them has to wait. The first that waits keeps that task to its end, and the rest get a task
each. Code inside a branch sees one and the same `asyncio.current_task()` from its first step to its last, as
`asyncio.timeout` and anyio's scopes demand: that is why a branch is never begun in the caller's task and moved to
another one when it turns out to wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from gossamer.errors import GossamerError
from gossamer.holding import running_loop

__all__ = ["Branches"]

T = TypeVar("T")

_SCOUT = -1  # in place of a place: the task that steps one branch after another


class Branches(Generic[T]):
    """A number of branches, at most so many of them at once, and what came of each.

    Args:
        start: gives the awaitable of the branch at a place; called when it is its turn.
        count: how many branches there are.
        most: how many may run at once; None for all.
        stop_at_first: whether the first error cancels the others, and lets none begin any more.

    Attributes:
        results: what the branches gave, by place; None where they gave nothing.
        errors: what they raised, by place, the first one first.
    """

    __slots__ = (
        "_context",
        "_count",
        "_done",
        "_fatal",
        "_loop",
        "_most",
        "_next",
        "_on_end",
        "_start",
        "_stop_at_first",
        "_stopped",
        "_tasks",
        "errors",
        "results",
    )

    def __init__(
        self, start: Callable[[int], Awaitable[T]], count: int, most: int | None, *, stop_at_first: bool
    ) -> None:
        self.results: list[T | None] = [None] * count
        self.errors: dict[int, Exception] = {}
        self._start = start
        self._count = count
        self._most = count if most is None else most
        self._stop_at_first = stop_at_first
        self._next = 0
        self._stopped = False
        self._fatal: BaseException | None = None
        self._tasks: dict[asyncio.Task[Any], int] = {}

    async def run(self) -> None:
        """Run all, and wait until every task that was made has ended; cancelled, it cancels them first.

        Raises:
            BaseException: what is no `Exception` and came out of a branch: Ctrl-C, for one.
        """
        if not self._count:
            return
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._on_end = self._ended  # one bound method for all tasks, and not one for each
        self._begin(_SCOUT, self._scout())
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            try:
                await self._done
            except asyncio.CancelledError as error:
                cancelled = error
                if self._tasks and self._done.cancelled():
                    self._done = self._loop.create_future()
                self._stop()
            except BaseException:  # dropped: nothing may be awaited any more
                self._stop()
                raise
        if cancelled is not None:
            raise cancelled
        if self._fatal is not None:
            raise self._fatal

    async def _scout(self) -> None:
        """Step branches until one of them waits; then see that one to its end."""
        task = asyncio.current_task()
        assert task is not None
        while self._next < self._count:
            place = self._next
            self._next += 1
            step = self._context.copy().run
            try:
                coroutine = self._coroutine(place)
                waits_for = step(coroutine.send, None)
            except StopIteration as stop:
                self.results[place] = stop.value
            except BaseException as error:  # noqa: BLE001 - kept, and raised by whoever waits for all
                self._fail(place, error)
            else:
                self._fill_up()
                try:
                    self.results[place] = await _rest(coroutine, step, waits_for)
                except BaseException as error:  # noqa: BLE001 - as above
                    self._fail(place, error)
                return
            if task.cancelling():  # by the branch itself: it must not reach those behind it
                self._fill_up(1)
                return

    def _coroutine(self, place: int) -> Coroutine[Any, Any, T]:
        awaitable = self._start(place)
        return awaitable if isinstance(awaitable, types.CoroutineType) else _awaited(awaitable)  # pyright: ignore[reportUnknownVariableType]

    def _fill_up(self, ending: int = 0) -> None:
        """Make tasks for the branches that are due: as many as may run beside those that do."""
        while self._next < self._count and len(self._tasks) - ending < self._most:
            place = self._next
            self._next += 1
            try:
                self._begin(place, self._coroutine(place))
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(place, error)

    def _begin(self, place: int, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work, context=self._context.copy())
        self._tasks[task] = place
        task.add_done_callback(self._on_end)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        place = self._tasks.pop(task)
        if task.cancelled():
            if place != _SCOUT:
                self._fail(place, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._fail(place, error)
        elif place != _SCOUT:
            self.results[place] = task.result()
        if self._next < self._count:
            self._fill_up()
        if not self._tasks and not self._done.done():
            self._done.set_result(None)

    def _fail(self, place: int, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            if self._stopped:
                return
            words = f"the run was cancelled from within: {error}".rstrip(": ")
            error, cause = GossamerError(words), error
            error.__cause__ = cause
        if isinstance(error, Exception):
            self.errors[place] = error
            if self._stop_at_first:
                self._stop()
        else:
            self._fatal = self._fatal or error
            self._stop()

    def _stop(self) -> None:
        """Cancel what runs, and let nothing begin any more; what is being cancelled already is left to clean up."""
        self._next = self._count
        if self._stopped or self._loop.is_closed():
            return
        self._stopped = True
        current = asyncio.current_task() if running_loop() is self._loop else None
        for task in self._tasks:
            if task is not current:
                task.cancel()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


@types.coroutine
def _rest(
    coroutine: Coroutine[Any, Any, T], step: Callable[..., Any], waits_for: Any
) -> Generator[Any, Any, T]:
    """Drive a coroutine that has been stepped once to its end, each step in its own context."""
    while True:
        try:
            argument: Any = yield waits_for
        except BaseException as error:  # noqa: BLE001 - the coroutine decides what it means
            act, argument = coroutine.throw, error
        else:
            act = coroutine.send
        try:
            waits_for = step(act, argument)
        except StopIteration as stop:
            return stop.value
