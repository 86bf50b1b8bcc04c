"""Stores by their URLs: one for each in a process."""

from __future__ import annotations

import functools
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from gossamer.errors import ArgumentError

if TYPE_CHECKING:
    from gossamer.stores.base import Store

__all__ = ["as_store", "open_store"]

_EXAMPLES = '"sqlite:///chats.db", "postgresql://user:password@host/database" or "memory:"'

_opening = Lock()


def open_store(url: str) -> Store:
    """Give the store at a URL; the same one each time. Nothing is opened before it is used.

    Args:
        url: `sqlite:///chats.db` for a file, its path relative to the working directory, or with four slashes absolute;
            `postgresql://user:password@host/database` for one of Postgres; `memory:` for one in this process, gone with
            it.

    Raises:
        ArgumentError: the URL is none of these.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"a store is named by a URL such as {_EXAMPLES}, not by {type(url).__name__}")
    scheme, separator, rest = url.partition(":")
    with _opening:  # two threads must not make two of one
        if scheme == "memory" and separator and not rest.strip("/"):
            return _in_memory()
        if scheme == "sqlite" and rest.startswith("///") and rest != "///":
            return _in_file(str(Path(rest[3:]).absolute()))
        if scheme in {"postgres", "postgresql"}:
            return _in_postgres(url)
    raise ArgumentError(f"no store is known at {url[:100]!r}; say {_EXAMPLES}")


@functools.cache
def _in_memory() -> Store:
    from gossamer.stores.sqlite import SQLiteStore

    return SQLiteStore(":memory:")


def as_store(store: Store | str) -> Store:
    """Give a store that was named by its URL, or itself.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(store, str):
        return open_store(store)
    if not hasattr(store, "hold"):
        raise ArgumentError(
            f"store must be a Store or its URL, such as {_EXAMPLES}, not {type(store).__name__}"
        )
    return store


@functools.lru_cache(maxsize=256)
def _in_file(path: str) -> Store:
    from gossamer.stores.sqlite import SQLiteStore

    return SQLiteStore(path)


@functools.lru_cache(maxsize=256)
def _in_postgres(url: str) -> Store:
    from gossamer.stores.postgres import PostgresStore

    return PostgresStore(url)
