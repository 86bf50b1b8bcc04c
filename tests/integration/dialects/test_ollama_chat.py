"""Ollama's own API: what is asked, byte for byte, and what is made of every kind of answer."""

from __future__ import annotations

import base64
import json
import logging
from itertools import pairwise

import msgspec
import pytest
from tests.integration.asking import CONVERT, ask, convert, streamed_and_not
from tests.integration.dialects.ollama_voice import (
    HEAD,
    agent,
    answer,
    body,
    call,
    line,
    lines,
    model,
    stream,
)
from tests.integration.server import LAST_CHUNK, Close, Server, chunk, http

from gossamer import Agent, Message, Session, Text, ToolCall, tool
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Audio, Citation, File, Image, ProviderBlock, Refusal, Thinking, ToolResult
from gossamer.models import Capabilities, ModelRequest, ModelSettings, OllamaChat, Price, ollama_chat, resolve
from gossamer.view import MessageView

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


async def asked(*messages, **fields):
    """The body that a request becomes, answered by a server."""
    async with Server(answer(False, "ok")) as server:
        view = MessageView(list(messages), 0, len(messages))
        await model(server).respond(ModelRequest(view, **fields))
    return server.requests[0].body


def encoded(data):
    return base64.b64encode(data).decode()


def parts_of(result, kind):
    return [part for message in result.messages for part in message.parts if isinstance(part, kind)]


# --- the whole request --------------------------------------------------------------------------------------


async def test_smallest_request_byte_for_byte():
    async with Server(answer(False, "hello")) as server:
        assert (await agent(server).run("hi")).output == "hello"
    request = server.requests[0]
    assert request.raw == b'{"model":"sim","stream":false,"messages":[{"role":"user","content":"hi"}]}'
    assert request.target == "/api/chat"
    assert "authorization" not in request.headers


async def test_smallest_streamed_request_byte_for_byte():
    async with Server(answer(True, "hel", "lo")) as server:
        result, given = await ask(agent(server), "hi", streamed=True)
    assert result.output == "hello"
    assert [event.text for event in given if isinstance(event, TextDelta)] == ["hel", "lo"]
    assert server.requests[0].raw == (
        b'{"model":"sim","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/api/chat"),
        (":5000", "http://127.0.0.1:5000/api/chat"),
        ("10.0.0.2:5000", "http://10.0.0.2:5000/api/chat"),
        ("gpu.example/ollama/", "http://gpu.example:11434/ollama/api/chat"),
        ("[::1]", "http://[::1]:11434/api/chat"),
        ("[::1]:5000", "http://[::1]:5000/api/chat"),
        ("https://ollama.example/", "https://ollama.example/api/chat"),
        ("http://ollama.example", "http://ollama.example/api/chat"),
    ],
)
def test_what_a_host_may_look_like(host, url, monkeypatch):
    assert OllamaChat("m", base_url=host)._transport.url == url
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert OllamaChat("m")._transport.url == url
    resolve.cache_clear()
    assert resolve("ollama:m").model._transport.url == url
    resolve.cache_clear()


def test_without_a_host_it_is_this_machine(monkeypatch):
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert OllamaChat("m")._transport.url == "http://127.0.0.1:11434/api/chat"


async def test_no_key_of_another_provider_goes_out(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    async with Server(answer(False, "ok")) as server:
        await agent(server).run("hi")
        await Agent(model(server, api_key="ours")).run("hi")
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].headers["authorization"] == "Bearer ours"


@streamed_and_not
async def test_a_tool_loop_and_its_requests(streamed):
    first = answer(streamed, tool_calls=[call("convert", {"amount": 20, "rate": 1.1}, id="theirs")])
    async with Server(first, answer(streamed, "22 it is")) as server:
        asking = agent(server, instructions="Be brief.", tools=[convert])
        result, given = await ask(asking, "20 at 1.1?", streamed)
    assert result.output == "22 it is"
    (made,) = parts_of(result, ToolCall)
    assert json.loads(made.arguments) == {"amount": 20, "rate": 1.1}
    assert made.provider == {"ollama_chat": {"id": "theirs"}}
    opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "20 at 1.1?"}]
    assert server.requests[0].body == {
        "model": "sim",
        "stream": streamed,
        "messages": opening,
        "tools": [CONVERT],
    }
    function = {"name": "convert", "arguments": {"amount": 20, "rate": 1.1}}
    assert server.requests[1].messages == [
        *opening,
        {"role": "assistant", "content": "", "tool_calls": [{"id": made.id, "function": function}]},
        {"role": "tool", "content": "22.0", "tool_name": "convert", "tool_call_id": made.id},
    ]
    if streamed:
        assert ToolCallStarted(made.id, "convert") in given
        assert ToolArgumentsDelta(made.id, made.arguments) in given


