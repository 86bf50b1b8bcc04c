"""Usage: what was used adds up and survives JSON."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import GossamerError, Usage
from gossamer.records import decode_as

counts = st.integers(0, 2**50)
usages = st.builds(
    Usage, counts, counts, counts, counts, counts, counts, counts, st.integers(0, 10**6).map(float), counts
)


@given(usages, usages)
def test_every_field_adds_up(first, second):
    total = first + second
    for name in Usage.__struct_fields__:
        assert getattr(total, name) == getattr(first, name) + getattr(second, name)
    assert first + Usage() == first
    assert total.total_tokens == first.total_tokens + second.total_tokens


@given(usages)
def test_usage_survives_json(usage):
    assert decode_as(msgspec.json.encode(usage), Usage) == usage


def test_what_is_zero_takes_no_room_and_what_is_unknown_is_refused():
    assert msgspec.json.encode(Usage(input_tokens=3)) == b'{"input_tokens":3}'
    with pytest.raises(GossamerError, match="`colour`"):
        decode_as(b'{"colour":1}', Usage)
