"""Teams, workflows, pipelines and hubs inside one another."""

from __future__ import annotations

import pytest

from gossamer import Agent, Limits, Session, Step, Team, ToolCall, Workflow, tool
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.usage import Usage


def saying(name: str, text: str = "ok", **options) -> Agent:
    return Agent(ScriptedModel(lambda request: text), name=name, **options)


@tool(inline=True)
def ping() -> str:
    """Ping."""
    return "pong"


def endless(name: str, **options) -> Agent:
    return Agent(ScriptedModel(lambda request: ToolCall.of("ping")), name=name, tools=[ping], **options)


def using(tokens: int) -> ScriptedModel:
    from gossamer import Message

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
