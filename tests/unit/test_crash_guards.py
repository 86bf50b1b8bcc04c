"""Crashes, pauses and resumes where guardrails, handoffs and tools that end the run have a say."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gossamer import (
    Agent,
    Approve,
    EndRun,
    GuardrailError,
    Session,
    ToolCall,
    Toolkit,
    handoff,
    tool,
)
from gossamer.guardrails import Guardrail, length
from gossamer.models import ScriptedModel


@tool(inline=True)
def stop() -> str:
    """Stop."""
    raise EndRun({"a": 1})


@tool(needs_approval=True, inline=True)
def pay(n: int) -> str:
    """Pay."""
    return f"paid {n}"


def prefixes(session: Session):
    """The session as it is after a crash behind each of its records."""
    for count in range(1, len(session.journal)):
        crashed = Session()
        for record in session.journal[:count]:
            crashed.record(record)
        if crashed.unfinished is not None:
            yield count, crashed


async def test_a_crash_behind_the_end_that_a_tool_made_does_not_ask_again():
    whole = Session()
    agent = Agent(ScriptedModel([ToolCall.of("stop")]), tools=[stop])
    assert (await agent.run("x", session=whole)).output == {"a": 1}
    count, crashed = list(prefixes(whole))[-1]
    assert count == len(whole.journal) - 1
    result = await Agent(ScriptedModel([]), tools=[stop]).resume(Session.from_export(crashed.export()))
    assert (result.output, result.finish_reason) == ({"a": 1}, "ended_by_tool")
    assert result.usage.model_calls == 1


async def test_the_end_that_a_tool_made_is_checked_after_a_crash_too():
    whole = Session()
    await Agent(ScriptedModel([ToolCall.of("stop")]), tools=[stop]).run("x", session=whole)
    *_, (_, crashed) = prefixes(whole)

    def check(context, text):
        if '"a"' in text:
            raise GuardrailError("an a")

    guarded = Agent(ScriptedModel([]), tools=[stop], guardrails=[Guardrail("g", check, "output")])
    with pytest.raises(GuardrailError, match="output: an a"):
        await guarded.resume(crashed)
    shown = [getattr(part, "text", "") for message in crashed.messages for part in message.parts]
    assert '{"a":1}' not in shown


async def test_an_end_that_is_stopped_is_not_in_the_view():
    def check(context, text):
        if "secret" in text:
            raise GuardrailError("a secret")

    @tool(inline=True)
    def tell() -> str:
        """Tell."""
        raise EndRun("secret")

    @tool(inline=True)
    def step() -> str:
        """Do a step."""
        return "done"

    model = ScriptedModel([[ToolCall.of("step"), ToolCall.of("tell")], "after"])
    agent = Agent(model, tools=[tell, step], guardrails=[Guardrail("g", check, "output")])
    session = Session()
    with pytest.raises(GuardrailError):
        await agent.run("x", session=session)
    parts = session.messages[-1].parts
    assert [(part.name, part.outcome) for part in parts] == [("step", "ok"), ("tell", "error")]
    assert "secret" not in parts[1].text.replace("a secret", "")
    again = Session.from_export(session.export())
    assert (await agent.run("y", session=again)).output == "after"


async def test_what_is_approved_is_what_runs():
    answers = iter(["100", "200"])

    def check(context, text):
        return f'{{"n":{next(answers)}}}'

    agent = Agent(
        ScriptedModel([ToolCall.of("pay", n=1), "done"]),
        tools=[pay],
        guardrails=[Guardrail("g", check, "call")],
    )
    session = Session()
    paused = await agent.run("x", session=session)
    assert paused.pending[0].call.arguments == '{"n":100}'
    again = Session.from_export(session.export())
    await agent.resume(again, {again.pending[0].call_id: Approve()})
    assert again.messages[2].parts[0].text == "paid 100"


async def test_a_prompt_is_replaced_once():
    exclaiming = Guardrail("g", lambda context, text: text + "!")
    agent = Agent(ScriptedModel([ToolCall.of("pay", n=1), "done"]), tools=[pay], guardrails=[exclaiming])
    session = Session()
    paused = await agent.run("hi", session=session)
    await agent.resume(session, {paused.pending[0].call_id: Approve()})
    assert session.messages[0].text == "hi!"


async def test_what_the_loop_asks_to_be_mended_is_not_the_users():
    model = ScriptedModel(["no number", ToolCall.of("pay", n=1), '{"result": 1}'])
    agent = Agent(
        model, tools=[pay], guardrails=[length(5), Guardrail("beside", length(5).check, beside=True)]
    )
    session = Session()
    paused = await agent.run("hi", session=session, output=int)
    result = await agent.resume(session, {paused.pending[0].call_id: Approve()}, output=int)
    assert result.output == 1


async def test_the_tools_of_a_run_are_those_of_the_agent_that_is_asked_alone():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "seen"

    billing = Agent(ScriptedModel(["a", "b"]), name="billing", tools=[look])
    way = handoff(billing, "b")
    triage = Agent(ScriptedModel([ToolCall.of("hand_over_to_billing")]), name="triage")
    session = Session()
    for prompt in ("x", "y"):
        await triage.run(prompt, session=session, tools=[way])
    assert [[schema.name for schema in request.tools] for request in billing.model.requests] == [["look"]] * 2


async def test_a_handoff_that_failed_is_nothing_to_a_later_run():
    def broken(context, text):
        raise GuardrailError("never")

    billing = Agent(ScriptedModel(["never"]), name="billing", guardrails=[Guardrail("g", broken)])
    triage = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_billing"), "mine"]),
        name="triage",
        tools=[handoff(billing, "b")],
    )
    whole = Session()
    with pytest.raises(GuardrailError):
        await triage.run("x", session=whole)
    whole.hand_over(None)
    started = whole.journal[0]
    whole.record(started.__class__(run="later", agent="triage"))
    result = await triage.resume(whole)
    assert result.agent == "triage"
    assert result.output == "mine"


async def test_what_two_agents_of_a_run_share_stays_open_over_a_handoff_and_is_closed_with_the_run():
    log = []

    @contextlib.asynccontextmanager
    async def opened():
        log.append("open")
        yield []
        await asyncio.sleep(0)
        log.append("closed")

    shared, own = Toolkit("s", open=opened, scope="run"), Toolkit("o", open=opened, scope="run")
    billing = Agent(ScriptedModel(["done"]), name="billing", tools=[shared])
    model = ScriptedModel([ToolCall.of("hand_over_to_billing")])
    triage = Agent(model, name="triage", tools=[shared, own, handoff(billing, "b")])
    assert (await triage.run("x")).output == "done"
    assert log == ["open", "open", "closed", "closed"]


async def test_a_call_that_needs_no_approval_any_more_runs_as_it_was_checked():
    checking = Guardrail("g", lambda context, text: '{"n":7}', "call")
    agent = Agent(ScriptedModel([ToolCall.of("pay", n=1), "done"]), tools=[pay], guardrails=[checking])
    session = Session()
    await agent.run("x", session=session)
    free = agent.replace(tools=[pay.replace(needs_approval=False)])
    assert (await free.resume(session)).output == "done"
    assert session.messages[2].parts[0].text == "paid 7"
