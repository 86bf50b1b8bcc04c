"""Toolkits: what is on, who switches, what a name that is taken means, what is left out."""

from __future__ import annotations

import pytest

from gossamer import Agent, ArgumentError, RunContext, Session, Tool, ToolCall, Toolkit, tool
from gossamer.models import ScriptedModel
from gossamer.records import ToolkitSwitchedRecord


def saying(name: str, words: str | None = None) -> Tool:
    def say() -> str:
        return words or name

    return tool(inline=True, name=name, description=f"Says {name}.")(say)


def names(request) -> list[str]:
    return [schema.name for schema in request.tools]


def contents(result) -> list[str]:
    return [part.text for message in result.messages if message.role == "tool" for part in message.parts]


async def test_the_tools_of_a_toolkit_stand_beside_the_others():
    model = ScriptedModel([ToolCall.of("hotel"), "done"])
    agent = Agent(model, tools=[saying("first"), Toolkit("travel", [saying("flight"), saying("hotel")])])
    result = await agent.run("x")
    assert names(model.requests[0]) == ["first", "flight", "hotel"]
    assert contents(result) == ["hotel"]


async def test_plain_functions_become_tools():
    def shout(words: str) -> str:
        """Shout."""
        return words.upper()

    model = ScriptedModel([ToolCall.of("shout", words="a"), "done"])
    assert contents(await Agent(model, tools=[Toolkit("voice", [shout])]).run("x")) == ["A"]


async def test_a_toolkit_adds_its_instructions_while_it_is_on():
    model = ScriptedModel(["1", "2", "3"])
    kits = [Toolkit("a", instructions="Use a."), Toolkit("b", instructions="Use b.", on=False)]
    agent = Agent(model, "Be kind.", tools=kits)
    session = Session()
    await agent.run("x", session=session)
    session.switch("b", on=True)
    await agent.run("x", session=session)
    await Agent(model, tools=kits).run("x")
    assert [request.instructions for request in model.requests] == [
        "Be kind.\n\nUse a.",
        "Be kind.\n\nUse a.\n\nUse b.",
        "Use a.",
    ]


async def test_the_user_switches_in_the_session():
    model = ScriptedModel(["1", "2", "3", "4"])
    agent = Agent(model, tools=[Toolkit("a", [saying("one")]), Toolkit("b", [saying("two")], on=False)])
    session = Session()
    await agent.run("x", session=session)
    session.switch("a", on=False)
    session.switch("b", on=True)
    await agent.run("x", session=session)
    again = Session.from_export(session.export())
    assert again.switches == {"a": False, "b": True}
    await agent.run("x", session=again)
    await agent.run("x", session=Session())
    assert [names(request) for request in model.requests] == [["one"], ["two"], ["two"], ["one"]]


async def test_a_branch_knows_what_was_switched_and_a_switch_moves_no_view():
    session = Session()
    await Agent("offline").run("x", session=session)
    before = list(session.messages)
    session.switch("a", on=False)
    assert session.branch().switches == {"a": False}
    assert list(session.messages) == before
    assert isinstance(session.journal[-1], ToolkitSwitchedRecord)


async def test_the_model_switches_and_has_the_tools_from_its_next_answer_on():
    calls = [
        ToolCall.of("switch_toolkit", toolkit="travel", on=True),
        ToolCall.of("hotel"),
        ToolCall.of("switch_toolkit", toolkit="travel", on=False),
        ToolCall.of("hotel"),
    ]
    model = ScriptedModel([*calls, "done"])
    travel = Toolkit("travel", [saying("hotel")], description="Trips.", on=False, switchable=True)
    result = await Agent(model, tools=[travel]).run("x")
    there = [["switch_toolkit"], ["hotel", "switch_toolkit"]]
    assert [names(request) for request in model.requests] == [
        there[0],
        there[1],
        there[1],
        there[0],
        there[0],
    ]
    schema = model.requests[0].tools[0]
    assert "travel: Trips." in schema.description
    assert contents(result)[1] == "hotel"
    assert "no tool called 'hotel'" in contents(result)[3]


async def test_a_switch_of_the_model_lasts_as_long_as_the_session():
    model = ScriptedModel([ToolCall.of("switch_toolkit", toolkit="t", on=True), "done", "again", "other"])
    agent = Agent(model, tools=[Toolkit("t", [saying("one")], on=False, switchable=True)])
    session = Session()
    await agent.run("x", session=session)
    await agent.run("x", session=session)
    await agent.run("x")
    assert names(model.requests[2]) == ["one", "switch_toolkit"]
    assert names(model.requests[3]) == ["switch_toolkit"]


async def test_the_model_cannot_switch_what_it_may_not():
    model = ScriptedModel([ToolCall.of("switch_toolkit", toolkit="b", on=False), "done"])
    agent = Agent(model, tools=[Toolkit("a", switchable=True), Toolkit("b", [saying("one")])])
    result = await agent.run("x")
    assert "Invalid arguments" in contents(result)[0]
    assert names(model.requests[1]) == ["one", "switch_toolkit"]


