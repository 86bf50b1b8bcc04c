"""Servers that tests start for themselves: each on a free port, in a folder of its own, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gossamer import SandboxUnavailableError
from gossamer.sandbox import BubblewrapSandbox

__all__ = [
    "Postgres",
    "RedisServer",
    "bubblewrap",
    "missing",
    "postgres",
    "postgres_server",
    "redis",
    "redis_server",
    "require",
]

# Where Debian and Ubuntu keep the programs of a server, beside those of PATH.
_PROGRAMS = "/usr/lib/postgresql/*/bin"


def missing(what: str, command: str) -> None:
    """Skip a test whose service is not there; where `CI` is set, everything has to be there."""
    reason = f"{what} is not there; get it with: {command}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def require(program: str, command: str = "make services") -> None:
    """Skip a test whose program is not on PATH."""
    if shutil.which(program) is None:
        missing(program, command)


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    """Skip a test where this machine cannot have a box of bubblewrap; gives what there is of it."""
    require("bwrap")
    try:
        return asyncio.run(BubblewrapSandbox().check())
    except SandboxUnavailableError as error:
        missing(f"a box of bubblewrap ({error})", "make services")
        raise


class Postgres(NamedTuple):
    """A running server and how to reach it."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """Give the URL of a database on it."""
        return (
            f"postgresql://{user or self.user}:{password or self.password}@{self.host}:{self.port}/{database}"
        )

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple]:
        """Run statements as the superuser and give the rows of the last."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def postgres_server() -> Iterator[Postgres]:
    """Start a server in a temporary folder, stop it afterwards."""
    found = sorted(Path("/").glob(_PROGRAMS[1:]), key=lambda path: int(path.parent.name))
    programs = found[-1] if found else Path(shutil.which("initdb") or "/nowhere/initdb").resolve().parent
    if not (programs / "initdb").exists():
        missing("Postgres", "make services (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="gossamer-postgres-"))
    try:
        yield from _serve(programs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(programs: Path, folder: Path) -> Iterator[Postgres]:
    as_user = _as_postgres(folder)
    password = "p4ss-w0rd-of-the-tests"
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    data = folder / "data"
    subprocess.run(
        [
            *as_user(str(programs / "initdb")),
            *("-D", str(data), "-U", "owner", "--pwfile", str(secret), "-A", "scram-sha-256"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
        cwd=folder,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(
        [
            *as_user(str(programs / "postgres")),
            *("-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1"),
            *("-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ],
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    try:
        one = Postgres("127.0.0.1", port, "owner", password)
        _wait(one, server, folder / "log")
        yield one
    finally:
        log.close()
        server.send_signal(signal.SIGINT)  # fast: connections are closed, nothing is waited for
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _as_postgres(folder: Path) -> Callable[[str], list[str]]:
    """Postgres refuses to run as root: then it runs as Debian's user for it."""
    if os.geteuid() != 0:
        return lambda program: [program]
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        missing("the user postgres, which Postgres runs as where the tests run as root,", "make services")
        raise
    os.chown(folder, user.pw_uid, user.pw_gid)
    folder.chmod(0o755)
    # The process itself becomes that user, so that its id is the server's: it is stopped by that.
    return lambda program: ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", program]


def _wait(one: Postgres, server: subprocess.Popen, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(one.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Postgres did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres of these tests' own, started at the first test that asks for it."""
    yield from postgres_server()


class RedisServer:
    """A Redis in a folder of its own, which keeps nothing over a restart; it can be stopped, frozen, and started again.

    Args:
        program: the server's.
        folder: where it runs.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.process: subprocess.Popen | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.program,
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                    *("--save", "", "--appendonly", "no"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.command(b"PING") == b"+PONG":
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / "log").read_text(errors="replace")
                pytest.fail(f"Redis did not start:\n{text[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it answer no more, its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: bytes) -> bytes:
        """Run a command whose answer is one line, and give that line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            packed = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            connection.sendall(b"*%d\r\n%s" % (len(words), packed))
            with connection.makefile("rb") as answer:
                return answer.readline().rstrip(b"\r\n")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of these tests' own, started at the first test that asks for it."""
    require("redis-server", "make services (apt-get install redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="gossamer-redis-"))
    server = RedisServer(shutil.which("redis-server"), folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The same Redis, running and empty, whatever the test before did to it."""
    if redis_server.process is None:
        redis_server.start()
    assert redis_server.command(b"FLUSHALL") == b"+OK"
    yield redis_server
    if redis_server.process is not None:
        redis_server.thaw()
