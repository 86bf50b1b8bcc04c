"""Names, schemas and contents of MCP servers, as they are taken over; no server is asked."""

from __future__ import annotations

import base64
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import Audio, File, Image, Text
from gossamer.errors import MCPError
from gossamer.tools.mcp.checking import SchemaError, checker, decoder
from gossamer.tools.mcp.content import content_of
from gossamer.tools.mcp.offered import name_for
from gossamer.tools.mcp.result import read_result
from gossamer.tools.mcp.settings import address_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.text(max_size=200))
def test_names_are_ones_that_providers_take(name):
    made = name_for(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made)
    assert made == name_for(name)
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        assert made == name


@given(st.lists(st.text(alphabet="a./ ", max_size=5), unique=True))
def test_names_stay_different(names):
    made = [name_for(name) for name in names]
    assert len(set(made)) == len(names)


@given(JSON)
def test_any_schema_is_taken_or_refused(schema):
    try:
        check = checker(schema if isinstance(schema, dict) else {"properties": {"x": schema}})
    except SchemaError:
        return
    assert check({}) is None or isinstance(check({}), str)


@given(JSON, st.text(max_size=50))
def test_any_arguments_are_an_object_or_refused(value, text):
    decode = decoder(checker({"type": "object", "properties": {"n": {"type": "integer"}}}))
    for one in (msgspec.json.encode(value).decode(), text):
        try:
            assert isinstance(decode(one), dict)
        except (msgspec.DecodeError, RecursionError):
            continue


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "object", "required": ["a"]}, {}, "'a' is a required property"),
        ({"properties": {"a": {"enum": [1, 2]}}}, {"a": 3}, "3 is not one of [1, 2] - at `$.a`"),
        (
            {"additionalProperties": False},
            {"b": 1},
            "Additional properties are not allowed ('b' was unexpected)",
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}},
            {"a": "x"},
            "not of type",
        ),
        ({"properties": {"a": {"$ref": "https://example.com/x.json"}}}, {"a": 1}, None),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 50 + "!"}, None),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 50 + "!": 1}, None),
    ],
)
def test_what_is_checked_and_what_is_left_to_the_server(schema, value, words):
    found = checker(schema)(value)
    assert found is None if words is None else words in found


def test_references_that_double_are_left_to_the_server():
    many = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**many, "d40": {"type": "object"}}, "allOf": [{"$ref": "#/$defs/d0"}]}
    assert checker(schema)({"n": 1}) is None
    few = {"$defs": {"one": {"type": "string"}}, "allOf": [{"$ref": "#/$defs/one"}] * 2}
    assert "is not of type 'string'" in checker(few)({"n": 1})


def test_a_number_too_large_to_reckon_with_is_left_to_the_server():
    assert checker({"properties": {"n": {"multipleOf": 0.1}}})({"n": 10**400}) is None


def test_long_words_about_arguments_are_cut():
    assert len(checker({"properties": {"a": {"type": "integer"}}})({"a": "x" * 10_000})) < 600


@given(JSON)
def test_any_result_is_read_or_refused(raw):
    try:
        result = read_result(raw if isinstance(raw, dict) else {"content": raw})
        content_of(result, 100)
    except (msgspec.ValidationError, MCPError):
        return


def read(*blocks, **more):
    return content_of(read_result({"content": list(blocks), **more}), 10)


def test_contents():
    text = {"type": "text", "text": "x" * 20, "annotations": {"priority": 1}, "_meta": {}}
    data = base64.b64encode(b"bytes").decode()
    held = {"uri": "file:///a/b.bin", "blob": data}
    assert read(text) == "x" * 20
    assert read(text, {"type": "text", "text": "y"}) == "x" * 20 + "\ny"
    assert read(structuredContent={"a": 1}) == '{"a":1}'
    assert read() == ""
    assert read(text, structuredContent={"a": 1}) == "x" * 20
    picture = {"type": "image", "data": data, "mimeType": "image/webp"}
    assert read(picture) == (Image(data=b"bytes", media_type="image/webp"),)
    clipped, _ = read(text, picture)
    assert clipped == Text("x" * 10 + "\n[… 20 characters of text in all, the rest was left out]")
    short = {"type": "text", "text": "y" * 6}
    assert read(short, picture, short, short, picture) == (
        Text("y" * 6),
        Image(data=b"bytes", media_type="image/webp"),
        Text("yyyy\n[… 18 characters of text in all, the rest was left out]"),
        Image(data=b"bytes", media_type="image/webp"),
    )
    assert read({"type": "resource", "resource": held}) == (
        File(data=b"bytes", media_type="application/octet-stream", name="b.bin"),
    )
    for kind, part in (("image/png", Image), ("audio/wav", Audio)):
        (got,) = read({"type": "resource", "resource": {**held, "mimeType": kind}})
        assert type(got) is part
        assert got.media_type == kind
    with pytest.raises(msgspec.ValidationError, match="either text or blob"):
        read({"type": "resource", "resource": {"uri": "x"}})
    with pytest.raises(msgspec.ValidationError):
        read({"type": "hologram"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:pw@example.com/mcp?key=1#x", "https://example.com/mcp"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://example.com?key=1", "https://example.com"),
        ("https://a@b@example.com/@x", "https://example.com/@x"),
    ],
)
def test_addresses_hide_what_is_secret(url, shown):
    assert address_of(url) == shown
