"""The walls around one worker: namespaces of its own, a private folder, no capabilities, limits, a filter of system calls.

Runs inside the box, in processes forked from its parent, before they run anything else. Stdlib only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import stat
import struct
from typing import Any

__all__ = [
    "FILES",
    "PROXY_PORT",
    "TCP_BYTES",
    "become_unprivileged",
    "close_others",
    "drop_everything",
    "furnish",
    "keep_connections_small",
    "limit",
    "listen",
    "load_filter",
    "offer_to_be_killed",
    "unshare",
]

# Where a session's files are, and where its disk is mounted.
FILES = "/session/files"
_DISK = "/session"

PROXY_PORT = 3128

# What a TCP connection may hold at most in each direction.
TCP_BYTES = 256 * 1024

_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = (
    4,
    24,
    22,
    28,
    38,
)
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_MODE_FILTER = 2
_NO_ROOT_AND_LOCKED = 0b111111  # noroot, no setuid fixup, keep caps off, and each of them locked
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, *arguments: int) -> None:
    _call("prctl", option, *(ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]))


def become_unprivileged(user: int) -> None:
    """Change from root to a user of the host that has nothing, for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def unshare() -> None:
    """Leave for user, mount, pid, network, ipc, uts and cgroup namespaces of one's own; the next fork is process 1 there."""
    user, group = os.getuid(), os.getgid()
    _prctl(_PR_SET_DUMPABLE, 1)  # whoever has changed its user owns nothing of itself in /proc
    _call("unshare", _NEW_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib is not loaded here
            file.write(text)
    _call("sethostname", b"sandbox", 7)


def offer_to_be_killed() -> None:
    """Let the kernel end this, and all that is started from here, before anything else once memory is short."""
    with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - as above
        file.write("1000")


def keep_connections_small() -> None:
    """Let what the kernel keeps for a TCP connection be little: it counts to no process."""
    for name in ("tcp_rmem", "tcp_wmem"):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as file:  # noqa: PTH123 - as above
            file.write(f"4096 {TCP_BYTES // 4} {TCP_BYTES}")


def furnish(disk_bytes: int, files: int) -> None:
    """Give it a disk of its own, with folder, /tmp and /dev/shm on it, and take /proc away.

    Args:
        disk_bytes: the size of the disk.
        files: how many files and folders it may hold.
    """
    flags = _MS_NOSUID | _MS_NODEV
    # The three folders and the root count as files too.
    _mount("tmpfs", _DISK, "tmpfs", flags, f"size={disk_bytes},nr_inodes={files + 4},mode=700")
    for name, place in (("tmp", "/tmp"), ("shm", "/dev/shm"), ("files", "")):  # noqa: S108 - that is its name in there
        os.mkdir(f"{_DISK}/{name}", 0o700)  # noqa: PTH102 - as above
        if place:
            _mount(f"{_DISK}/{name}", place, None, _MS_BIND, None)
    # Says nothing of what is written to a device, but of its own times and attributes, which are the host's.
    for name in os.listdir("/dev"):  # noqa: PTH208 - as above
        device = f"/dev/{name}"
        if stat.S_ISCHR(os.lstat(device).st_mode):
            kept = os.statvfs(device).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
            _mount("none", device, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept, None)
    # Shows what belongs to the parent and the other workers, and lets writes to settings be tried.
    _mount("tmpfs", "/proc", "tmpfs", flags | _MS_NOEXEC | _MS_RDONLY, "size=4k,nr_inodes=1,mode=555")
    os.chdir(FILES)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    _call(
        "mount",
        source.encode(),
        target.encode(),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        None if options is None else options.encode(),
    )


def listen() -> socket.socket:
    """Bring the loopback device up and listen where the way out is looked for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", PROXY_PORT))
    listening.listen(16)
    return listening


def drop_everything() -> None:
    """Give up every capability, now and for all that is started; nothing can be gained again."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_SECUREBITS, _NO_ROOT_AND_LOCKED)
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # past the last one that this kernel knows
            break
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))
    # Nobody reads its memory or attaches to it, and it belongs to nobody in /proc.
    _prctl(_PR_SET_DUMPABLE, 0)


def limit(limits: dict[str, Any], taken: int) -> None:
    """Set what the kernel keeps to for a process and all that it starts.

    Args:
        limits: the fields of `SandboxLimits`.
        taken: bytes of address space that are taken already, by what the parent has loaded.
    """
    for name, wanted in (
        ("AS", taken + limits["memory_bytes"]),
        ("FSIZE", limits["file_bytes"]),
        ("NPROC", limits["processes"] + 2),  # beside process 1 and the interpreter
        ("NOFILE", 256),
        ("CORE", 0),
        ("MEMLOCK", 65536),
        ("MSGQUEUE", 0),
        ("SIGPENDING", 256),
        ("STACK", 8 * 1024 * 1024),
        ("NICE", 0),
        ("RTPRIO", 0),
    ):
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (value, value))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load_filter(program: bytes) -> None:
    """Let the kernel refuse every system call that a program does not allow, here and in all that is started.

    Args:
        program: instructions, eight bytes each.
    """
    filled = _Program(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def close_others(kept: tuple[int, ...]) -> None:
    """Close every file but some, and the three standard ones."""
    low = 3
    for descriptor in sorted(kept):
        if descriptor >= low:
            os.closerange(low, descriptor)
            low = descriptor + 1
    os.closerange(low, max(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
