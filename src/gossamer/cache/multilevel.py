"""A cache in two tiers: the memory of this process, and Redis for all processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from time import monotonic
from typing import Any, Self, cast

from gossamer.cache.computing import Computation, fresh_token
from gossamer.cache.envelope import MISSING, encode_name, encode_value, plain_copy
from gossamer.cache.link import DOWN, Link
from gossamer.cache.memory import MemoryCache, check_ttl
from gossamer.cache.redis import RedisCache, milliseconds
from gossamer.cache.scripts import DELETE, FORGET, PUT, READ, Script
from gossamer.cache.single_flight import Flight
from gossamer.cache.tiers import KEY, NAMESPACE, TAG, MultiLevelStatistics, Tiers
from gossamer.errors import ArgumentError, CacheBusyError
from gossamer.telemetry import metrics

__all__ = ["MultiLevelCache"]

# Tags of a value: their names and versions lie before it in Redis, behind a length of two bytes.
_MAX_TAGS = 32

# A process that died is replaced after so long at most: a day.
_LONGEST_LEASE = 86_400.0

# Keys that are loaded at once when the cache is warmed.
_WARM_BATCH = 16


class MultiLevelCache:
    """Keeps values in memory, and in Redis for all processes; what one process changes, the others learn.

    A look goes to memory first, then to Redis, and what is found there is kept in memory. Changes of keys, tags and
    namespaces are told to all processes with the same Redis and prefix; a value that was read or computed before a
    change is not kept after it. Where Redis cannot be reached, or is slow, the cache goes on in memory alone, and what
    was changed meanwhile is dropped from Redis when it is back. A process that could not hear the others drops its
    memory before it uses Redis again.

    Values are plain data, or what msgspec makes plain data of: they come back as dicts, lists, text, bytes, numbers,
    times and None, the same from either tier. They are not to be changed, for they are handed out as they are.

    Safe across threads, event loops and forks. Close it at the end, or use `async with`.

    Args:
        l1: the memory tier, which belongs to this cache alone; a `MemoryCache` with its own bounds where None.
        l2: the shared tier, or its URL; None for none, and then all that is said here holds in this process alone.
        namespace: whose keys these are; empty for those without one.
        ttl: how long values are good that come without a time of their own, in seconds; the shared tier's rule where
            None. The memory tier's own time holds too, where it is shorter.
        jitter: the share of its time by which a value ends earlier at random, so that what was stored at once does not
            end at once.
        lease: how long in seconds a process may be silent that computes a value, before another computes in its
            place; it is renewed while the computation lasts.
        max_waiting: the most callers on an event loop that wait for values that are being computed; further ones are
            refused with `CacheBusyError`.

    Raises:
        ArgumentError: a time that is not above 0, a jitter outside of 0 to 1, a namespace with `:` or NUL.
        ImportError: there is an `l2`, and redis is missing; install `gossamer[redis]`.
    """

    __slots__ = (
        "__weakref__",
        "_find",
        "_jitter",
        "_l1",
        "_lease",
        "_max_waiting",
        "_owned",
        "_prefix",
        "_space",
        "_tiers",
        "_ttl",
    )

    def __init__(
        self,
        l1: MemoryCache | None = None,
        l2: RedisCache | str | None = None,
        *,
        namespace: str = "",
        ttl: float | None = None,
        jitter: float = 0.1,
        lease: float = 5.0,
        max_waiting: int = 10_000,
    ) -> None:
        check_ttl(ttl)
        if not 0 <= jitter < 1:
            raise ArgumentError(f"jitter must be at least 0 and below 1, not {jitter!r}")
        if not 0 < lease <= _LONGEST_LEASE:
            raise ArgumentError(f"lease must be above 0 and at most {_LONGEST_LEASE} seconds, not {lease!r}")
        if max_waiting < 1:
            raise ArgumentError(f"max_waiting must be at least 1, not {max_waiting!r}")
        if not isinstance(l1, MemoryCache | None) or not isinstance(l2, RedisCache | str | None):  # pyright: ignore[reportUnnecessaryIsInstance] - users' arguments
            raise ArgumentError(
                f"l1 is a MemoryCache, l2 a RedisCache or its URL, not {l1!r:.100} and {l2!r:.100}"
            )
        memory = MemoryCache() if l1 is None else l1
        self._owned = isinstance(l2, str)
        self._tiers = Tiers(memory, RedisCache(l2) if isinstance(l2, str) else l2)
        self._l1 = memory
        self._find = memory.find
        self._ttl = ttl
        self._jitter = jitter
        self._lease = lease
        self._max_waiting = max_waiting
        self._space = self._tiers.space(namespace)
        self._prefix = self._space.prefix

    def __repr__(self) -> str:
        name = f", namespace={self._space.name!r}" if self._space.name else ""
        return f"MultiLevelCache({self._l1!r}, {self._tiers.l2!r}{name})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def namespace(self, name: str) -> MultiLevelCache:
        """Give the same cache for the keys of a namespace: same tiers, same rules. Namespaces do not nest.

        Raises:
            ArgumentError: the name is longer than 128 characters, or has `:` or NUL in it.
        """
        view = object.__new__(type(self))
        for slot in MultiLevelCache.__slots__[1:]:
            setattr(view, slot, getattr(self, slot))
        view._space = self._tiers.space(name)
        view._prefix = view._space.prefix
        return view

    # --- looking --------------------------------------------------------------------------------------------------

    def peek(self, key: str, default: Any = None) -> Any:
        """Give the value that memory has under a key, without waiting; counts as a use of it. O(1).

        Raises:
            ArgumentError: the key is not text.
        """
        try:
            entry = self._find(self._prefix + key)
        except TypeError:
            encode_name(key)  # says what is wrong
            raise
        if entry is not None:
            held = entry[0]
            if (
                held.scope is self._space.scope
                and not held.tags
                and (entry[1] is None or entry[1] > monotonic())
            ):
                self._l1.hits += 1
                if metrics.recorder is not None:
                    metrics.recorder.cache_looked("l1", "hit")
                return held.value
        value = self._look_again(key, entry)
        return default if value is MISSING else value

    async def get(self, key: str, default: Any = None) -> Any:
        """Give the value under a key, from memory or else from Redis, or `default` where neither has it.

        O(1), and does not suspend, where memory has it; else one round trip to Redis. Never raises for Redis: one
        that cannot be reached is as good as empty.

        Raises:
            ArgumentError: the key is not text.
        """
        # The same as `peek`, written out: a call less.
        try:
            entry = self._find(self._prefix + key)
        except TypeError:
            encode_name(key)  # says what is wrong
            raise
        if entry is not None:
            held = entry[0]
            if (
                held.scope is self._space.scope
                and not held.tags
                and (entry[1] is None or entry[1] > monotonic())
            ):
                self._l1.hits += 1
                if metrics.recorder is not None:
                    metrics.recorder.cache_looked("l1", "hit")
                return held.value
        value = self._look_again(key, entry)
        if value is MISSING:
            value = await self._read(key)
        return default if value is MISSING else value

    def _look_again(self, key: str, entry: tuple[Any, float | None, int] | None) -> Any:
        """Look closer at what memory has: it may have tags, be of a dropped namespace, or past its time."""
        l1 = self._l1
        if entry is not None:
            held = entry[0]
            good = held.scope is self._space.scope and not any(tag.dropped for tag in held.tags)
            if good and (entry[1] is None or entry[1] > monotonic()):
                l1.hits += 1
                if metrics.recorder is not None:
                    metrics.recorder.cache_looked("l1", "hit")
                return held.value
            if held.scope.space is self._space:
                l1.expire(self._prefix + key, entry)  # counts the miss
            else:  # of another namespace, for a key may look like one of its
                l1.misses += 1
        else:
            l1.misses += 1
        if metrics.recorder is not None:
            metrics.recorder.cache_looked("l1", "miss")
        return MISSING

    async def _read(self, key: str) -> Any:
        """Look into the shared tier, and keep in memory what is found."""
        link = await self._link()
        if link is None:
            return MISSING
        tiers = self._tiers
        place = self._prefix + key
        with tiers.changes.look(place) as look:
            scope, drops, began = self._space.scope, self._space.tag_drops, monotonic()
            answer = await link.run(
                READ, tiers.keys(self._space, encode_name(key)), tiers.tag_prefix(self._space)
            )
            if answer is DOWN:
                self._tiers.count_degraded("get")
                return MISSING
            found = tiers.found(key, answer)
            if found is MISSING:
                return MISSING
            if link.up:  # else nobody knows whether it is still right
                tiers.refill(self._space, place, found, answer, began, look, scope, drops)
            return found

    # --- changing -------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: Any, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Keep a value in both tiers; other processes drop what they have of the key. One round trip to Redis.

        Never raises for Redis: where it cannot be told, memory alone has the value, and what Redis has of the key is
        dropped when it is back.

        Args:
            key: under which it is found again.
            value: plain data, or what msgspec makes plain data of.
            ttl: how long it is good, in seconds; the cache's own time where None.
            tags: by which it can be dropped together with others, at most 32.

        Raises:
            ArgumentError: a key or tag that is not text, too many tags, a time that is not above 0.
            CacheValueError: the value has no form in msgpack; nothing is changed.
        """
        name = encode_name(key)
        names = _names(tags)
        seconds = self._seconds(ttl)
        body = encode_value(value)
        place = self._prefix + key
        link = await self._link()
        scope, held_tags = self._space.scope, self._space.tags(names)
        tiers = self._tiers
        tiers.change(place)  # whoever reads or computes the key now must not put an older value over this one
        began = monotonic()
        with tiers.changes.look(place) as look:
            try:
                if link is not None:
                    answer = await link.run(
                        PUT,
                        tiers.keys(self._space, name),
                        tiers.tag_prefix(self._space),
                        fresh_token(),
                        milliseconds(seconds),
                        body,
                        tiers.channel,
                        tiers.message(KEY, self._space, _raw(key)),
                        *names,
                    )
                    if answer is DOWN:
                        self._owe("set", KEY, _raw(key), link)
            except BaseException:  # cancelled: Redis may have the value or not
                tiers.change(place)
                raise
            kept = plain_copy(value, body)
            tiers.keep(place, kept, scope, held_tags, seconds, began, len(body), look, written=True)

    async def delete(self, key: str) -> None:
        """Forget a key in both tiers and in all processes, known or not; a computation of it under way is not kept.

        Never raises for Redis: where it cannot be told, it is when it is back.

        Raises:
            ArgumentError: the key is not text.
        """
        name = encode_name(key)
        place = self._prefix + key
        tiers = self._tiers
        tiers.change(place)
        try:
            keys = tiers.keys(self._space, name)[:2]
            await self._tell("delete", DELETE, keys, KEY, _raw(key))
        finally:
            tiers.change(place)
        tiers.count_invalidation(KEY, "here")

    async def drop_tag(self, tag: str) -> None:
        """Forget all values of this namespace with a tag, in both tiers and in all processes. O(1), in Redis too.

        Raises:
            ArgumentError: the tag is not text.
        """
        name = encode_name(tag)
        self._space.drop_tag(name)
        try:
            await self._tell("drop_tag", FORGET, (self._tiers.tag_prefix(self._space) + name,), TAG, name)
        finally:
            self._space.drop_tag(name)
        self._tiers.count_invalidation(TAG, "here")

    async def drop_namespace(self) -> None:
        """Forget all values of this namespace, in both tiers and in all processes. O(1), in Redis too.

        Their room is free when they are dropped to make some, or in Redis when their time is over.
        """
        self._space.drop()
        try:
            await self._tell(
                "drop_namespace", FORGET, (self._tiers.version_key(self._space),), NAMESPACE, b""
            )
        finally:
            self._space.drop()
        self._tiers.count_invalidation(NAMESPACE, "here")

    async def _tell(
        self, operation: str, script: Script, keys: tuple[bytes, ...], kind: bytes, name: bytes
    ) -> None:
        """Drop something from the shared tier, and tell the others."""
        tiers = self._tiers
        link = await self._link()
        if link is None:
            return
        answer = await link.run(script, keys, tiers.channel, tiers.message(kind, self._space, name))
        if answer is DOWN:
            self._owe(operation, kind, name, link)

    def _owe(self, operation: str, kind: bytes, name: bytes, link: Link) -> None:
        self._tiers.owe(kind, self._space, name, link)
        self._tiers.count_degraded(operation)

    # --- computing ------------------------------------------------------------------------------------------------

    async def get_or_compute(
        self,
        key: str,
        compute: Callable[[], Awaitable[Any]],
        ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> Any:
        """Give the value under a key; where there is none, have it computed once for all who ask, and keep it.

        One computation runs for all callers of the key on this event loop, and by a lease in Redis for those of all
        loops and processes. It runs in a task of its own: it goes on as long as one of its callers waits, so that
        cancelling one fails no other. Its error is raised to all callers here and kept nowhere; in another process one
        of those who wait computes in its turn. A key, tag or namespace that is dropped meanwhile voids it: those who
        asked before still get its value, it is not kept, and whoever asks afterwards has it computed anew.

        Args:
            key: under which it is found again.
            compute: makes the value.
            ttl: how long it is good, in seconds; the cache's own time where None.
            tags: by which it can be dropped together with others, at most 32.

        Returns:
            The value as the cache has it: plain data.

        Raises:
            ArgumentError: a key or tag that is not text, too many tags, a time that is not above 0.
            CacheValueError: what was computed has no form in msgpack.
            CacheBusyError: `max_waiting` callers wait already.
            CacheError: the cache was closed meanwhile.
            Exception: whatever `compute` raises.
        """
        if not callable(compute):
            raise ArgumentError(
                f"compute must be a function that gives something to await, not {type(compute).__name__}"
            )
        value = self.peek(key, MISSING)
        if value is not MISSING:
            return value
        names = _names(tags)
        seconds = self._seconds(ttl)
        place = self._prefix + key
        await self._link()
        flights = self._tiers.on_loop.here().flights
        if flights.waiting >= self._max_waiting:
            raise CacheBusyError(
                f"{flights.waiting} callers wait for values that are being computed, which is max_waiting; ask less at"
                " once"
            )
        flight = flights.flights.get(place)
        if flight is None or not flight.fresh:
            look = self._tiers.changes.look(place)
            flight = Flight(place, look, self._space.scope, self._space.tags(names))
            work = Computation(self._tiers, flight, key, compute, seconds, names, self._lease)
            flights.begin(flight, work.obtain())
        else:
            self._tiers.shared += 1
            if metrics.recorder is not None:
                metrics.recorder.cache_computed("shared")
        return await flights.join(flight)

    # --- the rest -------------------------------------------------------------------------------------------------

    async def warm(
        self,
        items: Mapping[str, Any] | Iterable[str],
        ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """Fill the cache before it is asked: with items, or, given keys alone, memory with what Redis has of them.

        Args:
            items: values by key, which are set; or keys, which are looked up, 16 at a time.
            ttl: as in `set`; for keys alone Redis knows how long they are good.
            tags: as in `set`.

        Returns:
            How many values were set, or found.

        Raises:
            ArgumentError: as in `set`.
            CacheValueError: as in `set`; the items before it are set.
        """
        if isinstance(items, str | bytes):
            raise ArgumentError(f"warm takes a mapping or keys, not one key: [{items!r:.100}]")
        if isinstance(items, Mapping):
            given = cast("Mapping[str, Any]", items)
            kept_tags = tuple(tags)
            for key, value in given.items():
                await self.set(key, value, ttl, kept_tags)
            return len(given)
        found, keys = 0, iter(items)
        while batch := list(islice(keys, _WARM_BATCH)):
            values = await asyncio.gather(*[self.get(key, MISSING) for key in batch])
            found += sum(value is not MISSING for value in values)
        return found

    def statistics(self) -> MultiLevelStatistics:
        """Tell what the cache has done and holds in this process, all of its namespaces together. O(event loops)."""
        return self._tiers.statistics()

    async def aclose(self) -> None:
        """Stop what runs on this event loop, and drop the memory tier where it heard from others.

        Used again, the cache begins anew. A `RedisCache` that was handed over stays open.
        """
        await self._tiers.aclose()
        if self._owned and self._tiers.l2 is not None:
            await self._tiers.l2.aclose()

    async def _link(self) -> Link | None:
        """Give the way to the shared tier, once it was tried."""
        link = self._tiers.on_loop.here().link
        if link is not None and not link.up:
            await link.ready()
        return link

    def _seconds(self, ttl: float | None) -> float | None:
        """Give the time that a value is good, in seconds, shortened at random."""
        check_ttl(ttl)
        if ttl is None:
            ttl = self._ttl
            if ttl is None and self._tiers.l2 is not None:
                ttl = self._tiers.l2.ttl
            if ttl is None:
                return None
        return ttl * (1 - self._jitter * random.random())  # noqa: S311 - spreads load, guards nothing


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _names(tags: Iterable[str]) -> tuple[bytes, ...]:
    if isinstance(tags, str):
        raise ArgumentError(f"tags are several, so give them in a tuple: ({tags!r:.100},)")
    names = tuple(dict.fromkeys([encode_name(tag) for tag in tags]))
    if len(names) > _MAX_TAGS:
        raise ArgumentError(f"a value has at most {_MAX_TAGS} tags, not {len(names)}")
    return names
