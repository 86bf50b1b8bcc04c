"""A workflow whose process is killed at any point goes on from there: no finished step runs again."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from tests.integration.flow.crashing_workflow import EXPECTED, WHAT_STEPS_GIVE, order_workflow
from tests.integration.stores.crashing import Effects, count_points, session_id
from tests.integration.stores.test_crash_points import everything

from gossamer import Answer, Approve, Session
from gossamer.records import RunFinishedRecord, RunStartedRecord, StepFinishedRecord
from gossamer.stores import open_store

# The effect by which one sees that a step that is not idempotent has done its work.
EFFECTS = {
    "pay": "pay",
    "side/left/stamp": "stamp",
    "side/right/ship": "ship",
    "each[0]/mark": "mark 0",
    "each[1]/mark": "mark 1",
    "each[2]/mark": "mark 2",
    "rounds[0]/count": "count 33",
    "rounds[1]/count": "count 34",
    "rounds[2]/count": "count 35",
    "route/big/send": "send",
    "condition/then": "file",
    "bury": "bury",
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/crash.db"
    return request.getfixturevalue("postgres").url()


def decide(pending, effects: Effects):
    """Say of each step that was cut off what became of it, as somebody can who sees its effects."""
    decisions = {}
    for one in pending:
        assert one.kind == "outcome"
        place = json.loads(one.call.arguments)["step"]
        took_effect = EFFECTS[place] in effects.lines()
        gave = WHAT_STEPS_GIVE["deep/bury" if place == "bury" else place]
        decisions[one.call_id] = Answer(gave) if took_effect else Approve()
    return decisions


async def test_a_workflow_goes_on_wherever_its_process_died(url, tmp_path):
    points = count_points("tests.integration.flow.crashing_workflow", url, tmp_path)
    assert points > 60
    store = open_store(url)
    died_before = resumed = asked = skipped = 0
    answered_state = 0
    for point in range(points):
        effects = Effects(tmp_path / f"effects-{point}")
        stored = await store.load(session_id(point))
        if stored is None or not stored.tail:
            assert effects.lines() == [], f"point {point}: a step ran in a run that was not stored"
            died_before += 1
            continue
        session = Session(session_id(point), store=url)
        await session.load()
        journals = await everything(store, session.id)
        if session.unfinished is None:  # it had ended, and the process died before it could tell
            assert any(isinstance(record, RunFinishedRecord) for record in journals[0])
            continue
        finished = {r.step for r in journals[0] if isinstance(r, StepFinishedRecord)}
        before = Counter(effects.lines())
        workflow = order_workflow(effects)

        result = await workflow.resume(session)
        resumed += 1
        rounds = 0
        answered = False
        while result.pending:
            rounds += 1
            assert rounds < 5
            decisions = decide(result.pending, effects)
            asked += len(decisions)
            answered = answered or any(isinstance(one, Answer) for one in decisions.values())
            result = await workflow.resume(session, decisions)

        assert result.output == EXPECTED, f"point {point}"
        counts = Counter(effects.lines())
        for effect in EFFECTS.values():
            assert counts[effect] == 1, f"point {point}: {effect} took place {counts[effect]} times"
        for place in finished & EFFECTS.keys():
            assert counts[EFFECTS[place]] == before[EFFECTS[place]]
            skipped += 1
        if "look" in finished:
            assert counts["look"] == before["look"], f"point {point}: a finished step ran again"
        after = await everything(store, session.id)
        for journal in after:  # also those of the agent and of the workflow inside
            assert sum(isinstance(record, RunStartedRecord) for record in journal) == 1
            assert sum(isinstance(record, RunFinishedRecord) for record in journal) == 1
            steps = Counter(r.step for r in journal if isinstance(r, StepFinishedRecord))
            assert set(steps.values()) <= {1}, f"point {point}: {steps}"
        if not answered:  # whoever answers for a step does not change the state
            assert session.state == {"paid": 3, "names": ["sent"]}, f"point {point}"
            answered_state += 1
        await session.aclose()
        assert (await store.list_sessions(status="broken", limit=1000)).count(session.id) == 0
    await store.aclose()
    assert died_before >= 1
    assert resumed > 50
    assert asked > 10
    assert skipped > 100
    assert answered_state > 20
