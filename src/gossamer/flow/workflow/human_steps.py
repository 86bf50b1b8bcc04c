"""Questions to people as steps."""

from __future__ import annotations

import inspect
from time import time
from typing import Any

import msgspec

from gossamer.context import CallPaused
from gossamer.errors import (
    StepDeniedError,
)
from gossamer.flow.workflow.callables import Callee
from gossamer.flow.workflow.execution import Execution
from gossamer.flow.workflow.leaf import Attempt, Leaf, failure, pending_call
from gossamer.flow.workflow.state import Branch
from gossamer.flow.workflow.step_context import StepContext
from gossamer.flow.workflow.steps import HumanInput
from gossamer.records import (
    Answer,
    Deny,
)

__all__ = ["HumanNode"]


class HumanNode(Leaf):
    """A question to a person."""

    kind = "human"
    human: HumanInput
    ask: Callee | None = None
    idempotent = True

    async def run(self, execution: Execution, value: Any, prefix: str, branch: Branch) -> Any:
        """See `Node.run`."""
        place = prefix + self.name
        past = execution.past
        if past is not None and (kept := past.finished.pop(place, None)) is not None:
            return self._recall(execution, kept, place, branch)
        return await self._run_with_care(execution, value, place, branch)

    async def attempt(
        self, execution: Execution, value: Any, at: Attempt
    ) -> tuple[Any, dict[str, Any] | None]:
        """See `Leaf.attempt`."""
        place = at.place
        call_id = execution.pending(place)
        past = execution.past
        decision = None if past is None else past.decisions.get(call_id)
        waiting = None if past is None else past.asked.get(call_id)
        if waiting is not None and waiting.expired:
            decision = Deny("Nobody answered in time.")
        if decision is None:
            if waiting is None:
                question = await self._question(execution, value, place, at.branch)
                waiting = pending_call(
                    execution, self, place, "question", call_id, {"question": question, "value": value}
                )
                within_seconds = self.human.decide_within
                if within_seconds is not None:
                    waiting = msgspec.structs.replace(waiting, expires=time() + within_seconds)
            raise CallPaused((waiting,))
        if isinstance(decision, Answer):
            return self._answered(decision, place), None
        reason = decision.reason if isinstance(decision, Deny) else ""
        raise StepDeniedError(f"step {place!r} was not answered: {reason}".rstrip(": "), place=place)

    async def _question(self, execution: Execution, value: Any, place: str, branch: Branch) -> str:
        if self.ask is None:
            return str(self.human.question)
        try:
            words = self.ask.call(value, StepContext(execution.context, place, 1, branch))
            if inspect.isawaitable(words):
                words = await words
        except Exception as error:
            raise failure(place, error) from error
        return str(words)
