"""Messages and parts: plain data that goes to JSON and back without loss."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import (
    ArgumentError,
    Audio,
    Citation,
    File,
    GossamerError,
    Image,
    Message,
    Part,
    ProviderBlock,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.records import decode_as, encode

# What JSON can hold: no half of a surrogate pair, no NaN, integers of 64 bits.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
provider = st.none() | st.dictionaries(texts, json_data, max_size=2)
media = {"media_type": st.sampled_from(["image/png", "audio/wav", "application/pdf"]), "provider": provider}


def media_of(kind, **more):
    return st.builds(kind, data=st.binary(max_size=40), **media, **more) | st.builds(
        kind, url=texts.map("https://example.com/".__add__), **media, **more
    )


content_parts = st.one_of(
    st.builds(Text, texts, provider), media_of(Image), media_of(Audio), media_of(File, name=texts)
)
tool_results = st.builds(
    ToolResult,
    texts,
    texts,
    texts | st.lists(content_parts, max_size=3).map(tuple),
    st.sampled_from(["ok", "error", "timeout", "denied", "interrupted", "not_run", "unknown"]),
    provider,
)
tool_calls = st.builds(ToolCall, texts, texts, texts, provider)
parts = st.one_of(
    content_parts,
    st.builds(Thinking, texts, st.booleans(), provider),
    tool_calls,
    tool_results,
    st.builds(Refusal, texts, provider),
    st.builds(
        Citation,
        texts,
        texts,
        texts,
        st.none() | st.integers(0, 99),
        st.none() | st.integers(0, 99),
        provider,
    ),
    st.builds(ProviderBlock, texts, json_data, provider),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(parts, max_size=4).map(tuple),
    st.none() | texts,
    st.floats(allow_nan=False, allow_infinity=False),
    provider,
)


@given(messages)
def test_every_message_survives_json(message):
    data = encode(message)
    assert decode_as(data, Message) == message
    assert encode(decode_as(data, Message)) == data


@given(messages)
def test_every_message_survives_plain_data(message):
    assert msgspec.convert(msgspec.to_builtins(message), Message) == message


@given(parts)
def test_parts_know_their_kind_from_json_alone(part):
    decoded = decode_as(encode(part), Part)
    assert type(decoded) is type(part)
    assert decoded == part


@given(st.lists(messages, max_size=3), texts, json_data)
def test_a_part_of_an_unknown_kind_is_kept_and_written_back_as_it_came(others, kind, payload):
    foreign = {"type": "hologram-" + kind, "payload": payload}
    plain = [msgspec.to_builtins(message) for message in others]
    plain.append({"role": "user", "parts": [{"type": "text", "text": "see"}, foreign], "created": 1.5})
    data = msgspec.json.encode(plain)

    decoded = decode_as(data, list[Message])

    assert decoded[:-1] == others
    assert decoded[-1].parts == (Text("see"), ProviderBlock("gossamer", foreign))
    assert msgspec.json.decode(encode(decoded)) == msgspec.json.decode(data)


def test_what_a_provider_stored_is_not_mistaken_for_our_messages():
    raw = {"role": "model", "parts": [{"text": "hi"}, {"type": "hologram"}]}
    look_alike = {"role": "user", "parts": [{"type": "hologram"}]}
    plain = {
        "role": "user",
        "parts": [
            {"type": "hologram"},
            {"type": "provider_block", "dialect": "gemini", "raw": raw},
            {"type": "text", "text": "a", "provider": {"gemini": look_alike}},
        ],
        "created": 1.0,
    }

    decoded = decode_as(msgspec.json.encode(plain), Message)

    assert decoded.parts[1].raw == raw
    assert decoded.parts[2].provider == {"gemini": look_alike}
    assert msgspec.json.decode(encode(decoded)) == plain


@pytest.mark.parametrize(
    "data",
    [
        b'{"role":"user","parts":[],"created":1.0,"colour":"red"}',
        b'{"role":"user","parts":[{"type":"text","text":"a","colour":"red"}],"created":1.0}',
        b'{"role":"user","parts":[{"type":"hologram"},{"type":"text","text":"a","colour":"red"}],"created":1.0}',
    ],
)
def test_an_unknown_field_is_refused_by_name_with_the_schema_version(data):
    with pytest.raises(GossamerError, match=r"schema version 1: .*`colour`"):
        decode_as(data, Message)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b'{"role":"robot","parts":[]}',
        b'{"role":"user"}',
        b'{"role":"user","parts":[7]}',
        b'{"role":"user","parts":[{"type":"text","text":7}]}',
        b'{"role":"user","parts":[{"type":"image"}]}',
        b'{"role":"user","parts":[{"type":"image","data":"not base64!"}]}',
        b'{"role":"user","parts":[{"type":"text","text":"\xff"}]}',
        b'{"role":"user","parts":[{"type":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
    ids=lambda data: data[:40].decode(errors="replace"),
)
def test_damaged_data_gives_one_typed_error(data):
    with pytest.raises(GossamerError, match="cannot read this data as schema version 1"):
        decode_as(data, Message)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_input_makes_decoding_fail_in_another_way(data):
    try:
        decoded = decode_as(data, Message)
    except GossamerError:
        return
    assert isinstance(decoded, Message)


def test_messages_and_parts_are_frozen():
    message = Message.user("hi")
    with pytest.raises(AttributeError):
        message.role = "system"
    with pytest.raises(AttributeError):
        message.parts[0].text = "ho"


def test_text_is_joined_without_thinking_calls_and_media():
    call = ToolCall.of("look", at="it")
    message = Message.assistant(Thinking("hm"), "one ", Image(data=b"x"), call, Text("two"))
    assert message.text == "one two"
    assert message.tool_calls == (call,)
    assert Message.user("plain").text == "plain"


def test_what_is_neither_text_nor_part_is_refused_by_type():
    with pytest.raises(ArgumentError, match="not of int"):
        Message.user(7)
    with pytest.raises(ArgumentError, match="not of Message"):
        Message.user(Message.user("nested"))


def test_roles_and_authors_come_from_the_constructors():
    assert Message.user("a", author="ann").author == "ann"
    assert Message.assistant("a", author="bot").role == "assistant"
    assert Message.system("a").role == "system"


def test_the_arguments_of_a_call_stay_text_even_when_invalid():
    assert ToolCall("f", '{"a": 1,').arguments == '{"a": 1,'
    assert ToolCall("f", {"a": 1}).arguments == '{"a":1}'
    assert ToolCall.of("f", tool=1, name="x").arguments == '{"tool":1,"name":"x"}'


@pytest.mark.parametrize("kind", [Image, Audio, File])
def test_media_take_bytes_or_an_address_and_not_both(kind):
    with pytest.raises(ArgumentError, match="either data or url"):
        kind()
    with pytest.raises(ArgumentError, match="either data or url"):
        kind(data=b"x", url="https://example.com/x")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Image(data=b"\xff\xd8\xff\xe0"), "image/jpeg"),
        (Image(data=b"GIF89a"), "image/gif"),
        (Image(data=b"RIFF\0\0\0\0WEBP"), "image/webp"),
        (Image(data=b"?"), "image/png"),
        (Image(data=b""), "image/png"),
        (Image(url="https://example.com/a.webp"), "image/webp"),
        (Audio(data=b"ID3\x04"), "audio/mpeg"),
        (Audio(data=b"RIFF\0\0\0\0WAVE"), "audio/wav"),
        (Audio(data=b"?"), "audio/wav"),
        (File(data=b"%PDF-1.7"), "application/pdf"),
        (File(data=b"?"), "application/octet-stream"),
        (File(data=b"%PDF-1.7", media_type="text/plain"), "text/plain"),
    ],
)
def test_the_media_type_is_told_from_the_bytes_or_the_address(part, expected):
    assert part.media_type == expected


def test_media_are_read_from_a_path(tmp_path):
    report = tmp_path / "report.pdf"
    report.write_bytes(b"%PDF-1.7")
    assert File.from_path(report) == File(data=b"%PDF-1.7", media_type="application/pdf", name="report.pdf")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    assert Image.from_path(str(picture)) == Image(data=b"png", media_type="image/png")
    with pytest.raises(FileNotFoundError):
        Image.from_path(tmp_path / "none.png")


def test_the_text_of_a_result_leaves_media_out():
    assert ToolResult("1", "f", "plain").text == "plain"
    assert ToolResult("1", "f", (Text("a"), Image(data=b"x"), Text("b"))).text == "ab"
