"""Stores: where sessions, and what is remembered across them, live beyond a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossamer.stores.base import (
    Append,
    Held,
    SessionInfo,
    SessionStatus,
    Store,
    StoredSession,
    StoredSnapshot,
)
from gossamer.stores.memories import (
    Claimed,
    Extraction,
    FoundMemory,
    MemoryChanges,
    MemoryKind,
    MemoryOwner,
    MemoryQuery,
    MemoryStore,
    NewMemory,
    StoredMemory,
)
from gossamer.stores.urls import open_store

if TYPE_CHECKING:
    from gossamer.stores.postgres import PostgresStore
    from gossamer.stores.sqlite import SQLiteStore

__all__ = [
    "Append",
    "Claimed",
    "Extraction",
    "FoundMemory",
    "Held",
    "MemoryChanges",
    "MemoryKind",
    "MemoryOwner",
    "MemoryQuery",
    "MemoryStore",
    "NewMemory",
    "PostgresStore",
    "SQLiteStore",
    "SessionInfo",
    "SessionStatus",
    "Store",
    "StoredMemory",
    "StoredSession",
    "StoredSnapshot",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name == "SQLiteStore":
        from gossamer.stores.sqlite import SQLiteStore

        return SQLiteStore
    if name == "PostgresStore":
        from gossamer.stores.postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
