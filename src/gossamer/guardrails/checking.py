"""The guardrails of one run, where the loop meets them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.asking import Emit
from gossamer.closing import withdraw, withhold_result
from gossamer.context import RunContext
from gossamer.errors import ArgumentError, EndRun, GuardrailError, ModelError, ModelRetry
from gossamer.events import Event, OutputDelta, OutputRestarted, TextDelta
from gossamer.guardrails.base import Guardrail, Place
from gossamer.guardrails.beside import ModelBeside
from gossamer.messages import Message, Refusal, Text, ToolCall, ToolResult
from gossamer.middleware import Layers
from gossamer.models.base import Model
from gossamer.opening import OnPending, Reopened, asked_before, open_run
from gossamer.records import ViewMovedRecord
from gossamer.schema import encode_value, words_of
from gossamer.telemetry import metrics
from gossamer.tools.execution import ToolTurn
from gossamer.turn import OpenTurn
from gossamer.usage import Usage

__all__ = ["Guards"]

_HELD_BACK = (TextDelta, OutputDelta, OutputRestarted)


class Guards:
    """An agent's guardrails sorted by what they check.

    Cost: one pass over the guardrails; a place that none checks costs a falsy check.

    Args:
        guardrails: the agent's.

    Attributes:
        of_tools: those that check calls or results, in order.
    """

    __slots__ = ("_before", "_beside", "_call", "_holds_back", "_output", "_result", "of_tools")

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._before = [one for one in guardrails if "input" in one.on and not one.beside]
        self._beside = [one for one in guardrails if one.beside]
        self._output = [one for one in guardrails if "output" in one.on]
        self._call = [one for one in guardrails if "call" in one.on]
        self._result = [one for one in guardrails if "result" in one.on]
        self.of_tools = [one for one in guardrails if one in self._call or one in self._result]
        self._holds_back = any(one.hold_back for one in self._output)

    # --- input ------------------------------------------------------------------------------------------------

    async def begin(
        self, context: RunContext[Any], new: list[Message], reopened: Reopened | None, on_pending: OnPending
    ) -> list[Message]:
        """Check what the user says, before the model is asked.

        Args:
            context: the run.
            new: its prompt.
            reopened: where the run stands, if it is resumed.
            on_pending: see `open_run`.

        Returns:
            What the user says, with what was replaced, that is still to be checked beside the model's call.

        Raises:
            GuardrailError: a guardrail stopped the run; the prompt stands in the journal, as that of any failed run.
        """
        if reopened is not None:  # what was recorded has passed, but that another agent took over
            if reopened.answered:
                return []
            if reopened.handed_over:
                return await self.said_before(context)
            return [message for _, message in asked_before(context)]
        try:
            context.new = [await self._checked_input(context, message) for message in new]
        except GuardrailError:
            if context.session is not None:
                open_run(context, new, on_pending)
            raise
        return context.new

    async def said_before(self, context: RunContext[Any]) -> list[Message]:
        """Check what the user has said in a run that is taken over from another agent.

        Returns:
            What the user has said, with what was replaced, which leaves the view.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        said: list[Message] = []
        for place, message in asked_before(context):
            checked = await self._checked_input(context, message)
            in_view = context.session.view.since(place)[:1]
            if checked is not message and in_view == [message]:  # no summary stands for it
                moved = ViewMovedRecord(
                    run=context.run_id, reason="guardrail", begin=place, end=place + 1, insert=(checked,)
                )
                context.session.record(moved)
            said.append(checked)
        return said

    def beside(self, context: RunContext[Any], said: Sequence[Message], model: Model) -> ModelBeside | None:
        """Give the model with the checks beside its call, None without any."""
        texts = [text for message in said if message.role == "user" if (text := _text_of(message))]
        if not self._beside or not texts:
            return None

        async def check(one: Guardrail) -> None:
            for text in texts:
                if await _check(one, context, text, "input") is not text:
                    raise ArgumentError(
                        f"guardrail {one.name!r} gave another text, but it checks beside the model's call"
                    )

        return ModelBeside(model, lambda: [check(one) for one in self._beside])

    async def steered(self, context: RunContext[Any], message: Message) -> Message:
        """Check a message that was put into a run under way: by all guardrails of the input, before it is heard.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        return await _check_message([*self._before, *self._beside], context, message, "input")

    async def _checked_input(self, context: RunContext[Any], message: Message) -> Message:
        if message.role != "user":
            return message
        return await _check_message(self._before, context, message, "input")

    # --- output -----------------------------------------------------------------------------------------------

    def listener(self, emit: Emit | None) -> Emit | None:
        """Give what takes the events of a model's answer: all but its text where that is held back."""
        if emit is None or not self._holds_back:
            return emit

        async def withhold(event: Event) -> None:
            if not isinstance(event, _HELD_BACK):
                await emit(event)

        return withhold

    def kept(self, heard: list[str]) -> list[str]:
        """Give what is kept of an answer that breaks off: nothing where answers are to be checked."""
        return [] if self._output else heard

    def hide(self, error: BaseException) -> None:
        """Take the unchecked beginning of an answer out of the error of its stream."""
        if self._output and isinstance(error, ModelError):
            error.text = ""

    async def answer(
        self,
        context: RunContext[Any],
        message: Message,
        usage: Usage,
        beside: ModelBeside | None,
        emit: Emit | None,
        layers: Layers | None,
    ) -> tuple[Message, Usage]:
        """Check an answer, and show it where it was held back.

        Args:
            context: the run.
            message: the answer.
            usage: what the call behind it used.
            beside: the checks beside that call, which have passed unless somebody answered in the model's stead.
            emit: takes events, or None.
            layers: middleware, whose changes of deltas apply to what was held back too; or None.

        Returns:
            The answer, with what was replaced, and the usage to be recorded with it, that of judges included.

        Raises:
            GuardrailError: a guardrail stopped the run; the answer stands in the journal and not in the view.
        """
        if beside is not None:
            await beside.pass_checks()
        try:
            if self._output:
                message = await _check_message(self._output, context, message, "output")
        except GuardrailError:
            withdraw(context, message, _with_judges(context, usage))
            raise
        if self._holds_back and emit is not None and (text := message.text):
            delta: Any = TextDelta(text)
            for change in () if layers is None else layers.delta:
                delta = None if delta is None else change(context, delta)
            if delta is not None:
                await emit(delta)
        return message, _with_judges(context, usage)

    async def ended(self, context: RunContext[Any], ended: EndRun, call_id: str) -> Any:
        """Check what a tool ended the run with, as a result and as an answer.

        Raises:
            GuardrailError: a guardrail stopped the run; the result stands in the journal and not in the view.
        """
        value = ended.output
        checked = text = value if isinstance(value, str) else encode_value(value)
        try:
            for one in (*self._result, *self._output):
                place: Place = "result" if one in self._result else "output"
                checked = await _check(one, context, checked, place)
        except GuardrailError as error:
            withhold_result(context, call_id, str(error))
            raise
        return value if checked is text else checked

    # --- tools ------------------------------------------------------------------------------------------------

    async def calls(self, turn: ToolTurn, calls: Sequence[ToolCall]) -> list[ToolCall]:
        """Check the calls of a turn that have no result, before anybody is asked about them.

        Returns:
            Those that may go on, with what was replaced; the others have a result that tells the model why not.

        Raises:
            GuardrailError: a guardrail stopped the run.
        """
        if self.of_tools:
            turn.guards = self
        if self._result:
            turn.check_result = self._checked_result
        if not self._call:
            return list(calls)
        journaled: OpenTurn | None = None if turn.context.session is None else turn.context.session.turn
        allowed: list[ToolCall] = []
        for call in calls:
            checked = call
            try:
                if (
                    journaled is not None and call.id in journaled.asked
                ):  # it was checked before somebody was asked
                    checked = journaled.asked[call.id].call
                elif journaled is None or not (call.id in journaled.results or call.id in journaled.shown):
                    checked = await self._checked_call(turn.context, call)
            except ModelRetry as error:
                turn.finish(call, ToolResult(call.id, call.name, words_of(error), "error"))
            else:
                allowed.append(checked)
        return allowed

    async def _checked_call(self, context: RunContext[Any], call: ToolCall) -> ToolCall:
        for one in self._call:
            arguments = await _check(one, context, call.arguments, "call")
            if arguments is not call.arguments:
                call = msgspec.structs.replace(call, arguments=arguments)
        return call

    async def _checked_result(self, context: RunContext[Any], result: ToolResult) -> ToolResult:
        try:
            for one in self._result:
                result = await _check_result(one, context, result)
        except ModelRetry as error:
            return ToolResult(result.call_id, result.name, words_of(error), "error")
        return result


