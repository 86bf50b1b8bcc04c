"""Tools of an MCP server, called by code that a model writes."""

from __future__ import annotations

from tests.code_sandboxes import InProcess
from tests.integration.mcp.serving import PLAIN, results

from gossamer import Agent, Answer, Session, ToolCall, code_mode
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer


async def test_code_calls_a_server_s_tools_and_waits_for_its_question() -> None:
    code = "print(await add(2, 3), await add(a=1, b=1))\nprint(await greet())"
    model = ScriptedModel([ToolCall.of("run_code", code=code), "done"])
    agent = code_mode(Agent(model, tools=[MCPServer(command=PLAIN)]), InProcess())
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        assert (pending.kind, pending.call.name) == ("question", "greet")
        result = await agent.resume(session, {pending.call_id: Answer("Ada")})
    assert results(result)[0].content == "5 2\nHello Ada"
    assert "async def add(a: int, b: int) -> Any:" in model.requests[0].tools[0].description
