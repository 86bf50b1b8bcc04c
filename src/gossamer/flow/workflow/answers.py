"""Whether what a person answers fits the step that asks, before anything of it is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gossamer.approval import check_inside
from gossamer.errors import ResumeError
from gossamer.flow.workflow.places import path_of
from gossamer.flow.workflow.runnable_steps import RunnableNode
from gossamer.flow.workflow.types import read
from gossamer.records import Answer, Approve, Decision, PendingCall

if TYPE_CHECKING:
    from gossamer.flow.workflow.building import Plan

__all__ = ["check_answer"]


def check_answer(
    workflow: str, plan: Plan, pending: PendingCall, decision: Decision, run_id: str | None = None
) -> None:
    """Check a decision about a call that waits in a workflow, or in whatever runs inside of it.

    Args:
        workflow: its name.
        plan: its steps.
        pending: what waits.
        decision: what a person decided.
        run_id: the workflow's run; where that is not known, its name tells whose step waits.

    Raises:
        ResumeError: it does not fit; the step still waits.
    """
    own = pending.agent == workflow if run_id is None else pending.run_id == run_id
    asks = own and pending.kind in {"question", "outcome"}
    if asks and isinstance(decision, Approve) and decision.args is not None:
        raise ResumeError(
            f"call {pending.call_id!r}: a step that runs again takes what it took; leave out args"
        )
    place = pending.call_id.removeprefix(f"{pending.run_id}/").partition("/outcome.")[0]
    node = plan.by_path.get(path_of(place)) if asks else None
    if node is not None:
        if isinstance(decision, Answer):
            try:
                read(decision.value, node.gives)
            except ValueError as error:
                raise ResumeError(
                    f"the answer for step {place!r} does not fit: {error}; it still waits"
                ) from error
        return
    for inside in plan.nodes:
        if isinstance(inside, RunnableNode):
            check_inside(inside.runnable, pending, decision)
