"""Limits that the kernel keeps for a group of processes together: memory, how many they are, and processor time."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Cgroup", "Cgroups", "find_cgroups"]

Controller = Literal["memory", "pids", "cpuacct"]

# Whose it is: the namespace that its process id counts in, the id, when that process started, and a number.
_NAME = re.compile(r"gossamer-(\d+)-(\d+)-(\d+)-\d+")
_CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpuacct")
_PROC = Path("/proc")
_TRIED = 64 * 1024 * 1024
_numbers = count(1)


class _Files(NamedTuple):
    memory: str
    swap: str
    events: str


_FILES = {
    1: _Files("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
    2: _Files("memory.max", "memory.swap.max", "memory.events"),
}


class Cgroup:
    """Some processes and what they may use together. Nothing here raises: what is gone has used nothing.

    Made by `Cgroups.make`. Each call takes the time of some system calls; `add` may take milliseconds, as the kernel
    waits for other processors.

    Attributes:
        version: of the kernel's interface, 1 or 2.
        folders: where it is, for each controller.
    """

    __slots__ = ("folders", "version")

    def __init__(self, version: Literal[1, 2], folders: Mapping[Controller, Path]) -> None:
        self.version: Literal[1, 2] = version
        self.folders = folders

    def add(self, pid: int) -> bool:
        """Put a process into it; what it starts from then on is in it too.

        What it had in memory before is not counted.

        Args:
            pid: its id, as this process sees it.

        Returns:
            Whether it is in it as a whole. It is not where there is no such process.
        """
        if pid <= 0:
            return False  # 0 would be this process itself
        try:
            for folder in _each(self.folders):
                _write(folder / "cgroup.procs", pid)
        except OSError:
            return False
        return True

    def cpu_seconds(self) -> float | None:
        """Give the processor time of all that ran in it, in seconds; None where nobody counts it."""
        folder = self.folders.get("cpuacct")
        if folder is None:
            return None
        if self.version == 1:
            return float(_read(folder / "cpuacct.usage") or 0) / 1e9
        return _number(folder / "cpu.stat", "usage_usec") / 1e6

    def memory_exceeded(self) -> bool:
        """Tell whether the kernel has ended a process in it because memory was at the limit."""
        return _number(self.folders["memory"] / _FILES[self.version].events, "oom_kill") > 0

    def kill(self) -> bool:
        """End all processes in it at once, also those that are being made.

        Returns:
            Whether this kernel can do that. It cannot with cgroups of version 1, nor before Linux 5.14.
        """
        file = self.folders["memory"] / "cgroup.kill"
        if not file.exists():
            return False
        with suppress(OSError):
            _write(file, 1)
        return True

    def remove(self) -> bool:
        """Take it away.

        Returns:
            Whether it is gone. While processes are in it, it is not; then call again, or leave it to `find_cgroups`, which
            takes away what processes left that are gone.
        """
        for folder in _each(self.folders):
            with suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in _each(self.folders))


class Cgroups:
    """Where cgroups can be made. `find_cgroups` finds it.

    Attributes:
        version: of the kernel's interface, 1 or 2.
        parents: the folders in which those of each controller are made.
        missing: what cannot be had here, in words, each with what to do.
    """

    __slots__ = ("missing", "parents", "version")

    def __init__(
        self, version: Literal[1, 2], parents: Mapping[Controller, Path], missing: Iterable[str] = ()
    ) -> None:
        self.version: Literal[1, 2] = version
        self.parents = parents
        self.missing = tuple(missing)

    def make(self, memory_bytes: int, processes: int) -> Cgroup | None:
        """Make one.

        Args:
            memory_bytes: what the processes in it may have of memory together; files in a tmpfs, what the kernel keeps for
                them and what is swapped out count, where it can be counted.
            processes: how many processes and threads there may be at once.

        Returns:
            A new one, or None where the kernel refuses, as when there are too many.
        """
        try:
            return _made(self.version, self.parents, memory_bytes, processes)
        except OSError:
            return None


def find_cgroups() -> Cgroups | str:
    """Find out whether this process can make cgroups with limits, and take away what dead ones left.

    They are made below this process's own cgroup, so that what limits it limits its sandboxes too. Version 2 lets a group
    that has processes hand out no limits; then the next one above that this process may write to is taken. Version 1 is
    used where it has the memory controller, as the kernel gives a controller to one of the two.

    One is made, limited and taken away again, to see that it can be. It takes a few milliseconds.

    Limits of version 1 were tried on Linux 6.18. Of version 2 only what needs no controller was: adding, ending, counting
    time and taking away; its limits were tried on files that only look like it.

    Returns:
        Where they can be made, or why not and what to do, in words.
    """
    try:
        mounts = [*_mounts((_PROC / "self/mountinfo").read_text())]
        own = dict(_own((_PROC / "self/cgroup").read_text()))
    except OSError as error:
        return f"/proc cannot be read ({error}), which tells of cgroups; mount it"
    version_1: dict[Controller, Path] = {
        controller: _folder(mount, root, own.get(controller, root))
        for controllers, root, mount in mounts
        for controller in controllers
    }
    if "memory" in version_1:
        return _found_1(version_1)
    for controllers, root, mount in mounts:
        if not controllers:
            return _found_2(mount, _folder(mount, root, own.get("", root)))
    return "no cgroups are mounted that limit memory; mount -t cgroup2 none /sys/fs/cgroup"


def _found_1(folders: Mapping[Controller, Path]) -> Cgroups | str:
    missing: list[str] = []
    if "pids" not in folders:
        return (
            "the pids controller of cgroups is not mounted; mount -t cgroup -o pids none /sys/fs/cgroup/pids"
        )
    if not os.access(folders.get("cpuacct", ""), os.W_OK):
        folders = {controller: folder for controller, folder in folders.items() if controller != "cpuacct"}
        missing.append("processor time is not counted: the cpuacct controller is not there; mount it")
    return _tried(1, folders, missing)


def _found_2(mount: Path, own: Path) -> Cgroups | str:
    wanted = {"memory", "pids"}
    why = f"none above {own} hands out limits of memory and of processes"
    for folder in (own, *own.parents):
        if not folder.is_relative_to(mount):
            break
        if not wanted <= {*_read(folder / "cgroup.controllers").split()}:
            continue
        # To move a process somewhere one must be allowed to write where both ways meet.
        if not os.access(folder, os.W_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
            why = f"this user may not write to {folder}"
            continue
        try:
            if not wanted <= {*_read(folder / "cgroup.subtree_control").split()}:
                _write(folder / "cgroup.subtree_control", "+memory +pids")
        except OSError as error:
            why = f"{folder} hands out no limits: {error.strerror}"
            continue
        return _tried(2, {"memory": folder, "pids": folder, "cpuacct": folder}, [])
    return f"no cgroups with limits can be made: {why}; start it with systemd-run --user --scope, or as root"


def _tried(version: Literal[1, 2], parents: Mapping[Controller, Path], missing: list[str]) -> Cgroups | str:
    """Make one and take it away, to see whether it works."""
    for parent in _each(parents):
        _clean(parent)
    try:
        made = _made(version, parents, _TRIED, 8)
    except OSError as error:
        return (
            f"no cgroups can be made in {error.filename}: {error.strerror}; run as root, or have it delegated"
        )
    swap_is_counted = (made.folders["memory"] / _FILES[version].swap).exists()
    made.remove()
    if not swap_is_counted and len(_read(_PROC / "swaps").splitlines()) > 1:
        missing.append("memory that is swapped out is not counted; boot with swapaccount=1, or swapoff -a")
    return Cgroups(version, parents, missing)


def _made(
    version: Literal[1, 2], parents: Mapping[Controller, Path], memory_bytes: int, processes: int
) -> Cgroup:
    """Make one, or raise an OSError and leave nothing behind."""
    name = f"gossamer-{_pid_namespace()}-{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"
    made = Cgroup(version, {controller: parent / name for controller, parent in parents.items()})
    memory, pids = made.folders["memory"], made.folders["pids"]
    try:
        for folder in _each(made.folders):
            folder.mkdir()
        _write(memory / _FILES[version].memory, memory_bytes)
        # Version 1 counts memory and swap together, version 2 swap by itself.
        if (memory / _FILES[version].swap).exists():
            _write(memory / _FILES[version].swap, memory_bytes if version == 1 else 0)
        _write(pids / "pids.max", processes)
    except OSError:
        made.remove()
        raise
    return made


def _clean(parent: Path) -> None:
    """Take away what processes made that are gone now; what still has processes in it stays."""
    namespace = _pid_namespace()
    with suppress(OSError):
        for folder in parent.iterdir():
            name = _NAME.fullmatch(folder.name)
            # Processes of another namespace cannot be seen from here, so they may live.
            if name and name[1] == namespace and _started(int(name[2])) != name[3]:
                with suppress(OSError):
                    folder.rmdir()


def _mounts(text: str) -> Iterator[tuple[tuple[Controller, ...], Path, Path]]:
    """Give what is mounted: controllers of version 1, or none for version 2, what of the tree, and where."""
    for line in text.splitlines():
        fields, _, more = line.partition(" - ")
        kind, _, options = (*more.split(" "), "", "")[:3]
        root, mount = (
            re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), one) for one in fields.split(" ")[3:5]
        )
        controllers: tuple[Controller, ...] = tuple(one for one in _CONTROLLERS if one in options.split(","))
        if kind == "cgroup2":
            yield (), Path(root), Path(mount)
        elif kind == "cgroup" and controllers:
            yield controllers, Path(root), Path(mount)


def _own(text: str) -> Iterator[tuple[str, Path]]:
    """Give this process's own cgroup for each controller, and for version 2 under an empty name."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, Path(path)


def _folder(mount: Path, root: Path, path: Path) -> Path:
    """Tell where a cgroup is in the file system; where it is not to be seen, what can be seen stands for it."""
    if ".." in path.parts or not path.is_relative_to(root):
        return mount
    return mount / path.relative_to(root)


def _each(folders: Mapping[Controller, Path]) -> Iterable[Path]:
    """Give folders, each once: several controllers may be in one."""
    return dict.fromkeys(folders.values())


def _pid_namespace() -> str:
    return str((_PROC / "self/ns/pid").stat().st_ino)


def _started(pid: int) -> str | None:
    """Tell when a process started, in ticks since the machine did; None where there is none."""
    stat = _read(_PROC / str(pid) / "stat")
    # The command's name stands in brackets and may hold anything.
    return stat.rpartition(")")[2].split()[19] if stat else None


def _number(file: Path, key: str) -> int:
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _write(file: Path, value: int | str) -> None:
    file.write_text(f"{value}\n")
