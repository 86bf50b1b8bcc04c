"""What is too large for the view is kept aside: a reference stays, and the model reads on demand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import Agent, HostedTool, Session, ToolCall, ToolError, tool
from gossamer.models import ScriptedModel
from gossamer.tools import Offload

LONG = "".join(f"line {number}: all is well\n" for number in range(10_000)) + "the needle lies here\n"


@tool(inline=True)
def report() -> str:
    return LONG


def reading(**arguments):
    """A script: get the report, then read it by the reference in the view, then answer."""

    def reply(request):
        told = [message for message in request.messages if message.role == "tool"]
        if not told:
            return ToolCall.of("report")
        if len(told) == 1:
            (reference,) = re.findall(r"kept as (offload-\d+)", told[0].parts[0].text)
            return ToolCall.of("read_offloaded", reference=reference, **arguments)
        return told[1].parts[0].text

    return ScriptedModel(reply)


def tools_offered(request):
    return [schema.name for schema in request.tools]


@pytest.mark.parametrize("with_session", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_long_result_is_kept_aside_and_read_on_demand(with_session, streamed):
    model = reading(start=len(LONG) - 30, length=1000)
    agent = Agent(model, tools=[report])
    session = Session() if with_session else None
    if streamed:
        async with agent.stream("go", session=session) as stream:
            async for _ in stream:
                pass
        result = stream.result
    else:
        result = await agent.run("go", session=session)

    shown = result.messages[2].parts[0].content
    assert shown.startswith(LONG[:400])
    assert len(shown) < 1000
    assert f"{len(LONG)} characters in all" in shown
    assert result.output == f"[characters {len(LONG) - 30} to {len(LONG)} of {len(LONG)}]\n{LONG[-30:]}"
    assert [tools_offered(request) for request in model.requests] == [
        ["report"],
        ["report", "read_offloaded"],
        ["report", "read_offloaded"],
    ]


async def test_what_was_kept_aside_can_be_searched():
    result = await Agent(reading(find="NEEDLE"), tools=[report]).run("go")
    place = LONG.index("needle")
    assert result.output.startswith(f"at {place}: …")
    assert "the needle lies here" in result.output


async def test_a_session_keeps_it_for_later_runs_and_through_json():
    session = Session()
    await Agent(ScriptedModel([ToolCall.of("report"), "ok"]), tools=[report]).run("go", session=session)

    again = Session.from_export(session.export())
    model = ScriptedModel([ToolCall.of("read_offloaded", reference="offload-1", length=10), "ok"])
    result = await Agent(model).run("more", session=again)

    assert tools_offered(model.requests[0]) == ["read_offloaded"]
    assert result.new_messages[2].parts[0].content == f"[characters 0 to 10 of {len(LONG)}]\n{LONG[:10]}"
    assert again.offload.put("next") == "offload-2"


async def test_a_run_without_session_remembers_nothing_in_the_next():
    model = ScriptedModel([ToolCall.of("report"), "ok", "ok"])
    agent = Agent(model, tools=[report])
    await agent.run("go")
    await agent.run("go")
    assert tools_offered(model.requests[2]) == ["report"]


async def test_the_bound_of_a_result_is_the_tools_own():
    short = report.replace(max_result_chars=len(LONG))
    result = await Agent(ScriptedModel([ToolCall.of("report"), "ok"]), tools=[short]).run("go")
    assert result.messages[2].parts[0].content == LONG


async def test_long_json_is_kept_aside_as_json():
    @tool(inline=True, max_result_chars=100)
    def numbers() -> list[int]:
        return list(range(1000))

    session = Session()
    await Agent(ScriptedModel([ToolCall.of("numbers"), "ok"]), tools=[numbers]).run("go", session=session)
    (kept,) = session.offload.texts.values()
    assert kept.startswith("[0,1,2,")
    assert kept.endswith(",999]")


async def test_a_result_larger_than_the_whole_place_ends_the_run():
    session = Session()
    session.offload.max_chars = 1000
    agent = Agent(ScriptedModel([ToolCall.of("report"), "ok"]), tools=[report])
    with pytest.raises(ToolError, match=r"larger than the offload's bound of 1000"):
        await agent.run("go", session=session)


async def test_a_tool_of_the_users_own_named_read_offloaded_is_left_in_place():
    mine = tool(name="read_offloaded", inline=True)(lambda reference: f"mine: {reference}")
    result = await Agent(reading(), tools=[report, mine]).run("go")
    assert result.output == "mine: offload-1"


def test_the_oldest_goes_when_there_is_no_room():
    offload = Offload(max_chars=10)
    first, second, third = offload.put("aaaa"), offload.put("bbbb"), offload.put("cccc")
    assert list(offload.texts) == [second, third]
    assert (len(offload), offload.dropped) == (2, 1)
    assert offload.read(first) == f"There is no 'offload-1'; kept are: {second}, {third}."
    with pytest.raises(ToolError, match="bound of 10"):
        offload.put("x" * 11)


@given(st.text(max_size=60), st.integers(-9, 99), st.integers(-9, 99))
def test_reading_gives_exactly_the_part_asked_for(text, start, length):
    offload = Offload()
    header, _, part = offload.read(offload.put(text), start, length).partition("]\n")
    start = max(start, 0)
    assert part == text[start : start + max(length, 0)]
    assert header.endswith(f"of {len(text)}")


@given(st.text(min_size=1, max_size=5), st.lists(st.text(max_size=10), max_size=5))
def test_places_found_are_places_in_the_text(words, others):
    text = words.join([*others, ""])
    offload = Offload()
    found = offload.read(offload.put(text), find=words)
    for place in re.findall(r"^at (\d+): ", found, re.MULTILINE):
        if int(place) < len(text) and not re.search(r"at \d+: ", text):
            start = int(place)
            assert re.fullmatch(re.escape(words), text[start : start + len(words)], re.IGNORECASE)


def test_letters_that_grow_when_folded_do_not_shift_the_places():
    offload = Offload()
    assert "at 1000: " in offload.read(offload.put("ß" * 1000 + "needle"), find="NEEDLE")


def test_reading_and_searching_are_bounded():
    offload = Offload()
    key = offload.put("x " * 50_000)
    assert len(offload.read(key, length=10**9)) < 20_100
    assert offload.read(key, find="x").count("\n") == 19
    assert offload.read(key, find="y") == "'y' does not occur in it."


async def test_tools_of_a_provider_stay_behind_the_one_that_reads():
    model = ScriptedModel([ToolCall.of("report"), "done"])
    await Agent(model, tools=[report, HostedTool("web_search")]).run("go")
    names = [one.name for one in model.requests[-1].tools]
    assert names == ["report", "read_offloaded", "web_search"]
