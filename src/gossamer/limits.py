"""Limits of a run and of a session, each hard: no model call and no tool starts at or past one."""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Any

import msgspec

from gossamer.errors import ArgumentError, LimitError
from gossamer.messages import Message, ProviderBlock, Text, Thinking, ToolCall, ToolResult
from gossamer.models.base import ModelRequest, ModelSettings, Price
from gossamer.models.hosted import hosted_tools
from gossamer.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DEFAULT_MAX_TURNS",
    "Budget",
    "CountedCall",
    "Limits",
    "Reservation",
    "bound_input",
    "bound_messages",
    "cap_output",
    "check_session_limits",
    "too_many_tool_calls",
    "too_many_turns",
]

DEFAULT_MAX_TURNS = 50

# How long an answer may be under a limit on tokens or money where the settings do not say: what providers take, as
# they refuse a bound above what the model can write, and what leaves room for calls at the same time.
_ANSWER_TOKENS = 16_000

# Upper bounds used to reserve tokens before a call: no tokenizer makes more than one token of a byte.
_TOKENS_PER_MESSAGE = 16
_TOKENS_PER_MEDIA = 10_000
_TOKENS_PER_HOSTED = 10_000


# Held for some microseconds: runs of one tree share budgets across threads, as a tool in a thread may run an agent.
_sharing = RLock()


def _share_anew() -> None:
    """Forget, in a forked process, a lock that a thread held that is not there."""
    global _sharing  # noqa: PLW0603 - a lock cannot be mended
    _sharing = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_share_anew)


# The limits that runs inside a run share with it; those on turns and time are each run's own.
_SHARED = frozenset(("max_tool_calls", "max_tokens", "max_cost"))


