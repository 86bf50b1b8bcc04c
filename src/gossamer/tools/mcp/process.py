"""The process of an MCP server that is spoken to over its standard streams: started, watched, ended for sure.

It is started in a session of its own, so that all that it starts can be ended with it: when it ends, when nobody has it
any more, and at the latest when Python exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from mcp.client.stdio import get_default_environment

from gossamer.errors import MCPConnectionError
from gossamer.telemetry.logging import logger
from gossamer.tools.mcp.settings import Settings

__all__ = ["GRACE_SECONDS", "Process", "start"]

# How long a server may take to end once its standard input is closed, and again once it was told to, in seconds.
GRACE_SECONDS = 2.0

# What is kept of standard error, to tell why a server died, and what goes to the log: so many lines of so many
# characters, and a process no more than so many lines in all.
_LAST_LINES = 20
_LINE_CHARS = 2_000
_LOGGED_LINES = 10_000


class Process:
    """A running server.

    Attributes:
        pid: its process id, which is the id of its process group too.
        reader: its standard output, in lines.
        ended: set when it has ended.
    """

    def __init__(self, popen: subprocess.Popen[bytes], settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self.pid = popen.pid
        self.reader = asyncio.StreamReader(settings.max_message_bytes)
        self.ended = asyncio.Event()
        self._popen = popen
        self._name = settings.name
        self._writer = _Writer()
        self._said: deque[str] = deque(maxlen=_LAST_LINES)
        self._transports: list[Any] = []
        self._listening: asyncio.Task[None] | None = None
        self._finalizer = weakref.finalize(self, _kill, popen, os.getpid())
        ended = weakref.WeakMethod(self._has_ended)
        threading.Thread(
            target=_attend, args=(popen, loop, ended), name=f"gossamer-mcp-{popen.pid}", daemon=True
        ).start()

    async def connect(self) -> None:
        """Take over its standard streams."""
        loop = asyncio.get_running_loop()
        errors = asyncio.StreamReader(_LINE_CHARS)
        pipes: tuple[tuple[asyncio.StreamReader, IO[bytes] | None], ...] = (
            (self.reader, self._popen.stdout),
            (errors, self._popen.stderr),
        )
        for reader, pipe in pipes:
            transport, _ = await loop.connect_read_pipe(_protocol(reader), pipe)
            self._transports.append(transport)
        transport, _ = await loop.connect_write_pipe(lambda: self._writer, self._popen.stdin)
        self._writer.transport = transport
        self._transports.append(transport)
        listening = _listen(errors, self._name, self._said)
        self._listening = loop.create_task(listening, name=f"gossamer-mcp-stderr-{self.pid}")

    def drop(self, connecting: asyncio.Future[None]) -> None:
        """Kill it, once it has been taken over for somebody who does not want it any more."""
        self.kill()
        if not connecting.cancelled():
            connecting.exception()  # whoever waited has been told

    async def write(self, data: bytes) -> None:
        """Write to its standard input, and wait while it does not read.

        Raises:
            BrokenPipeError: it has closed it, or ended.
        """
        if _is_over(self._popen):
            raise BrokenPipeError
        await self._writer.write(data)

    async def why(self) -> str:
        """Tell how it ended, and what it said last, once its standard output is at its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self.ended.wait()
                if self._listening is not None:
                    await asyncio.shield(self._listening)
        code = self._popen.returncode
        if code is None:
            ended = "it closed its standard output"
        elif code < 0:
            ended = f"it was ended by signal {_signal_name(-code)}"
        else:
            ended = f"it ended with code {code}"
        said = "\n".join(self._said)
        return f"{ended}; it said last:\n{said}" if said else ended

    async def stop(self) -> None:
        """End it: close its standard input, wait, tell it to end, wait, kill it. All that it started ends with it."""
        try:
            self._writer.close()
            for sent in (None, signal.SIGTERM, signal.SIGKILL):
                if sent is not None:
                    _signal_group(self._popen, sent)
                if await self._ends_within(GRACE_SECONDS):
                    return
            logger.warning("MCP server %s: process %d does not end", self._name, self.pid)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it and all that it started, where that is not over, and let go of its streams; returns at once."""
        self._finalizer()
        self._writer.abort()
        for transport in self._transports:
            with contextlib.suppress(Exception):  # a stream that is closed already, or whose loop is
                transport.close()
        if self._listening is not None:
            self._listening.cancel()

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        return self.ended.is_set()

    def _has_ended(self) -> None:
        self.ended.set()


async def start(settings: Settings) -> Process:
    """Start the process of a server, in a thread, for that takes milliseconds.

    Raises:
        MCPConnectionError: it cannot be started.
    """
    if sys.platform == "win32":
        raise MCPConnectionError(
            f"{settings.name}: MCP servers are started on POSIX systems only; run it yourself and give its url",
            server=settings.name,
        )
    # Whoever is cancelled meanwhile must not leave the process behind.
    starting = asyncio.ensure_future(asyncio.to_thread(_start, settings))
    try:
        popen = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end_unwanted)
        raise
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise MCPConnectionError(
            f"MCP server {settings.name!r} cannot be started: {error}; the command is {settings.command[0]!r}",
            server=settings.name,
        ) from error
    process = Process(popen, settings)
    # It is taken over as a whole: of a stream that is cut off half way, loop and file would both think it theirs.
    connecting = asyncio.ensure_future(process.connect())
    try:
        await asyncio.shield(connecting)
    except BaseException:
        connecting.add_done_callback(process.drop)
        raise
    return process


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is the user's own
        settings.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=get_default_environment() | (settings.env or {}),
        cwd=settings.cwd,
        start_new_session=True,
    )


def _end_unwanted(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if starting.cancelled() or starting.exception() is not None:
        return
    popen = starting.result()
    _kill(popen, os.getpid())
    threading.Thread(target=popen.wait, name="gossamer-mcp-end", daemon=True).start()
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


def _attend(
    popen: subprocess.Popen[bytes],
    loop: asyncio.AbstractEventLoop,
    ended: weakref.WeakMethod[Callable[[], None]],
) -> None:
    """Wait for a process to end, end all that it started, and tell; in a thread of its own.

    Its group is killed while the process itself is not yet reaped, so that its number cannot be another's by then.
    """
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        _signal_group(popen, signal.SIGKILL)
        popen.wait()
    else:  # macOS before Python 3.13
        popen.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
    tell = ended()
    if tell is not None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)


def _kill(popen: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a process and all that it started, unless that is over; in a forked child it is not ours."""
    if os.getpid() == owner:
        _signal_group(popen, signal.SIGKILL)


