"""Which models a provider offers: its own list, which costs no tokens.

Formats: https://platform.openai.com/docs/api-reference/models, https://platform.claude.com/docs/en/api/models-list,
https://ai.google.dev/api/models, https://docs.ollama.com/api/tags.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gossamer.errors import ArgumentError, InvalidResponseError, ModelConnectionError, WireError
from gossamer.models.presets import PRESETS
from gossamer.models.transport import UNREADABLE, error_for
from gossamer.schema import is_array, is_object
from gossamer.wire import Endpoint, Timeouts

__all__ = ["list_models"]

_MAX_BYTES = 8 * 1024 * 1024

# Where each dialect gives its list, and how many at once where it gives them in pages.
_PATHS = {
    "openai_chat": "/models",
    "openai_responses": "/models",
    "azure_openai": "/openai/v1/models",
    "anthropic_chat": "/v1/models?limit=1000",
    "gemini_chat": "/v1beta/models?pageSize=1000",
    "ollama_chat": "/api/tags",
}
_KEY_HEADERS = {"anthropic_chat": "x-api-key", "gemini_chat": "x-goog-api-key", "azure_openai": "api-key"}


async def list_models(provider: str) -> tuple[str, ...]:
    """Ask a provider which models it offers, with the key and at the URL that the environment has.

    Args:
        provider: as in `provider:model`.

    Returns:
        Their names, sorted.

    Raises:
        ArgumentError: no provider of that name, or nothing says where it answers.
        ModelError: it could not be reached, refused the key, or answered with something else than a list.
    """
    preset = PRESETS.get(provider)
    if preset is None:
        raise ArgumentError(f"{provider!r} is no known provider; choose one of {', '.join(PRESETS)}")
    url = preset.url() or preset.base_url
    if not url:
        raise ArgumentError(f"{preset.url_env} is not set, and says where {provider} answers")
    headers = {"anthropic-version": "2023-06-01"} if preset.dialect == "anthropic_chat" else {}
    if key := preset.key():
        name = _KEY_HEADERS.get(preset.dialect)
        headers |= {name: key} if name else {"Authorization": f"Bearer {key}"}
    path = _PATHS[preset.dialect]
    if preset.dialect == "anthropic_chat" and url.rstrip("/").endswith("/v1"):
        path = path.removeprefix("/v1")
    endpoint = Endpoint(url.rstrip("/"), headers=headers, timeouts=Timeouts(connect=3.0, read=10.0))
    try:
        stream = await endpoint.send(method="GET", path=path)
        try:
            data = await stream.read_all(_MAX_BYTES)
        finally:
            stream.close()
    except WireError as error:
        raise ModelConnectionError(f"{provider}: {error}", provider=provider) from error
    if stream.status != 200:
        raise error_for(provider, stream.status, data)
    return _names(provider, data)


def _names(provider: str, data: bytes) -> tuple[str, ...]:
    try:
        body: Any = msgspec.json.decode(data)
    except UNREADABLE:
        body = None
    entries: Any = (body.get("data") or body.get("models")) if is_object(body) else body
    if entries is None and is_object(body):
        entries = []
    if not is_array(entries) or not all(is_object(entry) for entry in entries):
        shown = data[:200].decode("utf-8", "replace")
        raise InvalidResponseError(
            f"{provider} answered with something that is no list of models: {shown!r}", provider=provider
        )
    names = {str(entry.get("id") or entry.get("name") or "").removeprefix("models/") for entry in entries}
    return tuple(sorted(names - {""}))
