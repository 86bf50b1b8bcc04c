"""Embeddings in this process, by sentence-transformers: the extra `local`.

Documentation: https://sbert.net/docs/package_reference/sentence_transformer/SentenceTransformer.html.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Lock
from typing import Any

from gossamer.errors import ArgumentError
from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching, Embeddings, Purpose
from gossamer.models.embeddings.batches import Answer, embed_in_batches

__all__ = ["SentenceTransformersEmbedder"]

_FREE = Price(0.0)


class SentenceTransformersEmbedder:
    """A sentence-transformers model in this process.

    The model is loaded at the first use and runs in a thread of its own, one batch at a time; the loop stays free. A
    call that is cancelled gives up waiting; the batch that the thread has begun runs on to its end.

    Args:
        model: a name from the Hugging Face hub, or the folder of a model.
        device: where to compute, as in `cpu` or `cuda`; the library's choice where None.
        dimensions: the length of the vectors, for models that can be shortened.
        normalize: give every vector the length 1.
        price: what it costs; nothing, as nobody is paid for it, unless you say otherwise.
        batching: how texts are spread over batches, each computed as one.

    Raises:
        ArgumentError: sentence-transformers is not installed; at the first use.
    """

    __slots__ = (
        "_loading",
        "_model",
        "_process",
        "_thread",
        "batching",
        "device",
        "dimensions",
        "name",
        "normalize",
        "price",
    )

    provider = "local"

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dimensions: int | None = None,
        normalize: bool = False,
        price: Price | None = _FREE,
        batching: Batching = Batching(max_texts=64, max_concurrent=1),
    ) -> None:
        self.name = model
        self.device = device
        self.dimensions = dimensions
        self.normalize = normalize
        self.price = price
        self.batching = batching
        self._model: Any = None
        self._loading = Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"SentenceTransformersEmbedder({self.name!r})"

    async def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Embeddings:
        """Embed texts; see `Embedder.embed`. Models with prompts of their own for documents and queries use them.

        Raises:
            ArgumentError: sentence-transformers is not installed, or there is no such model.
        """
        with self._loading:
            if self._thread is None or self._process != os.getpid():  # a fork does not bring the thread along
                self._thread = ThreadPoolExecutor(1, "gossamer-embed")
                self._process = os.getpid()
            thread = self._thread

        async def ask(batch: Sequence[str]) -> Answer:
            return await asyncio.get_running_loop().run_in_executor(thread, self._compute, batch, purpose)

        return await embed_in_batches(texts, ask, self.batching, self.name, self.price)

    def _compute(self, texts: Sequence[str], purpose: Purpose) -> Answer:
        """Compute a batch, in the thread."""
        if self._model is None:
            self._model = _load(self.name, self.device, self.dimensions)
        model = self._model
        # Releases before the fifth know no difference between documents and queries.
        encode = getattr(model, f"encode_{purpose}", model.encode)
        rows: Any = encode(
            list(texts),
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=self.normalize,
        )
        vectors = [array("f", row.astype("float32").tobytes()) for row in rows]
        return Answer(vectors, 0, self.name)


def _load(name: str, device: str | None, dimensions: int | None) -> Any:
    try:
        library: Any = import_module("sentence_transformers")
    except ImportError as error:
        raise ArgumentError(
            "SentenceTransformersEmbedder needs sentence-transformers; install it with pip install 'gossamer[local]'"
        ) from error
    try:
        return library.SentenceTransformer(name, device=device, truncate_dim=dimensions)
    except OSError as error:
        raise ArgumentError(f"sentence-transformers cannot load model {name!r}: {error}") from error
