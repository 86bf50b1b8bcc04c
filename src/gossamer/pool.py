"""A pool of agents that are bound to something scarce: sandboxes, connections, licences. Others need none."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Self, TypeVar

import msgspec

from gossamer.agent import Agent
from gossamer.errors import ArgumentError, GossamerError, PoolExhaustedError
from gossamer.result import Result
from gossamer.schema import words_of
from gossamer.telemetry.logging import logger

__all__ = ["AgentPool", "PoolStatistics"]

OutputT = TypeVar("OutputT")


class PoolStatistics(msgspec.Struct, frozen=True):
    """The state of a pool.

    Attributes:
        size: the most agents at once.
        lent: those at work.
        idle: those that wait for work.
        waiting: borrowers that wait for an agent.
        replaced: agents given up so far: a health check or the clearing up failed.
    """

    size: int
    lent: int
    idle: int
    waiting: int
    replaced: int


class AgentPool(Generic[OutputT]):
    """A bounded number of agents, each held open, lent to one borrower at a time.

    An agent is a value and serves any number of runs at once; a pool is for those whose toolkits hold something
    scarce. Each agent that `make` gives should have toolkits of its own.

        async with AgentPool(make, size=4) as pool:
            result = await pool.run("…")

    A pool belongs to the event loop on which it is first used.

    Args:
        make: makes an agent, sync or async; called when one is wanted and fewer than `size` are there.
        size: the most agents at once.
        wait_timeout: seconds that a borrower waits for an agent.
        max_waiting: the most borrowers that wait; the next one is refused.
        check: tells whether an idle agent is still well, sync or async; called before it is lent again. One that is
            not, or whose check raises, is closed, and another one is made.
        clear: clears what a borrower left in the agent's resources, sync or async; called when it comes back, also after
            a failed run. An agent that cannot be cleared is closed.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        make: Callable[[], Agent[Any, OutputT] | Awaitable[Agent[Any, OutputT]]],
        size: int = 4,
        *,
        wait_timeout: float = 30.0,
        max_waiting: int = 1000,
        check: Callable[[Agent[Any, OutputT]], bool | Awaitable[bool]] | None = None,
        clear: Callable[[Agent[Any, OutputT]], Any] | None = None,
    ) -> None:
        if not callable(make):
            raise ArgumentError(f"make must be a function that gives an Agent, not {type(make).__name__}")
        if size < 1 or max_waiting < 0 or not wait_timeout > 0:
            raise ArgumentError(
                f"size must be 1 or more, max_waiting 0 or more and wait_timeout above 0 seconds; "
                f"they are {size}, {max_waiting} and {wait_timeout}"
            )
        self._make = make
        self._size = size
        self._wait_timeout = wait_timeout
        self._max_waiting = max_waiting
        self._check = check
        self._clear = clear
        self._idle: list[Agent[Any, OutputT]] = []
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._replaced = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def statistics(self) -> PoolStatistics:
        """The state of the pool."""
        lent = self._size - self._free
        return PoolStatistics(self._size, lent, len(self._idle), len(self._waiting), self._replaced)

    @asynccontextmanager
    async def agent(self) -> AsyncGenerator[Agent[Any, OutputT]]:
        """Borrow an agent: `async with pool.agent() as agent`.

        Raises:
            PoolExhaustedError: none came free in time, or too many wait.
            GossamerError: the pool is closed, or an agent could not be made.
        """
        await self._take_place()
        try:
            agent = await self._well_or_new()
        except BaseException:
            self._give_place()
            raise
        try:
            yield agent
        finally:
            # In a task of its own: a borrower that is cancelled must not leave an agent uncleared.
            await asyncio.shield(asyncio.ensure_future(self._take_back(agent)))

    async def run(self, prompt: Any = None, **arguments: Any) -> Result[OutputT]:
        """Borrow an agent and run it; arguments as for `Agent.run`.

        Raises:
            PoolExhaustedError: no agent came free in time, or too many wait.
            GossamerError: what else `Agent.run` raises.
        """
        async with self.agent() as agent:
            return await agent.run(prompt, **arguments)

    async def aclose(self) -> None:
        """Close the idle agents; those at work are closed when they come back, and nobody gets one any more."""
        self._closed = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(_closed())
        self._waiting.clear()
        while self._idle:
            await self._close(self._idle.pop())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take_place(self) -> None:
        """Wait until fewer than `size` agents are lent."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise ArgumentError("a pool belongs to one event loop; make one for each")
            self._loop = loop
        if self._closed:
            raise _closed()
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise PoolExhaustedError(
                f"{len(self._waiting)} borrowers wait for one of {self._size} agents already; make the pool larger"
            )
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._wait_timeout):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_place()  # it was handed over in the very moment
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise PoolExhaustedError(
                    f"none of {self._size} agents came free within {self._wait_timeout:g} seconds; "
                    "make the pool larger or raise wait_timeout"
                ) from None
            raise

    def _give_place(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def _well_or_new(self) -> Agent[Any, OutputT]:
        while self._idle:
            agent = self._idle.pop()
            try:
                if await self._is_well(agent):
                    return agent
            except BaseException:
                await self._give_up(agent)
                raise
            await self._give_up(agent)
        made = self._make()
        agent = await made if inspect.isawaitable(made) else made
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"make gave {type(agent).__name__}, not an Agent")
        return await agent.__aenter__()

    async def _is_well(self, agent: Agent[Any, OutputT]) -> bool:
        if self._check is None:
            return True
        try:
            verdict = self._check(agent)
            return bool(await verdict if inspect.isawaitable(verdict) else verdict)
        except Exception as error:  # noqa: BLE001 - whatever a user's check raises, the agent is not well
            logger.warning(
                "the health check of an agent failed: %s: %s", type(error).__name__, words_of(error)
            )
            return False

    async def _take_back(self, agent: Agent[Any, OutputT]) -> None:
        try:
            if await self._is_cleared(agent) and not self._closed:
                self._idle.append(agent)
            else:
                await self._close(agent)
        finally:
            self._give_place()

    async def _is_cleared(self, agent: Agent[Any, OutputT]) -> bool:
        try:
            cleared = None if self._clear is None else self._clear(agent)
            if inspect.isawaitable(cleared):
                await cleared
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the next borrower must not find what the last one left
            logger.warning("an agent could not be cleared: %s: %s", type(error).__name__, words_of(error))
            self._replaced += 1
            return False
        return True

    async def _give_up(self, agent: Agent[Any, OutputT]) -> None:
        self._replaced += 1
        await self._close(agent)

    async def _close(self, agent: Agent[Any, OutputT]) -> None:
        try:
            await agent.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - the others must be closed too
            logger.warning("an agent could not be closed: %s: %s", type(error).__name__, words_of(error))


def _closed() -> GossamerError:
    return GossamerError("the pool is closed")
