"""A conversation's place in a sandbox: what runs there, one after the other, and the files that come of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gossamer.errors import ArgumentError, SandboxError
from gossamer.sandbox import Execution, Sandbox, SandboxFile, SandboxSession
from gossamer.tools.function import Tool
from gossamer.tools.opened import OpenedToolkits, open_in
from gossamer.tools.toolkit import Toolkit

__all__ = [
    "CommandSandbox",
    "CommandSession",
    "Files",
    "Place",
    "Ran",
    "must_run_commands",
    "place_in",
    "sandbox_session",
]

Files = Mapping[str, bytes | str]

_GONE = "The session is closed: variables and files of earlier calls are gone, and the next call begins anew."


class CommandSession(SandboxSession, Protocol):
    """A session of a sandbox that runs programs, too."""

    async def command(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        files: Mapping[str, bytes | str] | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as in `run`
    ) -> Execution:
        """Run a program in the session's folder and wait for it; its exit code is the value."""
        ...


class CommandSandbox(Sandbox, Protocol):
    """A sandbox that runs programs, too: `BubblewrapSandbox`."""

    def session(self) -> CommandSession:
        """Give a new session."""
        ...


SessionT = TypeVar("SessionT", bound=SandboxSession)


class Ran(msgspec.Struct, frozen=True):
    """What came of a call.

    Attributes:
        execution: what the sandbox gave.
        changed: files that are new, or of another size than before.
        began: whether it was the first of its session.
    """

    execution: Execution
    changed: tuple[SandboxFile, ...]
    began: bool


class Place(Generic[SessionT]):
    """One session of a sandbox at a time, begun at the first call, and anew behind one that was closed.

    It is what a toolkit gives when it is opened: called, it tells the tools.

    Args:
        begin: gives a new session.
        files: what is put into each session with its first call.
        tools: makes the tools, given this.
    """

    instructions = ""

    def __init__(
        self,
        begin: Callable[[], SessionT],
        files: Files,
        tools: Callable[[Place[SessionT]], tuple[Tool[..., Any], ...]],
    ) -> None:
        self._begin = begin
        self._files = files
        self._session: SessionT | None = None
        self._filled = False
        self._known: dict[str, int] = {}
        self._in_turn = asyncio.Lock()
        self._tools = tools(self)

    def __call__(self) -> tuple[Tool[..., Any], ...]:
        """Tell the tools."""
        return self._tools

    @property
    def session(self) -> SessionT:
        """The session, a new one where there is none or it is closed."""
        if self._session is None or self._session.closed:
            self._session = self._begin()
            self._filled = False
            self._known = {}
        return self._session

    async def use(self, work: Callable[[SessionT, Files | None], Awaitable[Execution]]) -> Ran:
        """Do something in the session, after what is being done there.

        Args:
            work: takes the session, and the files that are to be put there.

        Raises:
            SandboxError: it failed; the message says so where the session is closed.
        """
        async with self._in_turn:
            session = self.session
            began = not self._filled
            if began:
                self._known = {name: len(_encoded(content)) for name, content in self._files.items()}
            try:
                execution = await work(session, self._files if began else None)
            except SandboxError as error:
                self._filled = not session.closed and (self._filled or bool(getattr(error, "kind", "")))
                if session.closed:
                    raise with_words(error, f"{error}\n{_GONE}") from error
                raise
            self._filled = True
            return Ran(execution, await self._changed(session), began)

    async def aclose(self) -> None:
        """End the session."""
        if self._session is not None:
            await self._session.aclose()

    async def _changed(self, session: SessionT) -> tuple[SandboxFile, ...]:
        try:
            files = await session.files()
        except SandboxError:  # closed meanwhile; what ran has run all the same
            return ()
        changed = tuple(file for file in files if self._known.get(file.name) != file.size)
        self._known = {file.name: file.size for file in files}
        return changed


def place_in(
    begin: Callable[[], SessionT],
    files: Files | None,
    tools: Callable[[Place[SessionT]], tuple[Tool[..., Any], ...]],
) -> Callable[[], AbstractAsyncContextManager[Place[SessionT]]]:
    """Make the `open` of a toolkit whose tools work in a sandbox. Nothing is started before one is called.

    Args:
        begin: gives a new session of the sandbox.
        files: what is put into each session.
        tools: makes the tools, given their place.
    """
    kept = dict(files or {})

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Place[SessionT]]:
        place = Place(begin, kept, tools)
        try:
            yield place
        finally:
            await place.aclose()

    return opened


def with_words(error: SandboxError, words: str) -> SandboxError:
    """Give the same error with another message."""
    other = copy.copy(error)
    other.args = (words,)
    return other


def must_run_commands(sandbox: Any) -> None:
    """Check that a sandbox runs programs.

    Raises:
        ArgumentError: it does not.
    """
    if not hasattr(sandbox.session(), "command"):
        raise ArgumentError(
            f"sandbox: {type(sandbox).__name__} runs Python and no programs; give a BubblewrapSandbox"
        )


class _HasOpened(Protocol):
    @property
    def opened(self) -> OpenedToolkits: ...


async def sandbox_session(toolkit: Toolkit, session: _HasOpened) -> SandboxSession:
    """Give the sandbox session in which the tools of a conversation work, to put files there and to take some out.

    ```python
    interpreter = python()
    agent = Agent("openai:gpt-5-mini", tools=[interpreter])
    async with Session() as session:
        await (await sandbox_session(interpreter, session)).run("", files={"sales.csv": uploaded})
        await agent.run("Which month was best? Write the totals to totals.csv", session=session)
        totals = await (await sandbox_session(interpreter, session)).read("totals.csv")
    ```

    It is the tools' own: what was put there is there for them. One that a limit closed is replaced by the next call, so
    ask for it anew behind each run.

    Args:
        toolkit: one of `python()` or `shell()`, the same object that the agent has.
        session: the conversation.

    Raises:
        ArgumentError: the toolkit keeps no sandbox for a session.
    """
    if toolkit.scope == "session" and toolkit.open is not None:
        one = open_in(session.opened, toolkit)
        await one.ready()
        if isinstance(one.equip, Place):
            place: Place[SandboxSession] = one.equip
            return place.session
    raise ArgumentError(f"toolkit {toolkit.name!r} keeps no sandbox for a session; python() and shell() do")


def _encoded(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else content.encode()
