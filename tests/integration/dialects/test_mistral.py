"""Mistral behind its preset: the form of Chat Completions that it takes, where others let more pass."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.integration.asking import TWO, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import DONE, Server, call_entry, completion, frame, stream

from gossamer import Agent, Message, Session, Text, ToolCall, ToolResult, tool
from gossamer.messages import Audio, File, Image, Refusal, Thinking
from gossamer.models import PRESETS, ModelSettings, OpenAIChat

SHORT = re.compile(r"[a-zA-Z0-9]{9}")


def mistral(server, **options):
    preset = PRESETS["mistral"]
    return OpenAIChat(
        "mistral-medium",
        base_url=server.url,
        api_key="secret",
        provider="mistral",
        capabilities=preset.capabilities,
        **preset.options,
        **options,
    )


def pairs_of(request):
    """The ids of calls and of results in a request, in order."""
    calls = [call["id"] for said in request.messages for call in said.get("tool_calls", ())]
    return calls, [said["tool_call_id"] for said in request.messages if said["role"] == "tool"]


async def sent_for(*history, settings=None):
    """The request that a conversation becomes."""
    session = Session()
    for said in history:
        session.add(said)
    async with Server(completion("ok")) as server:
        await Agent(mistral(server), settings=settings).run("go", session=session)
    return server.requests[0]


@streamed_and_not
async def test_call_ids_are_short_and_stay_the_same(streamed):
    session = Session()
    answers = (calling(streamed, *TWO), reply(streamed), calling(streamed, *TWO), reply(streamed))
    async with Server(*answers) as server:
        agent = Agent(mistral(server), tools=[convert])
        for _ in range(2):
            await ask(agent, "hi", streamed, session=session)
    calls, results = pairs_of(server.requests[3])
    assert calls == results
    assert len(set(calls)) == 4
    assert all(SHORT.fullmatch(call) for call in calls)
    assert calls[:2] == pairs_of(server.requests[1])[0]
    assert [said["name"] for said in server.requests[3].messages if said["role"] == "tool"] == ["convert"] * 4
    # The provider's prompt cache goes by the beginning, which does not change.
    said = [request.raw[request.raw.index(b'"messages":[') :] for request in server.requests]
    for earlier, later in pairwise(said):
        assert later.startswith(earlier[: earlier.index(b'],"tools"')])


async def test_ids_of_others_are_mapped_and_two_agents_do_not_mix():
    """One session, Mistral and another: each has its own form of the same calls."""
    session = Session()
    async with Server(calling(False, *TWO), completion("ok"), completion("ok"), completion("ok")) as server:
        await Agent(OpenAIChat("gpt-test", base_url=server.url), tools=[convert]).run("hi", session=session)
        await Agent(mistral(server), tools=[convert]).run("more", session=session)
        await Agent(OpenAIChat("gpt-test", base_url=server.url), tools=[convert]).run("and", session=session)
    before, at_mistral, after = (pairs_of(request) for request in server.requests[1:])
    assert at_mistral[0] == at_mistral[1]
    assert all(SHORT.fullmatch(call) for call in at_mistral[0])
    assert before == after
    assert before[0] == [call.id for call in session.messages[1].tool_calls]


@streamed_and_not
async def test_no_field_that_it_refuses(streamed):
    settings = ModelSettings(seed=7, max_tokens=50, prompt_cache="24h", thinking="high", stop=["END"])
    async with Server(reply(streamed)) as server:
        agent = Agent(mistral(server), settings=settings, tools=[convert])
        await ask(agent, "hi", streamed)
    body = server.requests[0].body
    assert set(body) - {"stream"} == {
        "model",
        "messages",
        "tools",
        "random_seed",
        "max_tokens",
        "reasoning_effort",
        "stop",
    }
    assert body["random_seed"] == 7
    assert "strict" not in body["tools"][0]["function"]


async def test_usage_of_the_last_chunk_is_counted():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    async with Server(stream(frame({"content": "ok"}, finish="stop", usage=usage), DONE)) as server:
        result, _ = await ask(Agent(mistral(server)), "hi", True)
    assert result.usage.total_tokens == 7


async def test_messages_have_no_names_and_no_refusals():
    request = await sent_for(
        Message.user("one", author="Ann"),
        Message.user(Image(url="https://example.org/a.png"), author="Bo"),
        Message.assistant(Thinking("hm"), Refusal("I will not.")),
        Message.assistant(Text("But "), Refusal("no.")),
    )
    assert request.messages == [
        {"role": "user", "content": "Ann: one"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Bo: "},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {"role": "assistant", "content": "I will not."},
        {"role": "assistant", "content": "But no."},
        {"role": "user", "content": "go"},
    ]


async def test_roles_come_in_the_order_that_it_takes():
    call = ToolCall("convert", "{}", "id-1")
    request = await sent_for(
        Message.system("At the beginning."),
        Message.user("one"),
        Message.system("After a question."),
        Message.assistant("two"),
        Message.system("After an answer."),
        Message.assistant(call),
        Message("tool", (ToolResult("id-1", "convert", "6.0"),)),
        Message.user("Stopped; go on."),
    )
    roles = [said["role"] for said in request.messages]
    assert roles == [
        "system",
        "user",
        "system",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "user",
    ]
    assert request.messages[4]["content"] == "After an answer."


async def test_documents_sounds_and_pictures_of_tools():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=b"\x89PNG\r\n\x1a\n")

    async with Server(calling(False, call_entry("abc123XYZ", "draw", "{}")), completion("ok")) as server:
        prompt = [Text("see"), File(data=b"%PDF-1.7"), Audio(data=b"ID3")]
        await Agent(mistral(server), tools=[draw]).run(prompt)
    first, last = server.requests[0].messages, server.requests[1].messages
    assert first[0]["content"][1:] == [
        {"type": "document_url", "document_url": "data:application/pdf;base64,JVBERi0xLjc="},
        {"type": "input_audio", "input_audio": "SUQz"},
    ]
    assert [said["role"] for said in last] == ["user", "assistant", "tool", "assistant", "user"]
    assert last[-1]["content"][1]["type"] == "image_url"


async def test_content_in_parts_is_thinking_and_text():
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "42"},
    ]
    async with Server(completion(content), completion("ok")) as server:
        session = Session()
        agent = Agent(mistral(server))
        result, _ = await ask(agent, "hi", False, session=session)
        await agent.run("again", session=session)
    assert result.messages[-1].parts == (Thinking("hm"), Text("42"))
    assert server.requests[1].messages[1] == {"role": "assistant", "content": "42"}
