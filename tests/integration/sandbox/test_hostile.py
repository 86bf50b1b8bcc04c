"""Code that means harm, in every sandbox that this machine has: it ends within its limits, and the host is as it was."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.sandbox.attacks import ATTACKS, PRELUDE, TIME, Attack

from gossamer.errors import CodeError, SandboxError
from gossamer.sandbox import BubblewrapSandbox, Execution, MontySandbox, Sandbox, SandboxLimits
from gossamer.sandbox.process_tree import descendants

LIMITS = SandboxLimits(
    timeout=1.0,
    cpu_seconds=0.4,
    memory_bytes=96 << 20,
    processes=8,
    file_bytes=1 << 20,
    disk_bytes=4 << 20,
    files=100,
    output_bytes=200_000,
    result_bytes=1 << 20,
    host_calls=20,
)

MARK = "gossamer-secret-7d1f09c3"

# How code ends in Monty where it asks for what is not there at all.
NOT_THERE = {
    "ModuleNotFoundError",
    "ImportError",
    "AttributeError",
    "NameError",
    "NotImplementedError",
    "TypeError",
    "SyntaxError",
}

# How much more memory the process of the test may have after an attack, in bytes: what its limits let come out, and then some.
MORE_MEMORY = 96 << 20


class Host:
    """What the attacks aim at, and how it is told from outside whether they hit."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "secret.txt"
        self.secret.write_text(MARK)
        self.marker = folder / "marker"
        # Open, and left open to processes that are started: a worker must not have it.
        self.fd = os.open(self.secret, os.O_RDONLY)
        os.set_inheritable(self.fd, True)
        self.listeners = self._listen(folder)
        self.port = self.listeners[0].getsockname()[1]
        self.shadow = _lines("/etc/shadow")
        self.passwd = _lines("/etc/passwd")
        self.clock = time.time() - time.monotonic()
        self.before = self.state()
        self.processes = 0

    def _listen(self, folder: Path) -> list[socket.socket]:
        self.unix, self.abstract = str(folder / "socket"), f"gossamer-{os.getpid()}"
        tcp = socket.create_server(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        found = [tcp]
        for family, kind, where in (
            (socket.AF_INET6, socket.SOCK_STREAM, ("::1", port)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port)),
            (socket.AF_UNIX, socket.SOCK_STREAM, self.unix),
            (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.abstract}"),
        ):
            one = socket.socket(family, kind)
            try:
                one.bind(where)
            except OSError:  # a machine without the sixth version
                one.close()
                continue
            if kind == socket.SOCK_STREAM:
                one.listen(8)
            found.append(one)
        for one in found:
            one.setblocking(False)
        return found

    def facts(self) -> str:
        """Tell code what it aims at."""
        return (
            f"SECRET = {str(self.secret)!r}\nMARKER = {str(self.marker)!r}\nPORT = {self.port}\nUNIX = {self.unix!r}\n"
            f"ABSTRACT = {self.abstract!r}\nPID = {os.getpid()}\n"
        )

    def state(self) -> dict[str, Any]:
        """Look at what no attack may change."""
        stat = self.secret.stat()
        return {
            "secret": (self.secret.read_text(), stat.st_mtime_ns, stat.st_nlink, stat.st_mode, stat.st_uid),
            "folder": sorted(path.name for path in self.secret.parent.iterdir()),
            "limits": [resource.getrlimit(one) for one in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)],
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "cores": os.sched_getaffinity(0),
            "group": os.getpgid(0),
            "folder of work": Path.cwd(),
            "host": socket.gethostname(),
            "mounts": Path("/proc/self/mounts").read_text(),
            "core pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
            "terminated by": signal.getsignal(signal.SIGTERM),
            "clock": abs(time.time() - time.monotonic() - self.clock) < 5,
            "files of root": sorted(os.listdir("/")),  # noqa: PTH208
        }

    def heard(self) -> list[str]:
        """Tell which listeners were reached."""
        found: list[str] = []
        for one in self.listeners:
            try:
                if one.type == socket.SOCK_DGRAM:
                    one.recv(100)
                else:
                    one.accept()[0].close()
            except BlockingIOError:
                continue
            found.append(repr(one))
        return found

    def told(self, text: str) -> list[str]:
        """Tell what of the host's is in a text that came out."""
        found = [MARK] if MARK in text else []
        found += [line for line in self.shadow if line in text]
        if self.passwd and all(line in text for line in self.passwd):
            found.append("/etc/passwd")
        return found

    def close(self) -> None:
        """Let go of everything."""
        os.close(self.fd)
        for one in self.listeners:
            one.close()


def _lines(path: str) -> list[str]:
    try:
        return [line for line in Path(path).read_text().splitlines() if len(line) > 12]
    except OSError:
        return []


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    os.environ["GOSSAMER_TEST_SECRET"] = MARK
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()
    del os.environ["GOSSAMER_TEST_SECRET"]


