"""Embeddings by an Ollama server.

Wire format: https://docs.ollama.com/api/embed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching, Embeddings, Purpose
from gossamer.models.embeddings.batches import Answer, embed_in_batches, vectors_of
from gossamer.models.presets import server_url
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.wire import Timeouts

__all__ = ["OllamaEmbedder"]


# --- wire structs -------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, gc=False):
    embeddings: list[msgspec.Raw] | None = None
    prompt_eval_count: int | None = None
    model: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


# --- the class ----------------------------------------------------------------------------------------------


class OllamaEmbedder:
    """An embedding model of an Ollama server.

    Args:
        model: the model's name, as in `nomic-embed-text`.
        base_url: where the server is; `OLLAMA_HOST`, then this machine, where None.
        api_key: a key, for servers that ask for one.
        dimensions: the length of the vectors, for models that can shorten them.
        truncate: whether the server may embed only the beginning of a text that is too long for the model; otherwise
            such a text is an error.
        price: what it costs; unknown where None.
        batching: how texts are spread over requests.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        ArgumentError: the URL cannot be used.
    """

    __slots__ = ("_transport", "batching", "dimensions", "name", "price", "truncate")

    provider = "ollama"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
        price: Price | None = None,
        batching: Batching = Batching(max_texts=64),
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        headers = {"Content-Type": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        url = server_url(base_url or os.environ.get("OLLAMA_HOST") or "127.0.0.1") + "/api/embed"
        self.name = model
        self.dimensions = dimensions
        self.truncate = truncate
        self.price = price
        self.batching = batching
        self._transport = Transport(url, headers, self.provider, timeouts=timeouts, ca_file=ca_file)

    def __repr__(self) -> str:
        return f"OllamaEmbedder({self.name!r})"

    async def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Embeddings:
        """Embed texts; see `Embedder.embed`. Words that a model wants around a query are the caller's to add."""
        del purpose
        return await embed_in_batches(texts, self._ask, self.batching, self.name, self.price)

    async def _ask(self, texts: Sequence[str]) -> Answer:
        fields: dict[str, Any] = {"model": self.name, "input": texts, "truncate": self.truncate}
        if self.dimensions is not None:
            fields["dimensions"] = self.dimensions
        data = await self._transport.ask(_encode(fields))
        try:
            answer = _decode(data)
            if answer.error is not None:
                raise self._transport.error(data)
            vectors = await vectors_of(answer.embeddings or ())
        except UNREADABLE as error:
            raise self._transport.invalid(
                f"something that is no list of embeddings ({error})", data
            ) from error
        if len(vectors) != len(texts):
            raise self._transport.invalid(f"{len(vectors)} embeddings for {len(texts)} texts", data)
        return Answer(vectors, answer.prompt_eval_count or 0, answer.model or self.name)
