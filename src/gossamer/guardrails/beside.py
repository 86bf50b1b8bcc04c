"""A model that is asked while checks of what it is asked are still under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from gossamer.events import Delta
from gossamer.models.base import Model, ModelRequest, ModelResponse
from gossamer.models.wrapping import WrappedModel
from gossamer.tools.execution import wait_together

__all__ = ["ModelBeside"]


class ModelBeside(WrappedModel):
    """Asks its model at once; nothing of the answer is given before the checks have passed.

    A check that fails cancels the model's call, and its error is raised. An answer that comes first waits: of a stream
    one delta is read, and the network is held up behind it.

    Args:
        model: the model to ask.
        checks: makes the checks; each raises where it does not pass.
    """

    __slots__ = ("_checks", "_passed")

    def __init__(self, model: Model, checks: Callable[[], Sequence[Coroutine[Any, Any, None]]]) -> None:
        super().__init__(model)
        self._checks = checks
        self._passed = False

    async def pass_checks(self) -> None:
        """Make the checks now, where the model was not asked: somebody answered in its stead."""
        if not self._passed:
            await wait_together(self._begin())
            self._passed = True

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece, once the checks have passed."""
        if self._passed:
            return await self.model.respond(request)
        answer = asyncio.ensure_future(self.model.respond(request))
        await wait_together([*self._begin(), answer])
        self._passed = True
        return answer.result()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece, the first one once the checks have passed."""
        deltas = self.model.stream(request)
        first: asyncio.Future[Delta | ModelResponse | None] | None = None
        try:
            if not self._passed:
                first = asyncio.ensure_future(_next(deltas))
                await wait_together([*self._begin(), first])
                self._passed = True
                delta = first.result()
                if delta is not None:
                    yield delta
            async for delta in deltas:
                yield delta
        finally:
            # One that was dropped while its first delta was awaited is being cancelled, and closes by itself.
            if first is None or first.done():
                await deltas.aclose()

    def _begin(self) -> list[asyncio.Future[Any]]:
        return [asyncio.ensure_future(check) for check in self._checks()]


async def _next(deltas: AsyncGenerator[Delta | ModelResponse, None]) -> Delta | ModelResponse | None:
    return await anext(deltas, None)
