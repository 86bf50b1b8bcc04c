"""Which store and which session a command works with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from math import inf, nextafter
from pathlib import Path
from typing import Any, TypeVar

from gossamer.cli.loop import loop_factory
from gossamer.errors import ArgumentError
from gossamer.session import Session
from gossamer.stores.base import SessionInfo, SessionStatus, Store
from gossamer.stores.urls import open_store

__all__ = ["choose_session", "choose_store", "every_session", "in_store", "status_of"]

T = TypeVar("T")

_SQLITE = "sqlite:///"
_PAGE = 100


def choose_store(url: str | None, *, make: bool = False) -> Store:
    """Give the store to work with.

    Args:
        url: its URL; that of GOSSAMER_STORE where None.
        make: whether it is made where it is missing: one that is only read is told to be missing.

    Raises:
        ArgumentError: neither names one, it is in no file and no server, or there is no such file.
    """
    url = _url(url)
    store = open_store(url)
    if store.url == "memory:":
        raise ArgumentError(
            f"a store at {url!r} is in the memory of the process that uses it, and no other one's; "
            "say sqlite:///chats.db, or a URL of Postgres"
        )
    if not make and url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE)).absolute()
        if not path.exists():
            raise ArgumentError(f"there is no database at {url!r}: no file {str(path)!r}")
    return store


def choose_session(url: str | None, session: str | None) -> Session[Any] | None:
    """Give the session to go on with, None where nothing is to be kept.

    Args:
        url: the URL of its store; that of GOSSAMER_STORE where None.
        session: its id; None for a new one.

    Raises:
        ArgumentError: a session is named and no store.
    """
    if session is None and not url and not os.environ.get("GOSSAMER_STORE"):
        return None
    return Session(session, store=open_store(_url(url)))


def _url(url: str | None) -> str:
    url = url or os.environ.get("GOSSAMER_STORE")
    if not url:
        raise ArgumentError("no store is named; say --store sqlite:///chats.db, or set GOSSAMER_STORE")
    return url


def in_store(store: Store, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with a store, on an event loop, and let the store go."""

    async def do() -> T:
        try:
            return await work(store)
        finally:
            await store.aclose()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(do())


async def every_session(store: Store, status: SessionStatus) -> AsyncGenerator[SessionInfo]:
    """List the sessions of a status, page by page; pages overlap, so that none is lost that changed at the same time."""
    before: float | None = None
    seen: set[str] = set()
    while True:
        limit = _PAGE + len(seen)
        page = await store.list_sessions(status=status, limit=limit, before=before)
        for info in page:
            if info.id not in seen:
                yield info
        if len(page) < limit:
            return
        last = page[-1].updated
        before = nextafter(last, inf)
        seen = {info.id for info in page if info.updated == last}


async def status_of(store: Store, session: Session[Any]) -> SessionStatus:
    """Tell the status of a session that was loaded."""
    if session.unfinished is None:
        return "idle"
    async for info in every_session(store, "running"):
        if info.id == session.id:
            return "running"
    return "paused" if session.pending else "broken"
