"""The providers that are known by name, and the models that `provider:model` strings name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, AuthenticationError
from gossamer.models.base import Capabilities, Model

__all__ = ["PRESETS", "Preset", "check_model", "key_for", "provider_model", "server_url"]

# Whether a recording answers in the providers' place: then a key that is not there is not missed.
replaying = False


class Preset(msgspec.Struct, frozen=True):
    """A provider that is known by name.

    Attributes:
        base_url: where it answers; empty where only the environment can say it.
        key_envs: the environment variables that may hold the key, the first that is set wins; none where no key is
            needed.
        url_env: the environment variable that overrides `base_url`, or None.
        dialect: the wire format it speaks.
        capabilities: what its models can do, most of them.
        options: given to the dialect's class, for what differs from the others that speak the same.
    """

    base_url: str
    key_envs: tuple[str, ...] = ()
    url_env: str | None = None
    dialect: str = "openai_chat"
    capabilities: Capabilities = Capabilities()
    options: Mapping[str, Any] = {}

    @property
    def key_env(self) -> str | None:
        """The environment variable that should hold the key; None where no key is needed."""
        return self.key_envs[0] if self.key_envs else None

    def key(self) -> str | None:
        """The key, as the environment has it now."""
        return next((value for name in self.key_envs if (value := os.environ.get(name))), None)

    def lacks_key(self) -> bool:
        """Whether the environment has not the key that is needed; a server at a URL of the user's own may want none."""
        return bool(self.key_envs) and self.key() is None and not (self.base_url and self.url())

    def url(self) -> str | None:
        """The URL that the environment names now, in place of `base_url`; a host alone where no key goes to it."""
        url = (os.environ.get(self.url_env) or None) if self.url_env else None
        if url is None or self.key_envs:
            return url
        return server_url(url, self.base_url.rpartition(":")[2].partition("/")[0])


_MODEL_PARTS = ("respond", "stream", "name", "dialect", "capabilities")

# Where the class of each dialect lives; loaded when a model of it is built.
_CLASSES = {
    "openai_chat": ("gossamer.models.openai_chat", "OpenAIChat"),
    "openai_responses": ("gossamer.models.openai_responses", "OpenAIResponses"),
    "azure_openai": ("gossamer.models.azure_openai", "AzureOpenAIChat"),
    "anthropic_chat": ("gossamer.models.anthropic_chat", "AnthropicChat"),
    "gemini_chat": ("gossamer.models.gemini_chat", "GeminiChat"),
    "ollama_chat": ("gossamer.models.ollama_chat", "OllamaChat"),
}

_THINKING = Capabilities(thinking=True)
_TEXT_THINKING = Capabilities(images=False, files=False, thinking=True)
_LOCAL = Capabilities(files=False)

