"""Runs of teams: what waits, what goes on after a crash, what is cancelled, what limits stop, and what streams."""

from __future__ import annotations

import asyncio
import gc
import weakref

import msgspec
import pytest

from gossamer import (
    Agent,
    Approve,
    Deny,
    LimitError,
    Limits,
    Message,
    ModelSettings,
    Price,
    RunContext,
    Session,
    Team,
    ToolCall,
    Usage,
    tool,
)
from gossamer.events import (
    ApprovalNeeded,
    InnerEvent,
    MessageFinished,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCallFinished,
)
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.simulator import Script, Simulator


@tool(needs_approval=True)
async def pay(context: RunContext, amount: int) -> str:
    """Pay."""
    context.deps.append((context.agent, amount))
    return f"paid {amount}"


def answers(request) -> int:
    return sum(message.role == "assistant" for message in request.messages)


def steps(*replies) -> ScriptedModel:
    """A model that answers by the number of answers given so far: the same in every process."""
    return ScriptedModel(lambda request: replies[answers(request)])


def paying(name: str, *amounts: int) -> Agent:
    calls = [ToolCall.of("pay", amount=amount) for amount in amounts]
    return Agent(steps(*calls, f"{name} done"), name=name, tools=[pay])


def saying(name: str, text: str = "") -> Agent:
    return Agent(ScriptedModel(lambda request: text or f"{name}: {request.messages[-1].text}"), name=name)


def nest(mode: str) -> Team:
    """A team of teams of agents that pay."""
    first = Team([paying("a", 1), paying("b", 2)], mode="broadcast", name="first")
    second = Team([paying("c", 3), saying("d")], mode=mode, name="second")
    return Team([first, second, paying("e", 4)], mode="broadcast", name="outer")


# --- approvals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["broadcast", "sequential"])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_approvals_of_nested_members_surface_together_and_are_decided_one_by_one(
    mode, elsewhere, streamed
):
    done: list[tuple[str, int]] = []
    session = Session()

    async def drive(decisions=None):
        team = nest(mode)
        if not streamed:
            if decisions is None:
                return await team.run("x", session=session, deps=done)
            return await team.resume(session, decisions, deps=done)
        if decisions is None:
            stream = team.stream("x", session=session, deps=done)
        else:
            stream = team.resume_stream(session, decisions, deps=done)
        async with stream:
            asked = [event.pending async for event in stream if isinstance(event, ApprovalNeeded)]
        assert tuple(asked) == stream.result.pending
        return stream.result

    paused = await asyncio.wait_for(drive(), 10)
    assert {(one.agent, one.call.arguments) for one in paused.pending} == {
        (name, f'{{"amount":{amount}}}') for name, amount in (("a", 1), ("b", 2), ("c", 3), ("e", 4))
    }
    while paused.pending:
        if elsewhere:
            session = Session.from_export(session.export())
        one = paused.pending[-1]
        decision = Deny("no") if one.agent == "b" else Approve()
        before = len(done)
        paused = await asyncio.wait_for(drive({one.call_id: decision}), 10)
        assert len(done) == before + (one.agent != "b")
    assert sorted(done) == [("a", 1), ("c", 3), ("e", 4)]
    assert "## first\n\n## a\n\na done\n\n## b\n\nb done" in paused.output
    assert "## e\n\ne done" in paused.output
    assert paused.usage == Usage(model_calls=9, tool_calls=3 + 3 + 4)


async def test_all_approvals_of_a_team_at_once():
    done: list[tuple[str, int]] = []
    paused = await nest("broadcast").run("x", deps=done)
    decisions = {one.call_id: Approve() for one in paused.pending}
    result = await asyncio.wait_for(nest("broadcast").resume(paused.session, decisions, deps=done), 10)
    assert sorted(done) == [("a", 1), ("b", 2), ("c", 3), ("e", 4)]
    assert result.finish_reason == "stop"


async def test_a_routed_member_pauses_and_its_answer_still_ends_the_run():
    def team() -> Team:
        return Team([paying("a", 1)], mode="route", leader=steps([ToolCall.of("ask_a")]), name="desk")

    done: list[tuple[str, int]] = []
    paused = await team().run("x", deps=done)
    session = Session.from_export(paused.session.export())
    result = await team().resume(session, {paused.pending[0].call_id: Approve()}, deps=done)
    assert (result.output, done) == ("a done", [("a", 1)])


# --- crashes ----------------------------------------------------------------------------------------------


