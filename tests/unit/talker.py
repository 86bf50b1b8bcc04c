"""What the tests of streams share: a model that talks for as long as it is asked to, and ways to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from gossamer import Agent, Message, Usage, tool
from gossamer.events import TextDelta
from gossamer.models import Capabilities, ModelRequest, ModelResponse, ScriptedModel

__all__ = ["Talker", "double", "drive", "kinds", "model", "read"]


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


async def drive(agent: Agent, how: str, *arguments, **keywords):
    """Run in one of the ways in which users run."""
    if how == "run":
        return await agent.run(*arguments, **keywords)
    async with agent.stream(*arguments, **keywords) as stream:
        async for _ in stream:
            pass
    return stream.result


class Talker:
    """A model that says words for as long as it is asked to, and knows how it was stopped."""

    name = "talker"
    dialect = "talker"
    capabilities = Capabilities()

    def __init__(self, words: int, *, pause: bool = False) -> None:
        self.words = words
        self.pause = pause
        self.said = 0
        self.closed = 0

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, request: ModelRequest) -> AsyncGenerator:
        try:
            for _ in range(self.words):
                if self.pause:
                    await asyncio.sleep(0)
                self.said += 1
                yield TextDelta("word ")
            if self.pause:
                await asyncio.Event().wait()
            yield ModelResponse(Message.assistant("word " * self.words), Usage(model_calls=1))
        finally:
            self.closed += 1


def kinds(events) -> list[str]:
    return [type(event).__name__ for event in events]


async def read(stream) -> list:
    return [event async for event in stream]
