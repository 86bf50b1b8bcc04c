"""Getting a missing value: from the shared tier, from another process that computes it, or by computing it."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from gossamer.cache.envelope import MISSING, encode_name, encode_value, plain_copy
from gossamer.cache.link import DOWN, Link
from gossamer.cache.redis import milliseconds
from gossamer.cache.scripts import ACQUIRE, DELETE, FOREIGN_VALUE, HIT, LEAD, RELEASE, STORE
from gossamer.cache.single_flight import Flight, Lease
from gossamer.cache.tiers import KEY, RELEASED, Tiers
from gossamer.errors import ArgumentError
from gossamer.telemetry import metrics

__all__ = ["Computation", "fresh_token"]

# Whoever waits for another process is woken by a message; it may be lost, so it is looked this often in a lease's time.
_LOOKS_A_LEASE = 10


def fresh_token() -> bytes:
    """Give a token that nobody else has."""
    return os.urandom(12)


class Computation:
    """One missing value on its way.

    Args:
        tiers: where it is looked for and kept.
        flight: those who wait for it.
        key: under which it is kept.
        compute: makes it.
        seconds: how long it is good; None for as long as there is room.
        tags: its tags' names in Redis.
        lease: how long in seconds a process may be silent that computes it.
    """

    __slots__ = (
        "_body",
        "_compute",
        "_flight",
        "_key",
        "_keys",
        "_lease",
        "_raw",
        "_seconds",
        "_tags",
        "_tiers",
    )

    def __init__(
        self,
        tiers: Tiers,
        flight: Flight,
        key: str,
        compute: Callable[[], Awaitable[Any]],
        seconds: float | None,
        tags: tuple[bytes, ...],
        lease: float,
    ) -> None:
        self._tiers = tiers
        self._flight = flight
        self._key = key
        self._raw = key.encode("utf-8", "surrogatepass")
        self._keys = tiers.keys(flight.scope.space, encode_name(key))
        self._compute = compute
        self._seconds = seconds
        self._tags = tags
        self._lease = lease
        self._body = b""

    async def obtain(self) -> Any:
        """Get the value, as the cache has it."""
        tiers, flight = self._tiers, self._flight
        link = tiers.on_loop.here().link
        if link is None:
            value = await self._computed()
            self._keep(value, monotonic())
            return value
        space = flight.scope.space
        token = fresh_token()
        while True:
            flight.woken.clear()
            # A look of its own: what another process has stored is a change since this flight began.
            with tiers.changes.look(flight.place) as look:
                scope, drops, began = space.scope, space.tag_drops, monotonic()
                answer = await link.run(
                    ACQUIRE,
                    self._keys,
                    tiers.tag_prefix(space),
                    token,
                    milliseconds(self._lease),
                    fresh_token(),
                    milliseconds(self._seconds),
                    *self._tags,
                )
                if answer is not DOWN and answer[0] == HIT:
                    value = tiers.found(self._key, answer)
                    if value is not MISSING:
                        if link.up:
                            tiers.refill(space, flight.place, value, answer, began, look, scope, drops)
                        return value
            if answer is DOWN:
                # The command may have got through: then the lease ends by itself.
                tiers.count_degraded("compute")
                value = await self._computed()
                self._keep(value, monotonic())
                return value
            if answer[0] == HIT:  # damaged behind the header, which only deleting it mends
                await link.run(DELETE, self._keys[:2], tiers.channel, tiers.message(KEY, space, self._raw))
                continue
            if answer[0] == LEAD:
                tiers.found(self._key, [FOREIGN_VALUE] if answer[2] else None)
                return await self._lead(link, token, answer[1])
            try:
                async with asyncio.timeout(self._lease / _LOOKS_A_LEASE):
                    await flight.woken.wait()
            except TimeoutError:
                continue

    async def _lead(self, link: Link, token: bytes, header: bytes) -> Any:
        """Compute as the one of all processes that does, and store what came of it."""
        tiers = self._tiers
        space = self._flight.scope.space
        try:
            with Lease(link, self._keys[1], token, self._lease):
                value = await self._computed()
            began = monotonic()
            stored = await link.run(
                STORE,
                self._keys,
                tiers.tag_prefix(space),
                token,
                header,
                self._body,
                milliseconds(self._seconds),
                tiers.channel,
                tiers.message(KEY, space, self._raw),
                *self._tags,
            )
        except BaseException:
            message = tiers.message(RELEASED, space, self._raw)
            await link.run(RELEASE, self._keys[1:2], token, tiers.channel, message)
            raise
        if stored is DOWN:
            tiers.count_degraded("compute")
            self._keep(value, began)
        elif stored:  # else somebody set or deleted the key meanwhile, or took the lease over
            self._keep(value, began)
        return value

    async def _computed(self) -> Any:
        """Compute, and give the value as the cache has it."""
        try:
            awaitable: Any = self._compute()
            if not inspect.isawaitable(awaitable):
                raise ArgumentError(
                    f"compute gave {type(awaitable).__name__}, and nothing to await; give an async function"
                )
            value = await awaitable
            self._body = encode_value(value)
        except BaseException:
            if metrics.recorder is not None:
                metrics.recorder.cache_computed("failed")
            raise
        self._tiers.computations += 1
        if metrics.recorder is not None:
            metrics.recorder.cache_computed("computed")
        return plain_copy(value, self._body)

    def _keep(self, value: Any, since: float) -> None:
        flight = self._flight
        size = len(self._body)
        self._tiers.keep(
            flight.place, value, flight.scope, flight.tags, self._seconds, since, size, flight.look
        )