def _with_judges(context: RunContext[Any], usage: Usage) -> Usage:
    """Add what judges have used since the last answer, so that the journal knows of it."""
    if context.judged is not None:
        usage, context.judged = usage + context.judged, None
    return usage


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
        parts = await _check_parts(one, context, message.parts, place, even_empty=not message.tool_calls)
        if parts is not message.parts:
            message = msgspec.structs.replace(message, parts=parts, provider=None)
    return message


async def _check_result(one: Guardrail, context: RunContext[Any], result: ToolResult) -> ToolResult:
    content = result.content
    if isinstance(content, str):
        checked = await _check(one, context, content, "result") if content else content
    else:
        checked = await _check_parts(one, context, content, "result", even_empty=False)
    return result if checked is content else msgspec.structs.replace(result, content=checked)


async def _check_parts(
    one: Guardrail, context: RunContext[Any], parts: tuple[Any, ...], place: Place, *, even_empty: bool
) -> tuple[Any, ...]:
    """Check the text of parts, as it reads in one piece and, of what a user says, as it reads piece by piece.

    Where it stands in several parts, each is replaced by itself; where that does not do, all stands in the first.
    """
    words = [position for position, part in enumerate(parts) if _is_text(part, place)]
    texts = [parts[position].text for position in words]
    if not any(texts) and not (even_empty and place == "output"):
        return parts
    whole = "".join(texts)
    checked = await _check(one, context, whole, place)
    if place == "input" and len(texts) > 1 and checked is whole:
        spaced = "\n".join(texts)
        if (respaced := await _check(one, context, spaced, place)) is not spaced:
            checked = respaced
    if checked is whole:
        return parts
    if len(texts) > 1:
        texts = [await _check(one, context, text, place) if text else text for text in texts]
        again = "".join(texts)
        checked = await _check(one, context, again, place)
        if checked is not again or again == whole:
            texts = [checked, *[""] * (len(texts) - 1)]
    else:
        texts = [checked]
    new = list(parts)
    if not words:
        return (Text(checked), *parts)
    for position, text in zip(words, texts, strict=True):
        # The provider's raw data may hold what was replaced, and goes.
        new[position] = msgspec.structs.replace(parts[position], text=text, provider=None)
    return tuple(part for part in new if not (_is_text(part, place) and not part.text))


def _is_text(part: Any, place: Place) -> bool:
    return type(part) is Text or (place == "output" and type(part) is Refusal)


def _text_of(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if type(part) is Text)
