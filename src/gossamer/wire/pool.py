"""The connections of one event loop: for each host a stack of idle ones, and a queue for those who wait."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

import msgspec

from gossamer.errors import ConnectError, PoolTimeoutError, ReadTimeoutError
from gossamer.wire.dial import Resolver, Route, dial, take_early
from gossamer.wire.http1 import BufferedHttp1Connection, Http1Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["HostPool", "HostStatistics", "Pool", "pool_of", "statistics"]

IDLE_LIMIT = 2_000
"""The most idle connections of one host; the longest idle one is closed for a newer one."""

IDLE_SECONDS = 55.0
"""The longest time a connection lies idle: a little less than the usual 60 seconds of load balancers."""

OPENING_LIMIT = 256
"""The most connections of one host that are being opened at once; servers drop what their queue cannot hold."""

_SWEEP_SECONDS = 15.0
_RECEIVE_SIZE = 64 * 1024


class HostStatistics(msgspec.Struct, frozen=True):
    """The connections to one host, as they are now.

    Attributes:
        host: scheme, host and port.
        proxy: host and port of the proxy on the way; empty where there is none.
        open: connections, idle, in use and being opened.
        idle: open connections without a request.
        waiting: requests that wait for a connection.
        limit: the most connections; beyond it requests wait, first come first served.
    """

    host: str
    proxy: str
    open: int
    idle: int
    waiting: int
    limit: int


class HostPool:
    """The connections of one route. Taking and giving back are O(1).

    Args:
        pool: the loop's pool.
        route: where they lead.
    """

    __slots__ = (
        "_idle",
        "_loop",
        "_opening",
        "_places",
        "_pool",
        "_waiting",
        "context",
        "name",
        "receive_buffer",
        "route",
    )

    def __init__(self, pool: Pool, route: Route, loop: asyncio.AbstractEventLoop) -> None:
        self.name = route.name
        self.route = route
        self.context = pool.context
        self.receive_buffer = pool.receive_buffer
        self._pool = pool
        self._loop = loop
        # Dictionaries for their order: the newest idle one is taken first, any can leave in O(1).
        self._idle: dict[Http1Connection, None] = {}
        self._waiting: OrderedDict[asyncio.Future[Http1Connection | None], None] = OrderedDict()
        self._places = 0
        self._opening = 0

    async def acquire(self, *, connect: float, patience: float, deadline: float | None) -> Http1Connection:
        """Lend a connection: the one given back last, or a new one, or whichever comes free.

        Args:
            connect: seconds for opening a new one.
            patience: seconds to wait for one to come free.
            deadline: when on the monotonic clock all must be over, or None.

        Returns:
            A connection that the caller must use, give back or vacate.

        Raises:
            PoolTimeoutError: none came free in time.
            ConnectError: a new one could not be opened.
            ReadTimeoutError: the deadline passed.
        """
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if not connection.is_closing:
                connection.is_lent = True
                return connection
            self.vacate(connection)
        if not self._waiting and self._places < self.route.limit and self._opening < OPENING_LIMIT:
            self._places += 1
            self._opening += 1
        else:
            handed = await self._wait(patience, deadline)
            if handed is not None:
                return handed
        return await self._open(connect, deadline)

    async def replace(
        self, connection: Http1Connection, *, connect: float, deadline: float | None
    ) -> Http1Connection:
        """Open a new connection in the place of a lent one that was found dead.

        Args:
            connection: the dead one.
            connect: seconds for opening.
            deadline: when on the monotonic clock all must be over, or None.

        Returns:
            A new connection.

        Raises:
            ConnectError: it could not be opened.
            ReadTimeoutError: the deadline passed.
        """
        connection.has_place = False
        self._opening += 1
        return await self._open(connect, deadline)

    def give_back(self, connection: Http1Connection) -> None:
        """Take a connection back that is as good as new: for the first who waits, else onto the stack. O(1)."""
        if self._pool.closed or connection.is_closing:
            self.vacate(connection)
            connection.close()
            return
        connection.is_reused = True
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.is_lent = False
        connection.idle_since = monotonic()
        self._idle[connection] = None
        if len(self._idle) > IDLE_LIMIT:
            self._drop(next(iter(self._idle)))
        self._pool.sweep_later()

    def vacate(self, connection: Http1Connection) -> None:
        """Free the place of a connection that is of no more use; O(1), idempotent."""
        self._idle.pop(connection, None)
        if connection.has_place:
            connection.has_place = False
            self._places -= 1
            self._admit()

    def forget(self, connection: Http1Connection) -> None:
        """Note that a connection's transport is closed; O(1)."""
        self._pool.connections.discard(connection)

    def sweep(self, now: float) -> bool:
        """Close what has lain idle for too long; O(closed).

        Args:
            now: the time on the monotonic clock.

        Returns:
            True while there are idle connections left.
        """
        while self._idle:
            oldest = next(iter(self._idle))
            if now - oldest.idle_since < IDLE_SECONDS:
                return True
            self._drop(oldest)
        return False

    @property
    def is_empty(self) -> bool:
        """True where nothing is open, being opened or waited for."""
        return not self._places and not self._waiting

    def statistics(self) -> HostStatistics:
        """Return the figures of this moment."""
        proxy = self.route.proxy
        return HostStatistics(
            host=self.name,
            proxy="" if proxy is None else f"{proxy.host}:{proxy.port}",
            open=self._places,
            idle=len(self._idle),
            waiting=len(self._waiting),
            limit=self.route.limit,
        )

    def _drop(self, connection: Http1Connection) -> None:
        self.vacate(connection)
        connection.close()

    def _admit(self) -> None:
        """Let those who wait open connections, as far as there is room."""
        while self._waiting and self._places < self.route.limit and self._opening < OPENING_LIMIT:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                self._places += 1
                self._opening += 1
                waiter.set_result(None)

    async def _wait(self, patience: float, deadline: float | None) -> Http1Connection | None:
        """Wait in line for a connection, or for None: leave to open one, with its place taken already."""
        left = patience if deadline is None else min(patience, deadline - monotonic())
        waiter: asyncio.Future[Http1Connection | None] = self._loop.create_future()
        self._waiting[waiter] = None
        timer = self._loop.call_later(max(left, 0.0), _expire, waiter, context=self.context)
        try:
            return await waiter
        except TimeoutError:
            if left < patience:
                raise ReadTimeoutError(
                    f"{self.name}: the total time ran out while the request waited for a connection"
                ) from None
            raise PoolTimeoutError(
                f"no connection to {self.name} came free within {patience:g} s: {self._places} of "
                f"{self.route.limit} are open; raise max_connections or timeouts.pool, or send less at once"
            ) from None
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:
                # Handed over in the very moment of the cancellation.
                handed = waiter.result()
                if handed is not None:
                    self.give_back(handed)
                else:
                    self._places -= 1
                    self._opening -= 1
                    self._admit()
            raise
        finally:
            timer.cancel()
            self._waiting.pop(waiter, None)

    async def _open(self, connect: float, deadline: float | None) -> Http1Connection:
        """Open a connection; its place is taken already and is freed where this fails."""
        left = connect if deadline is None else min(connect, deadline - monotonic())
        # In a context of its own: a connection outlives the run that opened it and must not keep it alive.
        opening = self._loop.create_task(dial(self.route, self._pool.resolver, left), context=self.context)
        try:
            transport = await opening
        except BaseException as error:
            self._places -= 1
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                # Connected in the very moment of the cancellation.
                opening.result().abort()
            if (
                isinstance(error, ConnectError)
                and left < connect
                and isinstance(error.__cause__, TimeoutError)
            ):
                raise ReadTimeoutError(
                    f"{self.name}: the total time ran out while the connection was being opened"
                ) from error
            raise
        finally:
            self._opening -= 1
            self._admit()
        connection = self._pool.connection_class(self, self._loop)
        self._pool.connections.add(connection)
        early = take_early(transport)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if transport.is_closing():
            # Its end was told to nobody, so it is not told again.
            connection.connection_lost(None)
        elif early:
            # By then the request is under way, and this may be its answer.
            self._loop.call_soon(connection.data_received, early, context=self.context)
        return connection


