"""A sandbox that runs nothing: what it is asked is noted, and what comes of it is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

from gossamer.errors import SandboxClosedError
from gossamer.sandbox import Execution, SandboxFile, SandboxLimits

__all__ = ["FakeSandbox", "FakeSession"]


class FakeSession:
    """A session in which nothing runs; files are kept."""

    def __init__(self, sandbox: FakeSandbox) -> None:
        self.sandbox = sandbox
        self.closed = False
        self.kept: dict[str, bytes] = {}
        self.put: list[dict[str, bytes | str] | None] = []
        self.busy = False
        sandbox.sessions.append(self)

    async def run(self, code: str, *, files=None, outputs=(), timeout=None, functions=None) -> Execution:
        return await self._do(code, files, timeout)

    async def command(
        self, argv: Sequence[str], *, stdin=b"", files=None, outputs=(), timeout=None
    ) -> Execution:
        return await self._do(list(argv), files, timeout)

    async def _do(self, asked: Any, files: Any, timeout: float | None) -> Execution:
        if self.closed:
            raise SandboxClosedError("the session is closed")
        assert not self.busy, "one thing at a time"
        self.busy = True
        try:
            await asyncio.sleep(0)
            self.put.append(files)
            self.kept.update(files or {})
            if asked == "":  # files alone
                return Execution()
            self.sandbox.asked.append((asked, timeout))
            came = self.sandbox.script(self, asked)
            if isinstance(came, Exception):
                raise came
            return came
        finally:
            self.busy = False
            came = None  # an error that its own traceback leads to is let go of late

    async def read(self, name: str) -> bytes:
        return self.kept[name]

    async def files(self) -> tuple[SandboxFile, ...]:
        if self.closed:
            raise SandboxClosedError("the session is closed")
        return tuple(SandboxFile(name, len(content)) for name, content in sorted(self.kept.items()))

    async def aclose(self) -> None:
        self.closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class FakeSandbox:
    """Gives sessions that do what a function says.

    Args:
        script: given the session and what is asked, gives an Execution or an error.
        limits: the limits.
    """

    name = "fake"

    def __init__(
        self,
        script: Callable[[FakeSession, Any], Any] = lambda *_: Execution(),
        limits: SandboxLimits | None = None,
    ) -> None:
        self.script = script
        self.limits = limits or SandboxLimits()
        self.sessions: list[FakeSession] = []
        self.asked: list[tuple[Any, float | None]] = []

    @property
    def used(self) -> list[FakeSession]:
        """The sessions in which something was run."""
        return [session for session in self.sessions if session.put]

    def session(self) -> FakeSession:
        return FakeSession(self)

    async def run(self, code: str, **options: Any) -> Execution:
        async with self.session() as session:
            return await session.run(code, **options)

    async def aclose(self) -> None:
        for session in self.sessions:
            await session.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
