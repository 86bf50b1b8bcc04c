"""Limits are hard: no model call and no tool starts at or past one, in the whole tree of runs."""

from __future__ import annotations

import asyncio
import sys
from threading import Thread

import msgspec
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    LimitError,
    Limits,
    Message,
    ModelSettings,
    Price,
    Session,
    ToolCall,
    Usage,
    tool,
)
from gossamer.limits import Budget
from gossamer.models import ModelRequest, ModelResponse, ScriptedModel


def calls(count: int = 1) -> list[ToolCall]:
    return [ToolCall.of("step")] * count


class Steps:
    """A tool that counts, and how many ran at once."""

    def __init__(self) -> None:
        self.count = self.running = self.most = 0

        @tool
        async def step() -> str:
            self.count += 1
            self.running += 1
            self.most = max(self.most, self.running)
            for _ in range(5):
                await asyncio.sleep(0)
            self.running -= 1
            return "stepped"

        self.tool = step


async def drive(agent: Agent, how: str, **keywords):
    if how == "run":
        return await agent.run("go", **keywords)
    async with agent.stream("go", **keywords) as stream:
        async for _ in stream:
            pass
    return stream.result


def is_whole(messages) -> bool:
    expected: list[str] = []
    for message in messages:
        results = [part.call_id for part in message.parts if message.role == "tool"]
        if results != expected:
            return False
        expected = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    return not expected


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("with_session", [False, True])
async def test_turns(how, with_session):
    steps = Steps()
    scripted = ScriptedModel(lambda request: calls())
    session = Session() if with_session else None
    agent = Agent(scripted, tools=[steps.tool], limits=Limits(max_turns=3))
    result = await drive(agent, how, session=session)
    assert len(scripted.requests) == 3
    assert steps.count == 3
    assert result.finish_reason == "limit"
    assert result.stopped.limit == "max_turns"
    assert result.usage == Usage(model_calls=3, tool_calls=3)
    with pytest.raises(LimitError, match="max_turns") as caught:
        _ = result.output
    assert (caught.value.limit, caught.value.allowed, caught.value.used) == ("max_turns", 3, 3)
    assert is_whole(result.messages)
    if session is not None:
        assert session.unfinished is None
        assert (await agent.replace(model=ScriptedModel(["ok"])).run("on", session=session)).output == "ok"


async def test_a_run_without_limits_ends_after_fifty_turns():
    scripted = ScriptedModel(lambda request: calls())
    result = await Agent(scripted, tools=[Steps().tool]).run("go")
    assert len(scripted.requests) == 50
    assert result.stopped.limit == "max_turns"


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("with_session", [False, True])
async def test_tool_calls_past_the_limit_are_not_run(how, with_session):
    steps = Steps()
    scripted = ScriptedModel([calls(2), calls(3), "never"])
    session = Session() if with_session else None
    result = await drive(
        Agent(scripted, tools=[steps.tool], limits=Limits(max_tool_calls=3)), how, session=session
    )
    assert steps.count == 3
    assert len(scripted.requests) == 2
    assert result.stopped.limit == "max_tool_calls"
    assert result.usage.tool_calls == 3
    assert [part.outcome for part in result.messages[-1].parts] == ["ok", "not_run", "not_run"]
    assert is_whole(result.messages)


