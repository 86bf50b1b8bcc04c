"""Messages put into a run under way: heard between turns, answered before it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gossamer import (
    Agent,
    ArgumentError,
    GuardrailError,
    Limits,
    Message,
    Output,
    RunContext,
    Session,
    SteeringError,
    ToolCall,
    tool,
)
from gossamer.events import TextDelta
from gossamer.guardrails import guardrail
from gossamer.models import ScriptedModel


def heard(request) -> list[str]:
    return [message.text for message in request.messages if message.role == "user"]


@tool
async def work(context: RunContext) -> str:
    """Work, while the user says something."""
    await context.deps(context)
    return "worked"


async def test_a_message_is_heard_at_the_next_turn():
    session = Session()

    async def say(context):
        session.steer("Rather in French.")
        session.steer(Message.user("And short."))

    model = ScriptedModel([ToolCall.of("work"), "Bonjour."])
    result = await Agent(model, tools=[work]).run("Greet.", session=session, deps=say)
    assert result.output == "Bonjour."
    assert [heard(request) for request in model.requests] == [
        ["Greet."],
        ["Greet.", "Rather in French.", "And short."],
    ]
    roles = [message.role for message in session.messages]
    assert roles == ["user", "assistant", "tool", "user", "user", "assistant"]
    assert [message.text for message in result.new_messages][-3:] == [
        "Rather in French.",
        "And short.",
        "Bonjour.",
    ]
    assert list(Session.from_export(session.export()).messages) == list(session.messages)


async def test_a_message_that_comes_while_the_last_answer_is_made_is_answered_too():
    session = Session()

    async def reply(request):
        if len(heard(request)) == 1:
            session.steer("One more thing.")
            return "First."
        return "Second."

    model = ScriptedModel(reply)
    result = await Agent(model).run("x", session=session)
    assert result.output == "Second."
    assert [message.text for message in session.messages] == ["x", "First.", "One more thing.", "Second."]
    assert result.usage.model_calls == 2


async def test_a_run_without_a_session_is_steered_by_its_stream_or_its_context():
    async def say(context):
        context.steer("from the tool")

    model = ScriptedModel([ToolCall.of("work"), "one", "two"])
    async with Agent(model, tools=[work]).stream("x", deps=say) as stream:
        async for event in stream:
            if isinstance(event, TextDelta) and "one" in event.text:
                stream.steer("from the reader")
    assert stream.result.output == "two"
    assert heard(model.requests[-1]) == ["x", "from the tool", "from the reader"]


async def test_a_message_may_come_from_another_thread():
    async def say(context):
        thread = threading.Thread(target=context.steer, args=("from afar",), name="gossamer-tool-test")
        thread.start()
        await asyncio.to_thread(thread.join)

    model = ScriptedModel([ToolCall.of("work"), "done"])
    await Agent(model, tools=[work]).run("x", deps=say)
    assert heard(model.requests[1]) == ["x", "from afar"]


async def test_a_run_that_is_over_is_not_steered():
    contexts = []

    async def keep(context):
        contexts.append(context)

    session = Session()
    agent = Agent(ScriptedModel([ToolCall.of("work"), "done", "x"]), tools=[work])
    await agent.run("x", session=session, deps=keep)
    with pytest.raises(SteeringError, match="is over"):
        contexts[0].steer("late")
    with pytest.raises(SteeringError, match="no run holds session"):
        session.steer("late")
    async with agent.stream("x") as stream:
        async for _ in stream:
            pass
    with pytest.raises(SteeringError, match="is over"):
        stream.steer("late")


async def test_a_paused_run_is_not_steered():
    @tool(needs_approval=True)
    def pay() -> str:
        """Pay."""

    session = Session()
    await Agent(ScriptedModel([ToolCall.of("pay")]), tools=[pay]).run("x", session=session)
    with pytest.raises(SteeringError):
        session.steer("hurry")


@pytest.mark.parametrize(
    ("message", "words"), [("", 'message is ""'), (3, "not 3"), (Message.assistant("x"), "user's")]
)
async def test_what_a_run_is_not_steered_with(message, words):
    with pytest.raises(ArgumentError, match=words):
        RunContext("agent", None).steer(message)


async def test_messages_that_wait_are_bounded():
    context = RunContext("agent", None)
    for _ in range(100):
        context.steer("x")
    with pytest.raises(SteeringError, match="100 messages wait"):
        context.steer("x")


async def test_a_limit_on_turns_holds_and_what_was_said_stays():
    session = Session()

    async def say(context):
        session.steer("more")

    agent = Agent(ScriptedModel([ToolCall.of("work"), "never"]), tools=[work], limits=Limits(max_turns=1))
    result = await agent.run("x", session=session, deps=say)
    assert result.finish_reason == "limit"
    assert session.messages[-1].text == "more"


async def test_guardrails_check_what_is_put_in():
    @guardrail
    def no_secrets(context, text):
        if "secret" in text:
            raise GuardrailError("a secret")

    beside = guardrail(name="beside", beside=True)(no_secrets.check)

    for check in (no_secrets, beside):

        async def say(context):
            context.steer("a secret")

        model = ScriptedModel([ToolCall.of("work"), "never"])
        with pytest.raises(GuardrailError, match="input: a secret"):
            await Agent(model, tools=[work], guardrails=[check]).run("x", deps=say)
        assert len(model.requests) == 1


async def test_a_structured_answer_is_the_last_one():
    async def reply(request):
        if len(heard(request)) == 1:
            contexts[0].steer("Rather 2.")
            return '{"result": 1}'
        return '{"result": 2}'

    contexts = []

    def instructions(context):
        contexts.append(context)
        return "Count."

    result = await Agent(ScriptedModel(reply), instructions).run("x", output=int)
    assert result.output == 2


async def test_each_of_many_runs_hears_its_own():
    async def say(context):
        context.steer(f"more {context.user}")

    async def reply(request):
        said = heard(request)
        return (
            ToolCall.of("work") if len(said) == 1 and request.messages[-1].role == "user" else " ".join(said)
        )

    agent = Agent(ScriptedModel(reply), tools=[work])
    results = await asyncio.gather(*(agent.run(f"x {n}", deps=say, user=str(n)) for n in range(50)))
    assert [result.output for result in results] == [f"x {n} more {n}" for n in range(50)]


async def test_a_message_that_comes_while_the_answer_is_validated_is_answered():
    contexts = []

    async def check(value: int) -> int:
        if value == 1:
            contexts[0].steer("Rather 2.")
        return value

    def instructions(context):
        contexts.append(context)
        return "Count."

    model = ScriptedModel(['{"result": 1}', '{"result": 2}'])
    result = await Agent(model, instructions).run("x", output=Output(int, validators=[check]))
    assert result.output == 2
