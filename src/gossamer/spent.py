"""What the runs of a journal used, each counted once: those that ended, and those that broke off or wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gossamer.records import (
    CallLostRecord,
    MessageRecord,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    ToolStartedRecord,
)
from gossamer.usage import Usage

__all__ = ["lost", "spent", "spent_by_ended_runs"]


def spent(journal: Sequence[Record], inside: Callable[[str], Usage]) -> Usage:
    """Add up what the runs of a journal used. O(records).

    A run that ended recorded its total, inner runs included. Of any other the journal holds the answers and the tools
    that were started; a model call that a crash cut off left no trace.

    Args:
        journal: the records.
        inside: gives what the runs inside a run's tools used, by the run's id.
    """
    open_runs: dict[str, Usage] = {}
    total = Usage()
    for record in journal:
        if isinstance(record, MessageRecord):
            if record.usage is not None:
                open_runs[record.run] = open_runs.get(record.run, Usage()) + record.usage
        elif isinstance(record, ToolStartedRecord):
            open_runs[record.run] = open_runs.get(record.run, Usage()) + Usage(tool_calls=1)
        elif isinstance(record, RunFinishedRecord | RunFailedRecord) and record.usage is not None:
            open_runs.pop(record.run, None)
            total += record.usage
    for run_id, used in open_runs.items():
        total += used + inside(run_id)
    return total


def spent_by_ended_runs(journal: Sequence[Record]) -> Usage:
    """Add up what the runs of a journal used that have ended."""
    total = Usage()
    for record in journal:
        if isinstance(record, RunFinishedRecord | RunFailedRecord) and record.usage is not None:
            total += record.usage
    return total


def lost(journal: Sequence[Record]) -> Usage:
    """Add up what the calls could have used at most whose use nobody counted, in the runs of a journal and inside."""
    return sum((record.most for record in journal if isinstance(record, CallLostRecord)), Usage())
