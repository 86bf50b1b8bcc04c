"""What a user adds to a request: fields beside ours, tools behind ours, and never the same field twice."""

from __future__ import annotations

import json

import pytest
from tests.integration.asking import convert
from tests.integration.dialects.contract import each_dialect, model_of, simulator
from tests.integration.dialects.test_contract import Quote

from gossamer import Agent, Message
from gossamer.errors import ArgumentError
from gossamer.models import Capabilities, ModelRequest, ModelSettings
from gossamer.models.transport import Transport
from gossamer.schema import output_schema
from gossamer.view import MessageView

pytestmark = pytest.mark.usefixtures("raw")


@pytest.fixture
def raw(monkeypatch):
    """The bytes of every request."""
    bodies = []
    send = Transport.send

    async def remember(self, body, *arguments, **options):
        bodies.append(bytes(body))
        return await send(self, body, *arguments, **options)

    monkeypatch.setattr(Transport, "send", remember)
    return bodies


def decoded(data):
    """The body of a request; a field that stands in it twice is an error."""

    def once(pairs):
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), f"twice in one object: {names}"
        return dict(pairs)

    return json.loads(data, object_pairs_hook=once)


@each_dialect
@pytest.mark.parametrize("with_ours", [True, False], ids=["beside ours", "alone"])
async def test_the_users_own_tools_go_behind_the_agents(dialect, with_ours, raw):
    theirs = {
        "openai_chat": {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}},
        "openai_responses": {"type": "function", "name": "search", "parameters": {"type": "object"}},
        "anthropic_chat": {"name": "search", "input_schema": {"type": "object"}},
        "gemini_chat": {"functionDeclarations": [{"name": "search"}]},
        "ollama_chat": {
            "type": "function",
            "function": {"name": "search", "parameters": {"type": "object"}},
        },
    }[dialect]
    settings = ModelSettings(extra_body={"tools": [theirs]})
    async with simulator() as server:
        agent = Agent(model_of(dialect, server), tools=[convert] if with_ours else [], settings=settings)
        await agent.run("hi")
    tools = decoded(raw[0])["tools"]
    assert tools[-1] == theirs
    assert len(tools) == (2 if with_ours else 1)


@each_dialect
async def test_tools_that_are_no_list(dialect):
    settings = ModelSettings(extra_body={"tools": {"type": "web_search"}})
    async with simulator() as server:
        with pytest.raises(ArgumentError, match="must be a list, not dict"):
            await Agent(model_of(dialect, server), settings=settings).run("hi")


@each_dialect
async def test_an_answer_through_a_tool_can_be_given_where_no_other_may_be_called(dialect, raw):
    reply = {"tool": "final_answer", "arguments": {"amount": 2.0, "currency": "EUR"}}
    async with simulator(reply) as server:
        model = model_of(dialect, server, capabilities=Capabilities(native_schema=False))
        messages = [Message.user("a quote")]
        request = ModelRequest(
            MessageView(messages, 0, 1), output_schema=output_schema(Quote), tool_choice="none"
        )
        response = await model.respond(request)
    assert response.message.text == '{"amount":2.0,"currency":"EUR"}'
    assert "final_answer" in json.dumps(decoded(raw[0])["tools"])
