"""A session in Monty: an interpreter in a process of the pool, and files in memory, from run to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Self

from gossamer.errors import ArgumentError, SandboxClosedError, SandboxCrashedError, SandboxError
from gossamer.sandbox.base import Execution, Functions, SandboxFile, SandboxLimits
from gossamer.sandbox.files import check_name, check_patterns, check_uploads, matching
from gossamer.sandbox.host_functions import HostFunctions, as_host_functions
from gossamer.sandbox.limits_reached import limit_error
from gossamer.sandbox.monty_files import MontyFiles
from gossamer.sandbox.monty_pool import MontyPool, MontyWorker
from gossamer.sandbox.monty_run import MontyRun
from gossamer.sandbox.monty_snapshot import Snapshot, open_snapshot, seal_snapshot
from gossamer.sandbox.monty_values import NotPlainError, TooLargeError, plain, shown
from gossamer.sandbox.outcome import note_run
from gossamer.sandbox.request import check_code, check_timeout

__all__ = ["MontySession"]

# From how many bytes on a snapshot is put together, and looked at, in a thread.
_MANY = 1024 * 1024


class MontySession:
    """A sandbox that keeps its state from run to run; made by `MontySandbox.session`. See `SandboxSession`."""

    __slots__ = (
        "__weakref__",
        "_beginning",
        "_closed",
        "_files",
        "_kept",
        "_limits",
        "_lock",
        "_pool",
        "_pools",
        "_run",
        "_snapshot",
        "_worker",
    )

    def __init__(
        self, pools: Callable[[], MontyPool], limits: SandboxLimits, snapshot: bytes | None = None
    ) -> None:
        self._pools = pools
        self._limits = limits
        self._snapshot = snapshot
        self._kept: Snapshot | None = None
        self._files = MontyFiles(limits)
        self._lock = asyncio.Lock()
        self._pool: MontyPool | None = None
        self._worker: MontyWorker | None = None
        self._beginning: asyncio.Future[MontyWorker] | None = None
        self._run: MontyRun | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it is closed: by `aclose`, with its sandbox, or as a limit ended it."""
        return self._closed

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the run from outside, not the waiting
        functions: Functions | None = None,
    ) -> Execution:
        """Run Python and wait for what comes of it; see `SandboxSession.run`.

        A host function that raises something else than an answer, or a cancelled run, ends the session, for its code
        stands in the middle.
        """
        check_code(code, self._limits)
        uploads = check_uploads(files, self._limits)
        patterns = check_patterns(outputs)
        seconds = check_timeout(timeout, self._limits)
        offered = as_host_functions(functions)
        async with self._lock:
            worker = await self._begun()
            self._files.put(uploads)
            began = perf_counter()
            failure: BaseException | None = None
            try:
                return await self._execute(worker, code, patterns, seconds, offered, began)
            except BaseException as error:
                failure = error
                raise
            finally:
                note_run("monty", failure, perf_counter() - began)

    async def read(self, name: str) -> bytes:
        """Read a file of the session; see `SandboxSession.read`.

        Raises:
            ArgumentError: this can be no name of a file; the message says why.
        """
        check_name(name, "read")
        self._check_open()
        await self._restore()
        return self._files.read(name)

    async def files(self) -> tuple[SandboxFile, ...]:
        """List the files of the session's folder, by name."""
        self._check_open()
        await self._restore()
        return self._files.listed()

    async def snapshot(self) -> bytes:
        """Keep the session as it stands between two runs: its variables and its files.

        `MontySandbox.session(snapshot=...)` begins another one from there, in any process with the same version of the
        library. Trust a snapshot as much as code that runs outside of any sandbox: the library checks none, and bytes
        that somebody has made for the purpose may do anything to the process of the sandbox. One that was damaged on
        its way is refused.

        Returns:
            Bytes of the library's own, with a hash over them; as long as what the session holds in memory at most.

        Raises:
            SandboxClosedError: the session is closed.
            SandboxCrashedError: the process has died; the session is closed.
            SandboxError: it cannot be kept; the message says why.
        """
        async with self._lock:
            worker = await self._begun()
            dumping = asyncio.ensure_future(worker.raw.dump())
            try:
                state = await asyncio.shield(dumping)
            except asyncio.CancelledError:
                await asyncio.wait((dumping,))  # a turn that is given up costs the process
                raise
            except Exception as error:
                if worker.raw.worker_pid is None:
                    self._closed = True
                    await worker.end()
                    raise SandboxCrashedError(
                        f"the process of the session has died ({error}); the session is closed, begin another one"
                    ) from error
                raise SandboxError(f"the session cannot be kept: {error}") from error
            files, folders = self._files.kept()
            if len(state) + sum(map(len, files.values())) < _MANY:
                return seal_snapshot(state, files, folders)
            return await asyncio.to_thread(seal_snapshot, state, files, folders)

    async def aclose(self) -> None:
        """End it and everything in it; its place is free. Twice is once."""
        self._closed = True
        if self._beginning is not None:
            self._beginning.cancel()
        if self._run is not None:
            self._run.end(SandboxClosedError("the session or its sandbox was closed during the run"))
        if self._worker is not None:
            await self._worker.end()

    async def __aenter__(self) -> Self:
        """Begin a block that ends with the session; nothing happens yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- one thing after the other ----------------------------------------------------------------------------------

    async def _begun(self) -> MontyWorker:
        """Give the process of the session; the first time it is waited for."""
        self._check_open()
        if self._worker is None:
            await self._restore()
            self._beginning = beginning = asyncio.ensure_future(self._begin())
            try:
                self._worker = await beginning
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._closed or (task is not None and task.cancelling()):
                    raise
            finally:
                self._beginning = None
            if self._closed:  # meanwhile
                if self._worker is not None:
                    await self._worker.end()
                raise SandboxClosedError("the session was closed while it waited for its place")
            assert self._worker is not None
        return self._worker

    async def _begin(self) -> MontyWorker:
        pool = self._pool = self._pools()
        worker = await pool.worker(self)
        if self._kept is None:
            return worker
        try:
            await worker.raw.load_session(self._kept.state)
        except BaseException as error:
            await worker.end()
            if not isinstance(error, Exception):
                raise
            raise ArgumentError(f"snapshot: Monty cannot go on from it: {error}") from error
        self._kept = None
        return worker

    async def _restore(self) -> None:
        """Read the snapshot that it begins from, where there is one that was not read yet."""
        data = self._snapshot
        if data is None:
            return
        if len(data) < _MANY:
            kept = open_snapshot(data, self._limits)
        else:
            kept = await asyncio.to_thread(open_snapshot, data, self._limits)
        if self._snapshot is not None:  # else another one has read it meanwhile
            self._files.put(kept.files, kept.folders)
            self._kept = kept
            self._snapshot = None

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxClosedError(
                "the session is over: it was closed, or a limit ended it; begin another one"
            )
        pool = self._pool
        if pool is not None and (pool.dropped or pool.loop is not asyncio.get_running_loop()):
            raise SandboxClosedError("the session belongs to another event loop, or process; begin one here")

    async def _execute(
        self,
        worker: MontyWorker,
        code: str,
        patterns: Sequence[str],
        seconds: float,
        functions: HostFunctions | None,
        began: float,
    ) -> Execution:
        self._files.reached.clear()
        run = self._run = MontyRun(worker.raw, self._files, self._limits, seconds, functions)
        try:
            value = await run.execute(code)
        finally:
            self._run = None
            if run.over:
                self._closed = True
                await worker.end()
        stdout, stderr = run.output
        try:
            data, room = _data(value, self._limits.result_bytes)
            files = self._taken(patterns, room)
        except TooLargeError:
            raise limit_error("result_bytes", self._limits, stdout=stdout, stderr=stderr) from None
        except SandboxError as error:
            error.stdout, error.stderr = stdout, stderr
            raise
        return Execution(data, shown(value), stdout, stderr, (), files, perf_counter() - began)

    def _taken(self, patterns: Sequence[str], room: int) -> dict[str, bytes]:
        """Give the files that are asked for.

        Raises:
            TooLargeError: they are larger than the room that is left.
            SandboxFileError: a name is not there.
        """
        if not patterns:
            return {}
        listed = {file.name: file.size for file in self._files.listed()}
        names = matching(listed, patterns)
        if sum(listed[name] for name in names) > room:
            raise TooLargeError
        return {name: self._files.read(name) for name in names}

    def __del__(self) -> None:
        """Give the process back where nobody has closed the session."""
        worker = getattr(self, "_worker", None)
        if worker is not None:
            worker.abandon()


def _data(value: Any, room: int) -> tuple[Any, int]:
    """Give plain data and the room that it leaves; None for what is none.

    Raises:
        TooLargeError: it is larger than the room.
    """
    try:
        return plain(value, room)
    except NotPlainError:
        return None, room
