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
from gossamer.models.registry import PRESETS, Preset, resolve
from gossamer.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from gossamer.models.offline import OfflineModel
    from gossamer.models.openai_chat import OpenAIChat

__all__ = [
    "PRESETS",
    "Capabilities",
    "Delta",
    "FinishReason",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "ModelSettings",
    "OfflineModel",
    "OpenAIChat",
    "Preset",
    "Price",
    "ScriptedModel",
    "TextDelta",
    "ThinkingDelta",
    "ToolArgumentsDelta",
    "ToolCallStarted",
    "resolve",
]

# Loaded at first use: a dialect brings the wire with it.
_LATE = {"OfflineModel": "gossamer.models.offline", "OpenAIChat": "gossamer.models.openai_chat"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_LATE[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
