"""Handing a conversation over: who goes on, with what, and who answers next."""

from __future__ import annotations

import gc
import weakref

import pytest
from tests.unit.talker import drive

from gossamer import (
    Agent,
    Approve,
    ArgumentError,
    AuthenticationError,
    GuardrailError,
    Hooks,
    Limits,
    Message,
    ProviderError,
    ResumeError,
    Runnable,
    Session,
    ToolCall,
    Toolkit,
    Usage,
    handoff,
    tool,
)
from gossamer.events import HandoffEvent, RunFinished, RunStarted
from gossamer.guardrails import Guardrail, guardrail
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.records import HandoffRecord, RunFailedRecord, RunStartedRecord

both = pytest.mark.parametrize("how", ["run", "stream"])


def names(request) -> list[str]:
    return [schema.name for schema in request.tools]


@tool(inline=True)
def refund(amount: int) -> str:
    """Refund."""
    return f"refunded {amount}"


def two(billing_replies, triage_replies=None) -> tuple[Agent, Agent]:
    billing = Agent(ScriptedModel(billing_replies), "You do invoices.", name="billing", tools=[refund])
    replies = triage_replies or [ToolCall.of("hand_over_to_billing")]
    triage = Agent(ScriptedModel(replies), "You sort.", name="triage", tools=[handoff(billing, "Invoices.")])
    return triage, billing


@both
async def test_the_other_agent_goes_on_with_the_same_run(how):
    triage, billing = two([ToolCall.of("refund", amount=5), "Refunded."])
    result = await drive(triage, how, "My money!")
    assert result.output == "Refunded."
    assert result.agent == "billing"
    assert (result.usage.model_calls, result.usage.tool_calls) == (3, 2)
    first = billing.model.requests[0]
    assert first.instructions == "You do invoices."
    assert names(first) == ["refund"]
    assert [message.role for message in first.messages] == ["user", "assistant", "tool"]
    assert first.messages[0].text == "My money!"
    assert first.messages[2].parts[0].text == "billing answers from here on."
    assert [message.text for message in result.new_messages][-1] == "Refunded."


@both
async def test_the_session_remembers_who_answers_next(how):
    triage, billing = two(["Which invoice?", "It is paid.", "In another process."])
    session = Session()
    await drive(triage, how, "My invoice", session=session)
    assert session.answering == "billing"
    assert (await drive(triage, how, "Number 7", session=session)).output == "It is paid."
    again = Session.from_export(session.export())
    result = await drive(triage, how, "And 8?", session=again)
    assert (result.output, result.agent) == ("In another process.", "billing")
    assert len(triage.model.requests) == 1
    assert [message.text for message in billing.model.requests[1].messages if message.role == "user"] == [
        "My invoice",
        "Number 7",
    ]
    started = [record.agent for record in again.journal if isinstance(record, RunStartedRecord)]
    assert started == ["triage", "billing", "billing"]


async def test_the_user_and_a_rewind_give_the_conversation_back():
    triage, _ = two(["a", "b"], [ToolCall.of("hand_over_to_billing"), "Triage again.", "And again."])
    session = Session()
    await triage.run("x", session=session)
    branch = session.branch()
    session.hand_over(None)
    assert (await triage.run("y", session=session)).output == "Triage again."
    assert branch.answering == "billing"
    branch.rewind(branch.starts[0])
    assert branch.answering is None
    assert (await triage.run("y", session=branch)).output == "And again."


async def test_an_agent_that_cannot_hand_over_to_who_answers_answers_itself():
    triage, billing = two(["a", "b"])
    session = Session()
    await triage.run("x", session=session)
    assert (await Agent(ScriptedModel(["mine"]), name="other").run("y", session=session)).output == "mine"
    assert (await billing.run("y", session=session)).output == "b"


