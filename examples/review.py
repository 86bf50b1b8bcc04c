"""A writer, a critic and an editor: all at once, one after another, in one conversation, in one stream."""

from __future__ import annotations

import asyncio

from gossamer import Agent, MessageHub, fanout_pipeline, sequential_pipeline, stream_pipeline
from gossamer.events import TextDelta

writer = Agent("offline", "You write.", name="writer")
critic = Agent("offline", "You find what is weak.", name="critic")
editor = Agent("offline", "You decide.", name="editor")
team = [writer, critic, editor]


async def main() -> None:
    results = await fanout_pipeline(team, "Name a boat.")  # as long as the slowest takes
    print("at once:", ", ".join(f"{result.agent} said {result.output!r}" for result in results))

    result = await sequential_pipeline(team, "Name a boat.")
    print("in turn:", result.output, f"({result.usage.model_calls} model calls)")

    async with MessageHub(team, "Let us name a boat.") as hub:
        await writer("Begin.")
        await critic("What is weak in it?")
        await editor("Decide.")
        for message in hub.sessions["editor"].messages:
            print("the editor knows:", message.author or message.role, "-", message.text)

    words: dict[str, int] = {}
    async with stream_pipeline(team, "Sing!") as stream:
        async for said in stream:
            if isinstance(said.event, TextDelta):
                words[said.agent] = words.get(said.agent, 0) + 1
            elif said.last:
                print(f"{said.agent} has spoken, {words[said.agent]} words")


if __name__ == "__main__":
    asyncio.run(main())
