"""What stands where a model does in a run that is answered by something else."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gossamer.errors import GossamerError
from gossamer.events import Delta
from gossamer.models.base import Capabilities, ModelRequest, ModelResponse, Price

__all__ = ["Unasked"]


class Unasked:
    """Stands for the model of a run whose requests middleware answers; never asked itself.

    Args:
        name: what it is called in results and metrics.
        why: the words of its error.
    """

    dialect = "none"
    capabilities = Capabilities()
    price = Price(0.0)

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    async def respond(self, request: ModelRequest) -> ModelResponse:  # noqa: ARG002 - a model's signature
        """Refuse.

        Raises:
            GossamerError: always.
        """
        raise GossamerError(self._why)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Refuse, as `respond` does."""
        yield await self.respond(request)
