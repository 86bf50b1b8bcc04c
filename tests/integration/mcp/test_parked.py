"""Calls that wait while their runs are paused: whose they are, and when they are given up."""

from __future__ import annotations

from tests.integration.mcp.serving import http_server

from gossamer import Agent, Answer, Session, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer


async def test_a_model_that_gives_each_conversation_the_same_ids():
    def answer(request):
        if len(request.messages) == 1:
            return ToolCall("greet", "{}", "functions.greet:0")
        return request.messages[-1].parts[0].text

    async with http_server() as http:
        agent = Agent(ScriptedModel(answer), tools=[MCPServer(url=http.url)])
        async with agent:
            one, two = Session(), Session()
            (first,) = (await agent.run("x", session=one)).pending
            (second,) = (await agent.run("x", session=two)).pending
            assert first.call_id != second.call_id
            result = await agent.resume(one, {first.call_id: Answer("Ada")})
            assert result.output == "Hello Ada"
            result = await agent.resume(two, {second.call_id: Answer("Bob")})
            assert result.output == "Hello Bob"
