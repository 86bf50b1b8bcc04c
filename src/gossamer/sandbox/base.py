"""What every sandbox does: runs Python that nobody has read, within limits, and gives back what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Image
from gossamer.sandbox.host_functions import HostFunctions

__all__ = ["Execution", "Functions", "Sandbox", "SandboxFile", "SandboxLimits", "SandboxSession"]

# Functions of the host that code may call: async or plain ones by name, or something that answers several calls at once.
Functions: TypeAlias = Mapping[str, Callable[..., Any]] | HostFunctions

_MIB = 1024 * 1024

# What a limit may be at most: some thirty years; and what systems and libraries take for a size.
_MOST_SECONDS = 1e9
_MOST = 2**53


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What code in a sandbox may use. Each limit has an error of its own, a child of `SandboxLimitError`.

    A sandbox that cannot have what a limit is about, as Monty has no processes, passes over it.

    Attributes:
        timeout: seconds that a run may take, waiting included; that of a call of host functions is not counted.
        cpu_seconds: seconds of processor time of a run, all its processes together.
        memory_bytes: memory of a session, all its processes together.
        processes: processes and threads of a session at once, beside the interpreter.
        file_bytes: size of one file.
        disk_bytes: size of all files of a session together.
        files: how many files and folders a session may have.
        output_bytes: what a run may write to stdout and stderr together.
        code_bytes: size of the code of a run, as UTF-8.
        result_bytes: size of what a run gives back: value, images and files together; and of what it gives to functions
            of the host.
        host_calls: how often a run may call functions of the host.

    Raises:
        ArgumentError: a limit is not above 0, or is none; the message names it.
    """

    timeout: float = 30.0
    cpu_seconds: float = 30.0
    memory_bytes: int = 256 * _MIB
    processes: int = 16
    file_bytes: int = 32 * _MIB
    disk_bytes: int = 64 * _MIB
    files: int = 4096
    output_bytes: int = _MIB
    code_bytes: int = _MIB
    result_bytes: int = 16 * _MIB
    host_calls: int = 1000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: Any = getattr(self, name)
            seconds = name in {"timeout", "cpu_seconds"}
            wanted, most = ((int, float), _MOST_SECONDS) if seconds else ((int,), _MOST)
            if isinstance(value, bool) or not isinstance(value, wanted) or not 0 < value <= most:
                kind = "a number" if seconds else "a whole number"
                raise ArgumentError(f"{name} must be {kind} above 0, and {most:,} at most, not {value!r}")


class SandboxFile(msgspec.Struct, frozen=True):
    """A file of a session.

    Attributes:
        name: its path below the session's folder, with `/`.
        size: in bytes.
    """

    name: str
    size: int


class Execution(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        value: the value of the last expression, as plain data (None, bool, int, float, str, bytes, list, dict with keys
            of text); None where it is something else or has more than some 100,000 values in it, or where the code ends
            with a statement.
        shown: the same as Python would show it, `repr`; empty for None.
        stdout: what was written there; what is no UTF-8 is replaced.
        stderr: the same.
        images: the plots that the code made and did not close, and the last expression where it is an image, as PNG.
        files: the files that were asked for with `outputs`, by name.
        seconds: how long it took, of a clock on the wall.
    """

    value: Any = None
    shown: str = ""
    stdout: str = ""
    stderr: str = ""
    images: tuple[Image, ...] = ()
    files: dict[str, bytes] = {}
    seconds: float = 0.0


class SandboxSession(Protocol):
    """A sandbox that keeps its state, variables and files, from run to run: `async with sandbox.session() as session:`.

    It takes a place of its sandbox at its first run and gives it back when it is closed. One run at a time; a second one
    waits for the first.
    """

    @property
    def closed(self) -> bool:
        """Whether it is closed: by `aclose`, with its sandbox, or as a limit ended it."""
        ...

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the run from outside, not the waiting
        functions: Functions | None = None,
    ) -> Execution:
        """Run Python and wait for what comes of it.

        Args:
            code: Python; `await` may stand outside of functions.
            files: put into the session's folder, which is the working folder, before the code runs; by name.
            outputs: names of files to give back, or patterns with `*` and `?`, as in `reports/*.csv`.
            timeout: seconds, in place of the limit's; never more than that.
            functions: functions of the host that the code may call with `await`, by name.

        Returns:
            What came of it.

        Raises:
            CodeError: the code is no Python, or raised; the session goes on.
            SandboxLimitError: a limit ended it; one of its children says which. Where the code caught nothing and the
                process lives, as after too large a file, the session goes on, else it is closed.
            SandboxClosedError: the session is closed.
            SandboxCrashedError: the process died; the session is closed.
            SandboxBusyError: no place was free in time, or too many wait for one.
            SandboxUnavailableError: this machine cannot have this sandbox.
            SandboxFileError: a name of `outputs` without a pattern is no file.
            ArgumentError: something cannot be used; the message names it.
        """
        ...

    async def read(self, name: str) -> bytes:
        """Read a file of the session.

        Raises:
            SandboxFileError: there is no such file, or it is longer than `result_bytes`.
            SandboxClosedError: the session is closed.
        """
        ...

    async def files(self) -> tuple[SandboxFile, ...]:
        """List the files of the session's folder, by name; links are left out."""
        ...

    async def aclose(self) -> None:
        """End it and everything in it; its place is free. Twice is once."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class Sandbox(Protocol):
    """Runs Python that nobody has read: `MontySandbox`, `BubblewrapSandbox`.

    Building one does no work. What it holds is opened at the first use in an event loop, shared by all who use it there,
    and closed with `aclose`, at the end of `async with sandbox:`, or with the loop.
    """

    @property
    def name(self) -> str:
        """Which kind it is, in metrics and messages."""
        ...

    @property
    def limits(self) -> SandboxLimits:
        """What a session may use."""
        ...

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as in a session
        functions: Functions | None = None,
    ) -> Execution:
        """Run Python in a session of its own, which ends with it; see `SandboxSession.run`."""
        ...

    def session(self) -> SandboxSession:
        """Give a new session; nothing happens before its first run."""
        ...

    async def aclose(self) -> None:
        """End every session and process that it holds in this event loop; it can be used again."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...
