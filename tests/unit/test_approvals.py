"""Approval policies: decisions that hold for the session, that come too late, and agents that changed meanwhile."""

from __future__ import annotations

import time

import msgspec
import pytest

from gossamer import (
    Agent,
    Answer,
    Approve,
    ArgumentError,
    Deny,
    ResumeError,
    RunPausedError,
    Session,
    ToolCall,
    ToolError,
    Toolkit,
    tool,
)
from gossamer.models import ScriptedModel
from gossamer.records import ApprovalAskedRecord


@tool(needs_approval=True, inline=True)
def pay(amount: int, to: str = "ada") -> str:
    """Pay."""
    return f"paid {amount} to {to}"


@tool(needs_approval=True, inline=True)
def delete(name: str) -> str:
    """Delete."""
    return f"deleted {name}"


def scripted(*replies) -> ScriptedModel:
    return ScriptedModel([reply for one in replies for reply in (one, "done")])


def results(session: Session) -> list[str]:
    return [part.text for message in session.messages if message.role == "tool" for part in message.parts]


async def decide(agent: Agent, session: Session, *decisions):
    ids = [pending.call_id for pending in session.pending]
    return await agent.resume(session, dict(zip(ids, decisions, strict=True)))


# --- remembered ---------------------------------------------------------------------------------------------------


async def test_an_approval_of_a_tool_holds_for_the_session():
    agent = Agent(scripted(ToolCall.of("pay", amount=1), ToolCall.of("pay", amount=2)), tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve(remember="tool"))
    result = await agent.run("y", session=session)
    assert result.output == "done"
    assert results(session) == ["paid 1 to ada", "paid 2 to ada"]


async def test_it_holds_in_another_process_and_in_a_branch_and_not_in_another_session():
    calls = [ToolCall.of("pay", amount=number) for number in range(4)]
    model = ScriptedModel([calls[0], "done", calls[1], "done", calls[2], "done", calls[3]])
    agent = Agent(model, tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve(remember="tool"))
    again = Session.from_export(session.export())
    assert (await agent.run("y", session=again)).output == "done"
    assert (await agent.run("y", session=session.branch())).output == "done"
    assert (await agent.run("y", session=Session())).pending


async def test_an_approval_of_arguments_holds_for_the_same_ones_in_any_order():
    model = ScriptedModel(
        [
            ToolCall.of("pay", amount=1, to="eve"),
            "done",
            ToolCall("pay", '{ "to":"eve", "amount": 1 }', "other"),
            "done",
            ToolCall.of("pay", amount=2, to="eve"),
        ]
    )
    agent = Agent(model, tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve(remember="arguments"))
    assert (await agent.run("y", session=session)).output == "done"
    assert (await agent.run("z", session=session)).pending[0].call.arguments == '{"amount":2,"to":"eve"}'


async def test_edited_arguments_are_those_that_are_remembered():
    model = scripted(ToolCall.of("pay", amount=9), ToolCall.of("pay", amount=3), ToolCall.of("pay", amount=9))
    agent = Agent(model, tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve({"amount": 3}, remember="arguments"))
    assert (await agent.run("y", session=session)).output == "done"
    assert (await agent.run("z", session=session)).pending
    assert results(session) == ["paid 3 to ada", "paid 3 to ada"]


async def test_a_denial_may_be_remembered_too():
    agent = Agent(scripted(ToolCall.of("pay", amount=1), ToolCall.of("pay", amount=2)), tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Deny("Never.", remember="tool"))
    await agent.run("y", session=session)
    assert results(session) == ["A person denied this call. Never."] * 2


async def test_what_was_remembered_can_be_forgotten():
    agent = Agent(scripted(ToolCall.of("pay", amount=1), ToolCall.of("pay", amount=2)), tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve(remember="tool"))
    assert session.remembered
    session.forget_approvals()
    assert not session.remembered
    assert (await agent.run("y", session=session)).pending
    assert not Session.from_export(session.export()).remembered


async def test_it_holds_for_one_agents_tool_alone():
    session = Session()
    one = Agent(scripted(ToolCall.of("pay", amount=1)), tools=[pay], name="one")
    other = Agent(
        ScriptedModel([[ToolCall.of("pay", amount=1), ToolCall.of("delete", name="a")]]), tools=[pay, delete]
    )
    await one.run("x", session=session)
    await decide(one, session, Approve(remember="tool"))
    assert len((await other.run("x", session=session)).pending) == 2


async def test_it_holds_for_an_inner_agent_at_its_next_delegation():
    inner = Agent(
        scripted(ToolCall.of("pay", amount=1), ToolCall.of("pay", amount=2)), tools=[pay], name="inner"
    )
    asking = scripted(ToolCall.of("ask", prompt="1"), ToolCall.of("ask", prompt="2"))
    agent = Agent(asking, tools=[inner.as_tool("ask", "Asks.")])
    session = Session()
    result = await agent.run("x", session=session)
    assert [(pending.call.name, pending.agent) for pending in result.pending] == [("pay", "inner")]
    assert (await decide(agent, session, Approve(remember="tool"))).output == "done"
    assert (await agent.run("y", session=session)).output == "done"


