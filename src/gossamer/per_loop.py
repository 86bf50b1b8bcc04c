"""What is kept once for each event loop: made at its first use, gone with it, dropped after a fork."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["PerLoop"]


class _Kept(Protocol):
    async def aclose(self) -> None: ...

    def drop_in_child(self) -> None: ...


T = TypeVar("T", bound=_Kept)


class PerLoop(Generic[T]):
    """Keeps one thing for each event loop.

    It is closed when the loop shuts its asynchronous generators down, as `asyncio.run` does; what belongs to a loop
    that was closed over it is let go when another loop asks.

    Args:
        make: makes the thing; called on the running loop.
    """

    __slots__ = ("__weakref__", "_guards", "_kept", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: dict[asyncio.AbstractEventLoop, T] = {}
        self._guards: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        _all.add(self)

    def here(self) -> T:
        """Give the running loop's; O(1).

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        return self._add(loop) if kept is None else kept

    def _add(self, loop: asyncio.AbstractEventLoop) -> T:
        for other in [other for other in list(self._kept) if other.is_closed()]:
            self._kept.pop(other, None)
            self._guards.pop(other, None)
        kept = self._kept[loop] = self._make()
        self._guards[loop] = guard = self._guard(loop, kept)
        # Begun here and now, so that the loop knows of it; it needs no waiting to come to its yield.
        with suppress(StopIteration):
            guard.asend(None).send(None)
        return kept

    async def _guard(self, loop: asyncio.AbstractEventLoop, kept: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if not sys.is_finalizing() and not loop.is_closed() and self._kept.get(loop) is kept:
                del self._kept[loop], self._guards[loop]
                await kept.aclose()

    async def aclose(self) -> None:
        """Close the running loop's, if it has one; who uses it meanwhile has a new one."""
        loop = asyncio.get_running_loop()
        kept, guard = self._kept.pop(loop, None), self._guards.pop(loop, None)
        if kept is not None:
            await kept.aclose()
        if guard is not None:
            await guard.aclose()

    def all(self) -> list[T]:
        """Give those of all loops."""
        return list(self._kept.values())

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of what belongs to the parent."""
        for kept in self._kept.values():
            kept.drop_in_child()
        _left_behind.append((dict(self._kept), dict(self._guards)))
        self._kept.clear()
        self._guards.clear()


_all: WeakSet[PerLoop[Any]] = WeakSet()

# What a child of a fork must not clean up: that would speak to the parent's event loop.
_left_behind: list[object] = []


def _drop_all_in_child() -> None:
    for one in list(_all):
        one.drop_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all_in_child)
