"""Events: plain frozen data with a kind, and the partial object of a structured answer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_messages import json_data

from gossamer import Message, PendingCall, ToolCall, ToolResult, Usage, events

CALL = ToolCall("f", "{}", "7")
EXAMPLES = [
    events.TextDelta("a"),
    events.ThinkingDelta("a"),
    events.ToolCallStarted("7", "f"),
    events.ToolArgumentsDelta("7", "{"),
    events.RunStarted("1", "agent"),
    events.MessageFinished(Message("user", (), None, 1.0)),
    events.UsageUpdated(Usage(1, 2)),
    events.ToolProgress(CALL, {"done": 0.5}),
    events.ToolCallFinished(CALL, ToolResult("7", "f", "ok")),
    events.ApprovalNeeded(PendingCall(CALL, "approval", "1")),
    events.Compacted(30_000, 9_000, 4, 20),
    events.HandoffEvent("other"),
    events.InnerEvent(("team", "member"), "2", {"type": "text_delta", "text": "a"}),
    events.OutputDelta('{"a":'),
    events.OutputRestarted("why"),
    events.StepStarted("each[0]/fetch", 2),
    events.StepFinished("each[0]/fetch", {"pages": 3}, 0.5),
    events.StepFailed("each[0]/fetch", "OSError", "down", 0.5),
    events.RunFinished({"output": "plain"}),
    events.RunFailed("ValueError", "why"),
]


def test_every_kind_of_event_is_covered_here():
    assert {type(event) for event in EXAMPLES} == set(events.Event.__subclasses__())
    assert {type(event).__name__ for event in EXAMPLES} <= set(events.__all__)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_events_go_to_json_and_back(event):
    kind = type(event)
    assert msgspec.json.decode(msgspec.json.encode(event), type=kind) == event
    assert msgspec.json.decode(msgspec.json.encode(event))["type"] == kind.__struct_config__.tag


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_match_by_type(event):
    with pytest.raises(AttributeError):
        setattr(event, event.__struct_fields__[0], None)
    match event:
        case events.TextDelta(text) | events.ThinkingDelta(text):
            assert text == "a"
        case events.ToolCallFinished(call, result):
            assert call.id == result.call_id
        case events.Event():
            pass


def test_every_event_has_a_kind_of_its_own():
    tags = [type(event).__struct_config__.tag for event in EXAMPLES]
    assert len(set(tags)) == len(tags)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_data), st.data())
def test_the_partial_object_never_fails_and_ends_as_the_whole(value, data):
    text = msgspec.json.encode(value).decode()
    cut = data.draw(st.integers(0, len(text)))
    assert isinstance(events.OutputDelta(text[:cut]).partial, dict | None)
    whole = events.OutputDelta(text).partial
    assert msgspec.json.encode(whole) == msgspec.json.encode(msgspec.json.decode(text))


def test_a_partial_object_grows_with_its_text():
    assert events.OutputDelta("").partial is None
    assert events.OutputDelta('{"name": "An').partial == {"name": "An"}
    assert events.OutputDelta('{"name": "Ann", "age').partial == {"name": "Ann"}
    assert events.OutputDelta("no json").partial is None