async def test_several_wait_at_once_and_each_is_decided_in_its_own_way():
    calls = [ToolCall.of("pay", amount=number) for number in range(3)]
    agent = Agent(ScriptedModel([[*calls, ToolCall.of("delete", name="a")], "done"]), tools=[pay, delete])
    session = Session()
    await agent.run("x", session=session)
    result = await decide(agent, session, Approve(), Approve({"amount": 7}), Deny("No."), Approve())
    assert result.output == "done"
    assert results(session) == [
        "paid 0 to ada",
        "paid 7 to ada",
        "A person denied this call. No.",
        "deleted a",
    ]


# --- too late -----------------------------------------------------------------------------------------------------


def hurried(seconds: float):
    return pay.replace(decide_within=seconds)


async def test_a_call_that_waits_tells_until_when():
    agent = Agent(ScriptedModel([ToolCall.of("pay", amount=1)]), tools=[hurried(60)])
    before = time.time()
    pending = (await agent.run("x")).pending[0]
    assert before + 60 <= pending.expires <= time.time() + 60
    assert not pending.expired


def late(session: Session) -> Session:
    """The session as it is when the time to decide is over."""
    data = msgspec.json.decode(session.export())
    for record in data["journal"]:
        if record["type"] == "approval_asked":
            record["pending"]["expires"] = time.time() - 1
    return Session.from_export(msgspec.json.encode(data))


async def test_nobody_decides_in_time_and_the_model_is_told():
    agent = Agent(ScriptedModel([ToolCall.of("pay", amount=1), "done", "later"]), tools=[hurried(60)])
    session = Session()
    await agent.run("x", session=session)
    over = late(session)
    with pytest.raises(ResumeError, match="too late to decide"):
        await decide(agent, over, Approve())
    assert (await agent.resume(over)).output == "done"
    assert results(over) == ["A person denied this call. Nobody decided in time."]
    again = late(session)
    assert (await agent.run("y", session=again)).output == "later"
    assert results(again) == ["Not approved: nobody decided in time."]


async def test_the_time_is_not_begun_anew_by_a_resume():
    calls = [ToolCall.of("pay", amount=1), ToolCall.of("delete", name="a")]
    agent = Agent(ScriptedModel([calls]), tools=[hurried(60), delete])
    session = Session()
    first = (await agent.run("x", session=session)).pending[0]
    second = (await agent.resume(session, {session.pending[1].call_id: Approve()})).pending[0]
    assert second == first
    asked = [record for record in session.journal if isinstance(record, ApprovalAskedRecord)]
    assert len(asked) == 2


async def test_one_that_is_too_late_does_not_hold_up_the_others():
    @tool(run_by="person")
    def ask(question: str) -> str:
        """Ask a person."""

    calls = [ToolCall.of("pay", amount=1), ToolCall.of("ask", question="why?")]
    agent = Agent(ScriptedModel([calls, "done"]), tools=[hurried(60), ask])
    session = Session()
    await agent.run("x", session=session)
    over = late(session)
    ids = {pending.call.name: pending.call_id for pending in over.pending}
    data = msgspec.json.decode(over.export())
    data["journal"][-1]["pending"].pop("expires")  # the question has all the time it needs
    over = Session.from_export(msgspec.json.encode(data))
    with pytest.raises(RunPausedError):
        await agent.run("y", session=over)
    assert (await agent.resume(over, {ids["ask"]: Answer("because")})).output == "done"
    assert results(over) == ["A person denied this call. Nobody decided in time.", "because"]


@pytest.mark.parametrize("seconds", [0, -1])
def test_the_time_to_decide_is_above_0(seconds):
    with pytest.raises(ArgumentError, match="decide_within"):
        hurried(seconds)


# --- decisions that do not fit ------------------------------------------------------------------------------------


async def paused(*tools) -> tuple[Agent, Session]:
    agent = Agent(ScriptedModel([ToolCall.of("pay", amount=1), "done"]), tools=list(tools) or [pay])
    session = Session()
    await agent.run("x", session=session)
    return agent, session


async def test_resuming_twice():
    agent, session = await paused()
    decisions = {session.pending[0].call_id: Approve()}
    await agent.resume(session, decisions)
    with pytest.raises(ResumeError, match="resumed already"):
        await agent.resume(session, decisions)
    assert results(session) == ["paid 1 to ada"]


async def test_resuming_what_nobody_asked():
    agent, session = await paused()
    with pytest.raises(ResumeError, match="'other' does not wait"):
        await agent.resume(session, {"other": Approve()})
    with pytest.raises(ResumeError, match="remember must be"):
        await decide(agent, session, Approve(remember="forever"))
    assert len(session.pending) == 1


async def test_only_approvals_are_remembered():
    @tool(run_by="person")
    def ask(question: str) -> str:
        """Ask a person."""

    agent = Agent(ScriptedModel([ToolCall.of("ask", question="why?")]), tools=[ask])
    session = Session()
    await agent.run("x", session=session)
    with pytest.raises(ResumeError, match="only approvals are remembered"):
        await decide(agent, session, Deny(remember="tool"))


