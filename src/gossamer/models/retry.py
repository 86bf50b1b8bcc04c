"""Asking again where that can help: with growing pauses, within a budget, and never a finished tool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from threading import Lock
from time import monotonic

from gossamer.errors import ArgumentError, ModelError
from gossamer.events import Delta, OutputRestarted
from gossamer.models.backoff import wait_before_retry
from gossamer.models.base import Model, ModelRequest, ModelResponse
from gossamer.models.failures import is_passing, may_have_cost
from gossamer.models.wrapping import WrappedModel
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["RetryBudget", "RetryModel"]

_WINDOW_SECONDS = 60


class RetryBudget:
    """Bounds how many calls are repeated, so that a provider in trouble is not asked three times as much.

    In the running minute, which is the present second and the 59 before it, at most `least + share * calls` retries
    begin, where `calls` counts the calls that began in it, their retries not. Give one budget to several `RetryModel`
    to bound them together. Safe to share between threads and event loops.

    Args:
        share: retries for each call, as in 0.2 for one retry to five calls.
        least: retries a minute that are allowed however few calls there are.

    Raises:
        ArgumentError: one of them is below 0.
    """

    __slots__ = (
        "_calls",
        "_calls_by_second",
        "_lock",
        "_retries",
        "_retries_by_second",
        "_second",
        "least",
        "share",
    )

    def __init__(self, share: float = 0.2, least: int = 60) -> None:
        if share < 0 or least < 0:
            raise ArgumentError(f"share and least must not be below 0; they are {share!r} and {least!r}")
        self.share = share
        self.least = least
        self._lock = Lock()
        self._second = 0
        self._calls = self._retries = 0
        self._calls_by_second = [0] * _WINDOW_SECONDS
        self._retries_by_second = [0] * _WINDOW_SECONDS

    def count_call(self) -> None:
        """Count a call that begins. O(1) amortised."""
        with self._lock:
            self._calls_by_second[self._advance()] += 1
            self._calls += 1

    def take_retry(self) -> bool:
        """Take a retry, or tell with False that none is left. O(1) amortised."""
        with self._lock:
            slot = self._advance()
            if self._retries + 1 > self.least + self.share * self._calls:
                return False
            self._retries_by_second[slot] += 1
            self._retries += 1
            return True

    def _advance(self) -> int:
        """Let go of the seconds that have left the window; the slot of the present one."""
        second = int(monotonic())
        for passed in range(max(self._second + 1, second - _WINDOW_SECONDS + 1), second + 1):
            slot = passed % _WINDOW_SECONDS
            self._calls -= self._calls_by_second[slot]
            self._retries -= self._retries_by_second[slot]
            self._calls_by_second[slot] = self._retries_by_second[slot] = 0
        self._second = max(self._second, second)
        return self._second % _WINDOW_SECONDS


class RetryModel(WrappedModel):
    """Asks a model again where a call failed and asking again can help.

    That is after a connection that failed or broke, a timeout, a rate limit, an overloaded or failing provider (5xx)
    and an answer that is broken; never after a refused key, request, model or content, nor where the quota is gone.
    Only the model call is repeated: tools that have finished do not run again.

    The wait before the n-th retry is drawn between nothing and `first_wait * 2 ** (n - 1)`, at most `longest_wait`,
    on top of what the provider asked to wait. Where that is longer than `longest_wait` the error is raised at once. A
    stream is repeated as long as nothing of it was delivered.

    Under limits on tokens or money an attempt that the provider may charge for counts as all that it could have used,
    and the next one begins only where there is room for as much again.

    The error after the last attempt is that attempt's; `attempts` says how many there were, and a note says why there
    were no more. A model that is not wrapped pays nothing; a wrapped one costs one async generator step a delta.

    Args:
        model: the model to ask; a string means the bare model, without retries of its own.
        attempts: how often a call may be made in all.
        first_wait: the longest wait before the second attempt, in seconds.
        longest_wait: the longest wait before any, in seconds.
        budget: bounds the retries of all calls together; None for no such bound.
        restart: begin again also where a part of the stream was delivered already; `OutputRestarted` then says that
            what was shown is void.

    Raises:
        ArgumentError: `attempts` is below 1, a wait below 0, or the model is none.
    """

    __slots__ = ("attempts", "budget", "first_wait", "longest_wait", "restart")

    def __init__(
        self,
        model: Model | str,
        *,
        attempts: int = 3,
        first_wait: float = 0.5,
        longest_wait: float = 30.0,
        budget: RetryBudget | None = None,
        restart: bool = False,
    ) -> None:
        super().__init__(model)
        if attempts < 1:
            raise ArgumentError(f"attempts must be at least 1, not {attempts!r}")
        if not (first_wait >= 0 and longest_wait >= 0):
            raise ArgumentError(
                f"waits must not be below 0 seconds; they are {first_wait!r} and {longest_wait!r}"
            )
        self.attempts = attempts
        self.first_wait = first_wait
        self.longest_wait = longest_wait
        self.budget = budget
        self.restart = restart

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`.

        Raises:
            LimitError: the run's limits leave no room for another attempt.
        """
        if self.budget is not None:
            self.budget.count_call()
        attempt = 1
        while True:
            try:
                return await self.model.respond(request)
            except ModelError as error:
                wait = self._wait_after(error, attempt, request, delivered=False)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
            attempt += 1

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`. O(1) a delta.

        Raises:
            LimitError: the run's limits leave no room for another attempt.
        """
        if self.budget is not None:
            self.budget.count_call()
        attempt = 1
        while True:
            delivered = False
            deltas = self.model.stream(request)
            try:
                async for delta in deltas:
                    delivered = True
                    yield delta
            except ModelError as error:
                wait = self._wait_after(error, attempt, request, delivered=delivered)
                if wait is None:
                    raise
                reason = str(error)
            else:
                return
            finally:
                await deltas.aclose()
            if delivered:
                yield OutputRestarted(reason)
            await asyncio.sleep(wait)
            attempt += 1

    def _wait_after(
        self, error: ModelError, attempt: int, request: ModelRequest, *, delivered: bool
    ) -> float | None:
        """Decide about a failed attempt: seconds to wait before the next one, or None where it was the last."""
        error.attempts = attempt
        why_not = self._why_not(error, attempt, delivered=delivered)
        if why_not is not None:
            if why_not:
                error.add_note(f"The model was asked {attempt} time{'s' * (attempt > 1)}; {why_not}.")
            return None
        if request.on_repeat is not None and (delivered or may_have_cost(error)):
            request.on_repeat()
        wait = wait_before_retry(attempt, error.retry_after, self.first_wait, self.longest_wait)
        name = self.model.name
        logger.info("model %s failed, to be asked again in %.3f s: %s", name, wait, error)
        if metrics.recorder is not None:
            metrics.recorder.model_retried(name, type(error).__name__)
        return wait

    def _why_not(self, error: ModelError, attempt: int, *, delivered: bool) -> str | None:
        """Say why there is no further attempt, in empty words where nothing need be said; None where there is one."""
        if not is_passing(error):
            return "" if attempt == 1 else "asking again does not help after this error"
        if delivered and not self.restart:
            return "a part of the answer had been delivered, so it was not asked again (restart=True does)"
        if attempt >= self.attempts:
            return "no attempt is left"
        if error.retry_after is not None and error.retry_after > self.longest_wait:
            return (
                f"the provider asks to wait {error.retry_after:g} s, longer than the {self.longest_wait:g} s of "
                "longest_wait"
            )
        if self.budget is not None and not self.budget.take_retry():
            return (
                f"the retry budget is used up: {self.budget.least} retries a minute and {self.budget.share:g} for each "
                "call"
            )
        return None
