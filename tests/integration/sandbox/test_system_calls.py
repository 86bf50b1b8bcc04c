"""The filter of system calls, in a process that loads it: what is refused, and what must go on to work."""

from __future__ import annotations

import platform
import subprocess
import sys

import pyseccomp
import pytest
from tests.integration.sandbox.filtered import run_filtered

from gossamer.sandbox.system_calls import filter_program

FORBIDDEN = """
    inotify_add_watch inotify_init inotify_init1
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig fsmount
    fsopen fspick get_mempolicy init_module io_setup io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
    kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_create memfd_secret migrate_pages modify_ldt mount
    mount_setattr move_mount move_pages mq_open msgget name_to_handle_at open_by_handle_at open_tree perf_event_open
    pidfd_getfd pivot_root process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd
    reboot remap_file_pages request_key seccomp semget set_mempolicy setdomainname sethostname setns settimeofday shmat
    shmget swapoff swapon sync syncfs syslog umount2 unshare uselib userfaultfd vhangup vmsplice
"""

NAMESPACES = {
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def number_of(name):
    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)


def answers(*calls, network=False):
    """Make several calls behind one filter; what cannot be there on this architecture is left out."""
    return run_filtered(f"result = [call(*one) for one in {list(calls)!r}]", network=network)


@pytest.mark.parametrize("network", [False, True])
def test_what_nobody_needs_is_refused(network) -> None:
    # Numbers of another architecture are below 0; there are a few, and not many.
    here = [name for name in FORBIDDEN.split() if number_of(name) >= 0]
    assert len(here) > 70
    # Nonsense for arguments: the kernel itself would say EFAULT, EBADF or EINVAL.
    found = answers(*((number_of(name), *[-1] * 6) for name in here), network=network)
    assert dict(zip(here, found, strict=True)) == dict.fromkeys(here, "EPERM")


def test_processes_are_made_without_namespaces() -> None:
    clone, child = number_of("clone"), 17
    found = answers(*((clone, flag | child, 0, 0, 0, 0) for flag in NAMESPACES.values()))
    assert found == ["EPERM"] * len(NAMESPACES)


def test_what_a_filter_cannot_look_into_and_what_is_too_new_is_not_there() -> None:
    assert answers((number_of("clone3"), -1, 0), (999,)) == ["ENOSYS", "ENOSYS"]


def test_sockets_are_local_ones() -> None:
    kinds = [(family, kind) for family in range(46) for kind in (1, 2, 3)]
    found = dict(zip(kinds, answers(*((number_of("socket"), *kind, 0) for kind in kinds)), strict=True))
    assert {kind for kind, answer in found.items() if answer != "EPERM"} == {(1, 1), (1, 2), (1, 3)}


def test_with_a_network_sockets_are_streams_too() -> None:
    kinds = [
        (family, kind, protocol)
        for family in range(46)
        for kind in (1, 2, 3, 5, 1 | 0o2000000, 2 | 0o4000)
        for protocol in (0, 1, 6, 132, 256, 262)
    ]
    calls = [(number_of("socket"), *kind) for kind in kinds]
    found = dict(zip(kinds, answers(*calls, network=True), strict=True))
    assert {kind for kind, answer in found.items() if answer != "EPERM" and kind[0] != 1} == {
        (family, kind, protocol) for family in (2, 10) for kind in (1, 1 | 0o2000000) for protocol in (0, 6)
    }


def test_pairs_of_sockets_are_local_ones_whatever_the_network() -> None:
    pairs = [(family, kind) for family in range(46) for kind in (1, 2)]
    calls = [(number_of("socketpair"), *pair, 0, 0) for pair in pairs]
    found = dict(zip(pairs, answers(*calls, network=True), strict=True))
    assert {pair for pair, answer in found.items() if answer != "EPERM"} == {(1, 1), (1, 2)}


def test_bits_that_the_kernel_does_not_read_open_nothing() -> None:
    high = 1 << 32
    found = answers(
        (number_of("socket"), high | 2, 1, 0),
        (number_of("ioctl"), 0, high | 0x5412, 0),
        (number_of("ioctl"), 0, -(1 << 32) | 0x541C, 0),
        (number_of("prctl"), high | 22, 2, 0, 0, 0),
        (number_of("personality"), high | 0x40000),
        (number_of("clone"), high | NAMESPACES["user"] | 17, 0, 0, 0, 0),
        network=False,
    )
    assert found == ["EPERM"] * 6


def test_nothing_makes_memory_that_counts_to_nobody() -> None:
    """Pages that are shared and of no file stay when all but one are unmapped, and no limit of a process sees them."""
    length, both = 1 << 20, 3  # PROT_READ | PROT_WRITE
    kinds = {"shared": 0x21, "huge": 0x40022, "droppable": 0x28, "shared with more": 1 << 32 | 0x8021}
    calls = [(number_of("mmap"), 0, length, both, flags, -1, 0) for flags in (*kinds.values(), 0x22)]
    found = answers(*calls)
    assert found[:-1] == ["EPERM"] * len(kinds)
    assert isinstance(found[-1], int)
    options = [(1, 7), (1, 8), (1, 32), (1, 33), (1, 26), (1 << 32 | 1, 7), (1, 1 << 32 | 7), (1, 2), (6, 1)]
    found = answers(*((number_of("setsockopt"), -1, *one, 0, 0) for one in options))
    assert found == ["EPERM"] * 7 + ["EBADF"] * 2


