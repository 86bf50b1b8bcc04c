"""A cache in the memory of this process, bounded in entries and bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

import cachebox
import msgspec

from gossamer.errors import ArgumentError

__all__ = ["CacheStatistics", "MemoryCache", "check_ttl"]

# What an entry takes beside its key and value: the tuple, the table, two string headers.
_OVERHEAD_BYTES = 200

_encode = msgspec.msgpack.Encoder().encode


class CacheStatistics(msgspec.Struct, frozen=True):
    """What a cache has done and holds.

    Attributes:
        hits: values found.
        misses: keys that were not there, or no longer good.
        evictions: values dropped to make room, those refused for being larger than the whole cache included.
        entries: values held, those past their time included until they are met.
        bytes: what they take, by estimate.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int


class MemoryCache:
    """Keeps values in memory; where it is full, what was not used for longest is dropped.

    Safe across threads and event loops. A value is handed out as the object that was put in, so it must not be
    changed.

    Args:
        max_entries: the most values.
        max_bytes: the most bytes of keys and values, about 200 bytes a value of overhead counted; bytes and text count
            as they are, other values as long as they would be in msgpack. A value larger than this is not kept.
        ttl: how long values are good that come without a time of their own, in seconds; None for as long as there is
            room.

    Attributes:
        ttl: as above.
        hits: values found.
        misses: keys that were not there, or no longer good.
        find: gives a key's entry as it is, good or not: the value, the moment up to which it is good, its size.

    Raises:
        ArgumentError: a bound or a time that is not above 0.
    """

    __slots__ = ("_entries", "_evictions", "_lock", "_max_entries", "find", "hits", "misses", "ttl")

    def __init__(
        self, max_entries: int = 10_000, max_bytes: int = 64 * 1024 * 1024, ttl: float | None = None
    ) -> None:
        if max_entries < 1 or max_bytes < 1:
            raise ArgumentError(
                f"max_entries and max_bytes must be at least 1, not {max_entries} and {max_bytes}"
            )
        check_ttl(ttl)
        # Each entry is its value, the moment up to which it is good or None, and its size.
        self._entries: cachebox.LRUCache[str, tuple[Any, float | None, int]] = cachebox.LRUCache(
            max_bytes, getsizeof=_size_of_entry
        )
        self.find: Callable[[str], tuple[Any, float | None, int] | None] = self._entries.get
        self._max_entries = max_entries
        self.ttl = ttl
        self._lock = Lock()
        self.hits = self.misses = self._evictions = 0

    def __repr__(self) -> str:
        return f"MemoryCache({len(self._entries)} entries, {self._entries.current_size()} bytes)"

    def peek(self, key: str, default: Any = None) -> Any:
        """Give the value under a key without waiting; counts as a use of it.

        O(1), allocates nothing.
        """
        entry = self.find(key)
        if entry is None:
            self.misses += 1
            return default
        if entry[1] is not None and entry[1] <= monotonic():
            self.expire(key, entry)
            return default
        self.hits += 1
        return entry[0]

    async def get(self, key: str, default: Any = None) -> Any:
        """Give the value under a key, or `default`; never suspends. O(1), allocates the coroutine."""
        # The same as `peek`, written out: a call less.
        entry = self.find(key)
        if entry is None:
            self.misses += 1
            return default
        if entry[1] is not None and entry[1] <= monotonic():
            self.expire(key, entry)
            return default
        self.hits += 1
        return entry[0]

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value in place of what was under its key, and drop what was not used for longest where it is full.

        O(1) beside measuring a value that is neither bytes nor text; never suspends.

        Args:
            key: under which it is found again.
            value: any value; not to be changed from here on.
            ttl: how long it is good, in seconds; the cache's own time where None.

        Raises:
            ArgumentError: a time that is not above 0.
        """
        check_ttl(ttl)
        self.keep(key, value, self.ttl if ttl is None else ttl, _size_of(value))

    def keep(self, key: str, value: Any, seconds: float | None, size: int) -> None:
        """Keep a value as `set` does, its time and its size known; O(1)."""
        expires = None if seconds is None else monotonic() + seconds
        size += len(key) + _OVERHEAD_BYTES
        entries = self._entries
        with self._lock:
            # Taken out first, so that what follows can be counted as what it is.
            entries.pop(key, None)
            if size > entries.maxsize:
                self._evictions += 1
                return
            expected = len(entries) + 1
            entries.insert(key, (value, expires, size))
            while len(entries) > self._max_entries:
                entries.popitem()
            self._evictions += expected - len(entries)

    async def delete(self, key: str) -> None:
        """Forget a key, known or not; never suspends."""
        self.drop(key)

    def drop(self, key: str) -> None:
        """Forget a key as `delete` does. O(1)."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything but the counts."""
        with self._lock:
            self._entries.clear()

    def statistics(self) -> CacheStatistics:
        """Tell what the cache has done and holds. O(1)."""
        entries = self._entries
        return CacheStatistics(self.hits, self.misses, self._evictions, len(entries), entries.current_size())

    def expire(self, key: str, entry: tuple[Any, float | None, int]) -> None:
        """Forget an entry that was found to be no longer good, and count the miss. O(1)."""
        self.misses += 1
        with self._lock:
            if self.find(key) is entry:  # another thread may have put a new value there
                self._entries.pop(key, None)


def _size_of_entry(_key: str, entry: tuple[Any, float | None, int]) -> int:
    return entry[2]


def _size_of(value: Any) -> int:
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    try:
        return len(_encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return sys.getsizeof(value)


def check_ttl(ttl: float | None) -> None:
    """Refuse a time that is not above 0.

    Raises:
        ArgumentError: it is not.
    """
    if ttl is not None and not (isinstance(ttl, int | float) and ttl > 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"ttl must be above 0 seconds, not {ttl!r}; leave it out to keep values")
