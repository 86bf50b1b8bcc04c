"""OpenAI's models at Azure: the dialect of Chat Completions under Azure's addresses and keys.

Wire format: https://learn.microsoft.com/azure/ai-foundry/openai/reference and, for the API without dates,
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from gossamer.errors import ArgumentError, AuthenticationError
from gossamer.models.base import Capabilities, Price
from gossamer.models.openai_chat import OpenAIChat
from gossamer.models.openai_chat_request import Form
from gossamer.models.openai_terms import ERROR_CODES
from gossamer.models.transport import Transport
from gossamer.wire import Timeouts

__all__ = ["AzureOpenAIChat", "azure_access"]


class AzureOpenAIChat(OpenAIChat):
    """A deployment of a model at Azure OpenAI, spoken to as `OpenAIChat` is.

    Without an API version the v1 API is asked, which needs none; with a dated one, as in `2024-10-21`, the older API,
    under the deployment's own address.

    Args:
        model: the name of the deployment.
        base_url: the resource, as in `https://my-resource.openai.azure.com`; `AZURE_OPENAI_ENDPOINT` where None.
        api_key: the key; `AZURE_OPENAI_API_KEY` where None.
        api_version: the version of the API; `OPENAI_API_VERSION`, then none, where None.
        capabilities: what the model can do.
        price: what it costs; unknown where None, as a deployment may have any name.
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
        capabilities: Capabilities = Capabilities(),
        price: Price | None = None,
        timeouts: Timeouts | None = None,
        ca_file: str | None = None,
    ) -> None:
        url, headers = azure_access(
            "AzureOpenAIChat", model, "chat/completions", base_url, api_key, api_version
        )
        self.name = model
        self.provider = "azure"
        self.capabilities = capabilities
        self.price = price
        self._form = Form(
            self.provider, checks_images=True, images=capabilities.images, files=capabilities.files
        )
        self._transport = Transport(
            url,
            headers,
            self.provider,
            error_codes=ERROR_CODES,
            timeouts=timeouts,
            ca_file=ca_file,
        )


def azure_access(
    asker: str, deployment: str, path: str, base_url: str | None, api_key: str | None, api_version: str | None
) -> tuple[str, dict[str, str]]:
    """Give the URL and the headers of an operation of Azure's.

    Args:
        asker: who asks, named in errors.
        deployment: what is asked.
        path: of the operation, as in `chat/completions`.
        base_url: the resource's endpoint; `AZURE_OPENAI_ENDPOINT` where None.
        api_key: the key; `AZURE_OPENAI_API_KEY` where None.
        api_version: a dated version of the API; `OPENAI_API_VERSION`, then the undated one, where None.

    Raises:
        AuthenticationError: there is no key.
        ArgumentError: there is no endpoint.
    """
    endpoint = base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
    key = api_key or os.environ.get("AZURE_OPENAI_API_KEY")
    if not endpoint:
        raise ArgumentError(
            f"{asker} has no endpoint: set AZURE_OPENAI_ENDPOINT, or pass "
            "base_url='https://RESOURCE.openai.azure.com'"
        )
    if not key:
        raise AuthenticationError(
            f"{asker} has no key: set AZURE_OPENAI_API_KEY, or pass api_key=", provider="azure"
        )
    url = _url(endpoint, deployment, api_version or os.environ.get("OPENAI_API_VERSION"), path)
    return url, {"Content-Type": "application/json", "api-key": key}


def _url(endpoint: str, deployment: str, version: str | None, path: str) -> str:
    """Give the URL of an operation, such as `chat/completions`: dated versions have a place for each deployment."""
    resource = endpoint.rstrip("/").removesuffix("/v1").removesuffix("/openai")
    if version and version[0].isdigit():
        deployed = f"{resource}/openai/deployments/{quote(deployment, safe='')}"
        return f"{deployed}/{path}?api-version={quote(version)}"
    url = f"{resource}/openai/v1/{path}"
    return f"{url}?api-version={quote(version)}" if version else url
