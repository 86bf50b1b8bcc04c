"""A cache in Redis, or Valkey: shared by processes, and there after a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from gossamer.cache.envelope import FOREIGN, MISSING, PLAIN, encode_name, encode_value, open_envelope
from gossamer.cache.memory import check_ttl
from gossamer.cache.scripts import Script
from gossamer.errors import ArgumentError, CacheBusyError, CacheUnavailableError
from gossamer.per_loop import PerLoop
from gossamer.telemetry.logging import logger

__all__ = ["RedisCache", "RedisStatistics", "milliseconds"]

# Values that are good for longer are good for this long: ten years.
_LONGEST_SECONDS = 315_360_000.0


class RedisStatistics(msgspec.Struct, frozen=True):
    """What a cache in Redis has seen in this process.

    Attributes:
        hits: values found.
        misses: keys that were not there, or no longer good, those with somebody else's data included.
        foreign: keys that held data of somebody else, or damaged data.
        failures: commands that failed, or were not answered in time.
        waiting: commands that wait for a connection now.
    """

    hits: int
    misses: int
    foreign: int
    failures: int
    waiting: int


class RedisCache:
    """Keeps values in Redis 6.2 or later, or in Valkey, by itself or as the shared tier of a `MultiLevelCache`.

    Values are plain data, kept as msgpack behind a mark: what somebody else wrote under one of our keys counts as a
    miss, is told in the log once, and is overwritten by the next `set`. Safe across threads, event loops and forks:
    each event loop has connections of its own. A command that fails because its connection was closed in between is
    sent once more.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database as usual.
        prefix: what the keys begin with; caches with the same one share their values.
        timeout: how long a command may take, connecting included, in seconds.
        ttl: how long values are good that come without a time of their own, in seconds; None for as long as Redis
            keeps them.
        max_connections: the most connections of an event loop, the one that listens to invalidations apart; further
            commands wait in order.
        max_waiting: the most commands that wait for a connection; further ones are refused with `CacheBusyError`. Those
            that wait when another fails fail with it.

    Raises:
        ArgumentError: a URL that cannot be read, a bound or a time that is not above 0.
        ImportError: redis is missing; install `gossamer[redis]`.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "gossamer",
        timeout: float = 0.5,
        ttl: float | None = 86_400.0,
        max_connections: int = 16,
        max_waiting: int = 10_000,
    ) -> None:
        try:
            from redis.asyncio.connection import parse_url
        except ImportError as error:
            raise ImportError("RedisCache needs redis: pip install 'gossamer[redis]'") from error
        try:
            parts = parse_url(url)
        except (ValueError, TypeError, AttributeError) as error:
            # The URL itself may hold a password.
            raise ArgumentError(
                "url must begin with redis://, rediss:// or unix://, and name a server"
            ) from error
        check_ttl(ttl)
        if not timeout > 0:
            raise ArgumentError(f"timeout must be above 0 seconds, not {timeout!r}")
        if max_connections < 1 or max_waiting < 0:
            raise ArgumentError(
                f"max_connections must be at least 1 and max_waiting at least 0, not {max_connections} and {max_waiting}"
            )
        place = parts.get("path") or f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
        self.where = f"{place}/{parts.get('db', 0)}"
        self.prefix = encode_name(prefix)[1:]
        self.timeout = timeout
        self.ttl = ttl
        self._url = url
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._clients = PerLoop(self._client)
        self._hits = self._misses = self._foreign = self._failures = 0

    def __repr__(self) -> str:
        return f"RedisCache({self.where!r}, prefix={self.prefix.decode(errors='replace')!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def get(self, key: str, default: Any = None) -> Any:
        """Give the value under a key, or `default` where there is none that is still good.

        Raises:
            ArgumentError: the key is not text.
            CacheUnavailableError: Redis cannot be reached, or did not answer in time.
            CacheBusyError: `max_waiting` commands wait already.
        """
        value = self.opened(await self.execute(b"GET", self._place(key)), key)
        if value is MISSING:
            self.count(hit=False)
            return default
        self.count(hit=True)
        return value

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value; whatever lay under its key is overwritten.

        Args:
            key: under which it is found again.
            value: plain data.
            ttl: how long it is good, in seconds; the cache's own time where None.

        Raises:
            ArgumentError: the key is not text, or a time that is not above 0.
            CacheValueError: the value has no form in msgpack; nothing is written.
            CacheUnavailableError: Redis cannot be reached, or did not answer in time.
            CacheBusyError: `max_waiting` commands wait already.
        """
        check_ttl(ttl)
        data = PLAIN + encode_value(value)
        seconds = self.ttl if ttl is None else ttl
        if seconds is None:
            await self.execute(b"SET", self._place(key), data)
        else:
            await self.execute(b"SET", self._place(key), data, b"PX", milliseconds(seconds))

    async def delete(self, key: str) -> None:
        """Forget a key, known or not.

        Raises:
            ArgumentError: the key is not text.
            CacheUnavailableError: Redis cannot be reached, or did not answer in time.
            CacheBusyError: `max_waiting` commands wait already.
        """
        await self.execute(b"DEL", self._place(key))

    def statistics(self) -> RedisStatistics:
        """Tell what this process has seen of the cache. O(event loops)."""
        waiting = sum(client.waiting for client in self._clients.all())
        return RedisStatistics(self._hits, self._misses, self._foreign, self._failures, waiting)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; used again, the cache opens new ones."""
        await self._clients.aclose()

    # --- for the tiers above ------------------------------------------------------------------------------------

    async def execute(self, *command: bytes | int) -> Any:
        """Send a command and give its answer, which is an exception of redis where there is something else.

        Raises:
            CacheUnavailableError: Redis cannot be reached, refuses, or did not answer in time.
            CacheBusyError: `max_waiting` commands wait already.
        """
        return await self._clients.here().execute(command)

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: bytes | int) -> Any:
        """Run a script; as `execute`."""
        execute = self._clients.here().execute
        answer = await execute((b"EVALSHA", script.digest.encode(), len(keys), *keys, *arguments))
        if isinstance(answer, Exception):  # not known: a new server, or one that was restarted
            answer = await execute((b"EVAL", script.source.encode(), len(keys), *keys, *arguments))
            if isinstance(answer, Exception):
                self.count_failure()
                raise CacheUnavailableError(f"Redis at {self.where} refuses to run scripts: {answer}")
        return answer

    def connection(self) -> Any:
        """Give a connection that is not of the pool and not yet open."""
        return self._clients.here().redis.connection_pool.make_connection()

    def opened(self, raw: Any, key: str) -> Any:
        """Open what Redis gave for a key: `MISSING` where there is nothing, or nothing of ours."""
        if raw is None:
            return MISSING
        value = open_envelope(raw)
        if value is FOREIGN:
            self.note_foreign(key)
            return MISSING
        return value

    def note_foreign(self, key: str) -> None:
        """Count data of somebody else, and tell of it the first time."""
        self._foreign += 1
        if self._foreign == 1:
            logger.warning(
                "%r: what lies under the key %.200r is not of this cache; it counts as a miss and is overwritten when"
                " the key is set. Further ones are counted in its statistics; another prefix keeps them apart",
                self,
                key,
            )

    def count(self, *, hit: bool) -> None:
        """Count a look."""
        if hit:
            self._hits += 1
        else:
            self._misses += 1

    def count_failure(self) -> None:
        """Count a command that failed."""
        self._failures += 1

    def _place(self, key: str) -> bytes:
        return self.prefix + b":k:" + encode_name(key)

    def _client(self) -> _Client:
        return _Client(self, self._url, self._max_connections, self._max_waiting)


