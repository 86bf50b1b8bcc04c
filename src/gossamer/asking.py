"""One model call: plain or streamed, with middleware, within a budget, measured."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeAlias

import msgspec

from gossamer.context import RunContext
from gossamer.errors import (
    ArgumentError,
    GuardrailError,
    InvalidResponseError,
    ModelError,
    ModelRetry,
    OutputError,
)
from gossamer.events import Event, OutputDelta, OutputRestarted, TextDelta
from gossamer.ids import new_id
from gossamer.limits import Budget, CountedCall, bound_input, cap_output
from gossamer.messages import Message, Part, Refusal, ToolCall
from gossamer.middleware import CallModel, Layers, wrap_model
from gossamer.models.base import Model, ModelRequest, ModelResponse, least_output_of, price_of, priced
from gossamer.models.failures import may_have_cost
from gossamer.models.prices import tell_unpriced
from gossamer.records import CallLostRecord
from gossamer.schema import OutputSchema
from gossamer.telemetry import metrics
from gossamer.usage import Usage

__all__ = [
    "Emit",
    "Heard",
    "ask_model",
    "charged",
    "does_not_fit",
    "read_output",
    "refusal_of",
    "repair_request",
    "stream_model",
    "take_calls",
]

# Hands an event to whoever listens; returns when it has been taken.
Emit: TypeAlias = Callable[[Event], Awaitable[None]]

# The text of the answer that is being streamed, piece by piece: what stays when it breaks off.
Heard: TypeAlias = list[str]


async def ask_model(
    context: RunContext[Any],
    model: Model,
    request: ModelRequest,
    layers: Layers | None,
    emit: Emit | None,
    heard: Heard,
) -> ModelResponse:
    """Ask a model: within the run's budget, through its middleware, passing deltas on where somebody listens.

    Raises:
        LimitError: the budget has no room for the call.
    """
    budget = context.budget
    used: list[Usage] = []

    async def ask(request: ModelRequest) -> ModelResponse:
        if emit is None:
            response = await model.respond(request)
        else:
            response = await stream_model(context, model, request, layers, emit, heard)
        return charged(response, model)

    async def ask_and_count(request: ModelRequest) -> ModelResponse:
        if budget is None:
            response = await ask(request)
        else:
            response = await _ask_within(context, model, ask, request, streamed=emit is not None)
        used.append(response.usage)
        return response

    if layers is None:
        return await ask_and_count(request)
    # The budget lies beneath the middleware, which may ask more than once, or not at all.
    response = await wrap_model(layers.model, context, ask_and_count)(request)
    if not used and emit is not None and (text := response.message.text):  # the middleware has answered
        await emit(TextDelta(text))
    if len(used) > 1:
        response = msgspec.structs.replace(response, usage=sum(used, Usage()))
    return response


async def _ask_within(
    context: RunContext[Any], model: Model, call: CallModel, request: ModelRequest, *, streamed: bool
) -> ModelResponse:
    """Reserve what the call may use at most, then count what it used."""
    budget: Budget = context.budget
    bound = bound_input(request, budget.counted)
    cap = request.settings.max_tokens if request.settings is not None else None
    least = least_output_of(model)
    reservation = budget.reserve(bound, cap, price_of(model), model.name, least_output_tokens=least)
    if reservation is not None:

        def reserve_again() -> None:
            nonlocal reservation
            lost, reservation = reservation, None
            assert lost is not None
            budget.release(lost)
            _count_lost(context, lost.usage)
            cap = lost.max_output_tokens  # the request asks for as much again
            reservation = budget.reserve(bound, cap, price_of(model), model.name, least_output_tokens=cap)

        settings = cap_output(request.settings, reservation)
        request = msgspec.structs.replace(request, settings=settings, on_repeat=reserve_again)
    try:
        response = await call(request)
    except BaseException as error:
        if reservation is not None and _was_at_work(error, streamed=streamed):
            _count_lost(context, reservation.usage)
        raise
    finally:
        budget.release(reservation)
    used = response.usage
    budget.counted = CountedCall(request, response.message, used.total_tokens) if used.total_tokens else None
    if reservation is not None and not used.total_tokens and not used.cached_calls:
        _count_lost(context, reservation.usage)  # the provider does not count
    else:
        budget.count(used)
    return response


def _was_at_work(error: BaseException, *, streamed: bool) -> bool:
    """Whether a provider may charge for the call that ended so."""
    if isinstance(error, ModelError):
        return may_have_cost(error)
    if isinstance(error, Exception):
        # Of a guardrail beside the call, or middleware that hears the stream; what cannot be encoded is not sent.
        return isinstance(error, GuardrailError) or (streamed and not isinstance(error, ArgumentError))
    return True


def _count_lost(context: RunContext[Any], most: Usage) -> None:
    """Count a call whose use is not known as all that it could have used, in the journals around too."""
    context.budget.count(most)
    told: set[int] = set()
    around: RunContext[Any] | None = context
    while around is not None:
        session = around.session
        if session is not None and id(session) not in told:
            told.add(id(session))
            session.record(CallLostRecord(run=around.run_id, most=most))
        around = around.parent


def charged(response: ModelResponse, model: Model) -> ModelResponse:
    """Put the cost of a call into its usage; say once in the log, for each model, where its price is not known."""
    if not getattr(model, "prices_answers", False):
        response = priced(response, price_of(model))
    if response.usage.unpriced_calls and response.usage.total_tokens:
        tell_unpriced(response.model or model.name)
    return response


async def stream_model(
    context: RunContext[Any],
    model: Model,
    request: ModelRequest,
    layers: Layers | None,
    emit: Emit,
    heard: Heard,
) -> ModelResponse:
    """Pass a model's deltas on as events; the last item is the response."""
    changes = layers.delta if layers is not None else ()
    structured = request.output_schema is not None
    size = shown = 0
    recorder = metrics.recorder
    began = perf_counter() if recorder is not None else 0.0
    heard.clear()
    deltas = model.stream(request)
    try:
        async for delta in deltas:
            if type(delta) is TextDelta:
                heard.append(delta.text)
            elif type(delta) is ModelResponse:
                heard.clear()
                return delta
            elif type(delta) is OutputRestarted:
                heard.clear()
                size = shown = 0
            if recorder is not None and began:
                recorder.first_delta(model.name, perf_counter() - began)
                began = 0.0
            event: Any = delta
            for change in changes:
                event = change(context, event)
                if event is None:
                    break
            if event is not None:
                await emit(event)
            if structured and type(delta) is TextDelta:
                size += len(delta.text)
                # Each sixteenth of growth, so that all partial texts together stay linear in the answer.
                if size - shown > shown // 16:
                    shown = size
                    await emit(OutputDelta("".join(heard)))
    except ModelError as error:
        error.text = error.text or "".join(heard)
        raise
    finally:
        await deltas.aclose()
    raise InvalidResponseError(f"model {model.name!r} ended its stream without a ModelResponse")


