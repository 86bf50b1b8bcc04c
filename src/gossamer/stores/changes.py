"""What records change in a session's row, so that a list of sessions reads no journal; and records as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from time import time

import msgspec

from gossamer.errors import ArgumentError, SessionLostError, StoreError
from gossamer.messages import Message
from gossamer.records import (
    MessageRecord,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    ViewMovedRecord,
    encode,
)
from gossamer.stores.base import Append, StoredSnapshot, check_name
from gossamer.stores.media import MediaHash, lift

__all__ = [
    "Changes",
    "Clock",
    "EncodedRecord",
    "EncodedSnapshot",
    "changes_of",
    "encode_append",
    "encode_snapshot",
    "inserted_of",
    "lost",
    "merged",
]

_TITLE_CHARS = 80

# Seconds; a double holds them apart.
_TICK = 2e-6

# A clock that has been put back by more seconds is believed.
_JUMP = 1.0


class Changes(msgspec.Struct):
    """What records change in a session's row; None where they leave it as it is.

    Attributes:
        messages: how many messages were said.
        title: the first words of a user among them.
        agent: the agent of the last run that started.
        user: on whose behalf the first one was made.
        run: the run that is unfinished behind them, "" where none is.
        fingerprint: that of its agent.
    """

    messages: int = 0
    title: str | None = None
    agent: str | None = None
    user: str | None = None
    run: str | None = None
    fingerprint: str | None = None


def changes_of(records: Sequence[Record]) -> Changes:
    """Tell what records change in a session's row."""
    changes = Changes()
    for record in records:
        if isinstance(record, MessageRecord):
            if record.retrieved:
                continue
            changes.messages += 1
            if changes.title is None and record.message.role == "user" and (words := record.message.text):
                # No NUL, which text of a database cannot hold.
                changes.title = " ".join(words[: 4 * _TITLE_CHARS].replace("\x00", " ").split())[
                    :_TITLE_CHARS
                ]
        elif isinstance(record, RunStartedRecord):
            changes.agent, changes.run = record.agent, record.run
            changes.fingerprint = record.fingerprint
            changes.user = changes.user or record.user
        elif isinstance(record, RunFinishedRecord | RunFailedRecord):
            changes.run = changes.fingerprint = ""
    return changes


def merged(first: Changes, then: Changes) -> Changes:
    """Give what two changes come to, one after the other."""
    return Changes(
        first.messages + then.messages,
        first.title or then.title,
        first.agent if then.agent is None else then.agent,
        first.user or then.user,
        first.run if then.run is None else then.run,
        first.fingerprint if then.fingerprint is None else then.fingerprint,
    )


class Clock:
    """Gives times, in seconds since the epoch, no two the same in a row, so that a list in pages misses none."""

    def __init__(self) -> None:
        self._last = 0.0

    def now(self) -> float:
        """Give the time."""
        now = time()
        if self._last - _JUMP < now <= self._last:
            now = self._last + _TICK
        self._last = now
        return now


class EncodedRecord(msgspec.Struct, frozen=True):
    """A record as it is stored.

    Attributes:
        data: JSON, without the bytes of media.
        media: their hashes, end to end, in the order in which they occur; empty for most.
    """

    data: bytes
    media: bytes


class EncodedSnapshot(msgspec.Struct, frozen=True):
    """A snapshot as it is stored.

    Attributes:
        at: see `StoredSnapshot`.
        ranges: the same, as JSON.
        data: the same.
        inserted: a record that holds the messages.
    """

    at: int
    ranges: bytes
    data: bytes
    inserted: EncodedRecord


def encode_append(append: Append) -> tuple[list[EncodedRecord], dict[MediaHash, bytes]]:
    """Encode what is to be appended.

    Returns:
        The records, and the media in them, by hash.

    Raises:
        StoreError: a record holds something that has no JSON form, or a name that no database can hold; the message
            says where.
    """
    media: dict[MediaHash, bytes] = {}
    for record in append.records:
        if isinstance(record, RunStartedRecord):
            _check_names(append.session, record)
    return [_encode(append.session, record, media) for record in append.records], media


def encode_snapshot(session: str, snapshot: StoredSnapshot, media: dict[MediaHash, bytes]) -> EncodedSnapshot:
    """Encode a snapshot; media in it are added to those given.

    Raises:
        StoreError: it holds something that has no JSON form.
    """
    moved = ViewMovedRecord(run="", at=0.0, reason="snapshot", begin=0, end=0, insert=snapshot.inserted)
    ranges = msgspec.json.encode(snapshot.ranges)
    return EncodedSnapshot(snapshot.at, ranges, snapshot.data, _encode(session, moved, media))


def lost(session: str, ours: bool | None) -> SessionLostError:
    """The error of an append that is refused.

    Args:
        session: its id.
        ours: None where there is no such session, False where another one holds it.
    """
    if ours is None:
        return SessionLostError(f"session {session!r} was deleted while a run held it")
    if ours:
        return SessionLostError(
            f"session {session!r} lacks the records before these: an earlier write of them was refused, or its "
            "database was put back to an older state"
        )
    return SessionLostError(
        f"another process holds session {session!r} by now; what this run did since is not stored"
    )


def inserted_of(record: Record) -> tuple[Message, ...]:
    """Give the messages of the record in which a snapshot keeps them."""
    assert isinstance(record, ViewMovedRecord)
    return record.insert


def _check_names(session: str, record: RunStartedRecord) -> None:
    for what, name in (("agent", record.agent), ("user", record.user), ("run", record.run)):
        try:
            if name:
                check_name(f"the {what} of a run", name)
        except ArgumentError as error:
            raise StoreError(f"session {session!r}: {error}") from error


def _encode(session: str, record: Record, media: dict[MediaHash, bytes]) -> EncodedRecord:
    try:
        lifted, found, order = lift(record)
        data = encode(lifted)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        kind = record.__struct_config__.tag
        raise StoreError(
            f"a record of kind {kind!r} of session {session!r} holds what has no JSON form: {error}; "
            "what tools, state and providers put into a session must be plain data"
        ) from error
    media.update(found)
    return EncodedRecord(data, b"".join(order))
