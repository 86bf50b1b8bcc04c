"""A session in a worker of the box: what is asked of it, what it gives, and which error stands for what went wrong."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Self

import msgspec

from gossamer.errors import (
    ArgumentError,
    CodeError,
    SandboxClosedError,
    SandboxCrashedError,
    SandboxError,
    SandboxFileError,
)
from gossamer.messages import Image
from gossamer.sandbox.base import Execution, Functions, SandboxFile, SandboxLimits
from gossamer.sandbox.files import check_name, check_patterns, check_uploads, matching, why_no_name
from gossamer.sandbox.heard import LARGE, Heard
from gossamer.sandbox.host_functions import HostAnswer, HostCall, HostFunctions, as_host_functions
from gossamer.sandbox.inside.frames import NotPlainError, plain, restored
from gossamer.sandbox.limits_reached import LIMITS, limit_error
from gossamer.sandbox.outcome import note_run
from gossamer.sandbox.request import check_code, check_timeout
from gossamer.sandbox.worker_link import Worker, WorkerGoneError
from gossamer.sandbox.worker_pool import WorkerPool

__all__ = ["BubblewrapSession"]

_MOST_ARGUMENTS = 1_000_000  # bytes
_MOST_KIND, _MOST_WORDS = 200, 21_000  # characters of what an error tells; the worker keeps to less
_LAST_SECONDS = 1.0  # for a process to end that has closed its channel, so that its exit code is known
_CALL_BYTES = 1_000  # of each call, beside what all may take together
_PNG = b"\x89PNG\r\n\x1a\n"


class BubblewrapSession:
    """A sandbox that keeps its state from run to run; made by `BubblewrapSandbox.session`. See `SandboxSession`.

    Between runs it stands still: threads that code has left running are stopped until the next run, processes are ended.
    """

    def __init__(self, pool: Callable[[], WorkerPool], limits: SandboxLimits) -> None:
        self._pools = pool
        self._limits = limits
        self._pool: WorkerPool | None = None
        self._worker: Worker | None = None
        self._lock = asyncio.Lock()
        self._closed = ""

    @property
    def closed(self) -> bool:
        """Whether it is closed: by `aclose`, with its sandbox, or as a limit ended it."""
        return bool(self._closed) or (
            self._worker is not None and bool(self._worker.cause or self._worker.dead.done())
        )

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the run from outside, not the waiting
        functions: Functions | None = None,
    ) -> Execution:
        """Run Python and wait for what comes of it; see `SandboxSession.run`."""
        check_code(code, self._limits)
        offered = as_host_functions(functions)
        names = [] if offered is None else list(offered.names)
        return await self._do(
            {"do": "run", "code": code, "functions": names}, files, (), outputs, timeout, offered
        )

    async def command(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> Execution:
        """Run a program in the session's folder, and wait for its end.

        Args:
            argv: the program and its arguments; no shell reads them. `python3` is the interpreter of the session.
            stdin: what it is given there.
            files: as for `run`.
            outputs: as for `run`.
            timeout: as for `run`.

        Returns:
            What came of it; `value` is its exit code, negative where a signal ended it.

        Raises:
            SandboxFileError: there is no such program.
            SandboxError: see `SandboxSession.run`.
            ArgumentError: something cannot be used; the message names it.
        """
        checked = _checked_argv(argv)
        try:
            return await self._do({"do": "command", "argv": checked}, files, (stdin,), outputs, timeout, None)
        except CodeError as error:
            if error.kind not in {"FileNotFoundError", "NotADirectoryError", "PermissionError"}:
                raise
            raise SandboxFileError(
                f"argv: {checked[0]!r} cannot be started in the sandbox: {error}"
            ) from error

    async def read(self, name: str) -> bytes:
        """Read a file of the session; see `SandboxSession.read`."""
        check_name(name, "read")
        async with self._lock:
            worker = await self._entered()
            clock = _Clock(self._limits.timeout, worker)
            return (await self._read(worker, [name], clock, self._limits.result_bytes))[name]

    async def files(self) -> tuple[SandboxFile, ...]:
        """List the files of the session's folder, by name; links are left out."""
        async with self._lock:
            worker = await self._entered()
            listed = await self._list(worker, _Clock(self._limits.timeout, worker))
            return tuple(sorted(listed, key=lambda file: file.name))

    async def aclose(self) -> None:
        """End it and everything in it; its place is free. Twice is once."""
        self._close("it was closed")
        if self._worker is not None:
            await asyncio.shield(self._worker.dead)

    async def __aenter__(self) -> Self:
        """Begin a block that ends with the session; nothing happens yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- one thing after the other --------------------------------------------------------------------------------

    async def _entered(self) -> Worker:
        if self.closed:
            raise SandboxClosedError(
                f"the session is over: {self._closed or 'its sandbox was closed'}; begin another one"
            )
        if self._worker is None:
            self._pool = self._pools()
            self._worker = await self._pool.take()
            if self._closed:  # meanwhile
                self._pool.give_back(self._worker)
                raise SandboxClosedError("the session was closed while it waited for its place")
        self._worker.begin()
        return self._worker

    async def _do(
        self,
        message: dict[str, Any],
        files: Mapping[str, bytes | str] | None,
        blobs: tuple[bytes, ...],
        outputs: Sequence[str],
        seconds: float | None,
        functions: HostFunctions | None,
    ) -> Execution:
        uploads = check_uploads(files, self._limits)
        patterns = check_patterns(outputs)
        allowed = check_timeout(seconds, self._limits)
        message["files"] = list(uploads)
        async with self._lock:
            worker = await self._entered()
            began = perf_counter()
            failure: BaseException | None = None
            try:
                clock = _Clock(allowed, worker)  # of all that is asked, as the code may still be at work
                frame, parts, size = await self._ask(
                    worker, message, clock, (*uploads.values(), *blobs), functions
                )
                stdout, stderr = worker.output.take()
                if frame.error is not None:
                    raise _error_of(frame.error, self._limits, stdout, stderr)
                named: list[str] = []
                if patterns:
                    named = matching([file.name for file in await self._list(worker, clock)], patterns)
                value = frame.value
                value = _value_of(value) if size <= LARGE else await asyncio.to_thread(_value_of, value)
                return Execution(
                    value,
                    frame.shown,
                    stdout,
                    stderr,
                    tuple(
                        Image(data=part, media_type="image/png")
                        for part in parts[: frame.images]
                        if part.startswith(_PNG)
                    ),
                    await self._read(worker, named, clock, self._limits.result_bytes - size) if named else {},
                    perf_counter() - began,
                )
            except BaseException as error:
                failure = error
                raise
            finally:
                note_run("bubblewrap", failure, perf_counter() - began)

    async def _ask(
        self,
        worker: Worker,
        message: dict[str, Any],
        clock: _Clock,
        blobs: Sequence[bytes] = (),
        functions: HostFunctions | None = None,
        most: int | None = None,
    ) -> Heard:
        """Ask for something and wait until it is done, within limits; an end of any other kind ends the session."""
        calls = size = 0
        worker.resume()
        try:
            clock.go()
            await worker.say(message, blobs)
            while True:
                heard = await worker.hear(most)
                frame = heard.frame
                if frame.kind == "done":
                    await worker.pause()
                    worker.output.drain()
                    if worker.cause:  # it has come to a limit with its last word
                        raise WorkerGoneError(worker.cause)
                    return heard
                calls += len(frame.calls)
                size += heard.size
                if frame.kind != "calls" or not frame.calls or functions is None:
                    worker.end("it asked for what nobody offers")
                elif calls > self._limits.host_calls:
                    worker.end("host_calls")
                elif size > self._limits.result_bytes + _CALL_BYTES * calls:
                    worker.end("result_bytes")
                else:
                    clock.stop()
                    answers = await _answers(worker, functions, frame.calls)
                    clock.go()  # before they are sent: nobody may take them
                    await worker.say({"answers": answers})
        except WorkerGoneError as gone:
            await asyncio.wait((worker.dead,), timeout=_LAST_SECONDS)
            worker.end("it closed its channel")  # where it has not ended by itself
            await asyncio.shield(worker.dead)
            error = self._why_gone(worker, gone, clock.allowed)
            self._close(str(error))
            raise error from gone
        except BaseException:
            self._close("its run was cancelled or a function of the host failed")
            raise
        finally:
            clock.stop()

    async def _list(self, worker: Worker, clock: _Clock) -> list[SandboxFile]:
        frame = (await self._ask(worker, {"do": "files"}, clock)).frame
        if frame.error is not None:
            raise _error_of(frame.error, self._limits, "", "")
        return [
            SandboxFile(name, size) for name, size in frame.listed if why_no_name(name) is None and size >= 0
        ]

    async def _read(self, worker: Worker, names: list[str], clock: _Clock, most: int) -> dict[str, bytes]:
        most = max(most, 0)
        asked = {"do": "read", "names": names, "most": most}
        frame, parts, _ = await self._ask(worker, asked, clock, most=most)
        if frame.error is not None:
            raise _error_of(frame.error, self._limits, "", "", file=True)
        if len(parts) != len(names):
            raise SandboxFileError(f"asked for {len(names)} files, the session gave {len(parts)}")
        return dict(zip(names, parts, strict=True))

    def _close(self, why: str) -> None:
        if not self._closed:
            self._closed = why
            if self._worker is not None and self._pool is not None:
                self._pool.give_back(self._worker)

    def _why_gone(self, worker: Worker, gone: WorkerGoneError, allowed: float) -> SandboxError:
        stdout, stderr = worker.output.take()
        cause, code = worker.cause, worker.exit_code
        if not cause and worker.out_of_memory:
            cause = "memory_bytes"
        if not cause and code == -signal.SIGXFSZ:
            cause = "file_bytes"
        if cause in LIMITS:
            value = allowed if cause == "timeout" else None
            return limit_error(cause, self._limits, allowed=value, stdout=stdout, stderr=stderr)
        if cause == "closed":
            return SandboxClosedError(
                "the session or its sandbox was closed during the run", stdout=stdout, stderr=stderr
            )
        how = cause or str(gone)
        if code is not None:
            how = f"signal {_name_of(-code)}" if code < 0 else f"exit code {code}"
        return SandboxCrashedError(
            f"the process of the session has died ({how or 'without a word'}); begin another one",
            stdout=stdout,
            stderr=stderr,
        )


class _Clock:
    """Ends a worker when a run has taken its time; stands still while the host answers."""

    def __init__(self, seconds: float, worker: Worker) -> None:
        self.allowed = self._left = seconds
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0

    def go(self) -> None:
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._left, self._worker.end, "timeout")

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left = max(self._left - (self._loop.time() - self._since), 0.0)


async def _answers(
    worker: Worker, functions: HostFunctions, asked: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Let the host answer calls that code has made, whatever they are.

    Raises:
        WorkerGoneError: the worker has ended meanwhile.
    """
    calls: list[HostCall] = []
    for one in asked:
        try:
            call = msgspec.convert(
                {**one, "args": restored(one["args"]), "kwargs": restored(one["kwargs"])}, HostCall
            )
            if call.name not in functions.names:
                raise ValueError(f"there is no function {call.name[:100]!r}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            worker.end("its calls make no sense")
            raise WorkerGoneError(f"its calls make no sense: {str(error)[:200]}") from error
        calls.append(call)
    answering = asyncio.ensure_future(functions.answer(calls))
    try:
        await asyncio.wait((answering, worker.dead), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise WorkerGoneError("it ended while it was answered")
    finally:
        if not answering.done():
            answering.cancel()
            await asyncio.wait((answering,))
    return [_told(answer) for answer in answering.result()]


def _told(answer: HostAnswer) -> dict[str, Any]:
    if answer.error is not None:
        return {"error": answer.error}
    try:
        return {"value": plain(answer.value)}
    except NotPlainError:
        return {
            "error": f"TypeError: the function gave {type(answer.value).__name__}, which is no plain data"
        }


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of those in real time only the first and the last have one
        return str(number)


def _value_of(data: Any) -> Any:
    try:
        return restored(data)
    except (ValueError, TypeError, RecursionError):
        return None


def _error_of(
    told: dict[str, str], limits: SandboxLimits, stdout: str, stderr: str, *, file: bool = False
) -> SandboxError:
    """Give the error that a worker has told of."""
    kind, words = told.get("kind", "")[:_MOST_KIND], told.get("message", "")[:_MOST_WORDS]
    if (limit := told.get("limit", "")) in LIMITS:
        return limit_error(limit, limits, stdout=stdout, stderr=stderr)
    if file:
        return SandboxFileError(
            f"there is no such file in the session, or it cannot be read: {kind}: {words}"
        )
    return CodeError(
        f"{kind}: {words}",
        kind=kind,
        traceback=told.get("traceback", "")[:_MOST_WORDS],
        stdout=stdout,
        stderr=stderr,
    )


def _checked_argv(argv: Sequence[str]) -> list[str]:
    """Check the arguments of a program.

    Raises:
        ArgumentError: they are no list of text, or one has a NUL, or they are too long.
    """
    if isinstance(argv, str | bytes) or not argv:
        raise ArgumentError("argv: a list of the program and its arguments is wanted, as in ['ls', '-l']")
    for one in argv:
        if not isinstance(one, str):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever somebody passes
            raise ArgumentError(f"argv: text is wanted, and not {type(one).__name__}")
        if "\0" in one or (not one.isascii() and one != one.encode(errors="replace").decode()):
            raise ArgumentError(f"argv: {one[:100]!r} has a NUL, or is no UTF-8")
    if sum(map(len, argv)) > _MOST_ARGUMENTS:
        raise ArgumentError(f"argv: more than {_MOST_ARGUMENTS:,} characters; give data by files or stdin")
    return list(argv)