def shapes(act, watched):
    """Teams of each mode whose members act, and how many of their tools run."""

    def member(name: str, text: str = "") -> Agent:
        return Agent(watched(ToolCall.of("act", name=name), text or f"{name} done"), name=name, tools=[act])

    inner = Team([member("i1"), member("i2")], mode="sequential", name="inner")
    return {
        "broadcast": Team([member("a"), member("b"), inner], mode="broadcast"),
        "sequential": Team([member("a"), inner, member("b")], mode="sequential"),
        "consensus": Team([member("a", "yes"), member("b", "yes")], mode="consensus"),
        "judged": Team(
            [member("a", "yes"), member("b", "yes")],
            mode="consensus",
            leader=watched("{}", "fine", judge='{"agreed": true}'),
        ),
        "route": Team([member("a"), inner], mode="route", leader=watched([ToolCall.of("ask_inner")])),
        "coordinate": Team(
            [member("a"), inner],
            leader=watched([ToolCall.of("ask_a", prompt="1"), ToolCall.of("ask_inner", prompt="2")], "led"),
        ),
        "plan": Team(
            [member("a"), member("b")],
            mode="plan",
            leader=watched(
                ToolCall.of("create_plan", goal="g", items=["one", "two"]),
                [ToolCall.of("ask_a", prompt="1", item=1), ToolCall.of("ask_b", prompt="2", item=2)],
                ToolCall.of("finish_plan", outcome="done"),
                "planned",
            ),
        ),
    }


@pytest.mark.parametrize(
    "shape", ["broadcast", "sequential", "consensus", "judged", "route", "coordinate", "plan"]
)
async def test_every_moment_of_a_teams_run_may_be_its_last(shape):
    """Exports taken at each model call and tool, resumed: the same answer, and no tool that ran runs again."""
    exports: list[bytes] = []
    started: list[str] = []
    session = Session()

    @tool
    async def act(name: str) -> str:
        started.append(name)
        exports.append(session.export())
        return f"{name} acted"

    def watched(*replies, judge=None):
        def reply(request):
            exports.append(session.export())
            if judge is not None:
                return judge if request.output_schema is not None else replies[-1]
            return replies[answers(request)]

        return ScriptedModel(reply)

    whole = await shapes(act, watched)[shape].run("x", session=session)
    once = sorted(started)
    moments = list(exports)
    assert len(moments) > 4
    for moment in moments:
        session = Session.from_export(moment)
        begun = begun_in(msgspec.json.decode(moment))
        started.clear()
        result = await asyncio.wait_for(shapes(act, watched)[shape].resume(session), 10)
        assert result.output == whole.output
        assert sorted([*begun, *started]) == once
        assert result.usage.tool_calls == whole.usage.tool_calls


def begun_in(session) -> list[str]:
    """The names of the acts that had begun when an export was made."""
    names = {
        part["id"]: msgspec.json.decode(part["arguments"])["name"]
        for record in session["journal"]
        if record["type"] == "message"
        for part in record["message"]["parts"]
        if part["type"] == "tool_call" and part["name"] == "act"
    }
    begun = [
        names[record["call_id"]]
        for record in session["journal"]
        if record["type"] == "tool_started" and record["call_id"] in names
    ]
    return begun + [name for child in session.get("children", {}).values() for name in begun_in(child)]


# --- cancelling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_a_team_stops_its_members_and_leaves_every_session_whole(streamed):
    begun = asyncio.Barrier(3)
    stopped: list[str] = []

    def hanging(name: str) -> Agent:
        async def reply(request):
            await begun.wait()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.append(name)
                raise

        return Agent(ScriptedModel(reply), name=name)

    inner = Team([hanging("b")], mode="sequential", name="inner")
    team = Team([hanging("a"), inner], mode="broadcast")
    session = Session()

    async def drive() -> None:
        if not streamed:
            await team.run("x", session=session)
            return
        async with team.stream("x", session=session) as stream:
            async for _ in stream:
                pass

    task = asyncio.create_task(drive())
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stopped) == ["a", "b"]
    assert session.unfinished is None
    for call in session.messages[1].tool_calls:
        assert session.child(call.id).unfinished is None
    assert (
        await Team([saying("a")], mode="broadcast").run("next", session=session)
    ).output == "## a\n\na: next"


# --- limits -----------------------------------------------------------------------------------------------


def using(tokens: int, text: str = "ok"):
    """A model that writes so many tokens, or as many as it may."""

    def reply(request):
        most = tokens if request.settings is None else request.settings.max_tokens
        return ModelResponse(Message.assistant(text), Usage(output_tokens=min(tokens, most), model_calls=1))

    return ScriptedModel(reply)


