"""OpenAI's Responses on the wire: what is sent, byte for byte where it matters."""

from __future__ import annotations

import base64
from itertools import pairwise

import msgspec
import pytest
from tests.integration.asking import ask, convert, streamed_and_not
from tests.integration.dialects.responses_voice import (
    call,
    message,
    model,
    reasoning,
    reply,
    response,
    streamed_answer,
    whole_items,
)
from tests.integration.server import Server, http

from gossamer import Agent, Message, Session, Text, ToolCall, ToolResult, tool
from gossamer.errors import (
    ArgumentError,
)
from gossamer.events import ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Audio, Citation, File, Image, ProviderBlock, Refusal, Thinking
from gossamer.models import (
    Capabilities,
    ModelRequest,
    ModelSettings,
    OpenAIChat,
    OpenAIResponses,
    openai_responses_request,
)
from gossamer.view import MessageView

ONE_CALL = call("call_a", "convert", '{"amount": 2, "rate": 3}')
CONVERT = {
    "type": "function",
    "name": "convert",
    "description": "Convert an amount of money.",
    "parameters": {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "description": "in the source currency."},
            "rate": {"type": "number", "description": "target units for one source unit."},
        },
        "required": ["amount", "rate"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


def agent(server, *arguments, name="gpt-test", capabilities=Capabilities(thinking=True), **options):
    return Agent(model(server, name, capabilities=capabilities), *arguments, **options)


async def sent_for(*history, prompt="go", **options):
    """The request that a conversation becomes."""
    session = Session()
    for said in history:
        session.add(said)
    async with Server(reply(False)) as server:
        await agent(server, **options).run(prompt, session=session)
    return server.requests[0].body


# --- requests -----------------------------------------------------------------------------------------------


async def test_smallest_request_byte_for_byte():
    async with Server(reply(False)) as server:
        await agent(server, "Be brief.").run("hi")
    request = server.requests[0]
    assert request.target == "/v1/responses"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.raw == (
        b'{"model":"gpt-test","store":false,"include":["reasoning.encrypted_content"],'
        b'"instructions":"Be brief.","input":[{"role":"user","content":"hi"}]}'
    )


@pytest.mark.parametrize(
    ("name", "thinking", "included"),
    [
        ("gpt-5-mini", True, True),
        ("o4-mini", True, True),
        ("gpt-4.1", True, False),
        ("gpt-5-chat-latest", True, False),
        ("my-model", False, False),
    ],
)
async def test_encrypted_reasoning_is_asked_of_models_that_reason(name, thinking, included):
    body = await sent_for(name=name, capabilities=Capabilities(thinking=thinking))
    assert body.get("include") == (["reasoning.encrypted_content"] if included else None)


async def test_instructions_alone_are_what_is_said():
    async with Server(reply(False)) as server:
        await agent(server, "Tell a joke.").run(None)
    body = server.requests[0].body
    assert body["input"] == [{"role": "developer", "content": "Tell a joke."}]
    assert "instructions" not in body


@streamed_and_not
async def test_a_tool_loop_and_its_requests(streamed):
    async with Server(
        reply(streamed, reasoning("I must", "convert"), message("Wait."), ONE_CALL),
        reply(streamed, "6 it is"),
    ) as server:
        result, events = await ask(agent(server, tools=[convert]), "convert", streamed)
    assert result.output == "6 it is"
    first, second = (request.body for request in server.requests)
    assert first["tools"] == [CONVERT]
    said = result.messages[1]
    assert said.parts[0] == Thinking(
        "I must\n\nconvert",
        True,
        {"openai_responses": {"id": "rs_1", "encrypted_content": "gAAAA", "summary": ["I must", "convert"]}},
    )
    assert said.parts[2].provider == {"openai_responses": {"id": "call_a", "item_id": "fc_call_a"}}
    our_id = said.parts[2].id
    assert second["input"] == [
        {"role": "user", "content": "convert"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "encrypted_content": "gAAAA",
            "summary": [
                {"type": "summary_text", "text": "I must"},
                {"type": "summary_text", "text": "convert"},
            ],
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Wait.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_call_a",
            "call_id": our_id,
            "name": "convert",
            "arguments": '{"amount": 2, "rate": 3}',
        },
        {"type": "function_call_output", "call_id": our_id, "output": "6.0"},
    ]
    if streamed:
        assert "".join([e.text for e in events if isinstance(e, ThinkingDelta)]) == "I must\n\nconvert"
        assert [e for e in events if isinstance(e, ToolCallStarted)] == [ToolCallStarted(our_id, "convert")]
        pieces = [e.text for e in events if isinstance(e, ToolArgumentsDelta)]
        assert "".join(pieces) == '{"amount": 2, "rate": 3}'
        assert len(pieces) > 1


async def test_media_parts():
    png, pdf = b"\x89PNG\r\n\x1a\nbytes", b"%PDF-1.7 bytes"
    prompt = [
        Text("Look:"),
        Image(data=png),
        Image(url="https://example.org/cat.jpg"),
        File(data=pdf, name="report.pdf"),
        File(url="https://example.org/paper.pdf"),
        Audio(data=b"ID3bytes"),
    ]
    async with Server(reply(False)) as server:
        await agent(server).run(prompt)
    assert server.requests[0].body["input"][0]["content"] == [
        {"type": "input_text", "text": "Look:"},
        {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{base64.b64encode(png).decode()}",
            "detail": "auto",
        },
        {"type": "input_image", "image_url": "https://example.org/cat.jpg", "detail": "auto"},
        {
            "type": "input_file",
            "filename": "report.pdf",
            "file_data": f"data:application/pdf;base64,{base64.b64encode(pdf).decode()}",
        },
        {"type": "input_file", "file_url": "https://example.org/paper.pdf"},
        {"type": "input_text", "text": "[Audio, audio/mpeg, that this provider cannot show]"},
    ]


@pytest.mark.parametrize("of", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize(
    ("size", "kind", "told"),
    [
        (4, "image/tiff", "image/tiff"),
        (384_000_001, "image/png", "384,000,000"),
    ],
    ids=["type", "size"],
)
async def test_pictures_that_cannot_be_sent_are_refused_before(of, size, kind, told):
    image = Image(data=bytes(size), media_type=kind)
    # OpenAI itself, which is never asked: what is wrong is told before.
    with pytest.raises(ArgumentError, match=told):
        await Agent(of("gpt-test", api_key="k")).run([Text("see"), image])


@pytest.mark.parametrize("of", [OpenAIChat, OpenAIResponses])
async def test_other_servers_are_sent_any_picture(of):
    whole = http({**response(message("ok")), "choices": [{"message": {"content": "ok"}}]})
    async with Server(whole) as server:
        asking = Agent(of("gpt-test", base_url=server.url, api_key="k"))
        await asking.run([Text("see"), Image(data=b"BM", media_type="image/bmp")])
    assert "data:image/bmp;base64,Qk0=" in str(server.requests[0].body)


async def test_a_tools_picture_stands_in_its_result():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=b"\x89PNG\r\n\x1a\n")

    async with Server(reply(False, call("c", "draw", "{}")), reply(False)) as server:
        await agent(server, tools=[draw]).run("draw")
    output = server.requests[1].body["input"][-1]
    assert output["type"] == "function_call_output"
    assert [part["type"] for part in output["output"]] == ["input_image"]


async def test_settings_become_fields():
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.9,
        max_tokens=77,
        stop=["END"],
        seed=7,
        parallel_tool_calls=False,
        thinking="low",
        prompt_cache="12h",
        extra_headers={"X-Team": "blue"},
        extra_body={"reasoning": {"summary": "detailed"}, "service_tier": "flex"},
    )
    async with Server(reply(False)) as server:
        await agent(server, settings=settings).run("hi")
    body = server.requests[0].body
    assert server.requests[0].headers["x-team"] == "blue"
    assert {key: value for key, value in body.items() if key not in {"model", "input", "store"}} == {
        "include": ["reasoning.encrypted_content"],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 77,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "detailed"},
        "prompt_cache_options": {"ttl": "12h"},
        "service_tier": "flex",
    }


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (ModelSettings(prompt_cache="24h"), {"prompt_cache_retention": "24h"}),
        (ModelSettings(prompt_cache="5m"), {}),
        (ModelSettings(thinking="off"), {"reasoning": {"effort": "none"}}),
    ],
)
async def test_words_of_settings(settings, fields):
    body = await sent_for(settings=settings)
    found = {key: body[key] for key in body if key.startswith("prompt_cache") or key == "reasoning"}
    assert found == fields


