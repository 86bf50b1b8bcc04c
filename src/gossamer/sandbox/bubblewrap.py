"""Full CPython in isolation: a box made by bubblewrap, and in it a worker with walls of its own for each session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Self

from gossamer.per_loop import PerLoop
from gossamer.sandbox.base import Execution, Functions, SandboxLimits
from gossamer.sandbox.box import BoxPlan, bubblewrap_version
from gossamer.sandbox.bubblewrap_session import BubblewrapSession
from gossamer.sandbox.cgroups import find_cgroups
from gossamer.sandbox.packages import files_of, modules_of
from gossamer.sandbox.places import Places
from gossamer.sandbox.request import check_sizes, names_of
from gossamer.sandbox.system_calls import filter_program
from gossamer.sandbox.worker_pool import WorkerPool

__all__ = ["BubblewrapSandbox"]


class BubblewrapSandbox:
    """Runs Python that nobody has read, in full CPython: `BubblewrapSandbox(["numpy", "pandas"])`. See `Sandbox`.

    Needs Linux, the program bwrap, and user namespaces. Where one is missing it says so, and nothing runs. It works as an
    ordinary user and as root. What it holds and what not: `docs/sandbox.md`.

    Args:
        packages: names of installed packages that code may import, with what they depend on; nothing else of this
            environment is there. They are loaded once, ahead. One that is not installed is told of at the first use, by
            an `ArgumentError`.
        network: hosts that code may reach, through a proxy in this process: `api.example.com`, `*.example.org`,
            `example.net:8443`; none where empty. See `docs/sandbox.md`.
        limits: what a session may use.
        size: how many sessions there may be at once.
        warm: how many workers wait for sessions.
        max_waiting: how many sessions may wait for a place.
        wait_timeout: how long, in seconds.

    Raises:
        ArgumentError: an argument is out of range; the message names it.
    """

    name = "bubblewrap"

    def __init__(
        self,
        packages: Sequence[str] = (),
        *,
        network: Sequence[str] = (),
        limits: SandboxLimits | None = None,
        size: int = 4,
        warm: int = 2,
        max_waiting: int = 1000,
        wait_timeout: float = 30.0,
    ) -> None:
        self._limits = check_sizes(
            limits, wait_timeout, size=(size, 1), warm=(warm, 0), max_waiting=(max_waiting, 0)
        )
        self._packages = names_of("packages", packages)
        self._network = _checked(names_of("network", network))
        self._sizes = (size, warm, max_waiting, wait_timeout)
        self._pools: PerLoop[WorkerPool] = PerLoop(self._pool)

    @property
    def limits(self) -> SandboxLimits:
        """What a session may use."""
        return self._limits

    @property
    def packages(self) -> tuple[str, ...]:
        """What code may import beside the standard library, as it was named; what these depend on comes with them."""
        return self._packages

    @property
    def network(self) -> tuple[str, ...]:
        """The hosts that code may reach."""
        return self._network

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

    def session(self) -> BubblewrapSession:
        """Give a new session; nothing happens before its first run."""
        return BubblewrapSession(self._pools.here, self._limits)

    async def check(self) -> str:
        """Open a box of its own, run `1+1` in it, and close it.

        Returns:
            What it uses, with versions.

        Raises:
            SandboxUnavailableError: this machine cannot have it; the message says why, and what to do.
        """
        version = await asyncio.to_thread(bubblewrap_version)
        pool = self._pool()
        try:
            await BubblewrapSession(lambda: pool, self._limits).run("1+1")
        finally:
            await pool.aclose()
        groups = await asyncio.to_thread(find_cgroups)
        return ", ".join(
            (
                version,
                "user namespaces",
                "seccomp",
                "as root, through an unprivileged user" if os.geteuid() == 0 else "as an ordinary user",
                f"without control groups ({groups})"
                if isinstance(groups, str)
                else f"cgroups v{groups.version}",
            )
        )

    async def aclose(self) -> None:
        """End every session and process that it holds in this event loop; it can be used again."""
        await self._pools.aclose()

    async def __aenter__(self) -> Self:
        """Open the box ahead, so that the first session finds a warm worker.

        Raises:
            SandboxUnavailableError: this machine cannot have it.
        """
        await self._pools.here().open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _pool(self) -> WorkerPool:
        size, warm, max_waiting, wait_timeout = self._sizes
        places = Places(self.name, size, max_waiting, wait_timeout)
        return WorkerPool(self._plan, self._limits, self._network, places, size, warm)

    def _plan(self) -> BoxPlan:
        packages = self._packages
        return BoxPlan(
            self._limits,
            filter_program(network=bool(self._network)),
            files_of(packages) if packages else {},
            modules_of(packages) if packages else (),
            network=bool(self._network),
        )


def _checked(network: tuple[str, ...]) -> tuple[str, ...]:
    """Check the hosts of an allow-list.

    Raises:
        ArgumentError: one cannot be allowed.
    """
    if network:
        from gossamer.sandbox.allow_list import AllowList

        AllowList(network)
    return network
