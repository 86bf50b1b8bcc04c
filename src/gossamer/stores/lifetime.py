"""When what a store uses is opened, and when it is let go: at its first use, at the end of the process, in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Lifetime", "Opened"]


class Opened(Protocol):
    """What a store uses while it is open: threads, connections."""

    def stop(self) -> None:
        """Let its threads end, once they have done what they were asked for; they take nothing more."""
        ...

    def close(self) -> None:
        """The same, and wait for their end."""
        ...

    def is_at_work(self) -> bool:
        """Whether one of its threads has not ended yet."""
        ...

    def pause(self) -> None:
        """Before a fork: hold the threads between two pieces of work, and close what a child must not inherit."""
        ...

    def go_on(self) -> None:
        """After a fork, in the parent."""
        ...

    def forget(self) -> None:
        """After a fork, in the child: let go of what stays the parent's, without a word to others."""
        ...


OpenedT = TypeVar("OpenedT", bound=Opened)


class Lifetime(Generic[OpenedT]):
    """Opens what a store uses, at its first use, and anew after it was closed and in a forked child.

    Args:
        open: opens it; given is what is being closed still, or None.
    """

    def __init__(self, open: Callable[[OpenedT | None], OpenedT]) -> None:  # noqa: A002 - the word for it
        self._open = open
        self._lock = Lock()
        self._opened: OpenedT | None = None
        self._closing: OpenedT | None = None
        self._unopened: weakref.finalize[..., Any] | None = None
        _alive.add(self)

    def submit(self, ask: Callable[[OpenedT], asyncio.Future[Any] | None]) -> asyncio.Future[Any]:
        """Ask for something.

        Args:
            ask: asks what is open; gives None where that is being closed.
        """
        while True:
            future = ask(self._opened or self._now_opened())
            if future is not None:
                return future

    async def aclose(self) -> None:
        """Finish what is under way and let everything go."""
        opened = self._let_go()
        if opened is not None:
            await asyncio.to_thread(opened.close)

    def flush(self) -> None:
        """The same, at the end of the process, when no loop runs any more."""
        opened = self._let_go()
        if opened is not None:
            opened.close()

    def pause(self) -> None:
        """Before a fork; see `Opened.pause`."""
        self._lock.acquire()  # let go of by what comes after the fork
        for opened in self._all():
            opened.pause()

    def go_on(self) -> None:
        """After a fork, in the parent; see `Opened.go_on`."""
        for opened in self._all():
            opened.go_on()
        self._lock.release()

    def forget(self) -> None:
        """After a fork, in the child: let what is open stay the parent's."""
        if self._unopened is not None:
            self._unopened.detach()
        for opened in self._all():
            opened.forget()
            _parents.append(opened)
        self._opened = self._closing = None
        self._lock.release()

    def _all(self) -> list[OpenedT]:
        return [opened for opened in (self._closing, self._opened) if opened is not None]

    def _now_opened(self) -> OpenedT:
        with self._lock:
            if self._opened is None:
                opened = self._open(self._closing)
                self._unopened = weakref.finalize(self, _end, opened)
                self._unopened.atexit = False
                self._opened = opened
            return self._opened

    def _let_go(self) -> OpenedT | None:
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                self._closing = opened
                assert self._unopened is not None
                self._unopened.detach()
                opened.stop()
        return opened


_alive: weakref.WeakSet[Lifetime[Any]] = weakref.WeakSet()

# What a forked child must never close, as that would be heard by the parent's server, or disturb its files.
_parents: list[Any] = []


# What is being stopped whose store nobody has any more.
_ending: list[Any] = []


def _end(opened: Opened) -> None:
    opened.stop()
    _ending[:] = [one for one in _ending if one.is_at_work()]
    _ending.append(opened)


def _flush_all() -> None:
    for one in list(_alive):
        one.flush()
    for opened in _ending:
        opened.close()


_paused: list[Lifetime[Any]] = []


def _pause_all() -> None:
    _paused.extend(_alive)
    for one in _paused:
        one.pause()


def _go_on_all() -> None:
    for one in _paused:
        one.go_on()
    _paused.clear()


def _forget_all() -> None:
    for one in _paused:
        one.forget()
    _paused.clear()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause_all, after_in_parent=_go_on_all, after_in_child=_forget_all)