async def test_a_limit_that_is_just_enough_does_not_stop_the_run():
    steps = Steps()
    agent = Agent(
        ScriptedModel([calls(2), calls(1), "done"]),
        tools=[steps.tool],
        limits=Limits(max_tool_calls=3, max_turns=3),
    )
    result = await agent.run("go")
    assert result.output == "done"
    assert steps.count == 3


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_parallel_tools(how):
    steps = Steps()
    agent = Agent(ScriptedModel([calls(8), "done"]), tools=[steps.tool], limits=Limits(max_parallel_tools=3))
    result = await drive(agent, how)
    assert result.output == "done"
    assert (steps.count, steps.most) == (8, 3)
    free = Steps()
    await drive(Agent(ScriptedModel([calls(8), "done"]), tools=[free.tool]), how)
    assert free.most == 8


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("where", ["model", "tool", "parallel tools", "instructions"])
async def test_seconds(how, where):
    stopped = []

    async def hang(*_):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(where)

    @tool
    async def slow() -> str:
        await hang()

    replies = {
        "model": hang,
        "tool": lambda request: ToolCall("slow"),
        "parallel tools": lambda request: [ToolCall("slow"), ToolCall("slow")],
        "instructions": lambda request: "never",
    }
    agent = Agent(
        ScriptedModel(replies[where]),
        instructions=hang if where == "instructions" else "",
        tools=[slow],
        limits=Limits(max_seconds=0.03),
    )
    session = Session()
    result = await asyncio.wait_for(drive(agent, how, session=session), 10)
    assert result.stopped.limit == "max_seconds"
    assert result.usage.tool_calls == {"tool": 1, "parallel tools": 2}.get(where, 0)
    assert stopped == [where] * (2 if where == "parallel tools" else 1)
    assert is_whole(session.messages)
    assert session.unfinished is None
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(LimitError, match=r"max_seconds of 0\.03"):
        _ = result.output
    assert (
        await agent.replace(model=ScriptedModel(["ok"]), instructions="").run("on", session=session)
    ).output == "ok"


async def test_a_tool_that_swallows_the_cancellation_does_not_outrun_the_clock():
    @tool
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "I go on"

    scripted = ScriptedModel([ToolCall("stubborn"), "never"])
    agent = Agent(scripted, tools=[stubborn], limits=Limits(max_seconds=0.03))
    result = await asyncio.wait_for(agent.run("go"), 10)
    assert result.stopped is not None
    assert len(scripted.requests) == 1


# --- tokens and money ---------------------------------------------------------------------------------------


class Spender:
    """A model that uses all that it may, and keeps to its cap as a provider does."""

    def __init__(self, price: Price | None = None, *, answer_tokens: int = 1000) -> None:
        self.caps: list[int | None] = []
        self.answer_tokens = answer_tokens
        self.model = ScriptedModel(self.reply, price=price)

    def reply(self, request: ModelRequest) -> ModelResponse:
        cap = request.settings.max_tokens if request.settings is not None else None
        self.caps.append(cap)
        sent = sum(len(message.text) for message in request.messages)
        used = Usage(
            input_tokens=sent,
            output_tokens=min(self.answer_tokens, cap or self.answer_tokens),
            model_calls=1,
        )
        return ModelResponse(Message("assistant", (ToolCall("step", "{}", f"c{len(self.caps)}"),)), used)


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("allowed", [100, 500, 2500, 10_000])
async def test_tokens(how, allowed):
    spender = Spender()
    agent = Agent(spender.model, tools=[Steps().tool], limits=Limits(max_tokens=allowed))
    result = await drive(agent, how)
    assert result.stopped.limit == "max_tokens" or result.usage.model_calls == 50
    assert result.usage.total_tokens <= allowed
    assert all(cap is not None and cap <= allowed for cap in spender.caps)
    assert is_whole(result.messages)


async def test_a_prompt_too_long_for_the_limit_is_not_sent():
    spender = Spender()
    result = await Agent(spender.model, limits=Limits(max_tokens=50)).run("x" * 60)
    assert spender.caps == []
    assert result.stopped.limit == "max_tokens"
    assert result.usage == Usage()


async def test_the_callers_own_cap_holds_where_it_is_lower():
    spender = Spender()
    agent = Agent(
        spender.model,
        tools=[Steps().tool],
        limits=Limits(max_tokens=10_000, max_turns=2),
        settings=ModelSettings(max_tokens=7),
    )
    await agent.run("go")
    assert spender.caps == [7, 7]


