"""The loop: build a request, ask the model, run its tools, append, repeat.

`execute` is the whole of it, with or without a listener: `agent.run` passes no `emit` and nothing is emitted,
`agent.stream` passes one and events come out between the steps. Its three kinds of steps are files of their own:
`opening` begins or resumes a run, `asking` makes one model call, `acting` runs one turn's tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from gossamer.acting import act, act_and_tell
from gossamer.asking import (
    Emit,
    ask_model,
    charged,
    does_not_fit,
    read_output,
    refusal_of,
    repair_request,
    stream_model,
    take_calls,
)
from gossamer.closing import NO_RESULTS, fail, finish, leave_whole, say, say_results
from gossamer.context import AgentLike, RunContext
from gossamer.errors import LimitError
from gossamer.events import (
    HandoffEvent,
    MessageFinished,
    OutputRestarted,
    RunFinished,
    RunStarted,
    UsageUpdated,
)
from gossamer.handing_over import GoingOn, hand_over, successor_named, successor_of
from gossamer.holding import Holding
from gossamer.limits import DEFAULT_MAX_TURNS, Limits, too_many_tool_calls, too_many_turns
from gossamer.messages import Message, Text, ToolCall
from gossamer.middleware import layers
from gossamer.models.base import FinishReason, Model, ModelRequest, ModelSettings, tool_choice
from gossamer.models.prices import TOLD_UNPRICED
from gossamer.models.registry import resolve
from gossamer.opening import (
    OnPending,
    Prompt,
    as_messages,
    asked_before,
    budget_for,
    check_session,
    hear,
    instructions_of,
    must_have_a_live_parent,
    open_run,
    reopen_run,
    settings_over,
    tools_of,
    with_reader,
    with_words_of,
)
from gossamer.records import Decision
from gossamer.result import Result
from gossamer.schema import output_schema
from gossamer.session import Session
from gossamer.telemetry import metrics
from gossamer.tools.equipment import Equipment, needs_equipment
from gossamer.tools.execution import ToolTurn
from gossamer.tools.toolset import toolset
from gossamer.usage import Usage
from gossamer.view import MessageView

if TYPE_CHECKING:
    from gossamer.guardrails.beside import ModelBeside
    from gossamer.guardrails.checking import Guards

__all__ = ["execute"]


async def execute(
    agent: AgentLike,
    context: RunContext[Any],
    prompt: Prompt,
    output: Any = None,
    limits: Limits | None = None,
    settings: ModelSettings | None = None,
    tools: Any = None,
    decisions: Mapping[str, Decision] | None = None,
    on_pending: OnPending = "raise",
    emit: Emit | None = None,
    going_on: GoingOn | None = None,
) -> Result[Any]:
    """Drive one run to its end.

    Args:
        agent: how to run.
        context: the run; made for it, filled in as it goes.
        prompt: what is asked; None to start from instructions and session.
        output: the output type, in place of the agent's.
        limits: in place of the agent's.
        settings: laid over the agent's.
        tools: in place of the agent's.
        decisions: resume the session's unfinished run with these, rather than begin one.
        on_pending: what to do where the session is paused.
        emit: takes events; None where nobody listens.
        going_on: where another agent stood that handed the run over; None at a beginning.

    Returns:
        The result, also of a run that paused or was stopped by a limit.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    began = perf_counter()
    turns = 0
    new = [Message("user", (Text(prompt),))] if type(prompt) is str and prompt else as_messages(prompt)
    model: Model = resolve(agent.model) if type(agent.model) is str else agent.model
    asked = agent.settings if settings is None else settings_over(agent.settings, settings)
    kind = agent.output if output is None else output
    schema = None if kind is str else output_schema(kind)
    wrapped = layers(agent.middleware) if agent.middleware else None
    limits = limits or agent.limits if going_on is None else limits
    max_turns = DEFAULT_MAX_TURNS if limits is None else limits.max_turns
    session = context.session
    if session is not None and type(session) is not Session:
        check_session(session)
    opened = False
    if going_on is not None:
        began, turns, opened = going_on.began, going_on.turns, going_on.opened
        new = context.new if opened else new
    elif (
        limits is not None
        or context.parent is not None
        or (session is not None and session.budget is not None)
    ):
        context.budget = budget_for(limits, context)
    held: Holding | None = None
    equipment: Equipment | None = None
    started = 0
    repaired = False
    answered_by = ""
    heard: list[str] = []
    message: Message | None = None
    turn: ToolTurn | None = None
    guards: Guards | None = None
    beside: ModelBeside | None = None
    listen, kept = emit, heard
    if agent.guardrails:
        from gossamer.guardrails.checking import Guards

        guards = Guards(agent.guardrails)
        listen = guards.listener(emit)
        kept = guards.kept(heard)
    reason: FinishReason = "stop"
    context.new = new
    try:
        if session is not None and going_on is None:
            await session.holding.take(context)
            held = session.holding
        own: Any = agent.tools
        if tools is None and own.__class__ is tuple:  # settled when the agent was built
            kit = toolset(own)
        else:
            kit = await tools_of(own if tools is None else tools, context)
        if session is not None and session.answering is not None and session.answering != agent.name:
            successor = successor_named(session.answering, kit)
            if successor is not None:
                context.agent = successor.name
                place = GoingOn(began, turns, opened=False)
                return await execute(
                    successor,
                    context,
                    new or None,
                    output,
                    limits,
                    settings,
                    None,
                    decisions,
                    on_pending,
                    emit,
                    place,
                )
        if kit.toolkits and needs_equipment(kit, context):
            equipment = Equipment(context, kit)
            kit = await equipment.toolset()
        if session is None and kit.can_pause:
            session = context.session = Session()
            held = session.holding
            held.holder = context
            if opened:
                open_run(context, new, on_pending)
        instructions = agent.instructions
        if callable(instructions):
            instructions = await instructions_of(agent, context)
        words = with_words_of(kit, instructions) if kit.instructions else instructions or None
        if guards is not None:
            new = await (guards.taken_over(context) if opened else guards.input(context, new, on_pending))
            beside = guards.beside(context, new, model)
        if decisions is not None:
            turns, message = reopen_run(context, decisions, kit)
            if guards is not None and turns == 0:
                beside = guards.beside(context, asked_before(context), model)
        elif session is not None and not opened:
            context.new = new = list(new)
            open_run(context, new, on_pending)
        if emit is not None and not opened:
            await emit(RunStarted(context.run_id, agent.name))

        calls: Sequence[ToolCall] = () if message is None else message.tool_calls
        while True:
            if message is None:
                # Build a request.
                if context.stopped is not None:  # and a tool went on regardless
                    raise context.stopped
                if context.parent is not None:
                    must_have_a_live_parent(context)
                if context.inbox:
                    await hear(context, guards)
                if turns >= max_turns:
                    raise too_many_turns(turns)
                if equipment is not None:
                    kit = await equipment.toolset()
                    words = with_words_of(kit, instructions)
                if context.offload is not None or (session is not None and session.has_offload):
                    kit = with_reader(kit)
                context.messages = (
                    MessageView(new, 0, len(new), context.bodies) if session is None else session.messages
                )
                request = ModelRequest(
                    context.messages,
                    words,
                    kit.schemas,
                    schema,
                    None if asked is None else tool_choice(asked, turns),
                    asked,
                )

                # Ask the model and append its answer.
                asked_at = perf_counter() if metrics.recorder is not None else 0.0
                asked_model = model if beside is None else beside
                if wrapped is not None or context.budget is not None:
                    response = await ask_model(context, asked_model, request, wrapped, listen, heard)
                elif listen is None:
                    response = await asked_model.respond(request)
                else:
                    response = await stream_model(context, asked_model, request, None, listen, heard)
                used = response.usage
                answered_by = response.model
                if (answered_by not in TOLD_UNPRICED if used.unpriced_calls else not used.cost) and (
                    used.input_tokens or used.output_tokens
                ):
                    response = charged(response, model)  # the model leaves its price to us, or has none
                    used = response.usage
                if metrics.recorder is not None:
                    metrics.recorder.model_called(model.name, perf_counter() - asked_at, used)
                message = response.message
                calls = ()
                for part in message.parts:
                    if type(part) is ToolCall:
                        message, calls = take_calls(message)
                        break
                reason = response.finish_reason
                turns += 1
                context.usage = context.usage.plus(used, started) if turns > 1 or guards is not None else used
                started = 0
                if guards is not None:
                    message = await guards.answer(context, message, used, beside, emit)
                    calls = message.tool_calls
                    beside = None
                if session is None:
                    new.append(message)
                else:
                    say(context, message, used)
                if emit is not None:
                    await emit(MessageFinished(message))
                    await emit(UsageUpdated(context.usage))

            # No calls: this is the answer.
            if not calls:
                if context.inbox:  # somebody has said something meanwhile
                    message = None
                    continue
                value = message.text or refusal_of(message)
                if schema is not None:
                    try:
                        value = await read_output(schema, message)
                    except ValueError as error:
                        if repaired:
                            raise does_not_fit(error, value) from error
                        repaired = True
                        message = None
                        say(context, repair_request(error))
                        if emit is not None:
                            await emit(OutputRestarted(str(error)))
                        continue
                result = finish(context, began, reason, answered_by, value)
                break

            # Run the tools and append their results.
            turn = ToolTurn(context, kit.by_name)
            if wrapped is not None:
                turn.interceptions = wrapped.tool
            if guards is not None and guards.checks_tools:
                turn.interceptions = (guards.tool, *turn.interceptions)
            if limits is not None:
                turn.max_parallel = limits.max_parallel_tools
            resumed = decisions is not None
            if emit is None:
                work = act(turn, calls, kit.can_pause, resumed)
                if work is not None:
                    await work
            else:
                await act_and_tell(turn, calls, kit.can_pause, resumed, kit.reports, emit)
            started = turn.started  # counted with the next model call, or at the end
            if turn.pending:
                context.usage += Usage(tool_calls=started)
                result = finish(context, began, "paused", answered_by, pending=tuple(turn.pending))
                break
            say_results(context, calls, turn.results)
            if turn.ended is not None:
                context.usage += Usage(tool_calls=started)
                result = finish(context, began, "ended_by_tool", answered_by, turn.ended.output)
                break
            if kit.hands_over and (successor := successor_of(turn, calls)) is not None:
                context.usage += Usage(tool_calls=started)
                turn, started = None, 0
                hand_over(context, agent, successor)
                if emit is not None:
                    await emit(HandoffEvent(successor.name))
                place = GoingOn(began, turns, opened=True)
                return await execute(
                    successor, context, None, output, limits, settings, None, None, on_pending, emit, place
                )
            if turn.refused:
                raise too_many_tool_calls(context.budget)
            message = turn = None
    except LimitError as limit:
        if context.ended:  # by the agent to whom this one handed over
            raise
        context.usage += Usage(tool_calls=started if turn is None else turn.started)
        leave_whole(context, kept, NO_RESULTS if turn is None else turn.results)
        result = finish(context, began, "limit", answered_by, stopped=limit.with_traceback(None))
    except BaseException as error:
        if context.ended:
            raise
        context.usage += Usage(tool_calls=started if turn is None else turn.started)
        leave_whole(context, kept, NO_RESULTS if turn is None else turn.results)
        if context.stopped is None or not isinstance(error, asyncio.CancelledError):
            fail(context, error)
            raise
        result = finish(context, began, "limit", answered_by, stopped=context.stopped)
    finally:
        if held is not None:
            held.release()
        if equipment is not None:
            equipment.release()
    if equipment is not None:
        await equipment.closed()
    if emit is not None:
        await emit(RunFinished(result))
    return result
