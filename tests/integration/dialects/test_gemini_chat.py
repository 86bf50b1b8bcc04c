"""Gemini's `generateContent`: what is asked, byte for byte, and what is made of every kind of answer."""

from __future__ import annotations

import base64
import json
import logging
from itertools import pairwise

import msgspec
import pytest
from tests.integration.asking import ask, convert, streamed_and_not
from tests.integration.dialects.gemini_voice import (
    USAGE,
    agent,
    answer,
    body,
    calls,
    error,
    event,
    events,
    in_packets,
    model,
    say,
    text,
    thought,
)
from tests.integration.server import LAST_CHUNK, STREAM_HEAD, Close, Server, chunk, http, stream

from gossamer import Agent, Message, Session, Text, ToolCall, tool
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Audio, Citation, File, Image, ProviderBlock, Refusal, Thinking, ToolResult
from gossamer.models import (
    Capabilities,
    GeminiChat,
    ModelRequest,
    ModelSettings,
    Price,
    gemini_request,
    resolve,
)
from gossamer.view import MessageView

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
DECLARED = {
    "name": "convert",
    "description": "Convert an amount of money.",
    "parametersJsonSchema": {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "description": "in the source currency."},
            "rate": {"type": "number", "description": "target units for one source unit."},
        },
        "required": ["amount", "rate"],
        "additionalProperties": False,
    },
}


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


def request_of(*messages, **fields):
    return ModelRequest(MessageView(list(messages), 0, len(messages)), **fields)


async def asked(*messages, name="gemini-2.5-test", **fields):
    """The body that a request becomes, answered by a server."""
    async with Server(say(False, "ok")) as server:
        await model(server, name).respond(request_of(*messages, **fields))
    return server.requests[0].body


async def turns(*messages, **options):
    """The turns that messages become."""
    return [(turn["role"], turn["parts"]) for turn in (await asked(*messages, **options))["contents"]]


def encoded(data):
    return base64.b64encode(data).decode()


def parts_of(result, kind):
    return [part for message in result.messages for part in message.parts if isinstance(part, kind)]


# --- the whole request --------------------------------------------------------------------------------------


async def test_smallest_request_byte_for_byte():
    async with Server(say(False, "hello")) as server:
        assert (await agent(server).run("hi")).output == "hello"
    request = server.requests[0]
    assert request.raw == b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
    assert request.target == "/v1/models/gemini-2.5-test:generateContent"
    assert request.headers["x-goog-api-key"] == "secret"
    assert "authorization" not in request.headers


async def test_smallest_streamed_request():
    async with Server(say(True, "hel", "lo")) as server:
        result, given = await ask(agent(server), "hi", streamed=True)
    assert result.output == "hello"
    assert [event.text for event in given if isinstance(event, TextDelta)] == ["hel", "lo"]
    assert server.requests[0].target == "/v1/models/gemini-2.5-test:streamGenerateContent?alt=sse"
    assert server.requests[0].raw == b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'


@pytest.mark.parametrize(
    ("base", "name", "target"),
    [
        ("", "gemini-x", "/v1beta/models/gemini-x:generateContent"),
        ("/", "models/gemini-x", "/v1beta/models/gemini-x:generateContent"),
        ("/v1alpha", "tunedModels/my-1", "/v1alpha/tunedModels/my-1:generateContent"),
        ("/proxy", "a?b#c", "/proxy/v1beta/models/a%3Fb%23c:generateContent"),
    ],
)
async def test_where_requests_go(base, name, target):
    async with Server(say(False, "ok")) as server:
        url = f"http://127.0.0.1:{server.port}{base}"
        await Agent(GeminiChat(name, base_url=url)).run("hi")
    assert server.requests[0].target == target
    assert "x-goog-api-key" not in server.requests[0].headers


