"""The host's end of a worker: speaks with it, takes what it writes, watches what it uses, ends it.

The worker's interpreter runs what nobody has read, so nothing that comes from it is believed: frames are bounded and
decoded as plain data, and what it tells can be wrong about its own session alone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from typing import Any

import msgspec

from gossamer.errors import SandboxUnavailableError
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.box import Box
from gossamer.sandbox.cgroups import Cgroup
from gossamer.sandbox.heard import Heard, NonsenseError, TooLargeError, hear
from gossamer.sandbox.inside.frames import pack
from gossamer.sandbox.output import Output
from gossamer.sandbox.process_tree import descendants, has_ended, kill_all, tells_children
from gossamer.sandbox.uncut import to_its_end
from gossamer.sandbox.usage import Usage

__all__ = ["BoxGoneError", "Worker", "WorkerGoneError"]

_SCM_CREDENTIALS, _CREDENTIALS = 2, struct.Struct("iII")  # the socket module does not name it
_MARGIN = 1_000_000  # bytes of a frame beside what was asked for
_BORN_SECONDS = 10.0
_MOST_LOOKS = 20


class WorkerGoneError(Exception):
    """The worker has ended, or speaks no sense and was ended."""


class BoxGoneError(WorkerGoneError):
    """There is nobody left to fork a worker."""


class Worker:
    """A worker; made by `Worker.start`.

    Attributes:
        cause: the limit for which it was ended, or why else; empty as long as nobody has ended it.
        output: what it has written.
        exit_code: how its interpreter ended, negative for a signal; None while it is not known.
        out_of_memory: whether the kernel had ended something of it for want of memory when it died.
        dead: done when no process of it is left.
    """

    def __init__(self, limits: SandboxLimits, group: Cgroup | None, parts: _Ends) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._group = group
        self._status = parts.status
        self._pipes = [parts.said, parts.heard]
        self._transports: list[asyncio.BaseTransport] = []
        self._writing: asyncio.WriteTransport | None = None
        self._reader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter
        self._first = self._interpreter = self._pid = self._main = -1
        self._born: asyncio.Future[None] = self._loop.create_future()
        self._failed = ""
        self._usage: Usage | None = None
        self.cause = ""
        self.exit_code: int | None = None
        self.out_of_memory = False
        self.dead: asyncio.Future[None] = self._loop.create_future()
        self.listening: socket.socket | None = None
        self.output = Output(parts.out, parts.err, limits.output_bytes, lambda: self.end("output_bytes"))

    @classmethod
    async def start(cls, box: Box, limits: SandboxLimits, group: Cgroup | None) -> Worker:
        """Let a box fork a worker, and wait until it is ready.

        Args:
            box: the box.
            limits: what it may use.
            group: the control group that it is put into, or None.

        Raises:
            WorkerGoneError: it did not begin; the message says why, as far as it is known.
            SandboxUnavailableError: this kernel does not tell what belongs to it.
        """
        try:
            parts = _fork(box)
        except WorkerGoneError:
            if group is not None:
                await asyncio.to_thread(group.remove)
            raise
        worker = cls(limits, group, parts)
        try:
            worker._loop.add_reader(parts.status, worker._hear_status)
            opening = asyncio.ensure_future(worker._open())
            if (cancelled := await to_its_end(opening)) is not None:
                raise cancelled
            opening.result()
            async with asyncio.timeout(_BORN_SECONDS):
                await worker._born
                if group is not None and not await asyncio.to_thread(group.add, worker._pid):
                    raise WorkerGoneError("it could not be put into its control group")
                worker._usage = Usage(worker._pid, group, limits, worker.end)
                parts.status.send(b"go")
                frame = (await worker.hear()).frame
            if frame.kind != "ready":
                raise WorkerGoneError(f"it began with {frame.kind!r}")
            children = descendants(worker._pid)
            if not children and not tells_children():
                raise SandboxUnavailableError(
                    "BubblewrapSandbox needs a kernel that tells the children of a process, in"
                    " /proc/<pid>/task/<tid>/children, as those do that are built with CONFIG_PROC_CHILDREN"
                )
            if len(children) != 1:
                raise WorkerGoneError(f"it has {len(children)} processes, and not one")
            worker._main = children[0]
            worker._interpreter = os.pidfd_open(worker._main)
        except BaseException as error:
            worker.end("it did not begin")
            await asyncio.shield(worker.dead)
            if isinstance(error, TimeoutError | OSError):
                raise WorkerGoneError(worker._failed or f"{type(error).__name__}: {error}") from error
            raise
        return worker

    async def _open(self) -> None:
        """Begin to speak with it. It must not be cut short: a loop may close what it was given, or not."""
        transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), self._pipes.pop()
        )
        self._transports.append(transport)
        if self.dead.done():  # meanwhile, and its pipes are closed
            transport.close()
            raise WorkerGoneError(self._failed or "it ended before it began")
        writing, protocol = await self._loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), self._pipes.pop()
        )
        self._writing = writing
        if self.dead.done():
            if not writing.is_closing():
                writing.abort()
            raise WorkerGoneError(self._failed or "it ended before it began")
        self._writer = asyncio.StreamWriter(writing, protocol, None, self._loop)

    @property
    def alive(self) -> bool:
        """Whether it lives: asked of the kernel, as word of a death may still be on its way."""
        if self.cause or self._first < 0:
            return False
        return not has_ended(self._first)

    # --- speaking -------------------------------------------------------------------------------------------------

    async def say(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send a frame.

        Raises:
            WorkerGoneError: nobody takes it any more.
        """
        try:
            self._writer.write(pack(message, *blobs))
            await self._writer.drain()
        except (OSError, ConnectionError) as error:
            raise WorkerGoneError(str(error)) from error

    async def hear(self, most: int | None = None) -> Heard:
        """Wait for a frame.

        Args:
            most: about how many bytes it may have; as many as a run may give back, where it is None.

        Raises:
            WorkerGoneError: there is none to come, or it makes no sense.
        """
        try:
            return await hear(self._reader, (self._limits.result_bytes if most is None else most) + _MARGIN)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise WorkerGoneError(self._failed) from error
        except TooLargeError as error:
            self.end("result_bytes")
            raise WorkerGoneError(f"its answer is too large: {error}") from error
        except NonsenseError as error:
            self.end("it answered nonsense")
            raise WorkerGoneError(f"its answer makes no sense: {error}") from error

    # --- watching -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count processor time from here on."""
        if self._usage is not None:
            self._usage.begin()

    def resume(self) -> None:
        """Let it run, and look from time to time at what it uses."""
        self._signal(signal.SIGCONT)
        if self._usage is not None:
            self._usage.watch()

    async def pause(self) -> None:
        """Let it stand still: what code has left running uses nothing before the next run. Processes are ended.

        Whoever is told to end may have made another one just before, or have told the interpreter to go on. So it is
        looked again until nobody is left; a worker that always has another one is ended.
        """
        self._unwatch()
        seen = {self._main}
        for _ in range(_MOST_LOOKS):
            self._signal(signal.SIGSTOP)
            try:
                others = [pid for pid in descendants(self._pid) if pid not in seen]
            except OSError as error:
                self.end(f"what it left running cannot be seen: {error}")
                return
            if self._first < 0 or self.cause or not others:
                return
            killed = kill_all(others, self._pid, self._first)
            try:
                for handle in killed.values():
                    await _until_ended(handle)
            finally:
                for handle in killed.values():
                    os.close(handle)
            seen.update(killed)
        self.end("what it left running always started other processes")

    def _unwatch(self) -> None:
        if self._usage is not None:
            self._usage.unwatch()

    # --- ending ---------------------------------------------------------------------------------------------------

    def end(self, cause: str) -> None:
        """End it, with every process in it; returns at once, see `dead`.

        Args:
            cause: why, if it has not ended yet.
        """
        if not self.dead.done():
            self.cause = self.cause or cause
        self._unwatch()
        if self._first >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        elif not self.dead.done():
            self._has_died()

    def drop_in_child(self) -> None:
        """After a fork, in the child: close what was inherited, without ending anything."""
        for watch in (self._first, self._interpreter):
            if watch >= 0:
                os.close(watch)
        self._first = self._interpreter = -1
        self._status.close()
        self._group = None

    def _signal(self, number: signal.Signals) -> None:
        if self._interpreter >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._interpreter, number)

    def _hear_status(self) -> None:
        try:
            told, extra, _, _ = self._status.recvmsg(1 << 16, 256)
        except BlockingIOError:
            return
        except OSError:
            told, extra = b"", []
        if told == b"born":
            self._is_born(extra)
            return
        if told:
            ended: dict[str, Any] = msgspec.json.decode(told)
            self._failed = ended.get("failed", "")
            self.exit_code = ended.get("ended")
        else:
            self._loop.remove_reader(self._status)
            if self._first < 0 and not self.dead.done():
                self._has_died()
        if not self._born.done():
            self._born.set_exception(WorkerGoneError(self._failed or "it ended before it began"))
            self._born.exception()

    def _is_born(self, extra: list[tuple[int, int, bytes]]) -> None:
        for _, kind, data in extra:
            if kind == socket.SCM_RIGHTS:
                self.listening = socket.socket(fileno=struct.unpack("i", data[:4])[0])
            elif kind == _SCM_CREDENTIALS:  # the kernel vouches for them
                self._pid = _CREDENTIALS.unpack(data)[0]
        if self._born.done():
            return
        try:
            self._first = os.pidfd_open(self._pid)
        except OSError as error:
            self._born.set_exception(WorkerGoneError(str(error)))
            self._born.exception()  # nobody may wait for it any more
            return
        self._loop.add_reader(self._first, self._has_died)
        self._born.set_result(None)

    def _has_died(self) -> None:
        """Let go of everything, now that no process is left."""
        if self._first >= 0:
            self._loop.remove_reader(self._first)
            if not self.exit_code:
                self._hear_status()  # what it said last
        self._loop.remove_reader(self._status)
        self._unwatch()
        for watch in (self._first, self._interpreter):
            if watch >= 0:
                os.close(watch)
        self._first = self._interpreter = -1
        self._status.close()
        self.output.close()
        if self._writing is not None and not self._writing.is_closing():
            self._writing.abort()  # what is still to be written finds nobody, and would be waited for
        for one in (*self._transports, *self._pipes):
            one.close()
        if self.listening is not None:
            self.listening.close()
        if self._usage is not None:
            self.out_of_memory = self._usage.out_of_memory
        if not self.dead.done():
            self.dead.set_result(None)
        if self._group is not None:
            try:
                self._loop.run_in_executor(None, self._group.remove)
            except RuntimeError:  # the loop ends, and has no threads any more
                self._group.remove()


