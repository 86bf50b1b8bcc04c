"""Every embedder against the simulator: the vectors it made, counted and, where the price is known, priced."""

from __future__ import annotations

import pytest

from gossamer.errors import ModelError
from gossamer.models.embeddings import (
    AzureOpenAIEmbedder,
    Batching,
    GeminiEmbedder,
    OllamaEmbedder,
    OpenAIEmbedder,
)
from gossamer.simulator import Simulator

QUICK = Batching(max_texts=2, first_wait=0.001)
TEXTS = ["the cat sat on the mat", "a cat lay on a mat", "engines burn petrol quickly", "one", "two words"]

EMBEDDERS = {
    "openai": lambda root: OpenAIEmbedder(
        "text-embedding-3-small", base_url=f"{root}/v1", dimensions=256, batching=QUICK
    ),
    "azure": lambda root: AzureOpenAIEmbedder(
        "text-embedding-3-small", base_url=root, api_key="k", dimensions=256, batching=QUICK
    ),
    "gemini": lambda root: GeminiEmbedder(
        "gemini-embedding-001", base_url=root, api_key="k", dimensions=256, batching=QUICK
    ),
    "ollama": lambda root: OllamaEmbedder("nomic-embed-text", base_url=root, dimensions=256, batching=QUICK),
}


def closeness(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("provider", EMBEDDERS)
async def test_the_simulator_is_understood(provider):
    async with Simulator() as simulator:
        embedder = EMBEDDERS[provider](simulator.url.removesuffix("/v1"))
        found = await embedder.embed(TEXTS)
        alone = [(await embedder.embed([text])).vectors[0] for text in TEXTS]
        query = (await embedder.embed(["where is the cat"], "query")).vectors[0]
    assert [list(vector) for vector in found.vectors] == [list(vector) for vector in alone]
    assert {len(vector) for vector in found.vectors} == {256}
    assert closeness(found.vectors[0], found.vectors[1]) > closeness(found.vectors[0], found.vectors[2])
    assert closeness(query, found.vectors[0]) > closeness(query, found.vectors[2])
    assert found.usage.input_tokens > len(TEXTS)
    assert found.usage.model_calls == 3
    priced = provider in {"openai", "gemini"}
    assert (found.usage.cost > 0) is priced
    assert found.usage.unpriced_calls == (0 if priced else 3)


@pytest.mark.parametrize(
    "provider", sorted(EMBEDDERS.keys() - {"ollama"})
)  # which passes over sizes too large
async def test_its_errors_are_typed(provider):
    async with Simulator() as simulator:
        embedder = EMBEDDERS[provider](simulator.url.removesuffix("/v1"))
        embedder.dimensions = 1_000_000
        with pytest.raises(ModelError) as caught:
            await embedder.embed(TEXTS)
    assert caught.value.status == 400
    assert caught.value.attempts == 1