async def test_key_and_url_come_from_the_environment(monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "not this one")
    with pytest.raises(AuthenticationError, match="GEMINI_API_KEY"):
        GeminiChat("gemini-x")
    async with Server(say(False, "ok")) as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_API_KEY", "theirs")
        resolve.cache_clear()
        await Agent("gemini:gemini-x").run("hi")
        monkeypatch.setenv("GEMINI_API_KEY", "ours")
        await Agent(GeminiChat("gemini-x")).run("hi")
    resolve.cache_clear()
    assert [request.headers["x-goog-api-key"] for request in server.requests] == ["theirs", "ours"]


@streamed_and_not
async def test_a_tool_loop_and_its_requests(streamed):
    first = calls("convert", {"amount": 20, "rate": 1.1}, signature="c2ln")
    async with Server(answer(streamed, first), say(streamed, "22 it is")) as server:
        asking = agent(server, instructions="Be brief.", tools=[convert])
        result, given = await ask(asking, "20 at 1.1?", streamed)
    assert result.output == "22 it is"
    (call,) = parts_of(result, ToolCall)
    assert call.arguments == '{"amount":20,"rate":1.1}'
    assert call.provider == {"gemini_chat": {"id": "call_theirs", "thoughtSignature": "c2ln"}}
    assert server.requests[0].body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "20 at 1.1?"}]}],
        "tools": [{"functionDeclarations": [DECLARED]}],
    }
    sent = {"id": call.id, "name": "convert", "args": {"amount": 20, "rate": 1.1}}
    told = {"id": call.id, "name": "convert", "response": {"output": "22.0"}}
    assert server.requests[1].body["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": sent, "thoughtSignature": "c2ln"}]},
        {"role": "user", "parts": [{"functionResponse": told}]},
    ]
    if streamed:
        assert ToolCallStarted(call.id, "convert") in given
        assert ToolArgumentsDelta(call.id, call.arguments) in given


async def test_every_setting():
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.9,
        max_tokens=100,
        stop=["END"],
        seed=7,
        parallel_tool_calls=False,
        prompt_cache="1h",
        extra_body={
            "generationConfig": {"topK": 5, "seed": 8},
            "cachedContent": "cachedContents/1",
            "tools": [{"googleSearch": {}}],
        },
    )
    sent = await asked(Message.user("hi"), settings=settings, instructions="Be brief.")
    assert sent == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "seed": 8,
            "topK": 5,
        },
        "cachedContent": "cachedContents/1",
        "tools": [{"googleSearch": {}}],
    }


async def test_tools_of_google_stand_beside_ours():
    settings = ModelSettings(extra_body={"tools": [{"googleSearch": {}}, {"urlContext": {}}]})
    async with Server(say(False, "ok")) as server:
        await agent(server, tools=[convert], settings=settings).run("hi")
    ours, *theirs = server.requests[0].body["tools"]
    assert ours == {"functionDeclarations": [DECLARED]}
    assert theirs == [{"googleSearch": {}}, {"urlContext": {}}]


@pytest.mark.parametrize(
    ("thinking", "config"),
    [
        ("low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("2048", {"thinkingBudget": 2048, "includeThoughts": True}),
        ("-1", {"thinkingBudget": -1, "includeThoughts": True}),
        ("off", {"thinkingBudget": 0}),
    ],
)
async def test_thinking_settings(thinking, config):
    sent = await asked(Message.user("hi"), settings=ModelSettings(thinking=thinking))
    assert sent["generationConfig"] == {"thinkingConfig": config}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("convert", {"mode": "ANY", "allowedFunctionNames": ["convert"]}),
    ],
)
async def test_tool_choice(choice, config):
    async with Server(answer(False, calls("convert", {"amount": 1, "rate": 2})), say(False, "2")) as server:
        await agent(server, tools=[convert], settings=ModelSettings(tool_choice=choice)).run("hi")
    assert server.requests[0].body["toolConfig"] == {"functionCallingConfig": config}
    # A forced call is forced once.
    assert ("toolConfig" in server.requests[1].body) is (choice == "none")


