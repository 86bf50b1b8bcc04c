"""Code whose process is killed at any point goes on elsewhere: no tool starts twice, and what it did is not forgotten."""

from __future__ import annotations

from collections import Counter

from tests.integration.stores.crashing import Effects, count_points, session_id
from tests.integration.stores.dying_code import agent

from gossamer import Session
from gossamer.records import MessageRecord, ToolResultRecord, ToolStartedRecord
from gossamer.stores import open_store

# How often each may be done; what is looked up may be looked up again.
MOST = {"pay 1": 2, "pay 2": 1, "note x": 1, "stamp A": 1}


async def test_code_goes_on_wherever_its_process_died(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/code.db"
    points = count_points("tests.integration.stores.dying_code", url, tmp_path)
    assert points > 20
    store = open_store(url)
    resumed = unknown = 0
    for point in range(points):
        effects = Effects(tmp_path / f"effects-{point}")
        session = Session(session_id(point), store=url, state={"paid": 0})
        await session.load()
        if session.unfinished is None:  # it had not begun, or had ended
            continue
        before = Counter(effects.lines())
        call = session.turn.calls[0] if session.turn is not None else None
        inner = session.child(call.id, session.unfinished.run) if call is not None else None
        if inner is not None:
            await inner.load()
        journal = () if inner is None else inner.journal
        had = [record.result for record in journal if isinstance(record, ToolResultRecord)]
        begun = {record.call_id for record in journal if isinstance(record, ToolStartedRecord)}
        calls = [c for r in journal if isinstance(r, MessageRecord) for c in r.message.tool_calls]
        lost = {
            call.name + call.arguments for call in calls if call.id in begun - {one.call_id for one in had}
        }
        # What a tool did to the state of the session is there wherever its result is.
        paid = sum(result.name == "pay" and result.outcome == "ok" for result in had)
        assert session.state["paid"] >= paid, f"point {point}"

        result = await agent(effects).resume(session)
        resumed += 1
        assert result.output == "all done", f"point {point}"
        after = Counter(effects.lines())
        for effect, most in MOST.items():
            assert after[effect] <= most, f"point {point}: {effect} was done {after[effect]} times"
        if any(one.name == "look" for one in had):
            assert after["look here"] == before["look here"], f"point {point}: a stored result was not taken"
        said = next(m for m in result.messages if m.role == "tool").parts[0]
        assert said.outcome == "ok", f"point {point}: {said.text}"
        got = said.text.split("; ")
        assert len(got) == 6, f"point {point}: {said.text}"
        unknown += got.count("unknown")
        # Whatever is not known had begun, and what is known was done once.
        for place, effect, called in ((2, "note x", 'note{"text":"x"}'), (3, "pay 2", 'pay{"amount":2}')):
            assert (got[place] == "unknown") == (called in lost), f"point {point}"
            assert after[effect] == 1 or got[place] == "unknown", f"point {point}"
        assert result.usage.model_calls == 4, f"point {point}"
        await session.aclose()
    await store.aclose()
    assert resumed > 20
    assert unknown >= 4