async def test_a_limit_of_the_outermost_team_holds_for_the_innermost_member():
    model = ScriptedModel(lambda request: ToolCall("spin"))

    @tool(inline=True)
    def spin() -> str:
        return "round"

    deep = Team([Agent(model, name="spinner", tools=[spin])], mode="broadcast", name="deep")
    team = Team([deep], mode="sequential", limits=Limits(max_tool_calls=6))
    result = await asyncio.wait_for(team.run("x"), 10)
    assert result.stopped is not None
    assert result.stopped.limit == "max_tool_calls"
    assert result.usage.tool_calls == 6  # two of them the team's own
    with pytest.raises(LimitError):
        _ = result.output


async def test_tokens_are_limited_over_all_members_and_what_was_said_stays():
    members = [Agent(using(400, name), name=name) for name in "abcd"]
    session = Session()
    team = Team(members, mode="sequential", limits=Limits(max_tokens=1000), name="line")
    result = await team.run("x", session=session)
    assert result.finish_reason == "limit"
    assert result.stopped.limit == "max_tokens"
    assert result.usage.total_tokens <= 1000
    said = [part.text for message in session.messages if message.role == "tool" for part in message.parts]
    assert said[:2] == ["a", "b"]


@pytest.mark.parametrize("mode", ["broadcast", "sequential"])
async def test_money_is_limited_over_all_levels_however_many_ask_at_once(mode):
    dollar_a_token = Price(0.0, 1_000_000.0)
    model = using(3)
    model.price = dollar_a_token
    settings = ModelSettings(max_tokens=3)
    pairs = [
        Team(
            [Agent(model, name=f"{name}{number}", settings=settings) for number in (1, 2)],
            mode=mode,
            name=name,
        )
        for name in "abc"
    ]
    session = Session()
    result = await Team(pairs, mode=mode, limits=Limits(max_cost=10.0)).run("x", session=session)
    assert result.finish_reason == "limit"
    assert 9.0 <= result.usage.cost <= 10.0
    assert session.usage == result.usage
    assert len(model.requests) == result.usage.model_calls


async def test_a_team_that_a_limit_stopped_is_let_go():
    members = [Agent(using(400), name=name) for name in "ab"]
    gone = [weakref.ref(one) for one in members]
    result = await Team(members, mode="broadcast", limits=Limits(max_tokens=20)).run("x")
    assert result.finish_reason == "limit"
    del members, result
    gc.collect()
    assert [one() for one in gone] == [None, None]


async def test_a_members_own_limit_stops_that_member_alone():
    small = Agent(using(400), name="small", limits=Limits(max_turns=1, max_tokens=10))
    team = Team([small, saying("b")], mode="broadcast", limits=Limits(max_tokens=100_000))
    result = await team.run("x")
    assert result.finish_reason == "stop"
    assert "max_tokens of 10" in result.output
    assert "## b\n\nb: x" in result.output


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_time_of_a_team_is_over_for_its_members_too(streamed):
    async def hang(request):
        await asyncio.Event().wait()

    inner = Team([Agent(ScriptedModel(hang), name="a")], mode="broadcast", name="inner")
    team = Team([inner, saying("b")], mode="broadcast", limits=Limits(max_seconds=0.1))
    session = Session()
    if streamed:
        async with team.stream("x", session=session) as stream:
            async for _ in stream:
                pass
        result = stream.result
    else:
        result = await asyncio.wait_for(team.run("x", session=session), 10)
    assert result.stopped.limit == "max_seconds"
    assert session.unfinished is None
    assert session.messages[-1].parts[1].text == "b: x"


async def test_a_limit_on_members_at_once_is_kept():
    live = most = 0

    async def reply(request):
        nonlocal live, most
        live += 1
        most = max(most, live)
        await asyncio.sleep(0)
        live -= 1
        return "ok"

    members = [Agent(ScriptedModel(reply), name=f"m{number}") for number in range(6)]
    await Team(members, mode="broadcast", limits=Limits(max_parallel_tools=2)).run("x")
    assert most == 2


async def test_a_session_with_limits_stops_a_team():
    session = Session(limits=Limits(max_tokens=420))
    team = Team([Agent(using(400), name="a"), Agent(using(400), name="b")], mode="sequential")
    result = await team.run("x", session=session)
    assert result.finish_reason == "limit"
    assert session.usage.total_tokens <= 420
    assert session.usage.model_calls == 1


# --- streams ----------------------------------------------------------------------------------------------


