"""A working memory on sessions that are kept in a store: what was moved out of view stays so, and is read from there."""

from __future__ import annotations

import re

import pytest

from gossamer import Agent, Session, ToolCall, tool
from gossamer.memory import WorkingMemory
from gossamer.models import ScriptedModel
from gossamer.stores import SQLiteStore

LONG = "word " * 3_000


@pytest.fixture
async def store(tmp_path):
    async with SQLiteStore(tmp_path / "chats.db") as store:
        yield store


@tool(inline=True)
def search(words: str) -> str:
    return f"{words}: {LONG}"


def asks(request):
    """Search first, then answer."""
    messages = list(request.messages)
    if messages[-1].role == "user":
        return ToolCall.of("search", words=messages[-1].text)
    return "found"


@pytest.mark.parametrize("mode", ["compact", "compress"])
async def test_a_view_that_was_moved_is_loaded_as_it_was(store, mode):
    memory = WorkingMemory(
        20_000, working_summary_mode=mode, model=ScriptedModel(lambda _: "Goal: to find. Place 3.")
    )
    agent = Agent(ScriptedModel(asks), tools=[search], memory=memory)
    session = Session("chat", store=store)
    for number in range(40):
        await agent.run(f"question {number}", session=session)
    assert session.first > 0  # a snapshot was made
    again = Session("chat", store=store)
    await again.load()
    assert again.messages == session.messages
    assert again.usage == session.usage
    texts = [message.text or str(message.parts) for message in again.messages]
    assert any("Place 3" in text or "moved out of view" in text for text in texts)
    assert (await agent.run("one more", session=again)).output == "found"


async def test_what_left_the_view_is_read_back_from_the_store(store):
    memory = WorkingMemory(20_000, working_summary_mode="compact")
    agent = Agent(ScriptedModel(asks), tools=[search], memory=memory)
    session = Session("chat", store=store)
    for number in range(40):
        await agent.run(f"question {number}", session=session)
    again = Session("chat", store=store)
    await again.load()
    told = next(m for m in again.messages if m.role == "tool" and "moved out of view" in m.parts[0].text)
    (place,) = re.findall(r"place=(\d+)", told.parts[0].text)
    assert int(place) < again.first  # it is not in memory
    reader = ScriptedModel([ToolCall.of("read_message", place=int(place), length=30), "read"])
    result = await agent.replace(model=reader).run("Read it", session=again)
    assert "question 0: word word" in result.new_messages[2].parts[0].text