@streamed_and_not
@pytest.mark.parametrize("name", ["gemini-2.5-test", "gemini-3-test"])
async def test_structured_output_by_schema(streamed, name):
    said = ('{"amount": 2.5,', '"currency": "EUR"}')
    async with Server(say(streamed, *said)) as server:
        result, _ = await ask(agent(server, name, output=Quote), "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    config = server.requests[0].body["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"]["required"] == ["amount", "currency"]
    assert "tools" not in server.requests[0].body


@streamed_and_not
@pytest.mark.parametrize(
    ("name", "native", "by_tool"),
    [
        ("gemini-2.5-test", True, True),  # refuses a schema beside tools
        ("gemini-3-test", True, False),
        ("gemini-flash-latest", True, False),
        ("gemini-3-test", False, True),
    ],
)
async def test_structured_output_beside_tools(streamed, name, native, by_tool):
    final = calls("final_answer", {"amount": 2.5, "currency": "EUR"})
    said = final if by_tool else text('{"amount":2.5,"currency":"EUR"}')
    async with Server(answer(streamed, said)) as server:
        asking = agent(
            server, name, tools=[convert], output=Quote, capabilities=Capabilities(native_schema=native)
        )
        result, given = await ask(asking, "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    assert not parts_of(result, ToolCall)
    sent = server.requests[0].body
    names = [declared["name"] for declared in sent["tools"][0]["functionDeclarations"]]
    assert names == (["convert", "final_answer"] if by_tool else ["convert"])
    assert ("generationConfig" in sent) is not by_tool
    if by_tool:
        assert sent["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert not [one for one in given if isinstance(one, ToolCallStarted)]


# --- history ------------------------------------------------------------------------------------------------


async def test_neighbours_of_one_role_share_a_turn():
    assert await turns(
        Message.user("one"),
        Message.user("two", author="Ann"),
        Message.system("In French."),
        Message.assistant("trois"),
        Message.assistant("quatre"),
        Message.user("five"),
    ) == [
        (
            "user",
            [text("one"), text("Ann:"), text("two"), text("[system message]"), text("In French.")],
        ),
        ("model", [text("trois"), text("quatre")]),
        ("user", [text("five")]),
    ]


async def test_results_share_a_turn_and_errors_are_marked():
    calling = Message(
        "assistant", (ToolCall("a", "{}", "1"), ToolCall("b", "{}", "2"), ToolCall("c", "{}", "3"))
    )
    contents = await turns(
        Message.user("go"),
        calling,
        Message("tool", (ToolResult("1", "a", "fine"), ToolResult("2", "b", "broken", "error"))),
        Message("tool", (ToolResult("3", "c", "late", "timeout"),)),
        Message.user("and?"),
    )
    assert [role for role, _ in contents] == ["user", "model", "user"]
    *results, said = contents[2][1]
    assert [result["functionResponse"]["response"] for result in results] == [
        {"output": "fine"},
        {"error": "broken"},
        {"error": "late"},
    ]
    assert [result["functionResponse"]["id"] for result in results] == ["1", "2", "3"]
    assert said == text("and?")


@pytest.mark.parametrize("written", ["{broken", "[1]", "", "3", '{"a": 1} x'])
async def test_arguments_that_are_no_object_are_sent_in_one(written):
    contents = await turns(Message.user("go"), Message("assistant", (ToolCall("a", written, "1"),)))
    assert contents[1][1][0]["functionCall"]["args"] == {"_raw": written}


async def test_what_other_providers_said():
    contents = await turns(
        Message.user("go"),
        Message(
            "assistant",
            (
                Thinking("secret", True, {"anthropic_chat": {"signature": "x"}}),
                Text("", {"openai_responses": {"id": "m"}}),
                Text("said", {"openai_responses": {"id": "m"}}),
                Refusal("will not"),
                Citation("https://a.example", "A"),
                ProviderBlock("openai_responses", {"type": "web_search_call", "id": "w"}),
                ProviderBlock("gemini_chat", {"executableCode": {"code": "1"}, "thoughtSignature": "s"}),
                Image(data=PNG),
            ),
        ),
    )
    assert contents[1] == (
        "model",
        [
            text("said"),
            text("will not"),
            text("[source: A, https://a.example]"),
            text("[web_search_call by another provider, not shown]"),
            {"executableCode": {"code": "1"}, "thoughtSignature": "s"},
            {"inlineData": {"mimeType": "image/png", "data": encoded(PNG)}},
        ],
    )


@pytest.mark.parametrize(
    ("name", "signatures"),
    [
        ("gemini-2.5-test", [None, None]),
        ("gemini-3-test", ["skip_thought_signature_validator", None]),
        ("models/gemini-3.5-flash", ["skip_thought_signature_validator", None]),
    ],
)
async def test_calls_that_another_model_made_need_no_signature(name, signatures):
    foreign = Message("assistant", (Text("so"), ToolCall("a", "{}", "1"), ToolCall("b", "{}", "2")))
    contents = await turns(Message.user("go"), foreign, name=name)
    assert [part.get("thoughtSignature") for part in contents[1][1][1:]] == signatures


async def test_what_is_empty_is_filled():
    said = Message.assistant("")
    assert await turns(Message.user(""), said, Message.user("", "x"), Message("assistant", ())) == [
        ("user", [text("[empty message]")]),
        ("model", [text("[empty message]")]),
        ("user", [text("x")]),
        ("model", [text("[empty message]")]),
    ]


async def test_a_view_may_begin_with_anything():
    begins = text("[The conversation begins here.]")
    assert await turns(Message.assistant("Welcome!"), Message.user("hi")) == [
        ("user", [begins]),
        ("model", [text("Welcome!")]),
        ("user", [text("hi")]),
    ]
    late = Message("tool", (ToolResult("1", "a", "fine"),))
    told = text("[result of an earlier call of a]\nfine")
    assert await turns(late, Message.user("hi")) == [("user", [told, text("hi")])]
    assert await turns(late, late, Message.assistant("hi")) == [
        ("user", [told, told]),
        ("model", [text("hi")]),
    ]
    assert await turns(late) == [("user", [told])]
    assert await turns(instructions="Begin.") == [("user", [begins])]


@pytest.mark.parametrize("start", range(6))
async def test_a_window_on_a_session_may_begin_in_the_middle(start):
    messages = [
        Message.user("one"),
        Message.user("two"),
        Message.assistant("three"),
        Message.assistant("four"),
        Message.user("five"),
        Message.user("six"),
    ]
    encodings = {}
    async with Server(say(False, "ok")) as server:
        whole = ModelRequest(MessageView(messages, 0, 6, encodings))
        await model(server).respond(whole)
        await model(server).respond(ModelRequest(MessageView(messages, start, 6, encodings)))
    said = [part["text"] for turn in server.requests[1].body["contents"] for part in turn["parts"]]
    assert [word for word in said if not word.startswith("[")] == [one.text for one in messages[start:]]
    roles = [turn["role"] for turn in server.requests[1].body["contents"]]
    assert roles[0] == "user"
    assert all(one != other for one, other in pairwise(roles))


async def test_each_message_is_encoded_once_and_the_beginning_stays(monkeypatch):
    seen = []
    original = gemini_request._encode_message

    def count(message, previous):
        seen.append(message)
        return original(message, previous)

    monkeypatch.setattr(gemini_request, "_encode_message", count)
    session = Session()
    rounds = 8
    answers = [answer(False, calls("convert", {"amount": n, "rate": 2})) for n in range(rounds)]
    async with Server(*answers, say(False, "done")) as server:
        asking = agent(server, tools=[convert])
        await asking.run("go", session=session)
        await asking.run("again", session=session)
    assert len(seen) == len({id(message) for message in seen}) == 2 * rounds + 3
    requests = [request.raw[: request.raw.index(b']}],"tools"')] for request in server.requests]
    for earlier, later in pairwise(requests):
        assert later.startswith(earlier)


async def test_media_parts():
    prompt = [
        Text("Look:"),
        Image(data=PNG),
        Image(url="https://example.org/cat.jpg"),
        Audio(data=b"ID3bytes"),
        File(data=b"%PDF-1.7 bytes", name="report.pdf"),
        File(url="https://example.org/paper.pdf"),
        File(url="https://generativelanguage.googleapis.com/v1beta/files/abc"),
        File(data=b"PK..", media_type="application/zip", name="a.zip"),
    ]
    async with Server(say(False, "seen")) as server:
        await agent(server).run(prompt)
    *parts, unread = server.requests[0].body["contents"][0]["parts"]
    assert parts == [
        text("Look:"),
        {"inlineData": {"mimeType": "image/png", "data": encoded(PNG)}},
        {"fileData": {"fileUri": "https://example.org/cat.jpg", "mimeType": "image/jpeg"}},
        {"inlineData": {"mimeType": "audio/mpeg", "data": encoded(b"ID3bytes")}},
        {"inlineData": {"mimeType": "application/pdf", "data": encoded(b"%PDF-1.7 bytes")}},
        {"fileData": {"fileUri": "https://example.org/paper.pdf", "mimeType": "application/pdf"}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
    ]
    assert unread == text("[a.zip, application/zip, that this provider cannot show]")


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Image(data=b"II*\0", media_type="image/tiff"), "image/tiff"),
        (Image(data=PNG[:8] + bytes(75_000_000)), "75,000,000"),
    ],
    ids=["type", "size"],
)
async def test_images_that_would_be_refused_are_not_sent(picture, told):
    async with Server(say(False, "no")) as server:
        with pytest.raises(ArgumentError, match=told):
            await agent(server).run([picture])
    assert server.requests == []


async def test_a_tools_media_follow_its_result():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=PNG)

    async with Server(answer(False, calls("draw", {})), say(False, "nice")) as server:
        await agent(server, tools=[draw]).run("draw")
    result, told, shown = server.requests[1].body["contents"][-1]["parts"]
    assert result["functionResponse"]["response"] == {"output": "[1 attached, shown below]"}
    assert told == text("Attached by draw:")
    assert shown["inlineData"]["data"] == encoded(PNG)


