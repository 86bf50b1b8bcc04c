"""What a model is: the protocol, what it is asked, and what it answers."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from gossamer.errors import ArgumentError
from gossamer.events import Delta
from gossamer.messages import Message
from gossamer.schema import HostedTool, OutputSchema, ToolSchema
from gossamer.usage import Usage
from gossamer.view import MessageView

__all__ = [
    "Capabilities",
    "FinishReason",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "ModelSettings",
    "Price",
    "ToolChoice",
    "least_output_of",
    "price_of",
    "priced",
    "tool_choice",
    "uncounted",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "other"]

# "auto", "none", "required", or the name of the one tool to call.
ToolChoice: TypeAlias = str


class Capabilities(msgspec.Struct, frozen=True):
    """What a model can do.

    Attributes:
        native_schema: answers to a JSON schema by itself; otherwise structured output goes through a tool.
        tools: calls tools.
        images: takes pictures.
        audio: takes sound.
        files: takes documents.
        thinking: shows what it thought.
        context_window: tokens of input and output together, None where unknown.
    """

    native_schema: bool = True
    tools: bool = True
    images: bool = True
    audio: bool = False
    files: bool = True
    thinking: bool = False
    context_window: int | None = None


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model costs, in US dollars for a million tokens.

    Attributes:
        input: tokens sent.
        output: tokens received, those of thinking included.
        cached: tokens read from the provider's cache; as `input` where None.
        cache_write: tokens written to it; as `input` where None.
        cache_write_long: tokens written to be kept for the longer of the provider's times; as `cache_write` where None.
        long_above: a call with more input tokens than this costs what `long` says, all its tokens; None where the
            length makes no difference.
        long: the prices of such a call.
    """

    input: float
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None
    cache_write_long: float | None = None
    long_above: int | None = None
    long: Price | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_write", "cache_write_long"):
            dollars = getattr(self, name)
            if dollars is not None and not 0 <= dollars < math.inf:
                raise ArgumentError(
                    f"{name} must be US dollars for a million tokens, 0 or more, not {dollars}"
                )
        if (self.long_above is None) != (self.long is None):
            raise ArgumentError(
                "long_above and long belong together: from which length on, and the prices then"
            )

    def of(self, usage: Usage, long_writes: int = 0) -> float:
        """What a call costs, in US dollars. O(1).

        Args:
            usage: what the call used; of one call, as its length may decide about the price.
            long_writes: those of its `cache_write_tokens` that are kept for the longer time.
        """
        if self.long is not None and self.long_above is not None and usage.input_tokens > self.long_above:
            return self.long.of(usage, long_writes)
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_write is None else self.cache_write
        kept = written if self.cache_write_long is None else self.cache_write_long
        plain = max(usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
        return (
            plain * self.input
            + usage.cached_tokens * cached
            + (usage.cache_write_tokens - long_writes) * written
            + long_writes * kept
            + usage.output_tokens * self.output
        ) / 1_000_000

    def dearest(self, input_tokens: int) -> tuple[float, float]:
        """What a token can cost at most in a call of at most so many input tokens.

        Args:
            input_tokens: upper bound of the tokens sent.

        Returns:
            US dollars for a million tokens sent, whatever the cache reads or writes of them, and for a million received.
        """
        sent = max(self.input, self.cached or 0.0, self.cache_write or 0.0, self.cache_write_long or 0.0)
        received = self.output
        if self.long is not None and self.long_above is not None and input_tokens > self.long_above:
            long_sent, long_received = self.long.dearest(0)
            return max(sent, long_sent), max(received, long_received)
        return sent, received


class ModelSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a model should answer; what is None is left to the provider.

    Attributes:
        temperature: how freely to choose words, from 0.
        top_p: share of probability to choose from, above 0 up to 1.
        max_tokens: most tokens of the answer, thinking included.
        stop: texts at which the answer ends.
        seed: asks for reproducible answers, where the provider can.
        tool_choice: `auto`, `none`, `required` or a tool's name; a forced call is asked for in the first turn only.
        parallel_tool_calls: whether one answer may hold several calls.
        thinking: how hard to think, in the provider's words, such as `low` or `high`.
        prompt_cache: how long the provider is to keep the prompt in its cache, in its words, such as `5m` or `1h`;
            providers that cache by themselves and ask for no time leave it aside.
        timeout: longest silence of the provider, in seconds.
        extra_body: fields added to the request as they are.
        extra_headers: headers added to the request.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    thinking: str | None = None
    prompt_cache: str | None = None
    timeout: float | None = None
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ArgumentError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.timeout is not None and self.timeout <= 0:
            raise ArgumentError(f"timeout must be above 0 seconds, not {self.timeout}")

    def over(self, other: ModelSettings | None) -> ModelSettings:
        """Lay these settings over others: what is set here wins."""
        if other is None:
            return self
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **mine)


