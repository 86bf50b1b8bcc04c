"""An exported session into a store: all of it or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from hashlib import sha256
from typing import Any

from gossamer.errors import ArgumentError, DecodeError, GossamerError, SessionError
from gossamer.inner import inner_id
from gossamer.records import (
    ApprovalAskedRecord,
    ApprovalDecidedRecord,
    MessageRecord,
    Record,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    ToolResultRecord,
)
from gossamer.stores.base import Append, Held, Store, check_id
from gossamer.stores.lines import (
    EndLine,
    InnerLine,
    Line,
    MediaLine,
    RecordLine,
    SessionLine,
    decode_first,
    decode_line,
)
from gossamer.stores.media import MediaHash, lift, restore
from gossamer.stores.urls import as_store

__all__ = ["import_session"]

# How much is gathered before it is written.
_MAX_RECORDS = 500
_MAX_BYTES = 4 * 1024 * 1024

# How many bytes of media are remembered; others that are said again are read from the store.
_MAX_MEDIA_BYTES = 64 * 1024 * 1024

# A line that is longer is read on a thread.
_LONG_LINE = 256 * 1024


async def import_session(
    store: Store | str,
    lines: AsyncIterable[bytes | str] | Iterable[bytes | str],
    id: str | None = None,  # noqa: A002 - the word users know
) -> str:
    """Import the lines that `export_session` gave, out of an open file for one.

    The session is there once the last line was read and fits; where anything is wrong, nothing is left. What the session
    waits for, and a run that broke off in it, go on here as they would there. Where the process dies meanwhile, a session
    may be left that ends with one of its runs, with no run unfinished: delete it and import it again.

    Args:
        store: where to, a `Store` or its URL.
        lines: the lines, with or without newlines. A plain iterable is read on the event loop.
        id: the id that it gets, in place of its own.

    Returns:
        Its id.

    Raises:
        DecodeError: cut off, damaged, changed, of a newer version or no exported session; the message names the line.
        SessionError: there is a session of that id already.
        StoreError: the store cannot be written.
    """
    store = as_store(store)
    if isinstance(lines, bytes | str):
        raise ArgumentError("lines must be lines, such as an open file or text.splitlines(), not one text")
    importing = _Import(store, id)
    try:
        async for line in _each(lines):
            await importing.read(line)
        await importing.finish()
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(importing.undo()))
        raise
    return importing.outer.session


async def _each(lines: AsyncIterable[bytes | str] | Iterable[bytes | str]) -> AsyncGenerator[bytes | str]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line


class _Journal:
    """A session that is being written.

    Attributes:
        session: its id.
        fence: as the store gave it.
        written: how many records are in the store.
        waiting: those behind them, whose turn comes.
        size: about how many bytes these take.
        ended: how many of them a run ends with, and no run is unfinished behind.
        asked: the calls that wait for a decision.
    """

    def __init__(self, session: str, fence: int) -> None:
        self.session = session
        self.fence = fence
        self.written = 0
        self.waiting: list[Record] = []
        self.size = 0
        self.ended = 0
        self.asked: set[str] = set()
        self._unfinished = False

    def take(self, record: Record, size: int) -> None:
        self.waiting.append(record)
        self.size += size
        if isinstance(record, RunStartedRecord):
            self._unfinished = True
        elif isinstance(record, RunFinishedRecord | RunFailedRecord):
            self._unfinished = False
            self.asked.clear()
        elif isinstance(record, MessageRecord):
            self.asked.clear()
        elif isinstance(record, ApprovalAskedRecord):
            self.asked.add(record.pending.call_id)
        elif isinstance(record, ApprovalDecidedRecord):
            self.asked.discard(record.call_id)
        elif isinstance(record, ToolResultRecord):
            self.asked.discard(record.result.call_id)
        if not self._unfinished:
            self.ended = len(self.waiting)

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= _MAX_RECORDS or self.size >= _MAX_BYTES

    def append(self, count: int, *, last: bool = False) -> Append:
        """Give the first of the records that wait as what the store is asked to append."""
        append = Append(
            self.session,
            self.fence,
            self.written,
            self.waiting[:count],
            release=last,
            paused=last and bool(self.asked),
        )
        del self.waiting[:count]
        self.written += count
        self.size = 0
        self.ended = 0
        return append


class _Import:
    """An import that is under way.

    Sessions inside calls are written as they come. Of the session around them only whole runs are written before the
    last line was read, so that nothing is ever left with an unfinished run that lacks records: it could be resumed, and
    would run tools again.
    """

    def __init__(self, store: Store, session: str | None) -> None:
        self._store = store
        self._session = session
        self._number = 0
        self._digest = sha256()
        self._before = b""  # the digest of all lines before the last one
        self._outer: _Journal | None = None
        self._inner: _Journal | None = None
        self._sessions: list[str] = []
        self._records = self._media_lines = 0
        self._end: EndLine | None = None
        self._holding: asyncio.Future[Held] | None = None
        self._media: dict[MediaHash, bytes] = {}
        self._fresh: set[MediaHash] = set()
        self._places: dict[MediaHash, tuple[str, int]] = {}

    @property
    def outer(self) -> _Journal:
        if self._outer is None:
            raise DecodeError("line 1: there is nothing to import; the file is empty")
        return self._outer

    async def read(self, line: bytes | str) -> None:
        """Take a line up.

        Raises:
            DecodeError: it does not fit.
        """
        self._number += 1
        try:
            data = (line.encode() if isinstance(line, str) else line).rstrip(b"\r\n")
            if len(data) > _LONG_LINE:
                decoded = await asyncio.to_thread(self._decode, data)
            else:
                decoded = self._decode(data)
            await self._take(decoded, len(data))
        except (DecodeError, UnicodeEncodeError) as error:
            raise DecodeError(f"line {self._number}: {error}") from error

    async def finish(self) -> None:
        """Check that nothing is missing, and write the last of it.

        Raises:
            DecodeError: something is.
        """
        outer, end = self.outer, self._end
        if end is None:
            raise DecodeError(
                f"line {self._number}: the export is cut off here; the line that ends it is missing"
            )
        await self._store.append(outer.append(len(outer.waiting), last=True))

    async def undo(self) -> None:
        """Delete what was written."""
        if self._holding is None:
            return
        with contextlib.suppress(GossamerError):
            held = await self._holding
            if held.length:  # somebody else's
                await self._store.append(Append(self._sessions[0], held.fence, held.length, (), release=True))
                return
            if self._inner is not None:
                await self._store.append(self._inner.append(0, last=True))
            await self._store.delete_session(self._sessions[0])
            # The store forgets that it is held here.
            await self._store.append(Append(self._sessions[0], held.fence, 0, (), release=True))

    def _decode(self, data: bytes) -> Line:
        self._before = self._digest.digest()
        self._digest.update(data + b"\n")
        if self._number == 1:
            return decode_first(data)
        decoded = decode_line(data)
        if isinstance(decoded, MediaLine) and sha256(decoded.data).hexdigest() != decoded.hash:
            raise DecodeError("the media in it were changed: their hash is another one")
        return decoded

    async def _take(self, line: Line, size: int) -> None:
        if self._end is not None:
            raise DecodeError("the session has ended before this line; import one export at a time")
        if isinstance(line, RecordLine):
            await self._take_record(line, size)
        elif isinstance(line, MediaLine):
            key = bytes.fromhex(line.hash)
            self._media[key] = line.data
            self._fresh.add(key)
            self._media_lines += 1
        elif isinstance(line, InnerLine):
            await self._begin_inner(line)
        elif isinstance(line, SessionLine):
            await self._begin(line)
        else:
            await self._end_inner()
            self._check_end(line)
            self._end = line

    async def _begin(self, line: SessionLine) -> None:
        if self._outer is not None:
            raise DecodeError("a second session begins; import one export at a time")
        session = line.id if self._session is None else self._session
        check_id(session)
        if await self._store.load(session) is not None:
            raise _is_there(session)
        self._sessions.append(session)
        self._holding = asyncio.ensure_future(self._store.hold(session, initial=line.state))
        held = await asyncio.shield(self._holding)
        if held.length:
            raise _is_there(session)
        self._outer = _Journal(session, held.fence)

    async def _begin_inner(self, line: InnerLine) -> None:
        await self._end_inner()
        if not 0 <= line.parent < len(self._sessions):
            raise DecodeError(f"it is inside of session {line.parent}, which is none before it")
        parent = self._sessions[line.parent]
        session = inner_id(parent, line.inside)
        self._sessions.append(session)
        held = await self._store.hold(session, parent=parent, inside=line.inside, initial=line.state)
        if held.length:
            raise _is_there(session)
        self._inner = _Journal(session, held.fence)

    async def _end_inner(self) -> None:
        if self._inner is not None:
            await self._store.append(self._inner.append(len(self._inner.waiting), last=True))
            self._inner = None

    async def _take_record(self, line: RecordLine, size: int) -> None:
        journal = self._inner or self.outer
        record = line.record
        _, _, holes = lift(record)
        if len(holes) != len(line.media):
            raise DecodeError(f"it holds {len(holes)} media and names {len(line.media)}")
        try:
            order = [bytes.fromhex(key) for key in line.media]
        except ValueError as error:
            raise DecodeError(f"it names media by what is no hash: {error}") from error
        if self._fresh - set(order):
            raise DecodeError("the media before it are not its own")
        self._fresh.clear()
        if order:
            found = {key: await self._media_of(key) for key in order}
            record = restore(record, order, found)
            size += sum(map(len, found.values()))
            place = journal.written + len(journal.waiting)
            for key in found:
                self._places.setdefault(key, (journal.session, place))
            self._forget_media()
        journal.take(record, size)
        self._records += 1
        if journal.is_full:
            count = journal.ended if journal is self._outer else len(journal.waiting)
            if count:
                await self._store.append(journal.append(count))

    async def _media_of(self, key: MediaHash) -> bytes:
        if key in self._media:
            return self._media[key]
        if key not in self._places:
            raise DecodeError(f"media {key.hex()} do not come before it")
        session, place = self._places[key]
        for journal in (self._outer, self._inner):
            if journal is not None and journal.session == session and place >= journal.written:
                record = journal.waiting[place - journal.written]
                break
        else:
            (record,) = await self._store.read(session, place, place + 1)
        _, found, _ = await asyncio.to_thread(lift, record)
        self._media.update(found)
        return found[key]

    def _forget_media(self) -> None:
        size = sum(map(len, self._media.values()))
        while size > _MAX_MEDIA_BYTES:
            size -= len(self._media.pop(next(iter(self._media))))

    def _check_end(self, end: EndLine) -> None:
        told: dict[str, Any] = {"sessions": end.sessions, "records": end.records, "media": end.media}
        were = {
            "sessions": len(self._sessions),
            "records": self._records,
            "media": self._media_lines,
        }
        if told != were:
            raise DecodeError(f"the export had {told}, and these are {were}: lines are missing or too many")
        if end.sha256 != self._before.hex():
            raise DecodeError("the lines before it were changed since they were exported")


def _is_there(session: str) -> SessionError:
    return SessionError(
        f"there is a session {session!r} already; import it under another id, or delete that one"
    )
