"""One timer for every stream: due items wait in buckets of a millisecond."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["Timed", "TimerWheel"]

_PER_SECOND = 1000
_BATCH = 256


class Timed(Protocol):
    """Something that can wait in a wheel.

    Attributes:
        slot: the bucket it waits in; 0 while it does not wait. Belongs to the wheel.
    """

    slot: int

    def fire(self, now: float) -> None:
        """Called once when it is due.

        Args:
            now: the loop's time in seconds.
        """
        ...


class TimerWheel:
    """Calls items when they are due, with one loop timer for all of them.

    An item waits once at a time. Nothing fires early; up to a millisecond late by design. After 256 items the loop
    gets its turn, so that what they wrote leaves and what arrived is read.

    Args:
        loop: its clock and its timers are used.
    """

    __slots__ = ("_armed", "_buckets", "_due", "_loop", "_slots", "_soon", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._slots: list[int] = []
        self._due: deque[tuple[Timed, int]] = deque()
        self._armed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None

    def time(self) -> float:
        """The loop's time in seconds."""
        return self._loop.time()

    def schedule(self, item: Timed, due: float) -> None:
        """Let an item fire at a time of the loop's clock, in seconds. O(1); a timer is set only for a new bucket."""
        slot = int(due * _PER_SECOND) + 1
        item.slot = slot
        bucket = self._buckets.get(slot)
        if bucket is not None:
            bucket[item] = None
            return
        self._buckets[slot] = {item: None}
        heappush(self._slots, slot)
        if not self._armed or slot < self._armed:
            self._arm()

    def soon(self, item: Timed) -> None:
        """Let an item fire in the next turn of the loop. O(1)."""
        item.slot = -1
        self._due.append((item, -1))
        if self._soon is None:
            self._soon = self._loop.call_soon(self._run)

    def cancel(self, item: Timed) -> None:
        """Forget an item; does nothing where it does not wait. O(1)."""
        bucket = self._buckets.get(item.slot)
        if bucket is not None:
            bucket.pop(item, None)
        item.slot = 0

    def close(self) -> None:
        """Forget every item."""
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        self._armed = 0
        self._buckets.clear()
        self._slots.clear()
        self._due.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        slots, buckets = self._slots, self._buckets
        while slots and not buckets[slots[0]]:
            del buckets[heappop(slots)]
        self._armed = slots[0] if slots else 0
        if self._armed:
            self._timer = self._loop.call_at(self._armed / _PER_SECOND, self._ring)

    def _ring(self) -> None:
        self._timer = None
        slots, buckets, due = self._slots, self._buckets, self._due
        current = int(self._loop.time() * _PER_SECOND + 0.001)
        while slots and slots[0] <= current:
            slot = heappop(slots)
            due.extend([(item, slot) for item in buckets.pop(slot)])
        self._arm()
        if self._soon is None:
            self._run()

    def _run(self) -> None:
        self._soon = None
        due = self._due
        now = self._loop.time()
        for _ in range(min(_BATCH, len(due))):
            item, slot = due.popleft()
            if item.slot == slot:
                item.slot = 0
                item.fire(now)
        if due and self._soon is None:
            self._soon = self._loop.call_soon(self._run)
