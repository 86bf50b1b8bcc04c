"""What a worker uses: looked at from time to time, and told once it is more than it may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.cgroups import Cgroup
from gossamer.sandbox.process_tree import cpu_times, descendants, has_more, may_have_more, socket_bytes

__all__ = ["Usage"]

_LOOK_SECONDS = 0.05
# To weigh memory that processes share takes long where there is much of it; looking is to take a part of the time only.
_PAUSES = 4


class Usage:
    """Watches what the processes of a worker use.

    Args:
        pid: the process that they are below of.
        group: their control group, or None: then it is added up out of /proc.
        limits: what they may use.
        too_much: called with the limit's name.
    """

    __slots__ = (
        "_before",
        "_group",
        "_limits",
        "_loop",
        "_pid",
        "_seen",
        "_too_much",
        "_watch",
        "_weighed_until",
        "_weighing",
    )

    def __init__(
        self, pid: int, group: Cgroup | None, limits: SandboxLimits, too_much: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = pid
        self._group = group
        self._limits = limits
        self._too_much = too_much
        self._watch: asyncio.TimerHandle | None = None
        self._weighing: asyncio.Future[tuple[bool, float]] | None = None
        self._weighed_until = 0.0
        self._before = (0.0, 0.0)
        # The processor time of each process when it was last seen.
        self._seen: dict[tuple[int, int], float] = {}

    def begin(self) -> None:
        """Count processor time from here on."""
        self._seen.clear()
        self._before = self._cpu()

    def watch(self) -> None:
        """Look from time to time."""
        self._watch = self._loop.call_later(_LOOK_SECONDS, self._look)

    def unwatch(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel ended something of it for want of memory."""
        return self._group is not None and self._group.memory_exceeded()

    def _look(self) -> None:
        self.watch()
        with suppress(OSError):  # too many files are open; the next look may see
            self._compare()

    def _compare(self) -> None:
        used = max(now - before for now, before in zip(self._cpu(), self._before, strict=True))
        most = self._limits.memory_bytes
        if used > self._limits.cpu_seconds:
            self._too_much("cpu_seconds")
        elif (
            self.out_of_memory or socket_bytes(self._pid) > most
        ):  # groups of version 1 do not count all of these
            self._too_much("memory_bytes")
        elif self._weighing is None and self._loop.time() >= self._weighed_until:
            pids = descendants(self._pid)
            if may_have_more(pids, most):
                self._weighing = self._loop.run_in_executor(None, _weighed, pids, most)
                self._weighing.add_done_callback(self._has_weighed)

    def _has_weighed(self, done: asyncio.Future[tuple[bool, float]]) -> None:
        self._weighing = None
        if done.cancelled() or self._watch is None:
            return
        more, took = done.result()
        self._weighed_until = self._loop.time() + took * _PAUSES
        if more:
            self._too_much("memory_bytes")

    def _cpu(self) -> tuple[float, float]:
        """Give the processor time in two ways, each of which may miss some.

        Of processes that live with those that their parents have waited for, and of all that were ever seen.
        """
        if self._group is not None and (counted := self._group.cpu_seconds()) is not None:
            return counted, counted
        together = 0.0
        for pid in (self._pid, *descendants(self._pid)):
            own, waited_for, started = cpu_times(pid)
            together += own + waited_for
            self._seen[pid, started] = own
        return together, sum(self._seen.values())


def _weighed(pids: list[int], most: int) -> tuple[bool, float]:
    began = perf_counter()
    return has_more(pids, most), perf_counter() - began
