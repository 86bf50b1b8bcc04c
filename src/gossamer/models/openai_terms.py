"""What OpenAI's two dialects have in common: codes of errors, pictures, citations, words for prompt caching."""

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
from gossamer.messages import Citation, ProviderData
from gossamer.models.media import IMAGE_TYPES, ImageRules

__all__ = ["ERROR_CODES", "IMAGE_RULES", "as_citation", "is_openai", "prompt_cache_fields"]

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