async def test_every_setting():
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.9,
        max_tokens=100,
        stop=["END"],
        seed=7,
        parallel_tool_calls=False,
        thinking="high",
        prompt_cache="1h",
        extra_body={"options": {"num_ctx": 16384, "seed": 8}, "logprobs": True},
    )
    assert await asked(Message.user("hi"), settings=settings) == {
        "model": "sim",
        "stream": False,
        "options": {
            "temperature": 0.5,
            "top_p": 0.9,
            "num_predict": 100,
            "stop": ["END"],
            "seed": 8,
            "num_ctx": 16384,
        },
        "think": "high",
        "keep_alive": "1h",
        "logprobs": True,
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize(
    ("thinking", "think"), [("on", True), ("off", False), ("none", False), ("low", "low"), ("max", "max")]
)
async def test_thinking_settings(thinking, think):
    assert (await asked(Message.user("hi"), settings=ModelSettings(thinking=thinking)))["think"] == think


@pytest.mark.parametrize(("cache", "kept"), [("5m", "5m"), ("-1", -1), ("0", 0), ("3600", 3600)])
async def test_how_long_the_model_stays(cache, kept):
    assert (await asked(Message.user("hi"), settings=ModelSettings(prompt_cache=cache)))["keep_alive"] == kept


@pytest.mark.parametrize(("choice", "shown"), [("auto", True), ("required", True), ("none", False)])
async def test_tool_choice(choice, shown):
    async with Server(answer(False, "ok")) as server:
        await agent(server, tools=[convert], settings=ModelSettings(tool_choice=choice)).run("hi")
    assert ("tools" in server.requests[0].body) is shown


@streamed_and_not
async def test_structured_output_by_schema(streamed):
    async with Server(answer(streamed, '{"amount": 2.5,', '"currency": "EUR"}')) as server:
        result, _ = await ask(agent(server, output=Quote), "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    assert server.requests[0].body["format"]["required"] == ["amount", "currency"]
    assert "tools" not in server.requests[0].body


@streamed_and_not
@pytest.mark.parametrize(("native", "tools"), [(True, [convert]), (False, [convert]), (False, [])])
async def test_structured_output_by_tool(streamed, native, tools):
    final = call("final_answer", {"amount": 2.5, "currency": "EUR"})
    async with Server(answer(streamed, tool_calls=[final])) as server:
        asking = agent(server, tools=tools, output=Quote, capabilities=Capabilities(native_schema=native))
        result, given = await ask(asking, "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    assert not parts_of(result, ToolCall)
    names = [one["function"]["name"] for one in server.requests[0].body["tools"]]
    assert names == [*(["convert"] if tools else []), "final_answer"]
    assert "format" not in server.requests[0].body
    assert not [one for one in given if isinstance(one, ToolCallStarted)]


# --- history ------------------------------------------------------------------------------------------------


async def test_what_other_providers_said():
    sent = await asked(
        Message("tool", (ToolResult("0", "lost", "late"),)),
        Message.user("one", author="Ann"),
        Message.user("two"),
        Message.system("In French."),
        Message(
            "assistant",
            (
                Thinking("secret", True, {"anthropic_chat": {"signature": "x"}}),
                Text("said"),
                Refusal("will not"),
                Citation("https://a.example", "A"),
                ProviderBlock("openai_responses", {"type": "web_search_call"}),
                ToolCall("a", "{broken", "1"),
            ),
        ),
        Message("tool", (ToolResult("1", "a", "no", "error"),)),
        Message("assistant", ()),
    )
    told = "[source: A, https://a.example]\n[web_search_call by another provider, not shown]"
    function = {"name": "a", "arguments": {"_raw": "{broken"}}
    assert sent["messages"] == [
        {"role": "user", "content": "[result of an earlier call of lost]\nlate"},
        {"role": "user", "content": "Ann: one"},
        {"role": "user", "content": "two"},
        {"role": "system", "content": "In French."},
        {
            "role": "assistant",
            "content": f"said\nwill not\n{told}",
            "tool_calls": [{"id": "1", "function": function}],
        },
        {"role": "tool", "content": "no", "tool_name": "a", "tool_call_id": "1"},
        {"role": "assistant", "content": ""},
    ]


@streamed_and_not
async def test_thinking_goes_back_to_its_model(streamed):
    first = answer(
        streamed, thinking=["I ", "think."], tool_calls=[call("convert", {"amount": 1, "rate": 2})]
    )
    async with Server(first, answer(streamed, "two"), answer(streamed, "more")) as server:
        session = Session()
        asking = agent(server, tools=[convert])
        result, given = await ask(asking, "go", streamed, session=session)
        await ask(asking, "more", streamed, session=Session.from_export(session.export()))
    assert [part.text for part in parts_of(result, Thinking)] == ["I think."]
    for request in server.requests[1:]:
        spoken = next(one for one in request.messages if one["role"] == "assistant")
        assert spoken["thinking"] == "I think."
    if streamed:
        assert "".join(one.text for one in given if isinstance(one, ThinkingDelta)) == "I think."


async def test_each_message_is_encoded_once_and_the_beginning_stays(monkeypatch):
    seen = []
    original = ollama_chat._encode_message

    def count(message, previous):
        seen.append(message)
        return original(message, previous)

    monkeypatch.setattr(ollama_chat, "_encode_message", count)
    session = Session()
    rounds = 8
    answers = [answer(False, tool_calls=[call("convert", {"amount": n, "rate": 2})]) for n in range(rounds)]
    async with Server(*answers, answer(False, "done")) as server:
        asking = agent(server, tools=[convert])
        await asking.run("go", session=session)
        await asking.run("again", session=session)
    assert len(seen) == len({id(message) for message in seen}) == 2 * rounds + 3
    requests = [request.raw[: request.raw.index(b'],"tools":[{"type"')] for request in server.requests]
    for earlier, later in pairwise(requests):
        assert later.startswith(earlier)


async def test_media_parts():
    prompt = [
        Text("Look:"),
        Image(data=PNG),
        Image(url="https://example.org/cat.jpg"),
        Audio(data=b"ID3bytes"),
        File(data=b"%PDF-1.7 bytes", name="report.pdf"),
    ]
    sent = await asked(Message.user(*prompt))
    (said,) = sent["messages"]
    assert said["images"] == [encoded(PNG)]
    for told in ("Look:", "https://example.org/cat.jpg", "audio/mpeg", "report.pdf", "application/pdf"):
        assert told in said["content"]


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Image(data=b"II*\0", media_type="image/tiff"), "image/tiff"),
        (Image(data=PNG[:8] + bytes(100 * 1024 * 1024)), "104,857,600"),
    ],
    ids=["type", "size"],
)
async def test_images_that_would_be_refused_are_not_sent(picture, told):
    async with Server(answer(False, "no")) as server:
        with pytest.raises(ArgumentError, match=told):
            await agent(server).run([picture])
    assert server.requests == []


