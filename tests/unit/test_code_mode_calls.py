"""The calls of code pass what any other call passes: approvals, guardrails, middleware, limits; they stream and stop as others do."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager

import pytest
from tests.code_sandboxes import InProcess, bubblewrap, every_sandbox, kind, sandbox

from gossamer import (
    Agent,
    Answer,
    Approve,
    Deny,
    EndRun,
    GuardrailError,
    Limits,
    Message,
    Middleware,
    ModelRetry,
    RunContext,
    Session,
    Team,
    Text,
    ToolCall,
    Toolkit,
    Usage,
    code_mode,
    plan_toolkit,
    tool,
)
from gossamer.events import ApprovalNeeded, InnerEvent, TextDelta, ToolCallFinished, ToolProgress
from gossamer.guardrails import Guardrail
from gossamer.models import ModelResponse, Price, ScriptedModel
from gossamer.records import RunFinishedRecord, ToolResultRecord, ToolStartedRecord
from gossamer.stores import SQLiteStore

__all__ = ["bubblewrap", "every_sandbox", "kind", "sandbox"]


def run(code: str) -> ToolCall:
    return ToolCall.of("run_code", code=code)


def came_of(result) -> list:
    return [part for message in result.messages if message.role == "tool" for part in message.parts]


class Till:
    """Tools that take note of what they did."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.looked = 0

        @tool(needs_approval=lambda amount: amount > 10)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            await asyncio.sleep(0)
            return f"paid {amount}"

        @tool
        async def look() -> int:
            """Look how often it was looked."""
            self.looked += 1
            return self.looked

        @tool(run_by="person")
        def which(question: str) -> str:
            """Ask a person."""

        self.tools = [pay, look, which]

    def agent(self, sandbox, *replies, **options) -> Agent:
        return code_mode(
            Agent(ScriptedModel(list(replies)), name="till", tools=self.tools, **options), sandbox
        )


# --- pauses -------------------------------------------------------------------------------------------------

CODE = """\
import asyncio

async def safe(call):
    try:
        return await call
    except RuntimeError as error:
        return f'no: {error}'

first = await look()
print(await asyncio.gather(safe(pay(5)), safe(pay(20)), safe(pay(30))))
print(await which('Which?'), first, await look())
"""


@pytest.mark.parametrize("anew", [False, True], ids=["in memory", "stored"])
async def test_a_pause_in_the_middle_of_code_and_its_going_on(every_sandbox, anew: bool) -> None:
    till = Till()
    async with SQLiteStore(":memory:") as store:

        def session() -> Session:
            return Session("s", store=store) if anew else kept

        kept = Session()
        result = await till.agent(every_sandbox, run(CODE)).run("x", session=session())
        assert result.finish_reason == "paused"
        assert [one.call.arguments for one in result.pending] == ['{"amount":20}', '{"amount":30}']
        assert [one.agent for one in result.pending] == ["till", "till"]
        assert (till.paid, till.looked) == ([5], 1)
        twenty, thirty = (one.call_id for one in result.pending)

        # Somebody else, elsewhere, decides about one of them, and then about the other.
        agent = till.agent(every_sandbox, "done")
        result = await agent.resume(session(), {twenty: Approve(args={"amount": 21})})
        assert [one.call_id for one in result.pending] == [thirty]
        assert till.paid == [5, 21]
        result = await agent.resume(session(), {thirty: Deny("Too much.")})
        assert [one.kind for one in result.pending] == ["question"]
        result = await agent.resume(session(), {result.pending[0].call_id: Answer("this one")})
        assert result.output == "done"
        assert came_of(result)[0].text.splitlines() == [
            "['paid 5', 'paid 21', 'no: A person denied this call. Too much.']",
            "this one 1 2",
        ]
        assert (till.paid, till.looked) == ([5, 21], 2)
        # The code, five calls that began, one of which a person answered, and one that was denied.
        assert (result.usage.model_calls, result.usage.tool_calls) == (2, 5)
        assert result.session is not None
        assert result.session.usage == result.usage