def _signal_group(popen: subprocess.Popen[bytes], number: int) -> None:
    if popen.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, number)


def _is_over(popen: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended, also while nobody has noticed yet."""
    if popen.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _protocol(reader: asyncio.StreamReader) -> Callable[[], asyncio.StreamReaderProtocol]:
    return lambda: asyncio.StreamReaderProtocol(reader)


class _Writer(asyncio.BaseProtocol):
    """The standard input of a process: writes wait while it does not read."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._lost = False

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self._lost = True
        self._free.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            with contextlib.suppress(Exception):  # its loop may be closed
                self.transport.abort()

    async def write(self, data: bytes) -> None:
        if self.transport is None or self._lost or self.transport.is_closing():
            raise BrokenPipeError
        self.transport.write(data)
        if not self._free.is_set():
            await self._free.wait()


async def _listen(reader: asyncio.StreamReader, name: str, said: deque[str]) -> None:
    """Send what a server says on standard error to the log, line by line, and never let it wait for us."""
    lines = 0
    while True:
        try:
            line = await reader.readuntil()
        except asyncio.IncompleteReadError as rest:
            line = rest.partial
            if not line:
                return
        except asyncio.LimitOverrunError as long:
            line = await reader.read(min(max(long.consumed, 1), _LINE_CHARS))
        text = line.decode(errors="replace").rstrip()
        if not text:
            continue
        said.append(text)
        lines += 1
        if lines <= _LOGGED_LINES:
            logger.info("MCP server %s: %s", name, text)
        elif lines == _LOGGED_LINES + 1:
            logger.warning("MCP server %s: said more than %d lines; the rest is not logged", name, lines - 1)
        if lines % 64 == 0:
            await asyncio.sleep(0)