async def test_a_tools_picture_follows_its_result():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=PNG)

    async with Server(answer(False, tool_calls=[call("draw", {})]), answer(False, "nice")) as server:
        await agent(server, tools=[draw]).run("draw")
    result, shown = server.requests[1].messages[-2:]
    assert (result["role"], result["content"]) == ("tool", "[1 attached, shown below]")
    assert shown == {"role": "user", "content": "Attached by draw:", "images": [encoded(PNG)]}


# --- answers ------------------------------------------------------------------------------------------------


@streamed_and_not
async def test_usage_and_cost(streamed):
    async with Server(answer(streamed, "a", "b")) as server:
        result, _ = await ask(Agent(model(server, price=Price(input=1.0, output=10.0))), "hi", streamed)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 5)
    assert result.usage.cost == pytest.approx(60 / 1e6)


@streamed_and_not
async def test_usage_that_is_not_told(streamed):
    async with Server(answer(streamed, "a", counts={})) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert (result.usage.total_tokens, result.usage.model_calls) == (0, 1)


@streamed_and_not
@pytest.mark.parametrize(
    ("done", "ours"), [("stop", "stop"), ("length", "length"), ("load", "other"), ("new", "other")]
)
async def test_stop_reasons(streamed, done, ours):
    async with Server(answer(streamed, "so far", done=done)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert (result.finish_reason, result.output) == (ours, "so far")


@streamed_and_not
async def test_parallel_calls_without_arguments_and_ids(streamed):
    @tool(inline=True)
    def now() -> str:
        """Tell the time."""
        return "noon"

    first = answer(streamed, "Let me see.", tool_calls=[call("now", {}), call("now", None)])
    async with Server(first, answer(streamed, "noon")) as server:
        result, _ = await ask(agent(server, tools=[now]), "when?", streamed)
    made = parts_of(result, ToolCall)
    assert [one.arguments for one in made] == ["{}", "{}"]
    assert len({one.id for one in made}) == 2
    assert all(one.provider is None for one in made)
    assert result.messages[1].text == "Let me see."


async def test_the_last_line_may_lack_its_end():
    whole = b"".join(lines("one", " two"))
    async with Server(stream(whole[:-1])) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "one two"


# --- failures -----------------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "registry.ollama.ai/library/sim does not support tools", InvalidRequestError),
        (400, "the input exceeds the context length", ContextLengthError),
        (401, "unauthorized", AuthenticationError),
        (404, "model 'sim' not found, try pulling it first", NotFoundError),
        (429, "too many requests", RateLimitError),
        (500, "llama runner process has terminated", ProviderError),
        (503, "server busy, please try again. maximum pending requests exceeded", OverloadedError),
    ],
)
async def test_errors(streamed, status, words, kind):
    async with Server(http({"error": words}, status)) as server:
        with pytest.raises(ModelError, match=words[:20]) as caught:
            await ask(agent(server), "hi", streamed)
    assert type(caught.value) is kind
    assert caught.value.status == status


