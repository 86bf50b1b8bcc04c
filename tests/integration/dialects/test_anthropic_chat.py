"""Anthropic's Messages: what is asked, byte for byte: the whole request, settings, schemas, cache marks."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Annotated

import msgspec
import pytest
from tests.integration.asking import ask, convert, streamed_and_not
from tests.integration.dialects.anthropic_voice import (
    agent,
    answer,
    asked,
    assistant,
    calls,
    say,
    text,
    thinking,
    user,
    words,
)
from tests.integration.server import Server

from gossamer import Agent, Limits, Message, Session, ToolCall, tool
from gossamer.errors import AuthenticationError
from gossamer.models import AnthropicChat, Capabilities, ModelSettings, anthropic_request

CONVERT_SCHEMA = {
    "name": "convert",
    "description": "Convert an amount of money.",
    "input_schema": {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "description": "in the source currency."},
            "rate": {"type": "number", "description": "target units for one source unit."},
        },
        "required": ["amount", "rate"],
        "additionalProperties": False,
    },
}


COUNT = Annotated[int, msgspec.Meta(ge=1, le=9, description="how many")]


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


# --- the whole request --------------------------------------------------------------------------------------


async def test_smallest_request_byte_for_byte():
    async with Server(say(False, "hello")) as server:
        assert (await agent(server).run("hi")).output == "hello"
    request = server.requests[0]
    assert request.raw == (
        b'{"model":"claude-test","max_tokens":16000,'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}'
    )
    assert request.target == "/v1/messages"
    assert request.headers["x-api-key"] == "secret"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers


async def test_smallest_streamed_request_byte_for_byte():
    async with Server(say(True, "hel", "lo")) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.output == "hello"
    assert server.requests[0].raw == (
        b'{"model":"claude-test","max_tokens":16000,"stream":true,'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}'
    )


@streamed_and_not
async def test_a_tool_loop_and_its_requests(streamed):
    first = answer(
        streamed,
        thinking("Let me ", "see."),
        text("I will convert."),
        calls("toolu_1", "convert", '{"amount": 20, "rate": 1.1}'),
        stop="tool_use",
    )
    async with Server(first, say(streamed, "22 it is")) as server:
        result, _ = await ask(
            agent(server, instructions="Be brief.", tools=[convert]), "20 at 1.1?", streamed
        )
    assert result.output == "22 it is"
    one, two = (request.body for request in server.requests)
    assert one["system"] == "Be brief."
    assert one["tools"] == [CONVERT_SCHEMA]
    assert "tool_choice" not in one
    assert one["messages"] == [user(words("20 at 1.1?"))]
    # What the model said goes back as it came, the provider's own id with it.
    assert two["messages"] == [
        user(words("20 at 1.1?")),
        assistant(
            {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
            words("I will convert."),
            {"type": "tool_use", "id": "toolu_1", "name": "convert", "input": {"amount": 20, "rate": 1.1}},
        ),
        user({"type": "tool_result", "tool_use_id": "toolu_1", "content": "22.0"}),
    ]
    call = next(part for message in result.messages for part in message.parts if isinstance(part, ToolCall))
    assert call.id != "toolu_1"
    assert call.provider == {"anthropic_chat": {"id": "toolu_1"}}


@pytest.mark.parametrize("base", ["http://127.0.0.1:{}", "http://127.0.0.1:{}/", "http://127.0.0.1:{}/v1"])
async def test_the_base_url_with_and_without_its_version(base):
    async with Server(say(False, "ok")) as server:
        await Agent(AnthropicChat("c", base_url=base.format(server.port))).run("hi")
    assert server.requests[0].target == "/v1/messages"
    assert "x-api-key" not in server.requests[0].headers


async def test_key_and_url_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    with pytest.raises(AuthenticationError, match="ANTHROPIC_API_KEY"):
        AnthropicChat("claude-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from the environment")
    monkeypatch.setenv("OPENAI_API_KEY", "another's")
    async with Server(say(False, "ok")) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        await Agent("anthropic:claude-env").run("hi")
    assert server.requests[0].headers["x-api-key"] == "from the environment"


# --- settings -----------------------------------------------------------------------------------------------


async def test_every_setting():
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.8,
        max_tokens=100,
        stop=["END"],
        seed=7,
        parallel_tool_calls=False,
        timeout=9,
        extra_headers={"anthropic-beta": "some-beta"},
    )
    async with Server(say(False, "ok")) as server:
        await agent(server, tools=[convert], settings=settings).run("hi")
    request = server.requests[0]
    assert request.headers["anthropic-beta"] == "some-beta"
    body = request.body
    assert {name: body[name] for name in body.keys() - {"messages", "tools"}} == {
        "model": "claude-test",
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.8,
        "stop_sequences": ["END"],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    }


@pytest.mark.parametrize(
    ("thought", "longest", "fields"),
    [
        ("high", None, {"thinking": {"type": "adaptive", "display": "summarized"}, "max_tokens": 16000}),
        ("adaptive", 50, {"thinking": {"type": "adaptive", "display": "summarized"}, "max_tokens": 50}),
        ("off", None, {"thinking": {"type": "disabled"}, "max_tokens": 16000}),
        ("between_tools", None, {"thinking": {"type": "between_tools"}, "max_tokens": 16000}),
        ("4000", None, {"thinking": {"type": "enabled", "budget_tokens": 4000}, "max_tokens": 20000}),
        ("4000", 3000, {"thinking": {"type": "enabled", "budget_tokens": 2999}, "max_tokens": 3000}),
        ("4000", 1024, {"max_tokens": 1024}),
        (None, None, {"max_tokens": 16000}),
    ],
)
async def test_thinking(thought, longest, fields):
    settings = ModelSettings(thinking=thought, max_tokens=longest, temperature=0.5, top_p=0.5)
    body = await asked(Message.user("hi"), settings=settings)
    thinks = "thinking" in fields and thought != "off"
    assert body.get("thinking") == fields.get("thinking")
    assert body["max_tokens"] == fields["max_tokens"]
    assert body.get("output_config") == ({"effort": "high"} if thought == "high" else None)
    # A model that thinks takes neither.
    assert ("temperature" in body, "top_p" in body) == ((False, False) if thinks else (True, True))


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("convert", {"type": "tool", "name": "convert"}),
    ],
)
async def test_tool_choice(choice, field):
    async with Server(say(False, "ok")) as server:
        settings = ModelSettings(tool_choice=choice)
        await agent(server, tools=[convert], settings=settings).run("hi")
    assert server.requests[0].body["tool_choice"] == field


async def test_extra_fields_are_laid_over_and_take_nothing_away():
    search = {"type": "web_search_20250305", "name": "web_search"}
    extra = {"tools": [search], "output_config": {"task_budget": 1}, "metadata": {"user_id": "u"}}
    async with Server(say(False, "ok")) as server:
        settings = ModelSettings(thinking="low", extra_body=extra)
        await agent(server, tools=[convert], settings=settings).run("hi")
        await agent(server, settings=ModelSettings(extra_body={"tools": [search]})).run("hi")
    body = server.requests[0].body
    assert body["tools"] == [CONVERT_SCHEMA, search]
    assert body["output_config"] == {"effort": "low", "task_budget": 1}
    assert body["metadata"] == {"user_id": "u"}
    assert server.requests[1].body["tools"] == [search]


async def test_a_limit_on_tokens_caps_the_answer():
    async with Server(say(False, "ok")) as server:
        await agent(server, limits=Limits(max_tokens=500), settings=ModelSettings(thinking="2000")).run("hi")
    body = server.requests[0].body
    assert body["max_tokens"] < 500
    assert "thinking" not in body


# --- structured output --------------------------------------------------------------------------------------


@streamed_and_not
async def test_structured_output_by_schema(streamed):
    async with Server(say(streamed, '{"amount": 1.5,', ' "currency": "EUR"}')) as server:
        result, _ = await ask(
            agent(server, output=Quote, settings=ModelSettings(thinking="low")), "a quote", streamed
        )
    assert result.output == Quote(1.5, "EUR")
    config = server.requests[0].body["output_config"]
    assert config["effort"] == "low"
    assert config["format"]["type"] == "json_schema"
    assert config["format"]["schema"]["required"] == ["amount", "currency"]
    assert "tools" not in server.requests[0].body


@streamed_and_not
async def test_structured_output_by_tool(streamed):
    said = answer(streamed, calls("t", "final_answer", '{"amount": 2, "currency": "USD"}'), stop="tool_use")
    async with Server(said) as server:
        result, events = await ask(
            agent(server, output=Quote, capabilities=Capabilities(native_schema=False)), "a quote", streamed
        )
    assert result.output == Quote(2, "USD")
    assert result.finish_reason == "stop"
    body = server.requests[0].body
    assert body["tool_choice"] == {"type": "any"}
    assert [given["name"] for given in body["tools"]] == ["final_answer"]
    if streamed:
        assert "ToolCallStarted" not in {type(event).__name__ for event in events}


async def test_tools_and_the_tool_of_the_answer_are_encoded_once(monkeypatch):
    seen = []
    original = anthropic_request._tool_object
    monkeypatch.setattr(
        anthropic_request, "_tool_object", lambda tool: seen.append(tool.name) or original(tool)
    )

    @tool(inline=True)
    def fresh(number: int) -> int:
        """A tool that no other test has."""
        return number

    said = answer(False, calls("t", "final_answer", '{"amount": 2, "currency": "USD"}'), stop="tool_use")
    async with Server(said) as server:
        for _ in range(3):
            asking = agent(
                server, output=Quote, tools=[fresh], capabilities=Capabilities(native_schema=False)
            )
            await asking.run("a quote")
    assert seen == ["fresh", "final_answer"]


async def test_rules_that_the_api_does_not_enforce_are_told():
    order = msgspec.defstruct("Order", [("count", COUNT), ("note", str | None, None)])
    async with Server(say(False, '{"count": 3}')) as server:
        assert (await agent(server, output=order).run("go")).output.count == 3
    schema = server.requests[0].body["output_config"]["format"]["schema"]
    count = schema["properties"]["count"]
    assert count["type"] == "integer"
    assert "minimum" not in count
    assert count["description"] == "how many\n{minimum: 1, maximum: 9}"
    assert "default" not in schema["properties"]["note"]


class Tree(msgspec.Struct):
    """A tree."""

    name: str
    children: list[Tree] = []


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [
        (dict[str, int], {"result": {"a": 1}}, {"a": 1}),
        (Tree, {"name": "root", "children": [{"name": "leaf"}]}, Tree("root", [Tree("leaf")])),
    ],
    ids=["free keys", "part of itself"],
)
async def test_what_a_schema_here_cannot_say_is_answered_through_a_tool(kind, said, value):
    async with Server(answer(False, calls("t", "final_answer", json.dumps(said)), stop="tool_use")) as server:
        assert (await agent(server, output=kind).run("go")).output == value
    body = server.requests[0].body
    assert "output_config" not in body
    assert [given["name"] for given in body["tools"]] == ["final_answer"]


# --- the cache ----------------------------------------------------------------------------------------------


def marks_in(value):
    """How often something is marked for the cache."""
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(marks_in(item) for item in value.values())
    return sum(marks_in(item) for item in value) if isinstance(value, list) else 0


@pytest.mark.parametrize("instructions", ["Be brief.", ""])
async def test_cache_marks(instructions):
    async with Server(say(False, "ok")) as server:
        settings = ModelSettings(prompt_cache="1h")
        await agent(server, instructions=instructions, tools=[convert], settings=settings).run("hi")
    body = server.requests[0].body
    mark = {"type": "ephemeral", "ttl": "1h"}
    assert body["cache_control"] == mark
    if instructions:
        assert body["system"] == [{"type": "text", "text": instructions, "cache_control": mark}]
    else:
        assert body["tools"][-1]["cache_control"] == mark
    assert marks_in(body) == 2


@pytest.mark.parametrize("keep", [None, "5m"])
async def test_the_beginning_of_a_request_stays_byte_for_byte(keep):
    loop = answer(False, thinking("Hm."), calls("t1", "convert", '{"amount": 1, "rate": 2}'), stop="tool_use")
    async with Server(loop, say(False, "two"), loop, say(False, "three"), say(False, "done")) as server:
        asking = agent(
            server, instructions="Be brief.", tools=[convert], settings=ModelSettings(prompt_cache=keep)
        )
        session = Session()
        for question in ("a", "b", "c"):
            await asking.run(question, session=session)
    mark = b',"cache_control":{"type":"ephemeral","ttl":"5m"}'
    requests = [request.raw.replace(mark, b"") for request in server.requests]
    assert len(requests) == 5
    for earlier, later in pairwise(requests):
        # All but what ends the last message, the list and the request.
        assert later.startswith(earlier.removesuffix(b"]}]}"))
        assert len(later) > len(earlier)


async def test_each_message_is_encoded_once(monkeypatch):
    seen = []
    original = anthropic_request._encode_message

    def count(view, message, previous):
        seen.append(message)
        return original(view, message, previous)

    monkeypatch.setattr(anthropic_request, "_encode_message", count)
    session = Session(window=20)
    async with Server(say(False, "ok")) as server:
        asking = agent(server)
        for turn in range(50):
            await asking.run(f"question {turn}", session=session)
    assert len(seen) == 99
    assert len({id(message) for message in seen}) == 99
    assert all(request.messages[0]["role"] == "user" for request in server.requests)
