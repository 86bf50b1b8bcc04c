"""A conversation's state: the journal, which only grows, and the view that is computed from it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Generic, Self

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, SteeringError
from gossamer.holding import Holding, WhenBusy
from gossamer.ids import new_id
from gossamer.inner import InnerSessions, inner_id
from gossamer.journal import Journal
from gossamer.limits import Budget, Limits, check_session_limits
from gossamer.messages import Message
from gossamer.records import (
    SCHEMA_VERSION,
    ApprovalsForgottenRecord,
    HandoffRecord,
    MessageRecord,
    OffloadedRecord,
    PendingCall,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    StateRecord,
    ToolkitSwitchedRecord,
    ViewMovedRecord,
    decode_as,
    encode,
)
from gossamer.remembered import Remembered, RememberedKey
from gossamer.session_data import ExportedSession, as_patch
from gossamer.stores.base import Store, check_id
from gossamer.stores.urls import as_store
from gossamer.tools.offload import Offload
from gossamer.tools.opened import OpenedToolkits, close_all, close_forgotten
from gossamer.turn import OpenTurn, check_fits
from gossamer.usage import Usage
from gossamer.view import MessageView, View

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    State = TypeVar("State", default=Any)
else:
    from typing import TypeVar

    State = TypeVar("State")

__all__ = ["Session", "WhenBusy"]


class Session(Generic[State]):
    """A conversation. Any agent may take part; one run at a time holds it.

    A session belongs to one event loop at a time. Its journal is append-only; rewinding, windowing and failed runs
    move the view and leave the journal whole.

    One that is kept in a store is loaded when its first run begins, or by `load` or `async with`. A run writes each
    record before what follows from it happens, and holds the session against runs in other processes.

    Args:
        id: names the session; made up where None.
        store: where it is kept, a `Store` or its URL as for `open_store`; None for the memory of this object alone.
        window: messages that the view holds when a run begins; older ones leave it, down to three quarters,
            without separating a tool call from its result.
        state: the initial value of what tools remember in the session: a dict, a dataclass or a Struct.
        merge: makes the new state out of the old one and a patch of JSON data; by default the patch's fields
            replace the state's.
        when_busy: what a run does while another holds the session: `wait` its turn, in order, or `refuse`.
        max_waiting: most runs that wait; the next one is refused.
        limits: what all runs in the session may use together: `max_cost`, `max_tokens`, `max_tool_calls`.

    Attributes:
        holding: the run that holds the session, and those that wait.

    Raises:
        ArgumentError: an argument is out of range.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_children",
        "_journal",
        "_limits",
        "_offload",
        "_opened",
        "holding",
        "id",
    )

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - the word users know
        *,
        store: Store | str | None = None,
        window: int = 1000,
        state: State | None = None,
        merge: Callable[[State, dict[str, Any]], State] | None = None,
        when_busy: WhenBusy = "wait",
        max_waiting: int = 1000,
        limits: Limits | None = None,
    ) -> None:
        if type(window) is not int or window < 1:
            raise ArgumentError(f"window must be at least 1 message, not {window!r}")
        if id is not None and (not isinstance(id, str) or not id):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"id must be text, not {id!r}; leave it out and one is made up")
        if limits is not None:
            check_session_limits(limits)
        self.id = id or new_id()
        self.holding = Holding(self.id, when_busy, max_waiting)
        self._journal = Journal(window, state, merge)
        self._children: InnerSessions[Session[Any]] | None = None
        self._offload: Offload | None = None
        self._limits = limits
        self._budget: Budget | None = None
        self._opened: OpenedToolkits | None = None
        if store is not None:
            check_id(self.id)
            self._journal.keep_in(as_store(store), self.id)

    # --- reading ----------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Sequence[Record]:
        """The records, oldest first; a record's index is its place.

        Of a session that is kept in a store those in memory, from place `first` on; `read` gives the others.
        """
        self._journal.must_be_loaded()
        return tuple(self._journal.records)

    @property
    def first(self) -> int:
        """The place of the first record in memory; 0 but for a session that is kept in a store."""
        return self._journal.first

    @property
    def store(self) -> Store | None:
        """Where the session is kept, or None."""
        return None if self._journal.saving is None else self._journal.saving.store

    @property
    def turn(self) -> OpenTurn | None:
        """The turn whose calls have not all come to a result, or None."""
        return self._journal.standing.turn

    @property
    def window(self) -> int:
        """How many messages the view holds when a run begins."""
        return self._journal.window

    @property
    def messages(self) -> MessageView:
        """What the model sees: the view, without a turn whose calls have no results yet. O(1)."""
        return self._journal.standing.view.snapshot()

    @property
    def view(self) -> View:
        """What the model sees, with the place of each message; records alone move it."""
        return self._journal.standing.view

    @property
    def state(self) -> State:
        """What tools remember in this session; changed with `update`."""
        return self._journal.standing.state

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """The calls that wait for a decision, those of runs inside tools included."""
        turn = self._journal.standing.turn
        return () if turn is None else tuple(turn.asked.values())

    @property
    def unfinished(self) -> RunStartedRecord | None:
        """The run that neither finished nor failed: it is under way, paused, or its process died."""
        return self._journal.standing.run

    def is_open(self, run_id: str) -> bool:
        """Whether a run is the one that is unfinished; none is in a session that is not loaded."""
        return self._journal.is_loaded and self._journal.run_id == run_id

    @property
    def usage(self) -> Usage:
        """What the session's runs used, those inside their tools included, each call once. O(records in memory)."""
        return self._journal.used(self._spent_inside)

    @property
    def limits(self) -> Limits | None:
        """What all runs together may use; set anew, they hold from the next model call on.

        The first ones are set while no run holds the session, as its calls would not count: else SessionBusyError.
        """
        return self._limits

    @limits.setter
    def limits(self, limits: Limits | None) -> None:
        """Set the limits."""
        check_session_limits(limits)
        if self._budget is None:
            self.holding.must_be_free("set its first limits")
        else:
            self._budget.limits = limits or Limits()
        self._limits = limits

    @property
    def budget(self) -> Budget | None:
        """What is left of the limits, None where there never were any; begins with what the journal says was used."""
        if self._budget is None and self._limits is not None:
            used = self.usage + self._journal.lost()
            self._budget = Budget(self._limits, whose=f"session {self.id!r}", used=used)
        return self._budget

    @property
    def answering(self) -> str | None:
        """The agent that answers next, after a handoff; None where that is whoever is asked."""
        handoffs = self._journal.standing.handoffs
        return handoffs[-1][1] or None if handoffs else None

    @property
    def switches(self) -> Mapping[str, bool]:
        """The toolkits that were switched on or off in this session, by name; others are as they say themselves."""
        return self._journal.standing.switches

    @property
    def remembered(self) -> Mapping[RememberedKey, Remembered]:
        """The decisions that hold for the rest of the session, with their places; see `RememberedKey`."""
        return self._journal.standing.remembered

    @property
    def opened(self) -> OpenedToolkits:
        """What toolkits hold open for this session; closed by `aclose`, or when nobody has the session any more."""
        if self._opened is None:
            self._opened = {}
            weakref.finalize(self, close_forgotten, self._opened).atexit = False
        return self._opened

    @property
    def offload(self) -> Offload:
        """The place for what is too large for the view."""
        if self._offload is None:
            self._offload = Offload()
            self._offload.skip(self._journal.standing.aside)
        return self._offload

    @property
    def has_offload(self) -> bool:
        """Whether anything was put there."""
        return (self._offload is not None and len(self._offload) > 0) or bool(self._journal.standing.aside)

    # --- writing ----------------------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """Append a record and let it act on the view.

        Cost: O(1), but for records that move the view.

        Args:
            record: the record; records are how everything changes here, live and on import.
        """
        self._journal.append(record)

    def steer(self, message: str | Message) -> None:
        """Put a message into the run that holds the session, see `RunContext.steer`; else SteeringError."""
        if self.holding.holder is None:
            raise SteeringError(f"no run holds session {self.id!r}; run an agent with the message")
        self.holding.holder.steer(message)

    def keep_aside(self, text: str) -> str:
        """Keep a text that is too large for the view, and give the words that stand for it there."""
        reference, words = self.offload.reference(text)
        if self._journal.saving is not None:
            self.record(OffloadedRecord(run=self._journal.run_id, reference=reference, text=text))
        return words

    async def kept_aside(self, reference: str) -> str | None:
        """Give a text that was kept aside, or None where there is none of that reference."""
        kept = self.offload.texts.get(reference)
        return await self._journal.aside(reference) if kept is None else kept

    def add(self, message: Message) -> None:
        """Put a message into the conversation without a run: history from elsewhere, or something observed. O(1).

        An answer with calls enters the view when the message with their results is added.

        Raises:
            SessionBusyError: a run holds the session.
            RunPausedError: the session waits for decisions.
            ArgumentError: results without their calls, or anything else where results are due.
        """
        self.holding.must_be_free("add a message")
        self.must_not_be_paused()
        check_fits(message, self.turn)
        self.record(MessageRecord(run="", message=message))
        self.trim()

    def update(self, patch: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Merge a patch into the state and keep it in the journal.

        Args:
            patch: fields and their new values, kept as JSON data: a tuple becomes a list.
            **fields: the same as keyword arguments.

        Raises:
            ArgumentError: a value has no JSON form.
        """
        merged = as_patch({**(patch or {}), **fields})
        self.record(StateRecord(run=self._journal.run_id, patch=merged))

    def switch(self, toolkit: str, *, on: bool) -> None:
        """Switch a toolkit on or off, from the next model call on and for all runs to come.

        Args:
            toolkit: its name; agents that have none of that name take no notice.
            on: whether it is to be on.
        """
        if not isinstance(toolkit, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"toolkit must be the name of one, not {type(toolkit).__name__}")
        self.record(ToolkitSwitchedRecord(run=self._journal.run_id, toolkit=toolkit, on=on))

    def hand_over(self, to: str | None) -> None:
        """Say which agent answers from here on; an agent that can hand over to it, if only by way of others, lets it.

        Args:
            to: its name; None for whoever is asked.
        """
        self.record(HandoffRecord(run=self._journal.run_id, to=to or ""))

    def forget_approvals(self) -> None:
        """Let no decision hold any longer that was to be remembered: each call is asked about again."""
        self.record(ApprovalsForgottenRecord(run=self._journal.run_id))

    def trim(self) -> None:
        """Move the view forward where it has outgrown its window. Amortised O(1) per message."""
        place = self._journal.standing.view.outgrown()
        if place is not None:
            self.record(ViewMovedRecord(run=self._journal.run_id, reason="window", begin=0, end=place))

    def rewind(self, place: int) -> None:
        """Let everything from a place on leave the view; the journal keeps it.

        Args:
            place: index of a record in the journal, such as one of `starts`.

        Raises:
            SessionBusyError: a run holds the session.
            ArgumentError: there is no such place.
        """
        self.holding.must_be_free("rewind")
        self._journal.must_have(place)
        self.close_broken_run("the session was rewound")
        self.record(ViewMovedRecord(run="", reason="rewind", begin=place, end=self._journal.end))

    @property
    def starts(self) -> tuple[int, ...]:
        """The places where the last runs started, up to 1,000: `session.rewind(session.starts[-1])` takes one back."""
        return tuple(self._journal.standing.starts)

    def branch(self, place: int | None = None, id: str | None = None) -> Session[State]:  # noqa: A002
        """Make a new session that shares this one's past.

        Args:
            place: index of the first record that the branch does not take over; all are taken where None.
            id: the branch's id; made up where None.

        Returns:
            The branch. A run that was open at that place counts as broken off there.

        Raises:
            ArgumentError: there is no such place.
            SessionError: the session is kept in a store and not all of it is in memory; `import_session` makes copies.
        """
        end = self._journal.end if place is None else place
        self._journal.must_have(end)
        self._journal.must_be_in_memory("branch")
        copy: Session[State] = Session(
            id,
            window=self.window,
            state=self._journal.initial,
            merge=self._journal.merge,
            when_busy=self.holding.when_busy,
            max_waiting=self.holding.max_waiting,
            limits=self._limits,
        )
        for record in self._journal.records[:end]:
            copy.record(record)
        if self._offload is not None:
            copy.offload.restore(self._offload.texts)
        copy.close_broken_run("the session was branched here")
        return copy

    def child(self, call_id: str, run_id: str | None = None) -> Session[Any]:
        """Give the session of the run inside a call; the same one when the call is resumed.

        1,000 are kept, and those that are under way; beyond that the oldest is let go that has ended, or is in a store.

        Args:
            call_id: the call's id.
            run_id: the run whose call it is, as a model may use an id again; the last such run where None.
        """
        return self._inner.of(call_id, run_id, self._make_child)

    def _make_child(self, inside: str, id: str | None) -> Session[Any]:  # noqa: A002 - as for Session
        saving = self._journal.saving
        if saving is None:
            return Session(f"{self.id}/{inside.partition('/')[2]}", window=self.window)
        child: Session[Any] = Session(id or inner_id(self.id, inside), window=self.window)
        child._journal.keep_in(saving.store, child.id, self.id, inside)
        return child

    @property
    def _inner(self) -> InnerSessions[Session[Any]]:
        if self._children is None:
            self._children = InnerSessions()
        return self._children

    def used_inside(self, call_ids: AbstractSet[str]) -> Usage:
        """Add up what the runs inside calls used, those that will not go on."""
        return Usage() if self._children is None else self._children.used_by_calls(call_ids)

    def _spent_inside(self, run_id: str) -> Usage:
        return Usage() if self._children is None else self._children.used_by_run(run_id)

    # --- in a store -------------------------------------------------------------------------------------------

    async def read(self, begin: int, end: int) -> list[Record]:
        """Read records from one place up to another, those not in memory from the store; fewer where there are fewer."""
        return await self._journal.read(begin, end)

    async def load(self) -> None:
        """Load the session from its store, where it was changed there; SessionChangedError where it was here too."""
        if self._journal.saving is not None and self.holding.holder is None:
            await self._journal.load(self._follow)

    async def save(self) -> None:
        """Write what was changed outside of a run to the store; runs write by themselves.

        Raises:
            SessionBusyError: a run elsewhere holds it; or one here takes hold, and `when_busy` is `refuse`.
            SessionChangedError: another process has changed it since it was loaded.
        """
        if self._journal.saving is None:
            return
        if self._journal.has_new and not self._journal.is_held:
            await self.holding.take(RunContext("", None, run_id="(being saved)", ended=True))
            try:
                await self._journal.hold("refuse", self._follow)
                self._journal.release()
            finally:
                self.holding.release()
        await self._journal.settle()

    def push(self) -> None:
        """Hand what is new to the store, if there is one, without waiting."""
        if self._journal.saving is not None:
            self._journal.push()

    async def settle(self) -> None:
        """Wait until everything is in the store; see `Journal.settle`."""
        if self._journal.saving is not None:
            await self._journal.settle()

    async def take(self, context: RunContext[Any]) -> None:
        """Hold the session for a run, against others here and in other processes; load it where it is not in memory.

        Raises:
            SessionBusyError: see `Holding.take` and `Journal.hold`.
            SessionChangedError: it was changed both here and elsewhere.
        """
        await self.holding.take(context)
        if self._journal.saving is not None:
            try:
                await self._journal.hold(self.holding.when_busy, self._follow, context)
            except BaseException:
                self.holding.release()
                raise

    async def _follow(self, inside: Mapping[str, str]) -> None:
        self._budget = None  # runs elsewhere may have used some of it
        await self._inner.load(inside, self._make_child)

    def release(self) -> None:
        """Let the session go, for the next run; what is new goes to the store."""
        try:
            if self._journal.saving is not None:
                self._journal.release()
                self._offload = None
                if not (self._journal.is_loaded and self._journal.run_id):
                    self._children = None  # else what they used is still to be counted
        finally:
            self.holding.end(self._journal.records)

    # --- runs -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what toolkits hold open for this session. It can be used on, and opens them anew then."""
        if self._opened is not None:
            await close_all(self._opened)
        if self._children is not None:
            await self._children.aclose()

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.save()
        await self.aclose()

    def close_broken_run(self, reason: str) -> None:
        """End a run that will not go on, see `Journal.abandon_run`."""
        self._journal.abandon_run(reason, self._spent_inside)

    def close_turn(self, run_id: str, reason: str) -> None:
        """Give every call of the open turn that has no result one that says what became of it."""
        self._journal.close_turn(run_id, reason)

    def end_run(self, record: RunFinishedRecord | RunFailedRecord) -> None:
        """Record that a run failed or was stopped. A prompt that nothing followed leaves the view."""
        self._journal.end_run(record)

    def must_not_be_paused(self) -> None:
        """Check that no call waits for a decision that may still be made, else RunPausedError."""
        self._journal.must_not_be_paused(self.id)

    # --- JSON -------------------------------------------------------------------------------------------------

    def export(self) -> bytes:
        """Give the whole session as JSON: journal, state, inner sessions and what was kept aside.

        Raises:
            SessionError: it is kept in a store and not all of it is in memory; `export_session` exports from there.
        """
        self._journal.must_be_in_memory("export")
        return encode(self._exported())

    @classmethod
    def from_export(
        cls,
        data: bytes | str,
        *,
        state: State | None = None,
        merge: Callable[[State, dict[str, Any]], State] | None = None,
    ) -> Self:
        """Make a session out of what `export` gave, in this process or another.

        Args:
            data: the JSON.
            state: a value of the state's type, where it is not a dict; its contents do not matter.
            merge: the merge rule that the session had.

        Raises:
            DecodeError: damaged, or written with a newer schema.
        """
        if not isinstance(data, bytes | str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"data must be the JSON that export() gave, not {type(data).__name__}")
        return cls._imported(decode_as(data, ExportedSession), state, merge)

    def _exported(self) -> ExportedSession:
        return ExportedSession(
            schema=SCHEMA_VERSION,
            id=self.id,
            window=self.window,
            when_busy=self.holding.when_busy,
            max_waiting=self.holding.max_waiting,
            limits=self._limits,
            state=msgspec.to_builtins(self._journal.initial),
            journal=self._journal.records,
            children={key: child._exported() for key, child in self._inner.items()},
            offload=dict(self._offload.texts) if self._offload is not None else {},
        )

    @classmethod
    def _imported(cls, exported: ExportedSession, state: Any, merge: Any) -> Self:
        session = cls(
            exported.id,
            window=exported.window,
            state=exported.initial_state(state),
            merge=merge,
            when_busy=exported.when_busy,
            max_waiting=exported.max_waiting,
            limits=exported.limits,
        )
        for record in exported.journal:
            session.record(record)
        if exported.children:
            children = exported.children.items()
            session._inner.restore({key: Session._imported(child, None, None) for key, child in children})
        if exported.offload:
            session.offload.restore(exported.offload)
        return session