async def test_a_roomy_limit_asks_no_more_of_the_model_than_it_can_write():
    """Providers refuse a bound above the model's own; a limit of some dollars affords millions of tokens."""
    for limits in (Limits(max_tokens=1_000_000), Limits(max_cost=5)):
        spender = Spender(PRICE)
        await Agent(spender.model, tools=[Steps().tool], limits=limits).run(
            "go", settings=ModelSettings(temperature=0), limits=msgspec.structs.replace(limits, max_turns=1)
        )
        assert spender.caps == [16_000]
        longer = ModelSettings(max_tokens=40_000)
        await Agent(spender.model, tools=[Steps().tool], settings=longer).run(
            "go", limits=msgspec.structs.replace(limits, max_turns=1)
        )
        assert spender.caps == [16_000, 40_000]


async def test_inner_runs_at_the_same_time_share_a_roomy_limit():
    asking = asyncio.Event()

    async def inner_reply(request):
        asking.set() if len(inner.model.requests) == 5 else await asyncio.wait_for(asking.wait(), 5)
        return ModelResponse(Message.assistant("ok"), Usage(10, 1, model_calls=1))

    inner = Agent(ScriptedModel(inner_reply, price=PRICE))
    asks = [ToolCall.of("ask", prompt="p")] * 5
    agent = Agent(ScriptedModel([asks, "done"], price=PRICE), tools=[inner.as_tool("ask", "d")])
    result = await agent.run("go", limits=Limits(max_cost=2))
    assert [part.text for part in result.messages[2].parts] == ["ok"] * 5


PRICE = Price(input=2.0, output=10.0)


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.02])
async def test_money(allowed):
    spender = Spender(PRICE)
    agent = Agent(spender.model, tools=[Steps().tool], limits=Limits(max_cost=allowed))
    result = await agent.run("go")
    assert result.stopped.limit == "max_cost"
    assert 0 < result.usage.cost <= allowed
    assert result.usage.cost == pytest.approx(PRICE.of(result.usage))
    with pytest.raises(LimitError, match="max_cost"):
        _ = result.output


async def test_an_unknown_price_refuses_to_start():
    scripted = ScriptedModel(["never"])
    session = Session()
    agent = Agent(scripted, limits=Limits(max_cost=1))
    with pytest.raises(ArgumentError, match=r"price of model 'scripted' is not known.*price=Price"):
        await agent.run("go", session=session)
    assert not scripted.requests
    assert list(session.messages) == []
    inner = Agent(scripted).as_tool("ask", "d")
    outer = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="p"), "done"], price=PRICE),
        tools=[inner],
        limits=Limits(max_cost=1),
    )
    result = await outer.run("go")
    assert "price of model 'scripted' is not known" in result.messages[2].parts[0].content
    assert not scripted.requests


async def test_usage_says_what_it_cost_and_what_has_no_price():
    def reply(request):
        return ModelResponse(
            Message.assistant("a"), Usage(input_tokens=1000, output_tokens=100, model_calls=1)
        )

    priced = await Agent(ScriptedModel(reply, price=PRICE), limits=Limits(max_cost=1)).run("x")
    assert priced.usage.cost == pytest.approx(0.003)
    assert priced.usage.unpriced_calls == 0
    free = await Agent(ScriptedModel(reply, price=PRICE)).run("x")
    assert free.usage.cost == pytest.approx(0.003)
    unpriced = await Agent(ScriptedModel(reply)).run("x")
    assert (unpriced.usage.cost, unpriced.usage.unpriced_calls) == (0, 1)


