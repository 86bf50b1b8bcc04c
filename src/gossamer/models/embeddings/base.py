"""What an embedder is: the protocol, what it gives, and how many texts go into one request."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from gossamer.errors import ArgumentError
from gossamer.usage import Usage

__all__ = ["Batching", "Embedder", "Embeddings", "Purpose", "Vector"]

# What the texts are: documents to be found, or the query that looks for them. Some models embed them differently.
Purpose: TypeAlias = Literal["document", "query"]

# Float32 values; numpy reads them without a copy: `numpy.frombuffer(vector, dtype="float32")`.
Vector: TypeAlias = "array[float]"


class Embeddings(msgspec.Struct, frozen=True, eq=False):
    """The vectors of texts.

    Attributes:
        vectors: one for each text, in their order; arrays of float32.
        usage: what all requests used together.
        model: the model that answered, as the provider names it.
    """

    vectors: list[Vector]
    usage: Usage
    model: str


class Batching(msgspec.Struct, frozen=True):
    """How texts are spread over requests.

    Attributes:
        max_texts: most texts in one request.
        max_bytes: most bytes of text in one request, in UTF-8; a text that is longer goes alone.
        max_concurrent: requests under way at once, for one call of `embed`.
        attempts: how often one request may be made in all, where asking again can help.
        first_wait: the longest wait before the second attempt, in seconds; doubles with each further one.
        longest_wait: the longest wait before any.
    """

    max_texts: int = 256
    max_bytes: int = 300_000
    max_concurrent: int = 4
    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_texts", "max_bytes", "max_concurrent", "attempts"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("first_wait", "longest_wait"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"{name} must not be below 0 seconds, but is {getattr(self, name)}")


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Safe to share between agents, runs, threads and event loops."""

    @property
    def name(self) -> str:
        """The model's name, as in `text-embedding-3-small`."""
        ...

    @property
    def provider(self) -> str:
        """Who computes the vectors, as in `openai`."""
        ...

    @property
    def dimensions(self) -> int | None:
        """The length of the vectors that is asked for; None where the model decides."""
        ...

    async def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Embeddings:
        """Embed texts.

        Args:
            texts: the texts; none gives no vectors and asks nobody.
            purpose: what they are; a query is embedded to find documents.

        Raises:
            ArgumentError: a text is empty, or is none; the message names its place.
            ModelError: a batch failed for good; `texts` says which places it held. No vectors are given then.
        """
        ...
