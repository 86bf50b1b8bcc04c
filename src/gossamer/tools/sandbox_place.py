"""A conversation's place in a sandbox: what runs there, one after the other, and the files that come of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, SandboxClosedError, SandboxError
from gossamer.sandbox import Execution, Sandbox, SandboxFile, SandboxLimits, SandboxSession
from gossamer.sandbox.files import check_uploads
from gossamer.tools.function import Tool
from gossamer.tools.opened import OpenedToolkits, open_in
from gossamer.tools.toolkit import Toolkit

__all__ = [
    "CommandSandbox",
    "CommandSession",
    "Place",
    "Ran",
    "about_files",
    "bound",
    "must_run_commands",
    "place_in",
    "sandbox_session",
    "with_words",
]

_MAX_TOLD = 20  # names of files that a model is told of

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
SessionT_co = TypeVar("SessionT_co", bound=SandboxSession, covariant=True)


class Ran(msgspec.Struct, frozen=True):
    """What came of a call.

    Attributes:
        execution: what the sandbox gave.
        changed: files that are new, or of another size than before.
    """

    execution: Execution
    changed: tuple[SandboxFile, ...]


class _Begins(Protocol[SessionT_co]):
    @property
    def limits(self) -> SandboxLimits: ...

    def session(self) -> SessionT_co: ...


class Place(Generic[SessionT]):
    """One session of a sandbox at a time, begun at the first call, and anew behind one that was closed.

    It is what a toolkit gives when it is opened: called, it tells the tools.

    Args:
        begin: gives a new session.
        files: what is put into each session.
        tools: makes the tools, given this.
    """

    instructions = ""

    def __init__(
        self,
        begin: Callable[[], SessionT],
        files: Mapping[str, bytes],
        tools: Callable[[Place[SessionT]], tuple[Tool[..., Any], ...]],
    ) -> None:
        self._begin = begin
        self._files = files
        self._session: SessionT | None = None
        self._filled = self._used = self._over = False
        self._known: dict[str, int] = {}
        self._in_turn = asyncio.Lock()
        self._tools = tools(self)

    def __call__(self) -> tuple[Tool[..., Any], ...]:
        """Tell the tools."""
        return self._tools

    @property
    def is_new(self) -> bool:
        """Whether no call has been made yet in the session that the next one is made in."""
        return self._session is None or self._session.closed or not self._used

    async def session(self) -> SessionT:
        """Give the session with the files in it, a new one where there is none or it is closed.

        Raises:
            SandboxError: it cannot be had.
        """
        async with self._in_turn:
            return await self._filled_session()

    async def use(self, work: Callable[[SessionT], Awaitable[Execution]]) -> Ran:
        """Do something in the session, after what is being done there.

        Args:
            work: takes the session.

        Raises:
            SandboxError: it failed; the message says so where the session is closed.
        """
        async with self._in_turn:
            session = await self._filled_session()
            self._used = True
            try:
                execution = await work(session)
            except SandboxError as error:
                if session.closed:
                    raise with_words(error, f"{error}\n{_GONE}") from error
                raise
            return Ran(execution, await self._changed(session))

    async def aclose(self) -> None:
        """End the session; no other one is begun."""
        self._over = True
        if self._session is not None:
            await self._session.aclose()

    async def _filled_session(self) -> SessionT:
        if self._over:
            raise SandboxClosedError("the conversation's session was closed, and its sandbox with it")
        session = self._session
        if session is None or session.closed:
            session = self._session = self._begin()
            self._filled = self._used = False
        if not self._filled:
            # By themselves, and not with the first call: whatever becomes of that, nothing puts them there again.
            if self._files:
                await session.run("", files=self._files)
            self._known = {name: len(content) for name, content in self._files.items()}
            self._filled = True
        return session

    async def _changed(self, session: SessionT) -> tuple[SandboxFile, ...]:
        try:
            files = await session.files()
        except SandboxError:  # closed meanwhile; what ran has run all the same
            return ()
        changed = tuple(file for file in files if self._known.get(file.name) != file.size)
        self._known = {file.name: file.size for file in files}
        return changed


def place_in(
    sandbox: _Begins[SessionT],
    files: Mapping[str, bytes | str] | None,
    tools: Callable[[Place[SessionT]], tuple[Tool[..., Any], ...]],
) -> Callable[[], AbstractAsyncContextManager[Place[SessionT]]]:
    """Make the `open` of a toolkit whose tools work in a sandbox. Nothing is started before one is called.

    Args:
        sandbox: where they work.
        files: what is put into each session.
        tools: makes the tools, given their place.

    Raises:
        ArgumentError: a name cannot be that of a file.
        SandboxFileSizeError: a file is larger than the sandbox takes.
        SandboxDiskError: together they are.
    """
    checked = check_uploads(files, sandbox.limits)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Place[SessionT]]:
        place = Place(sandbox.session, checked, tools)
        try:
            yield place
        finally:
            await place.aclose()

    return opened


def about_files(files: Mapping[str, bytes | str] | None) -> str:
    """Say which files are there from the beginning; empty where there are none."""
    if not files:
        return ""
    names = sorted(files)
    more = f" and {len(names) - _MAX_TOLD:,} more" if len(names) > _MAX_TOLD else ""
    return f"In the working folder there is {', '.join(names[:_MAX_TOLD])}{more}."


def bound(pattern: Tool[..., Any], run: Callable[[RunContext[Any], Any], Awaitable[Any]]) -> Tool[..., Any]:
    """Give a tool with the schema of a pattern, which was built once, that works in one place. O(1).

    Args:
        pattern: an async tool.
        run: what it does, given the context and the decoded arguments.
    """
    return msgspec.structs.replace(pattern, function=run, invoke=run)


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
    analyst = python()
    agent = Agent("openai:gpt-5-mini", tools=[analyst])
    async with Session() as session:
        await agent.run("Write the totals of each month to totals.csv", session=session)
        box = await sandbox_session(analyst, session)
        totals = await box.read("totals.csv")
        await box.run("", files={"next-year.csv": uploaded})
    ```

    It is the tools' own: what is put there is there for them. One that a limit closed is replaced at the next use, so
    ask for it anew behind each run.

    Args:
        toolkit: one of `python()` or `shell()`, the same object that the agent has.
        session: the conversation.

    Raises:
        ArgumentError: the toolkit keeps no sandbox for a session.
        SandboxError: where the toolkit has files, a session with them cannot be had.
    """
    if toolkit.scope == "session" and toolkit.open is not None:
        one = open_in(session.opened, toolkit)
        await one.ready()
        place: Any = one.equip
        if type(place) is Place:
            return await cast("Place[SandboxSession]", place).session()
    raise ArgumentError(f"toolkit {toolkit.name!r} keeps no sandbox for a session; python() and shell() do")