async def test_a_decision_that_is_remembered_holds_in_code_and_beside_it() -> None:
    till = Till()
    agent = till.agent(
        InProcess(), run("await pay(20)"), run("await pay(40)"), ToolCall.of("pay", amount=50), "done"
    )
    session = Session()
    result = await agent.run("x", session=session)
    result = await agent.resume(session, {result.pending[0].call_id: Approve(remember="tool")})
    assert result.output == "done"
    assert till.paid == [20, 40, 50]


async def test_arguments_of_whoever_decides_are_checked_before_they_hold() -> None:
    till = Till()
    agent = till.agent(InProcess(), run("await pay(20)"), "done")
    session = Session()
    result = await agent.run("x", session=session)
    with pytest.raises(Exception, match="do not fit"):
        await agent.resume(session, {result.pending[0].call_id: Approve(args={"sum": 1})})
    assert till.paid == []


async def test_code_that_does_not_repeat_itself_is_stopped_and_nothing_runs_twice(every_sandbox) -> None:
    till = Till()
    agent = till.agent(
        every_sandbox, run("n = await look()\nawait pay(5)\nawait pay(20)\nawait pay(7)"), "done"
    )
    session = Session()
    result = await agent.run("x", session=session)
    assert till.paid == [5]
    # As if the code had asked a clock: what the journal says of its first call is not what it does now.
    call_id = came_of_pending(session)
    inner = session.child(call_id)
    places = [place for place, record in enumerate(inner.journal) if isinstance(record, ToolResultRecord)]
    assert len(places) == 2
    changed = session.export().replace(
        b'"name":"look","arguments":"{}"', b'"name":"look","arguments":"{\\"a\\":1}"'
    )
    session = Session.from_export(changed)
    result = await agent.resume(session, {result.pending[0].call_id: Approve()})
    assert result.output == "done"
    part = came_of(result)[0]
    assert part.outcome == "error"
    assert (
        "as before: it called look with {}, and did not make calls that it had made then: look (1), pay (2)"
        in part.text
    )
    assert '- pay {"amount":5}: paid 5' in part.text
    assert '- pay {"amount":20}: paid 20' in part.text
    assert (till.paid, till.looked) == ([5, 20], 1)


def came_of_pending(session: Session) -> str:
    return session.turn.calls[0].id


async def test_code_that_ends_without_the_calls_that_it_had_made(sandbox) -> None:
    till = Till()
    session = Session()
    result = await till.agent(sandbox, run("await pay(5)\nawait pay(20)")).run("x", session=session)
    changed = session.export().replace(b"await pay(5)\\\\nawait pay(20)", b"print('other')")
    assert changed != session.export()
    session = Session.from_export(changed)
    result = await till.agent(sandbox, "done").resume(session, {result.pending[0].call_id: Approve()})
    assert (
        "it came to its end, and did not make calls that it had made then: pay (2)" in came_of(result)[0].text
    )
    assert till.paid == [5, 20]


# --- guardrails and middleware --------------------------------------------------------------------------------


async def test_guardrails_check_the_calls_and_results_of_code(sandbox) -> None:
    seen = []

    def check(context: RunContext, text: str) -> str | None:
        seen.append((context.run_id, text))
        if "13" in text:
            raise ModelRetry("No thirteen.")
        return text.replace("paid 5", "paid five") if "run_code" not in text else None

    guardrail = Guardrail("numbers", check, ("call", "result"))
    till = Till()
    code = (
        "print(await pay(5))\ntry:\n    await pay(amount=13)\nexcept RuntimeError as error:\n    print(error)"
    )
    result = await till.agent(sandbox, run(code.replace("13", "10 + 3")), "done", guardrails=[guardrail]).run(
        "x"
    )
    assert came_of(result)[0].text.splitlines() == ["paid five", "No thirteen."]
    assert till.paid == [5]
    assert [text for run_id, text in seen if run_id == result.run_id][1:4] == [
        '{"amount":5}',
        "paid 5",
        '{"amount":13}',
    ]