PRESETS: dict[str, Preset] = {
    "openai": Preset("https://api.openai.com/v1", ("OPENAI_API_KEY",), "OPENAI_BASE_URL"),
    "openai_responses": Preset(
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        "OPENAI_BASE_URL",
        dialect="openai_responses",
        capabilities=_THINKING,
    ),
    "anthropic": Preset(
        "https://api.anthropic.com",
        ("ANTHROPIC_API_KEY",),
        "ANTHROPIC_BASE_URL",
        dialect="anthropic_chat",
        capabilities=_THINKING,
    ),
    "gemini": Preset(
        "https://generativelanguage.googleapis.com",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "GOOGLE_GEMINI_BASE_URL",
        dialect="gemini_chat",
        capabilities=Capabilities(audio=True, thinking=True),
    ),
    "azure": Preset("", ("AZURE_OPENAI_API_KEY",), "AZURE_OPENAI_ENDPOINT", dialect="azure_openai"),
    "ollama": Preset(
        "http://127.0.0.1:11434",
        (),
        "OLLAMA_HOST",
        dialect="ollama_chat",
        capabilities=Capabilities(files=False, thinking=True),
    ),
    "deepseek": Preset(
        "https://api.deepseek.com/v1",
        ("DEEPSEEK_API_KEY",),
        capabilities=msgspec.structs.replace(_TEXT_THINKING, native_schema=False),
        options={"send_thinking": True},
    ),
    "groq": Preset("https://api.groq.com/openai/v1", ("GROQ_API_KEY",), capabilities=_LOCAL),
    "together": Preset("https://api.together.xyz/v1", ("TOGETHER_API_KEY",), capabilities=_LOCAL),
    "openrouter": Preset("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), capabilities=_THINKING),
    "mistral": Preset(
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        capabilities=_THINKING,
        options={"short_call_ids": True},
    ),
    "xai": Preset(
        "https://api.x.ai/v1", ("XAI_API_KEY",), capabilities=Capabilities(files=False, thinking=True)
    ),
    "moonshot": Preset(
        "https://api.moonshot.ai/v1",
        ("MOONSHOT_API_KEY",),
        capabilities=Capabilities(files=False, thinking=True),
        options={"send_thinking": True},
    ),
    "dashscope": Preset(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("DASHSCOPE_API_KEY",),
        capabilities=Capabilities(native_schema=False, files=False, thinking=True),
    ),
    "glm": Preset(
        "https://api.z.ai/api/paas/v4",
        ("ZAI_API_KEY",),
        capabilities=Capabilities(native_schema=False, files=False, thinking=True),
    ),
    "sambanova": Preset("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",), capabilities=_LOCAL),
    "lmstudio": Preset("http://127.0.0.1:1234/v1", (), "LMSTUDIO_BASE_URL", capabilities=_LOCAL),
    "vllm": Preset("http://127.0.0.1:8000/v1", (), "VLLM_BASE_URL", capabilities=_LOCAL),
}


def server_url(host: str, port: str = "11434") -> str:
    """Make a URL of what names a server of the user's own, as Ollama reads `OLLAMA_HOST`.

    Args:
        host: a URL, which stays as it is; or a host, a port behind a colon, or both, and perhaps a path: then it is
            `http`, on this machine where there is no host.
        port: stands in for one that is missing.
    """
    if "://" in host:
        return host.rstrip("/")
    name, slash, path = host.partition("/")
    if name.startswith(":"):
        name = f"127.0.0.1{name}"
    elif not re.search(r":\d+$", name):
        name = f"{name}:{port}"
    return f"http://{name}{slash}{path}".rstrip("/")


def check_model(name: object) -> None:
    """Check that something can be a model, or a string that names one, without building anything.

    Raises:
        ArgumentError: no model, or no provider of that name.
    """
    if isinstance(name, type):
        raise ArgumentError(f"model must be a Model, not the class; write {name.__name__}(…)")
    if not isinstance(name, str):
        # Looked for in the class first: what a property says may not be known yet.
        if not all(hasattr(type(name), part) or hasattr(name, part) for part in _MODEL_PARTS):
            raise ArgumentError(
                f"model must be a Model or a string such as 'openai:gpt-5-mini', not {type(name).__name__}"
            )
        return
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


def key_for(provider: str, what: str, advice: str = "") -> str | None:
    """Give the key of a provider for what a string names; None where its server may need none.

    Args:
        provider: one of `PRESETS`.
        what: the thing that needs the key, for the error.
        advice: what else could be done than to set it.

    Raises:
        AuthenticationError: the key is not set, and the provider is not asked at another URL.
    """
    preset = PRESETS[provider]
    if not preset.lacks_key():
        return preset.key()
    if replaying:
        return "none"
    raise AuthenticationError(
        f"{preset.key_env} is not set, and {what} needs it; set it{advice and ', '}{advice}",
        provider=provider,
    )


def provider_model(name: str) -> Model:
    """Build the model of a model string, without what surrounds it elsewhere; see `resolve`.

    The environment is read now.

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
    key, url = key_for(provider, f"model {name!r}", "or use 'offline' to try without a key"), preset.url()
    module, class_name = _CLASSES[preset.dialect]
    options = dict(preset.options)
    if preset.dialect == "openai_chat":
        options["provider"] = provider
    return getattr(import_module(module), class_name)(
        model, base_url=url or preset.base_url, api_key=key, capabilities=preset.capabilities, **options
    )