@pytest.mark.parametrize(
    ("provider", "words", "fields"),
    [
        ("openai", "30m", {"prompt_cache_options": {"ttl": "30m"}}),
        ("openai", "in_memory", {"prompt_cache_retention": "in_memory"}),
        ("openai", "12h", {}),
        ("groq", "24h", {}),
    ],
)
async def test_words_for_caching_in_chat_completions(provider, words, fields):
    async with Server(http({"choices": [{"message": {"content": "ok"}}]})) as server:
        asked = OpenAIChat("gpt-test", base_url=server.url, provider=provider)
        await Agent(asked, settings=ModelSettings(prompt_cache=words)).run("hi")
    body = server.requests[0].body
    assert {key: body[key] for key in body if key.startswith("prompt_cache")} == fields


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("convert", {"type": "function", "name": "convert"}),
    ],
)
async def test_tool_choices(choice, sent):
    body = await sent_for(tools=[convert], settings=ModelSettings(tool_choice=choice))
    assert body["tool_choice"] == sent


async def test_tools_of_the_provider_stand_beside_ours():
    settings = ModelSettings(extra_body={"tools": [{"type": "web_search"}], "include": ["x.results"]})
    body = await sent_for(tools=[convert], settings=settings)
    assert body["tools"] == [CONVERT, {"type": "web_search"}]
    assert body["include"] == ["reasoning.encrypted_content", "x.results"]
    assert (await sent_for(settings=settings))["tools"] == [{"type": "web_search"}]


