"""The processes of a worker as the host sees them: which there are, and what they use. Linux, out of /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_seconds", "descendants", "kill_all", "memory_bytes"]

_MOST = 10_000


def descendants(pid: int) -> list[int]:
    """Give the processes below one, children before grandchildren. O(them)."""
    found: list[int] = []
    unseen = [pid]
    while unseen and len(found) < _MOST:
        parent = unseen.pop(0)
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = (task / "children").read_text().split()
                unseen += map(int, children)
                found += map(int, children)
    return found


def cpu_seconds(pids: Collection[int]) -> float:
    """Add up the processor time of processes and of their children that have ended and were waited for, in seconds."""
    ticks = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            # The name in the second field may have anything in it, but ends at the last bracket.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Collection[int]) -> int:
    """Add up the memory that processes have for themselves, shared pages left out, in bytes."""
    pages = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            pages += int(fields[1]) - int(fields[2])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kill_all(pids: Collection[int], root: int) -> None:
    """Kill processes, those that are still below another one."""
    for pid in pids:
        with suppress(OSError):
            handle = os.pidfd_open(pid)  # from here on it is this process, whatever becomes of its number
            try:
                if pid in descendants(root):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
