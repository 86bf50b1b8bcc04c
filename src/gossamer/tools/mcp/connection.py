"""A connection to an MCP server: kept by one task, made again when it breaks, shared by many calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from typing import Any, Self, TypeVar

import mcp_types as types
from mcp.client.session import ClientRequestContext
from mcp.shared.exceptions import MCPError as WireError

from gossamer.context import CallPaused, RunContext
from gossamer.errors import MCPBusyError, MCPConnectionError, MCPError, MCPTimeoutError
from gossamer.schema import words_of
from gossamer.telemetry.logging import logger
from gossamer.tools.execution import LastWord
from gossamer.tools.function import Tool
from gossamer.tools.mcp.asking import call_tool, followed, list_all
from gossamer.tools.mcp.calls import Ongoing, ask, current
from gossamer.tools.mcp.content import Content
from gossamer.tools.mcp.dispatcher import Dispatcher
from gossamer.tools.mcp.offered import tools_of
from gossamer.tools.mcp.parked import Parked, Waiting
from gossamer.tools.mcp.session import Session
from gossamer.tools.mcp.settings import EXPIRED, UNREACHED, NotSentError, Settings

__all__ = ["Connection"]

T = TypeVar("T")

# Attempts to connect are this far apart, in seconds: doubling from the first to the last.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

# A connection that held this long, in seconds, begins anew with the first pause.
_STEADY_SECONDS = 5.0

# How long a connection may take to close before it is cut, in seconds.
_CLOSING_SECONDS = 4.0

# How long calls under way may take to be refused by a server that has forgotten the session, in seconds.
_REFUSAL_SECONDS = 1.0

# How long the result of a call waits for tools that the server changed before it answered, in seconds.
_REFRESH_SECONDS = 1.0

# How much of a server's instructions goes into the prompt.
_INSTRUCTION_CHARS = 20_000

# The package's own log goes where the application sends it, and nowhere by itself.
for _name in ("mcp", "client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class Connection:
    """What an opened `MCPServer` gives: tells its tools, calls them, asks for resources and prompts.

    An async context manager. One task, the owner, enters and leaves what the official package holds open. When the
    connection breaks, the calls under way fail, and the next one has it made again. The owner goes through these states:

    | state | told by | leads to |
    |---|---|---|
    | connecting | no `_session`, not `_served` | up; idle after a failure, which those who wait are told |
    | up | `_session`, `_served`, `_ready` has it | lost when the server ends, forgets the session or takes no request |
    | lost | `_served`, no `_session`, a new `_ready` | unwinding once `_down` is set: at the end of the stream, by the last call |
    | | | that asked the lost session, or a second after it was lost |
    | unwinding | `_down` is set, `_unwound` is not | idle; calls under way are told that the connection broke |
    | idle | `_unwound` is set | connecting, after a pause, once `_wanted` is set by whoever needs the session |
    | closed | `_closing` is set, the owner has ended | nothing: those who wait are told so |

    Args:
        settings: how to reach the server.

    Attributes:
        instructions: what the server says of itself.
    """

    def __init__(self, settings: Settings) -> None:
        self.instructions = ""
        self._settings = settings
        self._tools: tuple[Tool[..., Any], ...] = ()
        self._listed: bytes = b""
        self._stale = False
        self._refreshing: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = 0
        self._ongoing: dict[Ongoing, None] = {}  # in the order in which they began
        self._parked = Parked(settings.answer_timeout * 2)
        self._session: Session | None = None
        self._ready: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._wanted = asyncio.Event()
        self._asking = 0
        self._others = 0
        self._served = False
        self._down = asyncio.Event()
        self._unwound = asyncio.Event()
        self._closing = asyncio.Event()
        self._problem = ""
        self._owner: asyncio.Task[None] | None = None

    def __call__(self) -> tuple[Tool[..., Any], ...]:
        """Tell the tools as they are now: the same tuple until they change."""
        return self._tools

    async def __aenter__(self) -> Self:
        keeping = self._keep()
        name = f"gossamer-mcp-{self._settings.name}"
        self._owner = asyncio.get_running_loop().create_task(keeping, name=name, context=Context())
        try:
            await self._up()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    # --- asking ---------------------------------------------------------------------------------------------------

    async def run(
        self, name: str, context: RunContext[Any], arguments: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Call a tool for a model; what the server reports meanwhile comes out as interim values.

        Raises:
            CallPaused: the server asks a person; called again with the same call, this goes on.
            MCPError: one of its children says what went wrong.
        """
        call = context.call
        assert call is not None, "the tool of a server runs inside a call"
        began = asyncio.get_running_loop().time()
        ongoing = self._parked.take((context.run_id, call.id))
        if ongoing is None:
            ongoing = Ongoing(call, context.run_id, self._settings.answer_timeout)
            self._begin(ongoing, name, arguments)
        elif context.session is not None and context.session.turn is not None:
            ongoing.decide(context.session.turn.decisions)
        try:
            while True:
                while ongoing.progress:
                    yield ongoing.progress.popleft()
                if ongoing.task.done():
                    break
                if pending := ongoing.pending:
                    self._parked.put((context.run_id, call.id), ongoing, Waiting(context, call.id))
                    raise CallPaused(pending)
                await ongoing.news()
        except (asyncio.CancelledError, GeneratorExit):
            ongoing.cancel()
            raise
        result = self._result_of(ongoing)
        if self._refreshing is not None:  # the server changed its tools before it answered
            await asyncio.wait((self._refreshing,), timeout=self._patience(began))
        yield LastWord(result)

    async def call(self, name: str, arguments: dict[str, Any]) -> Content:
        """Call a tool for code.

        Raises:
            MCPError: one of its children says what went wrong.
        """
        ongoing = Ongoing(None, "", self._settings.answer_timeout)
        self._begin(ongoing, name, arguments)
        timer = asyncio.timeout(self._settings.timeout)
        try:
            async with timer:
                await asyncio.wait((ongoing.task,))
        except TimeoutError:
            ongoing.cancel()
            if timer.expired():
                raise self._overdue(name) from None
            raise
        except BaseException:
            ongoing.cancel()
            raise
        return self._result_of(ongoing)

    async def ask(self, what: str, question: Callable[[Session], Awaitable[T]]) -> T:
        """Ask for something else than a tool.

        Args:
            what: what it is, for the message of an error.
            question: asks a session.

        Raises:
            MCPError: one of its children says what went wrong.
        """
        timer = asyncio.timeout(self._settings.timeout)
        try:
            async with timer:
                await self._place()
                self._others += 1
                try:
                    return await self._asked(question)
                finally:
                    self._others -= 1
                    self._slots.release()
        except TimeoutError:
            if timer.expired():
                raise self._overdue(what) from None
            raise

    def is_parked(self, run_id: str, call_id: str) -> bool:
        """Tell whether a call of a run waits for a person's answer, or has gone on after it."""
        return (run_id, call_id) in self._parked

    def _begin(self, ongoing: Ongoing, name: str, arguments: dict[str, Any]) -> None:
        self._ongoing[ongoing] = None
        ongoing.start(self._call(ongoing, name, arguments), f"gossamer-mcp-call-{self._settings.name}")
        ongoing.task.add_done_callback(lambda _: self._ongoing.pop(ongoing, None))

    async def _call(self, ongoing: Ongoing, name: str, arguments: dict[str, Any]) -> Content:
        current.set(ongoing)
        if self._slots.locked():
            await self._place()
        else:
            await self._slots.acquire()
        ongoing.let_go = self._slots.release
        try:
            return await self._asked(
                lambda session: call_tool(session, name, arguments, ongoing, self._settings, self._relist)
            )
        finally:
            if ongoing.let_go is not None:
                ongoing.let_go()

    def _result_of(self, ongoing: Ongoing) -> Content:
        if ongoing.task.cancelled():
            raise MCPConnectionError(self._words("the connection was closed"), server=self._settings.name)
        return ongoing.task.result()

    async def _asked(self, question: Callable[[Session], Awaitable[T]]) -> T:
        """Ask a session; once more where nothing came of it: the server had ended before, or forgotten the session."""
        for again in (True, False):
            session = await self._up()
            self._asking += 1
            try:
                return await question(session)
            except MCPError:
                raise
            except NotSentError:
                if self._session is session:
                    self._lose()
                if not again:
                    raise MCPConnectionError(
                        self._words("it ended before it could be asked"), server=self._settings.name
                    ) from None
            except Exception as error:
                if again and isinstance(error, WireError) and error.message == EXPIRED:
                    continue
                raise await self._failure(error) from error
            finally:
                self._asking -= 1
                if not self._asking and self._session is not session:
                    session.down.set()  # it was lost, and the last that asked it has been told
        raise AssertionError("the second attempt returns or raises")

    async def _place(self) -> None:
        """Wait for one of the places for calls.

        Raises:
            MCPBusyError: too many wait for one.
        """
        if self._slots.locked() and self._waiting >= self._settings.max_waiting:
            words = (
                f"{self._settings.max_concurrent} calls are under way and {self._waiting} wait; "
                "raise max_concurrent or max_waiting"
            )
            raise MCPBusyError(self._words(words), server=self._settings.name)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    # --- the tools ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Note that the server has changed its tools, and ask for them."""
        self._stale = True
        if self._session is not None and self._refreshing is None:
            name = f"gossamer-mcp-tools-{self._settings.name}"
            work = self._refresh(self._session)
            self._refreshing = asyncio.get_running_loop().create_task(work, name=name, context=Context())

    async def _refresh(self, session: Session) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while self._stale:
                    await self._relist(session)
        except Exception as error:  # noqa: BLE001 - the tools stay as they were
            logger.warning(
                "MCP server %s: its changed tools could not be read: %s", self._settings.name, words_of(error)
            )
        finally:
            self._refreshing = None

    def _patience(self, began: float) -> float:
        """Tell how long the result of a call may wait for the tools as they are now: never so long that it is late."""
        if self._settings.timeout is None:
            return _REFRESH_SECONDS
        left = began + self._settings.timeout - asyncio.get_running_loop().time()
        return max(0.0, min(_REFRESH_SECONDS, left / 2))

    async def _relist(self, session: Session) -> None:
        self._stale = False
        listed = await list_all(session.list_tools, lambda page: page.tools)
        known = repr(listed).encode()
        if known != self._listed:
            # In a thread: schemas are checked against the schema of schemas.
            self._tools = await asyncio.to_thread(tools_of, listed, self._settings, self)
            self._listed = known

    # --- the connection -------------------------------------------------------------------------------------------

    async def _up(self) -> Session:
        """Give the session; wait while it is being made, or made again.

        Raises:
            MCPError: it cannot be made.
        """
        if self._session is not None:
            return self._session
        if self._owner is None or self._owner.done():
            raise MCPConnectionError(self._words("the connection was closed"), server=self._settings.name)
        self._wanted.set()
        return await asyncio.shield(self._ready)

    async def _keep(self) -> None:
        """Make the connection when it is wanted, keep it, and make it again; the one task that enters and leaves it."""
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while not self._closing.is_set():
                began = loop.time()
                try:
                    await self._connection()
                except Exception as error:  # noqa: BLE001 - whoever waits for it is told
                    failure = self._opening_failure(error)
                    self._problem = self._problem or str(failure)
                    if not self._served:
                        self._wanted.clear()
                        self._ready.set_exception(failure)
                        self._ready.exception()  # marks it as seen
                        self._ready = loop.create_future()
                self._unwound.set()
                failures = 1 if loop.time() - began > _STEADY_SECONDS else failures + 1
                if await self._closes_within(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))):
                    return
                waits = [asyncio.ensure_future(event.wait()) for event in (self._wanted, self._closing)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
        finally:
            if not self._ready.done():
                closed = MCPConnectionError(
                    self._words("the connection was closed"), server=self._settings.name
                )
                self._ready.set_exception(closed)
                self._ready.exception()  # marks it as seen: perhaps nobody waits

    async def _connection(self) -> None:
        """Make one connection and keep it until it breaks, or is to be closed."""
        self._down = asyncio.Event()
        self._unwound.clear()
        self._served = False
        self._problem = ""
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(self._settings.connect_timeout):
                try:
                    session = await self._enter(stack)
                except NotSentError as error:  # it has ended already; why is known in a moment
                    await self._down.wait()
                    raise WireError(types.CONNECTION_CLOSED, "Connection closed") from error
                if self._down.is_set():  # it has ended meanwhile
                    raise WireError(types.CONNECTION_CLOSED, "Connection closed")
            session.down = self._down
            self._session = session
            self._served = True
            self._wanted.clear()
            self._ready.set_result(session)
            if self._stale:  # they have changed since they were listed a moment ago
                self._changed()
            try:
                if not self._closing.is_set():
                    await self._down.wait()
            finally:
                self._lose()
                if self._refreshing is not None:
                    self._refreshing.cancel()
                if self._closing.is_set() and self._ongoing:
                    for ongoing in self._ongoing:
                        ongoing.cancel()
                    await asyncio.wait([one.task for one in self._ongoing], timeout=1.0)

    async def _enter(self, stack: contextlib.AsyncExitStack) -> Session:
        settings = self._settings
        if settings.command:
            from gossamer.tools.mcp.stdio import over_stdio

            streams = await stack.enter_async_context(over_stdio(settings, self._lose, self._ended))
        else:
            from gossamer.tools.mcp.http import over_http

            streams = await stack.enter_async_context(over_http(settings, self._expired))
        dispatcher = Dispatcher(streams, settings.name, self._changed, self._ended)
        session = Session(dispatcher, self._elicit if settings.elicitation else None)
        await stack.enter_async_context(session)
        await session.agree()
        said = session.instructions or ""
        self.instructions = said[:_INSTRUCTION_CHARS] if settings.take_instructions else ""
        offers = session.server_capabilities
        if offers is not None and offers.tools is not None:
            await self._relist(session)
            if offers.tools.list_changed and session.without_handshake:
                await stack.enter_async_context(followed(session, self._changed, settings.name))
        return session

    async def _elicit(
        self,
        context: ClientRequestContext,  # noqa: ARG002 - as the package calls it
        params: types.ElicitRequestParams,
    ) -> types.ElicitResult | types.ErrorData:
        """Find the call in the middle of which a server asks, and ask."""
        ongoing = current.get()
        calls = (ongoing,) if ongoing is not None else self._may_ask()
        if not calls:
            logger.warning(
                "MCP server %s asks for a person's answer, and calls of several runs are under way: it does not say "
                "which it means. Give the MCPServer scope='session'",
                self._settings.name,
            )
            return types.ElicitResult(action="cancel")
        return await ask(calls, params, self._settings.name)

    def _may_ask(self) -> tuple[Ongoing, ...]:
        """Give the calls that a question over standard streams may belong to; none where they are of several runs.

        A call that waits for an answer of its own asks nothing else, unless it is alone.
        """
        sent = [one for one in self._ongoing if one.is_sent and not one.task.done()]
        calls = [one for one in sent if not one.waits_for_answer] or sent
        same = not self._others and len({one.run_id for one in calls}) == 1
        return tuple(calls) if same else ()

    def _expired(self) -> None:
        """Make the connection anew, as the server does not know it any more; those who asked are told so first."""
        if self._session is not None:
            self._lose()
            asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, self._down.set)

    def _ended(self, problem: str = "") -> None:
        """Take note that the server sends nothing any more."""
        self._problem = self._problem or problem
        self._lose()
        self._down.set()

    def _lose(self) -> None:
        """Let further calls wait for the next connection."""
        self._session = None
        if self._served and self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()

    async def _close(self) -> None:
        self._closing.set()
        self._down.set()
        self._parked.clear()
        if self._owner is None:
            return
        done: set[Any] = set()
        if self._session is not None:
            done, _ = await asyncio.wait((self._owner,), timeout=_CLOSING_SECONDS)
        if not done:
            self._owner.cancel()
            await asyncio.wait((self._owner,), timeout=_CLOSING_SECONDS)

    async def _closes_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    # --- what went wrong ------------------------------------------------------------------------------------------

    def _words(self, what: str) -> str:
        return f"MCP server {self._settings.name!r} ({self._settings.address}): {what}"

    def _overdue(self, what: str) -> MCPTimeoutError:
        words = self._words(f"{what} took longer than {self._settings.timeout} seconds")
        return MCPTimeoutError(words, server=self._settings.name)

    async def _failure(self, error: Exception) -> MCPError:
        """Say what went wrong with a request, in our words."""
        name = self._settings.name
        if not isinstance(error, WireError):
            return MCPError(
                self._words(f"it answered with what is not the protocol: {words_of(error)[:500]}"),
                server=name,
            )
        if error.message.startswith(UNREACHED):
            return MCPConnectionError(self._words(error.message), server=name)
        if error.code != types.CONNECTION_CLOSED:
            return MCPError(self._words(error.message), server=name, code=error.code)
        with contextlib.suppress(TimeoutError):  # until it is known why
            async with asyncio.timeout(1.0):
                if self._session is None and not self._problem:
                    await self._unwound.wait()
        why = self._problem or error.message
        words = f"the connection broke while it was asked, so whether it did it is unknown: {why}"
        return MCPConnectionError(self._words(words), server=name)

    def _opening_failure(self, error: Exception) -> MCPError:
        """Say why a connection could not be made, or how it broke."""
        error = _first(error)
        if isinstance(error, MCPError):
            return error
        name = self._settings.name
        if isinstance(error, TimeoutError):
            words = f"it did not answer within {self._settings.connect_timeout} seconds of connecting"
            return MCPTimeoutError(self._words(words), server=name)
        said = (
            words_of(error) if isinstance(error, WireError) else f"{type(error).__name__}: {words_of(error)}"
        )
        why = self._problem or said
        failure = MCPConnectionError(self._words(f"no connection: {why}"), server=name)
        failure.__cause__ = error
        return failure


def _first(error: Any) -> Any:
    """Give the first error inside groups of them."""
    inner: Any = getattr(error, "exceptions", None)
    return _first(inner[0]) if inner else error
