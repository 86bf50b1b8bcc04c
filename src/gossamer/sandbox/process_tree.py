"""The processes of a worker as the host sees them: which there are, and what they use. Linux, out of /proc."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from gossamer.sandbox.inside.walls import TCP_BYTES

__all__ = [
    "cpu_times",
    "descendants",
    "has_ended",
    "has_more",
    "kill_all",
    "may_have_more",
    "socket_bytes",
    "tells_children",
]

_PROC = "/proc"
_MOST = 10_000


def descendants(pid: int) -> list[int]:
    """Give the processes below one, children before grandchildren. O(them).

    One may be missing that its parent left behind meanwhile, but not all: of what begins others and ends there is always
    one to be seen.

    Raises:
        OSError: they cannot be seen, as too many files are open.
    """
    found: list[int] = []
    unseen = [pid]
    while unseen and len(found) < _MOST:
        parent = unseen.pop(0)
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            for task in Path(_PROC, str(parent), "task").iterdir():
                children = (task / "children").read_text().split()
                unseen += map(int, children)
                found += map(int, children)
    return found


def tells_children() -> bool:
    """Tell whether this kernel tells the children of a process."""
    return Path(_PROC, "thread-self/children").exists()


def cpu_times(pid: int) -> tuple[float, float, int]:
    """Give the processor time of a process, that of children that it has waited for, and when it started.

    The first two in seconds; all are 0 where it has ended.
    """
    with suppress(OSError, ValueError, IndexError):
        # The name in the second field may have anything in it, but ends at the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        own, waited_for = (sum(map(int, fields[at : at + 2])) / os.sysconf("SC_CLK_TCK") for at in (11, 13))
        return own, waited_for, int(fields[19])
    return 0.0, 0.0, 0


def may_have_more(pids: Collection[int], most: int) -> bool:
    """Tell whether processes could have more than so many bytes of memory together: what they share counts for each."""
    return sum(_memory(pid, "status", ("RssAnon", "RssShmem")) or 0 for pid in pids) > most


def has_more(pids: Collection[int], most: int) -> bool:
    """Tell whether processes together have more than so many bytes of memory, that of their files left out.

    What they share with others counts by its share. That costs a walk through their pages: some milliseconds for each
    100 MB of each process, so it belongs into a thread.
    """
    total = 0
    for pid in pids:
        shared = _memory(pid, "smaps_rollup", ("Pss_Anon", "Pss_Shmem"))
        total += (_memory(pid, "status", ("RssAnon", "RssShmem")) or 0) if shared is None else shared
    return total > most


def _memory(pid: int, name: str, wanted: Collection[str]) -> int | None:
    """Add up lines of a file in /proc that are in kB; in bytes, and None where they are not there."""
    with suppress(OSError):
        for folder in _folders(pid):
            with suppress(OSError, ValueError, IndexError):
                lines = Path(folder, name).read_text(errors="replace").splitlines()
                found = [line.split()[1] for line in lines if line.partition(":")[0] in wanted]
                if found:
                    return sum(map(int, found)) * 1024
    return None


def _folders(pid: int) -> Iterator[str]:
    """Give where something about a process can be read: where its first thread has ended, the others tell."""
    yield f"/proc/{pid}"
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield str(task)


def socket_bytes(pid: int) -> int:
    """Tell how many bytes the kernel may hold in the sockets of the network namespace of a process, at most.

    That is memory of no process, and there are more of them than are open: those in a queue, and in flight in others.
    """
    with suppress(OSError, ValueError, IndexError):
        used = Path(f"/proc/{pid}/net/sockstat").read_text().split()[2]
        return int(used) * _most_in_a_socket()
    return 0


@cache
def _most_in_a_socket() -> int:
    try:
        default = int(Path("/proc/sys/net/core/wmem_default").read_text())
    except (OSError, ValueError):
        default = 212_992  # what Linux has where nobody has set it
    return max(default * 4 // 3, TCP_BYTES * 2)  # the last piece may begin below it, and end above


def kill_all(pids: Collection[int], root: int, handle: int) -> dict[int, int]:
    """Kill processes, those that are still below another one.

    Args:
        pids: the processes.
        root: the one that they are below of.
        handle: a pidfd of that one: once it has ended, its number says nothing.

    Returns:
        A pidfd of each one that was killed, for the caller to close; by number.
    """
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = os.pidfd_open(pid)  # from here on it is this process, whatever becomes of its number
    below = set(descendants(root))
    if has_ended(handle):
        below.clear()
    killed: dict[int, int] = {}
    for pid, one in found.items():
        if pid not in below:
            os.close(one)
            continue
        killed[pid] = one
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(one, signal.SIGKILL)
    return killed


def has_ended(handle: int) -> bool:
    """Tell whether the process of a pidfd has ended, of the kernel's own knowledge."""
    poll = select.poll()  # select itself knows no numbers above 1024
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))
