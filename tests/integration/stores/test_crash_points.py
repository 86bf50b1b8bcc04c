"""A process that is killed at any point of a run loses nothing that was acknowledged, and repeats nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.integration.stores.crashing import Effects, agents, count_points, session_id

from gossamer import Session
from gossamer.records import (
    MessageRecord,
    RunFinishedRecord,
    RunStartedRecord,
    ToolResultRecord,
    ToolStartedRecord,
)
from gossamer.stores import open_store

NOT_IDEMPOTENT = ("pay 1", "pay 2", "note x", "note y", "stamp A", "stamp B")
CALLS = 8  # of the boss and of the clerk


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/crash.db"
    return request.getfixturevalue("postgres").url()


async def everything(store, session: str) -> list:
    """All records of a session and of the sessions inside, each journal for itself."""
    journals = [await store.read(session, 0, 10_000)]
    outer = await store.load(session)
    for inner in (outer.children if outer is not None else {}).values():
        journals += await everything(store, inner)
    return journals


def acknowledged(folder: Path, point: int) -> dict[str, int]:
    path = folder / f"acknowledged-{point}"
    lines = path.read_text().splitlines() if path.exists() else []
    most: dict[str, int] = {}
    for line in lines:
        session, _, count = line.partition("\t")
        most[session] = max(int(count), most.get(session, 0))
    return most


async def test_a_run_goes_on_wherever_its_process_died(url, tmp_path):
    points = count_points("tests.integration.stores.crashing", url, tmp_path)
    assert points > 30
    store = open_store(url)
    died_before = resumed = told_of_unknown = inner_went_on = 0
    for point in range(points):
        effects = Effects(tmp_path / f"effects-{point}")
        boss = agents(effects)["boss"]
        for name, count in acknowledged(tmp_path, point).items():
            assert len(await store.read(name, 0, 10_000)) >= count, (
                f"point {point}: acknowledged records are lost"
            )
        stored = await store.load(session_id(point))
        if stored is None or not stored.tail:
            assert effects.lines() == [], f"point {point}: a tool ran in a run that was not stored"
            died_before += 1
            continue

        session = Session(session_id(point), store=url)
        await session.load()
        journals = await everything(store, session.id)
        if session.unfinished is None:  # it had ended, and the process died before it could tell
            assert any(isinstance(record, RunFinishedRecord) for record in journals[0])
            continue
        results = {
            r.result.call_id for journal in journals for r in journal if isinstance(r, ToolResultRecord)
        }
        started = {r.call_id for journal in journals for r in journal if isinstance(r, ToolStartedRecord)}
        runs_before = [r.run for journal in journals for r in journal if isinstance(r, RunStartedRecord)]
        before = Counter(effects.lines())

        result = await boss.resume(session)
        resumed += 1
        assert result.output == "all done", f"point {point}"
        counts = Counter(effects.lines())
        for effect in NOT_IDEMPOTENT:
            assert counts[effect] <= 1, f"point {point}: {effect} was started {counts[effect]} times"
        after = await everything(store, session.id)
        journal = after[0]
        assert sum(isinstance(record, RunStartedRecord) for record in journal) == 1
        assert sum(isinstance(record, RunFinishedRecord) for record in journal) == 1
        answered = Counter(r.result.call_id for r in journal if isinstance(r, ToolResultRecord))
        calls = [c for r in journal if isinstance(r, MessageRecord) for c in r.message.tool_calls]
        assert answered == Counter(call.id for call in calls), f"point {point}: each call has one result"
        for call in calls:
            if call.id in results and call.name == "look":
                assert counts["look here"] == before["look here"], "a tool with a stored result ran again"

        # The model was told what became of calls that had been started and may not be started again.
        unknown = {
            part.call_id
            for message in result.messages
            for part in (message.parts if message.role == "tool" else ())
            if part.outcome == "unknown"
        }
        lost = {c.id for c in calls if c.id in started - results and c.name in {"pay", "note"}}
        assert unknown == lost, f"point {point}"
        told_of_unknown += bool(lost)

        # Inner runs that had begun went on in their own journals.
        children = [call.id for call in calls if call.name == "ask_clerk" and call.id in started - results]
        for child_id in children:
            inner = session.child(child_id, result.run_id)
            await inner.load()
            begun = [r.run for r in inner.journal if isinstance(r, RunStartedRecord)]
            assert len(begun) == 1
            inner_went_on += begun[0] in runs_before
        await session.aclose()
        assert (await store.list_sessions(status="broken", limit=1000)).count(session.id) == 0
    await store.aclose()
    assert died_before >= 2
    assert resumed > 30
    assert told_of_unknown > 5
    assert inner_went_on > 3
