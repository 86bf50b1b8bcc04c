"""Functions as steps."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import Any

from gossamer.context import current_call
from gossamer.errors import (
    StepOutputError,
)
from gossamer.flow.workflow.callables import Callee
from gossamer.flow.workflow.execution import Execution
from gossamer.flow.workflow.leaf import Attempt, Leaf, failure, is_cancelled
from gossamer.flow.workflow.step_context import StepContext
from gossamer.messages import ToolCall
from gossamer.tools.execution import OverdueError, within
from gossamer.tools.threads import run_in_thread

__all__ = ["FunctionNode"]


class FunctionNode(Leaf):
    """A function as a step."""

    kind = "step"
    callee: Callee

    async def attempt(
        self, execution: Execution, value: Any, at: Attempt
    ) -> tuple[Any, dict[str, Any] | None]:
        """See `Leaf.attempt`."""
        callee, place = self.callee, at.place
        context = execution.context
        step = StepContext[Any](context, place, at.number, at.branch) if callee.wants_context else None
        outer = current_call.get()
        current_call.set((context, ToolCall(self.name, "", at.key), None))
        try:
            if callee.kind == "async":
                output = callee.call(value, step)
                output = await (output if self.timeout is None else within(self.timeout, output))
            else:
                if callee.kind == "inline":
                    output = callee.call(value, step)
                else:
                    call = partial(callee.call, value, step)
                    output = await within(self.timeout, run_in_thread(call))
                if inspect.isawaitable(output):  # a lambda or a partial that gave a coroutine
                    output = await within(self.timeout, output)
        except asyncio.CancelledError as error:
            if is_cancelled(context):
                raise
            raise failure(place, error) from error
        except OverdueError:
            raise self._overdue(place) from None
        except (Exception, SystemExit) as error:
            raise failure(place, error) from error
        finally:
            current_call.set(outer)  # not reset(token): a cancelled stream may be closed from another context
        if self.check_out is not None:
            output = self._given(output, place)
        if step is None:
            return output, None
        try:
            return output, step.changes()
        except (TypeError, ValueError) as error:
            raise StepOutputError(f"step {place!r}: {error}", place=place) from error
