"""Code mode: a model that writes Python, which calls the agent's tools, in place of one that calls them one by one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from gossamer.agent import Agent
from gossamer.context import RunContext, current_call
from gossamer.delegation import delegation_of, run_inside
from gossamer.errors import ArgumentError, EndRun, GuardrailError, LimitError, ToolError
from gossamer.flow.code_functions import RUN_CODE, Functions, functions_of, in_their_stead
from gossamer.flow.code_run import FAILED, CodeRun
from gossamer.flow.unasked import Unasked
from gossamer.guardrails.base import Check, Guardrail, Place
from gossamer.limits import Limits
from gossamer.messages import Text, ToolCall, ToolResult
from gossamer.middleware import CallModel, CallTool, Middleware
from gossamer.models.base import ModelRequest, ModelResponse
from gossamer.sandbox import Sandbox
from gossamer.sandbox.in_words import about_python
from gossamer.schema import ToolSchema
from gossamer.tools.execution import ToolTurn
from gossamer.tools.function import Tool, tool
from gossamer.tools.output_text import cut_middle

__all__ = ["code_mode"]

Deps = TypeVar("Deps")
OutputT = TypeVar("OutputT")


def code_mode(
    agent: Agent[Deps, OutputT], sandbox: Sandbox | None = None, *, max_steps: int = 1000
) -> Agent[Deps, OutputT]:
    """Let a model write Python that calls the agent's tools, in place of calls one by one.

    The model sees one tool in their place, `run_code(code)`, and them as async functions in its description. Each call
    that the code makes goes the way of any other: approvals, guardrails, middleware, limits, journal. What the code
    prints, and the value of its last expression, is what the model gets back. Tools that hand over, and those that the
    provider runs, stay beside it.

    Args:
        agent: the agent; what is changed of it afterwards with `replace` must leave its middleware and tools in place.
        sandbox: where the code runs, each time in a session of its own; a `MontySandbox` that the process shares where
            None.
        max_steps: how often one piece of code may wait for calls; those that it gathers are one step.

    Returns:
        A new agent; building it does no work.

    Raises:
        ArgumentError: the agent has no tools, or is in code mode already; or an argument cannot be used.
    """
    if type(max_steps) is not int or max_steps < 1:
        raise ArgumentError(f"max_steps must be at least 1, not {max_steps!r}")
    if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(
            f"code_mode takes an Agent, not {type(agent).__name__}; a team's leader may be in code mode"
        )
    if sandbox is None:
        from gossamer.sandbox.shared import shared_monty

        sandbox = shared_monty()
    elif not callable(getattr(sandbox, "session", None)):
        raise ArgumentError(
            f"sandbox must be a Sandbox, such as MontySandbox(), not {type(sandbox).__name__}"
        )
    tools: Any = agent.tools
    if not callable(tools):
        if not tools:
            raise ArgumentError(f"agent {agent.name!r} has no tools that code could call")
        if any(isinstance(one, Tool) and one.name == RUN_CODE for one in tools):
            raise ArgumentError(f"agent {agent.name!r} has a tool {RUN_CODE!r} already; is it in code mode?")
    mode = _CodeMode(sandbox, max_steps)
    running = delegation_of(agent, _running, mode.run_code, RUN_CODE, _DESCRIPTION)
    return agent.replace(tools=_with_tool(tools, running), middleware=(*agent.middleware, mode))


class _CodeMode(Middleware):
    """Shows the model code in place of tools, and runs it."""

    def __init__(self, sandbox: Sandbox, max_steps: int) -> None:
        self._sandbox = sandbox
        self._python = about_python(sandbox)
        self._max_steps = max_steps
        self._known: dict[tuple[ToolSchema, ...], Functions] = {}
        self._stopped: WeakKeyDictionary[RunContext[Any], LimitError] = WeakKeyDictionary()

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002
        """Ask with `run_code` in place of the tools that code can call.

        Raises:
            LimitError: one that holds for the run has stopped code in it.
        """
        if (stopped := self._stopped.get(context)) is not None:
            raise stopped
        tools = context.kit.by_name
        if RUN_CODE not in tools:  # the run has others in their place
            return await next(request)
        seen = functions_of(tools, self._python, self._known).described(request.tools)
        choice = request.tool_choice
        if choice in tools and all(one.name != choice for one in seen):
            choice = RUN_CODE
        return await next(msgspec.structs.replace(request, tools=seen, tool_choice=choice))

    async def tool(self, context: RunContext[Any], call: ToolCall, next: CallTool) -> ToolResult:  # noqa: A002, ARG002
        """Tell the model of code that failed, and the run of a guardrail that stopped it."""
        if call.name != RUN_CODE:
            return await next(call)
        try:
            return await next(call)
        except _CodeFailedError as failed:
            return ToolResult(call.id, call.name, str(failed), "error")
        except ToolError as error:
            if isinstance(error.__cause__, GuardrailError):
                raise error.__cause__ from None
            raise

    async def run_code(self, context: RunContext[Any], arguments: Any) -> Any:
        """Run code, or go on with what an earlier start of the call began.

        Raises:
            CallPaused: calls that it made wait for decisions.
            EndRun: a tool that it called ended the run.
            ToolError: a tool that it called failed in a way that no model can mend, or a guardrail stopped the run.
        """
        code: str = arguments.code
        if not code.strip():
            raise _CodeFailedError(f"{FAILED}: it is empty")
        current = current_call.get()
        assert current is not None, "code runs inside a call"
        turn: ToolTurn = current[2]
        functions = functions_of(turn.tools, self._python, self._known)
        around = [one for one in turn.interceptions if getattr(one, "__self__", None) is not self]
        run = CodeRun(self._sandbox, code, functions, self._max_steps, around)
        tools: Any = partial(in_their_stead, turn.tools)  # a toolset, which others than this may not give
        inner = Agent(
            _CODE,
            name=context.agent,
            tools=tools,
            middleware=(run,),
            guardrails=[_inside(one) for one in turn.guards.of_tools] if turn.guards is not None else (),
            limits=Limits(max_turns=self._max_steps + 2, max_parallel_tools=turn.max_parallel),
        )
        try:
            async with run:
                ended = await run_inside(inner, RUN_CODE, lambda: code)
        except GuardrailError as error:
            raise ToolError(str(error)) from error
        except LimitError as error:
            self._take_note(context, error)
            raise _CodeFailedError(f"{FAILED}: a limit stopped it: {error}") from error
        if ended.reason == "ended_by_tool":
            raise EndRun(ended.output)
        text: str = ended.output
        if run.failed or (not run.began and text.startswith(FAILED)):  # in this process, or before it died
            raise _CodeFailedError(text)
        return [Text(cut_middle(text, _MOST_BESIDE_IMAGES)), *run.images] if run.images else text

    def _take_note(self, context: RunContext[Any], error: LimitError) -> None:
        """Remember a limit that holds for the whole run: its model is not asked again."""
        if context.budget is not None and context.budget.is_at(error):
            # A copy: the error's traceback would keep the run.
            self._stopped[context] = LimitError(
                str(error), limit=error.limit, allowed=error.allowed, used=error.used
            )


class _CodeFailedError(ToolError):
    """Code came to no end of its own; the words are for the model."""


class _Inside(Guardrail, frozen=True, eq=False):
    """A guardrail of the run around, for the calls that code makes there."""

    def __post_init__(self) -> None:  # it was checked when the other one was made
        pass


def _inside(guardrail: Guardrail) -> Guardrail:
    check: Check = guardrail.check
    on: Sequence[Place] = [place for place in guardrail.on if place in {"call", "result"}]

    def check_outer(context: RunContext[Any], text: str) -> Any:
        assert context.parent is not None, "code runs inside a call"
        return check(context.parent, text)

    return _Inside(guardrail.name, check_outer, on)


def _with_tool(tools: Any, running: Tool[..., Any]) -> Any:
    """Put the tool that runs code behind the others, also where a function gives those."""
    if not callable(tools):
        return (*tools, running)

    async def both(context: RunContext[Any]) -> Sequence[Any]:
        own: Any = tools(context)
        if inspect.isawaitable(own):
            own = await own
        return (*own, running)

    return both


@tool(name=RUN_CODE, timeout=None)
async def _running(code: Annotated[str, "The code."]) -> None:
    """The pattern of the tool that runs code."""


_CODE = Unasked("code", "a run of code has no model to ask")
_DESCRIPTION = (
    "Run Python code that calls your tools."  # what they are stands behind it when a model is asked
)
_MOST_BESIDE_IMAGES = 50_000  # characters, of which the middle is left out: what has images is not kept aside