async def test_the_events_of_members_come_through_with_the_way_to_them():
    inner = Team([saying("a", "one two"), saying("b", "three")], mode="sequential", name="inner")
    team = Team([inner, saying("c", "four")], mode="sequential", name="outer")
    async with team.stream("x") as stream:
        events = [event async for event in stream]
    heard = [
        (event.path, event.event.text)
        for event in events
        if isinstance(event, InnerEvent) and isinstance(event.event, TextDelta)
    ]
    assert heard == [
        (("inner", "a"), "one "),
        (("inner", "a"), "two"),
        (("inner", "b"), "three"),
        (("inner",), "three"),
        (("c",), "four"),
    ]
    runs = {event.path: event.run_id for event in events if isinstance(event, InnerEvent)}
    assert len(set(runs.values())) == 4
    begun = [
        event.event
        for event in events
        if isinstance(event, InnerEvent) and isinstance(event.event, RunStarted)
    ]
    assert [one.agent for one in begun] == ["inner", "a", "b", "c"]
    assert {one.run_id for one in begun} == set(runs.values())
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["four"]
    assert isinstance(events[-1], RunFinished)
    assert sum(isinstance(event, ToolCallFinished) for event in events) == 2
    assert sum(isinstance(event, MessageFinished) for event in events) == 3
    data = msgspec.json.decode(msgspec.json.encode(events[3]))
    assert data["type"] == "inner"


async def test_an_agent_used_as_a_tool_streams_through_too():
    expert = saying("expert", "so it is")
    agent = Agent(
        ScriptedModel([ToolCall.of("ask", prompt="?"), "done"]), tools=[expert.as_tool("ask", "Asks.")]
    )
    async with agent.stream("x") as stream:
        heard = [
            event.event.text
            async for event in stream
            if isinstance(event, InnerEvent) and isinstance(event.event, TextDelta)
        ]
    assert heard == ["so ", "it ", "is"]


async def test_a_slow_reader_slows_the_members_down():
    given = 0

    class Endless(ScriptedModel):
        async def stream(self, request):
            nonlocal given
            for _ in range(10_000):
                given += 1
                yield TextDelta("x")
            yield ModelResponse(Message.assistant("x" * 10_000), Usage(model_calls=1))

    members = [Agent(Endless([]), name=name) for name in "ab"]
    async with Team(members, mode="broadcast").stream("x") as stream:
        async for event in stream:
            if isinstance(event, InnerEvent) and isinstance(event.event, TextDelta):
                break
        for _ in range(1000):
            await asyncio.sleep(0)
        assert given <= 64 + 2 + 2
    assert given <= 64 + 2 + 2


async def test_nobody_is_told_where_nobody_listens():
    class Plain(ScriptedModel):
        async def stream(self, request):
            raise AssertionError
            yield

    members = [Agent(Plain(["one"]), name="a"), Agent(Plain(["two"]), name="b")]
    assert "two" in (await Team(members, mode="broadcast").run("x")).output


async def test_a_member_that_fails_in_a_stream_leaves_the_others():
    broken = Agent(ScriptedModel(lambda request: ValueError("down")), name="broken")
    async with Team([broken, saying("b")], mode="broadcast").stream("x") as stream:
        async for _ in stream:
            pass
    assert "(No answer: ask_broken failed: ValueError: down)" in stream.result.output
    assert "b: x" in stream.result.output


async def test_teams_stream_over_http_at_the_same_time():
    from gossamer.models import OpenAIChat

    async with Simulator(script=Script(["alpha beta gamma"] * 40)) as simulator:
        model = OpenAIChat("gpt-4o-mini", base_url=simulator.url, api_key="sk-none")
        members = [Agent(model, name=f"m{number}") for number in range(4)]
        inner = Team(members[2:], mode="broadcast", name="inner")
        team = Team([*members[:2], inner], mode="broadcast")

        async def one():
            pieces: dict[tuple[str, ...], list[str]] = {}
            async with team.stream("hello") as stream:
                async for event in stream:
                    if isinstance(event, InnerEvent) and isinstance(event.event, TextDelta):
                        pieces.setdefault(event.path, []).append(event.event.text)
            return {path: "".join(texts) for path, texts in pieces.items()}, stream.result

        for texts, result in await asyncio.gather(*(one() for _ in range(10))):
            paths = [("m0",), ("m1",), ("inner", "m2"), ("inner", "m3")]
            assert {path: texts[path] for path in paths} == dict.fromkeys(paths, "alpha beta gamma")
            assert result.usage.model_calls == 4
            assert result.usage.output_tokens > 0
