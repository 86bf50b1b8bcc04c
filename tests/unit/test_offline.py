"""The offline model: no network, deterministic, honest about what it is."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from gossamer import Agent, ModelSettings, Session, tool
from gossamer.errors import ArgumentError
from gossamer.events import TextDelta
from gossamer.models import Model, OfflineModel


class Item(msgspec.Struct):
    name: str
    count: int
    tags: list[str]


class Order(msgspec.Struct):
    items: list[Item]
    kind: Literal["new", "old"]
    price: float
    paid: bool = False
    note: str | None = None


@tool(inline=True)
def convert(amount: float, rate: float) -> float:
    """Convert."""
    return round(amount * rate, 2)


@tool(inline=True)
def greet(name: str) -> str:
    """Greet."""
    return f"Hello, {name}!"


async def test_it_repeats_the_question_and_says_what_it_is():
    result = await Agent("offline").run("How are you?")
    assert "How are you?" in result.output
    assert "offline model" in result.output
    assert result.model == "offline"
    assert result.usage.model_calls == 1
    assert "Nothing was asked" in (await Agent("offline").run()).output


async def test_it_calls_the_tool_whose_arguments_are_in_the_question():
    agent = Agent("offline", tools=[convert, greet])
    result = await agent.run("What are 20 euros at 1.1?")
    assert result.messages[1].tool_calls[0].arguments == '{"amount":20.0,"rate":1.1}'
    assert "convert gave 22.0" in result.output
    assert "offline model" in result.output
    named = await agent.run('Greet "Ada"')
    assert "greet gave Hello, Ada!" in named.output
    neither = await agent.run("Nothing to find here")
    assert neither.usage.tool_calls == 0


async def test_each_tool_is_called_once_a_run_also_in_a_long_session():
    session = Session()
    agent = Agent("offline", tools=[convert])
    for turn in range(1, 4):
        result = await agent.run(f"What are {turn} euros at 2?", session=session)
        assert f"convert gave {turn * 2}.0" in result.output
        assert result.usage.tool_calls == 1
    quiet = await agent.run("What are 1 euros at 2?", settings=ModelSettings(tool_choice="none"))
    assert quiet.usage.tool_calls == 0


async def test_the_same_question_gets_the_same_answer_streamed_too():
    agent = Agent("offline", tools=[convert])
    first = (await agent.run("What are 3 at 4?")).output
    stream = agent.stream("What are 3 at 4?")
    text = "".join([event.text async for event in stream if isinstance(event, TextDelta)])
    assert first == text == stream.result.output


async def test_structured_output_is_the_smallest_value_that_fits():
    order = (await Agent("offline").run("x", output=Order)).output
    assert order == Order([], "new", 0.0)
    assert (await Agent("offline").run("x", output=list[int])).output == []
    assert (await Agent("offline").run("x", output=bool)).output in {True, False}
    assert (await Agent("offline").run("x", output=Literal["yes", "no"])).output in {"yes", "no"}
    assert (await Agent("offline").run("x", output=Item | None)).output in (None, Item("text", 0, []))
    assert isinstance(OfflineModel(), Model)


class Endless(msgspec.Struct):
    child: Endless


async def test_structured_output_without_end_is_refused():
    with pytest.raises(ArgumentError, match="without end"):
        await Agent("offline").run("x", output=Endless)