# --- answers ------------------------------------------------------------------------------------------------


@streamed_and_not
async def test_thinking_and_signatures_go_back_with_the_part_they_came_with(streamed):
    parts = (
        thought("I "),
        thought("think."),
        text("Let"),
        text(" me"),
        text("", thoughtSignature="t1"),
        text("signed", thoughtSignature="t2"),
        thought("more", thoughtSignature="t3"),
        calls("convert", {"amount": 1, "rate": 2}, signature="t4"),
        calls("convert", {"amount": 3, "rate": 4}, call_id="other"),
    )
    async with Server(answer(streamed, *parts), say(streamed, "done"), say(streamed, "more")) as server:
        session = Session()
        asking = agent(server, "gemini-3-test", tools=[convert])
        result, given = await ask(asking, "go", streamed, session=session)
        again = Session.from_export(session.export())
        await ask(asking, "more", streamed, session=again)
    thoughts = parts_of(result, Thinking)
    assert [(part.text, part.signed) for part in thoughts] == [("I think.", False), ("more", True)]
    assert result.messages[1].text == "Let mesigned"
    if streamed:
        assert "".join(one.text for one in given if isinstance(one, ThinkingDelta)) == "I think.more"
        assert "".join(one.text for one in given if isinstance(one, TextDelta)) == "Let mesigneddone"
    for request in server.requests[1:]:
        said = request.body["contents"][1]["parts"]
        assert said[:4] == [
            text("Let me"),
            text("", thoughtSignature="t1"),
            text("signed", thoughtSignature="t2"),
            thought("more", thoughtSignature="t3"),
        ]
        assert [part.get("thoughtSignature") for part in said[4:]] == ["t4", None]


