"""What the namespaces of one cache share: the two tiers, and what was changed where."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from gossamer.cache.envelope import FOREIGN, MISSING, encode_name, open_envelope
from gossamer.cache.link import Link
from gossamer.cache.memory import CacheStatistics, MemoryCache
from gossamer.cache.redis import RedisCache, RedisStatistics
from gossamer.cache.scopes import Changes, Held, Look, Scope, Space, Tag
from gossamer.cache.scripts import DELETE, FOREIGN_VALUE, FORGET, HIT
from gossamer.cache.single_flight import Flights
from gossamer.errors import CacheError
from gossamer.per_loop import PerLoop
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["KEY", "NAMESPACE", "RELEASED", "TAG", "MultiLevelStatistics", "Tiers"]

# What a message tells of: a key that was set or deleted, a lease given back, a tag or a namespace that was dropped.
KEY = b"k"
RELEASED = b"r"
TAG = b"t"
NAMESPACE = b"n"

_ABOUT_KEYS = frozenset({KEY, RELEASED})
_KINDS = {KEY: "key", TAG: "tag", NAMESPACE: "namespace"}

# What a held value takes in memory beside what the memory tier counts.
_HELD_BYTES = 80

# Changes that the shared tier could not be told of; beyond this many, whole namespaces are dropped instead.
_MAX_OWED = 10_000

_Message = tuple[bytes, bytes, bytes, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class MultiLevelStatistics(msgspec.Struct, frozen=True):
    """What a cache has done in this process, all of its namespaces together.

    Attributes:
        l1: of the memory tier; values of dropped tags and namespaces count until there is need for their room.
        l2: of the shared tier; None where there is none.
        up: whether the shared tier is used on this event loop; False before the first use.
        computations: values that were computed here.
        shared: callers who got a value that was being computed for another.
        degraded: operations that had to do without the shared tier.
        invalidations: keys, tags and namespaces that were dropped, here or on word from another process.
        waiting: callers who wait for a value that is being computed.
    """

    l1: CacheStatistics
    l2: RedisStatistics | None
    up: bool
    computations: int
    shared: int
    degraded: int
    invalidations: int
    waiting: int


class OnLoop:
    """What a cache has on one event loop.

    Args:
        link: the way to the shared tier; None where there is none.
    """

    __slots__ = ("flights", "link")

    def __init__(self, link: Link | None) -> None:
        self.link = link
        self.flights = Flights()

    async def aclose(self) -> None:
        """Stop what runs."""
        await self.flights.aclose()
        if self.link is not None:
            await self.link.aclose()

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go."""
        if self.link is not None:
            self.link.drop_in_child()