@pytest.mark.parametrize("parallel", [1, 4])
async def test_tokens_and_money_are_hard_across_the_tree_of_runs(parallel):
    spent: list[Usage] = []

    def reply(request):
        cap = request.settings.max_tokens
        sent = sum(len(message.text) + 1 for message in request.messages)
        used = Usage(input_tokens=sent, output_tokens=min(300, cap), model_calls=1)
        spent.append(used)
        asks = [ToolCall.of("ask", prompt="p" * 10)] * parallel
        return ModelResponse(Message("assistant", tuple(asks)), used)

    @tool(name="ask")
    async def answer(prompt: str) -> str:
        return prompt

    leaf = Agent(ScriptedModel(reply, price=PRICE), tools=[answer], name="leaf")
    middle = Agent(ScriptedModel(reply, price=PRICE), tools=[leaf.as_tool("ask", "d")], name="middle")
    for limits in (Limits(max_tokens=5000), Limits(max_cost=0.02), Limits(max_tool_calls=7)):
        spent.clear()
        outer = Agent(ScriptedModel(reply, price=PRICE), tools=[middle.as_tool("ask", "d")], limits=limits)
        if limits.max_tool_calls:
            outer = outer.replace(settings=ModelSettings(max_tokens=100))
            leaf_settings = ModelSettings(max_tokens=50)
            leaf_limited = leaf.replace(settings=leaf_settings)
            middle_limited = middle.replace(settings=leaf_settings, tools=[leaf_limited.as_tool("ask", "d")])
            outer = outer.replace(tools=[middle_limited.as_tool("ask", "d")])
        result = await asyncio.wait_for(outer.run("go"), 30)
        total = sum(spent, Usage())
        assert result.stopped is not None
        assert result.usage.model_calls == total.model_calls
        assert result.usage.total_tokens == total.total_tokens
        if limits.max_tokens:
            assert 0 < total.total_tokens <= 5000
        elif limits.max_cost:
            assert 0 < PRICE.of(total) <= 0.02
            assert result.usage.cost == pytest.approx(PRICE.of(total))
        else:
            assert result.usage.tool_calls == 7


async def test_an_inner_limit_is_the_inner_runs_own():
    inner = Agent(
        ScriptedModel(lambda request: calls()), tools=[Steps().tool], limits=Limits(max_tool_calls=2)
    )
    outer = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="p"), "I heard"]),
        tools=[inner.as_tool("ask", "d")],
        limits=Limits(max_tool_calls=50),
    )
    result = await outer.run("go")
    assert result.output == "I heard"
    assert "max_tool_calls" in result.messages[2].parts[0].content
    assert result.usage.tool_calls == 3


async def test_reservations_are_given_back_after_a_failure():
    replies = iter([ValueError("down"), "fine"])
    inner = Agent(ScriptedModel(lambda request: next(replies)), settings=ModelSettings(max_tokens=800))

    @tool
    async def ask() -> str:
        try:
            return (await inner.run("p")).output
        except ValueError:
            return (await inner.run("p")).output

    outer = Agent(
        ScriptedModel([ToolCall("ask"), "done"]),
        tools=[ask],
        limits=Limits(max_tokens=2000),
        settings=ModelSettings(max_tokens=100),
    )
    result = await outer.run("go")
    assert result.messages[2].parts[0].content == "fine"
    assert result.output == "done"


async def test_a_middleware_that_asks_twice_is_held_to_the_limit_and_counted():
    from gossamer import Middleware

    class Twice(Middleware):
        async def model(self, context, request, next):
            await next(request)
            return await next(request)

    spender = Spender(answer_tokens=400)
    agent = Agent(spender.model, tools=[Steps().tool], middleware=[Twice()], limits=Limits(max_tokens=1000))
    result = await agent.run("go")
    assert result.stopped.limit == "max_tokens"
    assert sum(min(400, cap) for cap in spender.caps) <= 1000


def test_threads_share_a_budget():
    """A tool in a thread may run an agent, on a loop of its own: nothing is counted twice or lost."""
    shared = Budget(Limits(max_tokens=10_000))
    held: list[int] = []

    def work():
        own = Budget(Limits(), shared)
        while True:
            try:
                reservation = own.reserve(1, 2, None)
            except LimitError:
                return
            held.append(shared.reserved_tokens)
            own.count(Usage(1, 2, model_calls=1))
            own.release(reservation)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert shared.used == Usage(len(held), 2 * len(held), model_calls=len(held))
    assert 9_980 < shared.used.total_tokens <= 10_000
    assert (shared.reserved_tokens, shared.reserved_cost) == (0, 0)
