"""Runs inside calls, in a session that is kept in a store: what they used counts after a pause as it does in memory."""

import pytest

from gossamer import Agent, Approve, Session, ToolCall, tool
from gossamer.models import ScriptedModel
from gossamer.stores import SQLiteStore


@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def desk() -> Agent:
    """An agent that asks two others at once, one of whom has to wait."""
    writer = Agent(ScriptedModel(["Written."]), name="writer")
    payer = Agent(ScriptedModel([ToolCall.of("pay", amount=5), "Paid."]), name="payer", tools=[pay])
    both = [ToolCall.of("ask_writer", prompt="write"), ToolCall.of("ask_payer", prompt="pay")]
    return Agent(
        ScriptedModel([both, "Settled."]),
        tools=[writer.as_tool("ask_writer", "Writes."), payer.as_tool("ask_payer", "Pays.")],
    )


@pytest.mark.parametrize("anew", [False, True])
async def test_what_runs_inside_calls_used_counts_after_a_pause(anew: bool) -> None:
    async with SQLiteStore(":memory:") as store:
        for session in (Session(), Session("s", store=store)):
            agent = desk()
            result = await agent.run("settle", session=session)
            paused = session.usage
            again = Session("s", store=store) if anew and session.store is not None else session
            await again.load()
            assert again.usage == paused
            done = await agent.resume(again, {result.pending[0].call_id: Approve()})
            assert (paused.model_calls, paused.tool_calls) == (3, 2)
            assert (done.usage.model_calls, done.usage.tool_calls) == (5, 3)
            assert again.usage == done.usage