@pytest.fixture(scope="module", params=["monty", "bubblewrap"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(kind: str, host: Host) -> AsyncIterator[Sandbox]:
    before = set(descendants(os.getpid()))
    made = (
        MontySandbox(limits=LIMITS, size=2)
        if kind == "monty"
        else BubblewrapSandbox(limits=LIMITS, size=2, warm=1)
    )
    async with made:
        await made.run("1 + 1")
        host.processes = await _settled()
        yield made
    async with asyncio.timeout(10):
        while set(descendants(os.getpid())) - before:
            await asyncio.sleep(0.01)


async def _settled() -> int:
    """Give how many processes there are below this one while the pool rests, with all that it keeps warm."""
    count, same = -1, 0
    while same < 30:
        await asyncio.sleep(0.01)
        now = len(descendants(os.getpid()))
        count, same = now, same + 1 if now == count else 0
    return count


async def _attacked(sandbox: Sandbox, host: Host, attack: Attack) -> Execution | SandboxError:
    secret = MARK  # in a closure of a function that code may call

    def note(*_: object) -> int:
        return len(secret) and 1

    code = f"{host.facts()}{PRELUDE}{attack.code}"
    try:
        async with asyncio.timeout(20):  # else it hangs for ever
            return await sandbox.run(code, outputs=attack.outputs, functions={"note": note})
    except SandboxError as error:
        return error


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_it_ends_within_its_limits_and_harms_nobody(
    sandbox: Sandbox, host: Host, attack: Attack
) -> None:
    if attack.only not in {None, sandbox.name}:
        pytest.skip(f"it is for {attack.only}")
    memory = _memory()

    came = await _attacked(sandbox, host, attack)

    if isinstance(came, CodeError):
        allowed = attack.kinds | (NOT_THERE if sandbox.name == "monty" else set())
        assert came.kind in allowed, f"{came}\n{came.traceback}"
    elif isinstance(came, SandboxError):
        assert isinstance(came, (*attack.errors, *TIME)), (
            f"{type(came).__name__}: {came}\n{came.stdout[:1000]}\n{came.stderr[:1000]}"
        )
    else:
        assert came.value == attack.gained, came
    assert not host.told(_text(came))
    assert not host.heard()
    assert host.state() == host.before
    # The pool goes on, with nothing of the attack in it.
    for _ in range(2):
        made = await sandbox.run("import json\njson.dumps([len('ab'), 1 + 1])")
        assert made.value == "[2, 2]"
        assert made.stdout == made.stderr == ""
    assert _memory() - memory < MORE_MEMORY
    async with asyncio.timeout(10):
        while len(descendants(os.getpid())) > host.processes:
            await asyncio.sleep(0.01)
    assert not host.heard()
    assert host.state() == host.before


# What these attacks do where nothing holds them: else they might prove nothing above.
HITS = {
    "files of the host": "told",
    "files of the host by pathlib": "told",
    "files of the host by many ways": "told",
    "a link to a file of the host": "told",
    "open files of the host": "told",
    "the environment": "told",
    "the environment by C": "told",
    "a listener of the host": "heard",
    "datagrams": "heard",
    "sockets of the host by path": "heard",
    "the web": "heard",
    "the web through a proxy": "heard",
    "a marker on the host": "marked",
    "a system call by C": "marked",
    "a shell": "marked",
    "os.system": "marked",
    "pickled code": "marked",
    "code at the exit": "marked",
    "code at a later time": "marked",
    "processes of the host": "gained",
    "larger limits": "gained",
    "packages of the host": "gained",
    "a module that is written where all look": "gained",
}


@pytest.mark.parametrize("name", HITS)
def test_the_attack_hits_where_nothing_holds_it(host: Host, name: str, tmp_path: Path) -> None:
    (attack,) = (one for one in ATTACKS if one.name == name)
    # What it writes where modules are goes into a folder of the test's own.
    code = f"{host.facts()}{PRELUDE}import os\nos.__file__ = {str(tmp_path / 'os.py')!r}\nvalue = 0\n{attack.code}"
    *lines, last = code.splitlines()
    program = "\n".join([*lines, f"print({last}, got)"])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=30,
        cwd=tmp_path,
        close_fds=False,
        check=False,
    )
    told = done.stdout.decode(errors="replace")
    hits = {
        "told": host.told(told),
        "heard": host.heard(),
        "marked": host.marker.exists(),
        "gained": "[[" in told,
    }
    host.marker.unlink(missing_ok=True)
    assert hits[HITS[name]], (told, done.stderr.decode(errors="replace"))


def _text(came: Execution | SandboxError) -> str:
    if isinstance(came, Execution):
        files = "".join(data.decode(errors="replace") for data in came.files.values())
        return f"{came.value}\n{came.shown}\n{came.stdout}\n{came.stderr}\n{files}"
    traceback = came.traceback if isinstance(came, CodeError) else ""
    return f"{came}\n{traceback}\n{came.stdout}\n{came.stderr}"
