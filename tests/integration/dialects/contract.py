"""What the contract of models needs of each dialect: its model on the simulator, and what it sent, in one form."""

from __future__ import annotations

import json

import pytest

from gossamer.models import AnthropicChat, GeminiChat, OllamaChat, OpenAIChat, OpenAIResponses
from gossamer.models.transport import Transport
from gossamer.simulator import Simulator
from gossamer.simulator.script import Script

MODELS = {
    "openai_chat": lambda url, **options: OpenAIChat("sim", base_url=f"{url}/v1", api_key="k", **options),
    "openai_responses": lambda url, **options: OpenAIResponses(
        "sim", base_url=f"{url}/v1", api_key="k", **options
    ),
    "anthropic_chat": lambda url, **options: AnthropicChat("sim", base_url=url, api_key="k", **options),
    "gemini_chat": lambda url, **options: GeminiChat("gemini-3-sim", base_url=url, api_key="k", **options),
    "ollama_chat": lambda url, **options: OllamaChat("sim", base_url=url, **options),
}
DIALECTS = tuple(MODELS)
# The field of a request that holds the conversation.
CONVERSATION = {"openai_responses": "input", "gemini_chat": "contents"}

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)
streamed_and_not = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def simulator(*replies, **options):
    """A simulator, with a script where replies are given."""
    return Simulator(script=Script(list(replies)) if replies else None, **options)


def model_of(dialect, simulator, **options):
    """The dialect's model, on a simulator."""
    return MODELS[dialect](simulator.url.removesuffix("/v1"), **options)


@pytest.fixture
def sent(monkeypatch):
    """The body of every request to a model, decoded, in order."""
    bodies = []
    send = Transport.send

    async def remember(self, body, *arguments, **options):
        bodies.append(json.loads(body))
        return await send(self, body, *arguments, **options)

    monkeypatch.setattr(Transport, "send", remember)
    return bodies


def conversation_of(dialect, body):
    """What a request says, one entry a block, so that neighbours put together look like neighbours apart."""
    blocks = []
    for message in body[CONVERSATION.get(dialect, "messages")]:
        content = message.get("content", message.get("parts"))
        if isinstance(content, list):
            blocks += [(message.get("role"), json.dumps(_unmarked(block))) for block in content]
        else:
            blocks.append((message.get("role"), json.dumps(_unmarked(message))))
    return blocks


def _unmarked(block):
    return {key: value for key, value in block.items() if key != "cache_control"}
