"""What toolkits hold open: each in a task of its own, shared within its scope, closed at the end of it."""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from time import monotonic
from typing import Any, TypeAlias

from gossamer.errors import GossamerError, ToolkitError
from gossamer.holding import running_loop
from gossamer.schema import words_of
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool, as_tool
from gossamer.tools.toolkit import Equip, Toolkit

__all__ = [
    "CLOSING_SECONDS",
    "Opened",
    "OpenedToolkits",
    "close_all",
    "close_forgotten",
    "open_in",
    "opened_on_loop",
]

# How long the end of a run or of an `async with` waits for something to close before it goes on without, in seconds.
CLOSING_SECONDS = 10.0

OpenedToolkits: TypeAlias = "MutableMapping[Toolkit, Opened]"


class Opened:
    """A toolkit that is open, or about to be.

    Its context manager is entered, kept and left by one task, as managers built on anyio demand. The task belongs to
    nobody's run: it ends when the toolkit is closed, when nobody has the toolkit any more, or with its event loop.

    Args:
        toolkit: what to open.
        forget: called when it is closed, or could not be opened: nobody is to find it any more.

    Attributes:
        users: how many runs and `async with` blocks hold it.
        equip: what its context manager gave; None before it is open.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_forget",
        "_forgotten",
        "_loop",
        "_name",
        "_process",
        "_ready",
        "_task",
        "_tools",
        "equip",
        "users",
    )

    def __init__(self, toolkit: Toolkit, forget: Callable[[], None]) -> None:
        assert toolkit.open is not None
        loop = self._loop = asyncio.get_running_loop()
        self.users = 0
        self.equip: Any = None
        self._name = toolkit.name
        self._process = os.getpid()
        self._forget = forget
        self._tools: Callable[[], tuple[Tool[..., Any], ...]] = _none
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[None] = loop.create_future()
        # In a context of its own: the run in which it happens to be opened must not live as long as it does.
        own = self._keep(toolkit.open, weakref.ref(toolkit))
        self._task = loop.create_task(own, name=f"gossamer-toolkit-{toolkit.name}", context=Context())
        self._forgotten = weakref.finalize(toolkit, _close, weakref.ref(self))
        self._forgotten.atexit = False
        _all.add(self)

    @property
    def tools(self) -> tuple[Tool[..., Any], ...]:
        """Its tools as they are now: the same tuple until they change."""
        return self._tools()

    @property
    def instructions(self) -> str:
        """What it has to say of itself, see `Equipped`."""
        return getattr(self.equip, "instructions", "")

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            GossamerError: it could not be opened, or was closed meanwhile.
        """
        await asyncio.shield(self._ready)

    def close(self) -> None:
        """Begin to close it; returns at once, and may be called in any thread."""
        if self._loop.is_closed():
            return
        if running_loop() is self._loop:
            self._begin_to_close()
        else:
            self._loop.call_soon_threadsafe(self._begin_to_close)

    async def closed(self) -> None:
        """Wait until it is closed, for ten seconds at most."""
        done, _ = await asyncio.wait((self._task,), timeout=CLOSING_SECONDS)
        if not done:
            logger.warning("toolkit %s did not close within %g seconds", self._name, CLOSING_SECONDS)
            self._task.cancel()

    def close_at_exit(self, seconds: float) -> None:
        """Close it from the main thread, where its loop still runs in another, as that of `run_sync` does."""
        if os.getpid() != self._process or not self._loop.is_running():  # a forked child has no such thread
            return
        try:
            self.close()
            asyncio.run_coroutine_threadsafe(self.closed(), self._loop).result(max(seconds, 0.0))
        except Exception as error:  # noqa: BLE001 - nothing may keep Python from its exit
            logger.warning("toolkit %s was not closed: %s", self._name, words_of(error))

    def _begin_to_close(self) -> None:
        self._forget()
        self._closing.set()
        if not self._ready.done():
            self._task.cancel()  # it is still being opened, and nobody waits for that any more

    async def _keep(
        self, open_: Callable[[], AbstractAsyncContextManager[Equip]], toolkit: weakref.ref[Toolkit]
    ) -> None:
        try:
            async with open_() as equip:
                self.equip = equip
                self._tools = _settled(equip, toolkit)
                self._ready.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            self._forget()
            if not self._ready.done():
                self._ready.set_exception(_why_not(self._name, error))
                self._ready.exception()  # marks it as seen: perhaps nobody waits any more
            elif isinstance(error, Exception):
                logger.warning("toolkit %s failed: %s: %s", self._name, type(error).__name__, words_of(error))
            if not isinstance(error, Exception):
                raise
        finally:
            self._forgotten.detach()


