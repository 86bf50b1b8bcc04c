"""One computation of a missing key for all who ask: in this event loop, and by a lease in Redis across processes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from gossamer.cache.redis import milliseconds
from gossamer.cache.scopes import Look, Scope, Tag
from gossamer.cache.scripts import RENEW
from gossamer.errors import CacheError

if TYPE_CHECKING:
    from gossamer.cache.link import Link

__all__ = ["Flight", "Flights", "Lease"]


class Flight:
    """A computation under way, in a task of its own, and those who wait for it.

    It goes on as long as anybody waits; when the last one is cancelled, so is it.

    Args:
        place: the key in memory.
        look: sees whether the key is changed meanwhile.
        scope: of the namespace, when it began.
        tags: what its value will have.

    Attributes:
        woken: set when another process has stored the key, or given its lease back.
    """

    __slots__ = ("look", "place", "scope", "tags", "task", "waiting", "woken")

    def __init__(self, place: str, look: Look, scope: Scope, tags: tuple[Tag, ...]) -> None:
        self.place = place
        self.look = look
        self.scope = scope
        self.tags = tags
        self.task: asyncio.Task[Any] | None = None
        self.waiting = 0
        self.woken = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """Whether its value will be as good as one whose computation begins now."""
        if not self.look.fresh or self.scope is not self.scope.space.scope:
            return False
        return not any(tag.dropped for tag in self.tags)


class Flights:
    """The computations under way on one event loop.

    Attributes:
        waiting: how many callers wait for one.
        flights: by the key in memory.
    """

    __slots__ = ("_tasks", "flights", "waiting")

    def __init__(self) -> None:
        self.flights: dict[str, Flight] = {}
        self.waiting = 0
        self._tasks: set[asyncio.Task[Any]] = set()  # also of those that are not fresh any more

    def begin(self, flight: Flight, work: Coroutine[Any, Any, Any]) -> None:
        """Begin a computation, in place of one that is not fresh any more."""
        self.flights[flight.place] = flight
        flight.task = asyncio.create_task(work, name="gossamer-cache-flight")
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda _: self._end(flight))

    async def join(self, flight: Flight) -> Any:
        """Wait for a computation's value; an error of it is raised to all who wait.

        Raises:
            CacheError: it was cancelled, as closing the cache does, and whoever waits was not.
        """
        task = flight.task
        assert task is not None
        flight.waiting += 1
        self.waiting += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if not task.cancelled() or (caller is not None and caller.cancelling()):
                raise
            raise CacheError(
                "the computation of a value was cancelled, by itself or because the cache was closed"
            ) from error
        finally:
            self.waiting -= 1
            flight.waiting -= 1
            if not flight.waiting and not task.done():
                self._forget(flight)
                task.cancel()

    def wake(self, place: str) -> None:
        """Tell whoever waits for another process that something has happened to the key."""
        flight = self.flights.get(place)
        if flight is not None:
            flight.woken.set()

    def wake_all(self) -> None:
        """Tell all who wait for another process."""
        for flight in self.flights.values():
            flight.woken.set()

    async def aclose(self) -> None:
        """Cancel all of them."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _end(self, flight: Flight) -> None:
        self._forget(flight)
        if flight.task is not None:
            self._tasks.discard(flight.task)
        flight.look.close()

    def _forget(self, flight: Flight) -> None:
        if self.flights.get(flight.place) is flight:
            del self.flights[flight.place]


class Lease:
    """The right to compute a key, across processes; renewed as long as the computation takes.

    Args:
        link: the way to Redis.
        key: of the lease.
        token: who holds it.
        seconds: how long it lasts without being renewed.
    """

    __slots__ = ("_key", "_link", "_renewal", "_seconds", "_timer", "_token")

    def __init__(self, link: Link, key: bytes, token: bytes, seconds: float) -> None:
        self._link = link
        self._key = key
        self._token = token
        self._seconds = seconds
        self._renewal: asyncio.Task[None] | None = None
        # Most computations are over before the first renewal, so that there is a timer and no task.
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._later()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds / 3, self._begin)

    def _begin(self) -> None:
        self._renewal = asyncio.create_task(self._renew(), name="gossamer-cache-lease")

    async def _renew(self) -> None:
        # Whatever comes of it: a lease that was lost is met when the value is stored.
        await self._link.run(RENEW, (self._key,), self._token, milliseconds(self._seconds))
        self._later()
