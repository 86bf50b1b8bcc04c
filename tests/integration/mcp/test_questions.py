"""A server that asks a person in the middle of a call: the run pauses, the call does not."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.integration.mcp.serving import PLAIN, calling, http_server, raw, results, until

from gossamer import Agent, Answer, Approve, Deny, Session, ToolCall
from gossamer.errors import ResumeError
from gossamer.events import ApprovalNeeded
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer


@pytest.fixture(params=["stdio", "http"])
async def reach(request):
    if request.param == "stdio":
        yield {"command": PLAIN, "name": "plain"}
    else:
        async with http_server() as server:
            yield {"url": server.url, "name": "plain"}


def asked(pending) -> dict:
    return json.loads(pending.call.arguments)


async def test_an_answer_reaches_the_call_that_asked(reach):
    server = MCPServer(**reach)
    agent = calling(ToolCall.of("greet"), tools=[server])
    session = Session()
    async with agent:
        paused = await agent.run("x", session=session)
        (pending,) = paused.pending
        assert (pending.kind, pending.call.name, pending.run_id) == ("question", "greet", paused.run_id)
        assert asked(pending)["message"] == "Who are you?"
        assert asked(pending)["schema"]["properties"]["name"]["type"] == "string"
        result = await agent.resume(session, {pending.call_id: Answer({"name": "Ada"})})
        assert results(result)[0].content == "Hello Ada"
        assert result.output == "done"
        assert await server.call("count", {"name": "started"}) == "1"


async def test_a_question_with_one_blank_takes_a_plain_answer_and_one_that_does_not_fit_is_asked_again():
    server = MCPServer(command=PLAIN)
    agent = calling(ToolCall.of("move"), tools=[server])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        (pending,) = (await agent.resume(session, {pending.call_id: Answer("Ada")})).pending
        assert asked(pending)["message"] == "Where to?"
        paused = await agent.resume(session, {pending.call_id: Answer({"city": "Graz", "floor": -1})})
        (again,) = paused.pending
        assert again.call_id != pending.call_id
        assert "does not fit: -1 is less than the minimum of 0" in asked(again)["problem"]
        unanswered = await agent.resume(session, {})
        assert unanswered.pending == (again,)
        result = await agent.resume(session, {again.call_id: Answer({"city": "Graz", "floor": 2})})
    assert results(result)[0].content == "Ada to Graz, floor 2"


async def test_a_person_may_decline(reach):
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(**reach)])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        result = await agent.resume(session, {pending.call_id: Deny("none of its business")})
    assert results(result)[0].content == "nobody: decline"


async def test_a_stream_tells_of_the_question():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN)])
    session = Session()
    async with agent:
        async with agent.stream("x", session=session) as stream:
            told = [event.pending async for event in stream if isinstance(event, ApprovalNeeded)]
        assert told == list(stream.result.pending)
        result = await agent.resume(session, {told[0].call_id: Answer("Ada")})
    assert results(result)[0].content == "Hello Ada"


async def test_a_question_that_nobody_answers_is_given_up():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN, answer_timeout=0.1)])
    session = Session()
    async with agent:
        result = await agent.run("x", session=session)
        (question,) = result.pending
        async with asyncio.timeout(20):
            while result.pending:
                assert result.pending == (question,)
                await asyncio.sleep(0.01)
                result = await agent.resume(session, {})
    assert results(result)[0].content == "nobody: cancel"


async def test_after_a_restart_the_outcome_is_unknown():
    session = Session()
    async with (agent := calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN)])):
        (pending,) = (await agent.run("x", session=session)).pending
    restarted = Session.from_export(session.export())
    async with (agent := calling(then="done", tools=[MCPServer(command=PLAIN)])):
        result = await agent.resume(restarted, {pending.call_id: Answer("Ada")})
    (told,) = results(result)
    assert (told.outcome, told.content) == (
        "unknown",
        "The process ended while this tool ran; whether it took effect is unknown.",
    )


async def test_questions_that_are_off_are_not_offered():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN, elicitation=False)])
    async with agent:
        (told,) = results(await agent.run("x"))
    assert told.outcome == "error"


async def test_questions_of_two_runs_find_their_own(reach):
    server = MCPServer(**reach)
    agent = Agent(
        ScriptedModel(
            lambda r: ToolCall.of("greet") if len(r.messages) == 1 else r.messages[-1].parts[0].text
        ),
        tools=[server],
    )
    sessions = [Session(), Session()]
    async with agent:
        paused = await asyncio.gather(*[agent.run("x", session=one) for one in sessions])
        if "command" in reach:  # standard streams do not tell which call asks, and nobody is asked on a guess
            assert [one.output for one in paused] == ["nobody: cancel"] * 2
            return
        done = [
            await agent.resume(session, {one.pending[0].call_id: Answer(name)})
            for session, one, name in zip(sessions, paused, ("Ada", "Bob"), strict=True)
        ]
    assert [one.output for one in done] == ["Hello Ada", "Hello Bob"]


async def test_a_question_beside_other_calls_and_behind_an_approval(reach):
    server = MCPServer(**reach, needs_approval=lambda **arguments: not arguments)
    calls = [ToolCall.of("add", a=1, b=2), ToolCall.of("greet"), ToolCall.of("count", name="started")]
    agent = Agent(ScriptedModel([calls, "done"]), tools=[server])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        assert pending.kind == "approval"
        (question,) = (await agent.resume(session, {pending.call_id: Approve()})).pending
        assert question.kind == "question"
        result = await agent.resume(session, {question.call_id: Answer("Ada")})
    assert [one.content for one in results(result)] == ["3", "Hello Ada", "0"]
    assert result.usage.tool_calls == 3


async def test_a_question_inside_an_agent_that_is_a_tool():
    inner = calling(ToolCall.of("greet"), then="greeted", tools=[MCPServer(command=PLAIN)], name="inner")
    outer = calling(ToolCall.of("ask_inner", prompt="x"), tools=[inner.as_tool("ask_inner", "Asks.")])
    session = Session()
    async with inner:
        (question,) = (await outer.run("x", session=session)).pending
        assert asked(question)["message"] == "Who are you?"
        result = await outer.resume(session, {question.call_id: Answer("Ada")})
    assert results(result)[0].content == "greeted"
    assert results_of_inner(session, result)[0].content == "Hello Ada"


def results_of_inner(session, result) -> list:
    inner = session.child(result.messages[1].tool_calls[0].id)
    return [part for message in inner.messages if message.role == "tool" for part in message.parts]


async def test_a_session_that_goes_on_without_an_answer():
    agent = Agent(ScriptedModel([ToolCall.of("greet"), "never mind"]), tools=[MCPServer(command=PLAIN)])
    session = Session()
    async with agent:
        await agent.run("x", session=session)
        result = await agent.run("leave it", session=session, pending="deny")
    assert result.output == "never mind"


async def test_a_question_takes_no_place_from_others():
    server = MCPServer(command=PLAIN, max_concurrent=1, max_waiting=0)
    agent = calling(ToolCall.of("greet"), tools=[server])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        assert await server.call("add", {"a": 1, "b": 1}) == "2"
        result = await agent.resume(session, {pending.call_id: Answer("Ada")})
    assert results(result)[0].content == "Hello Ada"


async def test_a_call_from_code_has_nobody_to_ask(caplog):
    async with MCPServer(command=PLAIN) as server:
        assert await server.call("greet") == "nobody: cancel"
    assert "in a call that no run made" in caplog.text


@pytest.mark.parametrize("answer", [Answer("Ada"), Deny()])
async def test_the_protocol_without_a_handshake(answer):
    agent = calling(ToolCall.of("echo", n=1), tools=[MCPServer(command=raw("modern"))])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        result = await agent.resume(session, {pending.call_id: answer})
    assert results(result)[0].content == ("kept Ada" if isinstance(answer, Answer) else "kept decline")


async def test_calls_of_one_run_do_not_mix_up_their_questions():
    server = MCPServer(command=PLAIN, name="plain", timeout=20)
    calls = [ToolCall.of("greet"), ToolCall.of("slow", seconds=0.3)]
    agent = Agent(ScriptedModel([calls, "done"]), tools=[server])
    session = Session()
    async with agent:
        paused = await agent.run("x", session=session)
        (pending,) = paused.pending
        assert pending.call.name == "plain"  # standard streams do not tell which of the two asks
        assert asked(pending)["message"] == "Who are you?"
        assert (await agent.resume(session, {})).pending == (pending,)
        result = await agent.resume(session, {pending.call_id: Answer("Ada")})
    assert [one.content for one in results(result)] == ["Hello Ada", "done"]


async def test_calls_of_one_tool_each_get_an_answer():
    agent = Agent(
        ScriptedModel([[ToolCall.of("greet"), ToolCall.of("greet")], "done"]),
        tools=[MCPServer(command=PLAIN)],
    )
    session = Session()
    async with agent:
        result = await agent.run("x", session=session)
        names = iter(["Ada", "Bob"])
        while result.pending:
            assert {one.call.name for one in result.pending} == {"greet"}
            answers = {one.call_id: Answer(next(names)) for one in result.pending}
            result = await agent.resume(session, answers)
    assert sorted(one.content for one in results(result)) == ["Hello Ada", "Hello Bob"]


async def test_a_call_asks_sixteen_things_at_once_and_no_more(tmp_path, caplog):
    notes = tmp_path / "notes"
    agent = calling(ToolCall.of("echo", n=40), tools=[MCPServer(command=raw("asks", str(notes)))])
    session = Session()
    async with agent:
        await agent.run("x", session=session)
        await until(lambda: notes.exists() and notes.read_text().count(" cancel\n") == 24)
        assert len((await agent.resume(session, {})).pending) == 16
    assert "asks more than 16 questions at once" in caplog.text


async def test_it_is_said_when_an_answer_comes_too_late():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN, answer_timeout=0.1)])
    session = Session()
    async with agent:
        (pending,) = (await agent.run("x", session=session)).pending
        await until(lambda: pending.expired)
        with pytest.raises(ResumeError, match="it is too late to decide"):
            await agent.resume(session, {pending.call_id: Answer("Ada")})
        while (result := await agent.resume(session, {})).pending:
            await asyncio.sleep(0.01)
    assert results(result)[0].content == "nobody: cancel"


async def test_a_server_that_a_pause_closes_may_not_ask():
    agent = calling(ToolCall.of("greet"), tools=[MCPServer(command=PLAIN, scope="run")])
    result = await agent.run("x", session=Session())
    assert not result.pending
    (told,) = results(result)
    assert told.outcome == "error"
