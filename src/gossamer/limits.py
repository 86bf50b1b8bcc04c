"""Limits of a run, each hard: no model call and no tool starts at or past one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gossamer.errors import ArgumentError, LimitError
from gossamer.messages import Message, Text, Thinking, ToolCall, ToolResult
from gossamer.models.base import ModelRequest, ModelSettings, Price
from gossamer.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DEFAULT_MAX_TURNS",
    "Budget",
    "Limits",
    "Reservation",
    "bound_input",
    "bound_messages",
    "cap_output",
    "too_many_tool_calls",
    "too_many_turns",
]

DEFAULT_MAX_TURNS = 50

# Upper bounds used to reserve tokens before a call: no tokenizer makes more than one token of a byte.
_TOKENS_PER_MESSAGE = 16
_TOKENS_PER_MEDIA = 10_000


class Limits(msgspec.Struct, frozen=True):
    """What a run may use. None means no limit, except on turns.

    Attributes:
        max_turns: model calls of the run.
        max_tool_calls: tools started, in the run and in those inside its tools.
        max_tokens: input and output tokens of the run and of those inside its tools. Before each call an upper
            bound is reserved: one token a byte for what the provider has not counted yet, 10,000 for a picture
            or document, and the answer, whose length is capped to what is left.
        max_cost: US dollars, reserved in the same way; the model's price must be known.
        max_seconds: wall time.
        max_parallel_tools: tools that run at once.
    """

    max_turns: int = DEFAULT_MAX_TURNS
    max_tool_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    max_parallel_tools: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: Any = getattr(self, name)
            if value is None and name != "max_turns":
                continue
            number = type(value) is int or (type(value) is float and name in {"max_cost", "max_seconds"})
            if value is None or not number or value <= 0:
                raise ArgumentError(
                    f"{name} must be a number above 0, not {value!r}; leave it out for no limit"
                )


class Reservation(msgspec.Struct, frozen=True):
    """What a model call may use at most.

    Attributes:
        usage: the tokens, and their cost in US dollars.
        max_output_tokens: the cap on the answer.
    """

    usage: Usage
    max_output_tokens: int


class Budget(msgspec.Struct, eq=False):
    """What is left of limits on tokens, money and tool calls, shared by a run and all runs inside its tools.

    Attributes:
        limits: the limits.
        outer: the budget of the run around this one; what is taken here is taken there too.
        used: what has been used.
        reserved_tokens: held for model calls under way.
        reserved_cost: the same in US dollars.
        counted_tokens: tokens of the conversation as the provider counted them at the run's last call.
        counted_messages: how many messages that covers; 0 where the provider does not count.
    """

    limits: Limits
    outer: Budget | None = None
    used: Usage = Usage()
    reserved_tokens: int = 0
    reserved_cost: float = 0.0
    counted_tokens: int = 0
    counted_messages: int = 0

    def reserve(
        self, input_tokens: int, max_output_tokens: int | None, price: Price | None
    ) -> Reservation | None:
        """Hold what a model call may use at most, here and in the budgets around.

        Args:
            input_tokens: upper bound of the tokens sent.
            max_output_tokens: cap on the answer that the settings ask for, or None.
            price: the model's.

        Returns:
            The reservation, to be given back with `release`; None where no limit needs one.

        Raises:
            LimitError: a limit leaves no room for the call.
            ArgumentError: a limit on money, and a model whose price is not known.
        """
        output = max_output_tokens
        needed = False
        budget: Budget | None = self
        while budget is not None:
            left = budget._output_left(input_tokens, price)
            if left is not None:
                needed = True
                output = left if output is None else min(output, left)
            budget = budget.outer
        if not needed or output is None:
            return None
        most = Usage(input_tokens, output, model_calls=1, cost=_most(price, input_tokens, output))
        reservation = Reservation(most, output)
        self._hold(reservation, 1)
        return reservation

    def release(self, reservation: Reservation | None) -> None:
        """Give a reservation back, here and around."""
        if reservation is not None:
            self._hold(reservation, -1)

    def count(self, usage: Usage) -> None:
        """Count what was really used, here and around."""
        budget: Budget | None = self
        while budget is not None:
            budget.used += usage
            budget = budget.outer

    def take_tool_calls(self, wanted: int) -> int:
        """Take as many tool calls as the limits allow, here and around.

        Returns:
            How many of those wanted may start.
        """
        allowed = wanted
        budget: Budget | None = self
        while budget is not None:
            if budget.limits.max_tool_calls is not None:
                allowed = min(allowed, budget.limits.max_tool_calls - budget.used.tool_calls)
            budget = budget.outer
        allowed = max(allowed, 0)
        self.count(Usage(tool_calls=allowed))
        return allowed

    @property
    def tool_calls_used_up(self) -> bool:
        """Whether no tool may start any more by these limits alone."""
        allowed = self.limits.max_tool_calls
        return allowed is not None and self.used.tool_calls >= allowed

    def _hold(self, reservation: Reservation, sign: int) -> None:
        budget: Budget | None = self
        while budget is not None:
            budget.reserved_tokens += sign * reservation.usage.total_tokens
            budget.reserved_cost += sign * reservation.usage.cost
            budget = budget.outer

    def _output_left(self, input_tokens: int, price: Price | None) -> int | None:
        """How long an answer this budget alone leaves room for; None where it does not care."""
        output: int | None = None
        allowed = self.limits.max_tokens
        if allowed is not None:
            taken = self.used.total_tokens + self.reserved_tokens + input_tokens
            output = allowed - taken
            if output < 1:
                raise _no_room("max_tokens", allowed, taken)
        if self.limits.max_cost is not None:
            if price is None:
                raise ArgumentError(
                    "max_cost is set, but the price of the model is not known; give the model a price=Price(input, output)"
                )
            spent = self.used.cost + self.reserved_cost + _most(price, input_tokens, 0)
            left = self.limits.max_cost - spent
            affordable = int(left * 1_000_000 / price.output) if price.output else 1_000_000
            if left <= 0 or affordable < 1:
                raise _no_room("max_cost", self.limits.max_cost, spent)
            output = affordable if output is None else min(output, affordable)
        return output


def _most(price: Price | None, input_tokens: int, output_tokens: int) -> float:
    """What tokens can cost at most, whichever of them the provider's cache reads or writes."""
    if price is None:
        return 0.0
    dearest = max(price.input, price.cached or 0.0, price.cache_write or 0.0)
    return (input_tokens * dearest + output_tokens * price.output) / 1_000_000