def tool_choice(settings: ModelSettings, turns: int) -> ToolChoice | None:
    """Give the choice for a run's next model call: a forced call is forced once, or the run would never end."""
    return settings.tool_choice if turns == 0 or settings.tool_choice == "none" else None


class ModelRequest(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a model is asked.

    Attributes:
        messages: the view of the conversation, read-only.
        instructions: the system prompt, or None.
        tools: the tools that the model may call, and behind them those that its provider runs.
        output_schema: what the final answer must look like, or None for text.
        tool_choice: see `ModelSettings`; already without a force that has been spent.
        settings: how to answer, or None.
        on_repeat: called by whoever asks once more after an attempt that the provider may charge for, or None; raises
            `LimitError` where the run's limits leave no room for it.
    """

    messages: MessageView
    instructions: str | None = None
    tools: tuple[ToolSchema | HostedTool, ...] = ()
    output_schema: OutputSchema | None = None
    tool_choice: ToolChoice | None = None
    settings: ModelSettings | None = None
    on_repeat: Callable[[], None] | None = None


class ModelResponse(msgspec.Struct, frozen=True, gc=False):
    """What a model answered.

    Attributes:
        message: the answer.
        usage: what it used, `model_calls` counted.
        finish_reason: why the model stopped.
        model: the model that answered, as the provider names it.
    """

    message: Message
    usage: Usage
    finish_reason: FinishReason = "stop"
    model: str = ""


@runtime_checkable
class Model(Protocol):
    """A language model. Safe to share between agents, runs, threads and event loops.

    A model may also have a `price`, a `Price`; without one its calls count as unpriced. One that asks
    several others prices their answers itself, and says so with a true `prices_answers`. One whose provider refuses to
    be asked for a short answer tells with `least_output_tokens` what it takes.
    """

    @property
    def name(self) -> str:
        """The model's name, as in `gpt-5-mini`."""
        ...

    @property
    def dialect(self) -> str:
        """The wire format spoken, as in `openai_chat`; provider data of other dialects is not sent."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        ...

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer in one piece.

        Raises:
            ModelError: one of its children says what went wrong.
        """
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Answer piece by piece; the last item is the whole `ModelResponse`.

        Raises:
            ModelError: one of its children says what went wrong.
        """
        ...


def price_of(model: Model) -> Price | None:
    """Give the price of a model, or None where it has none."""
    return getattr(model, "price", None)


def least_output_of(model: Model) -> int:
    """Give the lowest cap on an answer that a model's provider takes, in tokens."""
    return getattr(model, "least_output_tokens", 1)


def uncounted(price: Price | None) -> Usage:
    """The usage of a call that the provider did not count: it cannot be priced, but where all is free."""
    free = price is not None and not (price.input or price.output)
    return Usage(model_calls=1, unpriced_calls=0 if free else 1)


def priced(response: ModelResponse, price: Price | None) -> ModelResponse:
    """Put the cost of a call into its usage, or say that its price is not known; no tokens cost nothing."""
    usage = response.usage
    if usage.cost or usage.unpriced_calls or not usage.total_tokens:
        return response
    if price is None:
        usage = msgspec.structs.replace(usage, unpriced_calls=usage.model_calls)
    else:
        usage = msgspec.structs.replace(usage, cost=price.of(usage))
    return msgspec.structs.replace(response, usage=usage)