def take_calls(message: Message) -> tuple[Message, tuple[ToolCall, ...]]:
    """Give the calls of an answer, each with an id of its own where a model left that out or used one twice."""
    calls = message.tool_calls
    if all(call.id for call in calls) and len({call.id for call in calls}) == len(calls):
        return message, calls
    seen: set[str] = {""}
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolCall) and part.id in seen:
            part = msgspec.structs.replace(part, id=new_id())  # noqa: PLW2901 - the same call under its own id
        if isinstance(part, ToolCall):
            seen.add(part.id)
        parts.append(part)
    message = msgspec.structs.replace(message, parts=tuple(parts))
    return message, message.tool_calls


async def read_output(schema: OutputSchema, message: Message) -> Any:
    """Turn a structured answer into its value and let the validators pass it.

    Raises:
        OutputError: the model refused.
        ValueError: the answer does not fit; the text says how.
    """
    if refused := refusal_of(message):
        raise OutputError(f"the model refused to answer: {refused}", text=refused)
    try:
        value: Any = schema.decode(message.text)
        for validator in schema.validators:
            value = validator(value)
            if inspect.isawaitable(value):
                value = await value
    except ModelRetry as error:
        raise ValueError(str(error)) from error
    return value


def refusal_of(message: Message) -> str:
    """The words in which a model refused to answer; empty where it did not."""
    return "".join(part.text for part in message.parts if isinstance(part, Refusal))


def repair_request(reason: ValueError) -> Message:
    """The message that asks a model to mend its answer."""
    return Message.user(
        f"Your answer does not fit what was asked for: {reason}\nAnswer again, corrected, and with nothing else."
    )


def does_not_fit(reason: ValueError, text: str) -> OutputError:
    """The error of an answer that does not fit after its repair either."""
    return OutputError(f"the answer does not fit the output type, also after one repair: {reason}", text=text)
