"""Steps that must not be cut in two, as what they have made would be nobody's."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["to_its_end"]


async def to_its_end(step: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until something is done, even where whoever waits is cancelled meanwhile. It must be short.

    Args:
        step: a task or future; what came of it is there to be asked for.

    Returns:
        The last cancellation, for the caller to raise once it has seen to what was made; None where there was none.
    """
    cancelled: asyncio.CancelledError | None = None
    while not step.done():
        try:
            await asyncio.wait((step,))
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