def open_in(opened: OpenedToolkits, toolkit: Toolkit) -> Opened:
    """Give the toolkit as it stands open in a scope, or begin to open it.

    Args:
        opened: what is open in the scope.
        toolkit: the toolkit.
    """
    one = opened.get(toolkit)
    if one is None:
        key = weakref.ref(toolkit)
        scope = weakref.ref(opened) if isinstance(opened, weakref.WeakKeyDictionary) else lambda: opened

        def forget() -> None:
            kit, there = key(), scope()
            if kit is not None and there is not None and there.get(kit) is one:
                del there[kit]

        one = opened[toolkit] = Opened(toolkit, forget)
    return one


async def close_all(opened: OpenedToolkits) -> None:
    """Close what is open in a scope, and wait for it."""
    ones = list(opened.values())
    for one in ones:
        one.close()
    for one in ones:
        await one.closed()


def close_forgotten(opened: OpenedToolkits) -> None:
    """Begin to close what is open in a scope that nobody has any more; may be called in any thread."""
    for one in list(opened.values()):
        one.close()


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, OpenedToolkits] = weakref.WeakKeyDictionary()


def opened_on_loop() -> OpenedToolkits:
    """Give what is open for all runs of the running event loop."""
    loop = asyncio.get_running_loop()
    opened = _by_loop.get(loop)
    if opened is None:
        for other in list(_by_loop):
            if other.is_closed():
                del _by_loop[other]  # its tasks were never cancelled, and would keep it here
        opened = _by_loop[loop] = weakref.WeakKeyDictionary()
    return opened


_all: weakref.WeakSet[Opened] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    """Close what loops of other threads hold open, within the time that one may take to close."""
    deadline = monotonic() + CLOSING_SECONDS
    for one in list(_all):
        one.close_at_exit(deadline - monotonic())


def _none() -> tuple[Tool[..., Any], ...]:
    return ()


def _settled(equip: Equip, toolkit: weakref.ref[Toolkit]) -> Callable[[], tuple[Tool[..., Any], ...]]:
    """Make of what a toolkit gave when it was opened something that tells those that it wants at any time."""
    kit = toolkit()
    given = equip() if callable(equip) else _made(equip)
    if kit is None:
        return _none
    kit.check_names((*kit.tools, *given))  # pyright: ignore[reportArgumentType] - settled when it was built
    chosen = tuple(kit.choose(given))
    if not callable(equip):
        return lambda: chosen
    del kit  # from here on it is closed when nobody else has the toolkit

    def current() -> tuple[Tool[..., Any], ...]:
        nonlocal given, chosen
        now = equip()
        if now is not given and (kit := toolkit()) is not None:
            given, chosen = now, tuple(kit.choose(now))
        return chosen

    return current


def _made(tools: Sequence[Any]) -> tuple[Tool[..., Any], ...]:
    return tuple(one if one.__class__ is Tool else as_tool(one) for one in tools)


def _why_not(name: str, error: BaseException) -> GossamerError:
    """Give the error for those who wait for a toolkit that was not opened."""
    if isinstance(error, GossamerError):
        return error
    if not isinstance(error, Exception):
        return ToolkitError(f"toolkit {name!r} was closed while it was being opened")
    words = f"toolkit {name!r} could not be opened: {type(error).__name__}: {words_of(error)}"
    return ToolkitError(words).with_traceback(error.__traceback__)


def _close(opened: weakref.ref[Opened]) -> None:
    """Close what nobody has any more; called by the garbage collector, in whatever thread."""
    one = opened()
    if one is not None:
        one.close()
