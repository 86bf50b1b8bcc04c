"""Embedders: texts to vectors, by a provider or in this process."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gossamer.errors import ArgumentError
from gossamer.models.embeddings.base import Batching, Embedder, Embeddings, Purpose, Vector
from gossamer.models.presets import PRESETS, key_for

if TYPE_CHECKING:
    from gossamer.models.embeddings.azure import AzureOpenAIEmbedder
    from gossamer.models.embeddings.gemini import GeminiEmbedder
    from gossamer.models.embeddings.local import SentenceTransformersEmbedder
    from gossamer.models.embeddings.ollama import OllamaEmbedder
    from gossamer.models.embeddings.openai import OpenAIEmbedder

__all__ = [
    "AzureOpenAIEmbedder",
    "Batching",
    "Embedder",
    "Embeddings",
    "GeminiEmbedder",
    "OllamaEmbedder",
    "OpenAIEmbedder",
    "Purpose",
    "SentenceTransformersEmbedder",
    "Vector",
    "embedder",
]

# Loaded at first use: an embedder brings the wire with it.
_LATE = {
    "AzureOpenAIEmbedder": "azure",
    "GeminiEmbedder": "gemini",
    "OllamaEmbedder": "ollama",
    "OpenAIEmbedder": "openai",
    "SentenceTransformersEmbedder": "local",
}

# The class for the wire format of each preset; the others have no embeddings.
_CLASSES = {
    "openai_chat": "OpenAIEmbedder",
    "openai_responses": "OpenAIEmbedder",
    "azure_openai": "AzureOpenAIEmbedder",
    "gemini_chat": "GeminiEmbedder",
    "ollama_chat": "OllamaEmbedder",
}


@functools.lru_cache(maxsize=256)
def embedder(name: str) -> Embedder:
    """Give the embedder of a string such as `openai:text-embedding-3-small`; built at its first use and then shared.

    The providers are those of model strings, and `local` for sentence-transformers in this process. Keys and URLs come
    from the same environment variables.

    Args:
        name: `provider:model`.

    Raises:
        ArgumentError: no provider of that name, or one that has no embeddings.
        AuthenticationError: its key is not set, and it is not asked at another URL.
    """
    provider, colon, model = name.partition(":")
    if not colon or not model:
        raise ArgumentError(
            f"embedder {name!r} must be 'provider:model', as in openai:text-embedding-3-small"
        )
    if provider == "local":
        return _class("SentenceTransformersEmbedder")(model)
    preset = PRESETS.get(provider)
    if preset is None or preset.dialect not in _CLASSES:
        known = [known for known, preset in PRESETS.items() if preset.dialect in _CLASSES]
        raise ArgumentError(
            f"embedder {name!r} names no provider with embeddings; write one of {', '.join(known)} or local, or pass "
            "OpenAIEmbedder(model, base_url=…)"
        )
    key = key_for(provider, f"embedder {name!r}")
    options: dict[str, Any] = {"base_url": preset.url() or preset.base_url, "api_key": key}
    if _CLASSES[preset.dialect] == "OpenAIEmbedder":
        options["provider"] = "openai" if provider == "openai_responses" else provider
    return _class(_CLASSES[preset.dialect])(model, **options)


def _class(name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        value = globals()[name] = _class(name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
