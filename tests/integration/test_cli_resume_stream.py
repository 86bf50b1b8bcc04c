"""A paused run goes on as a stream, which is what the chat shows after a decision."""

from __future__ import annotations

import pytest

from gossamer import Agent, Approve, ResumeError, Session, ToolCall, tool
from gossamer.events import RunFinished, RunStarted, TextDelta, ToolCallFinished
from gossamer.middleware import Middleware
from gossamer.models import ScriptedModel


@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay.

    Args:
        amount: in cents.
    """
    return f"paid {amount}"


async def paused(**options):
    agent = Agent(ScriptedModel([[ToolCall.of("pay", amount=20)], "It is done."]), tools=[pay], **options)
    session = Session()
    result = await agent.run("pay 20", session=session)
    return agent, session, result.pending[0].call_id


async def test_a_resumed_run_streams_tool_result_and_answer():
    agent, session, call_id = await paused()
    async with agent.resume_stream(session, {call_id: Approve({"amount": 5})}) as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], RunStarted)
    assert [event.result.text for event in events if isinstance(event, ToolCallFinished)] == ["paid 5"]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "It is done."
    assert isinstance(events[-1], RunFinished)
    assert stream.result.output == "It is done."
    assert not session.pending


async def test_a_resumed_stream_runs_inside_the_middleware():
    seen = []

    class Note(Middleware):
        async def run(self, context, next):
            seen.append(context.agent)
            return await next()

    agent, session, call_id = await paused(middleware=[Note()])
    async with agent.resume_stream(session, {call_id: Approve()}) as stream:
        async for _ in stream:
            pass
    assert seen == ["agent", "agent"]


async def test_a_call_that_does_not_wait_is_refused_and_the_session_stays_paused():
    agent, session, _ = await paused()
    stream = agent.resume_stream(session, {"no such call": Approve()})
    with pytest.raises(ResumeError, match="no such call"):
        async for _ in stream:
            pass
    assert [pending.call.name for pending in session.pending] == ["pay"]
