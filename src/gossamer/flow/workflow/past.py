"""What the journal tells of a run that goes on: which steps finished, which began, and what people decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import ResumeError
from gossamer.records import (
    Decision,
    PendingCall,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    StepFailedRecord,
    StepFinishedRecord,
    StepStartedRecord,
)
from gossamer.session import Session

__all__ = ["Past", "find_past"]


class Past:
    """The steps of a run, as its journal has them.

    Args:
        started: the run's first record.
        records: those of the run, oldest first.

    Attributes:
        run: the run's first record.
        over: whether it had failed, or a limit had stopped it, and is gone on with.
        finished: steps that have an output, by place.
        open: places of steps that began and neither finished nor failed.
        begun: how often each step began, by place.
        failures: how often each failed, by place.
        last_failure: the last failure of each.
        earlier_failures: how often each had failed when the run last failed as a whole.
        present: the places of steps that began since then.
        decisions: what people decided, by call id.
        asked: the calls that wait, by id.
    """

    __slots__ = (
        "asked",
        "begun",
        "decisions",
        "earlier_failures",
        "failures",
        "finished",
        "last_failure",
        "open",
        "over",
        "present",
        "run",
    )

    def __init__(self, started: RunStartedRecord, records: Sequence[Record]) -> None:
        self.run = started
        self.over = False
        self.finished: dict[str, StepFinishedRecord] = {}
        self.open: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.last_failure: dict[str, StepFailedRecord] = {}
        self.earlier_failures: Mapping[str, int] = {}
        self.present: set[str] = set()
        self.decisions: Mapping[str, Decision] = {}
        self.asked: Mapping[str, PendingCall] = {}
        for record in records:
            if record.run == started.run:
                self._take(record)

    def _take(self, record: Record) -> None:
        if isinstance(record, StepStartedRecord):
            self.begun[record.step] += 1
            self.open.add(record.step)
            self.present.add(record.step)
        elif isinstance(record, StepFinishedRecord):
            self.finished[record.step] = record
            self.open.discard(record.step)
        elif isinstance(record, StepFailedRecord):
            self.failures[record.step] += 1
            self.last_failure[record.step] = record
            self.open.discard(record.step)
        elif isinstance(record, RunStartedRecord):
            self.over = False
        elif isinstance(record, RunFailedRecord | RunFinishedRecord):
            self.over = True
            self.earlier_failures = dict(self.failures)
            self.present.clear()

    def attempts(self, place: str) -> int:
        """How many attempts at a step failed that count: those before the run failed as a whole do not.

        They do where the step's fallback has begun since: it is gone on with.
        """
        failures = self.failures[place]
        if not failures:
            return 0
        fallback = f"{place}/"
        if any(one.startswith(fallback) for places in (self.finished, self.begun) for one in places):
            return failures
        return failures - self.earlier_failures.get(place, 0)


async def find_past(session: Session[Any], context: RunContext[Any]) -> Past:
    """Find the run that is to go on: one that is unfinished, or the last one where it failed.

    Args:
        session: held by the run.
        context: the run that goes on with it.

    Raises:
        ResumeError: there is none, or it is another's.
    """
    starts = session.starts
    end = session.first + len(session.journal)
    if not starts:
        raise ResumeError(f"session {session.id!r} has no run to resume")
    started = await _start_at(session, starts[-1])
    begin = starts[-1]
    for place in reversed(starts[:-1]):
        earlier = await _start_at(session, place)
        if earlier.run != started.run:
            break
        started, begin = earlier, place
    if started.agent != context.agent:
        raise ResumeError(
            f"the last run of session {session.id!r} is one of {started.agent!r}, not of {context.agent!r}; "
            "resume it with that one"
        )
    records = await session.read(begin, end)
    ends = [record for record in records if isinstance(record, RunFailedRecord | RunFinishedRecord)]
    if session.unfinished is None:
        last = ends[-1] if ends else None
        if isinstance(last, RunFinishedRecord) and last.finish_reason != "limit":
            raise ResumeError(
                f"session {session.id!r} has no unfinished run; it was resumed already, or never paused"
            )
    past = Past(started, records)
    turn = session.turn
    if turn is not None:
        past.decisions = turn.decisions
        past.asked = turn.asked
    return past


async def _start_at(session: Session[Any], place: int) -> RunStartedRecord:
    [record] = await session.read(place, place + 1)
    assert isinstance(record, RunStartedRecord), "a session's starts are the places where runs started"
    return record
