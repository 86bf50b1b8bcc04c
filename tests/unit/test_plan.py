"""Plans: items made, changed, finished and seen through tools, by an agent alone or by a team."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import (
    Agent,
    ArgumentError,
    Plan,
    PlanChange,
    PlanError,
    PlanItem,
    Session,
    Team,
    ToolCall,
    plan_of,
    plan_toolkit,
    tool,
)
from gossamer.models import ScriptedModel


def planning(*replies, **options) -> Agent:
    return Agent(ScriptedModel([*replies, "done"]), tools=[plan_toolkit(**options)], name="planner")


def results(result) -> list[str]:
    return [part.text for message in result.messages if message.role == "tool" for part in message.parts]


MADE = ToolCall.of("create_plan", goal="move house", items=["pack", "carry", "unpack"])


async def test_a_plan_is_made_revised_updated_finished_and_seen():
    session = Session()
    agent = planning(
        ToolCall("view_plan"),
        MADE,
        ToolCall.of("update_plan_item", item=1, status="done", note="twelve boxes", assignee="ada"),
        ToolCall.of("revise_plan", add=["clean"], drop=[3], reword=[{"item": 2, "text": "carry it all"}]),
        ToolCall.of("finish_plan", outcome="done"),
        ToolCall.of("update_plan_item", item=2, status="done"),
        ToolCall.of("update_plan_item", item=4, status="done"),
        ToolCall.of("finish_plan", outcome="done", summary="moved"),
        ToolCall("view_plan"),
    )
    result = await agent.run("x", session=session)
    said = results(result)
    assert said[0] == "There is no plan."
    assert said[1] == "Plan: move house\n[ ] 1. pack\n[ ] 2. carry\n[ ] 3. unpack"
    assert "[x] 1. pack (ada): twelve boxes" in said[2]
    assert "[ ] 2. carry it all" in said[3]
    assert "[-] 3. unpack" in said[3]
    assert "[ ] 4. clean" in said[3]
    assert "items 2, 4 are not done" in said[4]
    assert said[-1].endswith("Finished, done. moved")
    plan = plan_of(session)
    assert plan == Plan(
        "move house",
        (
            PlanItem(1, "pack", "done", "ada", "twelve boxes"),
            PlanItem(2, "carry it all", "done"),
            PlanItem(3, "unpack", "dropped"),
            PlanItem(4, "clean", "done"),
        ),
        "done",
        "moved",
    )
    assert plan_of(Session.from_export(session.export())) == plan
    assert plan_of(session.branch()) == plan


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([ToolCall.of("revise_plan", add=["x"])], "there is no plan"),
        ([MADE, MADE], "a plan is under way"),
        ([MADE, ToolCall.of("update_plan_item", item=9)], "the plan has no item 9; it has 1, 2, 3"),
        ([MADE, ToolCall.of("revise_plan", drop=[0])], "the plan has no item 0"),
        ([MADE, ToolCall.of("revise_plan", add=["x", "y"])], "a plan has at most 4 items"),
        ([MADE, ToolCall.of("update_plan_item", item=1, status="lost")], "Invalid arguments"),
        ([MADE, ToolCall.of("revise_plan", add=[""])], "Invalid arguments"),
        (
            [
                MADE,
                ToolCall.of("finish_plan", outcome="abandoned"),
                ToolCall.of("update_plan_item", item=1, status="done"),
            ],
            "the plan is finished",
        ),
    ],
)
async def test_what_cannot_be_done_to_a_plan_is_told_to_the_model(calls, words):
    result = await planning(*calls, max_items=4).run("x")
    assert words in results(result)[-1]
    assert result.output == "done"


async def test_a_finished_plan_makes_room_for_another():
    session = Session()
    calls = [
        MADE,
        ToolCall.of("finish_plan", outcome="abandoned"),
        ToolCall.of("create_plan", goal="b", items=[]),
    ]
    await planning(*calls).run("x", session=session)
    assert plan_of(session) == Plan("b")


async def test_hooks_are_told_of_changes_and_cannot_break_the_run(caplog):
    told: list[PlanChange] = []

    async def slow(change: PlanChange) -> None:
        await asyncio.sleep(0)
        told.append(change)

    def broken(change: PlanChange) -> None:
        raise ValueError("no disk")

    calls = [
        MADE,
        ToolCall.of("update_plan_item", item=2, status="doing"),
        ToolCall.of("revise_plan", add=["x"]),
    ]
    result = await planning(*calls, on_change=[broken, slow, told.append]).run("x")
    assert [(one.kind, one.items) for one in told] == [
        ("created", (1, 2, 3)),
        ("created", (1, 2, 3)),
        ("updated", (2,)),
        ("updated", (2,)),
        ("revised", (4,)),
        ("revised", (4,)),
    ]
    assert (told[0].agent, told[0].run_id) == ("planner", result.run_id)
    assert told[2].plan.items[1].status == "doing"
    assert "a hook of a plan failed: ValueError: no disk" in caplog.text
    assert result.output == "done"


async def test_a_run_without_a_session_gets_one_for_its_plan():
    result = await planning(MADE).run("x")
    assert result.session is not None
    assert plan_of(result.session).goal == "move house"


async def test_plans_of_two_names_are_apart():
    mine, ours = plan_toolkit("mine"), plan_toolkit("ours").replace(on_clash="rename")
    call = ToolCall.of("ours_create_plan", goal="theirs", items=["x"])
    session = Session()
    await Agent(ScriptedModel([MADE, call, "done"]), tools=[mine, ours]).run("x", session=session)
    assert plan_of(session, "mine").goal == "move house"
    assert plan_of(session, "ours").goal == "theirs"


async def test_a_state_of_a_type_keeps_a_plan_where_it_has_room():
    @dataclasses.dataclass
    class Room:
        plan: Plan | None = None
        other: int = 5

    class Narrow(msgspec.Struct):
        other: int = 5

    session = Session(state=Room())
    await planning(MADE).run("x", session=session)
    assert plan_of(session).goal == "move house"
    assert session.state.other == 5
    result = await planning(MADE).run("x", session=Session(state=Narrow()))
    assert "has no field 'plan'" in results(result)[0]


def test_bad_arguments_of_a_plan():
    with pytest.raises(ArgumentError, match="on_change"):
        plan_toolkit(on_change=[1])
    with pytest.raises(ArgumentError, match="max_items"):
        plan_toolkit(max_items=0)
    with pytest.raises(PlanError, match="is no plan"):
        plan_of(Session(state={"plan": {"items": 5}}))


# --- shared by a team -------------------------------------------------------------------------------------


async def test_members_work_on_the_plan_of_their_team():
    both = asyncio.Barrier(2)

    def member(name: str, item: int) -> Agent:
        async def reply(request):
            if request.messages[-1].role == "tool":
                return f"{name} done"
            await both.wait()  # both have been given the plan
            return ToolCall.of("update_plan_item", item=item, note=f"by {name}")

        return Agent(ScriptedModel(reply), name=name)

    lead = ScriptedModel(
        [
            ToolCall.of("create_plan", goal="lunch", items=["cook", "lay the table"]),
            [ToolCall.of("ask_a", prompt="cook", item=1), ToolCall.of("ask_b", prompt="lay", item=2)],
            ToolCall.of("finish_plan", outcome="done", summary="eaten"),
            "enjoy",
        ]
    )
    members = [member("a", 1), member("b", 2)]
    session = Session()
    told: list[PlanChange] = []
    leader = Agent(lead, tools=[plan_toolkit(on_change=told.append)])
    result = await Team(members, mode="plan", leader=leader).run("x", session=session)
    assert result.output == "enjoy"
    assert plan_of(session).items == (
        PlanItem(1, "cook", "done", "a", "by a"),
        PlanItem(2, "lay the table", "done", "b", "by b"),
    )
    asked = members[1].model.requests[0]
    assert "Plan: lunch\n" in asked.messages[0].text
    assert asked.messages[0].text.endswith("Yours is item 2.")
    assert [one.name for one in asked.tools] == ["update_plan_item", "view_plan"]
    assert {one.agent for one in told} == {"team", "a", "b"}


@pytest.mark.parametrize("deep", [False, True])
async def test_agents_inside_one_another_share_the_plan_of_the_one_around_them(deep):
    update = ToolCall.of("update_plan_item", item=2, status="done")
    worker = Agent(ScriptedModel([update, "done"]), name="worker", tools=[plan_toolkit()])
    member = Team([worker], mode="sequential", name="inner") if deep else worker
    asks = ToolCall.of(f"ask_{member.name}", prompt="carry")
    lead = Agent(ScriptedModel([MADE, asks, "done"]), tools=[plan_toolkit()])
    session = Session()
    await Team([member], leader=lead).run("x", session=session)
    assert [item.status for item in plan_of(session).items] == ["open", "done", "open"]


async def test_an_item_of_a_member_that_fails_is_open_again():
    down = Agent(ScriptedModel(lambda request: ValueError("down")), name="a")
    lead = ScriptedModel([MADE, ToolCall.of("ask_a", prompt="pack", item=1), "sorry"])
    session = Session()
    await Team([down], mode="plan", leader=lead).run("x", session=session)
    item = plan_of(session).items[0]
    assert (item.status, item.assignee) == ("open", "")
    assert "a failed: down" in item.note


async def test_an_item_that_is_not_there_is_told_before_the_member_is_asked():
    member = Agent(ScriptedModel([]), name="a")
    lead = ScriptedModel([MADE, ToolCall.of("ask_a", prompt="pack", item=7), "sorry"])
    result = await Team([member], mode="plan", leader=lead).run("x")
    assert "no item 7" in results(result)[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["open", "doing", "done"])), max_size=12))
async def test_no_change_of_members_at_the_same_time_is_lost(changes):
    """Members change items one after the other, all members at once; each item ends as its last change says."""
    by_item: dict[int, list[str]] = {}
    for item, status in changes:
        by_item.setdefault(item, []).append(status)

    def member(item: int, statuses: list[str]) -> Agent:
        async def reply(request):
            await asyncio.sleep(0)
            done = sum(message.role == "tool" for message in request.messages)
            if done == len(statuses):
                return "done"
            return ToolCall.of("update_plan_item", item=item, status=statuses[done], note=f"{done + 1}")

        return Agent(ScriptedModel(reply), name=f"m{item}")

    @tool(inline=True)
    def rest() -> str:
        return "rested"

    members = [member(item, statuses) for item, statuses in by_item.items()] or [member(1, [])]
    asks = [ToolCall.of(f"ask_{one.name}", prompt="go") for one in members]
    made = ToolCall.of("create_plan", goal="g", items=[f"item {number}" for number in range(1, 7)])
    lead = Agent(ScriptedModel([made, asks, "done"]), tools=[rest])
    session = Session()
    await Team(members, mode="plan", leader=lead).run("x", session=session)
    for item in plan_of(session).items:
        statuses = by_item.get(item.id, [])
        assert item.status == (statuses[-1] if statuses else "open")
        assert item.note == (str(len(statuses)) if statuses else "")
