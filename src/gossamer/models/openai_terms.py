"""What OpenAI's APIs have in common: addresses and keys, codes of errors, pictures, citations, words for caching."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
)
from gossamer.messages import Citation, ProviderData
from gossamer.models.media import IMAGE_TYPES, ImageRules
from gossamer.models.transport import url_below

__all__ = ["ERROR_CODES", "IMAGE_RULES", "as_citation", "is_openai", "openai_access", "prompt_cache_fields"]

# https://platform.openai.com/docs/guides/images-vision: no request above 512 MB, of which base64 takes a quarter.
IMAGE_RULES = ImageRules("OpenAI", IMAGE_TYPES, 384_000_000)

# https://platform.openai.com/docs/guides/error-codes, and the codes of a failed response.
ERROR_CODES: dict[str, type[ModelError]] = {
    "bio_policy": ContentFilterError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "context_length_exceeded": ContextLengthError,
    "image_content_policy_violation": ContentFilterError,
    "insufficient_quota": QuotaExceededError,
    "invalid_api_key": AuthenticationError,
    "invalid_prompt": InvalidRequestError,
    "misalignment_policy_violation": ContentFilterError,
    "model_not_found": NotFoundError,
    "rate_limit_exceeded": RateLimitError,
}


def openai_access(
    asker: str, path: str, base_url: str | None, api_key: str | None, provider: str
) -> tuple[str, dict[str, str]]:
    """Give the URL and the headers of an API of OpenAI's, or of a server that speaks like it.

    Args:
        asker: who asks, named in errors.
        path: of the API, as in `/chat/completions`.
        base_url: where the server's API begins; `OPENAI_BASE_URL`, then OpenAI, where None.
        api_key: the key; `OPENAI_API_KEY` where None.
        provider: whose server it is; the environment is looked at for `openai` alone.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL is missing for a provider that is not OpenAI.
    """
    if provider == "openai":
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
    elif not base_url:
        # The key of one provider must never go to another.
        raise ArgumentError(f"{asker}(provider={provider!r}) needs the base_url= of that provider")
    if not api_key and not base_url:
        raise AuthenticationError(
            f"{asker} has no key: set OPENAI_API_KEY, or pass api_key= or the base_url= of a server that needs none",
            provider=provider,
        )
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return url_below(base_url or "https://api.openai.com/v1", path), headers


def as_citation(fields: dict[str, Any], text: str, provider: ProviderData) -> Citation:
    """Make a citation of an annotation.

    Args:
        fields: where the source is, and which part of the text rests on it.
        text: what its offsets are counted in.
        provider: the annotation as it came, by dialect.
    """
    start, end = fields.get("start_index"), fields.get("end_index")
    start, end = (start, end) if type(start) is int and type(end) is int else (None, None)
    return Citation(
        str(fields.get("url") or fields.get("filename") or fields.get("file_id") or ""),
        str(fields.get("title") or ""),
        text[start:end] if start is not None else "",
        start,
        end,
        provider,
    )


def is_openai(url: str) -> bool:
    """Tell whether a URL is OpenAI's own: other servers that speak the same take what they take."""
    return url.startswith("https://api.openai.com/")


def prompt_cache_fields(words: str | None, times: Collection[str]) -> dict[str, Any]:
    """Give the fields that say how long a prompt stays cached; none for the words of other providers.

    https://platform.openai.com/docs/guides/prompt-caching

    Args:
        words: the setting.
        times: the least times that the API takes from the newer models.
    """
    if words in times:
        return {"prompt_cache_options": {"ttl": words}}
    if words in {"in_memory", "24h"}:  # the policy, for the older models
        return {"prompt_cache_retention": words}
    return {}
