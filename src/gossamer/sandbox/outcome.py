"""How a run in a sandbox ended, in a word for the metrics."""

from __future__ import annotations

import asyncio

from gossamer.errors import (
    CodeError,
    SandboxClosedError,
    SandboxCrashedError,
    SandboxFileError,
    SandboxLimitError,
)
from gossamer.telemetry import metrics

__all__ = ["note_run", "outcome_of"]

_OUTCOMES: dict[type[BaseException], str] = {
    CodeError: "code",
    SandboxCrashedError: "crashed",
    SandboxClosedError: "closed",
    SandboxFileError: "file",
    asyncio.CancelledError: "cancelled",
}


def outcome_of(error: BaseException | None) -> str:
    """Say how a run ended.

    Args:
        error: what it raised; None where it came to its end.

    Returns:
        `ok`, `code`, the name of the limit, `crashed`, `closed`, `file`, `cancelled`; `host` where something else
        ended it, such as a function of the host.
    """
    if error is None:
        return "ok"
    if isinstance(error, SandboxLimitError):
        return error.limit
    return _OUTCOMES.get(type(error), "host")


def note_run(sandbox: str, error: BaseException | None, seconds: float) -> None:
    """Note the end of a run in the metrics, where they are on.

    Args:
        sandbox: its name.
        error: what it raised; None where it came to its end.
        seconds: how long it took, without the wait for a place.
    """
    if metrics.recorder is not None:
        metrics.recorder.sandbox_ran(sandbox, outcome_of(error), seconds)