class Tiers:
    """The memory of this process, the shared tier, and how they are kept from contradicting each other.

    Args:
        l1: the memory tier.
        l2: the shared tier, or None.

    Attributes:
        computations: values that were computed here.
        shared: callers who got a value that was being computed for another.
        degraded: operations that had to do without the shared tier.
        invalidations: keys, tags and namespaces that were dropped, here or on word from elsewhere.
    """

    __slots__ = (
        "_mark",
        "_owed",
        "_spaces",
        "changes",
        "channel",
        "computations",
        "degraded",
        "invalidations",
        "l1",
        "l2",
        "on_loop",
        "shared",
    )

    def __init__(self, l1: MemoryCache, l2: RedisCache | None) -> None:
        self.l1 = l1
        self.l2 = l2
        self.channel = b"" if l2 is None else l2.prefix + b":invalidations"
        self.changes = Changes()
        self.computations = self.shared = 0
        self.degraded = 0
        self.invalidations = 0
        self.on_loop = PerLoop(self._on_loop)
        self._mark = os.urandom(8)
        self._owed: dict[tuple[bytes, bytes, bytes], None] = {}
        self._spaces: WeakValueDictionary[str, Space] = WeakValueDictionary()

    def _on_loop(self) -> OnLoop:
        return OnLoop(None if self.l2 is None else Link(self.l2, self, self.channel))

    def space(self, name: str) -> Space:
        """Give a namespace, the same one as long as somebody or a value in memory has it."""
        with self.changes.lock:  # two for one name would not hear the same
            space = self._spaces.get(name)
            if space is None:
                space = self._spaces[name] = Space(name)
            return space

    # --- the memory tier ------------------------------------------------------------------------------------------

    def keep(
        self,
        place: str,
        value: Any,
        scope: Scope,
        tags: tuple[Tag, ...],
        seconds: float | None,
        since: float,
        size: int,
        look: Look,
        *,
        written: bool = False,
    ) -> None:
        """Put a value into memory, unless its key was changed since the look at it began.

        One that was written is a change itself: of two that were written at the same time memory keeps neither, for
        nobody knows here which of them the shared tier has now.

        Args:
            place: the key in memory.
            value: as the cache has it.
            scope: of the namespace, when the look began.
            tags: of the value, when the look began.
            seconds: how long it is good; None for as long as there is room.
            since: the moment from which the time counts, by `time.monotonic`: before Redis was told or asked, so that
                memory never has it for longer.
            size: of its form in msgpack, in bytes.
            look: sees whether the key was changed.
            written: whether it was set, rather than found or computed.
        """
        l1 = self.l1
        if seconds is not None:
            seconds -= monotonic() - since
        if l1.ttl is not None and (seconds is None or l1.ttl < seconds):
            seconds = l1.ttl
        with self.changes.lock:
            fresh = look.fresh and (seconds is None or seconds > 0)
            if written:
                self.changes.note(place)
            if fresh:
                l1.keep(place, Held(value, scope, tags), seconds, size + _HELD_BYTES)
            elif written:
                l1.drop(place)

    def change(self, place: str) -> None:
        """Drop a key from memory; whoever looks at it now keeps nothing of what was seen."""
        with self.changes.lock:
            self.changes.note(place)
            self.l1.drop(place)

    def forget(self) -> None:
        """Drop everything from memory, and what is under way to it."""
        for space in list(self._spaces.values()):
            space.drop()
        self.l1.clear()
        if metrics.recorder is not None:
            metrics.recorder.cache_invalidated("all", "elsewhere")

    def lost(self) -> None:
        """Tell those who wait for another process that they wait in vain: the shared tier is down."""
        self.on_loop.here().flights.wake_all()

    # --- the shared tier ------------------------------------------------------------------------------------------

    def found(self, key: str, answer: Any) -> Any:
        """Open what READ or ACQUIRE gave, and count it."""
        l2 = self.l2
        assert l2 is not None
        value: Any = MISSING
        if answer is not None and answer[0] == HIT:
            value = open_envelope(answer[1])
        if value is FOREIGN or (answer is not None and answer[0] == FOREIGN_VALUE):
            value = MISSING
            l2.note_foreign(key)
        l2.count(hit=value is not MISSING)
        if metrics.recorder is not None:
            metrics.recorder.cache_looked("l2", "miss" if value is MISSING else "hit")
        return value

    def refill(
        self,
        space: Space,
        place: str,
        value: Any,
        answer: Any,
        since: float,
        look: Look,
        scope: Scope,
        drops: int,
    ) -> None:
        """Keep in memory what the shared tier gave, for as long as it is good there."""
        names = tuple(answer[3:])
        tags = space.tags(names)
        # Which tags a value has is known only now: one that was dropped meanwhile may be one of them.
        if names and space.tag_drops != drops:
            return
        seconds = None if answer[2] < 0 else answer[2] / 1000
        self.keep(place, value, scope, tags, seconds, since, len(answer[1]), look)

    def keys(self, space: Space, name: bytes) -> tuple[bytes, bytes, bytes]:
        """Give the keys in Redis of a value, of its lease, and of its namespace's version."""
        return (
            self._place(b"v", space.data, name),
            self._place(b"l", space.data, name),
            self.version_key(space),
        )

    def version_key(self, space: Space) -> bytes:
        """Give the key in Redis of a namespace's version."""
        return b"" if self.l2 is None else b"%s:n:%s" % (self.l2.prefix, space.data)

    def tag_prefix(self, space: Space) -> bytes:
        """Give what the keys in Redis of the versions of a namespace's tags begin with."""
        return self._place(b"t", space.data, b"")

    def _place(self, kind: bytes, space: bytes, name: bytes) -> bytes:
        return b"" if self.l2 is None else b"%s:%s:%s:%s" % (self.l2.prefix, kind, space, name)

    # --- what other processes do ----------------------------------------------------------------------------------

    def message(self, kind: bytes, space: Space, name: bytes) -> bytes:
        """Give the message that tells of a change."""
        return _encode((self._sender(), kind, space.data, name))

    def heard(self, data: bytes) -> None:
        """Take in what was told of a change."""
        try:
            sender, kind, space_name, name = _decode(data)
            space = self._spaces.get(space_name.decode("utf-8", "surrogatepass"))
            text = name.decode("utf-8", "surrogatepass") if kind in _ABOUT_KEYS else ""
        except (msgspec.DecodeError, UnicodeDecodeError):
            logger.debug("%r: a message on its channel is not of a cache: %.200r", self.l2, data)
            return
        if space is None:
            return  # nothing of it is here, and nobody asks for it
        if kind in _ABOUT_KEYS:
            self.on_loop.here().flights.wake(space.prefix + text)
        if sender == self._sender():
            return
        if kind == KEY:
            self.change(space.prefix + text)
        elif kind == TAG:
            space.drop_tag(name)
        elif kind == NAMESPACE:
            space.drop()
        else:
            return
        self.count_invalidation(kind, "elsewhere")

    def count_invalidation(self, kind: bytes, origin: str) -> None:
        """Count a key, a tag or a namespace that was dropped."""
        self.invalidations += 1
        if metrics.recorder is not None:
            metrics.recorder.cache_invalidated(_KINDS[kind], origin)

    def _sender(self) -> bytes:
        return b"%s%d" % (self._mark, os.getpid())  # a fork's child is somebody else

    # --- what the shared tier is owed -----------------------------------------------------------------------------

    def owe(self, kind: bytes, space: Space, name: bytes, link: Link) -> None:
        """Remember a change that the shared tier could not be told of: what it has of it is dropped when it is back."""
        if len(self._owed) >= _MAX_OWED:
            spaces = dict.fromkeys((NAMESPACE, data, b"") for _, data, _ in self._owed)
            if len(spaces) >= _MAX_OWED:
                spaces.pop(next(iter(spaces)))
                logger.error("%r is down for so many changes that the oldest is lost", self.l2)
            self._owed = spaces
        if (NAMESPACE, space.data, b"") not in self._owed:
            self._owed[kind, space.data, name] = None
        link.fail(CacheError(f"Redis at {'' if self.l2 is None else self.l2.where} missed a change"))

    def count_degraded(self, operation: str) -> None:
        """Count an operation that does without the shared tier."""
        self.degraded += 1
        if metrics.recorder is not None:
            metrics.recorder.cache_degraded(operation)

    async def settle(self) -> None:
        """Drop from the shared tier what changed while it could not be told.

        Raises:
            CacheUnavailableError: it failed again; what is left is still owed.
        """
        l2 = self.l2
        assert l2 is not None
        while self._owed:
            debt = next(iter(self._owed))
            del self._owed[debt]  # first, so that a change made from here on is owed anew
            try:
                await self._pay(l2, *debt)
            except BaseException:
                self._owed[debt] = None
                raise

    async def _pay(self, l2: RedisCache, kind: bytes, data: bytes, name: bytes) -> None:
        message = _encode((self._sender(), kind, data, name))
        if kind == KEY:
            name = encode_name(name.decode("utf-8", "surrogatepass"))
            keys = (self._place(b"v", data, name), self._place(b"l", data, name))
            await l2.run(DELETE, keys, self.channel, message)
        elif kind == TAG:
            await l2.run(FORGET, (self._place(b"t", data, name),), self.channel, message)
        else:
            await l2.run(FORGET, (b"%s:n:%s" % (l2.prefix, data),), self.channel, message)

    # --- the rest -------------------------------------------------------------------------------------------------

    def statistics(self) -> MultiLevelStatistics:
        """Tell what was done in this process. O(event loops)."""
        here = self.on_loop.all()
        return MultiLevelStatistics(
            self.l1.statistics(),
            None if self.l2 is None else self.l2.statistics(),
            any(one.link is not None and one.link.up for one in here),
            self.computations,
            self.shared,
            self.degraded,
            self.invalidations,
            sum(one.flights.waiting for one in here),
        )

    async def aclose(self) -> None:
        """Stop what runs on this event loop."""
        await self.on_loop.aclose()