async def test_two_that_hand_over_to_each_other_and_one_that_is_reached_by_way_of_another():
    third = Agent(ScriptedModel(["third", "third again"]), name="third")
    second = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_third")]),
        name="second",
        tools=[Toolkit("ways", [handoff(lambda: first, "Back.", name="back"), handoff(third, "On.")])],
    )
    first = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_second")]), name="first", tools=[handoff(second, "On.")]
    )
    session = Session()
    assert (await first.run("x", session=session)).output == "third"
    assert [record.to for record in session.journal if isinstance(record, HandoffRecord)] == [
        "second",
        "third",
    ]
    assert (await first.run("y", session=session)).output == "third again"


async def test_back_and_forth_ends_at_the_limit_of_the_agent_that_was_asked():
    back = handoff(lambda: one, "Back.", name="go_back")
    other = Agent(ScriptedModel(lambda request: ToolCall.of("go_back")), name="other", tools=[back])
    model = ScriptedModel(lambda request: ToolCall.of("hand_over_to_other"))
    one = Agent(model, name="one", tools=[handoff(other, "On.")], limits=Limits(max_turns=7))
    result = await one.run("x")
    assert result.finish_reason == "limit"
    assert result.usage.model_calls == 7


async def test_limits_on_tool_calls_hold_over_a_handoff():
    triage, _ = two([ToolCall.of("refund", amount=1), ToolCall.of("refund", amount=2), "x"])
    result = await triage.run("x", limits=Limits(max_tool_calls=2))
    assert result.finish_reason == "limit"
    assert result.usage.tool_calls == 2


async def test_a_stream_tells_of_it_once_and_begins_and_ends_once():
    triage, _ = two(["Hello from billing.", "Again."])
    session = Session()
    for expected in ([RunStarted, HandoffEvent, RunFinished], [RunStarted, RunFinished]):
        async with triage.stream("x", session=session) as stream:
            kinds = [type(event) async for event in stream]
        told = [kind for kind in kinds if kind in {RunStarted, HandoffEvent, RunFinished}]
        assert told == expected


async def test_other_calls_of_the_turn_are_made_and_the_first_handoff_counts():
    billing = Agent(ScriptedModel(["billing"]), name="billing")
    sales = Agent(ScriptedModel(["sales"]), name="sales")
    calls = [
        ToolCall.of("refund", amount=3),
        ToolCall.of("hand_over_to_sales"),
        ToolCall.of("hand_over_to_billing"),
    ]
    triage = Agent(
        ScriptedModel([calls]), tools=[refund, handoff(billing, "b"), handoff(sales, "s")], name="triage"
    )
    result = await triage.run("x")
    assert result.output == "sales"
    assert result.messages[2].parts[0].text == "refunded 3"


@both
async def test_a_pause_after_a_handoff_is_resumed_by_either(how):
    pay = refund.replace(needs_approval=True)
    for resuming in (0, 1):
        billing = Agent(
            ScriptedModel([ToolCall.of("refund", amount=5), "Done."]), name="billing", tools=[pay]
        )
        triage = Agent(
            ScriptedModel([ToolCall.of("hand_over_to_billing")]), name="triage", tools=[handoff(billing, "b")]
        )
        session = Session()
        paused = await drive(triage, how, "x", session=session)
        assert [(pending.call.name, pending.agent) for pending in paused.pending] == [("refund", "billing")]
        again = Session.from_export(session.export())
        result = await (triage, billing)[resuming].resume(again, {again.pending[0].call_id: Approve()})
        assert result.output == "Done."
        assert result.usage.model_calls == 3


async def test_a_call_that_waits_beside_a_handoff_is_the_first_agents():
    pay = refund.replace(needs_approval=True)
    billing = Agent(ScriptedModel(["Billing."]), name="billing")
    model = ScriptedModel([[ToolCall.of("refund", amount=5), ToolCall.of("hand_over_to_billing")]])
    triage = Agent(model, name="triage", tools=[pay, handoff(billing, "b")])
    session = Session()
    await triage.run("x", session=session)
    with pytest.raises(ResumeError):
        await billing.resume(session)
    result = await triage.resume(session, {session.pending[0].call_id: Approve()})
    assert result.output == "Billing."
    assert session.answering == "billing"


