"""The tools that read back what left the view: the journal holds all of it."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from gossamer.context import RunContext
from gossamer.memory.compacting import READ, SEARCH, as_text
from gossamer.messages import Message, ToolResult
from gossamer.records import MessageRecord, Record, ToolResultRecord, ViewMovedRecord
from gossamer.session import Session
from gossamer.tools.function import Tool, tool
from gossamer.tools.toolset import Toolset, is_shared, with_tools

__all__ = ["with_recall"]

_PAGE = 200  # records that are fetched at once
_MOST_BACK = 20_000  # records that one call looks at
_MOST_CHARACTERS = 2_000_000  # that one call searches
_MOST_LENGTH = 20_000
_MOST_HITS = 20
_HITS_A_MESSAGE = 3
_MOST_RESULTS = 1_000  # of one turn, that are kept while its answer is looked for

# Moves of the view that let messages leave it for want of room; what left it otherwise was to be forgotten.
_FOR_ROOM = frozenset(("compaction", "window"))


class _Places:
    """A set of places, given as ranges. Asking is O(wide ranges), those from one place on counted once."""

    __slots__ = ("_single", "_wide")

    def __init__(self) -> None:
        self._single: set[int] = set()
        self._wide: dict[int, int] = {}  # by its begin, the furthest end

    def add(self, begin: int, end: int) -> None:
        if end - begin == 1:
            self._single.add(begin)
        else:
            self._wide[begin] = max(end, self._wide.get(begin, 0))

    def __contains__(self, place: int) -> bool:
        return place in self._single or any(begin <= place < end for begin, end in self._wide.items())


class _Moves:
    """What the records from one place of a journal to another say of how the view moved.

    Args:
        place: where to begin.

    Attributes:
        begin: the first place looked at.
        end: the place behind the last.
        left: what left the view for want of room.
        hidden: what was taken back, failed, or was stopped by a guardrail.
    """

    __slots__ = ("begin", "end", "hidden", "left")

    def __init__(self, place: int) -> None:
        self.begin = self.end = place
        self.left = _Places()
        self.hidden = _Places()

    def take(self, records: Sequence[Record]) -> None:
        """Take note of the moves among records."""
        for record in records:
            if isinstance(record, ViewMovedRecord):
                (self.left if record.reason in _FOR_ROOM else self.hidden).add(record.begin, record.end)


# What is known of a session's moves: the records behind a place say what became of it, and are looked at once.
_known: WeakKeyDictionary[Session[Any], _Moves] = WeakKeyDictionary()


async def _moves(session: Session[Any], place: int) -> _Moves | None:
    """Give the moves that the records from a place on say, None where those are more than one call may look at."""
    moves = _known.get(session)
    if moves is None:
        places = session.view.places
        last = places[-1] if places else 0
        moves = _known[session] = _Moves(last)
    looked = 0
    while looked < _MOST_BACK:  # several calls of a turn may look at once: each page counts once
        end = moves.end
        page = await session.read(end, end + _PAGE)
        looked += len(page)
        if moves.end == end:
            moves.take(page)
            moves.end = end + len(page)
        if len(page) < _PAGE:
            break
    while moves.begin > place and looked < _MOST_BACK:
        end = moves.begin
        begin = max(end - _PAGE, 0)
        page = await session.read(begin, end)
        looked += len(page)
        if moves.begin == end:
            moves.take(page)
            moves.begin = begin
    if looked >= _MOST_BACK:
        return None
    return moves


async def read_message(context: RunContext[Any], place: int, start: int = 0, length: int = 4_000) -> str:
    """Read a part of an earlier message, or of the results of its calls, that left your view.

    Args:
        context: the run.
        place: where it stands, as the line in its stead, a summary or search_messages says.
        start: the first character to read.
        length: how many characters to read, at most 20,000.
    """
    session: Session[Any] = context.session
    moves = await _moves(session, max(place, 0))
    if moves is None:
        return f"Place {place} lies more than {_MOST_BACK:,} records back; ask again to look further."
    text = await _text_at(session, place) if 0 <= place < moves.end and place not in moves.hidden else None
    if text is None:
        return f"There is no message to read at place {place}; {SEARCH}(words=…) gives places."
    start, length = max(start, 0), min(max(length, 0), _MOST_LENGTH)
    end = min(start + length, len(text))
    return f"[characters {start} to {end} of {len(text)} at place {place}]\n{text[start:end]}"


async def search_messages(context: RunContext[Any], words: str, before: int | None = None) -> str:
    """Find words in earlier messages and results that left your view, the newest first.

    Args:
        context: the run.
        words: the words to find, as they stand there; regardless of case.
        before: look only at places before this one, to go on from an earlier search.
    """
    session: Session[Any] = context.session
    if not words:
        return "Give words to search for."
    found: list[str] = []
    results: dict[str, ToolResult] = {}
    pattern = re.compile(re.escape(words), re.IGNORECASE)
    moves = await _moves(session, session.view.places[-1] if len(session.view) else 0)
    place = None if moves is None else moves.end if before is None else min(max(before, 0), moves.end)
    if place is None:
        return f"More than {_MOST_BACK:,} records are to be looked at first; ask again to look further."
    lowest, characters = max(place - _MOST_BACK, 0), 0
    while place > lowest and characters < _MOST_CHARACTERS and len(found) < _MOST_HITS:
        begin = max(place - _PAGE, lowest)
        moves = await _moves(session, begin)
        if moves is None:
            break
        for record in reversed(await session.read(begin, place)):
            place -= 1
            if isinstance(record, ToolResultRecord):
                results[record.result.call_id] = record.result
            elif isinstance(record, MessageRecord) and record.message.role == "tool":
                results |= {
                    part.call_id: part for part in record.message.parts if isinstance(part, ToolResult)
                }
            elif isinstance(record, MessageRecord):
                own = [results.pop(call.id) for call in record.message.tool_calls if call.id in results]
                if record.withdrawn or place not in moves.left or place in moves.hidden:
                    continue
                text = as_text(record.message, own)
                characters += len(text)
                found += _hits(pattern, text, place, record.message, own)
                if len(found) >= _MOST_HITS or characters >= _MOST_CHARACTERS:
                    break
            if len(results) > _MOST_RESULTS:
                results.clear()
        await asyncio.sleep(0)  # others' turn, between pages
    found = found[:_MOST_HITS]
    if not found:
        found.append(f"{words!r} does not occur in what left the view from place {place} on.")
    if place > 0:
        found.append(f"[{SEARCH}(words={words!r}, before={place}) looks further back]")
    return "\n".join(found)


def _hits(
    pattern: re.Pattern[str], text: str, place: int, message: Message, results: Sequence[ToolResult]
) -> list[str]:
    whose = ", ".join(result.name for result in results) or message.author or message.role
    hits: list[str] = []
    for match in pattern.finditer(text):
        around = text[max(match.start() - 100, 0) : match.end() + 200].replace("\n", " ")
        hits.append(f"place {place}, {whose}, at {match.start()}: …{around}…")
        if len(hits) == _HITS_A_MESSAGE:
            break
    return hits


async def _text_at(session: Session[Any], place: int) -> str | None:
    """Give what stands at a place in words, None where no message does."""
    records = await session.read(place, place + _PAGE)
    said = records[0] if records else None
    if not isinstance(said, MessageRecord) or said.withdrawn:
        return None
    calls = said.message.tool_calls
    results = await _results_behind(session, place, [call.id for call in calls]) if calls else {}
    return as_text(said.message, [results[call.id] for call in calls if call.id in results])


async def _results_behind(session: Session[Any], place: int, wanted: Sequence[str]) -> dict[str, ToolResult]:
    """Give the results of the calls at a place, which stand behind it, before anybody speaks again."""
    results: dict[str, ToolResult] = {}
    for begin in range(place + 1, place + _MOST_BACK, _PAGE):
        records = await session.read(begin, begin + _PAGE)
        for record in records:
            given: list[Any] = []
            if isinstance(record, ToolResultRecord):
                given = [record.result]
            elif isinstance(record, MessageRecord):
                given = [part for part in record.message.parts if isinstance(part, ToolResult)]
                if not given:
                    return results
            for result in given:
                if result.call_id in wanted:
                    results.setdefault(result.call_id, result)
        if len(results) == len(wanted) or len(records) < _PAGE:
            break
    return results


@functools.cache
def _tools() -> tuple[Tool[..., Any], Tool[..., Any]]:
    make = tool(max_result_chars=30_000)
    return make(read_message), make(search_messages)


# With these tools, by toolsets that all runs share: built once for each, so that their schemas are encoded once.
_joined: dict[Toolset, Toolset] = {}
_MAX_JOINED = 1000


def with_recall(kit: Toolset) -> Toolset:
    """Add the tools that read back what left the view; those of an agent that has tools of these names stay."""
    joined = _joined.get(kit)
    if joined is None:
        joined = with_tools(kit, _tools())
        if is_shared(kit):
            if len(_joined) >= _MAX_JOINED:
                _joined.clear()
            _joined[kit] = joined
    return joined


assert read_message.__name__ == READ
assert search_messages.__name__ == SEARCH