def test_nothing_but_kill_wakes_a_process_that_is_stopped() -> None:
    stopping, waking = 19, 18  # SIGSTOP, SIGCONT
    found = answers(
        (number_of("clone"), waking, 0, 0, 0, 0),
        (number_of("clone"), 1 << 32 | waking, 0, 0, 0, 0),
        (number_of("clone"), stopping, 0, 0, 0, 0),
        (number_of("fcntl"), 0, 10, waking),  # F_SETSIG
        (number_of("fcntl"), 0, 1 << 32 | 10, waking),
        (number_of("fcntl"), 0, 1024, 0),  # F_SETLEASE
        (number_of("fcntl"), 0, 1026, 0),  # F_NOTIFY
        (number_of("timer_create"), 0, 0, 0),
    )
    assert found == ["EPERM"] * 7 + ["ENOSYS"]


def test_nothing_is_typed_into_a_terminal() -> None:
    code = """
import fcntl, os, pty, termios, tty
master, slave = pty.openpty()
tty.setraw(slave)
os.set_blocking(master, False)
def typed(request):
    try:
        fcntl.ioctl(slave, request, b"x" * 64)
    except OSError as error:
        return errno.errorcode[error.errno]
result = [typed(termios.TIOCSTI), typed(0x541C), typed(termios.TIOCGWINSZ), os.isatty(slave), len(os.ttyname(slave)) > 0]
"""
    assert run_filtered(code) == ["EPERM", "EPERM", None, True, True]


def test_the_filter_cannot_be_followed_by_another() -> None:
    assert (
        answers((number_of("prctl"), 22, 2, 0, 0, 0), (number_of("prctl"), 22, 1, 0, 0, 0)) == ["EPERM"] * 2
    )


def test_the_layout_of_memory_stays_random() -> None:
    now, fixed = (number_of("personality"), 0xFFFFFFFF), (number_of("personality"), 0x0040000)
    assert answers(fixed, now) == ["EPERM", 0]


def test_nodes_of_devices_are_not_made(tmp_path) -> None:
    code = f"""
import os, stat
os.chdir({str(tmp_path)!r})
def made(name, kind):
    try:
        os.mknod(name, kind | 0o600, os.makedev(1, 3))
    except OSError as error:
        return errno.errorcode[error.errno]
    return stat.S_IFMT(os.lstat(name).st_mode) == kind
result = [made("null", stat.S_IFCHR), made("disk", stat.S_IFBLK), made("file", stat.S_IFREG), made("pipe", stat.S_IFIFO)]
"""
    assert run_filtered(code) == ["EPERM", "EPERM", True, True]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about the other two ABIs of x86_64")
def test_calls_of_other_abis_are_not_there() -> None:
    code = """
import mmap, os
def other(code):
    "Run machine code in a process of its own: what it gave back, or the signal that ended it."
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        page = mmap.mmap(-1, 4096, flags=0x22, prot=7)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        os.write(writing, str(ctypes.CFUNCTYPE(ctypes.c_int)(address)()).encode())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else int(os.read(reading, 99))
getpid = b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3"  # mov eax, 20; int 0x80; ret
native = b"\\xb8\\x27\\0\\0\\0\\x0f\\x05\\xc3"  # mov eax, 39; syscall; ret
result = [other(native) > 0, other(getpid), call(0x40000000 + 39)]
"""
    # A kernel without the ABI of 32 bits ends such a process itself.
    native, old, x32 = run_filtered(code)
    assert native is True
    assert old in {-38, -11}
    assert x32 == "ENOSYS"