class _Client:
    """The connections of one event loop."""

    __slots__ = ("_cache", "_failures", "_max_waiting", "_slots", "redis", "waiting")

    def __init__(self, cache: RedisCache, url: str, max_connections: int, max_waiting: int) -> None:
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as RedisConnectionError

        # RESP2: nothing here needs types or pushes of RESP3, and connecting takes a round trip less. The time limit is
        # one for the whole command, so that the client's own limits, one a read, are off.
        pools: Any = ConnectionPool  # its types are not whole
        pool = pools.from_url(
            url,
            max_connections=max_connections + 1,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=cache.timeout,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self.redis: Any = Redis(connection_pool=pool)
        self.waiting = 0
        self._failures = 0
        self._cache = cache
        self._slots = asyncio.Semaphore(max_connections)
        self._max_waiting = max_waiting

    async def execute(self, command: tuple[bytes | int, ...]) -> Any:
        """Send a command when there is a connection for it; see `RedisCache.execute`."""
        slots = self._slots
        if slots.locked():
            if self.waiting >= self._max_waiting:
                raise CacheBusyError(
                    f"{self.waiting} commands wait for a connection to Redis at {self._cache.where}, which is"
                    " max_waiting; ask less at once, or raise max_connections"
                )
            failures = self._failures
            self.waiting += 1
            try:
                await slots.acquire()
            finally:
                self.waiting -= 1
            if failures != self._failures:  # else a crowd would wait for the time limit again and again
                slots.release()
                raise CacheUnavailableError(
                    f"Redis at {self._cache.where} failed another command while this one waited for a connection"
                )
        else:
            await slots.acquire()
        from redis.exceptions import NoScriptError, RedisError, ResponseError

        try:
            async with asyncio.timeout(self._cache.timeout):
                return await self.redis.execute_command(*command)
        except TimeoutError as error:
            self._fail()
            raise CacheUnavailableError(
                f"Redis at {self._cache.where} did not answer within {self._cache.timeout} s"
            ) from error
        except NoScriptError as error:
            return error
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return error
            self._fail()
            raise CacheUnavailableError(f"Redis at {self._cache.where} refuses a command: {error}") from error
        except (RedisError, OSError) as error:
            self._fail()
            raise CacheUnavailableError(f"Redis at {self._cache.where} cannot be reached: {error}") from error
        finally:
            slots.release()

    def _fail(self) -> None:
        self._failures += 1
        self._cache.count_failure()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.redis.aclose()
        await self.redis.connection_pool.aclose()

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of the parent's sockets without a word to Redis."""
        pool = self.redis.connection_pool
        null = os.open(os.devnull, os.O_RDWR)
        # No public way leads to all of them that does not wait.
        for connection in [*pool._available_connections, *pool._in_use_connections]:
            release_socket(connection, null)
        os.close(null)


def release_socket(connection: Any, null: int) -> None:
    """Put something harmless in place of a connection's socket; its number stays taken, as its owner will close it."""
    writer = connection._writer
    socket = None if writer is None else writer.get_extra_info("socket")
    if socket is not None and socket.fileno() >= 0:
        os.dup2(null, socket.fileno(), inheritable=False)


def milliseconds(seconds: float | None) -> int:
    """Give a time as Redis takes it: at least 1; 0 for no end."""
    if seconds is None:
        return 0
    return max(1, int(min(seconds, _LONGEST_SECONDS) * 1000))
