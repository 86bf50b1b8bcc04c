"""The agent: a frozen value that says how to run. Building it does no work and holds nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, overload

import msgspec
from msgspec.structs import force_setattr

from gossamer.context import RunContext, current_call, hub_of, open_hubs, session_in_hub
from gossamer.delegation import delegation
from gossamer.errors import ArgumentError
from gossamer.limits import Limits
from gossamer.middleware import Middleware, layers, wrap_run
from gossamer.models.base import Model, ModelSettings
from gossamer.models.presets import check_model
from gossamer.opening import OnPending, Prompt, as_tools, decided_by
from gossamer.records import Decision
from gossamer.result import Result
from gossamer.run import execute
from gossamer.schema import Output, output_schema
from gossamer.session import Session
from gossamer.stream import RunStream, emit, run_limited
from gossamer.sync import run_blocking
from gossamer.telemetry import metrics
from gossamer.tools.blocks import enter_block, leave_block
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import AgentTool

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from gossamer.guardrails.base import Guardrail
    from gossamer.memory.longterm import Memory
    from gossamer.memory.working import WorkingMemory

    Deps = TypeVar("Deps", default=Any)
    OutputT = TypeVar("OutputT", default=str)
else:
    from typing import TypeVar

    Deps = TypeVar("Deps")
    OutputT = TypeVar("OutputT")

T = TypeVar("T")

__all__ = ["Agent"]

Instructions: TypeAlias = str | Callable[[RunContext[Any]], str | Awaitable[str]]
Tools: TypeAlias = (
    Sequence[AgentTool | Callable[..., Any]]
    | Callable[[RunContext[Any]], Sequence[AgentTool] | Awaitable[Sequence[AgentTool]]]
)


class Agent(msgspec.Struct, Generic[Deps, OutputT], frozen=True, eq=False, weakref=True):
    """Says how to run: with which model, instructions and tools. A value, safe to share between runs and threads.

    Cost: one object, no work; 0.2 µs with its arguments checked.

    Attributes:
        model: a `Model`, or `provider:model` as in `openai:gpt-5-mini`, or `offline`.
        instructions: the system prompt, or a function of the `RunContext` that gives it, sync or async.
        name: tells agents apart in sessions, metrics and teams.
        tools: tools, toolkits and plain functions, or a function of the `RunContext` that gives them.
        output: the type of the answer: `str`, anything msgspec can decode, a pydantic model, or an `Output`.
        middleware: code around runs, model calls, tool calls and deltas, outermost first.
        guardrails: checks of what goes in and comes out, in order; see `gossamer.guardrails`.
        limits: what a run may use.
        settings: how the model should answer.
        memory: a `WorkingMemory` that keeps what the model sees small, a `Memory` of what is remembered across sessions,
            or several; see `gossamer.memory`.

    Raises:
        ArgumentError: an argument is of the wrong type; the message names it.
    """

    model: str | Model
    instructions: Instructions = ""
    name: str = "agent"
    tools: Tools = ()
    output: type[OutputT] | Output | Any = str
    middleware: Sequence[Middleware] = ()
    guardrails: Sequence[Guardrail] = ()
    limits: Limits | None = None
    settings: ModelSettings | None = None
    memory: WorkingMemory | Memory | Sequence[WorkingMemory | Memory] | None = None

    def __post_init__(self) -> None:
        model = self.model
        if (
            (model if type(model) is str else type(model)) not in _checked_models
            or type(self.instructions) is not str
            or type(self.name) is not str
            or not self.name
            or self.middleware is not _NONE
            or self.guardrails is not _NONE
            or self.limits is not None
            or self.settings is not None
            or self.memory is not None
            or self.output is not str
        ):
            _check(self)
        tools: Any = self.tools
        if tools is not _NONE:
            if type(tools) is not list:
                _settle_tools(self)
            else:
                for tool in tools:  # pyright: ignore[reportUnknownVariableType]
                    if type(tool) is not Tool:  # pyright: ignore[reportUnknownArgumentType]
                        _settle_tools(self)
                        break
                else:
                    force_setattr(self, "tools", tuple(tools))  # pyright: ignore[reportUnknownArgumentType]
        if metrics.recorder is not None:
            metrics.recorder.agent_created()

    @overload
    def run(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: type[T],
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Coroutine[Any, Any, Result[T]]: ...
    @overload
    def run(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Coroutine[Any, Any, Result[OutputT]]: ...
    def run(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Coroutine[Any, Any, Result[Any]]:
        """Run to the end: `result = await agent.run("…")`.

        Args:
            prompt: text, a message, or a list of parts and messages; None starts from instructions and session.
            session: the conversation to take part in; without one the run remembers nothing, but for a participant
                inside the block of a `MessageHub`, which has a session there.
            deps: what tools and instructions find as `context.deps`.
            user: on whose behalf.
            output: the output type, in place of the agent's.
            limits: in place of the agent's.
            settings: laid over the agent's.
            tools: in place of the agent's.
            pending: what to do with a paused session: `raise`, or `deny` what waits and go on.

        Returns:
            A coroutine that gives the `Result`, also of a run that paused or was stopped by a limit.

        Raises:
            GossamerError: one of its children says what went wrong.
        """
        if open_hubs and session is None:
            session = session_in_hub(self)
        current = current_call.get()
        context = RunContext(self.name, deps, user, session, None if current is None else current[0])
        if self.middleware:
            run = _run_wrapped(self, context, prompt, output, limits, settings, tools, None, pending)
        else:
            run = execute(self, context, prompt, output, limits, settings, tools, None, pending)
        limits = limits or self.limits
        return run if limits is None else run_limited(run, context, limits)

    __call__ = run

    @overload
    def run_sync(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: type[T],
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Result[T]: ...
    @overload
    def run_sync(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Result[OutputT]: ...
    def run_sync(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> Result[Any]:
        """Run to the end from code that is not async: scripts, notebooks, threads.

        All such runs share one background event loop, but for those of participants inside the block of a
        `MessageHub`, which run on its loop. Ctrl-C cancels the run. Arguments and errors as for `run`.

        Raises:
            ArgumentError: called on that loop itself, as by an inline tool.
        """
        hub = hub_of(self) if open_hubs and session is None else None
        return run_blocking(
            lambda: self.run(
                prompt,
                session=session,
                deps=deps,
                user=user,
                output=output,
                limits=limits,
                settings=settings,
                tools=tools,
                pending=pending,
            ),
            None if hub is None else hub.loop,
        )

    @overload
    def stream(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: type[T],
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> RunStream[T]: ...
    @overload
    def stream(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> RunStream[OutputT]: ...
    def stream(
        self,
        prompt: Prompt = None,
        *,
        session: Session[Any] | None = None,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
        pending: OnPending = "raise",
    ) -> RunStream[Any]:
        """Run and read the events as they come: `async with agent.stream("…") as stream: async for event in stream`.

        Arguments and errors as for `run`.

        Returns:
            The stream; nothing happens before its first event is asked for.
        """
        context = _context_of(self, deps, user, session)
        start = _run_wrapped if self.middleware else execute
        run = start(self, context, prompt, output, limits, settings, tools, None, pending, emit)
        return RunStream(run, context, limits or self.limits)

    @overload
    def resume(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        output: type[T],
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
    ) -> Coroutine[Any, Any, Result[T]]: ...
    @overload
    def resume(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
    ) -> Coroutine[Any, Any, Result[OutputT]]: ...
    def resume(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
    ) -> Coroutine[Any, Any, Result[Any]]:
        """Go on with a session's unfinished run: one that paused, or one whose process died.

        Calls with a stored result never run again. Where decisions are missing, the run stays paused for those.

        Args:
            session: the session.
            decisions: `Approve`, `Deny` or `Answer` by call id, for calls in `result.pending`.
            deps: as for `run`; not stored with the session.
            user: for whom the run began; None for the same.
            output: as for `run`.
            limits: as for `run`; time counts anew, turns go on from where they stood.
            settings: as for `run`.
            tools: as for `run`.

        Returns:
            A coroutine that gives the `Result`.

        Raises:
            ResumeError: nothing is unfinished, the run is another agent's or user's, or a decision does not fit.
        """
        context = _context_of(self, deps, user, session)
        start = _run_wrapped if self.middleware else execute
        run = start(self, context, None, output, limits, settings, tools, decided_by(decisions))
        limits = limits or self.limits
        return run if limits is None else run_limited(run, context, limits)

    def resume_stream(
        self,
        session: Session[Any],
        decisions: Mapping[str, Decision] | None = None,
        *,
        deps: Any = None,
        user: str | None = None,
        output: Any = None,
        limits: Limits | None = None,
        settings: ModelSettings | None = None,
        tools: Tools | None = None,
    ) -> RunStream[OutputT]:
        """Go on with a session's unfinished run and read the events as they come.

        Arguments and errors as for `resume`.

        Returns:
            The stream; nothing happens before its first event is asked for.
        """
        context = _context_of(self, deps, user, session)
        start = _run_wrapped if self.middleware else execute
        decided = decided_by(decisions)
        run = start(self, context, None, output, limits, settings, tools, decided, "raise", emit)
        return RunStream(run, context, limits or self.limits)

    def as_tool(self, name: str, description: str) -> Tool[..., Any]:
        """Make a tool of this agent, for another one to delegate to.

        The inner run keeps a journal of its own in the outer run's session, shares the outer run's limits, and adds
        its usage there. When it pauses, the outer run pauses with it; both are resumed, not repeated.

        Args:
            name: what the other model calls it.
            description: what the other model is told: what to delegate, and how to ask.

        Returns:
            The tool; it takes a `prompt`.
        """
        return delegation(self, name, description)

    async def __aenter__(self) -> Self:
        """Open the toolkits that all runs share, and hold them open until the block is left.

        Raises:
            GossamerError: one could not be opened.
        """
        items: Any = () if callable(self.tools) else self.tools
        await enter_block(self, [one for one in items if isinstance(one, Toolkit)])
        return self

    async def __aexit__(self, *_: object) -> None:
        await leave_block(self)

    def replace(self, **changes: Any) -> Agent[Deps, OutputT]:
        """Make a changed copy.

        Raises:
            ArgumentError: there is no such argument, or it is of the wrong type.
        """
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            if isinstance(error, ArgumentError):
                raise
            known = ", ".join(self.__struct_fields__)
            raise ArgumentError(f"Agent.replace: {error}; an agent has {known}") from error


def _context_of(
    agent: Agent[Any, Any], deps: Any, user: str | None, session: Session[Any] | None
) -> RunContext[Any]:
    """Make the context of a run; `Agent.run` does the same in place, where a call would cost a fiftieth of a run."""
    if open_hubs and session is None:
        session = session_in_hub(agent)
    current = current_call.get()
    return RunContext(agent.name, deps, user, session, None if current is None else current[0])


async def _run_wrapped(
    agent: Agent[Any, Any], context: RunContext[Any], prompt: Prompt, *arguments: Any
) -> Result[Any]:
    """Run inside the agent's middleware."""
    called = False

    async def innermost() -> Result[Any]:
        nonlocal called
        if called:
            raise ArgumentError("a middleware called next() of a run twice; a second run is agent.run again")
        called = True
        return await execute(agent, context, prompt, *arguments)

    result: Any = await wrap_run(layers(agent.middleware).run, context, innermost)()
    if not isinstance(result, Result):
        raise ArgumentError(
            f"a middleware's run gave {type(result).__name__}; it must give the Result of next()"
        )
    return result  # pyright: ignore[reportUnknownVariableType]


