"""An answer of a type: a Struct here; a dataclass, a TypedDict or a pydantic model do as well."""

from __future__ import annotations

import asyncio

import msgspec

from gossamer import Agent
from gossamer.events import OutputDelta


class Quote(msgspec.Struct):
    amount: float
    currency: str
    tags: list[str] = []


agent = Agent("offline", instructions="Quote a price.", output=Quote)


async def main() -> None:
    quote = (
        await agent.run("A bicycle, please.")
    ).output  # the offline model gives the smallest value that fits
    print(f"{type(quote).__name__}: {quote}")

    async with agent.stream("A bicycle, please.") as stream:
        async for event in stream:
            if isinstance(event, OutputDelta):
                print(f"so far: {event.partial}")
    print(f"in the end: {stream.result.output}")


if __name__ == "__main__":
    asyncio.run(main())
