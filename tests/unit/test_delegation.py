"""Agents as tools of agents: their own journals, one usage, one budget, resumed and never repeated."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref

import msgspec
import pytest

from gossamer import (
    Agent,
    Answer,
    Approve,
    Deny,
    EndRun,
    Limits,
    Message,
    ModelRetry,
    RunContext,
    Session,
    ToolCall,
    Usage,
    tool,
)
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.records import RunStartedRecord


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


def contents(result) -> list[str]:
    return [part.content for message in result.messages if message.role == "tool" for part in message.parts]


def using(text, tokens: int) -> ModelResponse:
    message = Message("assistant", (text,)) if isinstance(text, ToolCall) else Message.assistant(text)
    return ModelResponse(message, Usage(input_tokens=tokens, model_calls=1))


@tool(needs_approval=True)
async def pay(context: RunContext, amount: int) -> str:
    """Pay."""
    context.deps.append((context.agent, amount))
    return f"paid {amount}"


async def test_an_agent_is_a_tool_with_a_journal_of_its_own():
    expert_model = model(using("42", 5))
    expert = Agent(expert_model, name="expert", instructions="Know things.")
    asking = model(using(ToolCall.of("ask_expert", prompt="What is it?"), 7), using("It is 42.", 9))
    agent = Agent(asking, tools=[expert.as_tool("ask_expert", "Asks an expert.")])
    session = Session()
    result = await agent.run("x", session=session, deps=["d"], user="ada")
    assert result.output == "It is 42."
    assert contents(result) == ["42"]
    assert result.usage == Usage(input_tokens=21, model_calls=3, tool_calls=1, unpriced_calls=3)
    schema = asking.requests[0].tools[0]
    assert (schema.name, schema.description) == ("ask_expert", "Asks an expert.")
    assert schema.parameters["required"] == ["prompt"]
    call = result.messages[1].tool_calls[0]
    inner = session.child(call.id)
    assert [message.text for message in inner.messages] == ["What is it?", "42"]
    started = inner.journal[0]
    assert isinstance(started, RunStartedRecord)
    assert (started.parent, started.call, started.agent, started.user) == (
        result.run_id,
        call.id,
        "expert",
        "ada",
    )
    assert expert_model.requests[0].instructions == "Know things."
    again = Session.from_export(session.export())
    assert again.child(call.id).journal == inner.journal


async def test_structured_answers_and_failures_of_inner_agents_reach_the_outer_model():
    fine = Agent(model('{"result": [1, 2]}'), output=list[int]).as_tool("fine", "d")
    broken = Agent(ScriptedModel([ValueError("inner is down")])).as_tool("broken", "d")
    calls = [ToolCall.of("fine", prompt="a"), ToolCall.of("broken", prompt="b")]
    result = await Agent(model(calls, "done"), tools=[fine, broken]).run("x")
    assert contents(result)[0] == "[1,2]"
    assert "inner is down" in contents(result)[1]
    assert result.output == "done"


async def test_a_tool_that_ends_the_inner_run_does_not_end_the_outer_one():
    @tool(retries=0)
    async def picky() -> str:
        raise ModelRetry("never good enough")

    inner = Agent(ScriptedModel(lambda request: ToolCall("picky")), tools=[picky])
    outer = Agent(model(ToolCall.of("ask", prompt="p"), "told"), tools=[inner.as_tool("ask", "d")])
    session = Session()
    result = await outer.run("x", session=session)
    assert result.output == "told"
    assert "never good enough" in contents(result)[0]
    assert result.usage.tool_calls == 2
    assert session.child(result.messages[1].tool_calls[0].id).unfinished is None


def nested(*, outer_replies, middle_replies, inner_replies):
    """Three agents, one inside the other; the innermost one pays."""
    models = [ScriptedModel(list(replies)) for replies in (outer_replies, middle_replies, inner_replies)]
    inner = Agent(models[2], name="inner", tools=[pay])
    middle = Agent(models[1], name="middle", tools=[inner.as_tool("ask_inner", "d"), pay])
    outer = Agent(models[0], name="outer", tools=[middle.as_tool("ask_middle", "d")])
    return outer, models


def replies():
    return {
        "outer_replies": [using(ToolCall.of("ask_middle", prompt="m"), 1), using("outer done", 1)],
        "middle_replies": [using(ToolCall.of("ask_inner", prompt="i"), 1), using("middle done", 1)],
        "inner_replies": [
            using(ToolCall.of("pay", amount=1), 1),
            using(ToolCall.of("pay", amount=2), 1),
            using("inner done", 1),
        ],
    }


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_pause_deep_inside_pauses_all_and_nothing_is_repeated(elsewhere):
    outer, models = nested(**replies())
    done = []
    session = Session()
    paused = await outer.run("x", session=session, deps=done)
    (pending,) = paused.pending
    assert (pending.call.name, pending.kind) == ("pay", "approval")
    assert pending.run_id != paused.run_id
    assert paused.usage.input_tokens == 3
    assert session.pending == paused.pending
    for amount in (1, 2):
        if elsewhere:
            session = Session.from_export(session.export())
            assert session.pending == paused.pending
        paused = await outer.resume(session, {paused.pending[0].call_id: Approve()}, deps=done)
        assert done == [("inner", number) for number in range(1, amount + 1)]
    assert paused.output == "outer done"
    assert [len(one.requests) for one in models] == [2, 2, 3]
    assert paused.usage == Usage(input_tokens=7, model_calls=7, tool_calls=4, unpriced_calls=7)
    assert contents(paused) == ["middle done"]


async def test_denying_and_answering_deep_inside():
    @tool(run_by="person")
    async def ask_user(question: str) -> str:
        raise AssertionError

    calls = [ToolCall.of("pay", amount=1), ToolCall.of("ask_user", question="?")]
    inner_model = model(calls, "as you say")
    inner = Agent(inner_model, tools=[pay, ask_user])
    outer = Agent(model(ToolCall.of("ask", prompt="p"), "done"), tools=[inner.as_tool("ask", "d")])
    paused = await outer.run("x", deps=[])
    by_name = {pending.call.name: pending.call_id for pending in paused.pending}
    half = await outer.resume(paused.session, {by_name["pay"]: Deny("no money")}, deps=[])
    assert [pending.call_id for pending in half.pending] == [by_name["ask_user"]]
    result = await outer.resume(paused.session, {by_name["ask_user"]: Answer("blue")}, deps=[])
    assert result.output == "done"
    told = [part.content for part in inner_model.requests[1].messages[-1].parts]
    assert "no money" in told[0]
    assert told[1] == "blue"


async def test_two_members_paused_at_once_are_decided_one_by_one():
    done = []
    first = Agent(model(ToolCall.of("pay", amount=1), "first done"), name="first", tools=[pay])
    second = Agent(model(ToolCall.of("pay", amount=2), "second done"), name="second", tools=[pay])
    calls = [ToolCall.of("a", prompt="p"), ToolCall.of("b", prompt="p")]
    outer = Agent(model(calls, "both done"), tools=[first.as_tool("a", "d"), second.as_tool("b", "d")])
    paused = await outer.run("x", deps=done)
    assert len(paused.pending) == 2
    by_amount = {pending.call.arguments: pending.call_id for pending in paused.pending}
    half = await outer.resume(paused.session, {by_amount['{"amount":2}']: Approve()}, deps=done)
    assert [pending.call_id for pending in half.pending] == [by_amount['{"amount":1}']]
    assert done == [("second", 2)]
    result = await outer.resume(paused.session, {by_amount['{"amount":1}']: Approve()}, deps=done)
    assert result.output == "both done"
    assert contents(result) == ["first done", "second done"]
    assert done == [("second", 2), ("first", 1)]
    assert result.usage == Usage(model_calls=6, tool_calls=4)


async def test_every_moment_of_a_tree_of_runs_may_be_its_last():
    """Exports taken at each model call and tool of three nested runs, resumed: no tool that ran runs again."""
    exports: list[bytes] = []
    started: list[str] = []
    session = Session()

    @tool
    async def act(name: str) -> str:
        started.append(name)
        exports.append(session.export())
        return f"{name} done"

    def script(*steps):
        """Answer by the number of answers given so far: the same in every process."""

        def reply(request):
            exports.append(session.export())
            return steps[sum(message.role == "assistant" for message in request.messages)]

        return ScriptedModel(reply)

    def tree():
        inner = Agent(script(ToolCall.of("act", name="i1"), ToolCall.of("act", name="i2"), "i"), tools=[act])
        middle = Agent(
            script(ToolCall.of("ask", prompt="i"), ToolCall.of("act", name="m"), "m"),
            tools=[inner.as_tool("ask", "d"), act],
        )
        return Agent(
            script([ToolCall.of("act", name="o"), ToolCall.of("ask", prompt="m")], "o"),
            tools=[middle.as_tool("ask", "d"), act],
        )

    whole = await tree().run("x", session=session)
    assert sorted(started) == ["i1", "i2", "m", "o"]
    assert whole.usage == Usage(model_calls=8, tool_calls=6)
    moments = list(exports)
    assert len(moments) == 12
    for moment in moments:
        session = Session.from_export(moment)
        stored = moment.decode()
        started.clear()
        result = await tree().resume(session)
        assert result.output == "o"
        assert all(started.count(name) <= 1 for name in started)
        assert result.usage.tool_calls == 6, started
        names_before = {name for name in ("i1", "i2", "m", "o") if began(stored, name)}
        assert not names_before & set(started)


def began(stored: str, name: str) -> bool:
    """Whether the tool of this name had begun when the export was made."""
    exported = msgspec.json.decode(stored)

    def search(session) -> bool:
        ids = {
            part["id"]
            for record in session["journal"]
            if record["type"] == "message"
            for part in record["message"]["parts"]
            if part["type"] == "tool_call" and part["name"] == "act" and f'"{name}"' in part["arguments"]
        }
        begun = {record["call_id"] for record in session["journal"] if record["type"] == "tool_started"}
        return bool(ids & begun) or any(search(child) for child in session.get("children", {}).values())

    return search(exported)


async def test_cancelling_the_outer_run_stops_the_inner_one_and_both_sessions_go_on():
    begun = asyncio.Event()

    @tool
    async def hang() -> str:
        begun.set()
        await asyncio.Event().wait()

    inner = Agent(model(ToolCall("hang")), tools=[hang])
    outer = Agent(model(ToolCall.of("ask", prompt="p"), "later"), tools=[inner.as_tool("ask", "d")])
    session = Session()
    task = asyncio.create_task(outer.run("x", session=session))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.unfinished is None
    call = session.messages[1].tool_calls[0]
    assert session.child(call.id).unfinished is None
    assert (await outer.run("next", session=session)).output == "later"


async def test_a_limit_of_the_outer_run_holds_for_the_inner_one():
    inner_model = ScriptedModel(lambda request: ToolCall.of("spin"))

    @tool(inline=True)
    def spin() -> str:
        return "round"

    inner = Agent(inner_model, tools=[spin])
    outer = Agent(
        ScriptedModel(lambda request: ToolCall.of("ask", prompt="p")),
        tools=[inner.as_tool("ask", "d")],
        limits=Limits(max_tool_calls=5),
    )
    result = await asyncio.wait_for(outer.run("x"), 10)
    assert result.stopped.limit == "max_tool_calls"
    assert result.usage.tool_calls == 5
    assert len(inner_model.requests) == 5


async def test_nothing_keeps_a_delegate_alive():
    inner = Agent(ScriptedModel(["inner"]), name="inner")
    gone = weakref.ref(inner)
    outer = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="x"), "outer"]), tools=[inner.as_tool("ask", "Asks.")]
    )
    result = await outer.run("hi")
    assert result.output == "outer"
    del inner, outer
    gc.collect()
    assert gone() is None


def crashed_before_the_outer_result(session: Session) -> Session:
    """The session as it was when the inner run had ended and the outer call had no result yet."""
    data = json.loads(session.export())
    places = [place for place, record in enumerate(data["journal"]) if record["type"] == "tool_result"]
    data["journal"] = data["journal"][: places[0]]
    return Session.from_export(json.dumps(data))


async def test_an_inner_run_that_had_failed_never_runs_again():
    charged = []

    @tool(inline=True)
    def charge() -> str:
        charged.append(1)
        return "charged"

    inner = Agent(ScriptedModel([ToolCall("charge"), RuntimeError("down")]), tools=[charge], name="inner")
    outer = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="x"), "told", "told again"]),
        tools=[inner.as_tool("ask", "Asks.")],
    )
    session = Session()
    await outer.run("hi", session=session)
    resumed = crashed_before_the_outer_result(session)
    result = await outer.resume(resumed)
    assert len(charged) == 1
    assert "down" in result.messages[2].parts[0].text


async def test_a_typed_answer_of_an_inner_run_that_had_ended():
    inner = Agent(ScriptedModel(['{"result": [1, 2]}']), output=list[int], name="inner")
    outer = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="x"), "one", "two"]), tools=[inner.as_tool("ask", "Asks.")]
    )
    session = Session()
    first = await outer.run("hi", session=session)
    result = await outer.resume(crashed_before_the_outer_result(session))
    assert result.messages[2].parts[0].text == first.messages[2].parts[0].text == "[1,2]"


async def test_an_id_used_again_in_another_run_is_another_call():
    inner = Agent(ScriptedModel(lambda request: f"echo {request.messages[-1].text}"), name="inner")
    script = [
        ToolCall("ask", '{"prompt": "a"}', "same"),
        "done",
        ToolCall("ask", '{"prompt": "b"}', "same"),
        "done",
    ]
    outer = Agent(ScriptedModel(script), tools=[inner.as_tool("ask", "Asks.")])
    session = Session()
    await outer.run("one", session=session)
    await outer.run("two", session=session)
    told = [part.text for message in session.messages if message.role == "tool" for part in message.parts]
    assert told == ["echo a", "echo b"]


async def test_a_tool_that_ended_the_run_ends_it_after_a_pause_too():
    @tool(inline=True)
    def leave() -> str:
        raise EndRun("left")

    @tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    agent = Agent(ScriptedModel([[ToolCall("leave"), ToolCall("pay")], "never"]), tools=[leave, pay])
    session = Session()
    result = await agent.run("hi", session=session)
    session = Session.from_export(session.export())
    result = await agent.resume(session, {result.pending[0].call_id: Approve()})
    assert (result.finish_reason, result.output) == ("ended_by_tool", "left")
