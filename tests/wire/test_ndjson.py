"""Newline-delimited JSON, against a decoder that is too simple to be wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossamer.errors import TooLargeError
from gossamer.wire import Frame, NDJSONDecoder


def reference(data: bytes) -> list[bytes]:
    """The whole lines of a whole stream."""
    return [line.strip() for line in data.split(b"\n")[:-1] if line.strip()]


def decode(pieces, **options) -> list[bytes]:
    decoder = NDJSONDecoder(**options)
    return [frame.data for piece in pieces for frame in decoder.feed(piece)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b'{"a":1}\n', [b'{"a":1}']),
        (b'{"a":1}\r\n', [b'{"a":1}']),
        (b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\n\n \n\r\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":"\\n"}\n', [b'{"a":"\\n"}']),
        (b'{"a":1}\r{"a":2}\n', [b'{"a":1}\r{"a":2}']),
        ('{"a":"€🕸"}\n'.encode(), ['{"a":"€🕸"}'.encode()]),
        (b'{"a":1}', []),
        (b"\n", []),
        (b"", []),
    ],
)
def test_lines(data, lines):
    assert decode([data]) == lines
    assert decode(data[i : i + 1] for i in range(len(data))) == lines
    assert reference(data) == lines


@settings(max_examples=500, deadline=None)
@given(
    lines=st.lists(
        st.one_of(st.binary(max_size=12), st.sampled_from([b"", b" ", b"{}", b"x\r"])), max_size=10
    ),
    cuts=st.lists(st.integers(0, 120), max_size=10),
)
@example(lines=[b"ab", b"c"], cuts=[1, 3])
@example(lines=[b"a\r", b""], cuts=[2])
def test_fragmentation_changes_nothing(lines, cuts):
    data = b"\n".join(lines)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    decoder = NDJSONDecoder()
    frames = [
        frame.data for begin, end in itertools.pairwise(bounds) for frame in decoder.feed(data[begin:end])
    ]
    assert frames == reference(data)
    rest = data.rsplit(b"\n", 1)[-1].strip()
    assert decoder.close() == (Frame(rest) if rest else None)
    assert decoder.close() is None


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x" * 11 + b"\n"],
        [b"x" * 11],
        [b"x" * 6, b"x" * 5],
        [b"x" * 6, b"x" * 5 + b"\nabc"],
        [b"a\n" + b"x" * 11],
        [b"a\n" + b"x" * 11 + b"\nb\n"],
    ],
)
def test_a_line_is_bounded(pieces):
    with pytest.raises(TooLargeError, match="max_line"):
        decode(pieces, max_line=10)


def test_lines_up_to_the_bound_pass():
    whole = b"x" * 10
    assert decode([whole + b"\n", whole[:4], whole[4:] + b"\n" + whole, b"\n"], max_line=10) == [whole] * 3