@streamed_and_not
async def test_what_only_gemini_understands_goes_back_as_it_came(streamed):
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "s"}
    outcome = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
    unknown = {"hologram": {"of": "Leia"}}
    async with Server(
        answer(streamed, code, outcome, text("It is 1."), unknown), say(streamed, "yes")
    ) as server:
        session = Session()
        result, _ = await ask(agent(server), "run it", streamed, session=session)
        await ask(agent(server), "sure?", streamed, session=session)
    assert result.output == "It is 1."
    assert [block.raw for block in parts_of(result, ProviderBlock)] == [code, outcome, unknown]
    assert server.requests[1].body["contents"][1]["parts"] == [code, outcome, text("It is 1."), unknown]


@streamed_and_not
async def test_media_that_the_model_made(streamed):
    picture = {"inlineData": {"mimeType": "image/png", "data": encoded(PNG)}, "thoughtSignature": "s"}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": encoded(b"pcm")}}
    draft = {"inlineData": {"mimeType": "image/png", "data": encoded(b"draft")}, "thought": True}
    async with Server(answer(streamed, draft, text("Here:"), picture, sound), say(streamed, "ok")) as server:
        session = Session()
        result, _ = await ask(agent(server), "draw", streamed, session=session)
        await ask(agent(server), "bigger", streamed, session=session)
    assert parts_of(result, Image)[0].data == PNG
    assert parts_of(result, Audio)[0].data == b"pcm"
    assert server.requests[1].body["contents"][1]["parts"] == [draft, text("Here:"), picture, sound]