WORKS = {
    "threads": """
import threading
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    result = sum(pool.map(lambda n: n * n, range(100))) == 328350 and threading.active_count() > 1
""",
    "subprocess": """
import subprocess
result = subprocess.run(["sh", "-c", "echo $((40 + 2)) | cat"], capture_output=True, text=True).stdout == "42\\n"
""",
    "multiprocessing": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    result = pool.map(abs, [-1, -2, 3]) == [1, 2, 3]
""",
    "asyncio": """
import asyncio, socket, tempfile
async def main():
    async def echo(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
    with tempfile.TemporaryDirectory() as folder:
        async with await asyncio.start_unix_server(echo, folder + "/s"):
            reader, writer = await asyncio.open_unix_connection(folder + "/s")
            writer.write(b"hello\\n")
            answer = await reader.read()
            writer.close()
    child = await asyncio.create_subprocess_exec("echo", "there", stdout=-1)
    said = (await child.communicate())[0]
    return (answer, said, await asyncio.to_thread(sum, [1, 2])) == (b"HELLO\\n", b"there\\n", 3)
result = asyncio.run(main())
""",
    "uvloop": """
import asyncio, uvloop
async def main():
    child = await asyncio.create_subprocess_exec("echo", "there", stdout=-1)
    return (await child.communicate())[0] == b"there\\n"
result = uvloop.run(main())
""",
    "sockets": """
import socket
one, other = socket.socketpair()
one.settimeout(5)
one.sendall(b"ping")
result = other.recv(9) == b"ping" and one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == 1
""",
    "files": """
import fcntl, mmap, os, pathlib, shutil, subprocess, tempfile
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "a").mkdir()
    (folder / "a" / "x").write_text("text")
    (folder / "a" / "x").chmod(0o600)
    os.utime(folder / "a" / "x", (1, 2))
    os.symlink("x", folder / "a" / "l")
    os.link(folder / "a" / "x", folder / "a" / "h")
    shutil.copytree(folder / "a", folder / "b", symlinks=True)
    subprocess.run(["cp", "-a", name + "/b", name + "/c"], check=True)
    shutil.move(folder / "c", folder / "d")
    with open(folder / "d" / "x", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        mapped = mmap.mmap(file.fileno(), 0)
        mapped[0:1] = b"T"
        mapped.flush()
        os.fsync(file.fileno())
        os.truncate(file.fileno(), 3)
    listed = sorted(one.name for one in os.scandir(folder / "d"))
    result = (folder / "d" / "x").read_text() == "Tex" and listed == ["h", "l", "x"]
    shutil.rmtree(folder / "a")
""",
    "time and signals": """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, 0.01)
got = signal.sigwait([signal.SIGALRM])
time.sleep(0.001)
result = got == signal.SIGALRM and time.clock_gettime(time.CLOCK_BOOTTIME) > 0
""",
    "itself": """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.setpriority(os.PRIO_PROCESS, 0, 5)
result = len(os.urandom(8)) == 8 and os.getpriority(os.PRIO_PROCESS, 0) == 5 and os.uname().sysname == "Linux"
""",
    "sqlite": """
import sqlite3, tempfile
with tempfile.NamedTemporaryFile() as file:
    for place in (":memory:", file.name):
        base = sqlite3.connect(place)
        base.execute("pragma journal_mode = wal")
        base.execute("create table t (n)")
        base.executemany("insert into t values (?)", [(n,) for n in range(10)])
        base.commit()
        result = base.execute("select sum(n) from t").fetchone() == (45,)
        base.close()
""",
    "numpy": """
import numpy
one = numpy.ones((300, 300))
result = float((one @ one).sum()) == 300.0**3
""",
    "duckdb": """
import duckdb
result = duckdb.sql("select sum(range)::int from range(10)").fetchall() == [(45,)]
""",
    "matplotlib": """
import io, os, tempfile
with tempfile.TemporaryDirectory() as folder:
    os.environ["MPLCONFIGDIR"] = folder
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot
    pyplot.plot([1, 2, 3])
    out = io.BytesIO()
    pyplot.savefig(out, format="png")
    result = out.getvalue().startswith(b"\\x89PNG")
""",
}


@pytest.mark.parametrize("code", WORKS.values(), ids=WORKS)
def test_python_goes_on_to_work(code) -> None:
    assert run_filtered(code) is True


def test_streams_over_the_loopback_device_work_with_a_network() -> None:
    code = """
import asyncio, http.client, threading, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
async def by_asyncio():
    reader, writer = await asyncio.open_connection("localhost", server.server_port)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    return (await reader.read()).endswith(b"ok")
proxy = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{server.server_port}"})
answer = urllib.request.build_opener(proxy).open("http://nowhere.test/").read()
result = answer == b"ok" and asyncio.run(by_asyncio())
server.shutdown()
"""
    assert run_filtered(code, network=True) is True


def test_it_is_made_once() -> None:
    assert filter_program(network=False) is filter_program(network=False)
    assert filter_program(network=False) != filter_program(network=True)
    # The kernel takes 4,096 instructions of 8 bytes.
    assert 0 < len(filter_program(network=True)) // 8 <= 4096


MISSING = {
    "import sys; sys.modules['pyseccomp'] = None": "pip install 'gossamer[sandbox]'",
    "import ctypes.util; find = ctypes.util.find_library; "
    "ctypes.util.find_library = lambda name: None if name == 'seccomp' else find(name)": "apt install libseccomp2",
    "import pyseccomp; pyseccomp.system_arch = lambda: pyseccomp.Arch.X86": "for x86_64 and aarch64",
}


@pytest.mark.parametrize(("before", "says"), MISSING.items(), ids=["pyseccomp", "libseccomp", "architecture"])
def test_what_is_missing_is_said_and_nothing_is_made(before, says) -> None:
    code = f"""
{before}
from gossamer.errors import SandboxUnavailableError
from gossamer.sandbox.system_calls import filter_program
try:
    filter_program(network=False)
except SandboxUnavailableError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert says in done.stdout
