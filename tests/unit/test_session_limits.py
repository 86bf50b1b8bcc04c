"""The limits of a session hold for all of its runs together, through resume, export, branches and inner runs."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import (
    Agent,
    Approve,
    ArgumentError,
    LimitError,
    Limits,
    Message,
    Middleware,
    ModelSettings,
    Price,
    RunPausedError,
    Session,
    ToolCall,
    Usage,
    tool,
)
from gossamer.errors import StreamBrokenError
from gossamer.events import TextDelta
from gossamer.models import Capabilities, ModelResponse, ScriptedModel
from gossamer.records import RunFinishedRecord

PRICE = Price(input=1_000, output=10_000)  # a tenth of a cent a token sent, a cent a token received


def speaker(answer=None, tokens: int = 100, written: int = 1) -> ScriptedModel:
    """A model that counts, and whose calls all cost the same."""

    def reply(request):
        parts = answer(request) if answer is not None else "ok"
        message = parts if isinstance(parts, Message) else Message.assistant(parts)
        return ModelResponse(message, Usage(input_tokens=tokens, output_tokens=written, model_calls=1))

    return ScriptedModel(reply, price=PRICE)


def calling(*calls: ToolCall) -> Message:
    return Message("assistant", calls)


@tool(inline=True)
def step() -> str:
    return "stepped"


@tool(needs_approval=True)
def pay() -> str:
    return "paid"


async def test_money_runs_out_over_several_runs():
    session = Session(limits=Limits(max_cost=1.0))
    agent = Agent(speaker(tokens=100))  # 0.11 a call
    results = []
    while not results or results[-1].stopped is None:
        results.append(await agent.run("x", session=session))
        assert len(results) < 20
    assert 2 <= len(results) <= 10
    assert session.usage.cost <= 1.0
    assert session.usage.cost == pytest.approx(0.11 * (len(results) - 1))
    with pytest.raises(LimitError, match="session") as caught:
        _ = results[-1].output
    assert (caught.value.limit, caught.value.allowed) == ("max_cost", 1.0)
    # It stays so, and the session is whole.
    again = await agent.run("y", session=session)
    assert again.finish_reason == "limit"
    assert len(agent.model.requests) == len(results) - 1


async def test_a_stream_is_stopped_too():
    session = Session(limits=Limits(max_tokens=150))
    agent = Agent(speaker(tokens=100))
    await agent.run("x", session=session)
    async with agent.stream("y", session=session) as stream:
        async for _ in stream:
            pass
    assert stream.result.stopped.limit == "max_tokens"


async def test_tool_calls_of_all_runs():
    def reply(request):
        return calling(ToolCall.of("step")) if request.messages[-1].role == "user" else "done"

    session = Session(limits=Limits(max_tool_calls=2))
    agent = Agent(speaker(reply), tools=[step])
    outcomes = [(await agent.run("x", session=session)).finish_reason for _ in range(4)]
    assert outcomes == ["stop", "stop", "limit", "limit"]
    assert session.usage.tool_calls == 2
    with pytest.raises(LimitError, match="session"):
        _ = (await agent.run("x", session=session)).output


async def test_the_tighter_limit_wins_and_says_whose_it_is():
    session = Session(limits=Limits(max_tokens=10_000))
    result = await Agent(speaker(tokens=100)).run("x" * 500, session=session, limits=Limits(max_tokens=50))
    with pytest.raises(LimitError, match="the run") as caught:
        _ = result.output
    assert caught.value.allowed == 50


@pytest.mark.parametrize("field", ["max_turns", "max_seconds", "max_parallel_tools"])
def test_limits_of_a_run_are_refused(field):
    with pytest.raises(ArgumentError, match=field):
        Session(limits=Limits(**{field: 3}))
    session = Session()
    with pytest.raises(ArgumentError, match=field):
        session.limits = Limits(**{field: 3})


def test_limits_must_be_limits():
    with pytest.raises(ArgumentError, match="must be a Limits"):
        Session(limits=5.0)  # pyright: ignore[reportArgumentType]


async def test_limits_can_be_raised_and_lifted():
    session = Session(limits=Limits(max_tokens=150))
    agent = Agent(speaker(tokens=100))
    await agent.run("x", session=session)
    assert (await agent.run("x", session=session)).finish_reason == "limit"
    session.limits = Limits(max_tokens=100_000)
    assert (await agent.run("x", session=session)).finish_reason == "stop"
    session.limits = None
    assert (await agent.run("x", session=session)).finish_reason == "stop"
    for _ in range(20):
        await agent.run("x", session=session)
    session.limits = Limits(max_tokens=2_000)  # what ran without a limit counts all the same
    assert session.budget.used == session.usage
    assert (await agent.run("x", session=session)).finish_reason == "limit"


async def test_first_limits_wait_for_the_run_under_way():
    session = Session()

    @tool
    async def meddle() -> str:
        session.limits = Limits(max_tokens=150)
        return "set"

    def reply(request):
        return calling(ToolCall.of("meddle")) if request.messages[-1].role == "user" else "done"

    result = await Agent(speaker(reply), tools=[meddle]).run("x", session=session)
    assert "SessionBusyError" in result.messages[2].parts[0].text
    assert session.limits is None
    session.limits = Limits(max_tokens=150)
    assert (await Agent(speaker(reply), tools=[meddle]).run("x", session=session)).finish_reason == "limit"


async def test_an_unknown_price_refuses_to_start():
    session = Session(limits=Limits(max_cost=1))
    model = ScriptedModel(["never"])
    with pytest.raises(ArgumentError, match=r"'scripted'.*price=Price"):
        await Agent(model).run("x", session=session)
    assert not model.requests


async def test_an_export_carries_limits_and_use():
    session = Session(limits=Limits(max_cost=0.5))
    agent = Agent(speaker(tokens=100))
    for _ in range(3):
        await agent.run("x", session=session)
    restored = Session.from_export(session.export())
    assert restored.limits == session.limits
    assert restored.usage == session.usage
    while (await agent.run("x", session=session)).stopped is None:
        pass
    while (await agent.run("x", session=restored)).stopped is None:
        pass
    assert restored.usage == session.usage
    assert restored.usage.cost <= 0.5


async def test_a_branch_has_used_what_its_past_used():
    session = Session(limits=Limits(max_tokens=450))
    agent = Agent(speaker(tokens=100))
    await agent.run("x", session=session)
    place = len(session.journal)
    await agent.run("x", session=session)
    branch = session.branch(place)
    assert (branch.usage.total_tokens, session.usage.total_tokens) == (101, 202)
    assert (await agent.run("x", session=branch)).finish_reason == "stop"
    assert branch.usage.total_tokens == 202
    assert session.usage.total_tokens == 202


@pytest.mark.parametrize("through_export", [False, True])
async def test_a_resumed_run_is_counted_once(through_export):
    def reply(request):
        return calling(ToolCall.of("pay")) if request.messages[-1].role == "user" else "done"

    session = Session(limits=Limits(max_tokens=10_000))
    agent = Agent(speaker(reply), tools=[pay])
    paused = await agent.run("x", session=session)
    assert paused.pending
    assert session.usage == Usage(input_tokens=100, output_tokens=1, model_calls=1, cost=0.11)
    if through_export:
        session = Session.from_export(session.export())
    result = await agent.resume(session, {paused.pending[0].call_id: Approve()})
    assert result.output == "done"
    expected = Usage(input_tokens=200, output_tokens=2, model_calls=2, tool_calls=1, cost=0.22)
    assert session.usage == result.usage == expected
    assert session.budget.used == expected


async def test_a_paused_inner_run_is_counted_once():
    def inner_reply(request):
        return calling(ToolCall.of("pay")) if request.messages[-1].role == "user" else "inner done"

    def outer_reply(request):
        return calling(ToolCall.of("ask", prompt="p")) if request.messages[-1].role == "user" else "done"

    inner = Agent(speaker(inner_reply), tools=[pay])
    agent = Agent(speaker(outer_reply), tools=[inner.as_tool("ask", "Asks.")])
    session = Session(limits=Limits(max_tokens=100_000))
    paused = await agent.run("x", session=session)
    assert session.usage.model_calls == 2
    restored = Session.from_export(session.export())
    assert restored.usage == session.usage
    result = await agent.resume(restored, {paused.pending[0].call_id: Approve()})
    assert result.output == "done"
    assert restored.usage.model_calls == 4
    assert restored.usage == result.usage
    assert restored.budget.used == result.usage
    # The same without leaving the process.
    await agent.resume(session, {paused.pending[0].call_id: Approve()})
    assert session.usage == restored.usage == session.budget.used


async def test_a_run_that_broke_off_is_counted():
    def reply(request):
        if request.messages[-1].role == "user":
            return calling(ToolCall.of("step"))
        raise StreamBrokenError("gone", provider="x")

    session = Session(limits=Limits(max_tokens=100_000))
    agent = Agent(speaker(reply), tools=[step])
    with pytest.raises(StreamBrokenError):
        await agent.run("x", session=session)
    assert session.usage == Usage(input_tokens=100, output_tokens=1, model_calls=1, tool_calls=1, cost=0.11)


class Slow:
    """Says one word and is then silent for good; ends its answers as it is told where they are not streamed."""

    name = "slow"
    dialect = "slow"
    capabilities = Capabilities()
    price = PRICE

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def respond(self, request):
        raise self.error

    async def stream(self, request):
        yield TextDelta("one")
        await asyncio.Event().wait()


CAPPED = ModelSettings(max_tokens=100)  # a dollar


async def leave_early(agent: Agent, session: Session) -> None:
    async with agent.stream("x", session=session) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


async def test_streams_left_early_do_not_slip_past_the_limit():
    """What they used is not known; it counts as all that they could have used, wherever the session is kept."""
    session = Session(limits=Limits(max_cost=5.0))
    agent = Agent(Slow(), settings=CAPPED)
    for _ in range(3):
        await leave_early(agent, session)
        held = session.budget.used.cost
        session = Session.from_export(session.export())
        assert session.budget.used.cost == pytest.approx(held)
    assert 3.0 < session.budget.used.cost < 5.0
    assert session.usage.cost == 0
    for _ in range(5):
        await leave_early(agent, session)
    assert session.budget.used.cost <= 5.0
    assert (await agent.run("x", session=session)).finish_reason == "limit"


async def test_a_call_lost_inside_a_tool_counts_in_the_sessions_around():
    @tool
    async def ask() -> str:
        try:
            await inner.run("p")
        except StreamBrokenError:
            return "lost"

    inner = Agent(Slow(StreamBrokenError("gone", provider="x")), settings=CAPPED)
    session = Session(limits=Limits(max_cost=10.0))
    model = speaker(lambda request: calling(ToolCall.of("ask")) if len(request.messages) == 1 else "done")
    assert (await Agent(model, tools=[ask]).run("x", session=session)).output == "done"
    assert session.budget.used.cost > session.usage.cost + 1.0
    assert Session.from_export(session.export()).budget.used.cost == pytest.approx(session.budget.used.cost)


async def test_middleware_that_breaks_a_stream_off_pays_for_it():
    class Censor(Middleware):
        def delta(self, context, delta):
            raise RuntimeError("no")

    session = Session(limits=Limits(max_cost=5.0))
    with pytest.raises(RuntimeError, match="no"):
        await leave_early(Agent(Slow(), settings=CAPPED, middleware=[Censor()]), session)
    assert session.budget.used.cost > 1.0
    assert session.budget.reserved_cost == 0


async def test_a_request_that_cannot_be_sent_costs_nothing():
    session = Session(limits=Limits(max_cost=5.0))
    with pytest.raises(ArgumentError):
        await Agent(Slow(ArgumentError("no text"))).run("x", session=session)
    assert session.budget.used.cost == session.budget.reserved_cost == 0


@pytest.mark.parametrize("changed", ["messages", "instructions"])
async def test_middleware_that_changes_requests_cannot_outrun_the_limit(changed):
    """What was counted once bounds only what goes on from it."""

    class Changes(Middleware):
        async def model(self, context, request, next):
            view = request.messages
            if changed == "messages":
                return await next(
                    msgspec.structs.replace(request, messages=view.part(len(view) - 1, len(view)))
                )
            return await next(msgspec.structs.replace(request, instructions="i" * 10 ** (len(view) // 2)))

    @tool(inline=True)
    def read() -> str:
        return "r" * (10 ** len(model.requests) if changed == "messages" else 1)

    def reply(request):
        said = [part for message in request.messages for part in message.parts]
        sent = sum(len(part.text) for part in said if not isinstance(part, ToolCall))
        used = Usage(sent + len(request.instructions or ""), 1, model_calls=1)
        return ModelResponse(calling(ToolCall.of("read")), used)

    model = ScriptedModel(reply, price=PRICE)
    result = await Agent(model, tools=[read], middleware=[Changes()]).run("x", limits=Limits(max_tokens=2500))
    assert result.finish_reason == "limit"
    assert len(model.requests) > 1
    assert result.usage.total_tokens <= 2500


async def test_a_crash_counts_what_the_journal_holds():
    def reply(request):
        return calling(ToolCall.of("pay")) if request.messages[-1].role == "user" else "done"

    session = Session(limits=Limits(max_tokens=100_000))
    agent = Agent(speaker(reply), tools=[pay])
    await agent.run("x", session=session)
    with pytest.raises(RunPausedError):
        await agent.run("y", session=session)
    result = await agent.run("y", session=session, pending="deny")  # the paused run is given up
    assert result.pending
    assert session.usage.model_calls == 2
    assert not any(isinstance(record, RunFinishedRecord) for record in session.journal)


async def test_a_session_inside_a_limited_session_counts_in_both():
    inside = Session(limits=Limits(max_tokens=150))
    inner = Agent(speaker(tokens=100))

    @tool
    async def ask() -> str:
        return (await inner.run("p", session=inside)).output

    def reply(request):
        return calling(ToolCall.of("ask")) if request.messages[-1].role == "user" else "done"

    outside = Session(limits=Limits(max_tokens=100_000))
    agent = Agent(speaker(reply), tools=[ask])
    await agent.run("x", session=outside)
    assert inside.usage.total_tokens == 101
    assert outside.usage.total_tokens == outside.budget.used.total_tokens == 303
    await agent.run("x", session=outside)  # the inner run has no room, the outer one goes on
    assert inside.usage.total_tokens == 101
    assert outside.usage.total_tokens == 505


@settings(max_examples=60, deadline=None)
@given(
    allowed=st.integers(1, 300),
    kind=st.sampled_from(["max_cost", "max_tokens", "max_tool_calls"]),
    width=st.integers(1, 5),
    costs=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=6),
    runs=st.integers(1, 4),
    of_session=st.booleans(),
)
def test_no_tree_of_runs_goes_past_a_limit(allowed, kind, width, costs, runs, of_session):
    """Concurrent runs inside tools, in several runs of a session: the sum stays within, whatever each call costs."""
    turn = 0

    def answer(request, message):
        nonlocal turn
        turn += 1
        sent, received = costs[turn % len(costs)]
        # A provider never counts more than there are bytes, nor more output than it was allowed.
        settings = request.settings
        cap = settings.max_tokens if settings is not None and settings.max_tokens is not None else received
        used = Usage(input_tokens=sent, output_tokens=min(received, cap), model_calls=1)
        return ModelResponse(message, used)

    def inner_reply(request):
        return answer(request, Message.assistant("inner"))

    def outer_reply(request):
        if request.messages[-1].role == "user":
            return answer(request, calling(*[ToolCall.of("ask", prompt="p" * 60)] * width))
        return answer(request, Message.assistant("done"))

    async def go():
        inner = Agent(ScriptedModel(inner_reply, price=PRICE))
        ask = inner.as_tool("ask", "Asks.")
        limits = Limits(**{kind: allowed / 10 if kind == "max_cost" else allowed * 3})
        outer = Agent(ScriptedModel(outer_reply, price=PRICE), tools=[ask])
        session = Session(limits=limits if of_session else None)
        total = Usage()
        for _ in range(runs):
            result = await outer.run("x" * 60, session=session, limits=None if of_session else limits)
            total = session.usage if of_session else result.usage
            spent = {
                "max_cost": total.cost,
                "max_tokens": total.total_tokens,
                "max_tool_calls": total.tool_calls,
            }
            assert spent[kind] <= getattr(limits, kind) * (1 + 1e-9)
        if of_session:
            assert session.budget is not None
            assert session.budget.reserved_tokens == 0
            assert math.isclose(session.budget.used.cost, total.cost, abs_tol=1e-9)
            assert session.budget.used.tool_calls == total.tool_calls

    asyncio.run(go())
