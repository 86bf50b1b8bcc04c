"""Where a conversation stands, as plain data: what a store keeps, so that a long journal need not be read to go on."""

from __future__ import annotations

from typing import Any

import msgspec

from gossamer.errors import DecodeError
from gossamer.messages import Message, ToolResult
from gossamer.records import Decision, MessageRecord, Record, ToolResultRecord, decode_as, encode
from gossamer.standing import Standing
from gossamer.stores.base import StoredSession, StoredSnapshot
from gossamer.usage import Usage
from gossamer.view import INSERTED, View

__all__ = ["restore", "snapshot_of"]

# Ranges of records that lie closer together are read as one.
_GAP = 8


class _Snapshot(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything but the messages; see `Standing`.

    Attributes:
        places: where the view's messages stand, oldest first.
        ends: the last places of what they are made of.
        state: as JSON data.
        handoffs: see `Standing`.
        switches: the same.
        remembered: agent, tool, its fingerprint, arguments, place and decision.
        aside: see `Standing`.
        starts: the same.
        used: the same.
        lost: the same.
    """

    places: list[int]
    ends: list[int]
    state: Any
    handoffs: tuple[tuple[int, str], ...]
    switches: dict[str, bool]
    remembered: list[tuple[str, str, str, str | None, int, Decision]]
    aside: dict[str, int]
    starts: list[int]
    used: Usage
    lost: Usage


def snapshot_of(standing: Standing, at: int, used: Usage, lost: Usage) -> StoredSnapshot:
    """Put down where a conversation stands between two runs.

    Args:
        standing: no run is unfinished, and no turn open.
        at: the length of the journal.
        used: what all runs used so far.
        lost: what calls could have used at most whose use nobody counted.
    """
    view = standing.view
    places, ends = view.places[view.start :], view.ends[view.start :]
    items = view.items[view.start :]
    ranges: list[tuple[int, int]] = []
    inserted: list[Message] = []
    for place, end, item in zip(places, ends, items, strict=True):
        if end == INSERTED:
            inserted.append(item)
        elif ranges and place - ranges[-1][1] <= _GAP:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((place, end))
    kept = _Snapshot(
        places,
        ends,
        msgspec.to_builtins(standing.state),
        standing.handoffs,
        dict(standing.switches),
        [(*key, place, decision) for key, (place, decision) in standing.remembered.items()],
        standing.aside,
        standing.starts,
        used,
        lost,
    )
    return StoredSnapshot(at, tuple(ranges), encode(kept), tuple(inserted))


def restore(standing: Standing, stored: StoredSession) -> None:
    """Bring a fresh standing to where a stored conversation stands.

    Args:
        standing: of an empty journal; its state tells the type of the state, where it is not a dict.
        stored: what was loaded.

    Raises:
        DecodeError: it is damaged, or was written by a newer version.
    """
    example = standing.state
    if stored.initial is not None:
        standing.state = _as_state(stored.initial, example)
    place = 0
    if stored.snapshot is not None:
        place = stored.snapshot.at
        _take_up(standing, stored.snapshot, stored.said, example)
    for record in stored.tail:
        standing.take(record, place)
        place += 1


def _take_up(standing: Standing, snapshot: StoredSnapshot, said: dict[int, Record], example: Any) -> None:
    kept: _Snapshot = decode_as(snapshot.data, _Snapshot)
    standing.state = _as_state(kept.state, example)
    standing.handoffs = kept.handoffs
    standing.switches = kept.switches
    standing.remembered = {
        (agent, tool, mark, arguments): (place, decision)
        for agent, tool, mark, arguments, place, decision in kept.remembered
    }
    standing.aside, standing.starts = kept.aside, kept.starts
    standing.used, standing.lost = kept.used, kept.lost
    inserted = iter(snapshot.inserted)
    view: View = standing.view
    for place, end in zip(kept.places, kept.ends, strict=True):
        message = next(inserted) if end == INSERTED else _message(said, place, end)
        view.append(message, place, end)


def _message(said: dict[int, Record], place: int, end: int) -> Message:
    """Give the message at a place; the results of its calls, put together, where records up to `end` hold them."""
    record = said[place]
    if not isinstance(record, MessageRecord):
        raise DecodeError(f"record {place} of a session is no message; its database is damaged")
    if end == place:
        return record.message
    results: dict[str, ToolResult] = {}
    at = 0.0
    for follower in range(place + 1, end + 1):
        one = said[follower]
        if isinstance(one, ToolResultRecord):
            found, at = (one.result,), one.at
        elif isinstance(one, MessageRecord) and one.message.role == "tool":
            found = tuple(part for part in one.message.parts if isinstance(part, ToolResult))
            at = one.message.created
        else:
            continue
        for result in found:
            results.setdefault(result.call_id, result)
    return Message("tool", tuple(results[call.id] for call in record.message.tool_calls), None, at)


def _as_state(state: Any, example: Any) -> Any:
    if example is None or example.__class__ is dict or state is None:
        return state
    return msgspec.convert(state, example.__class__)