async def test_an_agent_that_changed_meanwhile():
    agent, session = await paused()
    with pytest.raises(ResumeError, match="no tool of agent"):
        await agent.replace(tools=[delete]).resume(session, {session.pending[0].call_id: Approve()})
    with pytest.raises(ResumeError, match="not of 'other'"):
        await agent.replace(name="other").resume(session)
    free = agent.replace(tools=[pay.replace(needs_approval=False)])
    assert (await free.resume(session)).output == "done"  # what needs no approval any more runs
    assert results(session) == ["paid 1 to ada"]


async def test_a_tool_that_needs_approval_only_now_is_asked_about():
    agent = Agent(ScriptedModel([[ToolCall.of("pay", amount=1), ToolCall.of("delete", name="a")]]))
    session = Session()
    await agent.run("x", session=session, tools=[Toolkit("t", [pay])])
    result = await agent.resume(session, {}, tools=[pay, delete])
    assert [pending.call.name for pending in result.pending] == ["pay"]


async def test_edited_arguments_that_do_not_fit_leave_the_call_waiting():
    agent, session = await paused()
    with pytest.raises(ResumeError, match="arguments given for 'pay' do not fit: Expected `int`"):
        await decide(agent, session, Approve({"amount": "much"}))
    assert len(session.pending) == 1
    assert (await decide(agent, session, Approve({"amount": 2}))).output == "done"
    assert results(session) == ["paid 2 to ada"]


async def test_a_reason_is_text():
    agent, session = await paused()
    with pytest.raises(ResumeError, match="must be text, not 3"):
        await decide(agent, session, Deny(3))


# --- policies that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, "", "yes", 1])
def test_a_policy_is_true_false_or_a_function(wrong):
    with pytest.raises(ArgumentError, match="needs_approval must be True, False or a function"):
        pay.replace(needs_approval=wrong)


def test_a_policy_takes_the_arguments_of_its_tool():
    def spend(amount: int) -> str:
        """Spend."""

    with pytest.raises(ArgumentError, match=r"needs_approval of 'spend' is called .* \(amount\)"):
        tool(needs_approval=lambda amnt: True)(spend)
    assert tool(needs_approval=lambda **arguments: True)(spend).name == "spend"


async def returning(value):
    return value


@pytest.mark.parametrize(
    "policy", [lambda **_: None, lambda **_: 1, lambda **_: returning(None), lambda **_: 1 / 0]
)
async def test_a_policy_that_does_not_say_yes_or_no_lets_nothing_run(policy):
    agent, session = Agent(ScriptedModel([ToolCall.of("pay", amount=1)])), Session()
    with pytest.raises(ToolError, match="needs_approval of 'pay'"):
        await agent.run("x", session=session, tools=[pay.replace(needs_approval=policy)])
    assert "paid" not in str(results(session))


# --- what calls and decisions must not be mistaken for --------------------------------------------------------------


async def test_arguments_of_one_tool_are_not_those_of_another():
    @tool(inline=True, needs_approval=lambda days: days > 100)
    def keep(days: int = 30) -> str:
        """Keep."""
        return f"keep {days}"

    @tool(inline=True)
    def purge(older_than: int = 3650) -> str:
        """Purge."""
        return f"purge {older_than}"

    calls = [ToolCall("keep", "{}", "1"), ToolCall("purge", "{}", "2")]
    session = Session()
    await Agent(ScriptedModel([calls, "done"]), tools=[keep, purge]).run("x", session=session)
    assert results(session) == ["keep 30", "purge 3650"]


async def test_a_tool_that_comes_with_a_switch_may_pause_a_run_without_a_session():
    kit = Toolkit("money", [pay], on=False, switchable=True)
    model = ScriptedModel(
        [ToolCall.of("switch_toolkit", toolkit="money", on=True), ToolCall.of("pay", amount=1), "done"]
    )
    agent = Agent(model, tools=[kit])
    result = await agent.run("x")
    assert [pending.call.name for pending in result.pending] == ["pay"]
    assert (await decide(agent, result.session, Approve())).output == "done"


async def test_a_decision_does_not_hold_for_another_tool_of_the_same_name():
    other = tool(needs_approval=True, inline=True, name="pay")(lambda iban: f"sent to {iban}")
    session = Session()
    first = Agent(scripted(ToolCall.of("pay", amount=1)), tools=[pay])
    await first.run("x", session=session)
    await decide(first, session, Approve(remember="tool"))
    second = Agent(scripted(ToolCall.of("pay", iban="x")), tools=[other])
    assert (await second.run("x", session=session)).pending


async def test_a_rewind_takes_decisions_back():
    agent = Agent(scripted(ToolCall.of("pay", amount=1), ToolCall.of("pay", amount=2)), tools=[pay])
    session = Session()
    await agent.run("x", session=session)
    await decide(agent, session, Approve(remember="tool"))
    session.rewind(session.starts[0])
    assert not session.remembered
    assert (await agent.run("y", session=session)).pending
