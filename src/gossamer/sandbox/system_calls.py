"""What code in the box may ask of the kernel: an allow-list of system calls, as a program for seccomp."""

from __future__ import annotations

import errno
import os
import platform
from functools import cache
from typing import TYPE_CHECKING

from gossamer.errors import SandboxUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from pyseccomp import Arg  # pyright: ignore[reportMissingTypeStubs] - its annotations stand in it

__all__ = ["filter_program"]

# In the spirit of what container engines allow a process without any capability, and narrower in three ways. Memory
# that no rlimit counts stays out: memfd_create, shared memory and messages of System V, message queues, libaio, memory
# that is shared and of no file, rules of landlock. So does what only an attacker needs in Python: io_uring, vmsplice,
# seccomp itself. What would wake a process that has been stopped stays out too, but for kill: signals of timers, of files
# and of children that end. So does inotify, of which a user of the host has few. And ioctl, prctl and fcntl have lists
# of their own.
# A name that an architecture lacks, or that libseccomp does not know yet, is passed over: it is not allowed then.
_FILES = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fdatasync fgetxattr flistxattr flock fremovexattr
    fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat lchown lgetxattr link linkat listxattr listxattrat llistxattr
    lremovexattr lseek lsetxattr lstat mkdir mkdirat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat
    renameat2 rmdir sendfile setxattr setxattrat splice stat statfs statx symlink symlinkat sync_file_range tee truncate
    umask unlink unlinkat utime utimensat utimes write writev
"""
_MEMORY = """
    brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mprotect mremap mseal msync munlock
    munlockall munmap pkey_alloc pkey_free pkey_mprotect
"""
_PROCESSES = """
    alarm arch_prctl capget execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv futex_wake
    get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid getppid
    getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill
    pause pidfd_open pidfd_send_signal prlimit64
    restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups
    setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo
    tgkill times tkill uname vfork wait4 waitid
"""
_TIME = """
    clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time timerfd_create timerfd_gettime timerfd_settime