class Limits(msgspec.Struct, frozen=True):
    """What a run may use, or all runs of a session together. None means no limit, except on turns.

    A session has the limits on tool calls, tokens and cost alone; the others are a run's.

    Attributes:
        max_turns: model calls of the run.
        max_tool_calls: tools started, in the run and in those inside its tools.
        max_tokens: input and output tokens of the run and of those inside its tools. Before each call an upper
            bound is reserved: one token a byte for what the provider has not counted yet, 10,000 for a picture
            or document, and the answer, whose length is capped to `max_tokens` of the settings, 16,000 where they
            do not say, and to what is left.
        max_cost: US dollars, reserved in the same way at the dearest price that the call may turn out to have; the
            model's price must be known.
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


class CountedCall(msgspec.Struct, frozen=True, eq=False):
    """A model call as the provider counted it: what it bounds need not be bounded again.

    Attributes:
        request: what was sent.
        answer: what came back.
        tokens: of both.
    """

    request: ModelRequest
    answer: Message
    tokens: int

    def covers(self, request: ModelRequest) -> int | None:
        """Tell how many of a request's first messages were counted; None where it does not go on from this one.

        O(1) for views on one conversation, which only grows; else O(messages).
        """
        before, now = self.request.messages, request.messages
        if len(now) < len(before):
            return None
        same = now.items is before.items and now.start == before.start
        if not same and any(one is not other for one, other in zip(before, now, strict=False)):
            return None
        count = len(before)
        return count + (len(now) > count and now[count] is self.answer)


class Budget(msgspec.Struct, eq=False):
    """What is left of limits on tokens, money and tool calls, shared by a run and all runs inside its tools.

    A session with limits has a budget too, which all of its runs share.

    Attributes:
        limits: the limits.
        outer: the budget of the run around this one; what is taken here is taken there too.
        session: the budget of the session that the run is in, or None; the same holds for it.
        whose: whose limits these are, as errors name them.
        used: what has been used.
        reserved_tokens: held for model calls under way.
        reserved_cost: the same in US dollars.
        counted: the run's last call, where the provider counted it.
    """

    limits: Limits
    outer: Budget | None = None
    session: Budget | None = None
    whose: str = "the run"
    used: Usage = Usage()
    reserved_tokens: int = 0
    reserved_cost: float = 0.0
    counted: CountedCall | None = None

    def all(self) -> list[Budget]:
        """This budget and those around it, of runs and of their sessions, each once."""
        budgets: list[Budget] = []
        budget: Budget | None = self
        while budget is not None:
            budgets.append(budget)
            if budget.session is not None and budget.session not in budgets:
                budgets.append(budget.session)
            budget = budget.outer
        return budgets

    def is_at(self, error: LimitError) -> bool:
        """Whether a limit that stopped a run inside is one of these, or of those around."""
        return error.limit in _SHARED and any(
            getattr(budget.limits, error.limit) == error.allowed for budget in self.all()
        )

    def reserve(
        self,
        input_tokens: int,
        max_output_tokens: int | None,
        price: Price | None,
        model: str = "",
        *,
        least_output_tokens: int = 1,
    ) -> Reservation | None:
        """Hold what a model call may use at most, here and in the budgets around.

        Args:
            input_tokens: upper bound of the tokens sent.
            max_output_tokens: cap on the answer that the settings ask for; 16,000 where None.
            price: the model's.
            model: the model's name.
            least_output_tokens: less room than this for the answer is none.

        Returns:
            The reservation, to be given back with `release`; None where no limit needs one.

        Raises:
            LimitError: a limit leaves no room for the call.
            ArgumentError: a limit on money, and a model whose price is not known.
        """
        output = _ANSWER_TOKENS if max_output_tokens is None else max_output_tokens
        needed = False
        with _sharing:
            for budget in self.all():
                left = budget._output_left(input_tokens, price, model, least_output_tokens)
                if left is not None:
                    needed = True
                    output = min(output, left)
            if not needed:
                return None
            most = Usage(input_tokens, output, model_calls=1, cost=_most(price, input_tokens, output))
            reservation = Reservation(most, output)
            self._hold(reservation, 1)
        return reservation

    def release(self, reservation: Reservation | None) -> None:
        """Give a reservation back, here and around."""
        if reservation is not None:
            with _sharing:
                self._hold(reservation, -1)

    def count(self, usage: Usage) -> None:
        """Count what was really used, here and around."""
        with _sharing:
            for budget in self.all():
                budget.used += usage

    def count_again(self, usage: Usage) -> None:
        """Count what a run had used before it was resumed, here and around, but not in sessions, which know of it."""
        budget: Budget | None = self
        with _sharing:
            while budget is not None:
                budget.used += usage
                budget = budget.outer

    def take_tool_calls(self, wanted: int) -> int:
        """Take as many tool calls as the limits allow, here and around.

        Returns:
            How many of those wanted may start.
        """
        allowed = wanted
        with _sharing:
            for budget in self.all():
                if budget.limits.max_tool_calls is not None:
                    allowed = min(allowed, budget.limits.max_tool_calls - budget.used.tool_calls)
            allowed = max(allowed, 0)
            self.count(Usage(tool_calls=allowed))
        return allowed

    @property
    def tool_calls_used_up(self) -> bool:
        """Whether no tool may start any more by these limits alone."""
        allowed = self.limits.max_tool_calls
        return allowed is not None and self.used.tool_calls >= allowed

    def _hold(self, reservation: Reservation, sign: int) -> None:
        for budget in self.all():
            budget.reserved_tokens += sign * reservation.usage.total_tokens
            budget.reserved_cost += sign * reservation.usage.cost

    def _output_left(self, input_tokens: int, price: Price | None, model: str, least: int) -> int | None:
        """How long an answer, of at least so many tokens, this budget alone leaves room for; None where it does not care."""
        output: int | None = None
        allowed = self.limits.max_tokens
        if allowed is not None:
            taken = self.used.total_tokens + self.reserved_tokens + input_tokens
            output = allowed - taken
            if output < least:
                raise self._no_room("max_tokens", allowed, taken)
        if self.limits.max_cost is not None:
            if price is None:
                raise ArgumentError(
                    f"max_cost is set, but the price of model {model!r} is not known; give it one with "
                    "price=Price(input, output), in US dollars for a million tokens, or with add_prices before a "
                    "string names it"
                )
            spent = self.used.cost + self.reserved_cost + _most(price, input_tokens, 0)
            left = self.limits.max_cost - spent
            _, dearest = price.dearest(input_tokens)
            affordable = int(left * 1_000_000 / dearest) if dearest else 1_000_000
            if left <= 0 or affordable < least:
                raise self._no_room("max_cost", self.limits.max_cost, spent)
            output = affordable if output is None else min(output, affordable)
        return output

    def _no_room(self, limit: str, allowed: float, taken: float) -> LimitError:
        return LimitError(
            f"{limit} of {allowed:g} for {self.whose} leaves no room for another model call, "
            f"which could bring the use to {taken:g}",
            limit=limit,
            allowed=allowed,
            used=taken,
        )


def check_session_limits(limits: Limits | None) -> None:
    """Check that limits are those of a session.

    Raises:
        ArgumentError: one is set that only a run can have.
    """
    if limits is None:
        return
    if not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"limits must be a Limits, not {type(limits).__name__}")
    others = Limits(
        max_tool_calls=limits.max_tool_calls, max_tokens=limits.max_tokens, max_cost=limits.max_cost
    )
    for name in Limits.__struct_fields__:
        if getattr(limits, name) != getattr(others, name):
            raise ArgumentError(
                f"{name} is a limit of one run: a session has max_cost, max_tokens and max_tool_calls; "
                f"give {name} to the agent or to agent.run(limits=…)"
            )


def _most(price: Price | None, input_tokens: int, output_tokens: int) -> float:
    """What tokens can cost at most, whichever of them the provider's cache reads or writes, however long the call."""
    if price is None:
        return 0.0
    sent, received = price.dearest(input_tokens)
    return (input_tokens * sent + output_tokens * received) / 1_000_000


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
    budgets = [] if budget is None else budget.all()
    tightest = next((budget for budget in budgets if budget.tool_calls_used_up), None)
    allowed = tightest.limits.max_tool_calls or 0 if tightest is not None else 0
    whose = tightest.whose if tightest is not None else "the run"
    return LimitError(
        f"the run asked for more than the {allowed} tool calls that max_tool_calls allows for {whose}; "
        "the others were not run",
        limit="max_tool_calls",
        allowed=allowed,
        used=tightest.used.tool_calls if tightest is not None else 0,
    )