async def test_each_has_its_own_guardrails_and_middleware_and_output():
    seen = []

    @guardrail(on="output")
    def no_numbers(context, text):
        if "7" in text:
            raise GuardrailError("a number")

    billing = Agent(
        ScriptedModel(['{"result": 7}']),
        name="billing",
        output=int,
        middleware=[Hooks(before_model=lambda context, request: seen.append(context.agent))],
    )
    triage = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_billing")]),
        name="triage",
        tools=[handoff(billing, "b")],
        guardrails=[no_numbers],
    )
    assert (await triage.run("x")).output == 7
    assert seen == ["billing"]
    strict = billing.replace(model=ScriptedModel(['{"result": 7}']), guardrails=[no_numbers])
    session = Session()
    with pytest.raises(GuardrailError):
        await triage.replace(
            model=ScriptedModel([ToolCall.of("hand_over_to_billing")]), tools=[handoff(strict, "b")]
        ).run("x", session=session)


@pytest.mark.parametrize("broken", ["model", "string"])
async def test_a_failure_of_the_other_agent_is_told_once_and_lets_the_session_go(broken, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = ScriptedModel([ProviderError("down")]) if broken == "model" else "openai:gpt-5-mini"
    billing = Agent(model, name="billing")
    triage = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_billing")]), name="triage", tools=[handoff(billing, "b")]
    )
    session = Session()
    with pytest.raises(ProviderError if broken == "model" else AuthenticationError):
        await triage.run("x", session=session)
    assert len([record for record in session.journal if isinstance(record, RunFailedRecord)]) == 1
    assert session.unfinished is None
    assert session.holding.holder is None


async def test_an_agent_is_not_kept_alive_by_a_handoff():
    triage, billing = two(["done"])
    await triage.run("x")
    gone = weakref.ref(billing)
    del triage, billing
    gc.collect()
    assert gone() is None


def test_what_is_no_handoff():
    with pytest.raises(ArgumentError, match="needs a name"):
        handoff(lambda: None, "x")
    with pytest.raises(ArgumentError, match="not int"):
        handoff(3, "x")


def test_an_agent_is_a_runnable():
    def takes(one: Runnable) -> str:
        return one.name

    assert takes(Agent("offline", name="n")) == "n"
    for name in ("run", "stream", "resume"):
        assert callable(getattr(Agent, name))


async def test_a_run_without_a_session_goes_on_with_an_agent_that_may_pause():
    pay = refund.replace(needs_approval=True)
    billing = Agent(ScriptedModel([ToolCall.of("refund", amount=5), "Done."]), name="billing", tools=[pay])
    triage = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_billing")]), name="triage", tools=[handoff(billing, "b")]
    )
    paused = await triage.run("My money!")
    assert [message.role for message in billing.model.requests[0].messages] == ["user", "assistant", "tool"]
    result = await billing.resume(paused.session, {paused.pending[0].call_id: Approve()})
    assert result.output == "Done."
    assert [message.text for message in result.session.messages if message.role == "user"] == ["My money!"]


@pytest.mark.parametrize("in_session", [False, True])
async def test_guardrails_of_the_other_agent_check_what_was_said_in_the_run(in_session):
    def check(context, text):
        if "stop" in text:
            raise GuardrailError("stop")
        return text.replace("secret", "***") if "secret" in text else None

    billing = Agent(ScriptedModel(["a", "b"]), name="billing", guardrails=[Guardrail("g", check)])
    model = ScriptedModel(lambda request: ToolCall.of("hand_over_to_billing"))
    triage = Agent(model, name="triage", tools=[handoff(billing, "b")])
    session = Session() if in_session else None
    await triage.run("my secret", session=session)
    assert billing.model.requests[0].messages[0].text == "my ***"
    if session is not None:
        again = Session.from_export(session.export())
        assert again.messages[0].text == "my ***"
    with pytest.raises(GuardrailError):
        await triage.run("stop it", session=Session() if in_session else None)
    assert len(billing.model.requests) == 1


