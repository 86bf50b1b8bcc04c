"""The loop: build a request, ask the model, run its tools, append, repeat.

`execute` is the whole of it, with or without a listener: `agent.run` passes no `emit` and nothing is emitted,
`agent.stream` passes one and events come out between the steps. Its steps are files of their own: `setting_up` puts
together what a run needs of an agent, `opening` begins or resumes it, `asking` makes one model call, `acting` runs one
turn's tools, `closing` ends it, and `handing_over` lets another agent go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
from gossamer.errors import LimitError, SessionError, StoreError
from gossamer.events import (
    MessageFinished,
    OutputRestarted,
    RunFinished,
    RunStarted,
    UsageUpdated,
)
from gossamer.fingerprint import fingerprint
from gossamer.handing_over import handed_to, successor_of, take_over, who_answers
from gossamer.limits import DEFAULT_MAX_TURNS, Limits, too_many_tool_calls, too_many_turns
from gossamer.messages import Message, Text, ToolCall
from gossamer.models.base import FinishReason, ModelRequest, ModelSettings, tool_choice
from gossamer.models.prices import TOLD_UNPRICED
from gossamer.opening import (
    OnPending,
    Prompt,
    Reopened,
    as_messages,
    budget_for,
    check_session,
    hear,
    must_have_a_live_parent,
    open_run,
    reopen_run,
    same_user,
    with_reader,
)
from gossamer.records import Decision
from gossamer.result import Result
from gossamer.session import Session
from gossamer.setting_up import Setup, set_up
from gossamer.telemetry import metrics
from gossamer.tools.equipment import needs_equipment
from gossamer.tools.execution import ToolTurn
from gossamer.tools.toolset import Toolset
from gossamer.usage import UNASKED, Usage
from gossamer.view import MessageView

if TYPE_CHECKING:
    from gossamer.guardrails.checking import Guards
    from gossamer.memory.during import Memories

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

    Returns:
        The result, also of a run that paused or was stopped by a limit.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    began = perf_counter()
    new = [Message("user", (Text(prompt),))] if type(prompt) is str and prompt else as_messages(prompt)
    limits = limits or agent.limits
    max_turns = DEFAULT_MAX_TURNS if limits is None else limits.max_turns
    session = given = context.session
    if session is not None and type(session) is not Session:
        check_session(session)
    held: Session[Any] | None = None
    setup: Setup | None = None
    turns = started = 0
    resumed = decisions is not None
    stored = session is not None and session.store is not None
    repaired = False
    answered_by = ""
    heard: list[str] = []
    message: Message | None = None
    turn: ToolTurn | None = None
    reopened: Reopened | None = None
    result: Result[Any] | None = None
    reason: FinishReason = "stop"
    context.new = new
    try:
        if session is not None:
            await session.take(context)
            held = session
            if resumed:
                same_user(context)
            if session.answering is not None and session.answering != agent.name:
                asked = agent
                agent = await who_answers(agent, tools, context)
                tools = tools if agent is asked else None
        if (
            limits is not None
            or context.parent is not None
            or (session is not None and session.budget is not None)
        ):
            context.budget = budget_for(limits, context)
        ready = set_up(agent, context, output, settings, tools, emit)
        if isinstance(ready, Setup):
            setup = ready
        else:
            setup = await ready
            if session is None and context.session is not None:  # its tools need one
                held = session = context.session
        if decisions is not None:
            reopened = reopen_run(context, decisions, setup.kit, agent)
            turns, message = reopened.turns, reopened.message
        if setup.guards is not None:
            new = await setup.guards.begin(context, new, reopened, on_pending)
            setup.beside = setup.guards.beside(context, new, setup.model)
        if decisions is None and session is not None:
            retrieved = None if setup.memory is None else await setup.memory.retrieved(context, new, setup)
            mark = fingerprint(agent) if stored else ""
            open_run(context, new, on_pending, mark, retrieved)
            context.new = new = [*new] if retrieved is None else [retrieved, *new]
            session.push()  # start and prompt together, while the model is asked
        if emit is not None:
            await emit(RunStarted(context.run_id, agent.name))

        calls: Sequence[ToolCall] = () if message is None else message.tool_calls
        if reopened is not None and reopened.ended is not None:
            # The process died between the end that a tool made and its record.
            value = reopened.ended.output
            if setup.guards is not None:
                value = await setup.guards.ended(context, reopened.ended, reopened.ended_by)
            result = finish(context, began, "ended_by_tool", answered_by, value)
        elif resumed and message is None and (successor := handed_to(context, setup.kit)) is not None:
            # The process died between a handoff and its record.
            await take_over(context, setup, successor, output, settings, emit)
        kit: Toolset = setup.kit
        guards: Guards | None = setup.guards
        memory: Memories | None = setup.memory
        if message is not None and session is not None:
            # Its calls may be of tools that join on the way.
            if session.has_offload:
                kit = with_reader(kit)
            if memory is not None:
                kit = await memory.resumed(session, setup.model, kit)
        while result is None:
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
                if kit.toolkits and (setup.equipment is not None or needs_equipment(kit, context)):
                    await setup.refresh(context)
                    kit = setup.kit
                if context.offload is not None or (session is not None and session.has_offload):
                    kit = with_reader(kit)
                if memory is not None:
                    await memory.before_model(context, setup.model, setup.words, kit, setup.schema, emit)
                    kit = memory.equipped(kit)
                context.messages = (
                    MessageView(new, 0, len(new), context.bodies) if session is None else session.messages
                )
                request = ModelRequest(
                    context.messages,
                    setup.words,
                    kit.schemas,
                    setup.schema,
                    None if setup.settings is None else tool_choice(setup.settings, turns),
                    setup.settings,
                )

                # Ask the model and append its answer.
                asked = perf_counter() if metrics.recorder is not None else 0.0
                model = setup.model if setup.beside is None else setup.beside
                if setup.layers is not None or context.budget is not None:
                    context.kit = kit
                    response = await ask_model(context, model, request, setup.layers, setup.listen, heard)
                elif emit is None:
                    response = await model.respond(request)
                else:
                    response = await stream_model(context, model, request, None, setup.listen or emit, heard)
                used: Usage = response.usage
                answered_by = response.model
                if (answered_by not in TOLD_UNPRICED if used.unpriced_calls else not used.cost) and (
                    used.input_tokens or used.output_tokens
                ):
                    response = charged(response, model)  # the model leaves its price to us, or has none
                    used = response.usage
                if metrics.recorder is not None and used is not UNASKED:
                    metrics.recorder.model_called(model.name, perf_counter() - asked, used)
                message = response.message
                calls = ()
                for part in message.parts:
                    if type(part) is ToolCall:
                        message, calls = take_calls(message)
                        break
                reason = response.finish_reason
                turns += 1
                if turns > 1 or guards is not None or memory is not None:
                    context.usage = context.usage.plus(used, started)
                else:
                    context.usage = used
                started = 0
                if memory is not None:
                    used = memory.answered(context, setup.model, used, message, kit)
                if guards is not None:
                    message, used = await guards.answer(
                        context, message, used, setup.beside, emit, setup.layers
                    )
                    setup.beside = None
                    calls = message.tool_calls
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
                if setup.schema is not None:
                    try:
                        value = await read_output(setup.schema, message)
                    except ValueError as error:
                        if repaired:
                            raise does_not_fit(error, value) from error
                        repaired = True
                        message = None
                        say(context, repair_request(error), repair=True)
                        if emit is not None:
                            await emit(OutputRestarted(str(error)))
                        continue
                    if context.inbox:
                        message = None
                        continue
                result = finish(context, began, reason, answered_by, value)
                break

            # Run the tools and append their results.
            turn = ToolTurn(context, kit.by_name)
            turn.stored = stored
            if setup.layers is not None:
                turn.interceptions = setup.layers.tool
            allowed = calls if guards is None else await guards.calls(turn, calls)
            if limits is not None:
                turn.max_parallel = limits.max_parallel_tools
            if emit is None:
                work = act(turn, allowed, kit.can_pause, resumed)
                if work is not None:
                    await work
            else:
                await act_and_tell(turn, allowed, kit.can_pause, resumed, kit.reports, emit)
            started = turn.started  # counted with the next model call, or at the end
            if turn.pending:
                context.usage += Usage(tool_calls=started)
                result = finish(context, began, "paused", answered_by, pending=tuple(turn.pending))
                break
            say_results(context, calls, turn.results)
            if turn.ended is not None:
                context.usage += Usage(tool_calls=started)
                value = turn.ended.output
                if guards is not None:
                    value = await guards.ended(context, turn.ended, turn.ended_by)
                result = finish(context, began, "ended_by_tool", answered_by, value)
                break
            if turn.refused:
                raise too_many_tool_calls(context.budget)
            if kit.hands_over and (successor := successor_of(turn, calls)) is not None:
                context.usage += Usage(tool_calls=started)
                started = 0
                await take_over(context, setup, successor, output, settings, emit)
                kit, guards, memory = setup.kit, setup.guards, setup.memory
                repaired = False
            message = turn = None
            resumed = False

        if memory is not None and not result.pending:
            await memory.ended(context, setup)

    except BaseException as error:
        context.usage += Usage(tool_calls=started if turn is None else turn.started)
        leave_whole(
            context,
            heard if setup is None else setup.kept(heard),
            NO_RESULTS if turn is None else turn.results,
        )
        stopped = error if isinstance(error, LimitError) else None
        if isinstance(error, asyncio.CancelledError):
            stopped = context.stopped
        if stopped is None:
            if setup is not None and setup.guards is not None:
                setup.guards.hide(error)
            fail(context, error)
            if held is not None and stored and not isinstance(error, GeneratorExit):
                let_go, held = held, None
                let_go.release()
                with suppress(
                    StoreError, SessionError
                ):  # told in the log; it is the run's error that is raised
                    await let_go.settle()
            raise
        result = finish(context, began, "limit", answered_by, stopped=stopped.with_traceback(None))
    finally:
        if held is not None:
            held.release()
        if setup is not None and setup.equipment is not None:
            alone = session is not None and session is not given and not session.pending
            setup.equipment.release(with_session=alone)
    if setup is not None and setup.equipment is not None:
        await setup.equipment.closed()
    if session is not None:
        await session.settle()
    if emit is not None:
        await emit(RunFinished(result))
    return result
