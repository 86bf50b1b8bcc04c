"""Python in isolation without a system around it: an interpreter of its own, written for code that nobody has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from gossamer.errors import ArgumentError, SandboxError, SandboxUnavailableError
from gossamer.per_loop import PerLoop
from gossamer.sandbox.base import Execution, Functions, SandboxLimits
from gossamer.sandbox.monty_pool import MontyPool
from gossamer.sandbox.places import Places
from gossamer.sandbox.request import check_sizes

if TYPE_CHECKING:
    from gossamer.sandbox.monty_session import MontySession

__all__ = ["MontySandbox"]


class MontySandbox:
    """Runs Python that nobody has read in Monty, a small interpreter for snippets: `MontySandbox()`. See `Sandbox`.

    A session begins within half a millisecond. Code has a part of the language and of the standard library, no packages,
    no classes that inherit, and nothing of a system: its files are in memory, its environment is empty, and the only
    ways out are the functions that it is offered. It runs in processes of the library's, so that one that dies harms
    nobody. Limits on processes are passed over, as there are none. What it holds and what not: `docs/sandbox.md`.

    Args:
        limits: what a session may use. Processor time is the time in which the code computes, on a clock on the wall.
        size: how many sessions there may be at once in an event loop, each in a process of its own.
        warm: how many processes wait for sessions from the first one on.
        max_waiting: how many sessions may wait for a place.
        wait_timeout: how long, in seconds.

    Raises:
        ArgumentError: an argument is out of range; the message names it.
    """

    name = "monty"

    def __init__(
        self,
        *,
        limits: SandboxLimits | None = None,
        size: int = 4,
        warm: int = 1,
        max_waiting: int = 1000,
        wait_timeout: float = 30.0,
    ) -> None:
        self._limits = check_sizes(
            limits, wait_timeout, size=(size, 1), warm=(warm, 0), max_waiting=(max_waiting, 0)
        )
        self._sizes = (size, warm, max_waiting, wait_timeout)
        self._pools: PerLoop[MontyPool] = PerLoop(self._pool)

    @property
    def limits(self) -> SandboxLimits:
        """What a session may use."""
        return self._limits

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the run from outside, not the waiting
        functions: Functions | None = None,
    ) -> Execution:
        """Run Python in a session of its own, which ends with it; see `SandboxSession.run`."""
        session = self.session()
        try:
            return await session.run(code, files=files, outputs=outputs, timeout=timeout, functions=functions)
        finally:
            await session.aclose()

    def session(self, *, snapshot: bytes | None = None) -> MontySession:
        """Give a new session; nothing happens before its first run.

        Args:
            snapshot: what `MontySession.snapshot` gave, to go on from there. Trust it as much as code that runs outside
                of any sandbox. At the first use of the session an `ArgumentError` tells where it is none, was damaged,
                or was written by another version of the library.

        Raises:
            ArgumentError: the snapshot is no bytes.
            SandboxUnavailableError: the library is not installed.
        """
        if snapshot is not None and not isinstance(snapshot, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"snapshot: bytes are wanted, and not {type(snapshot).__name__}")
        return _session_class()(self._pools.here, self._limits, snapshot)

    async def check(self) -> str:
        """Start a process, run `1+1` in it, and end it.

        Returns:
            The library and its version.

        Raises:
            SandboxUnavailableError: this machine cannot have it; the message says why, and what to do.
        """
        session_class = _session_class()
        from pydantic_monty import __version__

        pool = self._pool()
        try:
            made = await session_class(lambda: pool, self._limits).run("1+1")
        except SandboxUnavailableError:
            raise
        except SandboxError as error:
            raise SandboxUnavailableError(f"Monty starts, but cannot run 1+1: {error}") from error
        finally:
            await pool.aclose()
        if made.value != 2:
            raise SandboxUnavailableError(f"Monty says that 1+1 is {made.shown}")
        return f"pydantic-monty {__version__}"

    async def aclose(self) -> None:
        """End every session and process that it holds in this event loop; it can be used again."""
        await self._pools.aclose()

    async def __aenter__(self) -> Self:
        """Start processes ahead, so that the first session finds a warm one.

        Raises:
            SandboxUnavailableError: this machine cannot have it.
        """
        await self._pools.here().open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _pool(self) -> MontyPool:
        processes, warm, max_waiting, wait_timeout = self._sizes
        return MontyPool(
            self._limits, Places(self.name, processes, max_waiting, wait_timeout), processes, warm
        )


def _session_class() -> type[MontySession]:
    """Give the class of sessions, which stands on the library."""
    try:
        from gossamer.sandbox.monty_session import MontySession
    except ImportError as error:
        raise SandboxUnavailableError(
            "Monty needs the library pydantic-monty: pip install 'gossamer[sandbox]'"
        ) from error
    return MontySession
