"""The sessions of runs inside a session's tool calls: one a call, kept with the outer session."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

__all__ = ["InnerSessions"]

SessionT = TypeVar("SessionT")

_MOST = 1000


class InnerSessions(Generic[SessionT]):
    """Sessions by the run and the call that they are inside of; the last 1,000 are kept, the oldest are let go.

    Args:
        known: sessions by `run/call`, such as those of an export.
    """

    __slots__ = ("_by_key",)

    def __init__(self, known: Mapping[str, SessionT] = {}) -> None:
        self._by_key = dict(known)

    def items(self) -> ItemsView[str, SessionT]:
        """The sessions with their keys, `run/call`, oldest first."""
        return self._by_key.items()

    def values(self) -> ValuesView[SessionT]:
        """The sessions, oldest first."""
        return self._by_key.values()

    def of(self, call_id: str, run_id: str | None, make: Callable[[], SessionT]) -> SessionT:
        """Give the session inside a call, and make it where there is none.

        Args:
            call_id: the call's id.
            run_id: the run whose call it is, as a model may use an id again; the last such run where None.
            make: makes the session.
        """
        if run_id is None:
            keys = (key for key in reversed(self._by_key) if key.partition("/")[2] == call_id)
            key = next(keys, f"/{call_id}")
        else:
            key = f"{run_id}/{call_id}"
        if key not in self._by_key:
            self._by_key[key] = make()
            if len(self._by_key) > _MOST:
                del self._by_key[next(iter(self._by_key))]
        return self._by_key[key]

    def of_run(self, run_id: str) -> list[SessionT]:
        """Give the sessions inside the calls of a run."""
        return [session for key, session in self._by_key.items() if key.startswith(f"{run_id}/")]

    def of_calls(self, call_ids: AbstractSet[str]) -> list[SessionT]:
        """Give the sessions inside calls, of whichever run."""
        return [session for key, session in self._by_key.items() if key.partition("/")[2] in call_ids]
