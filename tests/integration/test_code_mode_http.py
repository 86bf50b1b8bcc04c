"""Code mode over real connections, in each wire format: twenty calls of tools are one turn of the model's."""

from __future__ import annotations

import json

import pytest
from tests.code_sandboxes import sandbox
from tests.integration.asking import ask, streamed_and_not

from gossamer import Agent, Session, code_mode, tool
from gossamer.events import InnerEvent, ToolCallFinished
from gossamer.models import AnthropicChat, GeminiChat, OllamaChat, OpenAIChat, OpenAIResponses
from gossamer.simulator import Simulator

__all__ = ["sandbox"]

CODE = """\
import asyncio
print(sum(await asyncio.gather(*[double(number) for number in range(10)])))
for number in range(10):
    await double(number)
"""

MODELS = {
    "openai_chat": lambda url: OpenAIChat("m", base_url=url, api_key="k"),
    "openai_responses": lambda url: OpenAIResponses("m", base_url=url, api_key="k"),
    "anthropic_chat": lambda url: AnthropicChat("m", base_url=url.removesuffix("/v1"), api_key="k"),
    "gemini_chat": lambda url: GeminiChat("m", base_url=url.removesuffix("/v1"), api_key="k"),
    "ollama_chat": lambda url: OllamaChat("m", base_url=url.removesuffix("/v1")),
}


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


@streamed_and_not
@pytest.mark.parametrize("dialect", MODELS)
async def test_twenty_calls_are_one_turn(sandbox, dialect: str, streamed: bool) -> None:
    async with Simulator() as simulator:
        agent = code_mode(Agent(MODELS[dialect](simulator.url), tools=[double]), sandbox)
        session = Session()
        prompt = f"call run_code {json.dumps({'code': CODE})}"
        result, events = await ask(agent, prompt, streamed, session=session)
        assert result.output == "run_code returned: 90"
        assert (result.usage.model_calls, result.usage.tool_calls) == (2, 21)
        assert simulator.stats.requests == 2
        inside = [event.event for event in events if isinstance(event, InnerEvent)]
        assert sum(isinstance(event, ToolCallFinished) for event in inside) == (20 if streamed else 0)
        # And the conversation goes on.
        again, _ = await ask(agent, "Good.", streamed, session=session)
        assert again.output == "You said: Good."