@streamed_and_not
async def test_media_that_are_no_base64(streamed):
    broken = {"inlineData": {"mimeType": "image/png", "data": "not base64!"}}
    async with Server(answer(streamed, broken)) as server:
        with pytest.raises(InvalidResponseError, match="base64"):
            await ask(agent(server), "draw", streamed)


@streamed_and_not
async def test_sources_of_a_search(streamed):
    said = "Größe: Spain won. Italy lost."
    first = "Spain won."
    begin = said.encode().index(first.encode())
    grounding = {
        "webSearchQueries": ["who won"],
        "groundingChunks": [
            {"web": {"uri": "https://a.example", "title": "A"}},
            {"retrievedContext": {"uri": "gs://b", "title": "B", "text": "…"}},
        ],
        "groundingSupports": [
            {
                "segment": {"startIndex": begin, "endIndex": begin + len(first), "text": first},
                "groundingChunkIndices": [0, 1, 7],
            },
            {
                "segment": {"startIndex": 1, "endIndex": 2, "text": "Italy lost."},
                "groundingChunkIndices": [1],
            },
            {"segment": None, "groundingChunkIndices": None},
        ],
    }
    async with Server(say(streamed, said, groundingMetadata=grounding), say(streamed, "ok")) as server:
        session = Session()
        result, _ = await ask(agent(server), "who?", streamed, session=session)
        await ask(agent(server), "sure?", streamed, session=session)
    cited = parts_of(result, Citation)
    assert [(one.source, one.title, said[one.start : one.end]) for one in cited] == [
        ("https://a.example", "A", first),
        ("gs://b", "B", first),
        ("gs://b", "B", "Italy lost."),
    ]
    assert result.messages[-1].provider == {"gemini_chat": {"groundingMetadata": grounding}}
    assert server.requests[1].body["contents"][1]["parts"] == [text(said)]


