"""Middleware around runs, model calls, tools and deltas, and hooks out of plain functions."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest
from tests.unit.talker import drive

from gossamer import (
    Agent,
    ArgumentError,
    Hooks,
    Message,
    Middleware,
    Session,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    tool,
)
from gossamer.events import MessageFinished, RunFinished, TextDelta
from gossamer.models import ModelResponse, ScriptedModel


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


class Notes(Middleware):
    """Writes down what passes it, in order."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def run(self, context, next):
        self.notes.append(f"{self.name} run")
        result = await next()
        self.notes.append(f"{self.name} ran")
        return result

    async def model(self, context, request, next):
        self.notes.append(f"{self.name} model")
        await asyncio.sleep(0)
        response = await next(request)
        self.notes.append(f"{self.name} answered")
        return response

    async def tool(self, context, call, next):
        self.notes.append(f"{self.name} {call.name}")
        result = await next(call)
        self.notes.append(f"{self.name} {result.content}")
        return result


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_layers_lie_around_each_other_outermost_first(how):
    notes: list[str] = []
    agent = Agent(
        model(ToolCall.of("double", number=2), "four"),
        tools=[double],
        middleware=[Notes("a", notes), Middleware(), Notes("b", notes)],
    )
    result = await drive(agent, how, "x", session=Session())
    assert result.output == "four"
    turn = ["a model", "b model", "b answered", "a answered"]
    assert notes == ["a run", "b run", *turn, "a double", "b double", "b 4", "a 4", *turn, "b ran", "a ran"]


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("calls", [1, 3])
async def test_what_goes_in_and_comes_out_may_be_replaced(how, calls):
    class Change(Middleware):
        async def model(self, context, request, next):
            response = await next(msgspec.structs.replace(request, instructions=f"for {context.user}"))
            if response.message.tool_calls:
                return response
            return msgspec.structs.replace(response, message=Message.assistant(response.message.text.upper()))

        async def tool(self, context, call, next):
            changed = msgspec.structs.replace(call, arguments='{"number": 10}')
            result = await next(changed)
            return msgspec.structs.replace(result, content=f"<{result.content}>")

    scripted = model([ToolCall.of("double", number=1)] * calls, "done")
    session = Session()
    agent = Agent(scripted, tools=[double], middleware=[Change()])
    result = await drive(agent, how, "x", session=session, user="ada")
    assert result.output == "DONE"
    assert {request.instructions for request in scripted.requests} == {"for ada"}
    assert [part.content for part in session.messages[2].parts] == ["<20>"] * calls
    assert session.messages[3].text == "DONE"


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_middleware_may_answer_itself(how):
    class Answer(Middleware):
        async def model(self, context, request, next):
            if len(request.messages) == 1:
                return ModelResponse(
                    Message("assistant", (ToolCall("double", '{"number":1}', "c1"),)), Usage()
                )
            return ModelResponse(Message.assistant("from the cache"), Usage())

        async def tool(self, context, call, next):
            return ToolResult(call.id, call.name, "not called")

    scripted = model()
    result = await drive(Agent(scripted, tools=[double], middleware=[Answer()]), how, "x")
    assert result.output == "from the cache"
    assert result.messages[2].parts[0].content == "not called"
    assert not scripted.requests
    assert result.usage.model_calls == 0
    assert result.usage.tool_calls == 0


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_middleware_may_try_again(how):
    class Retry(Middleware):
        async def model(self, context, request, next):
            for _ in range(2):
                try:
                    return await next(request)
                except ValueError:
                    continue
            return await next(request)

        async def tool(self, context, call, next):
            result = await next(call)
            return result if result.outcome == "ok" else await next(call)

    tries = []

    @tool
    async def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no luck")
        return "luck"

    scripted = model(ValueError("a"), ValueError("b"), ToolCall("flaky"), "done")
    result = await drive(Agent(scripted, tools=[flaky], middleware=[Retry()]), how, "x")
    assert result.output == "done"
    assert result.messages[2].parts[0].content == "luck"
    assert len(scripted.requests) == 4


async def test_usage_of_each_of_several_tries_is_counted():
    def reply(request):
        return ModelResponse(Message.assistant("a"), Usage(input_tokens=10, output_tokens=1, model_calls=1))

    class Best(Middleware):
        async def model(self, context, request, next):
            await next(request)
            return await next(request)

    for how in ("run", "stream"):
        result = await drive(Agent(ScriptedModel(reply), middleware=[Best()]), how, "x")
        assert (result.usage.model_calls, result.usage.input_tokens) == (2, 20)


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_a_run_may_be_answered_or_its_error_be_caught_by_middleware(how):
    class Guard(Middleware):
        async def run(self, context, next):
            try:
                return await next()
            except ValueError as error:
                raise LookupError(f"in run of {context.agent}") from error

    session = Session()
    agent = Agent(model(ValueError("no")), name="bob", middleware=[Guard()])
    with pytest.raises(LookupError, match="in run of bob"):
        await drive(agent, how, "x", session=session)
    assert session.unfinished is None
    assert (await drive(agent.replace(model=model("ok")), how, "y", session=session)).output == "ok"


