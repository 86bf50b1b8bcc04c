"""Anthropic's Messages: how history of every kind is told, and media."""

from __future__ import annotations

import base64
import math
from itertools import pairwise

import pydantic
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from tests.integration.dialects.anthropic_voice import (
    agent,
    answer,
    asked,
    assistant,
    calls,
    model,
    request_of,
    say,
    user,
    words,
)
from tests.integration.server import Server

from gossamer import Message, Text, ToolCall, tool
from gossamer.errors import ArgumentError
from gossamer.messages import Audio, Citation, File, Image, ProviderBlock, Refusal, Thinking, ToolResult
from gossamer.models import ModelRequest, ModelSettings
from gossamer.view import MessageView

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def encoded(data):
    return base64.b64encode(data).decode()


# --- history of every kind ----------------------------------------------------------------------------------


async def test_neighbours_of_one_role_become_one_message():
    body = await asked(
        Message.user("one"),
        Message.system("Now be polite."),
        Message.user("two", author="Ann"),
        Message.assistant("a"),
        Message.assistant("b"),
        Message.user(Image(data=PNG), author="Bob"),
    )
    assert body["messages"] == [
        user(words("one"), words("<system>\nNow be polite.\n</system>"), words("Ann: two")),
        assistant(words("a"), words("b")),
        user(
            words("Bob:"),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": encoded(PNG)},
            },
        ),
    ]


async def test_results_come_first_and_errors_are_marked():
    one, two = ToolCall("convert", "{}", "ours-1"), ToolCall("convert", "", "ours-2")
    body = await asked(
        Message.user("go"),
        Message("assistant", (one, two)),
        Message(
            "tool",
            (ToolResult("ours-1", "convert", "1"), ToolResult("ours-2", "convert", "no", "error")),
        ),
        Message.user("and?"),
    )
    assert body["messages"][1:] == [
        assistant(
            {"type": "tool_use", "id": "ours-1", "name": "convert", "input": {}},
            {"type": "tool_use", "id": "ours-2", "name": "convert", "input": {}},
        ),
        user(
            {"type": "tool_result", "tool_use_id": "ours-1", "content": "1"},
            {"type": "tool_result", "tool_use_id": "ours-2", "content": "no", "is_error": True},
            words("and?"),
        ),
    ]


async def test_results_in_several_messages_find_their_calls():
    own = {"anthropic_chat": {"id": "toolu_a"}}, {"anthropic_chat": {"id": "toolu_b"}}
    calls_ = [ToolCall("convert", "{}", f"ours-{n}", own[n]) for n in range(2)]
    body = await asked(
        Message.user("go"),
        Message("assistant", tuple(calls_)),
        Message("tool", (ToolResult("ours-0", "convert", "1"),)),
        Message("tool", (ToolResult("ours-1", "convert", ""),)),
    )
    assert [block["id"] for block in body["messages"][1]["content"]] == ["toolu_a", "toolu_b"]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "toolu_b"},
    ]


async def test_a_tools_media_are_in_its_result():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=PNG)

    first = answer(False, calls("t", "draw", "{}"), stop="tool_use")
    async with Server(first, say(False, "nice")) as server:
        await agent(server, tools=[draw]).run("draw")
    (result,) = server.requests[1].messages[-1]["content"]
    assert result["type"] == "tool_result"
    assert [block["type"] for block in result["content"]] == ["image"]


@pytest.mark.parametrize("arguments", ["no JSON", "[1, 2]", '{"a": ', '"text"'])
async def test_arguments_that_are_no_object_are_sent_in_one(arguments):
    body = await asked(
        Message.user("go"),
        Message("assistant", (ToolCall("convert", arguments, "c"),)),
        Message("tool", (ToolResult("c", "convert", "bad", "error"),)),
    )
    assert body["messages"][1]["content"][0]["input"] == {"_raw": arguments}


async def test_arguments_are_sent_as_they_were_written():
    arguments = '{"b": 1.10, "a": "\\u00e9"}'
    async with Server(say(False, "ok")) as server:
        await model(server).respond(
            request_of(
                Message.user("go"),
                Message("assistant", (ToolCall("convert", arguments, "c"),)),
                Message("tool", (ToolResult("c", "convert", "1"),)),
            )
        )
    assert b'"input":' + arguments.encode() in server.requests[0].raw


async def test_what_other_providers_said():
    other = {"openai_responses": {"encrypted_content": "secret"}}
    body = await asked(
        Message.user("hi"),
        Message(
            "assistant",
            (
                Thinking("hidden thought", provider=other),
                Text("See here.", provider=other),
                Citation("https://example.org/a", "A page"),
                ProviderBlock("openai_responses", {"type": "web_search_call", "id": "ws"}),
                Refusal("I will not."),
                Image(url="https://example.org/made.png"),
            ),
        ),
        Message.user("go on"),
    )
    assert body["messages"][1] == assistant(
        words("See here."),
        words("[source: A page, https://example.org/a]"),
        words("[web_search_call by another provider, not shown]"),
        words("I will not."),
        words("[attachment at https://example.org/made.png, image/png; not shown]"),
    )
    assert "secret" not in str(body)
    assert "hidden" not in str(body)


async def test_what_is_empty_is_filled():
    body = await asked(
        Message.user(" "),
        Message.assistant(""),
        Message.user("hi"),
        Message("assistant", (Thinking("hm", signed=True, provider={"anthropic_chat": {"signature": "s"}}),)),
        Message.user("well?"),
    )
    assert body["messages"] == [
        user(words("[empty]")),
        assistant(words("[empty]")),
        user(words("hi")),
        assistant({"type": "thinking", "thinking": "hm", "signature": "s"}, words("[empty]")),
        user(words("well?")),
    ]