"""
_WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 getrandom poll ppoll
    pselect6 select signalfd signalfd4
"""
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto shutdown
"""

_ALLOWED = (_FILES, _MEMORY, _PROCESSES, _TIME, _WAITING, _SOCKETS)

# Numbers of Linux that the standard library does not name on every platform; equal on x86_64 and aarch64.
_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_END_SIGNAL, _END_SIGNALS = (
    0xFF,
    (0, 17),
)  # what a parent is sent when a child ends: nothing as of a thread, or SIGCHLD
# MAP_TYPE | MAP_ANONYMOUS | MAP_HUGETLB, and of these: shared or private pages of a file, private memory.
_MAPPING, _MAPPINGS = 0x4002F, (0x01, 0x02, 0x03, 0x22)
_UNIX, _INET, _INET6 = 1, 2, 10
_STREAM, _TYPE = 1, 0xF  # SOCK_STREAM, and the bits of a type beside its flags
_TCP = (0, 6)
_FILE_TYPE = 0o170000
_NODES = (0, 0o100000, 0o010000, 0o140000)  # regular files, said in two ways, pipes and sockets; no devices
_PERSONALITIES = (0, 0xFFFFFFFF)  # Linux's own, and asking for it
_WORD = 0xFFFFFFFF  # what the kernel reads of an `unsigned int`; the rest of the register is no matter

# Not there: TIOCSTI types into a terminal, TIOCLINUX pastes into one, those of sockets and devices reach drivers.
_IOCTLS = (
    *(0x5421, 0x5450, 0x5451, 0x541B, 0x5452),  # FIONBIO, FIONCLEX, FIOCLEX, FIONREAD, FIOASYNC
    *(0x5401, 0x5402, 0x5403, 0x5404),  # TCGETS, TCSETS, TCSETSW, TCSETSF
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # the same in their newer form
    *(0x5409, 0x540A, 0x540B),  # TCSBRK, TCXONC, TCFLSH
    *(0x5413, 0x5414),  # TIOCGWINSZ, TIOCSWINSZ
    *(0x540E, 0x540F, 0x5410, 0x5422, 0x5429),  # TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCNOTTY, TIOCGSID
    *(0x80045430, 0x40045431, 0x5441),  # TIOCGPTN, TIOCSPTLCK, TIOCGPTPEER: opening a pseudo terminal
    *(0x40049409, 0x4020940D),  # FICLONE, FICLONERANGE: cp
)
_PRCTLS = (
    *(1, 2, 3),  # PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE
    *(15, 16, 21, 23),  # PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ
    *(29, 30, 36, 37),  # PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
    *(38, 39, 40),  # PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS
    *(41, 42, 51, 56),  # PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_SVE_GET_VL, PR_GET_TAGGED_ADDR_CTRL
    *(0x53564D41, 0x41555856),  # PR_SET_VMA: names of memory; PR_GET_AUXV
)

_FCNTLS = (
    *(0, 1030, 1, 2, 3, 4),  # F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    *(5, 6, 7, 36, 37, 38),  # F_GETLK, F_SETLK, F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
    *(8, 9, 11),  # F_SETOWN, F_GETOWN, F_GETSIG
    *(1027, 1031, 1032, 1033, 1034),  # F_DUPFD_QUERY, F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS
)
# Of SOL_SOCKET: not SO_SNDBUF and SO_RCVBUF, which make memory of the kernel's, nor filters.
_SOCKET_LEVEL, _OTHER_LEVELS = 1, (0, 6, 41)  # SOL_SOCKET; SOL_IP, SOL_TCP, SOL_IPV6
_SOCKET_OPTIONS = (*range(1, 7), 9, 10, 13, *range(15, 22), 29, 30, *range(63, 68))

# Programs that find these missing do without them.
_MISSING = {
    b"clone3",
    b"landlock_add_rule",
    b"landlock_create_ruleset",
    b"landlock_restrict_self",
    b"timer_create",
}
_HIGHEST = 1024  # no kernel counts that far; at the time of writing they are at about 470


@cache
def filter_program(*, network: bool) -> bytes:
    """Make the program that decides, for every system call of a process, whether the kernel answers it.

    What is not allowed fails with EPERM. What libseccomp does not know by number, being newer, fails with ENOSYS, as on
    an older kernel, so that libraries fall back to what is older; so do `clone3`, whose flags lie in memory, where no
    filter can look, landlock and timers that send signals. Calls of another architecture or ABI (32 bit, x32) fail with ENOSYS too. Processes may be made, but
    no namespaces. Sockets are those of AF_UNIX, and pairs of them.

    The program is to be loaded by the only thread of a process, after PR_SET_NO_NEW_PRIVS, with
    `prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, …)`; threads and processes that follow inherit it, and it lets no other
    one be loaded.

    The first call loads libseccomp, for which the standard library starts `ldconfig`; it takes some 30 ms and belongs
    into a thread.

    Args:
        network: also allow stream sockets of AF_INET and AF_INET6. Where they lead is for the network namespace to say.

    Returns:
        The array of `struct sock_filter`, 8 bytes each, for the architecture of this process.

    Raises:
        SandboxUnavailableError: pyseccomp or libseccomp is not there, or the architecture is neither x86_64 nor aarch64.
    """
    library = _libseccomp()
    try:
        return _program(library, _rules(library, network=network))
    except OSError as error:
        raise SandboxUnavailableError(
            f"libseccomp makes no filter ({error}), and nothing runs without one; update it to 2.5 or newer"
        ) from error


def _program(library: ModuleType, rules: Mapping[str, Sequence[tuple[Arg, ...]]]) -> bytes:
    made = library.SyscallFilter(library.ERRNO(errno.EPERM))
    made.set_attr(library.Attr.ACT_BADARCH, library.ERRNO(errno.ENOSYS))
    # A binary tree, for kernels that keep no table of what is allowed.
    made.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    for name, alternatives in rules.items():
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        for conditions in alternatives if number >= 0 else ():
            made.add_rule_exactly(library.ALLOW, number, *conditions)
    for number in _not_there(library):
        made.add_rule_exactly(library.ERRNO(errno.ENOSYS), number)
    # libseccomp writes to a file of the system and to nothing else.
    with open(os.memfd_create("seccomp"), "w+b") as file:  # noqa: PTH123 - it has no path
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _libseccomp() -> ModuleType:
    try:
        import pyseccomp  # pyright: ignore[reportMissingTypeStubs] - its annotations stand in it
    except ImportError as error:
        raise SandboxUnavailableError(
            f"pyseccomp cannot be imported ({error}), and nothing runs without a seccomp filter; "
            "pip install 'gossamer[sandbox]'"
        ) from error
    except (OSError, RuntimeError) as error:
        raise SandboxUnavailableError(
            f"libseccomp cannot be loaded ({error}), and nothing runs without a seccomp filter; "
            "install it: apt install libseccomp2, or dnf install libseccomp"
        ) from error
    if pyseccomp.system_arch() not in {pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64}:
        raise SandboxUnavailableError(
            f"there is a seccomp filter for x86_64 and aarch64, and none for this Python on {platform.machine()}; "
            "run it on one of these, as a 64-bit program"
        )
    return pyseccomp


def _rules(library: ModuleType, *, network: bool) -> Mapping[str, Sequence[tuple[Arg, ...]]]:
    """Give what is allowed: for each name alternatives, each of them conditions that must all hold."""
    arg, equal, masked = library.Arg, library.EQ, library.MASKED_EQ

    def of(index: int, values: Iterable[int], mask: int = _WORD) -> list[tuple[Arg, ...]]:
        return [(arg(index, masked, mask, value),) for value in values]

    sockets = [(arg(0, equal, _UNIX),)]
    if network:
        sockets += [
            (arg(0, equal, family), arg(1, masked, _TYPE, _STREAM), arg(2, equal, protocol))
            for family in (_INET, _INET6)
            for protocol in _TCP
        ]
    everywhere = (name for area in _ALLOWED for name in area.split())
    return {
        **dict.fromkeys(everywhere, ((),)),
        "clone": of(0, _END_SIGNALS, _NAMESPACES | _END_SIGNAL),
        "fcntl": of(1, _FCNTLS),
        "mmap": of(3, _MAPPINGS, _MAPPING),
        "setsockopt": [
            *of(1, _OTHER_LEVELS),
            *((*level, *option) for level in of(1, (_SOCKET_LEVEL,)) for option in of(2, _SOCKET_OPTIONS)),
        ],
        "socket": sockets,
        "socketpair": [(arg(0, equal, _UNIX),)],
        "ioctl": of(1, _IOCTLS),
        "prctl": of(0, _PRCTLS),
        "personality": of(0, _PERSONALITIES),
        "mknod": of(1, _NODES, _FILE_TYPE),
        "mknodat": of(2, _NODES, _FILE_TYPE),
    }


def _not_there(library: ModuleType) -> Iterator[int]:
    """Give the numbers of what this library is too old to know, and of what must not be found."""
    for number in range(_HIGHEST):
        try:
            name = library.resolve_syscall(library.Arch.NATIVE, number)
        except ValueError:
            yield number
        else:
            if name in _MISSING:
                yield number
