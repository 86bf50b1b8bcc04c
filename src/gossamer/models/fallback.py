"""Several models in a row: where one fails, the next is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from gossamer.errors import ArgumentError, ContextLengthError, InvalidRequestError, ModelError
from gossamer.events import Delta, OutputRestarted
from gossamer.models.base import (
    Capabilities,
    Model,
    ModelRequest,
    ModelResponse,
    Price,
    least_output_of,
    price_of,
    priced,
)
from gossamer.models.failures import may_have_cost
from gossamer.models.presets import check_model
from gossamer.models.registry import resolve
from gossamer.telemetry import metrics
from gossamer.telemetry.logging import logger

__all__ = ["FallbackModel"]


class FallbackModel:
    """Asks the first of several models, and the next one where a call fails.

    The next one is asked after any `ModelError` but these: an `InvalidRequestError` is the request's own fault and
    ends the call; after a `ContextLengthError` only models are asked whose window is larger than that of the one that
    failed, or where either is not known. Errors that are no `ModelError` end the call too.

    A stream is handed on as long as nothing of it was delivered. Under limits on tokens or money a call that the
    failed provider may charge for counts as all that it could have used, and the next begins only where there is room
    for as much again.

    The answer's `model` says who gave it, and its cost is that model's. Where all fail, the error is the last one's,
    with a note that lists each model's. A conversation moves freely between models of different wire formats.

    Every model is asked anew with each call, the first one first; put a `CircuitBreakerModel` around one whose
    failures take long. A key that is missing is told at the first use, whichever model lacks it.

    Args:
        models: the models, best first; a string brings its retries along.
        restart: hand on also where a part of the stream was delivered already; `OutputRestarted` then says that what
            was shown is void.

    Raises:
        ArgumentError: no models, or one that is none.
    """

    __slots__ = ("_models", "restart")

    prices_answers = True

    def __init__(self, *models: Model | str, restart: bool = False) -> None:
        if not models:
            raise ArgumentError(
                "FallbackModel needs models; pass them best first, as in FallbackModel(first, second)"
            )
        for model in models:
            check_model(model)
        self._models = models
        self.restart = restart

    def __repr__(self) -> str:
        return f"FallbackModel({', '.join(map(repr, self._models))})"

    @property
    def models(self) -> tuple[Model, ...]:
        """The models, best first.

        Raises:
            AuthenticationError: one was given as a string, and its key is not set.
        """
        models = tuple([resolve(model) if isinstance(model, str) else model for model in self._models])
        self._models = models
        return models

    @property
    def name(self) -> str:
        """The names of the models, as in `gpt-5-mini|claude-haiku-4-5`."""
        return "|".join(model.name for model in self.models)

    @property
    def dialect(self) -> str:
        """Their wire formats, each once; every model encodes its requests in its own."""
        return "|".join(dict.fromkeys(model.dialect for model in self.models))

    @property
    def capabilities(self) -> Capabilities:
        """What all of them can do; the window is the smallest that is known."""
        every = [model.capabilities for model in self.models]
        windows = [one.context_window for one in every if one.context_window is not None]
        return Capabilities(
            native_schema=all(one.native_schema for one in every),
            tools=all(one.tools for one in every),
            images=all(one.images for one in every),
            audio=all(one.audio for one in every),
            files=all(one.files for one in every),
            thinking=all(one.thinking for one in every),
            context_window=min(windows, default=None),
        )

    @property
    def price(self) -> Price | None:
        """What a call costs at most, whoever answers; None where one of the prices is not known."""
        prices: list[Price] = []
        for model in self.models:
            price = price_of(model)
            if price is None:
                return None
            prices.append(price)
        return _dearest(prices)

    @property
    def least_output_tokens(self) -> int:
        """The lowest cap on an answer that all providers take; see `Model`."""
        return max(least_output_of(model) for model in self.models)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece; see `Model.respond`.

        Raises:
            LimitError: the run's limits leave no room for another call.
        """
        models = self.models
        failures: list[tuple[Model, ModelError]] = []
        place = 0
        while True:
            model = models[place]
            try:
                return priced(await model.respond(request), price_of(model))
            except ModelError as error:
                failures.append((model, error))
                following = _next_place(models, place, failures)
                if following is None:
                    failures.clear()  # its traceback holds this frame
                    raise
                place = _hand_on(models, following, failures, request, delivered=False)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; see `Model.stream`. O(1) a delta.

        Raises:
            LimitError: the run's limits leave no room for another call.
        """
        models = self.models
        failures: list[tuple[Model, ModelError]] = []
        place = 0
        while True:
            model = models[place]
            delivered = False
            deltas = model.stream(request)
            try:
                async for delta in deltas:
                    delivered = True
                    yield priced(delta, price_of(model)) if type(delta) is ModelResponse else delta
            except ModelError as error:
                failures.append((model, error))
                following = None if delivered and not self.restart else _next_place(models, place, failures)
                if following is None:
                    failures.clear()  # its traceback holds this frame
                    raise
                place = _hand_on(models, following, failures, request, delivered=delivered)
                reason = str(error)
            else:
                return
            finally:
                await deltas.aclose()
            if delivered:
                yield OutputRestarted(reason)


def _next_place(
    models: Sequence[Model], place: int, failures: Sequence[tuple[Model, ModelError]]
) -> int | None:
    """Find the model to ask after a failure; None where there is none, which the error's note then tells."""
    error = failures[-1][1]
    if not isinstance(error, InvalidRequestError):
        for following in range(place + 1, len(models)):
            if _may_hold_more(models[following], failures):
                return following
    if len(failures) > 1:
        told = "; ".join(f"{model.name}: {type(one).__name__}: {one}" for model, one in failures)
        error.add_note(f"These models were asked one after the other: {told}")
    return None


def _may_hold_more(model: Model, failures: Sequence[tuple[Model, ModelError]]) -> bool:
    """Whether a model's window may hold what was too long for others."""
    window = model.capabilities.context_window
    if window is None:
        return True
    return all(
        (other.capabilities.context_window or 0) < window
        for other, error in failures
        if isinstance(error, ContextLengthError)
    )


def _hand_on(
    models: Sequence[Model],
    following: int,
    failures: Sequence[tuple[Model, ModelError]],
    request: ModelRequest,
    *,
    delivered: bool,
) -> int:
    """Make ready for the next model; its place."""
    model, error = failures[-1]
    if request.on_repeat is not None and (delivered or may_have_cost(error)):
        request.on_repeat()
    logger.warning("model %s failed, %s is asked: %s", model.name, models[following].name, error)
    if metrics.recorder is not None:
        metrics.recorder.model_fell_back(model.name, type(error).__name__)
    error.__traceback__ = None  # it holds the frame that holds the error, and with it the whole request
    return following


def _dearest(prices: Sequence[Price]) -> Price:
    """The upper bound of prices, component by component, long calls included."""
    limits = [price.long_above for price in prices if price.long_above is not None]
    return Price(
        input=max(price.input for price in prices),
        output=max(price.output for price in prices),
        cached=max(_first(price.cached, price.input) for price in prices),
        cache_write=max(_first(price.cache_write, price.input) for price in prices),
        cache_write_long=max(
            _first(price.cache_write_long, price.cache_write, price.input) for price in prices
        ),
        long_above=min(limits, default=None),
        long=_dearest([price.long or price for price in prices]) if limits else None,
    )


def _first(*dollars: float | None) -> float:
    return next(one for one in dollars if one is not None)
