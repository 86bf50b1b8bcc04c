"""The file of a cassette: whatever a server sent comes back as models would read it, and requests keep their meaning."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gossamer.testing.meaning import asked, differences
from gossamer.testing.recording import Answered, Exchange, answered, dump, load, write
from gossamer.testing.secrets import Secrets
from gossamer.wire import Headers, SSEDecoder

JSON = Headers(b"\ncontent-type: application/json\n")
EVENTS = Headers(b"\ncontent-type: text/event-stream; charset=utf-8\n")
LINES = Headers(b"\ncontent-type: application/x-ndjson\n")

words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def through_the_file(answer: Answered) -> Answered:
    """What is loaded of what was dumped."""
    exchange = Exchange(asked("http://a/b", None, b"{}", Secrets()), answer)
    file = msgspec.json.decode(dump([msgspec.to_builtins(exchange)]))
    return msgspec.convert(file["exchanges"], list[Exchange])[0].response


def body_of(headers, body):
    return b"".join(through_the_file(answered(200, headers, body, None)).pieces())


@given(st.binary(max_size=200))
@example(b"3")
@example(b'"[1]"')
@example(b"\xff")
@example(b"data")
def test_any_body_comes_back(body):
    got = body_of(JSON, body)
    try:
        expected = json.loads(body)
    except ValueError:
        expected = None
    if body.startswith((b"data:", b"event:")):
        return
    if isinstance(expected, dict | list):
        assert json.loads(got) == expected
    else:
        assert got == body


@given(
    st.lists(st.tuples(words.filter(str.isidentifier) | st.just(""), plain | words)),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_events_come_back_as_they_are_read(events, end):
    text = ""
    for name, data in events:
        text += f"event: {name}{end}" if name else ""
        lines = data.splitlines() if isinstance(data, str) else [json.dumps(data)]
        text += "".join(f"data: {line}{end}" for line in lines or [""]) + f": a comment{end}{end}"
    sent = text.encode()
    frames = SSEDecoder().feed(sent)
    again = SSEDecoder().feed(body_of(EVENTS, sent))
    assert [(frame.event, meaning(frame.data)) for frame in again] == [
        (frame.event, meaning(frame.data)) for frame in frames
    ]


def meaning(data):
    try:
        return json.loads(data)
    except ValueError:
        return data


@given(
    st.lists(st.dictionaries(words, plain, max_size=3)), st.sampled_from(["", '{"half":', "no json\n{}\n"])
)
def test_lines_come_back(lines, rest):
    sent = "".join(json.dumps(line) + "\n" for line in lines) + rest
    got = body_of(LINES, sent.encode()).decode()
    assert got.endswith(rest)
    assert [json.loads(line) for line in got.removesuffix(rest).split("\n") if line] == lines


def test_each_event_and_line_is_a_piece():
    answer = answered(200, EVENTS, b'data: {"a":1}\n\ndata: {"a":2}\n\ndata: {"a"', None)
    assert through_the_file(answer).pieces() == [b'data: {"a":1}\n\n', b'data: {"a":2}\n\n', b'data: {"a"']
    answer = answered(200, LINES, b'{"a":1}\n{"a":2}\n', None)
    assert through_the_file(answer).pieces() == [b'{"a":1}\n', b'{"a":2}\n']


@given(st.lists(plain))
def test_the_text_is_json_whatever_is_in_it(exchanges):
    assert json.loads(dump(exchanges))["exchanges"] == exchanges


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    exchange = Exchange(asked("http://a/b", None, b"{}", Secrets()), Answered(204))
    write(path, [msgspec.to_builtins(exchange)])
    assert load(path) == [exchange]
    with pytest.raises(TypeError):
        write(path, [object()])
    assert load(path) == [exchange]
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from gossamer.errors import CassetteError
from gossamer.testing.recording import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    write(Path(sys.argv[1]), ["x" * 10_000])
except CassetteError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write(path, [])
    before = path.read_bytes()
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"{path} cannot be written: File too large" in told.stdout
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


# --- the meaning of requests --------------------------------------------------------------------------------


def key(body, url="http://127.0.0.1:1234/v1", path=None):
    return asked(url, path, json.dumps(body).encode(), Secrets()).key


@given(st.dictionaries(words, plain, min_size=2, max_size=5))
@example({"type": ["string", "null"], "a": 1})
def test_the_order_of_keys_means_nothing(body):
    assert key(body) == key(dict(reversed(body.items())))


@given(plain, plain)
def test_there_is_a_difference_where_the_meaning_differs(one, other):
    told = list(differences(one, other))
    assert bool(told) == (
        msgspec.json.encode(one, order="sorted") != msgspec.json.encode(other, order="sorted")
    )


CHAT = {
    "messages": [
        {"tool_calls": [{"id": "A", "function": {"name": "f", "arguments": '{"id": "7"}'}}]},
        {"tool_call_id": "A"},
    ]
}
ANTHROPIC = {
    "messages": [
        {"content": [{"type": "tool_use", "id": "A", "name": "f", "input": {"id": "7"}}]},
        {"content": [{"type": "tool_result", "tool_use_id": "A"}]},
    ]
}
RESPONSES = {
    "input": [
        {"type": "function_call", "call_id": "A", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "A"},
    ]
}
GEMINI = {"contents": [{"parts": [{"functionCall": {"id": "A", "name": "f", "args": {"id": "7"}}}]}]}


@pytest.mark.parametrize(
    "body", [CHAT, ANTHROPIC, RESPONSES, GEMINI], ids=["chat", "anthropic", "responses", "gemini"]
)
def test_ids_of_calls_are_numbered_and_those_in_arguments_are_not(body):
    text = json.dumps(body)
    assert key(json.loads(text.replace('"A"', '"call_9f8e7d"'))) == key(body)
    if "7" in text:
        assert key(json.loads(text.replace("7", "8"))) != key(body)


def test_which_call_a_result_belongs_to_matters():
    def two(first, second):
        return {
            "messages": [
                {"tool_calls": [{"id": "A"}, {"id": "B"}]},
                {"tool_call_id": first},
                {"tool_call_id": second},
            ]
        }

    assert key(two("A", "B")) != key(two("B", "A"))


def test_what_of_the_address_counts():
    assert key({}) == key({}, "http://127.0.0.1:9/v1")
    assert key({}) != key({}, "http://127.0.0.1:9/v2")
    assert key({}, "https://a.b/v1?key=1234567890&v=1") == key({}, "https://a.b/v1?v=1&api_key=x")
    assert key({}, "https://a.b/v1?v=1") != key({}, "https://a.b/v1?v=2")
    assert key({}, "https://a.b/v1") != key({}, "https://a.b:8443/v1")
    assert key({}, "https://a.b", "/x:stream?alt=sse") != key({}, "https://a.b", "/x")
