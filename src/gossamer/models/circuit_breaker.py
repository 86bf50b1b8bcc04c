"""Not asking a provider that is ill: calls fail at once until a trial call shows that it is back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from threading import Lock
from time import monotonic
from typing import Literal, TypeAlias

from gossamer.errors import ArgumentError, CircuitOpenError, ModelError, QueueFullError
from gossamer.events import Delta
from gossamer.models.base import Model, ModelRequest, ModelResponse
from gossamer.models.failures import is_ill
from gossamer.models.wrapping import WrappedModel
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["CircuitBreakerModel", "CircuitState"]

CircuitState: TypeAlias = Literal["closed", "open", "half_open"]
"""`closed`: calls go through. `open`: none does. `half_open`: the time is over, and one call at a time tries."""


class CircuitBreakerModel(WrappedModel):
    """Stops asking a provider after several failures in a row, and tries again after a while.

    A failure is one that says that the provider is ill: not reached, silent, a connection that broke, overloaded, or
    failing (5xx). An answer ends the row, and so does a refusal such as a wrong request or a rate limit, for whoever
    refuses is well. Other errors and calls that were cancelled count for nothing.

    While the circuit is open every call raises `CircuitOpenError`, whose `retry_after` says when it can be tried
    again. After `open_seconds` one call goes through: its first delta or its answer closes the circuit, its failure
    opens it for another `open_seconds`; until then all other calls are refused. `RetryModel` does not wait for a
    circuit, `FallbackModel` asks the next model at once. Safe under threads and several event loops.

    Args:
        model: the model to ask; a string means the bare model, without retries.
        failures: how many in a row open the circuit.
        open_seconds: how long it stays open before a call is tried.

    Raises:
        ArgumentError: `failures` is below 1, `open_seconds` not above 0, or the model is none.
    """

    __slots__ = ("_lock", "_opened", "_row", "_since", "_state", "_trying", "failures", "open_seconds")

    def __init__(self, model: Model | str, *, failures: int = 5, open_seconds: float = 30.0) -> None:
        super().__init__(model)
        if failures < 1:
            raise ArgumentError(f"failures must be at least 1, not {failures!r}")
        if not open_seconds > 0:
            raise ArgumentError(f"open_seconds must be above 0, not {open_seconds!r}")
        self.failures = failures
        self.open_seconds = open_seconds
        self._lock = Lock()
        self._state: CircuitState = "closed"
        self._row = 0
        self._opened = 0.0  # when, on the monotonic clock
        self._trying = False
        self._since = 0  # counts changes of state: a call that began before the last one has no say any more

    @property
    def state(self) -> CircuitState:
        """The state of the circuit."""
        with self._lock:
            if self._state == "open" and monotonic() - self._opened >= self.open_seconds:
                return "half_open"
            return self._state

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`.

        Raises:
            CircuitOpenError: the provider is not asked for the time being.
        """
        model = self.model
        since, _ = self._enter()
        well: bool | None = None
        try:
            response = await model.respond(request)
            well = True
        except ModelError as error:
            well = _says(error)
            raise
        finally:
            self._leave(since, well)
        return response

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`. O(1) a delta.

        Raises:
            CircuitOpenError: the provider is not asked for the time being.
        """
        deltas = self.model.stream(request)
        since, trial = self._enter()
        well: bool | None = None
        delta: Delta | ModelResponse | None = None
        try:
            async for delta in deltas:
                if trial:
                    trial = False
                    since = self._leave(since, well=True)
                yield delta
        except ModelError as error:
            well = _says(error)
            raise
        finally:
            await deltas.aclose()
            self._leave(since, True if type(delta) is ModelResponse else well)

    def _enter(self) -> tuple[int, bool]:
        """Let a call through, or refuse it; since which change it goes, and whether it is a trial."""
        with self._lock:
            if self._state == "closed":
                return self._since, False
            left = self._opened + self.open_seconds - monotonic()
            if self._state == "open" and left <= 0:
                self._change("half_open")
            if self._state == "half_open" and not self._trying:
                self._trying = True
                return self._since, True
        if left > 0:
            raise CircuitOpenError(
                f"{self.name} is not asked for another {left:.1f} s, after {self.failures} failures in a row",
                retry_after=left,
            )
        raise CircuitOpenError(f"{self.name} is not asked while a trial call shows whether it is well again")

    def _leave(self, since: int, well: bool | None) -> int:
        """Take what a call says of the provider: it is well, it is ill (False), or nothing (None)."""
        with self._lock:
            if since != self._since:
                return self._since
            trial = self._trying
            self._trying = False
            if well:
                self._row = 0
                if trial:
                    self._change("closed")
            elif well is not None:
                self._row += 1
                if trial or self._row >= self.failures:
                    self._row = 0
                    self._opened = monotonic()
                    self._change("open")
            return self._since

    def _change(self, state: CircuitState) -> None:
        self._state = state
        self._since += 1
        level = logger.warning if state == "open" else logger.info
        level("the circuit of model %s is %s", self.name, state)
        if metrics.recorder is not None:
            metrics.recorder.circuit_changed(self.name, state)


def _says(error: ModelError) -> bool | None:
    """What an error says of the provider: it is well and refuses, it is ill, or nothing."""
    if is_ill(error):
        return False
    # A refusal has a status; an answer that cannot be read, or a call that was not made, says nothing.
    return True if error.status is not None and not isinstance(error, QueueFullError) else None