def _no_room(limit: str, allowed: float, taken: float) -> LimitError:
    return LimitError(
        f"{limit} of {allowed:g} leaves no room for another model call, which could bring the use to {taken:g}",
        limit=limit,
        allowed=allowed,
        used=taken,
    )


def too_many_turns(turns: int) -> LimitError:
    """The error of a run that does not come to an end."""
    return LimitError(
        f"the run made {turns} model calls, as many as max_turns allows; see why the model does not come to an end, "
        "or raise the limit",
        limit="max_turns",
        allowed=turns,
        used=turns,
    )


def too_many_tool_calls(budget: Budget | None) -> LimitError:
    """The error of a run that asked for more tools than it may start."""
    tightest: Budget | None = budget
    while tightest is not None and not tightest.tool_calls_used_up:
        tightest = tightest.outer
    allowed = tightest.limits.max_tool_calls or 0 if tightest is not None else 0
    return LimitError(
        f"the run asked for more than the {allowed} tool calls that max_tool_calls allows; the others were not run",
        limit="max_tool_calls",
        allowed=allowed,
        used=tightest.used.tool_calls if tightest is not None else 0,
    )


def cap_output(settings: ModelSettings | None, reservation: Reservation) -> ModelSettings:
    """Lower the settings' cap on the answer to what was reserved."""
    cap = ModelSettings(max_tokens=reservation.max_output_tokens)
    return cap.over(settings)


def bound_input(request: ModelRequest, budget: Budget) -> int:
    """Bound the tokens that a request can have.

    Returns:
        An upper bound: exact for what the provider counted at the run's last call, one token a byte for the rest.
    """
    bound = budget.counted_tokens
    if not budget.counted_messages:
        bound += len((request.instructions or "").encode()) + _TOKENS_PER_MESSAGE
        for schema in request.tools:
            bound += len(msgspec.json.encode(schema))
        if request.output_schema is not None:
            bound += len(msgspec.json.encode(request.output_schema.schema))
    return bound + bound_messages(request.messages[budget.counted_messages :])


def bound_messages(messages: Iterable[Message]) -> int:
    """Bound the tokens of messages: one a byte of text, 10,000 a picture, recording or document."""
    bound = 0
    for message in messages:
        bound += _TOKENS_PER_MESSAGE
        for part in message.parts:
            if isinstance(part, Text | Thinking):
                bound += len(part.text.encode())
            elif isinstance(part, ToolCall):
                bound += len(part.arguments.encode()) + len(part.name) + _TOKENS_PER_MESSAGE
            elif isinstance(part, ToolResult) and isinstance(part.content, str):
                bound += len(part.content.encode()) + _TOKENS_PER_MESSAGE
            elif isinstance(part, ToolResult):
                bound += bound_messages([Message("user", part.content, None, 0.0)])  # pyright: ignore[reportArgumentType] - some kinds of parts
            else:
                bound += _TOKENS_PER_MEDIA
    return bound
