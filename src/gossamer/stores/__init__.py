"""Stores: where sessions live beyond a process."""

from __future__ import annotations

from importlib import import_module
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
from gossamer.stores.urls import open_store

if TYPE_CHECKING:
    from gossamer.stores.exporting import export_session
    from gossamer.stores.importing import import_session
    from gossamer.stores.postgres import PostgresStore
    from gossamer.stores.sqlite import SQLiteStore

__all__ = [
    "Append",
    "Held",
    "PostgresStore",
    "SQLiteStore",
    "SessionInfo",
    "SessionStatus",
    "Store",
    "StoredSession",
    "StoredSnapshot",
    "export_session",
    "import_session",
    "open_store",
]


# What is loaded at its first use, and where it stands.
_LATE = {
    "PostgresStore": "postgres",
    "SQLiteStore": "sqlite",
    "export_session": "exporting",
    "import_session": "importing",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"gossamer.stores.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