async def test_two_of_one_name_cannot_hand_over():
    triage = Agent(ScriptedModel([ToolCall.of("hand_over_to_agent")]), tools=[handoff(Agent("offline"), "b")])
    with pytest.raises(ArgumentError, match="two agents called 'agent'"):
        await triage.run("x")


async def test_a_run_without_a_session_is_resumed_by_the_agent_that_was_asked_with_all_it_used():
    pay = refund.replace(needs_approval=True)
    answer = ModelResponse(
        Message("assistant", (ToolCall.of("refund", amount=5),)), Usage(10, 10, model_calls=1)
    )
    billing = Agent(ScriptedModel([answer, "Done."]), name="billing", tools=[pay])
    handing = ModelResponse(
        Message("assistant", (ToolCall.of("hand_over_to_billing"),)), Usage(500, 500, model_calls=1)
    )
    triage = Agent(ScriptedModel([handing]), name="triage", tools=[handoff(billing, "b")])
    paused = await triage.run("x")
    assert paused.usage.total_tokens == 1020
    result = await triage.resume(paused.session, {paused.pending[0].call_id: Approve()})
    assert (result.output, result.usage.total_tokens, result.usage.model_calls) == ("Done.", 1020, 3)


async def test_looking_for_who_answers_ends_where_functions_make_agents_anew():
    def make_one() -> Agent:
        return Agent("offline", name="one", tools=[handoff(make_two, "x", name="to_two")])

    def make_two() -> Agent:
        return Agent("offline", name="two", tools=[handoff(make_one, "x", name="to_one")])

    session = Session()
    session.hand_over("gone")
    assert (await make_one().run("x", session=session)).agent == "one"
    session.hand_over("two")
    assert (await make_one().run("x", session=session)).agent == "two"


@pytest.mark.parametrize("cut", range(3, 7))
async def test_a_crash_around_the_handoff_does_not_lose_it(cut):
    triage, _ = two(["From billing."])
    whole = Session()
    await triage.run("x", session=whole)
    crashed = Session()
    for record in whole.journal[:cut]:
        crashed.record(record)
    triage, billing = two(["From billing."])
    result = await triage.resume(crashed)
    assert (result.output, result.agent) == ("From billing.", "billing")
    assert not triage.model.requests
    assert len(billing.model.requests) == 1


async def test_a_thousand_handoffs_do_not_nest():
    back = handoff(lambda: one, "Back.", name="go_back")
    other = Agent(ScriptedModel(lambda request: ToolCall.of("go_back")), name="other", tools=[back])
    model = ScriptedModel(lambda request: ToolCall.of("hand_over_to_other"))
    one = Agent(model, name="one", tools=[handoff(other, "On.")])
    result = await one.run("x", limits=Limits(max_turns=1500))
    assert result.finish_reason == "limit"
    assert result.usage.model_calls == 1500


async def test_a_limit_of_tool_calls_is_not_overlooked_beside_a_handoff():
    billing = Agent(ScriptedModel(["never"]), name="billing")
    calls = [ToolCall.of("hand_over_to_billing"), ToolCall.of("refund", amount=3)]
    triage = Agent(ScriptedModel([calls]), name="triage", tools=[refund, handoff(billing, "b")])
    result = await triage.run("x", limits=Limits(max_tool_calls=1))
    assert result.finish_reason == "limit"


@pytest.mark.parametrize("beside", [False, True])
async def test_guardrails_of_the_other_agent_check_after_a_pause_too(beside):
    @guardrail(beside=beside)
    def no_secrets(context, text):
        if "secret" in text:
            raise GuardrailError("a secret")

    pay = refund.replace(needs_approval=True)
    billing = Agent(ScriptedModel(["never"]), name="billing", guardrails=[no_secrets])
    calls = [ToolCall.of("hand_over_to_billing"), ToolCall.of("refund", amount=3)]
    triage = Agent(ScriptedModel([calls]), name="triage", tools=[pay, handoff(billing, "b")])
    session = Session()
    await triage.run("my secret", session=session)
    with pytest.raises(GuardrailError):
        await triage.resume(session, {session.pending[0].call_id: Approve()})