async def _until_ended(handle: int) -> None:
    """Wait for the process of a pidfd to end."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)


class _Ends(msgspec.Struct):
    """The host's ends of what a worker holds: what it writes to us and reads of us, its output, and its status."""

    heard: FileIO
    said: FileIO
    out: int
    err: int
    status: socket.socket


# What the socket to a box says when nobody is at its other end.
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN, errno.EBADF}


def _fork(box: Box) -> _Ends:
    """Make what a worker is spoken to by, and let it be forked.

    It is spoken to by pipes, as through a socket it could pass files that take long to be closed, and we would close them.

    Raises:
        BoxGoneError: the box is gone.
        WorkerGoneError: there are too many files open.
    """
    with ExitStack() as ours, ExitStack() as its:
        try:
            heard, its_writing = _pipe(ours, its)
            its_reading, said = _pipe(its, ours)
            out, its_out = _pipe(ours, its)
            err, its_err = _pipe(ours, its)
            status, its_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise WorkerGoneError(f"it cannot be spoken to: {error}") from error
        ours.enter_context(status)
        its.enter_context(its_status)
        for one in (heard, said, out, err):
            os.set_blocking(one, False)
        status.setblocking(False)
        # Before anybody can write to it: what was written earlier comes without saying who did.
        status.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            box.fork((its_reading, its_writing, its_out, its_err, its_status.fileno()))
        except OSError as error:
            kind = BoxGoneError if error.errno in _GONE else WorkerGoneError
            raise kind(str(error)) from error
        ours.pop_all()
    return _Ends(FileIO(heard, "rb"), FileIO(said, "wb"), out, err, status)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Make a pipe, each end of which somebody closes."""
    ends = os.pipe2(os.O_CLOEXEC)
    for stack, end in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, end)
    return ends
