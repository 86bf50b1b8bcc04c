"""The extractions that wait in a store, done one after another on a loop, behind the runs' backs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from time import time
from weakref import WeakKeyDictionary

from gossamer.errors import StoreError
from gossamer.stores.memories import Claimed, Extraction, MemoryKind, MemoryStore
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["Background"]

# Seconds before an extraction that failed is tried again; after the last of them it is dropped.
WAITS: tuple[float, ...] = (1.0, 10.0, 60.0, 600.0)

# Seconds before it is looked again what waits, where the store could not be asked.
STORE_WAIT = 10.0


class _OnLoop:
    """What is under way on one loop."""

    __slots__ = ("again", "storing", "task", "timer")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.again = False
        self.storing: set[asyncio.Future[int]] = set()


class Background:
    """Has extractions done: one at a time on each loop that asks for some, none while none waits.

    Args:
        store: gives where they wait.
        kind: of what memories.
        agents: gives the agents whose runs it does; None for those of any.
        extract: does one.
        most: how many of an agent may wait; beyond, the oldest are dropped.
    """

    def __init__(
        self,
        store: Callable[[], MemoryStore],
        kind: MemoryKind,
        agents: Callable[[], Sequence[str] | None],
        extract: Callable[[Claimed], Awaitable[None]],
        most: int,
    ) -> None:
        self._store = store
        self._kind: MemoryKind = kind
        self._agents = agents
        self._extract = extract
        self._most = most
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = WeakKeyDictionary()

    def queue(self, extraction: Extraction) -> asyncio.Future[int]:
        """Let an extraction wait, and have it done once it is stored. Waits for nothing.

        Returns:
            What to await until it is stored; what goes wrong is told in the log as well.
        """
        here = self._here()
        stored = self._store().queue(extraction, self._most)
        here.storing.add(stored)

        def done(future: asyncio.Future[int]) -> None:
            here.storing.discard(future)
            if future.cancelled():
                return
            if (error := future.exception()) is not None:
                self._tell(extraction, error, "could not be stored, and is lost")
                return
            if dropped := future.result():
                logger.error(
                    "%s extractions of %s memories of agent %s were dropped: more than %s waited",
                    dropped,
                    self._kind,
                    extraction.agent,
                    self._most,
                )
                self._count("dropped", dropped)

        stored.add_done_callback(done)
        self._wake(here)  # now: a task begun by the callback could come after the loop has ended all of them
        return stored

    def wake(self) -> None:
        """Look what waits, such as what another process left behind when it died."""
        self._wake(self._here())

    @property
    def is_new_here(self) -> bool:
        """Whether nothing was asked for on this loop yet."""
        return asyncio.get_running_loop() not in self._loops

    async def flush(self) -> None:
        """Wait until all is done that is due and that this process may do; what failed waits for its next attempt."""
        here = self._here()
        self._wake(here)
        while here.task is not None and not here.task.done():
            await asyncio.wait([here.task])

    async def aclose(self, within: float) -> None:
        """The same, for a limited time; what is not done then waits in the store.

        Args:
            within: seconds.
        """
        here = self._here()
        try:
            async with asyncio.timeout(within):
                await self.flush()
        except TimeoutError:
            logger.warning(
                "%s memories were not extracted within %s s; what is left waits in the store",
                self._kind,
                within,
            )
        task = here.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if here.timer is not None:
            here.timer.cancel()
            here.timer = None

    def _here(self) -> _OnLoop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            for other in [one for one in self._loops if one.is_closed()]:
                del self._loops[other]  # a timer of its own would keep it
            here = self._loops[loop] = _OnLoop()
        return here

    def _wake(self, here: _OnLoop) -> None:
        here.again = True
        if here.task is None or here.task.done():
            here.task = asyncio.get_running_loop().create_task(self._drain(here), name="gossamer-memory")
            here.task.add_done_callback(functools.partial(self._ended, here))

    def _ended(self, here: _OnLoop, task: asyncio.Task[None]) -> None:
        """Look again later where the store failed, for nobody else may ask this process to."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the extraction of %s memories rests for %g s: %s", self._kind, STORE_WAIT, error)
            self._wake_at(here, STORE_WAIT)

    async def _drain(self, here: _OnLoop) -> None:
        """Do what is due; end where nothing is, with a timer for what is due later."""
        while here.again:
            here.again = False
            while here.storing:
                await asyncio.wait(set(here.storing))
            while True:
                agents = self._agents()
                if agents is not None and not agents:
                    break
                claimed = await self._claim(agents)
                if isinstance(claimed, Claimed):
                    await self._do(claimed)
                    continue
                if claimed is not None:
                    self._wake_at(here, max(claimed - time(), 0.0) + 0.001)
                break

    def _wake_at(self, here: _OnLoop, seconds: float) -> None:
        if here.timer is not None:
            here.timer.cancel()
        here.timer = asyncio.get_running_loop().call_later(seconds, self._wake, here)

    async def _claim(self, agents: Sequence[str] | None) -> Claimed | float | None:
        store = self._store()
        claiming = asyncio.ensure_future(store.claim(self._kind, agents, time()))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claimed = (
                await claiming
            )  # what was taken in this moment would be held for as long as the loop runs
            if isinstance(claimed, Claimed):
                await store.put_back(claimed, 0.0, counted=False)
            raise

    async def _do(self, claimed: Claimed) -> None:
        store = self._store()
        try:
            await self._extract(claimed)
        except asyncio.CancelledError:
            await store.put_back(claimed, 0.0, counted=False)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is to be done
            if claimed.attempts > len(WAITS):
                self._tell(claimed.extraction, error, "failed for the last time and is dropped")
                self._count("dropped")
                await store.put_back(claimed, None, counted=True)
            else:
                wait = WAITS[claimed.attempts - 1]
                self._tell(claimed.extraction, error, f"failed and is tried again in {wait:g} s")
                self._count("failed")
                await store.put_back(claimed, time() + wait, counted=True)
        else:
            self._count("done")

    def _tell(self, extraction: Extraction, error: BaseException, what: str) -> None:
        level = logger.warning if "again" in what or isinstance(error, StoreError) else logger.error
        level(
            "the extraction of %s memories from run %s %s: %s: %s",
            self._kind,
            extraction.run,
            what,
            type(error).__name__,
            error,
        )

    def _count(self, outcome: str, count: int = 1) -> None:
        if metrics.recorder is not None:
            metrics.recorder.extraction_ended(self._kind, outcome, count)