async def test_tools_that_are_not_strict_say_so():
    @tool(inline=True)
    def look(where: str, deep: bool = False) -> str:
        """Look."""
        return where

    assert (await sent_for(tools=[look]))["tools"][0]["strict"] is False


# --- histories ----------------------------------------------------------------------------------------------


async def test_what_others_said_is_said():
    """Messages of users, systems, and of models that speak another dialect."""
    body = await sent_for(
        Message.user("one", author="Ann B."),
        Message.user(Image(url="https://example.org/a.png"), author="Bo"),
        Message("user", ()),
        Message.assistant(
            Thinking("hm", True, {"anthropic_chat": {"signature": "s"}}),
            Text("Paris", {"anthropic_chat": {"id": "x"}}),
            Citation("https://example.org", "Atlas"),
            ProviderBlock("anthropic_chat", {"type": "web_search_tool_result", "content": []}),
            ToolCall("convert", "{broken", "id-1", {"anthropic_chat": {"id": "toolu_1"}}),
        ),
        Message("tool", (ToolResult("id-1", "convert", "no JSON", "error"),)),
        Message.assistant(""),
        Message.assistant(Refusal("I will not.")),
        Message.system("Now in French."),
    )
    assert body["input"] == [
        {"role": "user", "content": "Ann B.: one"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Bo: "},
                {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
            ],
        },
        {"role": "user", "content": ""},
        {
            "role": "assistant",
            "content": "Paris [source: Atlas, https://example.org] "
            "[web_search_tool_result by another provider, not shown]",
        },
        {"type": "function_call", "call_id": "id-1", "name": "convert", "arguments": "{broken"},
        {"type": "function_call_output", "call_id": "id-1", "output": "no JSON"},
        {"role": "assistant", "content": "I will not."},
        {"role": "system", "content": "Now in French."},
        {"role": "user", "content": "go"},
    ]


@pytest.mark.parametrize("of", [OpenAIChat, OpenAIResponses])
async def test_a_view_that_begins_with_results(of):
    said = [Message("tool", (ToolResult("gone", "convert", "6.0"),)), Message.user("go")]
    async with Server(
        reply(False) if of is OpenAIResponses else http({"choices": [{"message": {"content": "ok"}}]})
    ) as server:
        asked = of("gpt-test", base_url=server.url, api_key="k")
        response = await asked.respond(ModelRequest(MessageView(said, 0, 2)))
    assert response.message.text == "ok"
    body = server.requests[0].body
    assert body.get("input", body.get("messages")) == [
        {"role": "user", "content": "[result of an earlier call of convert]\n6.0"},
        {"role": "user", "content": "go"},
    ]


async def test_reasoning_that_leads_nowhere_is_not_sent():
    own = {"openai_responses": {"id": "rs_9", "encrypted_content": "gAAAA"}}
    body = await sent_for(Message.assistant(Thinking("hm", True, own)), Message.assistant("ok"))
    assert [item.get("type", item.get("content")) for item in body["input"]] == ["ok", "go"]


