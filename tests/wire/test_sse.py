"""Server-sent events, against the standard and against a decoder that is too simple to be wrong."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.wire.peer import CHUNKED, Peer, answer, chunk

from gossamer.errors import TooLargeError
from gossamer.wire import Endpoint, Frame, SSEDecoder


def reference(data: bytes) -> list[Frame]:
    """The standard's algorithm over the whole stream, one line at a time."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines, line, i = [], bytearray(), 0
    while i < len(data):
        byte = data[i]
        if byte == 13:
            i += data[i + 1 : i + 2] == b"\n"
        if byte in b"\r\n":
            lines.append(bytes(line))
            line.clear()
        else:
            line.append(byte)
        i += 1
    frames, buffer, event, last_id = [], [], b"", b""
    for whole in lines:
        if not whole:
            if buffer:
                frames.append(Frame(b"\n".join(buffer), event, last_id))
            buffer, event = [], b""
            continue
        name, _, value = whole.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            buffer.append(value)
        elif name == b"event":
            event = value
        elif name == b"id" and b"\0" not in value:
            last_id = value
    return frames


def decode(pieces, **options) -> list[Frame]:
    decoder = SSEDecoder(**options)
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"data: one\n\n", [Frame(b"one")]),
        (b"data:one\n\n", [Frame(b"one")]),
        (b"data:  one\n\n", [Frame(b" one")]),
        (b"data\n\n", [Frame(b"")]),
        (b"data:\n\n", [Frame(b"")]),
        (b"data: \n\n", [Frame(b"")]),
        (b"data: a\ndata: b\n\n", [Frame(b"a\nb")]),
        (b"data\ndata\n\n", [Frame(b"\n")]),
        (b"data: a\n\ndata: b\n\n", [Frame(b"a"), Frame(b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [Frame(b"a"), Frame(b"b")]),
        (b"data: a\r\rdata: b\r\r", [Frame(b"a"), Frame(b"b")]),
        (b"data: a\r\ndata: b\n\r", [Frame(b"a\nb")]),
        (b": comment\n\n:\n\ndata: a\n\n", [Frame(b"a")]),
        (b"event: ping\n\ndata: a\n\n", [Frame(b"a")]),
        (b"event: delta\ndata: a\n\ndata: b\n\n", [Frame(b"a", b"delta"), Frame(b"b")]),
        (b"data: a\nevent: late\n\n", [Frame(b"a", b"late")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [Frame(b"a", b"", b"7"), Frame(b"b", b"", b"7")]),
        (b"id: 7\n\nid: x\0y\ndata: a\n\nid\ndata: b\n\n", [Frame(b"a", b"", b"7"), Frame(b"b")]),
        (b"retry: 10\nfoo: bar\nDATA: no\ndata : no\ndata: yes\n\n", [Frame(b"yes")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Frame(b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [Frame(b"b")]),
        (b"data: a: b\n\n", [Frame(b"a: b")]),
        (b"data: \xe2\x82\xac\xf0\x9f\x95\xb8\n\n", [Frame("€🕸".encode())]),
        (b"\n\n\n", []),
        (b"data: never ended\n", []),
        (b"data: never ended", []),
        (b"", []),
    ],
)
def test_events_as_the_standard_reads_them(data, frames):
    assert decode([data]) == frames
    assert decode(data[i : i + 1] for i in range(len(data))) == frames
    assert reference(data) == frames


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"", b"data", b"data: ", b"event: e", b"event", b"id: 1", b"id", b":", b": c"]),
        st.binary(max_size=8).map(lambda raw: b"data: " + raw),
        st.binary(max_size=12),
        st.text(max_size=5).map(lambda text: b"data: " + json.dumps(text, ensure_ascii=False).encode()),
    ),
    max_size=12,
)


@settings(max_examples=1000, deadline=None)
@given(
    lines=LINES,
    endings=st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]), min_size=12, max_size=12),
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
@example(lines=[b": c", b"x", b"data", b""], endings=[b"\r"] + [b"\n"] * 11, start=b"", cuts=[5])
@example(lines=[b"data: a", b""], endings=[b"\r", b"\n"] * 6, start=b"", cuts=[8])
def test_fragmentation_changes_nothing(lines, endings, start, cuts):
    data = start + b"".join(line + ending for line, ending in zip(lines, endings, strict=False))
    bounds = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
    assert decode(pieces) == reference(data)


