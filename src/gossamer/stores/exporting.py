"""A session out of a store as lines of JSON, read and written piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256

from gossamer.errors import SessionError
from gossamer.inner import inner_id
from gossamer.records import SCHEMA_VERSION, Record, ToolStartedRecord, encode
from gossamer.stores.base import Store, StoredSession
from gossamer.stores.lines import FORMAT, EndLine, InnerLine, Line, MediaLine, RecordLine, SessionLine
from gossamer.stores.media import MediaHash, lift
from gossamer.stores.urls import as_store

__all__ = ["export_session"]

# How many records are read at once.
_PAGE = 100


async def export_session(store: Store | str, session_id: str) -> AsyncGenerator[bytes]:
    """Export a session as lines of JSON, in bytes, each with its newline.

    A line of JSON a record, in order; the sessions inside its calls behind those around them; media once each. The last
    line says how many there were, so that `import_session` notices where something is missing or was changed. A session
    that is under way is exported as it stood at the beginning. No more than 100 records are in memory at a time, beside
    what `Store.load` reads.

    Args:
        store: where it is, a `Store` or its URL.
        session_id: its id.

    Yields:
        Lines, each with its newline.

    Raises:
        SessionError: there is no such session, or it is deleted meanwhile.
        StoreError: the store cannot be read.
    """
    store = as_store(store)
    stored = await store.load(session_id)
    if stored is None:
        raise SessionError(f"there is no session {session_id!r} in {store.url}")
    written = _Written()
    first = SessionLine(format=FORMAT, schema=SCHEMA_VERSION, id=session_id, state=stored.initial)
    yield written.line(first)
    async for lines in _of_session(store, session_id, stored, written):
        yield lines
    end = EndLine(
        sessions=written.sessions,
        records=written.records,
        media=len(written.media),
        sha256=written.digest.hexdigest(),
    )
    yield encode(end) + b"\n"


async def _of_session(
    store: Store, session_id: str, stored: StoredSession, written: _Written
) -> AsyncGenerator[bytes]:
    number = written.sessions
    written.sessions += 1
    inside = dict(stored.children)
    for begin in range(0, stored.length, _PAGE):
        end = min(begin + _PAGE, stored.length)
        records = await store.read(session_id, begin, end)
        if len(records) < end - begin:
            raise SessionError(f"session {session_id!r} was deleted while it was exported")
        # Encoding and hashing media takes its time.
        for line in await asyncio.to_thread(written.page, records):
            yield line
        inside.update(await _found_inside(store, session_id, records))
    for key, inner in inside.items():
        child = await store.load(inner)
        if child is None:
            continue
        yield written.line(InnerLine(parent=number, inside=key, state=child.initial))
        async for line in _of_session(store, inner, child, written):
            yield line


async def _found_inside(store: Store, session_id: str, records: Sequence[Record]) -> dict[str, str]:
    """Give the sessions inside the calls that some records say were started: ids by `run/call`."""
    keys = [f"{record.run}/{record.call_id}" for record in records if isinstance(record, ToolStartedRecord)]
    ids = [inner_id(session_id, key) for key in keys]
    firsts = await asyncio.gather(*[store.read(one, 0, 1) for one in ids])
    return {key: one for key, one, first in zip(keys, ids, firsts, strict=True) if first}


class _Written:
    """What was written so far."""

    def __init__(self) -> None:
        self.sessions = 0
        self.records = 0
        self.media: set[MediaHash] = set()
        self.digest = sha256()

    def line(self, line: Line) -> bytes:
        data = encode(line) + b"\n"
        self.digest.update(data)
        return data

    def page(self, records: Sequence[Record]) -> list[bytes]:
        lines: list[bytes] = []
        for record in records:
            lifted, found, order = lift(record)
            for key, data in found.items():
                if key not in self.media:
                    self.media.add(key)
                    lines.append(self.line(MediaLine(hash=key.hex(), data=data)))
            lines.append(self.line(RecordLine(record=lifted, media=tuple(key.hex() for key in order))))
        self.records += len(records)
        return lines
