"""Budgets against providers that do not count, calls that fail, and calls that never start."""

import pytest

from gossamer import Agent, Limits, Message, Middleware, ModelError, Price, ToolCall, Usage, tool
from gossamer.errors import StreamBrokenError
from gossamer.models import ModelResponse, ScriptedModel


@tool(inline=True)
def echo(number: int) -> int:
    return number


async def test_a_provider_that_does_not_count() -> None:
    model = ScriptedModel(lambda request: ToolCall.of("echo", number=1))
    limits = Limits(max_tokens=20_000, max_turns=500)
    result = await Agent(model, tools=[echo], limits=limits).run("hi")
    assert result.stopped.limit == "max_tokens"
    assert len(model.requests) < 10


async def test_calls_that_fail_count_as_what_they_may_have_used() -> None:
    class Retries(Middleware):
        async def model(self, context, request, next):
            for _ in range(50):
                try:
                    return await next(request)
                except ModelError:
                    continue
            return await next(request)

    model = ScriptedModel(lambda request: StreamBrokenError("broken"))
    agent = Agent(model, middleware=[Retries()], limits=Limits(max_tokens=1_000))
    result = await agent.run("hi")
    assert result.stopped.limit == "max_tokens"
    assert len(model.requests) < 5


async def test_the_dearest_kind_of_input_is_reserved() -> None:
    def reply(request):
        usage = Usage(input_tokens=100, cache_write_tokens=100, output_tokens=1, model_calls=1)
        return ModelResponse(Message.assistant("hi"), usage)

    model = ScriptedModel(reply, price=Price(1000, 1000, cache_write=2000))
    result = await Agent(model, limits=Limits(max_cost=0.15)).run("q" * 90)
    assert (result.finish_reason, result.usage.cost) == ("limit", 0)


async def test_a_call_that_never_starts_gives_its_place_back() -> None:
    model = ScriptedModel([ToolCall("echo", '{"number": "x"}'), ToolCall("echo", '{"number": 1}'), "done"])
    result = await Agent(model, tools=[echo], limits=Limits(max_tool_calls=1)).run("hi")
    assert (result.output, result.usage.tool_calls) == ("done", 1)


async def test_results_survive_a_limit_without_a_session() -> None:
    calls = [ToolCall.of("echo", number=1), ToolCall.of("echo", number=2)]
    model = ScriptedModel([calls, "never"])
    result = await Agent(model, tools=[echo], limits=Limits(max_turns=1)).run("hi")
    assert [part.text for part in result.messages[-1].parts] == ["1", "2"]
    with pytest.raises(Exception, match="max_turns"):
        _ = result.output
