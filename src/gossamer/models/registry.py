"""Models by name: `provider:model` strings, and the providers that are known."""

from __future__ import annotations

import functools
import os

import msgspec

from gossamer.errors import ArgumentError, AuthenticationError
from gossamer.models.base import Model

__all__ = ["PRESETS", "Preset", "check_model", "resolve"]


class Preset(msgspec.Struct, frozen=True):
    """A provider that speaks OpenAI's Chat Completions.

    Attributes:
        base_url: where it answers.
        key_env: the environment variable that holds the key; None where none is needed.
        url_env: the environment variable that overrides `base_url`, or None.
        send_thinking: whether thinking goes back to the provider while a tool loop lasts.
    """

    base_url: str
    key_env: str | None
    url_env: str | None = None
    send_thinking: bool = False


PRESETS: dict[str, Preset] = {
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", send_thinking=True),
    "groq": Preset("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "xai": Preset("https://api.x.ai/v1", "XAI_API_KEY"),
    "moonshot": Preset("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", send_thinking=True),
    "dashscope": Preset("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "glm": Preset("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "sambanova": Preset("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "lmstudio": Preset("http://127.0.0.1:1234/v1", None, "LMSTUDIO_BASE_URL"),
    "vllm": Preset("http://127.0.0.1:8000/v1", None, "VLLM_BASE_URL"),
}


def check_model(name: str) -> None:
    """Check that a model string can mean something, without building anything.

    Raises:
        ArgumentError: no provider of that name.
    """
    provider, colon, model = name.partition(":")
    if name == "offline":
        return
    if provider not in PRESETS:
        raise ArgumentError(
            f"model {name!r} names no known provider; write 'offline' or 'provider:model' with one of "
            f"{', '.join(PRESETS)}, or pass OpenAIChat(model, base_url=…)"
        )
    if not colon or not model:
        raise ArgumentError(f"model {name!r} lacks the model's name; write {provider}:NAME")


@functools.lru_cache(maxsize=1024)
def resolve(name: str) -> Model:
    """Give the model of a model string; built at its first use and then shared.

    The environment is read at the first use of each string.

    Raises:
        ArgumentError: no provider of that name.
        AuthenticationError: its key is not set, and it is not asked at another URL.
    """
    check_model(name)
    if name == "offline":
        from gossamer.models.offline import OfflineModel

        return OfflineModel()
    provider, _, model = name.partition(":")
    preset = PRESETS[provider]
    key = os.environ.get(preset.key_env) if preset.key_env else None
    url = os.environ.get(preset.url_env) if preset.url_env else None
    if preset.key_env and not key and not url:  # a server of the user's own may want no key
        raise AuthenticationError(
            f"{preset.key_env} is not set, and model {name!r} needs it; set it, or use 'offline' to try without a key",
            provider=provider,
        )
    from gossamer.models.openai_chat import OpenAIChat

    return OpenAIChat(
        model,
        base_url=url or preset.base_url,
        api_key=key,
        provider=provider,
        send_thinking=preset.send_thinking,
    )
