"""The box: what bubblewrap is told, and how the parent of the workers is started in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gossamer.errors import SandboxUnavailableError
from gossamer.sandbox import inside
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.inside.walls import PROXY_PORT
from gossamer.sandbox.uncut import to_its_end

__all__ = ["Box", "BoxPlan", "bubblewrap_version", "find_bubblewrap", "open_box"]

# The user of the host that everything in the box belongs to where Gossamer itself is run by root.
_UNPRIVILEGED = 61_357

_HOME = "/opt/sandbox"
_PACKAGES = "/opt/packages"
_OPENING_SECONDS = 60.0
_MOST_WORDS = 4_000

# Not zero: what is mapped of it is memory that is shared and of no file, which nothing counts.
_DEVICES = ("null", "full", "random", "urandom")

# Nothing of the host's environment is in there.
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/session/files",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108 - its name in there
    # Each thread of these would count as a process, and reserve memory.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}

_PASSWD = b"sandbox:x:1000:1000:sandbox:/session/files:/bin/sh\n"

_START = (
    f"import sys, socket; sys.path.insert(0, {_HOME!r}); "
    "from gossamer.sandbox.inside.parent import main; main(socket.socket(fileno=int(sys.argv[1])))"
)


class BoxPlan(msgspec.Struct, frozen=True):
    """What a box holds.

    Attributes:
        limits: what a session may use.
        program: the filter of system calls.
        packages: what is bound into it, by name in site-packages.
        modules: what its parent loads ahead.
        network: whether there is a way out.
    """

    limits: SandboxLimits
    program: bytes
    packages: Mapping[str, Path]
    modules: tuple[str, ...]
    network: bool


def find_bubblewrap() -> str:
    """Find the program.

    Raises:
        SandboxUnavailableError: it is not there, or this system has no such thing.
    """
    if sys.platform != "linux":
        raise SandboxUnavailableError(
            f"BubblewrapSandbox needs Linux, and this is {sys.platform}; MontySandbox works here"
        )
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxUnavailableError(
            "BubblewrapSandbox needs the program bwrap: apt-get install bubblewrap, or your system's package of that name"
        )
    return program


def bubblewrap_version() -> str:
    """Ask the program for its name and version; blocks.

    Raises:
        SandboxUnavailableError: it is not there, or does not answer.
    """
    program = find_bubblewrap()
    try:
        told = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=True, env={})  # noqa: S603 - as found
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailableError(f"{program} --version failed: {error}; reinstall bubblewrap") from error
    return told.stdout.decode(errors="replace").strip()


class Box:
    """A box whose parent waits to be told to fork.

    Args:
        process: bubblewrap.
        control: to the parent; non-blocking.

    Raises:
        OSError: the process cannot be watched.
    """

    __slots__ = ("__weakref__", "_control", "_finalizer", "_process", "ended")

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        watch = os.pidfd_open(process.pid)
        self._process = process
        self._control = control
        self._finalizer = weakref.finalize(self, _kill, process, os.getpid())
        # Done when it has ended.
        self.ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(watch, _has_ended, loop, watch, process, self.ended)

    @property
    def pid(self) -> int:
        """The process of bubblewrap."""
        return self._process.pid

    def fork(self, files: Sequence[int]) -> None:
        """Tell the parent to fork a worker.

        Args:
            files: what it reads, what it writes, stdout, stderr and status.

        Raises:
            OSError: the parent is gone, or has more to do than it can take.
        """
        socket.send_fds(self._control, [b"fork"], list(files), socket.MSG_DONTWAIT)

    def kill(self) -> None:
        """Begin to end it, and every process in it; returns at once."""
        self._control.close()
        self._finalizer()

    async def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        self.kill()
        await asyncio.shield(self.ended)

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of it without ending it."""
        self._finalizer.detach()
        self._control.close()


def _kill(process: subprocess.Popen[bytes], owner: int) -> None:
    # As long as nobody has waited for it, its number is its group's. The group, as its child would wait for it for ever
    # where it ends between making that child and letting it begin.
    if os.getpid() == owner and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _has_ended(
    loop: asyncio.AbstractEventLoop, watch: int, process: subprocess.Popen[bytes], ended: asyncio.Future[None]
) -> None:
    loop.remove_reader(watch)
    os.close(watch)
    process.wait()  # it has, so it does not
    if not ended.done():
        ended.set_result(None)


async def open_box(plan: BoxPlan) -> Box:
    """Start a box, and wait until its parent is ready.

    Raises:
        SandboxUnavailableError: it cannot be had here; the message says why, and what to do.
        OSError: there are too many files open, or too many processes.
    """
    bubblewrap = find_bubblewrap()
    loop = asyncio.get_running_loop()
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setblocking(False)
    passwd, complaints = os.memfd_create("passwd"), os.memfd_create("complaints")
    box: Box | None = None
    try:
        os.write(passwd, _PASSWD)
        os.lseek(passwd, 0, os.SEEK_SET)
        start = (_python(), "-I", "-S", "-B", "-c", _START, str(theirs.fileno()))
        command = (bubblewrap, *_arguments(plan, passwd), "--", *start)
        box = await _started(control, command, (theirs.fileno(), passwd), complaints)
        theirs.close()
        failed = await _begun(loop, control, plan)
        if failed is not None:
            await box.close()
            words = os.pread(complaints, _MOST_WORDS, 0).decode(errors="replace").strip()
            raise SandboxUnavailableError(_why(failed, words))
    except BaseException:
        control.close()
        if box is not None:
            box.kill()
        raise
    else:
        return box
    finally:
        theirs.close()
        os.close(passwd)
        os.close(complaints)


