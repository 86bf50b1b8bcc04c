"""Models: the protocol, the dialects, and models that need no provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossamer.events import Delta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.models.base import (
    Capabilities,
    FinishReason,
    Model,
    ModelRequest,
    ModelResponse,
    ModelSettings,
    Price,
)
from gossamer.models.presets import PRESETS, Preset
from gossamer.models.registry import resolve
from gossamer.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from gossamer.models.anthropic_chat import AnthropicChat
    from gossamer.models.azure_openai import AzureOpenAIChat
    from gossamer.models.cached import CachedModel
    from gossamer.models.circuit_breaker import CircuitBreakerModel, CircuitState
    from gossamer.models.fallback import FallbackModel
    from gossamer.models.gemini_chat import GeminiChat
    from gossamer.models.offline import OfflineModel
    from gossamer.models.ollama_chat import OllamaChat
    from gossamer.models.openai_chat import OpenAIChat
    from gossamer.models.openai_responses import OpenAIResponses
    from gossamer.models.prices import add_prices, price_for, prices_dated
    from gossamer.models.rate_limit import RateLimitedModel
    from gossamer.models.retry import RetryBudget, RetryModel

__all__ = [
    "PRESETS",
    "AnthropicChat",
    "AzureOpenAIChat",
    "CachedModel",
    "Capabilities",
    "CircuitBreakerModel",
    "CircuitState",
    "Delta",
    "FallbackModel",
    "FinishReason",
    "GeminiChat",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "ModelSettings",
    "OfflineModel",
    "OllamaChat",
    "OpenAIChat",
    "OpenAIResponses",
    "Preset",
    "Price",
    "RateLimitedModel",
    "RetryBudget",
    "RetryModel",
    "ScriptedModel",
    "TextDelta",
    "ThinkingDelta",
    "ToolArgumentsDelta",
    "ToolCallStarted",
    "add_prices",
    "price_for",
    "prices_dated",
    "resolve",
]

# Loaded at first use: a dialect brings the wire with it.
_LATE = {
    "AnthropicChat": "gossamer.models.anthropic_chat",
    "AzureOpenAIChat": "gossamer.models.azure_openai",
    "CachedModel": "gossamer.models.cached",
    "CircuitBreakerModel": "gossamer.models.circuit_breaker",
    "CircuitState": "gossamer.models.circuit_breaker",
    "FallbackModel": "gossamer.models.fallback",
    "GeminiChat": "gossamer.models.gemini_chat",
    "OfflineModel": "gossamer.models.offline",
    "OllamaChat": "gossamer.models.ollama_chat",
    "OpenAIChat": "gossamer.models.openai_chat",
    "OpenAIResponses": "gossamer.models.openai_responses",
    "RateLimitedModel": "gossamer.models.rate_limit",
    "RetryBudget": "gossamer.models.retry",
    "RetryModel": "gossamer.models.retry",
    "add_prices": "gossamer.models.prices",
    "price_for": "gossamer.models.prices",
    "prices_dated": "gossamer.models.prices",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_LATE[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
