"""Embeddings by Google's Gemini API.

Wire format: https://ai.google.dev/api/embeddings#method:-models.batchembedcontents; what the texts are for is told as
https://ai.google.dev/gemini-api/docs/embeddings says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gossamer.errors import AuthenticationError
from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching, Embeddings, Purpose
from gossamer.models.embeddings.batches import Answer, embed_in_batches, vectors_of
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.wire import Timeouts

__all__ = ["GeminiEmbedder"]

_TASKS: dict[Purpose, str] = {"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}

# The second generation knows no task types: it is told in words.
_TOLD_IN_WORDS = "gemini-embedding-2"
_WORDS: dict[Purpose, str] = {"document": "title: none | text: ", "query": "task: search result | query: "}


# --- wire structs -------------------------------------------------------------------------------------------


class _Embedding(msgspec.Struct, gc=False):
    values: msgspec.Raw = msgspec.Raw(b"[]")


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: int | None = None


class _Answer(msgspec.Struct, rename="camel", gc=False):
    embeddings: list[_Embedding] | None = None
    usage_metadata: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


# --- the class ----------------------------------------------------------------------------------------------


class GeminiEmbedder:
    """An embedding model behind the Gemini API.

    Vectors that `dimensions` shortens may come with another length than 1: for `gemini-embedding-001` the API leaves
    it to its users to normalise them.

    Args:
        model: the model's name, as in `gemini-embedding-001`.
        base_url: where the API is; `GOOGLE_GEMINI_BASE_URL`, then Google, where None.
        api_key: the key; `GEMINI_API_KEY`, then `GOOGLE_API_KEY`, where None. A server at a `base_url` of yours may
            need none.
        dimensions: the length of the vectors, for models that can shorten them.
        price: what it costs; the list price where None, if it is known. Calls whose tokens the API does not count are
            unpriced all the same.
        batching: how texts are spread over requests; the API takes 100 texts in one.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used.
    """

    __slots__ = ("_transport", "batching", "dimensions", "name", "price")

    provider = "gemini"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        price: Price | None = None,
        batching: Batching = Batching(max_texts=100),
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        model = model.removeprefix("models/")
        base_url = base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL")
        api_key = api_key or os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY")
        if not api_key and not base_url:
            raise AuthenticationError(
                "GeminiEmbedder has no key: set GEMINI_API_KEY, or pass api_key= or the base_url= of a server that "
                "needs none",
                provider=self.provider,
            )
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["x-goog-api-key"] = api_key
        root = (base_url or "https://generativelanguage.googleapis.com").rstrip("/").removesuffix("/v1beta")
        url = f"{root}/v1beta/models/{quote(model, safe='')}:batchEmbedContents"
        self.name = model
        self.dimensions = dimensions
        self.price = price if price is not None else price_for(self.provider, model)
        self.batching = batching
        self._transport = Transport(url, headers, self.provider, timeouts=timeouts, ca_file=ca_file)

    def __repr__(self) -> str:
        return f"GeminiEmbedder({self.name!r})"

    async def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Embeddings:
        """Embed texts; see `Embedder.embed`."""

        async def ask(batch: Sequence[str]) -> Answer:
            return await self._ask(batch, purpose)

        return await embed_in_batches(texts, ask, self.batching, self.name, self.price)

    async def _ask(self, texts: Sequence[str], purpose: Purpose) -> Answer:
        in_words = self.name.startswith(_TOLD_IN_WORDS)
        fields: dict[str, Any] = {"model": f"models/{self.name}"}
        if not in_words:
            fields["taskType"] = _TASKS[purpose]
        if self.dimensions is not None:
            fields["outputDimensionality"] = self.dimensions
        before = _WORDS[purpose] if in_words else ""
        requests = [{**fields, "content": {"parts": [{"text": before + text}]}} for text in texts]
        data = await self._transport.ask(_encode({"requests": requests}))
        try:
            answer = _decode(data)
            if answer.error is not None:
                raise self._transport.error(data)
            vectors = await vectors_of([item.values for item in answer.embeddings or ()])
        except UNREADABLE as error:
            raise self._transport.invalid(
                f"something that is no list of embeddings ({error})", data
            ) from error
        if len(vectors) != len(texts):
            raise self._transport.invalid(f"{len(vectors)} embeddings for {len(texts)} texts", data)
        counted = answer.usage_metadata.prompt_token_count if answer.usage_metadata is not None else None
        return Answer(vectors, counted or 0, self.name)