@pytest.mark.parametrize("place", ["call", "result"])
async def test_a_guardrail_that_stops_the_run_stops_it_from_within_code(sandbox, place) -> None:
    def check(_: RunContext, text: str) -> None:
        if "secret" in text and "\\n" not in text:
            raise GuardrailError("it is a secret")

    @tool(inline=True)
    def say(word: str) -> str:
        return word

    agent = Agent(
        ScriptedModel([run("try:\n    await say('sec' + 'ret')\nexcept RuntimeError:\n    pass")]),
        tools=[say],
        guardrails=[Guardrail("secrets", check, (place,))],
    )
    session = Session()
    with pytest.raises(GuardrailError, match=f"guardrail 'secrets' stopped the {place}: it is a secret"):
        await code_mode(agent, sandbox).run("x", session=session)
    assert session.unfinished is None


async def test_middleware_lies_around_each_call_of_code(sandbox) -> None:
    seen = []

    class Watching(Middleware):
        async def run(self, context, next):
            seen.append("run")
            return await next()

        async def model(self, context, request, next):
            seen.append(f"model, {len(request.tools)} tools")
            return await next(request)

        async def tool(self, context, call, next):
            seen.append(f"{call.name} in {context.run_id == run_id()}")
            return await next(call)

    till = Till()
    agent = till.agent(sandbox, run("await pay(1)\nawait pay(2)"), "done", middleware=[Watching()])
    session = Session()

    def run_id() -> str:
        return session.unfinished.run

    await agent.run("x", session=session)
    assert seen == [
        "run",
        "model, 4 tools",
        "run_code in True",
        "pay in True",
        "pay in True",
        "model, 4 tools",
    ]


# --- limits ---------------------------------------------------------------------------------------------------


async def test_a_limit_on_tool_calls_is_hard_and_stops_the_run(sandbox) -> None:
    till = Till()
    code = "for number in range(9):\n    try:\n        await pay(1)\n    except RuntimeError:\n        pass"
    agent = till.agent(sandbox, run(code), "never asked", limits=Limits(max_tool_calls=4))
    result = await agent.run("x")
    assert result.finish_reason == "limit"
    assert "max_tool_calls" in str(result.stopped)
    assert till.paid == [1, 1, 1]  # and the code itself
    assert result.usage.tool_calls == 4
    assert "The code failed: a limit stopped it" in came_of(result)[0].text


async def test_limits_on_tokens_and_money_are_not_touched_by_code(sandbox) -> None:
    till = Till()
    code = "for number in range(30):\n    await pay(1)"
    used = Usage(input_tokens=1_000, output_tokens=100, model_calls=1)
    replies = [ModelResponse(Message("assistant", (part,)), used) for part in (run(code), Text("done"))]
    limits = Limits(max_tokens=40_000, max_cost=1.0, max_turns=2, max_tool_calls=31)
    agent = Agent(ScriptedModel(replies, price=Price(1.0, 1.0)), tools=till.tools, limits=limits)
    session = Session(limits=Limits(max_tokens=40_000))
    result = await code_mode(agent, sandbox).run("x", session=session)
    assert result.output == "done"
    assert (len(till.paid), result.usage.model_calls, result.usage.tool_calls) == (30, 2, 31)
    assert session.budget.used.total_tokens == result.usage.total_tokens == 2_200
    assert result.usage.cost == pytest.approx(0.0022)


async def test_how_many_run_at_once_is_limited_in_code_too(sandbox) -> None:
    at_once = most = 0

    @tool
    async def work() -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        at_once -= 1
        return "done"

    code = "import asyncio\nawait asyncio.gather(*[work() for _ in range(6)])"
    agent = Agent(ScriptedModel([run(code), "done"]), tools=[work], limits=Limits(max_parallel_tools=2))
    await code_mode(agent, sandbox).run("x")
    assert most == 2


# --- ways to end ------------------------------------------------------------------------------------------------


async def test_a_tool_that_ends_the_run_ends_it_from_within_code(sandbox) -> None:
    @tool(inline=True)
    def finish(answer: list) -> str:
        raise EndRun(answer)

    agent = Agent(ScriptedModel([run("await finish([1, 2])\nprint('never')")]), tools=[finish])
    result = await code_mode(agent, sandbox).run("x")
    assert (result.output, result.finish_reason) == ([1, 2], "ended_by_tool")


