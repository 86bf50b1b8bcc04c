"""One turn's tools: which may start, how many, and what is told while they run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence

from gossamer.approval import admit, ask, may_start_at_once
from gossamer.asking import Emit
from gossamer.events import ApprovalNeeded, Event, ToolProgress
from gossamer.messages import ToolCall, ToolResult
from gossamer.tools.execution import CLEANUP_SECONDS, ToolTurn, run_calls
from gossamer.usage import Usage

__all__ = ["act", "act_and_tell"]

# Events of running tools that nobody has taken yet; beyond this further progress is dropped.
_MAX_UNTOLD = 1000

# Events of runs inside tools that the reader has not taken yet; beyond this those runs wait.
_MAX_UNREAD = 64


def act(turn: ToolTurn, calls: Sequence[ToolCall], can_pause: bool, resumed: bool) -> Awaitable[None] | None:
    """Run the calls of a turn, those that may; results, waiting calls and signals go into the turn.

    Args:
        turn: the turn.
        calls: the calls, as the model wrote them.
        can_pause: whether a call may have to wait for a decision.
        resumed: whether a call may have a past in the journal.

    Returns:
        What to await, or None where everything is done.
    """
    if turn.context.budget is None and not resumed and (not can_pause or may_start_at_once(turn, calls)):
        return run_calls(turn, calls) if calls else None
    return _act_on_what_may_run(turn, calls, can_pause or resumed)


async def _act_on_what_may_run(turn: ToolTurn, calls: Sequence[ToolCall], can_pause: bool) -> None:
    ready = await admit(turn, calls) if can_pause else calls
    budget = turn.context.budget
    taken = 0
    if budget is not None and ready:
        session = turn.context.session
        begun: set[str] = session.turn.started if session is not None else set()  # counted when they began
        fresh = [call for call in ready if call.id not in begun]
        refused = fresh[budget.take_tool_calls(len(fresh)) :]
        for call in refused:
            words = "Not run: the limit of tool calls is reached."
            turn.finish(call, ToolResult(call.id, call.name, words, "not_run"))
        turn.refused = len(refused)
        ready = [call for call in ready if call not in refused] if refused else ready
        taken = len(fresh) - len(refused)
    try:
        if ready and (work := run_calls(turn, ready)) is not None:
            await work
    finally:
        # Calls whose arguments did not fit, or whose tool is not there, give their place back.
        if budget is not None and taken > turn.started:
            budget.count(Usage(tool_calls=turn.started - taken))
    if turn.pending:
        ask(turn)


async def act_and_tell(
    turn: ToolTurn, calls: Sequence[ToolCall], can_pause: bool, resumed: bool, reports: bool, emit: Emit
) -> None:
    """Do what `act` does and emit events: at once where several tools run or one reports, else at the end.

    Args:
        turn: the turn.
        calls: the calls, as the model wrote them.
        can_pause: see `act`.
        resumed: see `act`.
        reports: whether one of the tools reports interim values.
        emit: takes the events.
    """
    untold: deque[Event] = deque()
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    room = asyncio.Event()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    def notify(event: Event) -> None:
        if len(untold) < _MAX_UNTOLD or not isinstance(event, ToolProgress):
            untold.append(event)
        wake()

    async def tell(event: Event) -> None:
        while len(untold) >= _MAX_UNREAD:
            room.clear()
            await room.wait()
        untold.append(event)
        wake()

    turn.notify = notify
    if len(calls) == 1 and not reports:
        work = act(turn, calls, can_pause, resumed)
        if work is not None:
            await work
    else:
        turn.context.tell = tell
        task = asyncio.ensure_future(_act_in_task(turn, calls, can_pause, resumed))
        task.add_done_callback(wake)
        try:
            while not task.done():
                await woken
                woken = loop.create_future()
                while untold:
                    await emit(untold.popleft())
                    room.set()
        except BaseException as error:
            task.cancel()
            if isinstance(error, GeneratorExit):  # the stream was dropped; nothing may be awaited any more
                raise
            await asyncio.wait((task,), timeout=CLEANUP_SECONDS)
            raise
        finally:
            turn.context.tell = None
        task.result()
    while untold:
        await emit(untold.popleft())
    for pending in turn.pending:
        await emit(ApprovalNeeded(pending))


async def _act_in_task(turn: ToolTurn, calls: Sequence[ToolCall], can_pause: bool, resumed: bool) -> None:
    work = act(turn, calls, can_pause, resumed)
    if work is not None:
        await work
