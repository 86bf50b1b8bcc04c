"""Models by name, ready for use: each string's model is built once, with its retries around it."""

from __future__ import annotations

import functools

from gossamer.models.base import Model
from gossamer.models.presets import provider_model
from gossamer.models.retry import RetryBudget, RetryModel

__all__ = ["resolve"]


@functools.lru_cache(maxsize=1024)
def resolve(name: str) -> Model:
    """Give the model of a model string; built at its first use and then shared.

    The environment is read at the first use of each string. A provider's model comes in a `RetryModel`, with two
    retries in a `RetryBudget` of its own; `offline` does not fail.

    Raises:
        ArgumentError: no provider of that name.
        AuthenticationError: its key is not set, and it is not asked at another URL.
    """
    model = provider_model(name)
    return model if name == "offline" else RetryModel(model, budget=RetryBudget())
