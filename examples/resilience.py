"""A provider that fails: retries, a stand-in, a cache and a limit on money, around models as you like."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Limits
from gossamer.models import (
    AnthropicChat,
    CachedModel,
    CircuitBreakerModel,
    FallbackModel,
    OpenAIChat,
    RetryModel,
)
from gossamer.simulator import Script, Simulator

# What the first provider does: it is overloaded once, answers, and then has no capacity for a long time.
TROUBLE = Script([{"error": 503}, "Good morning from the first!", *[{"error": 529}] * 20])


async def main() -> None:
    async with Simulator(script=TROUBLE) as first, Simulator() as second:
        guarded = CircuitBreakerModel(
            OpenAIChat("gpt-5-mini", base_url=first.url, api_key="none"), failures=3, open_seconds=60
        )
        stand_in = AnthropicChat("claude-haiku-5-5", base_url=second.url, api_key="none")
        model = FallbackModel(RetryModel(guarded, attempts=3, first_wait=0.01), stand_in)

        agent = Agent(model)
        for prompt in ("Good morning", "Good day", "Good evening"):
            result = await agent.run(prompt)
            print(f"{result.model}: {result.output} (circuit {guarded.state})")
        print(f"the first provider was asked {first.stats.requests} times")

        cached = Agent(CachedModel(model))
        await cached.run("Good night")
        again = await cached.run("Good night")
        print(f"asked again: {again.usage.model_calls} calls, {again.usage.cached_calls} from the cache")

        frugal = Agent(model, limits=Limits(max_cost=0.0001))
        stopped = await frugal.run("Read this: " + "lorem ipsum " * 100)
        print(f"ended by {stopped.finish_reason}: {stopped.stopped}")


if __name__ == "__main__":
    asyncio.run(main())
