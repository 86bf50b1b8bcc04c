"""A list of sessions, made of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec

from gossamer.errors import ArgumentError
from gossamer.stores.base import SessionInfo, SessionStatus, check_name

__all__ = ["COLUMNS", "Wanted", "check_wanted", "listed"]

# What is read of a session's row, in order; the name of the user's column is each store's.
COLUMNS = "agent, title, messages, length, created, updated, run, fingerprint, paused, holder"


class Wanted(msgspec.Struct, frozen=True):
    """Which sessions are wanted; see `Store.list_sessions`."""

    user: str | None
    agent: str | None
    status: SessionStatus | None
    limit: int
    before: float | None


def check_wanted(wanted: Wanted) -> None:
    """Check what is asked for.

    Raises:
        ArgumentError: something in it cannot be.
    """
    for what, name in (("a user", wanted.user), ("an agent's name", wanted.agent)):
        if name is not None:
            check_name(what, name)
    if wanted.status is not None and wanted.status not in get_args(SessionStatus):
        raise ArgumentError(f"status must be one of {get_args(SessionStatus)}, not {wanted.status!r}")
    if wanted.limit < 1:
        raise ArgumentError(f"limit must be at least 1, not {wanted.limit}")


def listed(
    rows: Iterable[tuple[Any, ...]], wanted: Wanted, is_alive: Callable[[str], bool]
) -> list[SessionInfo]:
    """Make a list of sessions.

    Args:
        rows: id, user and `COLUMNS` of those that may be wanted, in order.
        wanted: which are.
        is_alive: tells whether a holder still lives.
    """
    alive: dict[str, bool] = {}
    found: list[SessionInfo] = []
    for row in rows:
        if len(found) >= wanted.limit:
            break
        name, user, agent, title, messages, length, created, updated, run, fingerprint, paused, holder = row
        status: SessionStatus = "idle"
        if run:
            if holder is not None and holder not in alive:
                alive[holder] = is_alive(holder)
            status = "running" if holder is not None and alive[holder] else "paused" if paused else "broken"
        if wanted.status is None or status == wanted.status:
            found.append(
                SessionInfo(
                    name,
                    user,
                    agent,
                    title,
                    messages,
                    length,
                    created,
                    updated,
                    status,
                    run or None,
                    fingerprint,
                )
            )
    return found
