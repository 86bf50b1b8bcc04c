"""What toolkits hold open: each in a task of its own, shared within its scope, closed at the end of it."""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections.abc import Callable, Iterable, MutableMapping
from contextvars import Context
from time import monotonic
from typing import Any, TypeAlias

from gossamer.errors import GossamerError, ToolkitError
from gossamer.schema import words_of
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Equip, Toolkit

__all__ = [
    "CLOSING_SECONDS",
    "Opened",
    "OpenedToolkits",
    "close_all",
    "close_forgotten",
    "held",
    "hold_open",
    "let_go",
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
        let_go: called when it is closed, or could not be opened.

    Attributes:
        users: runs and `async with` blocks that hold it.
        equip: what its context manager gave; None before it is open.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_forgotten",
        "_let_go",
        "_loop",
        "_name",
        "_process",
        "_ready",
        "_task",
        "_tools",
        "equip",
        "users",
    )

    def __init__(self, toolkit: Toolkit, let_go: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.users = 0
        self.equip: Any = None
        self._name = toolkit.name
        self._let_go = let_go
        self._tools: Callable[[], tuple[Tool[..., Any], ...]] = _none
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[None] = loop.create_future()
        # In a context of its own: the run in which it happens to be opened must not live as long as it does.
        assert toolkit.open is not None
        own = self._keep(toolkit.open(), weakref.ref(toolkit))
        self._task = loop.create_task(own, name=f"gossamer-toolkit-{toolkit.name}", context=Context())
        self._forgotten = weakref.finalize(toolkit, _close_from_anywhere, loop, weakref.ref(self))
        self._forgotten.atexit = False
        self._loop = loop
        self._process = os.getpid()
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
            GossamerError: it could not be opened.
        """
        await asyncio.shield(self._ready)

    def close(self) -> None:
        """Begin to close it, or give up opening it; returns at once."""
        self._let_go()
        self._closing.set()
        if not self._ready.done():
            self._ready.cancel()
            self._task.cancel()

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
            self._loop.call_soon_threadsafe(self.close)
            asyncio.run_coroutine_threadsafe(self.closed(), self._loop).result(max(seconds, 0.0))
        except Exception as error:  # noqa: BLE001 - nothing may keep Python from its exit
            logger.warning("toolkit %s was not closed: %s", self._name, words_of(error))

    async def _keep(self, manager: Any, toolkit: weakref.ref[Toolkit]) -> None:
        try:
            async with manager as equip:
                self.equip = equip
                self._tools = _settled(equip, toolkit)
                if not self._ready.done():
                    self._ready.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            self._let_go()
            if not isinstance(error, Exception):
                if not self._ready.done():
                    self._ready.cancel()
                raise
            if self._ready.done():
                logger.warning("toolkit %s failed: %s: %s", self._name, type(error).__name__, words_of(error))
                return
            if not isinstance(error, GossamerError):
                words = (
                    f"toolkit {self._name!r} could not be opened: {type(error).__name__}: {words_of(error)}"
                )
                error = ToolkitError(words).with_traceback(error.__traceback__)
            self._ready.set_exception(error)
            self._ready.exception()  # marks it as seen: whoever waits gets it, and perhaps nobody does any more
        finally:
            self._forgotten.detach()


def held(opened: OpenedToolkits, toolkit: Toolkit) -> Opened:
    """Give the toolkit as it stands open in a scope, or begin to open it, and hold it; let go with `users -= 1`.

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
    one.users += 1
    return one


async def hold_open(toolkits: Iterable[Toolkit]) -> None:
    """Open toolkits that all runs of the running event loop share, and hold them until `let_go`.

    Raises:
        GossamerError: one could not be opened; none is held then.
    """
    opened = opened_on_loop()
    shared = [toolkit for toolkit in toolkits if toolkit.open is not None and toolkit.scope == "loop"]
    ones = [held(opened, toolkit) for toolkit in shared]
    try:
        for one in ones:
            await one.ready()
    except BaseException:
        for one in ones:
            one.users -= 1
        raise


async def let_go(toolkits: Iterable[Toolkit]) -> None:
    """Let go of toolkits that `hold_open` held; those that nobody else holds are closed."""
    opened = opened_on_loop()
    closing: list[Opened] = []
    for toolkit in toolkits:
        one = opened.get(toolkit)
        if one is not None:
            one.users -= 1
            if one.users <= 0:
                one.close()
                closing.append(one)
    for one in closing:
        await one.closed()


async def close_all(opened: OpenedToolkits) -> None:
    """Close what is open in a scope, and wait for it."""
    ones = list(opened.values())
    for one in ones:
        one.close()
    for one in ones:
        await one.closed()


def close_forgotten(loop: asyncio.AbstractEventLoop, opened: OpenedToolkits) -> None:
    """Close what is open in a scope that nobody has any more; may be called in any thread."""
    for one in list(opened.values()):
        if not loop.is_closed():
            loop.call_soon_threadsafe(one.close)


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, OpenedToolkits] = weakref.WeakKeyDictionary()


def opened_on_loop() -> OpenedToolkits:
    """Give what is open for all runs of the running event loop."""
    loop = asyncio.get_running_loop()
    opened = _by_loop.get(loop)
    if opened is None:
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
    """Make of what a toolkit gave when it was opened something that tells its tools at any time."""
    if not callable(equip):
        chosen = _choose(toolkit, equip, (), whole=True)
        return lambda: chosen
    last: tuple[Any, tuple[Tool[..., Any], ...]] = (None, ())
    whole = (
        True  # a name that no tool has is a mistake at first; later on it may be one of a tool that is gone
    )

    def current() -> tuple[Tool[..., Any], ...]:
        nonlocal last, whole
        tools = equip()
        if tools is not last[0]:
            last = (tools, _choose(toolkit, tools, last[1], whole=whole))
            whole = False
        return last[1]

    current()
    return current


def _choose(
    toolkit: weakref.ref[Toolkit], tools: Any, last: tuple[Tool[..., Any], ...], *, whole: bool
) -> tuple[Tool[..., Any], ...]:
    kit = toolkit()
    return last if kit is None else kit.choose((*kit.tools, *tools), whole=whole)[len(kit.tools) :]


def _close_from_anywhere(loop: asyncio.AbstractEventLoop, opened: weakref.ref[Opened]) -> None:
    """Close what nobody has any more; called by the garbage collector, in whatever thread."""
    one = opened()
    if one is not None and not loop.is_closed():
        loop.call_soon_threadsafe(one.close)
