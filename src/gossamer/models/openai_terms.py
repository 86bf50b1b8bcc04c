"""What OpenAI's two dialects have in common: codes of errors, the size of pictures, words for prompt caching."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gossamer.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
)
from gossamer.models.media import IMAGE_TYPES, ImageRules

__all__ = ["ERROR_CODES", "IMAGE_RULES", "is_openai", "prompt_cache_fields"]

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
