"""The guardrails of one run, where the loop meets them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from gossamer.asking import Emit
from gossamer.closing import withdraw
from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GuardrailError, ModelRetry
from gossamer.events import Event, OutputDelta, OutputRestarted, TextDelta
from gossamer.guardrails.base import Guardrail, Place
from gossamer.guardrails.beside import ModelBeside
from gossamer.messages import Message, Part, Text, ToolCall, ToolResult
from gossamer.models.base import Model
from gossamer.opening import OnPending, open_run
from gossamer.telemetry import metrics
from gossamer.usage import Usage

__all__ = ["Guards"]

_HELD_BACK = (TextDelta, OutputDelta, OutputRestarted)


class Guards:
    """An agent's guardrails sorted by what they check.

    Cost: one pass over the guardrails; a place that none checks costs a falsy check.

    Args:
        guardrails: the agent's.

    Attributes:
        checks_tools: whether one checks calls or results.
        holds_back: whether one wants answers held back on streams.
    """

    __slots__ = (
        "_before",
        "_beside",
        "_call",
        "_output",
        "_result",
        "checks_tools",
        "holds_back",
    )

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._before = [one for one in guardrails if "input" in one.on and not one.beside]
        self._beside = [one for one in guardrails if one.beside]
        self._output = [one for one in guardrails if "output" in one.on]
        self._call = [one for one in guardrails if "call" in one.on]
        self._result = [one for one in guardrails if "result" in one.on]
        self.checks_tools = bool(self._call or self._result)
        self.holds_back = any(one.hold_back for one in self._output)

    async def input(
        self, context: RunContext[Any], messages: list[Message], on_pending: OnPending
    ) -> list[Message]:
        """Check what the user says, before the model is asked.

        Returns:
            The messages, with what was replaced.

        Raises:
            GuardrailError: a guardrail stopped the run; the prompt stands in the journal, as that of any failed run.
        """
        if not self._before:
            return messages
        try:
            context.new = [
                await _check_message(self._before, context, message, "input")
                if message.role == "user"
                else message
                for message in messages
            ]
        except GuardrailError:
            if context.session is not None and context.session.unfinished is None:
                open_run(context, messages, on_pending)
            raise
        return context.new

    async def taken_over(self, context: RunContext[Any]) -> list[Message]:
        """Check what the user has said in a run that this agent takes over; what is replaced leaves the view.

        Returns:
            The messages of the run.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        new, session = context.new, context.session
        for position, message in enumerate(new if self._before else ()):
            if message.role != "user":
                continue
            checked = await _check_message(self._before, context, message, "input")
            if checked is not message:
                new[position] = checked
                if session is not None:
                    session.replace_in_view(message, checked, "guardrail")
        return new

    async def heard(self, context: RunContext[Any], message: Message) -> Message:
        """Check a message that was put into a run under way: by all guardrails of the input, before it is heard.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        return await _check_message([*self._before, *self._beside], context, message, "input")

    def beside(
        self, context: RunContext[Any], messages: Sequence[Message], model: Model
    ) -> ModelBeside | None:
        """Give the model with the checks beside its call; None where there are none."""
        texts = [_text_of(message) for message in messages if message.role == "user"]
        if not self._beside or not any(texts):
            return None

        async def check(one: Guardrail) -> None:
            for text in texts:
                if text and await _check(one, context, text, "input") is not text:
                    raise ArgumentError(
                        f"guardrail {one.name!r} gave another text, but it checks beside the model's call"
                    )

        return ModelBeside(model, lambda: [check(one) for one in self._beside])

    async def answer(
        self,
        context: RunContext[Any],
        message: Message,
        usage: Usage,
        beside: ModelBeside | None,
        emit: Emit | None,
    ) -> Message:
        """Check an answer, and show it where it was held back.

        Args:
            context: the run.
            message: the answer.
            usage: what the call behind it used.
            beside: the checks beside that call, which have passed unless somebody answered in the model's stead.
            emit: takes events, or None.

        Returns:
            The answer, with what was replaced.

        Raises:
            GuardrailError: a guardrail stopped the run; the answer stands in the journal and not in the view.
        """
        if beside is not None:
            await beside.pass_checks()
        if self._output:
            try:
                message = await _check_message(self._output, context, message, "output")
            except GuardrailError:
                withdraw(context, message, usage)
                raise
        if self.holds_back and emit is not None and (text := message.text):
            await emit(TextDelta(text))
        return message

    def listener(self, emit: Emit | None) -> Emit | None:
        """Give what takes the events of a model's answer: all but its text where that is held back."""
        if emit is None or not self.holds_back:
            return emit

        async def withhold(event: Event) -> None:
            if not isinstance(event, _HELD_BACK):
                await emit(event)

        return withhold

    def kept(self, heard: list[str]) -> list[str]:
        """Give what is kept of an answer that breaks off: nothing where answers are to be checked."""
        return [] if self._output else heard

    async def tool(
        self, context: RunContext[Any], call: ToolCall, proceed: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Check a call, let it run, and check its result.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        try:
            for one in self._call:
                arguments = await _check(one, context, call.arguments, "call")
                if arguments is not call.arguments:
                    call = msgspec.structs.replace(call, arguments=arguments)
            result = await proceed(call)
            for one in self._result:
                result = await _check_result(one, context, result)
        except ModelRetry as error:
            return ToolResult(call.id, call.name, str(error), "error")
        return result


async def _check(one: Guardrail, context: RunContext[Any], text: str, place: Place) -> str:
    """Check a text; the same object comes back where nothing replaced it."""
    try:
        verdict = one.check(context, text)
        if verdict is None:
            return text
        if inspect.isawaitable(verdict):
            verdict = await verdict
            if verdict is None:
                return text
    except GuardrailError as error:
        if metrics.recorder is not None:
            metrics.recorder.guardrail_tripped(one.name, place)
        reason = error.reason or str(error)
        raise GuardrailError(
            f"guardrail {one.name!r} stopped the {place}: {reason}",
            guardrail=one.name,
            reason=reason,
            place=place,
        ) from error
    if not isinstance(verdict, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(
            f"guardrail {one.name!r} gave {type(verdict).__name__}; it must give None or a text to put in place, "
            "or raise GuardrailError"
        )
    return verdict


async def _check_message(
    guardrails: Sequence[Guardrail], context: RunContext[Any], message: Message, place: Place
) -> Message:
    for one in guardrails:
        text = _text_of(message)
        if not text:
            return message
        checked = await _check(one, context, text, place)
        if checked is not text:
            parts = await _replaced(one, context, message.parts, place, checked)
            message = msgspec.structs.replace(message, parts=parts, provider=None)
    return message


async def _check_result(one: Guardrail, context: RunContext[Any], result: ToolResult) -> ToolResult:
    text = result.text
    checked = await _check(one, context, text, "result") if text else text
    if checked is text:
        return result
    if isinstance(result.content, str):
        return msgspec.structs.replace(result, content=checked)
    return msgspec.structs.replace(
        result, content=await _replaced(one, context, result.content, "result", checked)
    )


async def _replaced(
    one: Guardrail, context: RunContext[Any], parts: Sequence[Any], place: Place, checked: str
) -> tuple[Any, ...]:
    """Put a checked text in place: as it is where it stands in one part, else each part checked by itself.

    The provider's raw data may hold what was replaced, and goes.
    """
    several = sum(type(part) is Text for part in parts) > 1
    new: list[Part] = []
    for part in parts:
        if type(part) is Text and part.text:
            text = await _check(one, context, part.text, place) if several else checked
            new.append(msgspec.structs.replace(part, text=text, provider=None))
        else:
            new.append(part)
    return tuple(new)


def _text_of(message: Message) -> str:
    texts = [part.text for part in message.parts if type(part) is Text]
    return texts[0] if len(texts) == 1 else "\n".join(texts)
