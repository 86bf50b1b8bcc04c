"""Caches: a small protocol, and a bounded one in memory."""

from __future__ import annotations

from gossamer.cache.memory import CacheStatistics, MemoryCache
from gossamer.cache.protocol import Cache

__all__ = ["Cache", "CacheStatistics", "MemoryCache"]
