"""Teams, workflows, pipelines and hubs inside one another."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gossamer import (
    Agent,
    Answer,
    Approve,
    ArgumentError,
    HumanInput,
    Limits,
    Map,
    Message,
    Parallel,
    Session,
    Step,
    Team,
    ToolCall,
    Workflow,
    handoff,
    sequential_pipeline,
    tool,
)
from gossamer.errors import ResumeError, StepFailedError, StepTypeError
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.stores import open_store
from gossamer.usage import Usage


async def close_store(url: str) -> None:
    store = open_store(url)
    await store.aclose()


def saying(name: str, text: str = "ok", **options) -> Agent:
    return Agent(ScriptedModel(lambda request: text), name=name, **options)


@tool(inline=True)
def ping() -> str:
    """Ping."""
    return "pong"


def endless(name: str, **options) -> Agent:
    return Agent(ScriptedModel(lambda request: ToolCall.of("ping")), name=name, tools=[ping], **options)


def using(tokens: int) -> ScriptedModel:
    return ScriptedModel(
        lambda request: ModelResponse(Message.assistant("said"), Usage(tokens, model_calls=1), "stop", "m")
    )


# --- limits -----------------------------------------------------------------------------------------------


async def test_the_turns_of_a_step_are_no_limit_of_the_workflow_around_it():
    workflow = Workflow("w", [Step(endless("a"), fallback=Step(str))], limits=Limits(max_tool_calls=500))
    result = await workflow.run("hi")
    assert (result.finish_reason, result.value) == ("stop", "hi")


async def test_the_turns_of_a_member_are_no_limit_of_the_team_around_it():
    team = Team([endless("a"), saying("b")], mode="broadcast", limits=Limits(max_tool_calls=500))
    result = await team.run("hi")
    assert result.finish_reason == "stop"
    assert "max_turns" in result.output
    assert "## b\n\nok" in result.output


async def test_a_session_with_limits_stops_a_workflow():
    session = Session(limits=Limits(max_tokens=420))
    first, second = Agent(using(400), name="a"), Agent(using(400), name="b")
    result = await Workflow("w", [first, Step(second, fallback=Step(str))]).run("x", session=session)
    assert result.finish_reason == "limit"
    assert session.usage.model_calls == 1


@pytest.mark.parametrize("mode", ["broadcast", "sequential"])
async def test_the_limit_of_a_team_stops_a_workflow_in_it_and_with_it_the_team(mode):
    inner = Workflow("w", [Agent(using(400), name="a"), Agent(using(400), name="b")])
    team = Team([saying("c"), inner], mode=mode, limits=Limits(max_tokens=900))
    result = await team.run("x")
    assert result.finish_reason == "limit"
    assert result.stopped.limit == "max_tokens"


# --- values -----------------------------------------------------------------------------------------------


class Quote(msgspec.Struct):
    amount: int


def quoting(name: str) -> Team:
    leader = Agent(ScriptedModel(lambda request: '{"amount": 3}'), output=Quote)
    return Team([saying("a")], mode="broadcast", leader=leader, name=name)


def amount_of(quote: Quote) -> int:
    return quote.amount


def upper(words: str) -> str:
    return words.upper()


@pytest.mark.parametrize("stored", [False, True])
async def test_an_agent_for_each_item_begins_a_workflow_that_pauses(stored, tmp_path):
    url = f"sqlite:///{tmp_path / 's.db'}" if stored else None
    workflow = Workflow("w", [Map(saying("a")), HumanInput("Well?")])
    session = Session(store=url, id="s") if url else Session()
    first = await workflow.run(["x", "y"], session=session)
    again = Session(store=url, id="s") if url else session
    result = await workflow.resume(again, {first.pending[0].call_id: Answer("yes")})
    assert result.output == "yes"
    if url:
        await close_store(url)


async def test_a_team_as_a_step_gives_what_its_leader_declares(tmp_path):
    workflow = Workflow("w", [quoting("team"), HumanInput("Well?", type=int), str])
    url = f"sqlite:///{tmp_path / 's.db'}"
    session = Session(store=url, id="s")
    first = await workflow.run("x", session=session)
    result = await workflow.resume(session, {first.pending[0].call_id: Answer(1)})
    assert result.output == "1"
    await close_store(url)
    assert (await Workflow("w", [quoting("team"), amount_of]).run("x")).output == 3


def test_what_a_team_gives_is_checked_against_the_next_step():
    with pytest.raises(StepTypeError, match="Quote"):
        Workflow("w", [quoting("team"), upper])


async def test_a_team_that_routes_gives_what_its_members_do():
    leader = ScriptedModel(lambda request: ToolCall.of("ask_w"))
    team = Team([Workflow("w", [lambda _: Quote(4)], output=Quote)], mode="route", leader=leader)
    assert (await Workflow("outer", [team, amount_of]).run("x")).output == 4


async def test_a_workflow_of_words_stands_where_an_agent_does():
    workflow = Workflow("w", [upper])
    assert (await sequential_pipeline([saying("a"), workflow], "hi")).output == "OK"
    assert (
        await Team([saying("a"), workflow], mode="sequential").run("hi")
    ).output == "HI\n\nA SAID BEFORE YOU:\n\nOK"
    session = Session()
    await saying("before", "so").run("first", session=session)
    team = Team([workflow, saying("a")], mode="broadcast", context="shared")
    assert "FIRST\n\nSO\n\nHI" in (await team.run("hi", session=session)).output


async def test_a_leader_asks_a_workflow_for_what_it_takes():
    workflow = Workflow("w", [amount_of])
    model = ScriptedModel([ToolCall.of("ask_w", prompt={"amount": 2}), "done"])
    result = await Team([workflow], leader=model).run("hi")
    assert [part.content for message in result.new if message.role == "tool" for part in message.parts] == [
        "2"
    ]


# --- questions --------------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_fit_a_workflow_in_a_team_is_refused_and_the_step_still_waits():
    workflow = Workflow("w", [HumanInput("How many?", type=int), str])
    team = Team([Team([workflow], mode="broadcast", name="inner"), saying("b")], mode="broadcast")
    result = await team.run("hi")
    [pending] = result.pending
    with pytest.raises(ResumeError, match="int"):
        await team.resume(result.session, {pending.call_id: Answer("many")})
    result = await team.resume(result.session, {pending.call_id: Answer(3)})
    assert "3" in result.output
    assert not result.pending


async def test_workflows_of_one_name_inside_one_another_ask_each_for_their_own_type():
    inner = Workflow("w", [HumanInput("How many?", type=int, name="q"), str])
    outer = Workflow("w", [HumanInput("Who?", name="q"), inner])
    result = await outer.run("hi")
    result = await outer.resume(result.session, {result.pending[0].call_id: Answer("me")})
    result = await outer.resume(result.session, {result.pending[0].call_id: Answer(3)})
    assert result.output == "3"


@pytest.mark.parametrize("name", [None, "go"])
def test_a_conversation_is_not_handed_to_a_workflow(name):
    with pytest.raises(ArgumentError, match="Workflow"):
        handoff(Workflow("w", [upper]), "x", name=name)


async def test_arguments_of_an_approval_deep_inside_are_checked_before_anything_is_recorded():
    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    def reply(request):
        return "done" if request.messages[-1].role == "tool" else ToolCall.of("pay", amount=1)

    payer = Agent(ScriptedModel(reply), name="payer", tools=[pay])
    workflow = Workflow("w", [Parallel({"a": payer, "b": Team([payer], mode="broadcast")})])
    team = Team([workflow], mode="broadcast")
    result = await team.run("hi")
    assert len(result.pending) == 2
    ids = [one.call_id for one in result.pending]
    for call_id in ids:
        with pytest.raises(ResumeError, match="amount"):
            await team.resume(result.session, {call_id: Approve({"amount": "much"})})
    result = await team.resume(result.session, {one: Approve({"amount": 2}) for one in ids})
    assert result.finish_reason == "stop"
    assert result.output.count("done") == 2


# --- many -------------------------------------------------------------------------------------------------


def paying(name: str, paid: list[str]) -> Agent:
    @tool(needs_approval=True, inline=True)
    def pay() -> str:
        """Pay."""
        paid.append(name)
        return "paid"

    def reply(request):
        return "done" if request.messages[-1].role == "tool" else ToolCall.of("pay")

    return Agent(ScriptedModel(reply), name=name, tools=[pay])


async def test_runs_inside_that_wait_are_not_let_go_for_those_that_have_ended():
    paid = []
    session = Session()
    many = [lambda _: ["x"] * 1_010, Map(saying("b"))]
    workflow = Workflow("w", [Parallel({"wait": paying("a", paid), "many": many})])
    first = await workflow.run("go", session=session)
    result = await workflow.resume(session, {first.pending[0].call_id: Approve()})
    assert result.finish_reason == "stop"
    assert paid == ["a"]


async def test_more_runs_inside_that_wait_than_a_session_keeps_are_refused():
    paid = []
    workflow = Workflow("w", [Map(paying("a", paid), max_concurrency=1)])
    with pytest.raises(StepFailedError, match="store") as caught:
        await workflow.run(["x"] * 1_001)
    assert caught.value.place == "map[1000]/a"


async def test_more_runs_inside_at_once_than_a_session_keeps_come_to_their_end():
    all_there = asyncio.Event()
    there = 0

    async def reply(request):
        nonlocal there
        there += 1
        if there == 1_500:
            all_there.set()
        await all_there.wait()
        return "ok"

    agent = Agent(ScriptedModel(reply), name="a")
    session = Session()
    result = await Workflow("w", [Map(agent, max_concurrency=2_000)]).run(["x"] * 1_500, session=session)
    assert result.output == ["ok"] * 1_500
    first = session.child("c0", "r")
    for number in range(2_000):
        await agent.run("x", session=session.child(f"c{number}", "r"))
    assert session.child("c0", "r") is not first, "one that has ended is let go"


async def test_the_usage_of_a_step_with_any_name_is_counted_once_more_on_resuming():
    workflow = Workflow("w", [Step(saying("b"), name="b~1"), paying("a", [])])
    first = await workflow.run("hi")
    result = await workflow.resume(first.session, {first.pending[0].call_id: Approve()})
    assert (first.usage.model_calls, result.usage.model_calls) == (2, 3)
