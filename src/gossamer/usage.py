"""What a model call or a run used: tokens, calls and money."""

from __future__ import annotations

import msgspec

__all__ = ["UNASKED", "Usage"]


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What was used; usages add up with `+`.

    Attributes:
        input_tokens: tokens sent, those read from the provider's cache included.
        output_tokens: tokens received, reasoning included.
        cached_tokens: the part of `input_tokens` that the provider read from its cache.
        cache_write_tokens: the part of `input_tokens` that the provider wrote to its cache at a surcharge.
        reasoning_tokens: the part of `output_tokens` spent on thinking.
        model_calls: calls to a model.
        tool_calls: tools started.
        cost: money in US dollars, for the calls whose price is known.
        unpriced_calls: model calls whose price is not known; while it is above zero `cost` is a lower bound.
        cached_calls: answers that came out of a cache of ours: no model was asked, nothing was spent.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost: float = 0.0
    unpriced_calls: int = 0
    cached_calls: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return self.plus(other)

    def plus(self, other: Usage, tool_calls: int = 0) -> Usage:
        """Add a usage, and tools that were started beside it."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls + tool_calls,
            self.cost + other.cost,
            self.unpriced_calls + other.unpriced_calls,
            self.cached_calls + other.cached_calls,
        )


# Of an answer for which no model was asked: told apart from others by identity.
UNASKED = Usage()