# The one empty tuple: an empty list is settled too, for its owner may add to it later.
_NONE: tuple[Any, ...] = ()

# What an agent may be built with, checked once: model strings, and the types of model objects. Building an agent
# costs one look-up here.
_checked_models: set[Any] = set()
_MAX_CHECKED_MODELS = 10_000


def _check(agent: Agent[Any, Any]) -> None:
    """Check the arguments of an agent, those that are not the usual ones."""
    model = agent.model
    check_model(model)
    if len(_checked_models) < _MAX_CHECKED_MODELS:
        _checked_models.add(model if isinstance(model, str) else type(model))
    if not isinstance(agent.instructions, str) and not callable(agent.instructions):
        raise ArgumentError(
            f"instructions must be text or a function of the context, not {type(agent.instructions).__name__}"
        )
    if not isinstance(agent.name, str) or not agent.name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"name must be text that is not empty, not {agent.name!r}")
    if agent.limits is not None and not isinstance(agent.limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"limits must be a Limits, not {type(agent.limits).__name__}")
    if agent.settings is not None and not isinstance(agent.settings, ModelSettings):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"settings must be a ModelSettings, not {type(agent.settings).__name__}")
    if agent.output is not str:
        try:
            output_schema(agent.output)
        except ArgumentError as error:
            raise ArgumentError(f"output: {error}") from error
    force_setattr(agent, "middleware", _all_of("middleware", agent.middleware, Middleware))
    if agent.guardrails is not _NONE:
        from gossamer.guardrails.base import Guardrail

        force_setattr(agent, "guardrails", _all_of("guardrails", agent.guardrails, Guardrail))
    if agent.memory is not None:
        from gossamer.memory.during import as_memories

        force_setattr(agent, "memory", as_memories(agent.memory) or None)


def _all_of(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if type(value) not in {list, tuple}:
        raise ArgumentError(f"{name} must be a list, not {type(value).__name__}")
    items: tuple[Any, ...] = tuple(value)
    for one in items:
        if not isinstance(one, kind):
            raise ArgumentError(f"{name} must be made of {kind.__name__}, not {type(one).__name__}")
    return items


def _settle_tools(agent: Agent[Any, Any]) -> None:
    """Turn functions among the tools into tools; leave a function of the context for the run."""
    tools: Any = agent.tools
    if callable(tools) and not isinstance(tools, Tool):
        return
    force_setattr(agent, "tools", as_tools(tools))
