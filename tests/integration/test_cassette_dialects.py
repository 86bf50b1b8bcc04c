"""Cassettes and the response cache under every dialect and embedder: recorded from the simulator, replayed without it."""

from __future__ import annotations

import pytest
from tests.integration.asking import ask, convert, streamed_and_not

from gossamer import Agent, Session
from gossamer.events import TextDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.models import (
    AnthropicChat,
    AzureOpenAIChat,
    CachedModel,
    GeminiChat,
    OllamaChat,
    OpenAIChat,
    OpenAIResponses,
)
from gossamer.models.embeddings import GeminiEmbedder, OllamaEmbedder, OpenAIEmbedder
from gossamer.simulator import Simulator
from gossamer.testing import Cassette

KEY = "a-key-that-nobody-may-read"
MODELS = {
    "openai_chat": lambda url: OpenAIChat("any", base_url=url, api_key=KEY),
    "mistral": lambda url: OpenAIChat(
        "any", base_url=url, api_key=KEY, provider="mistral", short_call_ids=True
    ),
    "openai_responses": lambda url: OpenAIResponses("any", base_url=url, api_key=KEY),
    "azure": lambda url: AzureOpenAIChat("any", base_url=url, api_key=KEY),
    "anthropic_chat": lambda url: AnthropicChat("any", base_url=url.removesuffix("/v1"), api_key=KEY),
    "gemini_chat": lambda url: GeminiChat("any", base_url=url.removesuffix("/v1"), api_key=KEY),
    "ollama_chat": lambda url: OllamaChat("any", base_url=url.removesuffix("/v1"), api_key=KEY),
}
EMBEDDERS = {
    "openai": lambda url: OpenAIEmbedder("any", base_url=url, api_key=KEY),
    "gemini": lambda url: GeminiEmbedder("any", base_url=url.removesuffix("/v1"), api_key=KEY),
    "ollama": lambda url: OllamaEmbedder("any", base_url=url.removesuffix("/v1")),
}
NOWHERE = "http://127.0.0.1:9/v1"
every_dialect = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


async def talk(model, streamed):
    """A conversation with two parallel calls; what of it must be the same each time."""
    agent, session = Agent(model, tools=[convert]), Session()
    told = []
    for prompt in ("Good morning", 'call convert {"amount": 2, "rate": 3}', "Good night"):
        result, events = await ask(agent, prompt, streamed, session=session)
        ids = [call.id for message in result.new for call in message.tool_calls]
        seen = [
            (
                type(event).__name__,
                getattr(event, "text", None),
                ids.index(event.call_id) if hasattr(event, "call_id") else None,
            )
            for event in events
            if type(event) in {TextDelta, ToolCallStarted, ToolArgumentsDelta}
        ]
        told.append((result.output, result.usage.total_tokens, seen))
    return told


@every_dialect
@streamed_and_not
async def test_a_conversation_is_replayed(tmp_path, model, streamed):
    path = tmp_path / "a.json"
    async with Simulator() as simulator:
        with Cassette(path):
            recorded = await talk(model(simulator.url), streamed)
    assert recorded[1][0] == "convert returned: 6.0"
    assert KEY not in path.read_text()
    if streamed:
        assert path.read_text().count('\n          {"') > 6, "the stream is not kept an event a line"
    with Cassette(path, "replay"):
        assert await talk(model(NOWHERE), streamed) == recorded


@every_dialect
@streamed_and_not
async def test_a_conversation_is_answered_from_the_cache(model, streamed):
    async with Simulator() as simulator:
        cached = CachedModel(model(simulator.url))
        recorded = await talk(cached, streamed)
        asked = simulator.stats.requests
        again = await talk(cached, streamed)
        assert simulator.stats.requests == asked
    assert [(output, seen) for output, _, seen in again] == [(output, seen) for output, _, seen in recorded]
    assert [tokens for _, tokens, _ in again] == [0, 0, 0]


@pytest.mark.parametrize("embedder", EMBEDDERS.values(), ids=EMBEDDERS)
async def test_embeddings_are_replayed(tmp_path, embedder):
    texts = ["one", "two", "three"]
    async with Simulator() as simulator:
        with Cassette(tmp_path / "a.json"):
            recorded = await embedder(simulator.url).embed(texts)
    with Cassette(tmp_path / "a.json", "replay"):
        again = await embedder(NOWHERE).embed(texts)
    assert [list(vector) for vector in again.vectors] == [list(vector) for vector in recorded.vectors]
    assert len(again.vectors) == 3
