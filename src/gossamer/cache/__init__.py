"""Caches: a small protocol, one in memory, one in Redis, and both together in two tiers."""

from __future__ import annotations

from gossamer.cache.decorator import CachedFunction, cached
from gossamer.cache.memory import CacheStatistics, MemoryCache
from gossamer.cache.multilevel import MultiLevelCache
from gossamer.cache.protocol import Cache
from gossamer.cache.redis import RedisCache, RedisStatistics
from gossamer.cache.tiers import MultiLevelStatistics

__all__ = [
    "Cache",
    "CacheStatistics",
    "CachedFunction",
    "MemoryCache",
    "MultiLevelCache",
    "MultiLevelStatistics",
    "RedisCache",
    "RedisStatistics",
    "cached",
]