PACKETS = st.one_of(
    st.sampled_from([b"event: e\n", b"data: a\n", b"\n", b"event: e\n\n", b": c\n\n", b"id: 7\ndata: a\n\n"]),
    st.builds(
        lambda name, data, end: b"event: " + name + b"\ndata: " + data + end,
        st.sampled_from([b"e", b"", b"a b", b"\r", b"data: x"]),
        st.sampled_from([b"x", b"", b"x\ndata: y", b"x\rid: 3", b"x\n"]),
        st.sampled_from([b"\n\n", b"\n\n", b"\n", b"\r\n\r\n"]),
    ),
    st.builds(
        lambda data, end: b"data: " + data + end,
        st.sampled_from([b"x", b"", b"x\r\ndata: y", b"x\rid: 3", b"x\nid: 3", b"x\r"]),
        st.sampled_from([b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"\n\r\n", b"\r\n\n", b"\r\r\n"]),
    ),
)


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(PACKETS, max_size=8))
@example(pieces=[b"data: a\n\n", b"event: e\ndata: x\n\n", b"event: e\n", b"event: f\ndata: y\n\n"])
def test_events_in_packets_of_their_own(pieces):
    """The packets for which there is a shorter way: after whole events, after parts of one, and almost such packets."""
    assert decode(pieces) == reference(b"".join(pieces))


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"", None),
        (b"data: a\n\n", None),
        (b"data: a\n\n: keep-al", None),
        (b"data: a\n\n\n", None),
        (b"id: 4\n", None),
        (b"data: a\n", Frame(b"a")),
        (b"data: a", Frame(b"a")),
        (b"data: [DONE]\n", Frame(b"[DONE]")),
        (b"event: x\nid: 3\ndata: a\ndata: b", Frame(b"a\nb", b"x", b"3")),
        (b"event: x\n", Frame(b"", b"x")),
        (b"dat", Frame(b"")),
        (b"data: a\n\ndata: b\r\n", Frame(b"b")),
    ],
)
def test_close_tells_what_was_cut_off(data, left):
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        decoder = SSEDecoder()
        for piece in pieces:
            decoder.feed(piece)
        assert decoder.close() == left
        assert decoder.close() is None


@pytest.mark.parametrize(
    "piece",
    [b"data: x\n", b"data\n", b"x", b"data: " + b"x" * 900, b": comment without an end ", b"event: e"],
)
def test_events_and_lines_are_bounded(piece):
    decoder = SSEDecoder(max_event=10_000)
    with pytest.raises(TooLargeError, match="10000"):
        for _ in range(20_000):
            decoder.feed(piece)


def test_an_event_that_comes_at_once_is_bounded_too():
    for data in (b"data: " + b"x" * 2000 + b"\n\n", b"event: " + b"x" * 2000 + b"\n", b"data: xxxxx\n" * 300):
        with pytest.raises(TooLargeError):
            SSEDecoder(max_event=1000).feed(data)


def test_a_bound_is_for_one_event_and_not_for_the_stream():
    decoder = SSEDecoder(max_event=1000)
    frames = [decoder.feed(b"data: " + b"x" * 900 + b"\n\n") for _ in range(100)]
    assert all(len(found) == 1 for found in frames)
    assert len(decoder.feed((b"data: " + b"x" * 900 + b"\n\n") * 100)) == 100
    assert decoder.feed(b": comment\n" * 1000) == []


def test_a_large_event_in_small_pieces_comes_out_whole():
    value = b"x" * 3_000_000
    data = b"data: " + value + b"\n\n"
    assert decode(data[i : i + 1000] for i in range(0, len(data), 1000)) == [Frame(value)]


async def test_events_over_the_wire_with_characters_cut_in_half():
    texts = ["Gossamer €", "🕸️ web", "日本語"]
    data = b"".join(b"data: " + json.dumps({"t": t}, ensure_ascii=False).encode() + b"\n\n" for t in texts)
    pieces = [chunk(data[i : i + 1]) for i in range(len(data))]
    async with Peer(answer(CHUNKED, *pieces, b"0\r\n\r\n")) as peer:
        stream = await Endpoint(peer.url).send(b"{}")
        decoder = SSEDecoder()
        frames = []
        while piece := await stream.read():
            frames += decoder.feed(piece)
        assert decoder.close() is None
        assert [json.loads(frame.data)["t"] for frame in frames] == texts
