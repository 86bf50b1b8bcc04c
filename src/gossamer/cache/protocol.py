"""What a cache is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Cache"]


@runtime_checkable
class Cache(Protocol):
    """Keeps values by key for a while; what it loses is made again by whoever asked.

    Values are plain data: bytes, text, numbers, None, lists and dicts of them. None is a value like any other. Safe
    to share between runs and event loops.
    """

    async def get(self, key: str, default: Any = None) -> Any:
        """Give the value under a key, or `default` where there is none that is still good."""
        ...

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value.

        Args:
            key: under which it is found again.
            value: plain data.
            ttl: how long it is good, in seconds; the cache's own rule where None.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget a key, known or not."""
        ...
