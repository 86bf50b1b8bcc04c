"""A team of teams: two researchers look at the same time, an editor goes over what they found, and everything streams."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Limits, Session, Team, tool
from gossamer.events import InnerEvent, TextDelta, ToolCallFinished


@tool(inline=True)
def count_sources(first: int, second: int) -> int:
    """Count the sources of two shelves.

    Args:
        first: on the one.
        second: on the other.
    """
    return first + second


library = Agent("offline", "Look in the library.", name="library", tools=[count_sources])
archive = Agent("offline", "Look in the archive.", name="archive", tools=[count_sources])
research = Team([library, archive], mode="broadcast", name="research")
editor = Agent("offline", "Make one page of it.", name="editor")
newsroom = Team([research, editor], mode="sequential", name="newsroom", limits=Limits(max_tool_calls=20))


async def main() -> None:
    session = Session()
    async with newsroom.stream("How many sources are 3 and 4?", session=session) as stream:
        async for event in stream:
            if isinstance(event, InnerEvent):
                way = " > ".join(event.path)
                if isinstance(event.event, ToolCallFinished):
                    print(f"{way}: {event.event.call.name} gave {event.event.result.text.splitlines()[0]}")
                elif isinstance(event.event, TextDelta) and event.path == ("editor",):
                    print(event.event.text, end="")
    usage = stream.result.usage
    print(
        f"\n{usage.model_calls} model calls, {usage.tool_calls} tool calls, {len(session.messages)} messages"
    )


if __name__ == "__main__":
    asyncio.run(main())
