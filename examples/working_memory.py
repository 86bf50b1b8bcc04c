"""Working memory: a long search whose results leave the view, and are read back where they are needed."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Session, ToolCall, tool
from gossamer.memory import WorkingMemory
from gossamer.models import ModelRequest, ScriptedModel

FACTS = {3: "The bridge opens on the 4th of April."}


@tool
def read_page(number: int) -> str:
    """Read a page of the archive.

    Args:
        number: the page.
    """
    return "Minutes of the council. " * 500 + FACTS.get(number, "Nothing was decided.")


def reply(request: ModelRequest) -> str | ToolCall:
    """Stands in for a model: reads twenty pages, then searches in what it no longer sees."""
    told = [message for message in request.messages if message.role == "tool"]
    if len(told) < 20:
        return ToolCall.of("read_page", number=len(told))
    if len(told) == 20:
        return ToolCall.of("search_messages", words="bridge opens")
    return f"Found: {told[-1].parts[0].text}"


async def main() -> None:
    memory = WorkingMemory(max_total_tokens=20_000, keep_recent_count=4)
    agent = Agent(ScriptedModel(reply), tools=[read_page], memory=memory)
    session = Session(id="archive")
    result = await agent.run("When does the bridge open?", session=session)
    print(result.output)

    size = memory.counter.messages(session.messages)
    print(f"{len(session.messages)} messages in view, about {size:,} tokens; the first result is a line:")
    print(session.messages[2].parts[0].text)


if __name__ == "__main__":
    asyncio.run(main())