async def test_a_view_may_begin_with_anything():
    later = [Message.user("hi"), Message.assistant("yes"), Message.user("go")]
    rest = [user(words("hi")), assistant(words("yes")), user(words("go"))]
    result = Message("tool", (ToolResult("gone", "convert", "22"),))
    told = words("[result of an earlier call of convert]\n22")
    shown = words("[The conversation began before this.]")
    assert (await asked(*later))["messages"] == rest
    assert (await asked(*later[1:]))["messages"] == [user(shown), *rest[1:]]
    assert (await asked(result, *later))["messages"] == [user(told, words("hi")), *rest[1:]]
    assert (await asked(result, *later[1:]))["messages"] == [user(told), *rest[1:]]
    assert (await asked(result, result))["messages"] == [user(told, told)]
    assert (await asked(instructions="Greet."))["messages"] == [user(shown)]


async def test_a_window_on_a_session_may_begin_in_the_middle():
    """The buffer holds the bodies as they follow what has left the view."""
    items = [Message.user("gone"), Message.assistant("a"), Message.assistant("b"), Message.user("c")]
    items += [Message.user("d"), Message.assistant("e"), Message.user("f")]
    encodings = {}
    async with Server(say(False, "ok")) as server:
        for start in range(len(items)):
            view = MessageView(items, start, len(items), encodings)
            await model(server).respond(ModelRequest(view))
    blocks = [
        [block["text"] for message in request.messages for block in message["content"]]
        for request in server.requests
    ]
    shown = "[The conversation began before this.]"
    texts = ["gone", "a", "b", "c", "d", "e", "f"]
    for start, said in enumerate(blocks):
        expected = texts[start:]
        assert said == ([shown, *expected] if items[start].role == "assistant" else expected)
    for request in server.requests:
        roles = [message["role"] for message in request.messages]
        assert roles[0] == "user"
        assert all(one != other for one, other in pairwise(roles))


def whole(value):
    """Read what pydantic checks only as it is read."""
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    return [whole(item) for item in value]


async def test_requests_are_what_the_official_client_takes():
    own = "anthropic_chat"
    cited = {"type": "web_search_result_location", "url": "u", "title": "t"}
    cited |= {"encrypted_index": "i", "cited_text": "c"}
    body = await asked(
        Message.user(
            "hi",
            Image(data=PNG),
            File(data=b"%PDF-"),
            File(data=b"abc", media_type="text/plain"),
            author="Ann",
        ),
        Message(
            "assistant",
            (
                Thinking("t", signed=True, provider={own: {"signature": "s"}}),
                Thinking("", signed=True, provider={own: {"data": "s"}}),
                Text("cited"),
                Citation("u", "t", provider={own: cited}),
                ProviderBlock(own, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
                ToolCall("f", '{"a":1}', "c1"),
            ),
        ),
        Message("tool", (ToolResult("c1", "f", (Text("x"), Image(data=PNG)), "error"),)),
        Message.system("be polite"),
        instructions="Be brief.",
        settings=ModelSettings(thinking="high", prompt_cache="1h", stop=["x"], max_tokens=5),
    )
    adapter = pydantic.TypeAdapter(MessageCreateParamsNonStreaming)
    assert whole(adapter.validate_python(body)).keys() == body.keys()
    body["messages"][2]["content"][0]["is_error"] = "who knows"
    with pytest.raises(pydantic.ValidationError):  # it does look
        whole(adapter.validate_python(body))


# --- media --------------------------------------------------------------------------------------------------


async def test_media_parts():
    pdf = b"%PDF-1.7 bytes"
    body = await asked(
        Message.user(
            "Look:",
            Image(data=b"\xff\xd8\xffx", media_type="image/jpg"),
            Image(url="https://example.org/cat.jpg"),
            File(data=pdf, name="report.pdf"),
            File(url="https://example.org/paper.pdf", name="paper.pdf"),
            File(data="Grüße".encode(), name="a.txt", media_type="text/plain; charset=utf-8"),
            File(data=b"PK", name="a.zip", media_type="application/zip"),
            File(url="https://example.org/a.txt"),
            Audio(data=b"ID3bytes"),
        )
    )
    content = body["messages"][0]["content"]
    assert content[:6] == [
        words("Look:"),
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/jpeg", "data": encoded(b"\xff\xd8\xffx")},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.jpg"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": encoded(pdf)},
            "title": "report.pdf",
        },
        {
            "type": "document",
            "source": {"type": "url", "url": "https://example.org/paper.pdf"},
            "title": "paper.pdf",
        },
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            "title": "a.txt",
        },
    ]
    # What the API does not take, the model is told of.
    assert [block["type"] for block in content[6:]] == ["text"] * 3
    assert "application/zip" in content[6]["text"]
    assert "https://example.org/a.txt" in content[7]["text"]


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Image(data=b"BM", media_type="image/bmp"), "image/bmp"),
        (Image(data=PNG + bytes(math.ceil(7.6 * 2**20))), "7,864,320"),
    ],
    ids=["type", "size"],
)
async def test_images_that_would_be_refused_are_not_sent(picture, told):
    async with Server(say(False, "ok")) as server:
        with pytest.raises(ArgumentError, match=told):
            await agent(server).run([Text("look"), picture])
        assert server.requests == []
        # A picture just small enough goes.
        await agent(server).run([Text("look"), Image(data=PNG + bytes(7_864_320 - len(PNG)))])
    assert len(server.requests[0].messages[0]["content"][1]["source"]["data"]) == 10 * 2**20
