"""One agent, five providers, one session: the model is all that changes. The simulator plays them all, without a key."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Session, tool
from gossamer.models import AnthropicChat, GeminiChat, OllamaChat, OpenAIChat, OpenAIResponses
from gossamer.simulator import Simulator


@tool(inline=True)
def convert(amount: float, rate: float) -> float:
    """Convert an amount of money.

    Args:
        amount: in the source currency.
        rate: target units for one source unit.
    """
    return round(amount * rate, 2)


agent = Agent("offline", tools=[convert])


async def main() -> None:
    session = Session()
    async with Simulator() as simulator:
        root = simulator.url.removesuffix("/v1")
        models = (  # with keys, strings will do: "openai:gpt-5-mini", "anthropic:claude-haiku-5-5"
            OpenAIChat("gpt-5-mini", base_url=simulator.url, api_key="none"),
            OpenAIResponses("gpt-5-mini", base_url=simulator.url, api_key="none"),
            AnthropicChat("claude-haiku-5-5", base_url=root, api_key="none"),
            GeminiChat("gemini-3.8-flash", base_url=root, api_key="none"),
            OllamaChat("qwen3:8b", base_url=root),
        )
        for number, model in enumerate(models, start=1):
            prompt = f'call convert {{"amount": {number}0, "rate": 1.1}}'
            result = await agent.replace(model=model).run(prompt, session=session)
            cost = "no price" if result.usage.unpriced_calls else f"${result.usage.cost:.6f}"
            print(f"{model.dialect:<17}{result.output:<24}{cost}")
    print(f"{len(session.messages)} messages in one session")


if __name__ == "__main__":
    asyncio.run(main())
