"""An agent is a value: checked when it is built, frozen, replaceable, and never held by what it made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref

import msgspec
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    GossamerError,
    Limits,
    Message,
    Middleware,
    ModelSettings,
    RunContext,
    Session,
    Text,
    ToolCall,
    tool,
)
from gossamer.models import ModelRequest, ScriptedModel


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


def plain(number: int) -> int:
    """Give a number back."""
    return number


BAD_ARGUMENTS = [
    ("model", 5),
    ("model", None),
    ("model", "no-such-provider:x"),
    ("model", "openai:"),
    ("model", "openai"),
    ("model", ScriptedModel),
    ("instructions", 5),
    ("instructions", None),
    ("name", ""),
    ("name", 5),
    ("tools", 5),
    ("tools", "convert"),
    ("tools", ""),
    ("tools", None),
    ("tools", [5]),
    ("tools", [double, double.replace(description="again"), "x"]),
    ("output", 5),
    ("middleware", 5),
    ("middleware", [object()]),
    ("middleware", [Middleware]),
    ("middleware", ""),
    ("limits", {"max_turns": 3}),
    ("limits", 3),
    ("settings", {"temperature": 1}),
]


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_a_bad_argument_is_named_when_the_agent_is_built(name, value):
    arguments = {"model": "offline", name: value}
    with pytest.raises(ArgumentError, match=name if name != "tools" else "tool"):
        Agent(**arguments)


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_a_bad_argument_is_named_when_an_agent_is_replaced(name, value):
    with pytest.raises(ArgumentError, match=name if name != "tools" else "tool"):
        Agent("offline").replace(**{name: value})


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="temprature"):
        Agent("offline", temprature=1)
    with pytest.raises(ArgumentError, match=r"temprature.*instructions"):
        Agent("offline").replace(temprature=1)


@pytest.mark.parametrize(
    "field", ["max_turns", "max_tool_calls", "max_tokens", "max_cost", "max_seconds", "max_parallel_tools"]
)
@pytest.mark.parametrize("value", [0, -1, "3", True])
def test_a_limit_of_zero_or_of_another_type_is_refused(field, value):
    with pytest.raises(ArgumentError, match=field):
        Limits(**{field: value})


def test_two_tools_of_one_name_are_refused_before_the_model_is_asked():
    scripted = model("never")
    agent = Agent(scripted, tools=[double, tool(name="double")(plain)])
    with pytest.raises(ArgumentError, match="two tools are called 'double'"):
        asyncio.run(agent.run("hi"))
    assert not scripted.requests


def test_an_agent_is_frozen_and_compared_by_identity():
    agent = Agent("offline")
    with pytest.raises(AttributeError):
        agent.name = "other"
    assert agent != Agent("offline")
    assert len({agent, agent, Agent("offline")}) == 2


def test_sequences_are_kept_as_tuples_so_that_lists_may_change_later():
    tools, middleware = [], []
    agent = Agent("offline", tools=tools, middleware=middleware)
    tools.append(double)
    middleware.append(Middleware())
    assert agent.tools == ()
    assert agent.middleware == ()
    one = Agent("offline", tools=[double], middleware=middleware)
    middleware.clear()
    assert one.tools == (double,)
    assert len(one.middleware) == 1


async def test_replace_makes_a_changed_copy_and_leaves_the_original():
    first = model("one")
    agent = Agent(first, name="first", instructions="Be brief.")
    other = agent.replace(model=model("two"), name="second", tools=[plain])
    assert (agent.name, agent.tools, other.name) == ("first", (), "second")
    assert (await agent.run("x")).output == "one"
    assert (await other.run("x")).output == "two"
    assert other.instructions == "Be brief."


async def test_calling_an_agent_is_run():
    agent = Agent(model("hello"))
    assert (await agent("hi")).output == "hello"


async def test_plain_functions_among_the_tools_become_tools():
    scripted = model(ToolCall.of("plain", number=4), "done")
    result = await Agent(scripted, tools=(plain,)).run("x")
    assert result.messages[2].parts[0].text == "4"
    assert scripted.requests[0].tools[0].description == "Give a number back."


async def test_neither_results_nor_sessions_hold_the_agent():
    scripted = model(ToolCall.of("double", number=2), "four", ToolCall.of("double", number=2), "four", "kept")
    session = Session()
    agent = Agent(scripted, tools=[double], middleware=[Middleware()], limits=Limits(max_turns=5))
    watched = weakref.ref(agent)
    result = await agent.run("hi", session=session)
    async with agent.stream("hi", session=session) as stream:
        async for _ in stream:
            pass
    half_read = agent.stream("hi", session=session)
    await anext(half_read)
    await half_read.aclose()
    del agent
    gc.collect()
    assert watched() is None
    assert result.output == "four"
    assert stream.result.output == "four"
    assert len(session.messages) == 8


async def test_failed_and_stopped_runs_do_not_hold_the_agent():
    scripted = ScriptedModel(lambda request: RuntimeError("broken"))
    agent = Agent(scripted)
    watched = weakref.ref(agent)
    with contextlib.suppress(RuntimeError):
        await agent.run("hi")
    scripted.requests.clear()
    limited = Agent(model("never", "never"), limits=Limits(max_tokens=1))
    watched_limited = weakref.ref(limited)
    result = await limited.run("hi")
    del agent, limited
    gc.collect()
    assert watched() is None
    assert watched_limited() is None
    assert result.stopped.limit == "max_tokens"


# --- prompts ------------------------------------------------------------------------------------------------


async def test_prompts_of_every_kind_reach_the_model():
    from gossamer import Image

    picture = Image(data=b"\x89PNG\r\n\x1a\n")
    cases = [
        ("hi", [("user", "hi")]),
        (Message.user("hi"), [("user", "hi")]),
        ([Text("a"), "b"], [("user", "ab")]),
        ((Text("a"), picture), [("user", "a")]),
        (
            [Message.user("q"), Message.assistant("a"), Text("next"), "one"],
            [("user", "q"), ("assistant", "a"), ("user", "nextone")],
        ),
    ]
    for prompt, expected in cases:
        scripted = model("ok")
        result = await Agent(scripted).run(prompt)
        asked = scripted.requests[0].messages
        assert [(message.role, message.text) for message in list(asked)[: len(expected)]] == expected
        assert result.new_messages[0].role == "user"
    assert scripted.requests[0].messages[0].text == "q"


async def test_no_prompt_starts_from_instructions_and_session():
    scripted = model("a", "b")
    agent = Agent(scripted, instructions="Tell a story.")
    await agent.run()
    assert len(scripted.requests[0].messages) == 0 or scripted.requests[0].messages.stop >= 0
    assert scripted.requests[0].instructions == "Tell a story."
    session = Session()
    session.add(Message.user("from elsewhere"))
    result = await agent.run(session=session)
    assert [message.text for message in session.messages] == ["from elsewhere", "b"]
    assert [message.text for message in result.new_messages] == ["b"]


@pytest.mark.parametrize("prompt", ["", [], 5, b"bytes", {"role": "user"}, [5], [None], object()])
@pytest.mark.parametrize("how", ["run", "stream", "sync"])
async def test_an_empty_or_ill_typed_prompt_is_refused_and_the_session_stays_usable(prompt, how):
    session = Session()
    agent = Agent(model("fine"))
    with pytest.raises(ArgumentError, match=r"prompt|message is made of"):
        if how == "run":
            await agent.run(prompt, session=session)
        elif how == "sync":
            await asyncio.to_thread(agent.run_sync, prompt, session=session)
        else:
            async with agent.stream(prompt, session=session) as stream:
                async for _ in stream:
                    pass
    assert session.journal == ()
    assert (await agent.run("now", session=session)).output == "fine"


# --- functions of the context -------------------------------------------------------------------------------


async def test_instructions_may_be_functions_sync_and_async():
    def sync(context: RunContext) -> str:
        return f"For {context.user}: {context.deps['tone']}."

    async def slow(context: RunContext) -> str:
        await asyncio.sleep(0)
        return f"{context.agent} {context.session.state['topic']}"

    scripted = model("a", "b")
    await Agent(scripted, instructions=sync).run("x", user="ada", deps={"tone": "kind"})
    await Agent(scripted, instructions=slow, name="bob").run("x", session=Session(state={"topic": "tea"}))
    assert [request.instructions for request in scripted.requests] == ["For ada: kind.", "bob tea"]


async def test_instructions_that_give_no_text_are_an_error_and_the_prompt_leaves_the_view():
    session = Session()
    agent = Agent(model("never"), instructions=lambda context: 5, name="bob")
    with pytest.raises(ArgumentError, match=r"instructions of 'bob' gave int"):
        await agent.run("x", session=session)
    assert list(session.messages) == []
    assert session.unfinished is None


async def test_tools_may_be_a_function_of_the_context():
    def sync(context: RunContext):
        return [double] if context.user == "admin" else []

    async def slow(context: RunContext):
        await asyncio.sleep(0)
        return [plain]

    scripted = model("a", "b", "c")
    await Agent(scripted, tools=sync).run("x", user="admin")
    await Agent(scripted, tools=sync).run("x")
    await Agent(scripted, tools=slow).run("x")
    assert [[schema.name for schema in request.tools] for request in scripted.requests] == [
        ["double"],
        [],
        ["plain"],
    ]


async def test_run_arguments_lie_over_the_agents():
    scripted = model("a", '{"result": 4}')
    agent = Agent(scripted, tools=[double], settings=ModelSettings(temperature=0.5, seed=1))
    await agent.run("x", tools=[plain], settings=ModelSettings(temperature=0.9))
    request = scripted.requests[0]
    assert [schema.name for schema in request.tools] == ["plain"]
    assert (request.settings.temperature, request.settings.seed) == (0.9, 1)
    assert (await agent.run("x", output=int)).output == 4


@pytest.mark.parametrize(
    ("name", "value"), [("session", "chat-1"), ("limits", {"max_turns": 1}), ("settings", {"seed": 1})]
)
@pytest.mark.parametrize("how", ["run", "stream", "sync"])
async def test_ill_typed_arguments_of_a_run_are_named(name, value, how):
    agent = Agent(model("never"))
    with pytest.raises(ArgumentError, match=name):
        if how == "run":
            await agent.run("x", **{name: value})
        elif how == "sync":
            outcome = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()

            def work():
                try:
                    agent.run_sync("x", **{name: value})
                except BaseException as error:
                    loop.call_soon_threadsafe(outcome.set_exception, error)

            threading.Thread(target=work, daemon=True).start()
            await asyncio.wait_for(outcome, 20)
        else:
            async with agent.stream("x", **{name: value}) as stream:
                async for _ in stream:
                    pass


# --- concurrency --------------------------------------------------------------------------------------------


async def test_fifty_concurrent_runs_of_one_agent_see_only_their_own_messages():
    gate = asyncio.Barrier(50)

    async def answer(request: ModelRequest):
        question = request.messages[0].text
        assert all(question in message.text or message.role == "tool" for message in request.messages), (
            "a foreign message"
        )
        if len(request.messages) == 1:
            await gate.wait()
            return [f"asking for {question}", ToolCall.of("whose", question=question)]
        result = request.messages[2].parts[0]
        return f"{question} got {result.text}"

    @tool
    async def whose(context: RunContext, question: str) -> str:
        await asyncio.sleep(0)
        assert context.deps == question
        return f"{question}/{context.user}/{context.run_id}"

    agent = Agent(ScriptedModel(answer), tools=[whose])

    async def one(number: int):
        question = f"question-{number:02}."
        session = Session() if number % 2 else None
        if number % 3:
            return question, await agent.run(question, deps=question, user=f"u{number}", session=session)
        async with agent.stream(question, deps=question, user=f"u{number}", session=session) as stream:
            async for _ in stream:
                pass
        return question, stream.result

    done = await asyncio.gather(*(one(number) for number in range(50)))
    assert len({result.run_id for _, result in done}) == 50
    for number, (question, result) in enumerate(done):
        assert result.output == f"{question} got {question}/u{number}/{result.run_id}"
        assert len(result.messages) == 4
        assert result.usage.tool_calls == 1


async def test_nothing_but_gossamers_errors_and_the_models_own_come_out():
    with pytest.raises(GossamerError, match="the script has 0 replies"):
        await Agent(model()).run("x")


def test_structs_of_an_agent_stay_small():
    agent = Agent("offline")
    assert msgspec.structs.asdict(agent)["tools"] == ()


def test_an_agent_is_no_tool_and_says_how_it_becomes_one():
    with pytest.raises(ArgumentError, match=r"agent 'helper' is no tool; give agent\.as_tool"):
        Agent("offline", tools=[Agent("offline", name="helper")])


async def test_a_result_says_the_essence_of_itself():
    result = await Agent("offline").run("hi")
    assert repr(result).startswith("Result(stop: 'You said: hi")
    assert len(repr(result)) < 300
