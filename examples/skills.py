"""Skills: instructions in folders, of which the model sees names and summaries until it reads one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gossamer import Agent, ToolCall, ToolResult
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.tools import skills

HERE = Path(__file__).parent


async def answer(request: ModelRequest) -> ToolCall | str:
    """Do what a model would: read the skill, then the file that it mentions, then follow it."""
    results = [
        part.text for message in request.messages for part in message.parts if isinstance(part, ToolResult)
    ]
    if not results:
        return ToolCall.of("read_skill", name="currency-report")
    if len(results) == 1:
        return ToolCall.of("read_skill_file", name="currency-report", path="references/rates.csv")
    rates = dict(line.split(",") for line in results[1].splitlines()[1:])
    amounts = sorted(((float(rate) * 20, currency) for currency, rate in rates.items()), reverse=True)
    return "\n".join(f"{amount:.2f} {currency}" for amount, currency in amounts)


agent = Agent(ScriptedModel(answer), tools=[skills(HERE / "skills")])


async def main() -> None:
    result = await agent.run("What are 20 euros in other currencies?")
    for message in result.messages:
        for call in message.tool_calls:
            print(f"→ {call.name} {call.arguments}")
    print(result.output)


if __name__ == "__main__":
    asyncio.run(main())