async def test_works_that_are_quoted():
    source = {"startIndex": 0, "endIndex": 2, "uri": "https://q.example"}
    async with Server(say(False, "To be", citationMetadata={"citationSources": [source]})) as server:
        result = await agent(server).run("quote")
    (cited,) = parts_of(result, Citation)
    assert (cited.source, cited.start, cited.end) == ("https://q.example", 0, 2)


@streamed_and_not
async def test_usage_and_cost(streamed):
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 20,
        "toolUsePromptTokenCount": 5,
    }
    async with Server(say(streamed, "a", "b", usage=usage)) as server:
        asking = Agent(model(server, price=Price(input=1.0, output=10.0, cached=0.1)))
        result, _ = await ask(asking, "hi", streamed)
    used = result.usage
    assert (used.input_tokens, used.cached_tokens) == (105, 40)
    assert (used.output_tokens, used.reasoning_tokens) == (27, 20)
    assert used.cost == pytest.approx((65 * 1.0 + 40 * 0.1 + 27 * 10) / 1e6)


def test_the_list_price_is_taken():
    assert GeminiChat("gemini-2.5-flash", api_key="k").price is not None
    assert GeminiChat("gemini-unheard-of", api_key="k").price is None


@streamed_and_not
@pytest.mark.parametrize(
    ("finish", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "other"),
        ("UNEXPECTED_TOOL_CALL", "other"),
        ("LANGUAGE", "other"),
        ("OTHER", "other"),
        ("NEVER_HEARD_OF", "other"),
    ],
)
async def test_stop_reasons(streamed, finish, ours):
    async with Server(say(streamed, "so far", finish=finish)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert (result.finish_reason, result.output) == (ours, "so far")


@streamed_and_not
async def test_an_answer_without_content(streamed):
    empty = {"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": USAGE}
    async with Server(stream(event(empty)) if streamed else http(empty)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert (result.output, result.finish_reason) == ("", "content_filter")


@streamed_and_not
async def test_a_prompt_that_was_refused(streamed):
    refused = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "m"}
    async with Server(stream(event(refused)) if streamed else http(refused)) as server:
        with pytest.raises(ContentFilterError, match="PROHIBITED_CONTENT"):
            await ask(agent(server), "hi", streamed)


# --- failures -----------------------------------------------------------------------------------------------


def detail(kind, **fields):
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def quota(period):
    violation = {"quotaMetric": "x", "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"}
    return detail("QuotaFailure", violations=[violation])


ERRORS = [
    (400, "INVALID_ARGUMENT", "bad field", (), InvalidRequestError),
    (
        400,
        "INVALID_ARGUMENT",
        "API key not valid.",
        (detail("ErrorInfo", reason="API_KEY_INVALID"),),
        AuthenticationError,
    ),
    (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        (),
        ContextLengthError,
    ),
    (400, "FAILED_PRECONDITION", "User location is not supported", (), InvalidRequestError),
    (403, "PERMISSION_DENIED", "no", (), AuthenticationError),
    (429, "RESOURCE_EXHAUSTED", "slow down", (quota("Minute"),), RateLimitError),
    (429, "RESOURCE_EXHAUSTED", "enough for today", (quota("Day"),), QuotaExceededError),
    (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", (), QuotaExceededError),
    (500, "INTERNAL", "oops", (), ProviderError),
    (503, "UNAVAILABLE", "The model is overloaded.", (), OverloadedError),
    (504, "DEADLINE_EXCEEDED", "too long", (), ModelTimeoutError),
]


@streamed_and_not
@pytest.mark.parametrize(("code", "status", "message", "details", "kind"), ERRORS)
async def test_errors(streamed, code, status, message, details, kind):
    async with Server(error(code, status, message, *details)) as server:
        with pytest.raises(ModelError) as caught:
            await ask(agent(server), "hi", streamed)
    assert type(caught.value) is kind
    assert caught.value.status == code
    assert message in str(caught.value)


@pytest.mark.parametrize(("code", "status", "message", "details", "kind"), ERRORS)
async def test_errors_in_the_middle_of_a_stream(code, status, message, details, kind):
    told = {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    async with Server(stream(event(body(text("so"), finish=None)), event(told))) as server:
        with pytest.raises(ModelError) as caught:
            await ask(agent(server), "hi", streamed=True)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("delay", "headers", "seconds"),
    [
        ("38s", (), 38),
        ("38.922534355s", (), 38.922534355),
        ("soon", (), None),
        ("38s", ("Retry-After: 3",), 3),
    ],
)
async def test_the_delay_is_in_the_body(delay, headers, seconds):
    details = (quota("Minute"), detail("RetryInfo", retryDelay=delay))
    async with Server(error(429, "RESOURCE_EXHAUSTED", "wait", *details, headers=headers)) as server:
        with pytest.raises(RateLimitError) as caught:
            await agent(server).run("hi")
    assert caught.value.retry_after == (None if seconds is None else pytest.approx(seconds))


@streamed_and_not
@pytest.mark.parametrize(
    "data",
    [
        b'{"error": "words"}',
        b'{"error": {"code": "x", "details": 3}}',
        b'{"error": {"status": 7, "details": [1, {"@type": null, "violations": "PerDay"}]}}',
        b"[]",
        b'[{"error": {"code": 500, "message": "in a list", "status": "INTERNAL"}}]',
        b"",
        b"<html><body>Bad gateway</body></html>",
    ],
)
async def test_errors_of_strange_form(streamed, data):
    async with Server(http(data, 500)) as server:
        with pytest.raises(ProviderError) as caught:
            await ask(agent(server), "hi", streamed)
    assert caught.value.status == 500


@streamed_and_not
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"candidates": []}',
        b'{"candidates": 3}',
        b'{"candidates": [{"content": {"parts": [{"text": 3}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}],"usageMetadata":[]}',
        b"<html>login</html>",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_hostile_answers(streamed, data):
    async with Server(stream(event(data)) if streamed else http(data)) as server:
        with pytest.raises((InvalidResponseError, StreamBrokenError)):
            await ask(agent(server), "hi", streamed)


async def test_a_page_instead_of_a_stream():
    async with Server(http(b"<html>login</html>", kind="text/html")) as server:
        with pytest.raises(InvalidResponseError, match="html"):
            await ask(agent(server), "hi", streamed=True)


async def test_unknown_frames_are_passed_over_and_told_of(caplog):
    caplog.set_level(logging.DEBUG, "gossamer")
    strange = event({"hologram": 1})
    async with Server(stream(strange, *events(text("a")), strange)) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "a"
    assert sum("unknown kind" in record.getMessage() for record in caplog.records) == 2


async def test_a_stream_cut_at_every_byte():
    """Whatever arrived by the cut is told, and nothing but that."""
    said = [text("one"), text(" two"), calls("convert", {"amount": 1, "rate": 2})]
    whole = b"".join(events(*said))
    ends = len(whole) - 4  # the last event's blank line is what completes it
    for cut in range(0, ends, 7):
        async with Server([Close(STREAM_HEAD + chunk(whole[:cut]) + LAST_CHUNK)]) as server:
            with pytest.raises(StreamBrokenError) as caught:
                await ask(agent(server, tools=[convert]), "hi", streamed=True)
        assert "one two".startswith(caught.value.text)


async def test_packets_may_end_anywhere():
    whole = b"".join(events(thought("hm"), text("Größe"), calls("convert", {"amount": 1, "rate": 2})))
    pieces = [STREAM_HEAD, *(chunk(whole[i : i + 1]) for i in range(len(whole))), LAST_CHUNK]
    async with Server(pieces, in_packets(text("2"), text(".0"))) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed=True)
    assert result.output == "2.0"
    assert result.messages[1].text == "Größe"
    assert json.loads(parts_of(result, ToolCall)[0].arguments) == {"amount": 1, "rate": 2}