@pytest.mark.parametrize("way", ["task", "stream", "time", "dropped", "stream dropped"])
async def test_whatever_stops_a_run_stops_its_code(way: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    sandbox = InProcess()
    limits = Limits(max_seconds=0.05) if way == "time" else None
    agent = code_mode(Agent(ScriptedModel([run("await wait()")]), tools=[wait], limits=limits), sandbox)
    session = Session()
    match way:
        case "task":
            running = asyncio.ensure_future(agent.run("x", session=session))
            await begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        case "stream":
            async with agent.stream("x", session=session) as stream:
                async for _ in stream:
                    if begun.is_set():
                        break
                    if session.turn is not None and session.turn.started:
                        await begun.wait()
                        break
        case "time":
            assert (await agent.run("x", session=session)).finish_reason == "limit"
        case "dropped":
            coroutine = agent.run("x", session=session)
            waited = coroutine.send(None)
            while not begun.is_set():
                await asyncio.sleep(0)
                if waited is None or waited.done():
                    waited = coroutine.send(None)
            coroutine.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        case "stream dropped":
            stream = agent.stream("x", session=session)
            async for _ in stream:
                if session.turn is not None and session.turn.started:
                    await begun.wait()
                    break
            del stream, _
            gc.collect()
    await ended.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (sandbox.opened, sandbox.open) == (1, 0)
    assert session.unfinished is None
    assert session.turn is None


async def test_a_session_of_the_sandbox_is_closed_however_the_code_ends(sandbox) -> None:
    inside = InProcess()
    till = Till()
    agent = till.agent(
        inside,
        run("1 / 0"),
        run("print(1)"),
        run("await pay(1)\nawait pay(20)"),
        limits=Limits(max_tool_calls=9),
    )
    result = await agent.run("x")
    assert result.finish_reason == "paused"
    assert (inside.opened, inside.open) == (3, 0)


async def test_nothing_of_a_run_stays_behind() -> None:
    till = Till()
    agent = till.agent(InProcess(), run("await pay(1)"), "done")
    contexts = []

    @tool(inline=True)
    def keep(context: RunContext) -> str:
        contexts.append(weakref.ref(context))
        return "kept"

    agent = code_mode(Agent(ScriptedModel([run("await keep()"), "done"]), tools=[keep]), InProcess())
    await agent.run("x")
    gc.collect()
    assert [one() for one in contexts] == [None]


async def test_nothing_that_a_session_holds_open_is_kept_behind_it() -> None:
    class Open:
        async def look(self) -> int:
            """Look."""
            return 1

    opened: list[weakref.ref[Open]] = []

    @asynccontextmanager
    async def opens():
        one = Open()
        opened.append(weakref.ref(one))
        yield [one.look]

    toolkit = Toolkit("looking", open=opens, scope="session")
    model = ScriptedModel([run("await look()"), "done"] * 3)
    agent = code_mode(Agent(model, tools=[toolkit]), InProcess())
    for _ in range(3):
        async with Session() as session:
            result = await agent.run("x", session=session)
            assert came_of(result)[0].text == "1"
    del session, result
    gc.collect()
    assert [one() for one in opened] == [None] * 3


# --- streams --------------------------------------------------------------------------------------------------


async def test_a_stream_tells_of_the_calls_of_code_as_they_happen(every_sandbox) -> None:
    @tool
    async def count(to: int):
        for number in range(to):
            yield number

    till = Till()
    agent = code_mode(
        Agent(
            ScriptedModel([run("print(await count(2))\nawait pay(20)"), "done"]), tools=[count, *till.tools]
        ),
        every_sandbox,
    )
    session = Session()
    events = []
    async with agent.stream("x", session=session) as stream:
        async for event in stream:
            if isinstance(event, InnerEvent):
                assert event.path == ("run_code",)
                events.append(event.event)
    assert stream.result.finish_reason == "paused"
    assert [event.value for event in events if isinstance(event, ToolProgress)] == [0, 1]
    finished = [event for event in events if isinstance(event, ToolCallFinished)]
    assert [event.result.text for event in finished] == ["1"]
    asked = [event.pending.call.name for event in events if isinstance(event, ApprovalNeeded)]
    assert asked == ["pay"]
    decision = {stream.result.pending[0].call_id: Approve()}
    async with agent.resume_stream(session, decision) as stream:
        inside = [event.event async for event in stream if isinstance(event, InnerEvent)]
    texts = [event.text for event in inside if isinstance(event, TextDelta)]
    assert texts == ["1\n'paid 20'"]
    assert stream.result.output == "done"


# --- runs inside ----------------------------------------------------------------------------------------------


async def test_agents_are_asked_by_code_and_pause_within_it(sandbox) -> None:
    till = Till()
    replies = [ToolCall.of("pay", amount=5), ToolCall.of("pay", amount=20), "paid both"]
    clerk = Agent(ScriptedModel(replies), name="clerk", tools=till.tools)
    code = "answer = await ask_clerk('pay')\nprint('The clerk:', answer)"
    agent = Agent(ScriptedModel([run(code), "done"]), tools=[clerk.as_tool("ask_clerk", "Pays.")])
    session = Session()
    agent = code_mode(agent, sandbox)
    result = await agent.run("x", session=session)
    assert [one.agent for one in result.pending] == ["clerk"]
    session = Session.from_export(session.export())
    result = await agent.resume(session, {result.pending[0].call_id: Approve()})
    assert came_of(result)[0].text == "The clerk: paid both"
    assert till.paid == [5, 20]
    assert (result.usage.model_calls, result.usage.tool_calls) == (5, 4)
    assert session.usage == result.usage


async def test_code_in_code(sandbox) -> None:
    till = Till()
    clerk = till.agent(sandbox, run("await pay(1)"), "the clerk is done")
    outer = Agent(
        ScriptedModel([run("await ask_clerk('pay')"), "done"]), tools=[clerk.as_tool("ask_clerk", "Pays.")]
    )
    result = await code_mode(outer, sandbox).run("x")
    assert came_of(result)[0].text == "'the clerk is done'"
    assert till.paid == [1]


@pytest.mark.parametrize("mode", ["coordinate", "plan"])
async def test_the_leader_of_a_team_asks_its_members_in_code(sandbox, mode: str) -> None:
    heard = []

    def said(name: str) -> ScriptedModel:
        def reply(request) -> str:
            heard.append([message.text for message in request.messages])
            return f"{name} agrees"

        return ScriptedModel(reply)

    members = [Agent(said(name), name=name) for name in ("a", "b")]
    code = "import asyncio\nprint(await asyncio.gather(ask_a('Really?'), ask_b('Sure?')))"
    if mode == "plan":
        code = (
            "await create_plan('goal', ['one', 'two'])\n"
            "print(await ask_a('Really?', 1), await ask_b('Sure?', item=2))\nprint(await view_plan())"
        )
    replies = [run(code), "all agree"]
    tools = [plan_toolkit()] if mode == "plan" else [Till().tools[1]]
    leader = code_mode(Agent(ScriptedModel(replies), name="leader", tools=tools), sandbox)
    team = Team(members, leader=leader, mode=mode, context="shared", name="team")
    result = await team.run("Shall we?")
    assert result.output == "all agree"
    words = came_of(result)[0].text
    assert "a agrees" in words
    assert "b agrees" in words
    assert all(one[0] == "Shall we?" for one in heard)  # what the team was asked, and not the code
    if mode == "plan":
        assert "[x] 1. one (a)\n[x] 2. two (b)" in words


# --- what the journal holds -----------------------------------------------------------------------------------


async def test_the_calls_of_code_have_a_journal_of_their_own(sandbox) -> None:
    till = Till()
    async with SQLiteStore(":memory:") as store:
        session = Session("s", store=store)
        result = await till.agent(sandbox, run("await pay(1)\nawait pay(2)"), "done").run(
            "x", session=session
        )
        call = came_of(result)[0]
        again = Session("s", store=store)
        await again.load()
        inner = again.child(call.call_id, result.run_id)
        await inner.load()
        kinds = [type(record) for record in inner.journal]
        assert kinds.count(ToolStartedRecord) == kinds.count(ToolResultRecord) == 2
        assert kinds[-1] is RunFinishedRecord
        assert inner.journal[0].parent == result.run_id
        assert again.usage == result.usage
