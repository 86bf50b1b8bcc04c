"""Teams: the modes, what members are asked and see, what becomes of members that fail, and bad input."""

from __future__ import annotations

import asyncio
import gc
import weakref

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from gossamer import (
    Agent,
    ArgumentError,
    EndRun,
    Image,
    Limits,
    Member,
    MemberError,
    Message,
    NestingError,
    NoConsensusError,
    RunContext,
    Session,
    Team,
    ToolCall,
    Usage,
    disable_metrics,
    enable_metrics,
    handoff,
    tool,
)
from gossamer.models import ModelResponse, ScriptedModel


def saying(name: str, text: str = "") -> Agent:
    """An agent that says its name and what it was asked last."""
    return Agent(ScriptedModel(lambda request: f"{name}: {text or request.messages[-1].text}"), name=name)


def failing(name: str) -> Agent:
    return Agent(ScriptedModel(lambda request: ValueError(f"{name} is down")), name=name)


def leader(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


def told(model: ScriptedModel, number: int = 0) -> list[str]:
    """What a model was asked in one of its calls, message by message."""
    return [message.text for message in model.requests[number].messages]


def results(result) -> list[str]:
    return [part.text for message in result.messages if message.role == "tool" for part in message.parts]


# --- the modes --------------------------------------------------------------------------------------------


async def test_broadcast_asks_all_members_at_once_and_joins_their_answers():
    barrier = asyncio.Barrier(4)  # nobody passes before all four are inside

    def member(name: str) -> Agent:
        async def reply(request):
            await asyncio.wait_for(barrier.wait(), 5)
            return f"{name} heard {request.messages[-1].text}"

        return Agent(ScriptedModel(reply), name=name)

    session = Session()
    team = Team([member(name) for name in "abcd"], mode="broadcast")
    result = await team.run("hello", session=session)
    assert result.output == "\n\n".join(f"## {name}\n\n{name} heard hello" for name in "abcd")
    assert result.usage == Usage(model_calls=4, tool_calls=4)
    assert (result.agent, result.finish_reason) == ("team", "stop")
    assert [message.role for message in session.messages] == ["user", "assistant", "tool", "assistant"]


async def test_a_leader_of_a_broadcast_writes_the_answer_and_calls_nobody():
    model = leader("both like it")
    team = Team([saying("a"), saying("b")], mode="broadcast", leader=Agent(model, "Sum up."), name="panel")
    result = await team.run("tea?")
    assert result.output == "both like it"
    (request,) = model.requests
    assert (request.instructions, request.tool_choice) == ("Sum up.", "none")
    assert [part.content for part in request.messages[-1].parts] == ["a: tea?", "b: tea?"]
    assert result.usage == Usage(model_calls=3, tool_calls=2)


async def test_a_leader_may_answer_in_a_type():
    class Sum(msgspec.Struct):
        total: int

    team = Team(
        [saying("a", "2"), saying("b", "3")], mode="broadcast", leader=Agent(leader("x", '{"total": 5}'))
    )
    result = await team.run(
        "add", output=Sum
    )  # the first answer does not fit, and is mended without asking anew
    assert result.output == Sum(5)
    assert result.usage == Usage(model_calls=4, tool_calls=2)


async def test_sequential_hands_on_what_the_one_before_said():
    models = [ScriptedModel([f"draft {number}"]) for number in (1, 2, 3)]
    members = [Agent(model, name=f"m{number}") for number, model in enumerate(models, 1)]
    result = await Team(members, mode="sequential").run("write")
    assert result.output == "draft 3"
    assert told(models[0]) == ["write"]
    assert told(models[1]) == ["write", "m1 said before you:\n\ndraft 1"]
    assert told(models[2]) == ["write", "m2 said before you:\n\ndraft 2"]


async def test_a_long_sequence_is_not_cut_by_the_usual_number_of_turns():
    members = [saying(f"m{number}", str(number)) for number in range(60)]
    result = await Team(members, mode="sequential").run("go")
    assert result.output == "m59: 59"


async def test_consensus_goes_round_until_all_say_the_same():
    def stubborn(request):
        return "Blue."

    def yielding(request):
        heard = "## a\n\nBlue." in request.messages[-1].text
        return " blue" if heard else "Red."

    models = [ScriptedModel(stubborn), ScriptedModel(yielding)]
    team = Team([Agent(models[0], name="a"), Agent(models[1], name="b")], mode="consensus")
    result = await team.run("which colour?")
    assert result.output == "Blue."
    assert [len(model.requests) for model in models] == [2, 2]
    assert told(models[1], 1)[0] == "which colour?"
    assert "## b\n\nRed." in told(models[1], 1)[1]
    assert result.usage == Usage(model_calls=4, tool_calls=4)


async def test_consensus_on_data_is_consensus_on_what_it_says():
    class Place(msgspec.Struct):
        x: int
        y: int

    members = [
        Agent(leader('{"x": 1, "y": 2}'), name="a", output=Place),
        Agent(leader('{"y": 2, "x": 1}'), name="b"),
    ]
    result = await Team(members, mode="consensus").run("?", output=Place)
    assert result.output == Place(1, 2)


async def test_no_consensus_is_an_error_that_keeps_the_answers():
    team = Team([saying("a", "1"), saying("b", "2")], mode="consensus", max_rounds=2, name="jury")
    session = Session()
    with pytest.raises(NoConsensusError, match="'jury' did not agree in 2 rounds") as caught:
        await team.run("?", session=session)
    assert caught.value.answers == {"a": "a: 1", "b": "b: 2"}
    assert session.usage == Usage(model_calls=4, tool_calls=4)
    assert session.unfinished is None


async def test_a_leader_judges_whether_there_is_consensus_and_writes_the_answer():
    model = leader(
        '{"agreed": false, "reason": "one is about tea"}',
        '{"agreed": true}',
        "They like hot drinks.",
    )
    team = Team([saying("a", "tea"), saying("b", "coffee")], mode="consensus", leader=model)
    result = await team.run("?")
    assert result.output == "They like hot drinks."
    assert "## a\n\na: tea" in told(model, 0)[-1]
    assert result.usage == Usage(model_calls=7, tool_calls=6)


async def test_route_gives_the_answer_of_the_member_that_the_leader_picks():
    model = leader([ToolCall.of("ask_b")])
    members = [Member(saying("a"), "Does sums."), Member(saying("b"), "Does words.")]
    session = Session()
    result = await Team(members, mode="route", leader=model).run("a word, please", session=session)
    assert result.output == "b: a word, please"
    (request,) = model.requests
    assert request.tool_choice == "required"
    assert [(one.name, one.description) for one in request.tools] == [
        ("ask_a", "Does sums."),
        ("ask_b", "Does words."),
    ]
    assert result.usage == Usage(model_calls=2, tool_calls=1)
    assert session.messages[-1].role == "tool"


async def test_route_asks_one_member_where_the_leader_calls_two():
    model = leader([ToolCall.of("ask_b"), ToolCall.of("ask_a")])
    result = await Team([saying("a"), saying("b")], mode="route", leader=model).run("x")
    assert result.output == "b: x"
    assert result.usage == Usage(model_calls=2, tool_calls=1)


async def test_a_router_is_told_of_a_member_that_fails_or_is_not_there_and_picks_another():
    model = leader([ToolCall.of("ask_nobody")], [ToolCall.of("ask_a")], [ToolCall.of("ask_b")])
    result = await Team([failing("a"), saying("b")], mode="route", leader=model).run("x")
    assert result.output == "b: x"
    assert "no tool called 'ask_nobody'" in model.requests[1].messages[-1].parts[0].text
    assert "a is down" in model.requests[2].messages[-1].parts[0].text


async def test_a_leader_delegates_in_parallel_and_answers_itself():
    barrier = asyncio.Barrier(3)

    def member(name: str) -> Agent:
        async def reply(request):
            await asyncio.wait_for(barrier.wait(), 5)
            return f"{name} did {request.messages[-1].text}"

        return Agent(ScriptedModel(reply), f"You are {name}.", name=name)

    calls = [
        ToolCall.of("ask_a", prompt="1"),
        ToolCall.of("ask_b", prompt="2"),
        ToolCall.of("ask_a", prompt="3"),  # a second time: it must not overwrite the first
    ]
    model = leader(calls, "all done")
    session = Session()
    result = await Team([member("a"), member("b")], leader=model).run("do it", session=session)
    assert result.output == "all done"
    assert results(result) == ["a did 1", "b did 2", "a did 3"]
    assert "You are a." in model.requests[0].tools[0].description
    inside = [session.child(call.id) for call in result.messages[1].tool_calls]
    assert [one.messages[0].text for one in inside] == ["1", "2", "3"]
    assert len({one.id for one in inside}) == 3


async def test_the_leaders_own_tools_instructions_and_middleware_stay():
    @tool(inline=True)
    def clock() -> str:
        """Tell the time."""
        return "noon"

    model = leader(ToolCall("clock"), ToolCall.of("ask_a", prompt="noon?"), "done")
    own = Agent(model, lambda context: "I lead.", tools=lambda context: [clock], name="boss")
    result = await Team([saying("a")], leader=own).run("x")
    assert results(result) == ["noon", "a: noon?"]
    assert model.requests[0].instructions.startswith("I lead.\n\nYou lead a team.")
    assert result.agent == "team"


async def test_teams_are_members_of_teams_and_tools_of_agents():
    inner = Team([saying("a"), saying("b")], mode="broadcast", name="pair")
    outer = Team([inner, saying("c")], mode="broadcast", name="all")
    result = await outer.run("hi")
    assert result.output == "## pair\n\n## a\n\na: hi\n\n## b\n\nb: hi\n\n## c\n\nc: hi"
    assert result.usage == Usage(model_calls=3, tool_calls=4)
    assert inner.description == "Asks pair, a team: Asks a. Asks b."
    agent = Agent(leader(ToolCall.of("ask", prompt="hey"), "done"), tools=[outer.as_tool("ask", "Asks all.")])
    assert "a: hey" in results(await agent.run("x"))[0]


def test_a_team_runs_in_code_that_is_not_async():
    assert Team([saying("a")], mode="sequential").run_sync("hi").output == "a: hi"


# --- what members see -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["broadcast", "sequential", "coordinate", "route"])
@pytest.mark.parametrize("context", ["private", "shared"])
async def test_members_see_the_conversation_where_it_is_shared(mode, context):
    model = ScriptedModel(["first", "second"])
    ask = ToolCall.of("ask_a") if mode == "route" else ToolCall.of("ask_a", prompt="look")
    replies = [ask, ask] if mode == "route" else [ask, "ok", ask, "ok"]
    team = Team(
        [Agent(model, name="a")],
        mode=mode,
        context=context,
        leader=leader(*replies) if mode in {"coordinate", "route"} else None,
    )
    session = Session()
    await team.run("one", session=session)
    await team.run("two", session=session)
    asked = told(model, 1)
    own = ["look"] if mode == "coordinate" else ["two"]
    if context == "private":
        assert asked == own
    elif mode == "coordinate":
        assert asked == ["one", "ok", "two", "look"]
    elif mode == "route":  # what a member answered is the result of a tool in the journal
        assert asked == ["one", "two"]
    else:
        assert asked[0] == "one"
        assert "first" in asked[1]
        assert asked[2:] == ["two"]
    assert not any(message.role == "tool" for message in model.requests[1].messages)


async def test_members_get_what_was_asked_whole_pictures_too():
    model = ScriptedModel(["seen"])
    picture = Message.user("what is it?", Image(url="https://example.org/a.png"))
    await Team([Agent(model, name="a")], mode="broadcast").run(picture)
    assert model.requests[0].messages[0].parts == picture.parts


async def test_a_team_answers_the_session_where_it_is_asked_without_words():
    session = Session()
    session.add(Message.user("from before"))
    result = await Team([saying("a")], mode="broadcast").run(session=session)
    assert result.output == "## a\n\na: from before"
    with pytest.raises(ArgumentError, match="team 'team' needs a prompt"):
        await Team([saying("a")], mode="broadcast").run()


async def test_what_is_steered_into_a_team_reaches_the_members_still_to_come():
    session = Session()

    async def reply(request):
        session.steer("in French")
        return "draft"

    second = ScriptedModel(["brouillon"])
    team = Team([Agent(ScriptedModel(reply), name="a"), Agent(second, name="b")], mode="sequential")
    result = await team.run("write", session=session)
    assert result.output == "brouillon"
    assert told(second)[:2] == ["write", "in French"]


async def test_deps_and_user_reach_the_members():
    seen = []

    @tool(inline=True)
    def look(context: RunContext) -> str:
        seen.append((context.agent, context.deps, context.user))
        return "ok"

    member = Agent(leader(ToolCall("look"), "done"), name="a", tools=[look])
    await Team([member], mode="broadcast").run("x", deps={"db": 1}, user="ada")
    assert seen == [("a", {"db": 1}, "ada")]


# --- members that fail ------------------------------------------------------------------------------------


async def test_a_member_that_fails_leaves_the_answers_of_the_others():
    result = await Team([saying("a"), failing("b"), saying("c")], mode="broadcast").run("hi")
    assert "## a\n\na: hi" in result.output
    assert "## c\n\nc: hi" in result.output
    assert "## b\n\n(No answer: ask_b failed: ValueError: b is down)" in result.output


async def test_members_that_all_fail_fail_the_team_by_name():
    with pytest.raises(
        MemberError, match="member 'a' of team 'duo' gave no answer: ask_a failed: ValueError: a is down"
    ) as caught:
        await Team([failing("a"), failing("b")], mode="broadcast", name="duo").run("hi")
    assert (caught.value.team, caught.value.member) == ("duo", "a")


async def test_a_broken_sequence_names_the_place_and_keeps_what_was_done():
    session = Session()
    with pytest.raises(MemberError, match="member 'b' of team 'line'"):
        await Team([saying("a"), failing("b"), saying("c")], mode="sequential", name="line").run(
            "hi", session=session
        )
    assert session.unfinished is None
    said = [part.text for message in session.messages if message.role == "tool" for part in message.parts]
    assert said[0] == "a: hi"
    assert len(said) == 2


async def test_a_consensus_needs_more_than_half_of_the_members():
    two_of_three = Team([saying("x", "1"), failing("y"), Agent(leader("x: 1"), name="z")], mode="consensus")
    assert (await two_of_three.run("?")).output == "x: 1"
    with pytest.raises(MemberError, match="member 'y'"):
        await Team([saying("x"), failing("y")], mode="consensus").run("?")


async def test_a_member_that_hangs_is_stopped_by_its_own_limit_and_the_rest_is_kept():
    async def hang(request):
        await asyncio.Event().wait()

    slow = Agent(ScriptedModel(hang), name="slow", limits=Limits(max_seconds=0.05))
    result = await asyncio.wait_for(Team([slow, saying("a")], mode="broadcast").run("hi"), 5)
    assert "max_seconds" in result.output
    assert "## a\n\na: hi" in result.output


async def test_a_tool_that_ends_a_members_run_ends_that_one_alone():
    @tool(inline=True)
    def leave() -> str:
        raise EndRun("left")

    member = Agent(leader(ToolCall("leave")), name="a", tools=[leave])
    result = await Team([member, saying("b")], mode="broadcast").run("hi")
    assert result.output == "## a\n\nleft\n\n## b\n\nb: hi"


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Team([], mode="broadcast", name="none"), "team 'none' has no members"),
        (
            lambda: Team([saying(f"m{number}") for number in range(1001)], mode="broadcast"),
            "team 'team' has 1001 members; 1000 are the most",
        ),
        (lambda: Team("ab", mode="broadcast"), "members of team 'team' must be a list"),
        (
            lambda: Team([1], mode="broadcast"),
            "a member of team 'team' is an agent, a team or a Member, not int",
        ),
        (
            lambda: Team([saying("a"), saying("a")], mode="broadcast"),
            "two members of team 'team' are called 'a'",
        ),
        (lambda: Team([saying("a b"), saying("a_b")], mode="broadcast"), "'a b' and 'a_b'"),
        (lambda: Team([saying("a")]), "team 'team' needs a leader in mode 'coordinate'"),
        (lambda: Team([saying("a")], leader=5), "leader of team 'team': model must be"),
        (lambda: Team([saying("a")], mode="vote"), "mode of team 'team' must be one of coordinate"),
        (
            lambda: Team([saying("a")], mode="broadcast", context="open"),
            "context of team 'team' must be one of",
        ),
        (lambda: Team([saying("a")], mode="consensus", max_rounds=0), "max_rounds of team 'team'"),
        (lambda: Team([saying("a")], mode="broadcast", name=""), "name of a team"),
        (
            lambda: Team([saying("a")], mode="broadcast", leader=Agent(leader(), tools=[tool(saying)])),
            "only writes the answer",
        ),
        (lambda: Team([saying("a")], mode="broadcast").replace(colour=1), "Team.replace"),
    ],
)
def test_bad_teams_are_refused_by_name(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


async def test_a_team_inside_itself_ends_with_an_error_that_names_the_way():
    def again(context):
        return [inner.as_tool("ask", "Asks the team around.")]

    turning = Agent(
        ScriptedModel(lambda request: ToolCall.of("ask", prompt="again")), name="turning", tools=again
    )
    inner = Team([turning], mode="broadcast", name="ring")
    with pytest.raises(NestingError, match="ring > turning > ring > turning > "):
        await asyncio.wait_for(inner.run("go"), 10)


async def test_nothing_keeps_a_team_alive():
    member = saying("a")
    gone = weakref.ref(member)
    team = Team([member], mode="broadcast")
    result = await team.run("hi")
    del member, team
    gc.collect()
    assert gone() is None
    assert result.output == "## a\n\na: hi"


# --- ids, handing over ------------------------------------------------------------------------------------


async def test_an_id_used_again_in_a_later_turn_is_another_delegation():
    model = leader(
        ToolCall("ask_a", '{"prompt": "1"}', "same"), ToolCall("ask_a", '{"prompt": "2"}', "same"), "done"
    )
    session = Session()
    result = await Team([saying("a")], leader=model).run("x", session=session)
    assert results(result) == ["a: 1", "a: 2"]
    assert result.usage == Usage(model_calls=5, tool_calls=2)
    assert session.usage == result.usage


async def test_an_agent_hands_a_conversation_over_to_a_team():
    pair = Team([saying("a"), saying("b")], mode="broadcast", name="pair")
    desk = Agent(leader(ToolCall.of("hand_over_to_pair")), name="desk", tools=[handoff(pair, "Asks both.")])
    session = Session()
    result = await desk.run("hi", session=session)
    assert (result.agent, result.output) == ("pair", "## a\n\na: hi\n\n## b\n\nb: hi")
    assert session.answering == "pair"
    result = await desk.run("and now?", session=session)
    assert (result.agent, result.output) == ("pair", "## a\n\na: and now?\n\n## b\n\nb: and now?")


async def test_a_leader_hands_the_conversation_over_and_the_session_says_who_answers_next():
    billing = Agent(ScriptedModel(["which one?", "it is paid"]), name="billing")
    lead = Agent(leader(ToolCall.of("hand_over_to_billing")), tools=[handoff(billing, "Invoices.")])
    team = Team([saying("a")], leader=lead, name="desk")
    session = Session()
    assert (await team.run("my invoice", session=session)).agent == "billing"
    result = await team.run("number 7", session=session)
    assert (result.agent, result.output) == ("billing", "it is paid")


async def test_usage_of_members_is_priced_and_adds_up():
    def costing(text):
        def reply(request):
            return ModelResponse(Message.assistant(text), Usage(input_tokens=10, model_calls=1, cost=0.5))

        return ScriptedModel(reply)

    inner = Team([Agent(costing("1"), name="a"), Agent(costing("2"), name="b")], mode="broadcast", name="in")
    session = Session()
    result = await Team([inner, Agent(costing("3"), name="c")], mode="sequential").run("x", session=session)
    assert (result.usage.cost, result.usage.input_tokens, result.usage.model_calls) == (1.5, 30, 3)
    assert session.usage == result.usage


async def test_a_turn_for_which_no_model_was_asked_is_no_model_call_in_the_metrics():
    registry = CollectorRegistry()
    enable_metrics(registry)
    try:
        await Team([saying("a"), saying("b")], mode="broadcast", leader=leader("sum")).run("x")
        asked = registry.get_sample_value("gossamer_model_call_duration_seconds_count", {"model": "scripted"})
        assert asked == 3
    finally:
        disable_metrics()
