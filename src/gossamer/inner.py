"""The sessions of runs inside a session's tool calls: one a call, kept with the outer session."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Generic, Protocol, TypeAlias, TypeVar

from gossamer.errors import SessionError
from gossamer.records import Record, RunStartedRecord
from gossamer.spent import spent_by_ended_runs
from gossamer.usage import Usage

__all__ = ["InnerSessions", "again", "inner_id"]

_MOST = 1000
_MOST_ID_CHARS = 500


class _Session(Protocol):
    @property
    def journal(self) -> Sequence[Record]: ...

    @property
    def store(self) -> object | None: ...

    @property
    def unfinished(self) -> RunStartedRecord | None: ...

    @property
    def pending(self) -> Sequence[object]: ...

    @property
    def usage(self) -> Usage: ...

    async def load(self) -> None: ...

    async def aclose(self) -> None: ...


SessionT = TypeVar("SessionT", bound=_Session)

# Makes a session, given the run and the call that it is inside of as `run/call`, and its id where that is known.
Make: TypeAlias = Callable[[str, str | None], SessionT]


def inner_id(outer: str, inside: str) -> str:
    """Give the id of the session inside a call, in a store; one that would be long is made short.

    Args:
        outer: the id of the session around it.
        inside: the run and the call there, as `run/call`.
    """
    readable = f"{outer}/{inside}"
    if len(readable) <= _MOST_ID_CHARS and readable.isascii() and "\x00" not in readable:
        return readable
    return f"inner/{sha256(readable.encode(errors='replace')).hexdigest()}"


def again(call_id: str, times: int) -> str:
    """Give what stands for a call in a run whose model has used the call's id before, so many times."""
    return f"{call_id}~{times}" if times else call_id


def call_of(inside: str) -> str:
    """Give the id of the call in `run/call`, as the model used it."""
    return inside.partition("/")[2].partition("~")[0]


class InnerSessions(Generic[SessionT]):
    """Sessions by the run and the call that they are inside of.

    1,000 are kept, and those that are under way. Beyond that the oldest is let go that has ended, or is in a store.

    They are made by the session around them, which is given with each call and not kept: no circle for the collector.
    """

    __slots__ = ("_by_key", "_room")

    def __init__(self) -> None:
        self._room = _MOST
        self._by_key: dict[str, SessionT] = {}

    def items(self) -> ItemsView[str, SessionT]:
        """The sessions with their keys, `run/call`, oldest first."""
        return self._by_key.items()

    def restore(self, sessions: Mapping[str, SessionT]) -> None:
        """Take over sessions by `run/call`, such as those of an export."""
        self._by_key = dict(sessions)

    async def load(self, ids: Mapping[str, str], make: Make[SessionT]) -> None:
        """Load sessions from the store of the one around them.

        Args:
            ids: their ids by `run/call`.
            make: makes one.
        """
        for key, known in ids.items():
            self._by_key[key] = make(key, known)
            await self._by_key[key].load()

    def of(self, call_id: str, run_id: str | None, make: Make[SessionT]) -> SessionT:
        """Give the session inside a call, and make it where there is none.

        Args:
            call_id: the call's id.
            run_id: the run whose call it is, as a model may use an id again; the last such run where None.
            make: makes one.
        """
        if run_id is None:
            keys = (key for key in reversed(self._by_key) if key.partition("/")[2] == call_id)
            key = next(keys, f"/{call_id}")
        else:
            key = f"{run_id}/{call_id}"
        session = self._by_key.get(key)
        if session is None:
            if len(self._by_key) >= self._room:
                self._make_room()
            session = self._by_key[key] = make(key, None)
        return session

    def _make_room(self) -> None:
        """Let the oldest go that are not needed any more, or can be loaded again. Amortised O(1).

        Raises:
            SessionError: too many wait for decisions.
        """
        too_many = len(self._by_key) + 1 - _MOST
        for key, one in list(self._by_key.items()) if too_many > 1 else self._by_key.items():
            if one.store is not None or one.unfinished is None:
                del self._by_key[key]
                too_many -= 1
                if too_many <= 0:
                    self._room = _MOST
                    return
        if sum(bool(one.pending) for one in self._by_key.values()) >= _MOST:
            raise SessionError(
                f"{_MOST:,} runs inside this session wait for decisions, as many as are kept in memory; give it a store, "
                "as with Session(store=…), or decide about some before there are more"
            )
        self._room = 2 * len(self._by_key)  # the others are under way, and held by whoever runs them

    def used_by_run(self, run_id: str) -> Usage:
        """Add up what the runs inside the calls of a run used."""
        return sum((one.usage for key, one in self.items() if key.startswith(f"{run_id}/")), Usage())

    def used_by_calls(self, call_ids: AbstractSet[str]) -> Usage:
        """Add up what the runs inside calls used, of whichever run, those that will not go on."""
        inside = [
            one for key, one in self.items() if key.partition("/")[2] in call_ids or call_of(key) in call_ids
        ]
        return sum((spent_by_ended_runs(one.journal) for one in inside if not one.unfinished), Usage())

    async def aclose(self) -> None:
        """Close what toolkits hold open for them."""
        for one in list(self._by_key.values()):
            await one.aclose()
