"""A conversation's state: the journal, which only grows, and the view that is computed from it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Generic, Self

import msgspec

from gossamer.errors import ArgumentError, RunPausedError, SteeringError
from gossamer.holding import Holding, WhenBusy
from gossamer.ids import new_id
from gossamer.inner import InnerSessions
from gossamer.limits import Budget, Limits, check_session_limits
from gossamer.messages import Message, ToolResult
from gossamer.records import (
    SCHEMA_VERSION,
    ApprovalAskedRecord,
    ApprovalDecidedRecord,
    ApprovalsForgottenRecord,
    HandoffRecord,
    MessageRecord,
    PendingCall,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    StateRecord,
    ToolkitSwitchedRecord,
    ToolResultRecord,
    ToolStartedRecord,
    ViewMovedRecord,
    decode_as,
    encode,
)
from gossamer.remembered import Remembered, RememberedKey, to_remember
from gossamer.session_data import ExportedSession, merge_state
from gossamer.spent import lost, spent, spent_by_ended_runs
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

_MAX_HANDOFFS = 1000
_NONE_SWITCHED: dict[str, bool] = {}
_NONE_REMEMBERED: dict[RememberedKey, Remembered] = {}


class Session(Generic[State]):
    """A conversation. Any agent may take part; one run at a time holds it.

    A session belongs to one event loop at a time. Its journal is append-only; rewinding, windowing and failed runs
    move the view and leave the journal whole.

    Args:
        id: names the session; made up where None.
        window: messages that the view holds when a run begins; older ones leave it, down to three quarters,
            without separating a tool call from its result.
        state: the initial value of what tools remember in the session: a dict, a dataclass or a Struct.
        merge: makes the new state out of the old one and a patch of JSON data; by default the patch's fields
            replace the state's.
        when_busy: what a run does while another holds the session: `wait` its turn, in order, or `refuse`.
        max_waiting: most runs that wait; the next one is refused.
        limits: what all runs in the session may use together: `max_cost`, `max_tokens`, `max_tool_calls`.

    Attributes:
        turn: the turn whose calls have not all come to a result, or None.
        holding: the run that holds the session, and those that wait.

    Raises:
        ArgumentError: an argument is out of range.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_children",
        "_handoffs",
        "_initial_state",
        "_journal",
        "_limits",
        "_merge",
        "_offload",
        "_opened",
        "_remembered",
        "_run",
        "_state",
        "_switches",
        "_view",
        "holding",
        "id",
        "turn",
    )

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - the word users know
        *,
        window: int = 1000,
        state: State | None = None,
        merge: Callable[[State, dict[str, Any]], State] | None = None,
        when_busy: WhenBusy = "wait",
        max_waiting: int = 1000,
        limits: Limits | None = None,
    ) -> None:
        if window < 1:
            raise ArgumentError(f"window must be at least 1 message, not {window}")
        if id is not None and not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"id must be text, not {type(id).__name__}")
        if limits is not None:
            check_session_limits(limits)
        self.id = id or new_id()
        self.holding = Holding(self.id, when_busy, max_waiting)
        self.turn: OpenTurn | None = None
        self._journal: list[Record] = []
        self._view = View(window)
        self._state: Any = state
        self._initial_state: Any = state
        self._merge: Any = merge
        self._run: RunStartedRecord | None = None
        self._handoffs: tuple[tuple[int, str], ...] = ()  # place in the journal, and to whom
        self._children: InnerSessions[Session[Any]] | None = None
        self._offload: Offload | None = None
        self._limits = limits
        self._budget: Budget | None = None
        self._switches: dict[str, bool] = _NONE_SWITCHED
        self._remembered: dict[RememberedKey, Remembered] = _NONE_REMEMBERED
        self._opened: OpenedToolkits | None = None

    # --- reading ----------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Sequence[Record]:
        """All records, oldest first; a record's index is its place."""
        return tuple(self._journal)

    @property
    def window(self) -> int:
        """How many messages the view holds when a run begins."""
        return self._view.window

    @property
    def messages(self) -> MessageView:
        """What the model sees: the view, without a turn whose calls have no results yet. O(1)."""
        return self._view.snapshot()

    @property
    def view(self) -> View:
        """What the model sees, with the place of each message; records alone move it."""
        return self._view

    async def read(self, begin: int, end: int) -> list[Record]:
        """Give the records from one place up to another, those that there are."""
        return self._journal[begin:end]

    @property
    def state(self) -> State:
        """What tools remember in this session; changed with `update`."""
        return self._state

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """The calls that wait for a decision, those of runs inside tools included."""
        if self.turn is None:
            return ()
        return tuple(self.turn.asked.values())

    @property
    def unfinished(self) -> RunStartedRecord | None:
        """The run that neither finished nor failed: it is under way, paused, or its process died."""
        return self._run

    @property
    def usage(self) -> Usage:
        """What the session's runs used, those inside their tools included, each call once. O(records)."""
        return spent(self._journal, self._spent_inside)

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
            used = self.usage + lost(self._journal)
            self._budget = Budget(self._limits, whose=f"session {self.id!r}", used=used)
        return self._budget

    @property
    def answering(self) -> str | None:
        """The agent that answers next, after a handoff; None where that is whoever is asked."""
        return self._handoffs[-1][1] or None if self._handoffs else None

    @property
    def switches(self) -> Mapping[str, bool]:
        """The toolkits that were switched on or off in this session, by name; others are as they say themselves."""
        return self._switches

    @property
    def remembered(self) -> Mapping[RememberedKey, Remembered]:
        """The decisions that hold for the rest of the session, with their places; see `RememberedKey`."""
        return self._remembered

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
        return self._offload

    @property
    def has_offload(self) -> bool:
        """Whether anything was put there."""
        return self._offload is not None and len(self._offload) > 0

    # --- writing ----------------------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """Append a record and let it act on the view.

        Cost: O(1), but for records that move the view.

        Args:
            record: the record; records are how everything changes here, live and on import.
        """
        place = len(self._journal)
        self._journal.append(record)
        if isinstance(record, MessageRecord):
            if not record.withdrawn:
                self._say(record.message, place)
        elif isinstance(record, ToolStartedRecord):
            if self.turn is not None:
                self.turn.started.add(record.call_id)
        elif isinstance(record, ToolResultRecord):
            if record.ends_run and self.turn is not None:
                self.turn.ended = record
            self._take_result(record.result, record.at)
        elif isinstance(record, RunStartedRecord):
            self._run = record
        elif isinstance(record, RunFinishedRecord | RunFailedRecord):
            self._run = None
            self.turn = None
        elif isinstance(record, StateRecord):
            self._state = merge_state(self._state, record.patch, self._merge)
        elif isinstance(record, ViewMovedRecord):
            self._view.replace(record.begin, record.end, record.insert)
            if record.reason == "rewind":
                self._forget(record.begin)
        elif isinstance(record, HandoffRecord):
            self._handoffs = (*self._handoffs[-_MAX_HANDOFFS:], (place, record.to))
        elif isinstance(record, ApprovalAskedRecord):
            if self.turn is not None:
                self.turn.asked[record.pending.call_id] = record.pending
        elif isinstance(record, ToolkitSwitchedRecord):
            self._switches = {**self._switches, record.toolkit: record.on}
        elif isinstance(record, ApprovalsForgottenRecord):
            self._remembered = _NONE_REMEMBERED
        elif isinstance(record, ApprovalDecidedRecord) and self.turn is not None:
            asked = self.turn.asked.pop(record.call_id, None)
            self.turn.decisions[record.call_id] = record.decision
            if asked is not None:
                self.turn.shown[record.call_id] = asked.call
            if asked is not None and (key := to_remember(asked, record.decision)) is not None:
                self._remembered = {**self._remembered, key: (place, record.decision)}

    def steer(self, message: str | Message) -> None:
        """Put a message into the run that holds the session; see `RunContext.steer`.

        Raises:
            SteeringError: no run holds it.
        """
        if self.holding.holder is None:
            raise SteeringError(f"no run holds session {self.id!r}; run an agent with the message")
        self.holding.holder.steer(message)

    def add(self, message: Message) -> None:
        """Put a message into the conversation without a run: history from elsewhere, or something observed.

        Cost: O(1), amortised.

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
            patch: fields and their new values, anything with a JSON form.
            **fields: the same as keyword arguments.
        """
        merged = msgspec.to_builtins({**(patch or {}), **fields})
        state = merge_state(
            self._state, merged, self._merge
        )  # first: a patch that does not fit must not reach the journal
        self._journal.append(StateRecord(run=self._run.run if self._run else "", patch=merged))
        self._state = state

    def switch(self, toolkit: str, *, on: bool) -> None:
        """Switch a toolkit on or off, from the next model call on and for all runs to come.

        Args:
            toolkit: its name; agents that have none of that name take no notice.
            on: whether it is to be on.
        """
        if not isinstance(toolkit, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"toolkit must be the name of one, not {type(toolkit).__name__}")
        run = self._run.run if self._run else ""
        self.record(ToolkitSwitchedRecord(run=run, toolkit=toolkit, on=on))

    def hand_over(self, to: str | None) -> None:
        """Say which agent answers from here on; an agent that can hand over to it, if only by way of others, lets it.

        Args:
            to: its name; None for whoever is asked.
        """
        self.record(HandoffRecord(run=self._run.run if self._run else "", to=to or ""))

    def forget_approvals(self) -> None:
        """Let no decision hold any longer that was to be remembered: each call is asked about again."""
        self.record(ApprovalsForgottenRecord(run=self._run.run if self._run else ""))

    def trim(self) -> None:
        """Move the view forward where it has outgrown its window. Amortised O(1) per message."""
        place = self._view.outgrown()
        if place is not None:
            run = self._run.run if self._run else ""
            self.record(ViewMovedRecord(run=run, reason="window", begin=0, end=place))

    def rewind(self, place: int) -> None:
        """Let everything from a place on leave the view; the journal keeps it.

        Args:
            place: index of a record in the journal, such as one of `starts`.

        Raises:
            SessionBusyError: a run holds the session.
            ArgumentError: there is no such place.
        """
        self.holding.must_be_free("rewind")
        self._must_exist(place)
        self.close_broken_run("the session was rewound")
        self.record(ViewMovedRecord(run="", reason="rewind", begin=place, end=len(self._journal)))

    @property
    def starts(self) -> tuple[int, ...]:
        """The places where runs started: `session.rewind(session.starts[-1])` takes the last one back."""
        return tuple(
            place for place, record in enumerate(self._journal) if isinstance(record, RunStartedRecord)
        )

    def branch(self, place: int | None = None, id: str | None = None) -> Session[State]:  # noqa: A002
        """Make a new session that shares this one's past.

        Args:
            place: index of the first record that the branch does not take over; all are taken where None.
            id: the branch's id; made up where None.

        Returns:
            The branch. A run that was open at that place counts as broken off there.

        Raises:
            ArgumentError: there is no such place.
        """
        end = len(self._journal) if place is None else place
        self._must_exist(end)
        copy: Session[State] = Session(
            id,
            window=self.window,
            state=self._initial_state,
            merge=self._merge,
            when_busy=self.holding.when_busy,
            max_waiting=self.holding.max_waiting,
            limits=self._limits,
        )
        for record in self._journal[:end]:
            copy.record(record)
        if self._offload is not None:
            copy.offload.restore(self._offload.texts)
        copy.close_broken_run("the session was branched here")
        return copy

    def child(self, call_id: str, run_id: str | None = None) -> Session[Any]:
        """Give the session of the run inside a call; the same one when the call is resumed.

        The last 1,000 are kept; the oldest are let go.

        Args:
            call_id: the call's id.
            run_id: the run whose call it is, as a model may use an id again; the last such run where None.
        """
        return self._inner.of(call_id, run_id, lambda: Session(f"{self.id}/{call_id}", window=self.window))

    @property
    def _inner(self) -> InnerSessions[Session[Any]]:
        if self._children is None:
            self._children = InnerSessions()
        return self._children

    def used_inside(self, call_ids: AbstractSet[str]) -> Usage:
        """Add up what the runs inside calls used, those that will not go on."""
        ended = (child for child in self._inner.of_calls(call_ids) if not child.unfinished)
        return sum((spent_by_ended_runs(child._journal) for child in ended), Usage())

    def _spent_inside(self, run_id: str) -> Usage:
        """Add up what the runs inside a run's tools used."""
        return sum((child.usage for child in self._inner.of_run(run_id)), Usage())

    # --- runs -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what toolkits hold open for this session. It can be used on, and opens them anew then."""
        if self._opened is not None:
            await close_all(self._opened)
        for child in self._inner.values():
            await child.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def close_broken_run(self, reason: str) -> None:
        """End a run that will not go on: calls without a result get one that says so.

        Args:
            reason: why, as the journal and the model are told.
        """
        run = self._run
        if run is None:
            return
        self.close_turn(run.run, reason)
        self.end_run(RunFailedRecord(run=run.run, error="Abandoned", message=reason))

    def close_turn(self, run_id: str, reason: str) -> None:
        """Give every call of the open turn that has no result one that says what became of it."""
        for result in () if self.turn is None else self.turn.close(reason):
            self.record(ToolResultRecord(run=run_id, result=result))

    def end_run(self, record: RunFinishedRecord | RunFailedRecord) -> None:
        """Record that a run failed or was stopped. A prompt that nothing followed leaves the view."""
        began = self._began_at(record.run)
        self.record(record)
        added = self._view.since(began)
        if added and not any(message.role == "assistant" for message in added):
            self.record(
                ViewMovedRecord(run=record.run, reason="failed", begin=began, end=len(self._journal) - 1)
            )

    def must_not_be_paused(self) -> None:
        """Check that no call waits for a decision that may still be made.

        Raises:
            RunPausedError: at least one does.
        """
        waiting = [pending for pending in self.pending if not pending.expired]
        if waiting:
            names = ", ".join(f"{pending.call.name} ({pending.call_id})" for pending in waiting)
            raise RunPausedError(
                f"session {self.id!r} is paused; decide about {names} with agent.resume(session, …), "
                "or run with pending='deny'",
                pending=self.pending,
            )

    # --- JSON -------------------------------------------------------------------------------------------------

    def export(self) -> bytes:
        """Give the whole session as JSON: journal, state, inner sessions and what was kept aside."""
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
            state=msgspec.to_builtins(self._initial_state),
            journal=self._journal,
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
            known = {key: Session._imported(child, None, None) for key, child in children}
            session._children = InnerSessions(known)
        if exported.offload:
            session.offload.restore(exported.offload)
        return session

    # --- how records act on the view --------------------------------------------------------------------------

    def _say(self, message: Message, place: int) -> None:
        calls = message.tool_calls if message.role == "assistant" else ()
        if calls:  # enters the view together with its results
            self.turn = OpenTurn(message, place, calls, set(), {}, {}, {})
        elif message.role == "tool" and self.turn is not None:  # history: results of the calls before them
            for part in message.parts:
                if isinstance(part, ToolResult):
                    self._take_result(part, message.created)
        else:
            self._view.append(message, place)

    def _take_result(self, result: ToolResult, at: float) -> None:
        turn = self.turn
        if turn is not None and turn.take(result):
            self._view.append(turn.message, turn.place)
            self._view.append(Message("tool", turn.in_order(), None, at), turn.place)
            self.turn = None

    def _forget(self, begin: int) -> None:
        """Forget what was said of who answers and what is allowed from a place on, which was rewound."""
        self._handoffs = tuple(one for one in self._handoffs if one[0] < begin)
        self._remembered = {key: kept for key, kept in self._remembered.items() if kept[0] < begin}

    def _began_at(self, run_id: str) -> int:
        for place in range(len(self._journal) - 1, -1, -1):
            record = self._journal[place]
            if isinstance(record, RunStartedRecord) and record.run == run_id:
                return place
        return len(self._journal)

    def _must_exist(self, place: int) -> None:
        if not 0 <= place <= len(self._journal):
            raise ArgumentError(f"there is no place {place} in a journal of {len(self._journal)} records")
