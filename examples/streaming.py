"""A stream: the answer and the tool calls as they come."""

from __future__ import annotations

import asyncio

from gossamer import Agent, tool
from gossamer.events import TextDelta, ToolCallFinished, ToolProgress


@tool
def count_up(end: int):
    """Count up from one.

    Args:
        end: the last number.
    """
    yield from range(1, end + 1)  # each is shown as progress; the last one is the result


agent = Agent("offline", tools=[count_up])


async def main() -> None:
    async with agent.stream("Count up to 3.") as stream:
        async for event in stream:
            match event:
                case TextDelta(text):
                    print(text, end="", flush=True)
                case ToolProgress(call, value):
                    print(f"… {call.name}: {value}")
                case ToolCallFinished(call, result):
                    print(f"← {call.name}: {result.text}")
                case _:
                    pass
    print(f"\n{stream.result.usage.model_calls} model calls")


if __name__ == "__main__":
    asyncio.run(main())
