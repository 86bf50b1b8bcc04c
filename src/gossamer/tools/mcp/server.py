"""`MCPServer`: the tools of an MCP server, a toolkit like any other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from msgspec.structs import force_setattr

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.messages import Message
from gossamer.tools.blocks import enter_block, leave_block
from gossamer.tools.function import NeedsApproval, Tool
from gossamer.tools.mcp.content import Content, ResultPart, message_of, parts_of_resource
from gossamer.tools.mcp.listing import MCPPrompt, MCPPromptArgument, MCPResource
from gossamer.tools.mcp.settings import Settings, address_of
from gossamer.tools.opened import open_in, opened_on_loop
from gossamer.tools.toolkit import OnClash, Scope, Toolkit

if TYPE_CHECKING:
    from mcp.client.session import ClientSession

    from gossamer.tools.mcp.connection import Connection

__all__ = ["MCPServer"]

T = TypeVar("T")

# Programs that start another, whose name says more.
_LAUNCHERS = frozenset(
    ("npx", "bunx", "uvx", "uv", "pipx", "python", "python3", "node", "bun", "deno", "env")
)
_LAUNCHER_WORDS = frozenset(("run", "exec", "tool", "-m"))


class MCPServer(Toolkit, frozen=True, eq=False, weakref=True, kw_only=True):
    """The tools of an MCP server: `Agent(…, tools=[MCPServer(command=["uvx", "mcp-server-time"])])`. A value.

    It is started or connected to at the first use and closed when nobody has the value any more, with its event loop,
    or at the end of its `scope`; `async with server:` holds it open. All runs share one connection. When that breaks,
    the calls under way fail, and the next call has it made again.

    Needs `pip install 'gossamer[mcp]'`.

    Attributes:
        command: the program and its arguments, spoken to over its standard streams; or
        url: the address of a server that is running, spoken to over streamable HTTP.
        env: variables for the program, beside `HOME`, `PATH` and a few more: it does not see the others of yours.
        cwd: the folder in which the program runs.
        headers: headers of each request to the URL.
        auth: an `httpx2.Auth` for each request, such as the official package's `OAuthClientProvider`.
        timeout: seconds after which a call is given up, and the server told so; None waits forever.
        connect_timeout: seconds that it may take to start and to agree on the protocol.
        max_concurrent: most calls at once; others wait.
        max_waiting: most calls that wait; further ones fail with `MCPBusyError`.
        max_message_bytes: the largest message taken from the server; a larger one breaks the connection.
        max_result_chars: a longer result is kept aside; the model sees its beginning and a reference.
        elicitation: whether the server may ask a person something in the middle of a call; the run pauses then. Not
            with `scope="run"`: the pause would close the server that waits for the answer.
        answer_timeout: seconds after which such a question is given up.
        take_instructions: whether what the server says of itself goes into the system prompt.
        name: as of a toolkit; made of the command or the URL where it is empty.
        tools: as of a toolkit: further tools of your own.
        description: as of a toolkit, as are those that follow.

    Raises:
        ArgumentError: not one of command and url was given, or an argument is out of range; the message names it.
    """

    command: Sequence[str] = ()
    url: str = ""
    env: Mapping[str, str] | None = None
    cwd: str | Path | None = None
    headers: Mapping[str, str] | None = None
    auth: Any = None
    timeout: float | None = 60.0
    connect_timeout: float = 30.0
    max_concurrent: int = 100
    max_waiting: int = 1_000
    max_message_bytes: int = 16 * 1024 * 1024
    max_result_chars: int = 50_000
    elicitation: bool = True
    answer_timeout: float = 600.0
    take_instructions: bool = True
    # Those of a toolkit once more, so that all are given by name.
    name: str = ""
    tools: Sequence[Tool[..., Any] | Callable[..., Any]] = ()
    description: str = ""
    instructions: str = ""
    on: bool = True
    switchable: bool = False
    needs_approval: NeedsApproval = False
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    on_clash: OnClash = "raise"
    open: Callable[[], Any] | None = None
    scope: Scope = "loop"

    def __post_init__(self) -> None:
        self._check()
        if not self.name:
            force_setattr(self, "name", _name_of(self.command, self.url))
        # Nothing that is opened may hold the value itself: it is closed when nobody has that any more.
        settings = Settings(
            self.name,
            tuple(self.command),
            None if self.env is None else dict(self.env),
            None if self.cwd is None else str(self.cwd),
            self.url,
            None if self.headers is None else dict(self.headers),
            self.auth,
            self.timeout,
            self.connect_timeout,
            self.max_concurrent,
            self.max_waiting,
            self.max_message_bytes,
            self.max_result_chars,
            self.elicitation and self.scope != "run",
            self.answer_timeout,
            self.take_instructions,
        )
        force_setattr(self, "command", settings.command)
        force_setattr(self, "open", lambda: _opened(settings))
        Toolkit.__post_init__(self)

    def __repr__(self) -> str:
        """Tell what it is, without variables, headers and arguments, which may be secret."""
        where = f"command={self.command[0]!r}, …" if self.command else f"url={address_of(self.url)!r}"
        return f"MCPServer(name={self.name!r}, {where})"

    async def __aenter__(self) -> Self:
        await enter_block(self, (self,))
        return self

    async def __aexit__(self, *_: object) -> None:
        await leave_block(self)

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Content:
        """Call a tool, past the model.

        Args:
            tool: its name, as the server gives it.
            arguments: by name; anything JSON can hold.

        Returns:
            Text, or a tuple of text and media in order.

        Raises:
            MCPToolError: the tool says that it failed.
            MCPError: one of its children says what went wrong.
        """
        async with self._connected() as connection:
            return await connection.call(tool, dict(arguments or {}))

    async def list_resources(self) -> tuple[MCPResource, ...]:
        """Tell what can be read of the server.

        Raises:
            MCPError: one of its children says what went wrong.
        """
        from gossamer.tools.mcp.asking import list_all

        found = await self._ask(
            "resources", lambda session: list_all(session.list_resources, lambda page: page.resources)
        )
        return tuple(
            MCPResource(str(one.uri), one.name, one.description or "", one.mime_type or "", one.size)
            for one in found
        )

    async def read_resource(self, uri: str) -> tuple[ResultPart, ...]:
        """Read something of the server.

        Args:
            uri: as in a `MCPResource`, or made after one of the server's templates.

        Returns:
            What it holds, as text, pictures, sound and files.

        Raises:
            MCPError: there is no such thing, or one of its children says what went wrong.
        """
        read = await self._ask(f"resource {uri}", lambda session: session.read_resource(uri))
        return parts_of_resource(read.contents)

    async def list_prompts(self) -> tuple[MCPPrompt, ...]:
        """Tell which prompts the server has ready.

        Raises:
            MCPError: one of its children says what went wrong.
        """
        from gossamer.tools.mcp.asking import list_all

        found = await self._ask(
            "prompts", lambda session: list_all(session.list_prompts, lambda page: page.prompts)
        )
        return tuple(
            MCPPrompt(
                one.name,
                one.description or "",
                tuple(
                    MCPPromptArgument(blank.name, blank.description or "", bool(blank.required))
                    for blank in one.arguments or ()
                ),
            )
            for one in found
        )

    async def prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> list[Message]:
        """Take a prompt of the server, filled in: `await agent.run(await server.prompt("review", {"code": …}))`.

        Args:
            name: as in a `MCPPrompt`.
            arguments: what it is filled in with.

        Raises:
            MCPError: there is no such prompt, or one of its children says what went wrong.
        """
        filled = dict(arguments or {})
        got = await self._ask(f"prompt {name}", lambda session: session.get_prompt(name, filled))
        return [message_of(message) for message in got.messages]

    async def _ask(self, what: str, question: Callable[[ClientSession], Awaitable[T]]) -> T:
        async with self._connected() as connection:
            return await connection.ask(what, question)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Connection, None]:
        """Hold the connection that all runs of the event loop share."""
        one = open_in(opened_on_loop(), self)
        one.users += 1
        try:
            await one.ready()
            yield one.equip
        finally:
            one.users -= 1

    def _check(self) -> None:
        command: Any = self.command
        if isinstance(command, str | bytes) or not all(isinstance(word, str) for word in command):
            raise ArgumentError(f"command must be a list of texts, the program first, not {command!r}")
        if bool(command) == bool(self.url):
            raise ArgumentError("an MCPServer takes either command=[…] or url=…; give one of the two")
        if self.url and not re.match(r"https?://[^/]", self.url):
            raise ArgumentError(f"url must begin with http:// or https://, not {address_of(self.url)!r}")
        odd = ("headers", "auth") if command else ("env", "cwd")
        for field in odd:
            if getattr(self, field) is not None:
                raise ArgumentError(f"{field} is for {'url' if command else 'command'} only")
        if self.timeout is not None and self.timeout <= 0:
            raise ArgumentError(f"timeout must be above 0 seconds, not {self.timeout}")
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ArgumentError(f"{field} must be at least {least}, not {getattr(self, field)}")


_LEAST = {
    "connect_timeout": 0.001,
    "answer_timeout": 0.001,
    "max_concurrent": 1,
    "max_waiting": 0,
    "max_message_bytes": 1_024,
    "max_result_chars": 1,
}


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Connection, None]:
    """Connect, and close.

    Raises:
        ToolkitError: the official package is not installed.
        MCPError: no connection could be made.
    """
    import asyncio

    async with (await asyncio.to_thread(_connection_class))(settings) as connection:
        yield connection


def _connection_class() -> type[Connection]:
    """Load what speaks the protocol: half a second at the first use, so not on the event loop."""
    try:
        from gossamer.tools.mcp.connection import Connection
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types", "jsonschema", "httpx2", "anyio"}:
            raise
        raise ToolkitError(
            f"MCP servers need the package {error.name!r}: pip install 'gossamer[mcp]'"
        ) from error
    return Connection


def _name_of(command: Sequence[str], url: str) -> str:
    """Make a name of what tells a server from others: its package, its program or its host."""
    if url:
        words: Iterator[str] = iter([address_of(url).partition("://")[2].partition("/")[0]])
    else:
        words = (
            re.sub(r"(?<=.)@[^/@]*$|\.(py|js|ts|sh|exe)$", "", word).rpartition("/")[2]
            for word in command
            # A variable set before the program may be a key.
            if not word.startswith("-")
            and "=" not in word
            and word not in _LAUNCHER_WORDS
            and Path(word).stem not in _LAUNCHERS
        )
    said = next(words, Path(command[0]).name if command else "mcp")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", said)[:40].strip("_") or "mcp"