def _expire(waiter: asyncio.Future[Http1Connection | None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class Pool:
    """All connections of one event loop. It lives as long as any of them is open.

    Args:
        loop: the running loop; the pool itself does not hold it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.context = Context()
        self.resolver = Resolver()
        self.connections: set[Http1Connection] = set()
        self.closed = False
        # Measured: selector transports read cheaper into a buffer of ours, uvloop's into its own.
        buffered = isinstance(loop, asyncio.SelectorEventLoop)
        self.connection_class = BufferedHttp1Connection if buffered else Http1Connection
        self.receive_buffer = memoryview(bytearray(_RECEIVE_SIZE if buffered else 0))
        self._hosts: dict[Route, HostPool] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._guard = _guard(ref(self))
        # The loop closes its asynchronous generators when it shuts down, and with this one the connections.
        # Without a finalizer, which is a method of the loop, the generator does not hold the loop.
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(hooks.firstiter, None)
        try:
            self._guard.asend(None).send(None)
        except StopIteration:
            pass
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def host(self, route: Route, loop: asyncio.AbstractEventLoop) -> HostPool:
        """Return the connections of `route`; O(1)."""
        host = self._hosts.get(route)
        if host is None:
            self._drop_empty_hosts()
            host = self._hosts[route] = HostPool(self, route, loop)
        return host

    def statistics(self) -> tuple[HostStatistics, ...]:
        """Return the figures of every host."""
        return tuple(host.statistics() for host in self._hosts.values())

    def sweep_later(self) -> None:
        """See to it that idle connections are looked at; one timer, however many there are."""
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep, context=self.context)

    async def close(self) -> None:
        """Close every connection and wait until the transports are gone."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self.connections):
            connection.close()
        # Transports report their end through the loop, TLS ones after a few turns of it.
        for _ in range(20):
            if not self.connections:
                return
            await asyncio.sleep(0)

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of sockets that belong to the parent, without a word to the peer."""
        self.closed = True
        null = os.open(os.devnull, os.O_RDWR)
        for connection in self.connections:
            transport = connection.transport
            socket = None if transport is None else transport.get_extra_info("socket")
            if socket is not None and socket.fileno() >= 0:
                # Closing would free the number for another file, which the old owner would then close.
                os.dup2(null, socket.fileno(), inheritable=False)
        os.close(null)
        self.connections.clear()

    def _sweep(self) -> None:
        self._sweeper = None
        now = monotonic()
        for host in self._hosts.values():
            if host.sweep(now):
                self.sweep_later()
        self._drop_empty_hosts()

    def _drop_empty_hosts(self) -> None:
        for route in [route for route, host in self._hosts.items() if host.is_empty]:
            del self._hosts[route]


async def _guard(pool: ref[Pool]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        alive = pool()
        if alive is not None:
            await alive.close()


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[Pool]] = WeakKeyDictionary()


def pool_of(loop: asyncio.AbstractEventLoop) -> Pool:
    """Return the pool of the running loop, a new one where it has none.

    Connections hold their pool and transports hold their loop, so neither is held here.

    Args:
        loop: the running loop.
    """
    known = _pools.get(loop)
    pool = None if known is None else known()
    if pool is None:
        pool = Pool(loop)
        _pools[loop] = ref(pool)
    return pool


def statistics() -> tuple[HostStatistics, ...]:
    """Return the figures of every host that the running loop has connections to.

    Raises:
        RuntimeError: no event loop is running.
    """
    known = _pools.get(asyncio.get_running_loop())
    pool = None if known is None else known()
    return () if pool is None else pool.statistics()


def _drop_all_in_child() -> None:
    for known in _pools.values():
        pool = known()
        if pool is not None:
            pool.drop_in_child()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all_in_child)