def cap_output(settings: ModelSettings | None, reservation: Reservation) -> ModelSettings:
    """Lower the settings' cap on the answer to what was reserved."""
    cap = ModelSettings(max_tokens=reservation.max_output_tokens)
    return cap.over(settings)


def bound_input(request: ModelRequest, counted: CountedCall | None) -> int:
    """Bound the tokens that a request can have.

    Args:
        request: the request.
        counted: the run's last call, or None.

    Returns:
        An upper bound: exact for what the provider counted at the run's last call, one token a byte for the rest. Of
        what a tool that the provider runs reads into the call, 10,000 tokens are in it; more is counted behind.
    """
    covered = None if counted is None else counted.covers(request)
    if counted is None or covered is None:
        bound, covered, before = _TOKENS_PER_MESSAGE, 0, None
    else:
        bound, before = counted.tokens, counted.request
    if before is None or request.instructions != before.instructions:
        bound += len((request.instructions or "").encode("utf-8", "replace"))
    if before is None or request.tools is not before.tools:
        for schema in request.tools:
            bound += len(msgspec.json.encode(schema))
    # What a provider's own tools read is not known before, and counted behind.
    bound += _TOKENS_PER_HOSTED * len(hosted_tools(request.tools))
    schema = request.output_schema
    if schema is not None and (before is None or schema is not before.output_schema):
        bound += len(msgspec.json.encode(schema.schema))
    return bound + bound_messages(request.messages[covered:])


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
            elif isinstance(part, ProviderBlock):
                bound += max(_TOKENS_PER_MEDIA, len(msgspec.json.encode(part.raw)))
            else:
                bound += _TOKENS_PER_MEDIA
    return bound
