"""Records and decisions: every kind survives JSON, alone and in a session's export."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_messages import json_data, messages, texts, tool_calls, tool_results

from gossamer import Agent, Answer, Approve, Deny, GossamerError, PendingCall, Session, Usage
from gossamer import records as kinds
from gossamer.models import ScriptedModel
from gossamer.records import Decision, Record, StateRecord, decode_as, encode

times = st.floats(0, 4e9)
counts = st.integers(0, 2**40)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts, counts, times, counts)
objects = st.dictionaries(texts, json_data, max_size=3)
remember = st.sampled_from([None, "tool", "arguments"])
decisions = st.one_of(
    st.builds(Approve, st.none() | objects, remember),
    st.builds(Deny, texts, remember),
    st.builds(Answer, json_data),
)
pending = st.builds(
    PendingCall,
    tool_calls,
    st.sampled_from(["approval", "question", "caller", "outcome"]),
    texts,
    texts,
    texts,
    st.none() | times,
)
maybe = st.none() | texts

FIELDS = {
    kinds.RunStartedRecord: {
        "agent": texts,
        "parent": maybe,
        "call": maybe,
        "user": maybe,
        "fingerprint": texts,
    },
    kinds.OffloadedRecord: {"reference": texts, "text": texts},
    kinds.RunFinishedRecord: {"finish_reason": texts, "usage": usages},
    kinds.RunFailedRecord: {"error": texts, "message": texts},
    kinds.MessageRecord: {
        "message": messages,
        "usage": st.none() | usages,
        "interrupted": st.booleans(),
        "withdrawn": st.booleans(),
        "repair": st.booleans(),
    },
    kinds.ToolStartedRecord: {"call_id": texts},
    kinds.ToolResultRecord: {"result": tool_results, "ends_run": st.booleans(), "output": json_data},
    kinds.ApprovalAskedRecord: {"pending": pending},
    kinds.ApprovalDecidedRecord: {"call_id": texts, "decision": decisions},
    kinds.StateRecord: {"patch": objects},
    kinds.ViewMovedRecord: {
        "reason": texts,
        "begin": counts,
        "end": counts,
        "insert": st.lists(messages, max_size=2).map(tuple),
    },
    kinds.CallLostRecord: {"most": usages},
    kinds.HandoffRecord: {"to": texts},
    kinds.ApprovalsForgottenRecord: {},
    kinds.StepStartedRecord: {"step": texts},
    kinds.StepFinishedRecord: {
        "step": texts,
        "output": json_data,
        "seconds": times,
        "state": st.none() | objects,
    },
    kinds.StepFailedRecord: {"step": texts, "error": texts, "message": texts, "seconds": times},
    kinds.ToolkitSwitchedRecord: {"toolkit": texts, "on": st.booleans()},
}
records = st.one_of([st.builds(kind, run=texts, at=times, **fields) for kind, fields in FIELDS.items()])


def test_every_kind_of_record_is_covered_here():
    assert set(FIELDS) == set(Record.__args__)


@given(records)
def test_every_record_survives_json(record):
    data = encode(record)
    decoded = decode_as(data, Record)
    assert type(decoded) is type(record)
    assert decoded == record
    assert encode(decoded) == data


@given(decisions)
def test_every_decision_survives_json(decision):
    assert decode_as(encode(decision), Decision) == decision


def test_an_unknown_kind_of_record_is_refused_by_name():
    with pytest.raises(GossamerError, match=r"schema version 1: .*'teleported'"):
        decode_as(b'{"type":"teleported","run":"1"}', Record)


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_an_unknown_field_of_a_record_is_refused_by_name(kind):
    tag = kind.__struct_config__.tag
    with pytest.raises(GossamerError, match=r"schema version 1: .*`colour`"):
        decode_as(msgspec.json.encode({"type": tag, "colour": 1, "run": "1", "at": 1.0}), Record)


async def test_an_unknown_part_goes_through_a_sessions_export_unchanged():
    session = Session(id="s")
    await Agent(ScriptedModel(["hello"])).run("hi", session=session)
    plain = msgspec.json.decode(session.export())
    foreign = {"type": "hologram", "depth": 3, "parts": [{"type": "x"}], "role": "user"}
    plain["journal"][1]["message"]["parts"].append(foreign)

    again = Session.from_export(msgspec.json.encode(plain))

    assert again.messages[0].parts[-1].raw == foreign
    assert msgspec.json.decode(again.export()) == plain


def test_a_users_state_is_left_alone_beside_an_unknown_part():
    look_alike = {"role": "user", "parts": [{"type": "hologram"}]}
    session = Session(id="s", state={"draft": look_alike})
    session.update(last=look_alike)
    plain = msgspec.json.decode(session.export())
    plain["journal"].append(
        {"type": "message", "run": "", "at": 1.0, "message": {**look_alike, "created": 1.0}}
    )

    again = Session.from_export(msgspec.json.encode(plain))

    assert again.state == {"draft": look_alike, "last": look_alike}
    assert msgspec.json.decode(again.export()) == plain


def test_a_session_of_a_newer_schema_is_refused():
    plain = msgspec.json.decode(Session(id="s").export())
    with pytest.raises(GossamerError, match="schema version 2, newer than 1"):
        Session.from_export(msgspec.json.encode({**plain, "schema": 2}))


def test_a_record_tells_when_it_was_made():
    first = StateRecord(run="", patch={})
    assert 0 <= StateRecord(run="", patch={}).at - first.at < 60


def test_a_pending_call_goes_by_the_id_of_its_call():
    call = msgspec.convert({"type": "tool_call", "name": "f", "id": "7"}, kinds.ToolCall)
    assert PendingCall(call, "approval", "run").call_id == "7"