async def test_an_error_in_the_middle_of_a_stream():
    broken = line({"error": "an error was encountered while running the model"})
    async with Server(stream(line(body("so")), broken)) as server:
        with pytest.raises(ProviderError, match="while running the model"):
            await ask(agent(server), "hi", streamed=True)


@streamed_and_not
async def test_an_error_with_the_status_of_a_success(streamed):
    said = {"error": "the prompt is longer than the context window"}
    async with Server(stream(line(said)) if streamed else http(said)) as server:
        with pytest.raises(ContextLengthError):
            await ask(agent(server), "hi", streamed)


@streamed_and_not
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"message": 3}',
        b'{"message": {"content": 3}, "done": true}',
        b"<html><body>login</body></html>",
        b"<html>\n<body>login\n</body></html>\n",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_hostile_answers(streamed, data):
    async with Server(stream(data) if streamed and data else stream() if streamed else http(data)) as server:
        with pytest.raises((InvalidResponseError, StreamBrokenError)) as caught:
            await ask(agent(server), "hi", streamed)
    if data not in {b"", b"{}"}:
        assert type(caught.value) is InvalidResponseError


async def test_unknown_frames_are_passed_over_and_told_of(caplog):
    caplog.set_level(logging.DEBUG, "gossamer")
    strange = line({"hologram": 1})
    async with Server(stream(strange, line(body("a")), strange, *lines("b"))) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "ab"
    assert sum("unknown kind" in record.getMessage() for record in caplog.records) == 2


async def test_a_stream_cut_at_every_byte():
    """Whatever arrived by the cut is told, and nothing but that."""
    whole = b"".join(lines("one", " two", tool_calls=[call("convert", {"amount": 1, "rate": 2})]))
    whole = whole.rstrip()
    for cut in range(0, len(whole), 5):
        async with Server([Close(stream(whole[:cut]) if cut else stream())]) as server:
            with pytest.raises((StreamBrokenError, InvalidResponseError)) as caught:
                await ask(agent(server, tools=[convert]), "hi", streamed=True)
        if whole[:cut].count(b"\n"):
            assert type(caught.value) is StreamBrokenError
            assert "one two".startswith(caught.value.text)


async def test_packets_may_end_anywhere():
    first = b"".join(lines("Größe", thinking=["hm"], tool_calls=[call("convert", {"amount": 1, "rate": 2})]))
    pieces = [HEAD, *(chunk(first[i : i + 1]) for i in range(len(first))), LAST_CHUNK]
    async with Server(pieces, answer(True, "2.0")) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed=True)
    assert result.output == "2.0"
    assert result.messages[1].text == "Größe"
    assert json.loads(parts_of(result, ToolCall)[0].arguments) == {"amount": 1, "rate": 2}
