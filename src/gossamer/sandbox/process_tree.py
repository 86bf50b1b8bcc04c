"""The processes of a worker as the host sees them: which there are, and what they use. Linux, out of /proc."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_seconds", "descendants", "has_ended", "kill_all", "takes_more"]

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


def takes_more(pids: Collection[int], most: int) -> bool:
    """Tell whether processes together have more than so many bytes of memory, that of their files left out.

    What they share with others counts by its share. That costs a walk through their pages, so it is asked only where
    it matters.
    """
    if (
        sum(_lines(pid, "status", ("RssAnon", "RssShmem")) for pid in pids) <= most
    ):  # what is shared counts for each
        return False
    return sum(_lines(pid, "smaps_rollup", ("Pss_Anon", "Pss_Shmem")) for pid in pids) > most


def _lines(pid: int, name: str, wanted: Collection[str]) -> int:
    """Add up lines of a file in /proc that are in kB; in bytes."""
    total = 0
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/{name}").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key in wanted:
                total += int(value.split()[0]) * 1024
    return total


def kill_all(pids: Collection[int], root: int, handle: int) -> list[int]:
    """Kill processes, those that are still below another one.

    Args:
        pids: the processes.
        root: the one that they are below of.
        handle: a pidfd of that one: once it has ended, its number says nothing.

    Returns:
        A pidfd of each one that was killed, for the caller to close.
    """
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = os.pidfd_open(pid)  # from here on it is this process, whatever becomes of its number
    below = set(descendants(root))
    if has_ended(handle):
        below.clear()
    killed: list[int] = []
    for pid, one in found.items():
        if pid not in below:
            os.close(one)
            continue
        killed.append(one)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(one, signal.SIGKILL)
    return killed


def has_ended(handle: int) -> bool:
    """Tell whether the process of a pidfd has ended, of the kernel's own knowledge."""
    poll = select.poll()  # select itself knows no numbers above 1024
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))