async def _started(
    control: socket.socket, command: Sequence[str], files: tuple[int, int], complaints: int
) -> Box:
    """Start bubblewrap in a thread. Where that is cancelled it is waited for: its files must stay open, and it must end."""
    starting = asyncio.ensure_future(asyncio.to_thread(_start, command, files, complaints))
    cancelled = await to_its_end(starting)
    process = starting.result()
    try:
        box = Box(process, control)
    except OSError:
        _kill(process, os.getpid())
        process.wait()  # a moment
        raise
    if cancelled is not None:
        box.kill()
        raise cancelled
    return box


def _start(command: Sequence[str], files: tuple[int, int], complaints: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - bubblewrap, as it was found
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=files,
        env={},
        process_group=0,  # whoever presses Ctrl-C means us
    )


async def _begun(loop: asyncio.AbstractEventLoop, control: socket.socket, plan: BoxPlan) -> str | None:
    """Tell the parent how things are to be, and wait until it has loaded what it needs; give why not, where it could not."""
    settings = {
        "user": _UNPRIVILEGED if os.geteuid() == 0 else None,
        "limits": msgspec.to_builtins(plan.limits),
        "program": plan.program.hex(),
        "packages": _PACKAGES,
        "modules": plan.modules,
        "network": plan.network,
    }
    try:
        async with asyncio.timeout(_OPENING_SECONDS):
            await loop.sock_sendall(control, json.dumps(settings).encode())
            told = await loop.sock_recv(control, 1 << 16)
    except TimeoutError:
        return f"its parent was not ready within {_OPENING_SECONDS:g} seconds"
    except OSError:
        return ""
    return json.loads(told).get("failed") if told else ""


def _python() -> str:
    """Give this Python as it is called outside of a virtual environment."""
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))


def _arguments(plan: BoxPlan, passwd: int) -> list[str]:
    """Say what the box is made of."""
    if os.geteuid() == 0:
        # As root, no user namespace: its parent changes to a user of the host that has nothing, which root's own
        # namespace cannot express, and each worker then makes one of its own.
        walls = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        walls += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        walls = ["--unshare-all", "--uid", "1000", "--gid", "1000"]
    arguments = [*walls, "--die-with-parent", "--new-session"]
    # A program `python3` is the interpreter of the session, and has its packages.
    environment = _ENVIRONMENT | {"PATH": f"{Path(_python()).parent}:{_ENVIRONMENT['PATH']}"}
    if plan.packages:
        environment["PYTHONPATH"] = _PACKAGES
    for name, value in environment.items():
        arguments += ("--setenv", name, value)
    if plan.network:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            arguments += ("--setenv", name, f"http://127.0.0.1:{PROXY_PORT}")
    arguments += ("--proc", "/proc")
    if plan.network:
        # Run by root, bubblewrap makes settings read-only; a worker changes those of its own network before it hides all.
        arguments += ("--bind", "/proc/sys/net", "/proc/sys/net")
    arguments += ("--tmpfs", "/dev")
    for name in _DEVICES:
        arguments += ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    for target, link in (
        ("fd", "self/fd"),
        ("stdin", "self/fd/0"),
        ("stdout", "self/fd/1"),
        ("stderr", "self/fd/2"),
    ):
        arguments += ("--symlink", f"/proc/{link}", f"/dev/{target}")
    arguments += ("--dir", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108 - its name in there
    arguments += _system(network=plan.network)
    arguments += ("--perms", "0444", "--ro-bind-data", str(passwd), "/etc/passwd")
    arguments += ("--perms", "1777", "--size", str(64 * 1024 * 1024), "--tmpfs", "/tmp")  # noqa: S108 - its name in there
    arguments += ("--dir", "/session")
    ours = Path(_HOME, "gossamer/sandbox/inside")
    arguments += (*_folders(ours.parent), "--ro-bind", str(Path(inside.__file__).parent), str(ours))
    arguments += _folders(Path(_PACKAGES))
    for name, path in plan.packages.items():
        arguments += _folders(Path(_PACKAGES, name).parent)
        arguments += ("--ro-bind", str(path), f"{_PACKAGES}/{name}")
    return [*arguments, "--chdir", "/", "--remount-ro", "/"]


def _folders(folder: Path) -> list[str]:
    """Say that a folder is to be there with those above it: made on the way to something else, nobody could enter them."""
    return [word for one in (*reversed(folder.parents[:-1]), folder) for word in ("--dir", str(one))]


def _system(*, network: bool) -> list[str]:
    """Say what of the host's system is there to be read: programs and libraries, and this Python without its packages."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        place = Path("/", name)
        if place.is_symlink():
            arguments += ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            arguments += ("--ro-bind", str(place), str(place))
    arguments += _folders(Path("/etc"))
    etc = ["ld.so.cache", "alternatives", "localtime"]
    if network:
        etc += ("ssl/certs", "ca-certificates", "ssl/openssl.cnf", "pki")
    for name in etc:
        arguments += ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        arguments += _folders(prefix.parent)
        arguments += ("--ro-bind", str(prefix), str(prefix))
    for name in ("purelib", "platlib"):
        packages = sysconfig.get_path(name, vars={"base": str(prefix), "platbase": str(prefix)})
        if Path(packages).is_dir():
            # For an ordinary user it would be writable, for all sessions at once.
            arguments += ("--tmpfs", packages, "--remount-ro", packages)
    return arguments


def _why(failed: str, words: str) -> str:
    """Say why there is no box, and what to do."""
    for setting, closed, advice in (
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", setting).read_text().strip() == closed:
                return f"BubblewrapSandbox needs user namespaces, and this machine forbids them; {advice}, or use MontySandbox"
    reason = failed or words or "it ended without a word"
    return (
        f"BubblewrapSandbox cannot be had here: {reason[:1000]}; "
        "in a container, it must be allowed to make namespaces; MontySandbox needs none"
    )
