"""The way to the shared tier on one event loop: whether it works, and what other processes tell.

The shared tier counts as up only while its invalidations are heard and its commands are answered. A link that lost
its subscription is deaf: it asks Redis nothing until it hears again, and then everything in memory is dropped, for
nobody knows what was missed.
"""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import Any, Final, Protocol

from gossamer.cache.redis import RedisCache, release_socket
from gossamer.cache.scripts import Script
from gossamer.errors import CacheBusyError, CacheError, CacheUnavailableError
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["DOWN", "Link"]

# A subscription in silence is asked for a sign of life this often, and given up after two that did not come.
_HEARTBEAT_SECONDS = 1.0

# Pauses between attempts to come up: none before the first, then doubled up to the longest, which is longer for a tier
# that answers and then fails again and again, as one that is full. They begin anew once it was up for a while.
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_LONGEST_PAUSE_BETWEEN_FAILURES = 30.0
_STEADY_SECONDS = 10.0


class _Down:
    def __repr__(self) -> str:
        return "DOWN"


DOWN: Final = _Down()


class _Tiers(Protocol):
    def heard(self, data: bytes) -> None: ...

    def forget(self) -> None: ...

    def lost(self) -> None: ...

    async def settle(self) -> None: ...


class Link:
    """Runs commands while the shared tier is up, and sees to it that it comes up again.

    Args:
        l2: the shared tier.
        tiers: who is told what is heard.
        channel: where invalidations are told.

    Attributes:
        up: whether invalidations are heard and commands answered.
    """

    __slots__ = (
        "_attempted",
        "_channel",
        "_connection",
        "_failed",
        "_heard",
        "_l2",
        "_reader",
        "_task",
        "_tiers",
        "_told",
        "up",
    )

    def __init__(self, l2: RedisCache, tiers: _Tiers, channel: bytes) -> None:
        self.up = False
        self._l2 = l2
        self._tiers = tiers
        self._channel = channel
        self._attempted = asyncio.Event()
        self._failed: asyncio.Future[CacheError] | None = None
        self._task: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[CacheUnavailableError] | None = None
        self._connection: Any = None
        self._heard = 0
        self._told = False

    async def run(self, script: Script, keys: tuple[bytes, ...], *arguments: bytes | int) -> Any:
        """Run a script; `DOWN` where the tier is not up, or fails at it."""
        if not self.up and not await self.ready():
            return DOWN
        try:
            return await self._l2.run(script, keys, *arguments)
        except CacheBusyError:
            return DOWN
        except CacheUnavailableError as error:
            self.fail(error)
            return DOWN

    async def ready(self) -> bool:
        """Say whether the tier is up, after the first attempt to reach it.

        What is to be kept in memory begins after it, for coming up drops what memory had.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="gossamer-cache-link")
        if not self._attempted.is_set():
            await self._attempted.wait()
        return self.up

    def fail(self, error: CacheError) -> None:
        """Take the tier for down until it has been reached anew."""
        if not self.up:
            return
        self._tell_down(error)
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)

    async def aclose(self) -> None:
        """Hear no longer; what is in memory is dropped."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            self._task = None

    def drop_in_child(self) -> None:
        """After a fork, in the child: let go of the parent's socket, and of all that nobody hears about here."""
        if self._connection is not None:
            null = os.open(os.devnull, os.O_RDWR)
            release_socket(self._connection, null)
            os.close(null)
        self._tiers.forget()

    # --- staying up -----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = 0.0
        try:
            while True:
                since, longest = monotonic(), _LONGEST_PAUSE
                try:
                    await self._come_up()
                    self._attempted.set()
                    longest = _LONGEST_PAUSE_BETWEEN_FAILURES
                    error = await self._failure()
                except CacheError as failure:
                    error = failure
                except Exception as failure:  # noqa: BLE001 - whatever it is, there is memory, and another attempt
                    error = CacheError(f"the link to Redis at {self._l2.where} failed with {failure!r}")
                self._tell_down(error)
                self._attempted.set()
                if monotonic() - since > _STEADY_SECONDS:
                    pause = 0.0
                if pause:
                    await asyncio.sleep(pause)
                pause = min(max(2 * pause, _SHORTEST_PAUSE), longest)
        finally:
            self.up = False
            self._attempted.set()
            self._tiers.forget()
            if self._reader is not None:
                self._reader.cancel()
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
                self._connection = None

    async def _come_up(self) -> None:
        if self._reader is None or self._reader.done():
            await self._subscribe()
        await self._l2.execute(b"PING")
        await self._tiers.settle()
        # Nothing is awaited between the last debt's settling and here.
        self._failed = asyncio.get_running_loop().create_future()
        self.up = True
        if self._told:
            self._told = False
            logger.info("%r answers again; both tiers are used", self._l2)
            if metrics.recorder is not None:
                metrics.recorder.cache_tier_changed("up")

    async def _subscribe(self) -> None:
        from redis.exceptions import RedisError

        connection = self._l2.connection()
        try:
            async with asyncio.timeout(self._l2.timeout):
                await connection.connect()
                await connection.send_command("SUBSCRIBE", self._channel)
                answer = await connection.read_response()
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if not isinstance(error, RedisError | OSError):  # the time limit's error is an OSError
                raise
            self._l2.count_failure()
            where = f"Redis at {self._l2.where}"
            if isinstance(error, TimeoutError):
                raise CacheUnavailableError(f"{where} did not answer within {self._l2.timeout} s") from error
            raise CacheUnavailableError(f"{where} cannot be subscribed to: {error}") from error
        if answer[0] != b"subscribe":
            await connection.disconnect(nowait=True)
            raise CacheUnavailableError(
                f"Redis at {self._l2.where} answered a subscription with {answer!r:.200}"
            )
        # What was told before is lost; from here on everything is heard. Whoever reads or computes now began in the
        # old scope, so nothing of theirs is found either.
        self._tiers.forget()
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name="gossamer-cache-reader")

    async def _read(self, connection: Any) -> CacheUnavailableError:
        """Hear until the connection breaks; gives why it did."""
        from redis.exceptions import RedisError

        try:
            while True:
                message = await connection.read_response()
                self._heard += 1
                if message[0] == b"message":
                    self._tiers.heard(message[2])
        except (RedisError, OSError) as error:
            return CacheUnavailableError(
                f"the connection that listens to Redis at {self._l2.where} broke: {error}"
            )
        finally:
            await connection.disconnect(nowait=True)

    async def _failure(self) -> CacheError:
        """Wait until something fails."""
        reader, failed, connection = self._reader, self._failed, self._connection
        assert reader is not None
        assert failed is not None
        silent, heard = 0, self._heard
        while True:
            done, _ = await asyncio.wait(
                {reader, failed}, timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if reader in done:
                return reader.result()
            if failed in done:
                return failed.result()
            silent = silent + 1 if heard == self._heard else 0
            heard = self._heard
            if silent > 2:
                reader.cancel()
                await asyncio.wait({reader})
                return CacheUnavailableError(f"Redis at {self._l2.where} went silent")
            try:
                async with asyncio.timeout(self._l2.timeout):
                    await connection.send_command("PING", check_health=False)
            except Exception:  # noqa: BLE001, S112 - the reader meets the broken connection, and says so
                continue

    def _tell_down(self, error: CacheError) -> None:
        if self.up:
            self.up = False
            self._tiers.lost()
        if self._told:
            return
        self._told = True
        logger.warning("%s; the cache goes on in memory alone until it answers", error)
        if metrics.recorder is not None:
            metrics.recorder.cache_tier_changed("down")
