"""Embeddings by OpenAI, and by whatever speaks the same.

Wire format: https://platform.openai.com/docs/api-reference/embeddings/create. Vectors are asked for in base64, which is
a quarter of the bytes; a server that sends numbers all the same is understood too.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching, Embeddings, Purpose, Vector
from gossamer.models.embeddings.batches import Answer, embed_in_batches, vectors_of
from gossamer.models.openai_terms import ERROR_CODES, openai_access
from gossamer.models.prices import price_for
from gossamer.models.transport import UNREADABLE, Transport
from gossamer.wire import Timeouts

__all__ = ["OpenAIEmbedder"]


# --- wire structs -------------------------------------------------------------------------------------------


class _Embedding(msgspec.Struct, gc=False):
    embedding: msgspec.Raw
    index: int = -1


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct, gc=False):
    data: list[_Embedding] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_QUOTE = ord('"')
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


# --- answer → vectors ---------------------------------------------------------------------------------------


async def _read(data: Sequence[_Embedding]) -> list[Vector]:
    """Read the vectors in the order of their indexes; servers that leave those out keep the order of the texts."""
    if all(item.index >= 0 for item in data):
        data = sorted(data, key=lambda item: item.index)
        if any(item.index != place for place, item in enumerate(data)):
            raise msgspec.DecodeError(f"vectors of the texts {[item.index for item in data]}")
    values = [item.embedding for item in data]
    if values and memoryview(values[0])[0] == _QUOTE:
        return await vectors_of(values, _from_base64)
    return await vectors_of(values)


def _from_base64(value: msgspec.Raw) -> Vector:
    vector = array("f")
    vector.frombytes(base64.b64decode(_decode_text(value), validate=True))
    if sys.byteorder == "big":  # they come in the little-endian order
        vector.byteswap()
    return vector


# --- the class ----------------------------------------------------------------------------------------------


class OpenAIEmbedder:
    """An embedding model behind OpenAI's API, or any server that speaks the same.

    Args:
        model: the model's name, as in `text-embedding-3-small`.
        base_url: where the API begins, as in `http://localhost:8000/v1`; `OPENAI_BASE_URL`, then OpenAI, where None.
        api_key: the key; `OPENAI_API_KEY` where None. A server at a `base_url` of yours may need none.
        provider: named in errors and metrics; any but `openai` needs a `base_url`.
        dimensions: the length of the vectors, for models that can shorten them.
        price: what it costs; the list price where None, if it is known.
        batching: how texts are spread over requests. OpenAI takes 2,048 texts and 300,000 tokens in one; the default
            stays below both, and keeps an answer within a few megabytes.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key, and no `base_url` that may do without.
        ArgumentError: the URL cannot be used, or is missing for a provider that is not OpenAI.
    """

    __slots__ = ("_transport", "batching", "dimensions", "name", "price", "provider")

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        provider: str = "openai",
        dimensions: int | None = None,
        price: Price | None = None,
        batching: Batching = Batching(),
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        url, headers = openai_access("OpenAIEmbedder", "/embeddings", base_url, api_key, provider)
        self.name = model
        self.provider = provider
        self.dimensions = dimensions
        self.price = price if price is not None else price_for(provider, model)
        self.batching = batching
        self._transport = Transport(
            url, headers, provider, error_codes=ERROR_CODES, timeouts=timeouts, ca_file=ca_file
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, provider={self.provider!r})"

    async def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Embeddings:
        """Embed texts; see `Embedder.embed`. These models make no difference between documents and queries."""
        del purpose
        return await embed_in_batches(texts, self._ask, self.batching, self.name, self.price)

    async def _ask(self, texts: Sequence[str]) -> Answer:
        fields: dict[str, Any] = {"model": self.name, "input": texts, "encoding_format": "base64"}
        if self.dimensions is not None:
            fields["dimensions"] = self.dimensions
        data = await self._transport.ask(_encode(fields))
        try:
            answer = _decode(data)
            if answer.error is not None:
                raise self._transport.error(data)
            vectors = await _read(answer.data or ())
        except (*UNREADABLE, binascii.Error, ValueError, OverflowError) as error:
            raise self._transport.invalid(
                f"something that is no list of embeddings ({error})", data
            ) from error
        if len(vectors) != len(texts):
            raise self._transport.invalid(f"{len(vectors)} embeddings for {len(texts)} texts", data)
        tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
        return Answer(vectors, tokens, answer.model or self.name)
