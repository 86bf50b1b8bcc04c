"""Views: a read-only window on messages, and bodies that are encoded once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import Message
from gossamer.errors import ArgumentError
from gossamer.view import EncodedMessages, MessageView

MESSAGES = [Message.user(f"message {number}") for number in range(10)]


def encode(message, _=None):
    return message.text.encode() + b","


def joined(messages):
    return b"".join(map(encode, messages))


def test_a_view_is_a_sequence_of_its_part_of_the_list():
    view = MessageView(MESSAGES, 2, 5)
    assert len(view) == 3
    assert list(view) == MESSAGES[2:5]
    assert (view[0], view[-1], view[1:]) == (MESSAGES[2], MESSAGES[4], tuple(MESSAGES[3:5]))
    assert view == MESSAGES[2:5]
    assert view == MessageView(MESSAGES[2:5], 0, 3)
    assert view != MESSAGES
    assert hash(view) == hash(tuple(MESSAGES[2:5]))
    assert list(view.part(1, 3)) == MESSAGES[3:5]
    with pytest.raises(IndexError):
        view[3]
    with pytest.raises(AttributeError):
        view.start = 0


def test_a_view_does_not_grow_with_its_list():
    items = MESSAGES[:2]
    view = MessageView(items, 0, 2)
    items.append(MESSAGES[2])
    assert list(view) == MESSAGES[:2]


@given(st.integers(0, 10), st.integers(0, 10), st.slices(10))
def test_slices_are_those_of_a_list(start, stop, part):
    start, stop = sorted((start, stop))
    assert MessageView(MESSAGES, start, stop)[part] == tuple(MESSAGES[start:stop][part])


def test_each_message_is_encoded_once_in_each_dialect():
    encoded = []

    def count(message, _):
        encoded.append(message)
        return encode(message)

    items, bodies = [], {}
    for message in MESSAGES:
        items.append(message)
        view = MessageView(items, 0, len(items), bodies)
        assert view.encoded("one", count) == joined(items)
    assert encoded == MESSAGES
    assert MessageView(items, 3, 7, bodies).encoded("one", count) == joined(MESSAGES[3:7])
    assert len(encoded) == 10
    assert MessageView(items, 0, 10, bodies).encoded("other", count) == joined(MESSAGES)
    assert len(encoded) == 20


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=8), st.integers(0, 10))
def test_bodies_are_right_whatever_was_asked_before(windows, dropped):
    buffer = EncodedMessages()
    for window in windows:
        start, stop = sorted(window)
        assert buffer.bodies(MESSAGES, start, stop, encode) == joined(MESSAGES[start:stop])
    rebased = buffer.rebased(dropped)
    rest = MESSAGES[dropped:]
    assert rebased.bodies(rest, 0, len(rest), encode) == joined(rest)


def test_the_buffer_is_bounded():
    large = [Message.user("x" * 6_000_000) for _ in range(8)]
    buffer = EncodedMessages()
    for stop in range(1, 9):
        assert len(buffer.bodies(large, stop - 1, stop, encode)) == 6_000_001
        assert len(buffer._buffer) < 30_000_000


def test_a_view_without_a_buffer_encodes_each_time():
    assert MessageView(MESSAGES, 1, 3).encoded("one", encode) == joined(MESSAGES[1:3])


def test_a_view_as_plain_data():
    assert MessageView(MESSAGES, 0, 1).to_builtins() == [
        {"role": "user", "parts": ({"type": "text", "text": "message 0"},), "created": MESSAGES[0].created}
    ]


@pytest.mark.parametrize("bodies", [None, {}])
def test_half_a_surrogate_pair_is_told(bodies):
    view = MessageView([Message.user("fine"), Message.user("bad \ud83d here")], 0, 2, bodies)
    with pytest.raises(ArgumentError, match=r"ud83d.*bad"):
        view.encoded("one", encode)
    # What was encoded before it is not lost, and nothing of it is left.
    assert view.part(0, 1).encoded("one", encode) == b"fine,"
