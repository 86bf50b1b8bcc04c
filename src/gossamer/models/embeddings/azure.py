"""OpenAI's embeddings at Azure: the same format under Azure's addresses and keys.

Wire format: https://learn.microsoft.com/azure/ai-foundry/openai/reference and, for the API without dates,
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle.
"""

from __future__ import annotations

from gossamer.models.azure_openai import azure_access
from gossamer.models.base import Price
from gossamer.models.embeddings.base import Batching
from gossamer.models.embeddings.openai import OpenAIEmbedder
from gossamer.models.openai_terms import ERROR_CODES
from gossamer.models.transport import Transport
from gossamer.wire import Timeouts

__all__ = ["AzureOpenAIEmbedder"]


class AzureOpenAIEmbedder(OpenAIEmbedder):
    """A deployment of an embedding model at Azure OpenAI, spoken to as `OpenAIEmbedder` is.

    Args:
        model: the name of the deployment.
        base_url: the resource, as in `https://my-resource.openai.azure.com`; `AZURE_OPENAI_ENDPOINT` where None.
        api_key: the key; `AZURE_OPENAI_API_KEY` where None.
        api_version: a dated version, as in `2024-10-21`; `OPENAI_API_VERSION`, then the v1 API, where None.
        dimensions: the length of the vectors, for models that can shorten them.
        price: what it costs; unknown where None, as a deployment may have any name.
        batching: how texts are spread over requests.
        timeouts: how long to wait for the server.
        ca_file: a PEM file of authorities to trust, or None for the system's.

    Raises:
        AuthenticationError: there is no key.
        ArgumentError: there is no endpoint, or it cannot be used.
    """

    __slots__ = ()

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
        dimensions: int | None = None,
        price: Price | None = None,
        batching: Batching = Batching(),
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        url, headers = azure_access(
            "AzureOpenAIEmbedder", model, "embeddings", base_url, api_key, api_version
        )
        self.name = model
        self.provider = "azure"
        self.dimensions = dimensions
        self.price = price
        self.batching = batching
        self._transport = Transport(
            url,
            headers,
            self.provider,
            error_codes=ERROR_CODES,
            timeouts=timeouts,
            ca_file=ca_file,
        )
