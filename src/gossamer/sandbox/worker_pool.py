"""The workers of one event loop: some wait, warm; each serves one session and is gone after it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from gossamer.errors import SandboxClosedError, SandboxCrashedError, SandboxUnavailableError
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.box import Box, BoxPlan, open_box
from gossamer.sandbox.cgroups import Cgroup, Cgroups, find_cgroups
from gossamer.sandbox.places import Places
from gossamer.sandbox.uncut import to_its_end
from gossamer.sandbox.worker_link import BoxGoneError, Worker, WorkerGoneError
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["WorkerPool"]

# How often a session gets another worker where one died before it began, as when its box was ended meanwhile.
_MOST_TRIES = 3
_DYING_SECONDS = 0.5
# How many workers begin at once: the parent forks one after the other, and its socket holds no long queue.
_MOST_FORKING = 16


class WorkerPool:
    """Opens a box at the first use, and another one where that has ended.

    Args:
        plan: makes what the box holds; may block.
        limits: what a session may use.
        network: the hosts that can be reached; none where empty.
        places: who may be in.
        size: how many workers there may be.
        warm: how many of them wait for sessions.
    """

    def __init__(
        self,
        plan: Callable[[], BoxPlan],
        limits: SandboxLimits,
        network: Sequence[str],
        places: Places,
        size: int,
        warm: int,
    ) -> None:
        self._plan = plan
        self._limits = limits
        self._cgroups: Cgroups | None = None
        self._network = tuple(network)
        self._proxies: set[asyncio.Task[None]] = set()
        self._places = places
        self._size = size
        self._warm = warm
        self._box: Box | None = None
        self._opening = asyncio.Lock()
        self._forking = asyncio.Semaphore(_MOST_FORKING)
        self._idle: deque[Worker] = deque()
        self._busy: set[Worker] = set()
        self._alive: set[Worker] = set()
        self._starting: set[asyncio.Task[Worker | None]] = set()
        self._awaited: deque[asyncio.Future[Worker | None]] = deque()
        self._closed = False

    @property
    def box(self) -> Box | None:
        """The box, where one is open."""
        return self._box

    async def open(self) -> None:
        """Open the box, and let it make warm workers.

        Raises:
            SandboxUnavailableError: this machine cannot have it.
            ArgumentError: a package is not there.
        """
        await self._open_box()
        self._refill()

    async def take(self) -> Worker:
        """Wait for a place, and give a worker that nobody has used.

        Raises:
            SandboxBusyError: none was free in time, or too many wait.
            SandboxClosedError: the sandbox was closed meanwhile.
            SandboxUnavailableError: this machine cannot have it.
            SandboxCrashedError: workers die before they begin.
        """
        await self._places.enter()
        try:
            worker = self._warm_one() or await self._coming() or await self._start()
        except BaseException:
            self._places.leave()
            raise
        self._busy.add(worker)
        self._refill()
        if metrics.recorder is not None:
            metrics.recorder.sandbox_started("bubblewrap")
        return worker

    def give_back(self, worker: Worker) -> None:
        """End a worker; the next session may have its place."""
        worker.end("closed")
        if worker in self._busy:
            self._busy.remove(worker)
            self._places.leave()
            self._refill()

    async def aclose(self) -> None:
        """End everything, and wait until nothing is left. Whatever becomes of the waiting, all is told to end."""
        self._closed = True
        self._places.close()
        self._idle.clear()
        starting, workers, box = list(self._starting), list(self._alive), self._box
        for task in starting:
            task.cancel()
        for worker in workers:
            worker.end("closed")
        if box is not None:
            box.kill()
        async with self._opening:  # a box that is being opened is ended then
            self._box = None
        if starting:
            await asyncio.wait(starting)
        if box is not None:
            await box.close()
        for worker in workers:
            await asyncio.shield(worker.dead)
        if self._proxies:
            await asyncio.wait(self._proxies)

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of what belongs to the parent."""
        self._closed = True
        if self._box is not None:
            self._box.drop_in_child()
        for worker in self._alive:
            worker.drop_in_child()

    def _warm_one(self) -> Worker | None:
        while self._idle:
            worker = self._idle.popleft()
            if worker.alive:
                return worker
        return None

    async def _coming(self) -> Worker | None:
        """Wait for a warm worker that is being made and that nobody else waits for; None where there is none to come."""
        if len(self._awaited) >= len(self._starting):
            return None
        awaited: asyncio.Future[Worker | None] = asyncio.get_running_loop().create_future()
        self._awaited.append(awaited)
        try:
            return await awaited
        except asyncio.CancelledError:
            if awaited.done() and not awaited.cancelled() and (worker := awaited.result()) is not None:
                self._idle.append(worker)
            raise

    async def _start(self) -> Worker:
        for tries in range(1, _MOST_TRIES + 1):
            box = await self._open_box()
            try:
                async with self._forking:
                    worker = await Worker.start(box, self._limits, await self._group())
            except BoxGoneError as error:
                await box.close()
                if tries == _MOST_TRIES:
                    raise SandboxCrashedError(
                        f"the box of the sandbox bubblewrap ends at once: {error}"
                    ) from error
            except WorkerGoneError as error:
                if tries == _MOST_TRIES:
                    raise SandboxCrashedError(
                        f"workers of the sandbox bubblewrap do not begin: {error}"
                    ) from error
                if "Operation not permitted" in str(error):  # nothing has begun yet, and nothing will
                    raise SandboxUnavailableError(
                        f"BubblewrapSandbox cannot be had here: {error}; a namespace inside bubblewrap's is forbidden"
                    ) from error
                # It may have gone with its box, which is about to end: then the next one shall be of another box.
                await asyncio.wait((box.ended,), timeout=_DYING_SECONDS)
            else:
                if self._closed:
                    worker.end("closed")
                    await asyncio.shield(worker.dead)
                    raise SandboxClosedError("the sandbox bubblewrap was closed while a session began")
                self._alive.add(worker)
                worker.dead.add_done_callback(partial(self._forget, worker))
                if worker.listening is not None:
                    try:
                        self._lead_out(worker)
                    except BaseException:
                        worker.end("there is no way out")
                        raise
                return worker
        raise AssertionError

    def _lead_out(self, worker: Worker) -> None:
        """Serve the way out of a worker until it has ended."""
        from gossamer.sandbox.proxy import AllowListProxy

        proxy = AllowListProxy(self._network)
        listening, worker.listening = worker.listening, None  # it is the proxy's from here on
        assert listening is not None, "a worker of a box with a network listens"
        proxy.serve(listening)

        async def close() -> None:
            await asyncio.shield(worker.dead)
            await proxy.aclose()

        task = asyncio.get_running_loop().create_task(close(), name="gossamer-sandbox-proxy")
        self._proxies.add(task)
        task.add_done_callback(self._proxies.discard)

    def _forget(self, worker: Worker, _: object) -> None:
        self._alive.discard(worker)

    async def _group(self) -> Cgroup | None:
        """Make the control group of a worker, where this machine lets one."""
        if self._cgroups is None:
            return None
        limits = self._limits
        # What stands in its files counts there too, and process 1 and the interpreter are processes.
        loop = asyncio.get_running_loop()
        making = loop.run_in_executor(
            None, self._cgroups.make, limits.memory_bytes + limits.disk_bytes, limits.processes + 2
        )
        cancelled = await to_its_end(making)
        made = making.result()
        if cancelled is None:
            return made
        if made is not None:
            await to_its_end(loop.run_in_executor(None, made.remove))
        raise cancelled

    async def _open_box(self) -> Box:
        async with self._opening:
            if self._box is not None and self._box.ended.done():
                self._box.kill()
                self._box = None
                logger.warning(
                    "the box of a sandbox has ended, and every session in it; another one is opened"
                )
            if self._box is None and not self._closed:
                try:
                    found = await asyncio.to_thread(find_cgroups)
                    self._cgroups = None if isinstance(found, str) else found
                    box = await open_box(await asyncio.to_thread(self._plan))
                except OSError as error:
                    raise SandboxUnavailableError(
                        f"BubblewrapSandbox cannot be had now: {error}; close files or end processes, or allow more"
                    ) from error
                self._box = box
                if self._closed:
                    self._box = None
                    await box.close()
            if self._box is None or self._closed:
                raise SandboxClosedError("the sandbox bubblewrap was closed while a session began")
            return self._box

    def _refill(self) -> None:
        """Let warm workers be made, as many as are missing and have a place."""
        if self._closed:
            return
        wanted = min(self._warm, self._size - self._places.taken) - len(self._idle) - len(self._starting)
        for _ in range(wanted):
            task = asyncio.get_running_loop().create_task(self._warm_up(), name="gossamer-sandbox-worker")
            self._starting.add(task)
            task.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[Worker | None]) -> None:
        """Give a warm worker to who waits for it, or keep it; where there is none, who waits makes one for himself."""
        self._starting.discard(task)
        worker = None if task.cancelled() or task.exception() is not None else task.result()
        while self._awaited:
            awaited = self._awaited.popleft()
            if not awaited.done():
                awaited.set_result(worker)
                return
        if worker is not None:
            self._idle.append(worker)

    async def _warm_up(self) -> Worker | None:
        try:
            return await self._start()
        except SandboxClosedError:
            return None
        except (SandboxCrashedError, SandboxUnavailableError) as error:
            logger.warning("no warm worker: %s", error)  # whoever comes next tries for himself, and is told
            return None