async def test_deltas_may_be_changed_or_held_back_and_the_answer_stays_as_it_is():
    class Shout(Middleware):
        def delta(self, context, delta):
            return TextDelta(delta.text.upper()) if isinstance(delta, TextDelta) else delta

    class NoSecrets(Middleware):
        def delta(self, context, delta):
            return None if "SECRET" in getattr(delta, "text", "") else delta

    session = Session()
    agent = Agent(model("a secret word"), middleware=[Shout(), NoSecrets()])
    stream = agent.stream("x", session=session)
    events = [event async for event in stream]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["A ", "WORD"]
    finished = next(event for event in events if isinstance(event, MessageFinished))
    assert finished.message.text == stream.result.output == session.messages[-1].text == "a secret word"
    assert isinstance(events[-1], RunFinished)


async def test_an_error_in_middleware_fails_the_run_and_frees_the_session():
    class Broken(Middleware):
        def delta(self, context, delta):
            raise KeyError("delta")

    class BrokenTool(Middleware):
        async def tool(self, context, call, next):
            raise KeyError("tool")

    session = Session()
    stream = Agent(model("a"), middleware=[Broken()]).stream("x", session=session)
    with pytest.raises(KeyError, match="delta"):
        _ = [event async for event in stream]
    for calls in (1, 2):
        agent = Agent(
            model([ToolCall.of("double", number=1)] * calls), tools=[double], middleware=[BrokenTool()]
        )
        with pytest.raises(KeyError, match="tool"):
            await agent.run("x", session=session)
        assert session.unfinished is None
    assert (await Agent(model("fine")).run("y", session=session)).output == "fine"


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_hooks_sync_and_async_see_what_happens_in_order(how):
    heard: list[tuple[str, str]] = []

    def sync(name):
        def hook(context, *things):
            heard.append((name, type(things[-1]).__name__ if things else context.agent))

        return hook

    def slow(name):
        async def hook(context, *things):
            await asyncio.sleep(0)
            sync(name)(context, *things)

        return hook

    hooks = Hooks(
        before_run=sync("before_run"),
        after_run=slow("after_run"),
        before_model=slow("before_model"),
        after_model=sync("after_model"),
        before_tool=sync("before_tool"),
        after_tool=slow("after_tool"),
    )
    agent = Agent(
        model(ToolCall.of("double", number=2), "done"),
        tools=[double],
        middleware=[hooks, Hooks()],
        name="bob",
    )
    await drive(agent, how, "x")
    turn = [("before_model", "ModelRequest"), ("after_model", "ModelResponse")]
    assert heard == [
        ("before_run", "bob"),
        *turn,
        ("before_tool", "ToolCall"),
        ("after_tool", "ToolResult"),
        *turn,
        ("after_run", "Result"),
    ]


async def test_middleware_of_concurrent_runs_sees_its_own_run():
    seen: dict[str, set[str]] = {}

    class See(Middleware):
        async def model(self, context, request, next):
            seen.setdefault(context.run_id, set()).add(request.messages[0].text)
            await asyncio.sleep(0)
            return await next(request)

    agent = Agent(ScriptedModel(lambda request: "a"), middleware=[See()])
    results = await asyncio.gather(*(agent.run([Text(f"q{number}")]) for number in range(20)))
    assert sorted(seen) == sorted(result.run_id for result in results)
    assert sorted(text for texts in seen.values() for text in texts) == sorted(f"q{n}" for n in range(20))


async def test_a_cached_result_of_another_call_becomes_this_calls():
    kept = []

    class Caches(Middleware):
        async def tool(self, context, call, next):
            if not kept:
                kept.append(await next(call))
            return kept[0]

    @tool(inline=True)
    def look() -> str:
        return "seen"

    session = Session()
    agent = Agent(
        ScriptedModel([ToolCall("look"), ToolCall("look"), "done"]), tools=[look], middleware=[Caches()]
    )
    result = await agent.run("hi", session=session)
    assert (result.output, result.usage.tool_calls) == ("done", 1)
    calls = [call.id for message in session.messages for call in message.tool_calls]
    assert calls == [
        part.call_id for message in session.messages if message.role == "tool" for part in message.parts
    ]


async def test_equal_middleware_is_not_the_same_middleware():
    @dataclasses.dataclass(frozen=True)
    class Notes(Middleware):
        log: list = dataclasses.field(default_factory=list, compare=False)

        async def model(self, context, request, next):
            self.log.append("asked")
            return await next(request)

    first, second = Notes(), Notes()
    await Agent(ScriptedModel(["x"]), middleware=[first]).run("hi")
    await Agent(ScriptedModel(["x"]), middleware=[second]).run("hi")
    assert (first.log, second.log) == (["asked"], ["asked"])


async def test_middleware_that_cannot_be_hashed():
    @dataclasses.dataclass
    class Plain(Middleware):
        async def model(self, context, request, next):
            return await next(request)

    assert (await Agent(ScriptedModel(["x"]), middleware=[Plain()]).run("hi")).output == "x"


async def test_next_of_a_run_is_called_once():
    class Twice(Middleware):
        async def run(self, context, next):
            await next()
            return await next()

    with pytest.raises(ArgumentError, match="twice"):
        await Agent(ScriptedModel(["x", "y"]), middleware=[Twice()]).run("hi")
