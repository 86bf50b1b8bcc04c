"""What a worker writes to stdout and stderr: read as it comes, up to a limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

__all__ = ["Output"]

_AT_ONCE = 1 << 16


class Output:
    """Reads two pipes.

    Args:
        out: stdout, non-blocking.
        err: stderr, the same.
        most: how many bytes a run may write to both.
        too_much: called once a run writes more.
    """

    __slots__ = ("_count", "_kept", "_loop", "_most", "_pipes", "_too_much")

    def __init__(self, out: int, err: int, most: int, too_much: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = (out, err)
        self._most = most
        self._too_much = too_much
        self._kept: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._count = 0
        for which in (0, 1):
            self._loop.add_reader(self._pipes[which], self._read, which)

    def drain(self) -> None:
        """Read what is there."""
        for which in (0, 1) if self._pipes[0] >= 0 else ():
            while self._read(which):
                pass

    def take(self) -> tuple[str, str]:
        """Give what was written since the last time, to stdout and to stderr; what is no UTF-8 is replaced."""
        self.drain()
        told = (self._kept[0].decode(errors="replace"), self._kept[1].decode(errors="replace"))
        self._kept[0].clear()
        self._kept[1].clear()
        self._count = 0
        return told

    def close(self) -> None:
        """Read what is left, and close the pipes."""
        if self._pipes[0] < 0:
            return
        self.drain()
        for pipe in self._pipes:
            self._loop.remove_reader(pipe)
            os.close(pipe)
        self._pipes = (-1, -1)

    def _read(self, which: int) -> bool:
        """Read what is there; give whether there may be more."""
        try:
            data = os.read(self._pipes[which], _AT_ONCE)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipes[which])
            return False
        room = self._most - self._count
        self._count += len(data)
        if room >= 0:
            self._kept[which].extend(data[:room])
        if self._count > self._most:
            if room >= 0:
                self._too_much()
            return False
        return True
