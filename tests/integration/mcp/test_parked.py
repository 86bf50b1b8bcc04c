"""Calls that wait while their runs are paused: whose they are, and when they are given up."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.mcp.serving import PLAIN, calling, http_server, raw, results, until

from gossamer import Agent, Answer, Limits, Session, ToolCall, tool
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


@pytest.fixture
def asks(tmp_path):
    """An agent whose server asks, and what the server wrote down."""
    notes = tmp_path / "notes"
    notes.touch()
    return MCPServer(command=raw("asks", str(notes)), name="asks"), notes


@tool
async def forever() -> str:
    """Take forever."""
    await asyncio.Event().wait()
    return "never"


async def test_a_run_that_is_cancelled_takes_its_parked_calls_with_it(asks):
    server, notes = asks
    agent = Agent(
        ScriptedModel([[ToolCall.of("echo", n=17), ToolCall.of("forever")]]), tools=[server, forever]
    )
    session = Session()
    async with agent:
        run = asyncio.ensure_future(agent.run("x", session=session))
        await until(lambda: "q16 cancel" in notes.read_text())  # those before it wait for a person
        run.cancel()
        await asyncio.wait([run])
        await until(lambda: "cancelled" in notes.read_text())


async def test_a_run_that_is_stopped_takes_its_parked_calls_with_it(asks):
    server, notes = asks
    agent = Agent(
        ScriptedModel([[ToolCall.of("echo", n=1), ToolCall.of("forever")]]), tools=[server, forever]
    )
    async with agent:
        result = await agent.run("x", session=Session(), limits=Limits(max_seconds=1))
        assert result.finish_reason == "limit"
        await until(lambda: "cancelled" in notes.read_text())


@pytest.mark.parametrize("inside", [False, True])
async def test_a_session_that_goes_on_gives_its_parked_calls_up(asks, inside):
    server, notes = asks
    agent = calling(ToolCall.of("echo", n=1), then="never mind", tools=[server])
    outer = agent
    if inside:
        calls = [ToolCall.of("ask_inner", prompt="x"), "never mind"]
        outer = Agent(ScriptedModel(calls), tools=[agent.as_tool("ask_inner", "Asks.")])
    session = Session()
    async with agent:
        assert (await outer.run("x", session=session)).pending
        result = await outer.run("leave it", session=session, pending="deny")
        assert result.output == "never mind"
        await until(lambda: "cancelled" in notes.read_text())


async def test_a_call_whose_session_was_stored_meanwhile_goes_on():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN)])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        stored = session.export()
        del session
        result = await agent.resume(Session.from_export(stored), {pending.call_id: Answer("Ada")})
    assert results(result)[0].content == "Hello Ada"