async def test_include_and_exclude():
    three = [saying("one"), saying("two"), saying("three")]
    model = ScriptedModel(["", ""])
    await Agent(model, tools=[Toolkit("a", three, include=["three", "one"], exclude=["one"])]).run("x")
    assert names(model.requests[0]) == ["three"]
    for wrong in ({"include": ["four"]}, {"exclude": ["four"]}):
        with pytest.raises(ArgumentError, match="has no tool four; it has one, three, two"):
            Toolkit("a", three, **wrong)


@pytest.mark.parametrize(
    ("policy", "there", "said"),
    [
        ("skip", ["one"], "first"),
        ("override", ["one"], "second"),
        ("rename", ["one", "b_one"], "first"),
    ],
)
async def test_a_name_that_is_taken(policy, there, said):
    model = ScriptedModel([ToolCall.of("one"), "done"])
    kits = [Toolkit("a", [saying("one", "first")]), Toolkit("b", [saying("one", "second")], on_clash=policy)]
    result = await Agent(model, tools=kits).run("x")
    assert names(model.requests[0]) == there
    assert contents(result) == [said]


async def test_two_tools_of_one_name_raise_before_the_model_is_asked():
    model = ScriptedModel(["never"])
    with pytest.raises(ArgumentError, match=r"'one', one of toolkit 'b'.*on_clash"):
        await Agent(model, tools=[saying("one"), Toolkit("b", [saying("one")])]).run("x")
    with pytest.raises(ArgumentError, match="two toolkits are called 'b'"):
        await Agent(model, tools=[Toolkit("b"), Toolkit("b")]).run("x")
    with pytest.raises(ArgumentError, match="'b_one', after one was renamed"):
        clash = Toolkit("b", [saying("one")], on_clash="rename")
        await Agent(model, tools=[saying("one"), saying("b_one"), clash]).run("x")
    assert not model.requests


async def test_a_toolkit_may_want_approval_for_all_its_tools():
    free = saying("free").replace(needs_approval=lambda: False)
    model = ScriptedModel([[ToolCall.of("one"), ToolCall.of("free")]])
    kit = Toolkit("a", [saying("one"), free], needs_approval=True)
    result = await Agent(model, tools=[kit]).run("x")
    assert [pending.call.name for pending in result.pending] == ["one"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "name of a toolkit"),
        ({"name": "a", "tools": 3}, "must be a list"),
        ({"name": "a", "tools": "abc"}, "must be a list"),
        ({"name": "a", "tools": [3]}, "callable"),
        ({"name": "a", "on_clash": "win"}, "on_clash"),
        ({"name": "a", "scope": "world"}, "scope"),
        ({"name": "a", "include": "one"}, "lists of names"),
    ],
)
def test_what_no_toolkit_can_be_made_of(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Toolkit(**arguments)


def test_a_changed_copy():
    kit = Toolkit("a", [saying("one")])
    assert kit.replace(on=False).on is False
    assert kit.on is True
    with pytest.raises(ArgumentError, match=r"Toolkit\.replace"):
        kit.replace(colour="red")
    with pytest.raises(ArgumentError, match="has no tool two"):
        kit.replace(include=["two"])


async def test_tools_of_a_run_and_of_a_function_may_be_toolkits():
    model = ScriptedModel(["1", "2"])
    await Agent(model).run("x", tools=[Toolkit("a", [saying("one")])])
    await Agent(model, tools=lambda context: [Toolkit("a", [saying(context.deps)])]).run("x", deps="two")
    assert [names(request) for request in model.requests] == [["one"], ["two"]]


async def test_a_switch_during_a_run_holds_from_the_next_model_call_on():
    @tool(inline=True)
    def tidy(context: RunContext) -> str:
        """Tidy."""
        context.session.switch("danger", on=False)
        return "tidied"

    model = ScriptedModel([ToolCall.of("tidy"), "done"])
    kits = [Toolkit("a", [tidy]), Toolkit("danger", [saying("boom")])]
    await Agent(model, tools=kits).run("x", session=Session())
    assert [names(request) for request in model.requests] == [["tidy", "boom"], ["tidy"]]


async def test_the_tool_that_switches_is_built_once():
    model = ScriptedModel(["a", "b"])
    for _ in range(2):
        await Agent(model, tools=[Toolkit("a", switchable=True), Toolkit("b", [saying("one")])]).run("x")
    first, second = (request.tools[-1] for request in model.requests)
    assert first is second


async def test_a_changed_copy_is_free_of_what_the_first_one_wanted():
    kit = Toolkit("a", [saying("one"), saying("two")], needs_approval=True, include=["one"])
    model = ScriptedModel([[ToolCall.of("one"), ToolCall.of("two")], "done"])
    free = kit.replace(needs_approval=False, include=None)
    assert contents(await Agent(model, tools=[free]).run("x")) == ["one", "two"]