async def test_open_reasoning_goes_back_as_it_is():
    thought = reasoning(encrypted=None, content=[{"type": "reasoning_text", "text": "Let me see."}])
    session = Session()
    async with Server(reply(True, thought, message("ok")), reply(True)) as server:
        asking = agent(server)
        result, events = await ask(asking, "hi", True, session=session)
        await ask(asking, "again", True, session=session)
    assert result.messages[-1].parts[0].text == "Let me see."
    assert not result.messages[-1].parts[0].signed
    assert "".join([e.text for e in events if isinstance(e, ThinkingDelta)]) == "Let me see."
    assert server.requests[1].body["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me see."}],
    }


@streamed_and_not
async def test_items_that_are_not_known_go_back_whole(streamed):
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}}
    strange = message("found", item="msg_2", phase="final_answer")
    strange["content"].append({"type": "output_hologram", "data": [1, 2]})
    session = Session()
    async with Server(
        http(response(search, strange)) if not streamed else streamed_answer(*whole_items(search, strange)),
        reply(streamed),
    ) as server:
        asking = agent(server)
        result, _ = await ask(asking, "search", streamed, session=session)
        again = Session.from_export(session.export())
        await ask(asking, "more", streamed, session=again)
    assert result.messages[-1].parts == (
        ProviderBlock("openai_responses", search),
        Text("found", {"openai_responses": {"id": "msg_2", "phase": "final_answer"}}),
        ProviderBlock(
            "openai_responses",
            {"type": "output_hologram", "data": [1, 2]},
            {"openai_responses": {"id": "msg_2", "phase": "final_answer"}},
        ),
    )
    block, said = server.requests[1].body["input"][1:3]
    assert block == search
    assert (said["id"], said["phase"]) == ("msg_2", "final_answer")
    assert said["content"][1] == {"type": "output_hologram", "data": [1, 2]}


async def test_what_only_responses_can_say_is_told_elsewhere():
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    note = {
        "type": "url_citation",
        "url": "https://a.org",
        "title": "A",
        "start_index": 0,
        "end_index": 5,
    }
    session = Session()
    async with Server(
        reply(False, search, message("found it", annotations=[note])),
        reply(False),
        http({"choices": [{"message": {"content": "ok"}}]}),
    ) as server:
        result = await agent(server).run("search", session=session)
        await agent(server).run("more", session=session)
        await Agent(OpenAIChat("gpt-test", base_url=server.url)).run("and now", session=session)
    cited = result.messages[-1].parts[2]
    assert cited == Citation("https://a.org", "A", "found", 0, 5, {"openai_responses": note})
    assert server.requests[1].body["input"][2]["content"][0]["annotations"] == [note]
    assert server.requests[2].messages[1]["content"] == (
        " [web_search_call by another provider, not shown]found it [source: A, https://a.org]"
    )


async def test_the_prefix_stays_and_each_message_is_encoded_once(monkeypatch):
    seen = []
    original = openai_responses_request._encode_message

    def count(said, previous):
        seen.append(said)
        return original(said, previous)

    monkeypatch.setattr(openai_responses_request, "_encode_message", count)
    answers = [reply(False, reasoning("hm", item=f"rs_{n}"), message(f"answer {n}")) for n in range(20)]
    session = Session()
    async with Server(*answers) as server:
        asking = agent(server, "Be brief.", tools=[convert])
        for turn in range(20):
            await asking.run(f"question {turn}", session=session)
    assert len(seen) == 39
    prefixes = [raw[: raw.index(b'],"tools"')] for raw in (request.raw for request in server.requests)]
    for earlier, later in pairwise(prefixes):
        assert later.startswith(earlier)


async def test_a_tool_that_there_is_not_goes_back_by_a_name_that_can_be():
    """OpenAI refuses the others, and a model may call a tool by any."""
    made_up = call("c", "functions.convert", "{}")
    async with Server(reply(False, made_up), reply(False)) as server:
        await agent(server, tools=[convert]).run("go")
    assert server.requests[0].body["tools"][0]["name"] == "convert"
    assert server.requests[1].body["input"][1]["name"] == "functions.convert"  # this one is not OpenAI
    request = ModelRequest(MessageView([Message.assistant(ToolCall("functions.convert", id="c"))], 0, 1))
    data = msgspec.json.decode(OpenAIResponses("gpt-test", api_key="k")._body(request, stream=False))
    assert data["input"][0]["name"] == "functions_convert"
