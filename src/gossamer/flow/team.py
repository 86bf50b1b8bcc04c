"""Teams: agents that answer as one. A team drives the same loop as an agent, and its members are tools of that run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias, get_args

import msgspec
from msgspec.structs import force_setattr

from gossamer.agent import Agent
from gossamer.context import RunContext, open_hubs, session_in_hub
from gossamer.delegation import Runnable, delegation
from gossamer.errors import ArgumentError
from gossamer.flow.delegating import Member, as_members, asking, by_rule, deciding, judging, planned
from gossamer.flow.directing import Director, OneMember, broadcast, consensus, sequential
from gossamer.flow.plan import plan_toolkit
from gossamer.flow.unasked import Unasked
from gossamer.limits import DEFAULT_MAX_TURNS, Limits
from gossamer.models.base import Model, ModelSettings
from gossamer.opening import OnPending, Prompt
from gossamer.records import Decision
from gossamer.result import Result
from gossamer.session import Session
from gossamer.stream import RunStream
from gossamer.sync import run_blocking
from gossamer.tools.blocks import enter_block, leave_block
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["Mode", "SharedContext", "Team"]

# How a team comes to its answer; see `Team`.
Mode: TypeAlias = Literal["coordinate", "route", "broadcast", "sequential", "consensus", "plan"]

# What members see of the conversation.
SharedContext: TypeAlias = Literal["private", "shared"]

_MOST_ANSWER = 1_000_000

_RULED = frozenset(("broadcast", "sequential", "consensus"))

_TOLD = {
    "coordinate": (
        "You lead a team. Give its members the parts of the work that are theirs, with the tools that ask them; they know "
        "only what you tell them. Ask several at once where their parts do not depend on each other. Then answer yourself."
    ),
    "route": "Choose the one member who is to answer, with the tool that asks it. It is given the question as it is.",
    "plan": (
        "You lead a team. First make a plan with create_plan. Then give its items to the members, with the tools that ask "
        "them, naming the item; ask several at once where items do not depend on each other. Revise the plan where it "
        "turns out to be wrong, finish it with finish_plan when nothing is left, and answer."
    ),
}


class Team(msgspec.Struct, frozen=True, eq=False, weakref=True, dict=True):
    """Agents that answer as one: `Team([search, write], leader="openai:gpt-5-mini")`. A value, like an agent.

    A team runs, streams, pauses and resumes as an agent does, and may stand where one does: as a member of another team, a
    tool, a step. Its members run inside tool calls of its own run: each call has a session of its own in the team's,
    limits hold for all of them together, usage adds up, and a call that waits for a decision surfaces at the top.

    The modes:

    - `coordinate`: the leader gives work to members, to several at once where it wants, and answers itself.
    - `route`: the leader picks the one member whose answer is the team's.
    - `broadcast`: all members are asked at once; their answers, under their names, are the team's.
    - `sequential`: one after another, each told what the one before it said; the last one's answer is the team's.
    - `consensus`: all are asked at once, round by round, each told what the others said, until they agree.
    - `plan`: the leader makes a plan, gives its items to members, and answers; see `plan_toolkit`.

    The first two and the last need a leader. In the other three a rule directs; a leader, where there is one, writes the
    answer from what the members said, and in `consensus` tells whether they agree.

    Attributes:
        members: agents, teams, or `Member`s, which say what the leader is told of them.
        mode: see above.
        leader: the agent that leads, whose model, instructions, tools, output type, middleware, guardrails, settings and
            memory the team has; or its model alone, or a model string.
        name: tells it apart in sessions, metrics and streams.
        context: what members see: `private`, what they are asked alone; `shared`, the conversation before it too, without
            tools and thinking, the last 100 messages of it.
        max_rounds: how often each member is asked in `consensus`, before `NoConsensusError`.
        limits: what a run may use, its members included; the leader's where None.

    Raises:
        ArgumentError: an argument cannot be used; the message names the team.
    """

    members: Sequence[Runnable | Member]
    mode: Mode = "coordinate"
    leader: Agent[Any, Any] | Model | str | None = None
    name: str = "team"
    context: SharedContext = "private"
    max_rounds: int = 3
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"name of a team must be text that is not empty, not {self.name!r}")
        for field, known in (("mode", Mode), ("context", SharedContext)):
            if getattr(self, field) not in get_args(known):
                raise ArgumentError(
                    f"{field} of team {self.name!r} must be one of {', '.join(get_args(known))}, "
                    f"not {getattr(self, field)!r}"
                )
        if type(self.max_rounds) is not int or self.max_rounds < 1:
            raise ArgumentError(
                f"max_rounds of team {self.name!r} must be at least 1, not {self.max_rounds!r}"
            )
        force_setattr(self, "members", as_members(self.name, self.members))
        leader = self.leader
        if leader is None:
            if self.mode not in _RULED:
                raise ArgumentError(
                    f"team {self.name!r} needs a leader in mode {self.mode!r}: an Agent, a model or a model string"
                )
            return
        if not isinstance(leader, Agent):
            try:
                leader = Agent(leader)
            except ArgumentError as error:
                raise ArgumentError(f"leader of team {self.name!r}: {error}") from error
            force_setattr(self, "leader", leader)
        if self.mode in _RULED and leader.tools:
            raise ArgumentError(
                f"the leader of team {self.name!r} has tools, but in mode {self.mode!r} it only writes the answer"
            )

    @property
    def description(self) -> str:
        """What the leader of another team is told of this one, where nobody says otherwise."""
        members: Any = self.members
        return f"Asks {self.name}, a team: {' '.join(one.described for one in members)}"

    @cached_property
    def agent(self) -> Agent[Any, Any]:
        """The agent that the loop drives: directs the members, which are its tools. Made at the first run."""
        return _RULES[self.mode](self) if self.mode in _RULED else _led(self)

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
        pending: OnPending = "raise",
    ) -> Coroutine[Any, Any, Result[Any]]:
        """Run to the end; arguments, result and errors as for `Agent.run`.

        Raises:
            MemberError: a member failed without whom the team cannot go on.
            NoConsensusError: the members did not agree.
            GossamerError: see `Agent.run`.
        """
        if open_hubs and session is None:
            session = session_in_hub(self)
        return self.agent.run(
            prompt,
            session=session,
            deps=deps,
            user=user,
            output=output,
            limits=limits,
            settings=settings,
            pending=pending,
        )

    __call__ = run

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
        pending: OnPending = "raise",
    ) -> Result[Any]:
        """Run to the end from code that is not async; see `Agent.run_sync`."""
        return run_blocking(
            lambda: self.run(
                prompt,
                session=session,
                deps=deps,
                user=user,
                output=output,
                limits=limits,
                settings=settings,
                pending=pending,
            )
        )

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
        pending: OnPending = "raise",
    ) -> RunStream[Any]:
        """Run and read the events as they come, those of members as `InnerEvent`s; see `Agent.stream`."""
        if open_hubs and session is None:
            session = session_in_hub(self)
        return self.agent.stream(
            prompt,
            session=session,
            deps=deps,
            user=user,
            output=output,
            limits=limits,
            settings=settings,
            pending=pending,
        )

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
    ) -> Coroutine[Any, Any, Result[Any]]:
        """Go on with a session's unfinished run, wherever in the team it waits; see `Agent.resume`."""
        return self.agent.resume(
            session, decisions, deps=deps, user=user, output=output, limits=limits, settings=settings
        )

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
    ) -> RunStream[Any]:
        """Go on with a session's unfinished run and read the events as they come; see `Agent.resume_stream`."""
        return self.agent.resume_stream(
            session, decisions, deps=deps, user=user, output=output, limits=limits, settings=settings
        )

    def as_tool(self, name: str, description: str) -> Tool[..., Any]:
        """Make a tool of this team, for an agent to delegate to; see `Agent.as_tool`."""
        return msgspec.structs.replace(delegation(self, name, description), delegates_to=self.agent)

    async def __aenter__(self) -> Self:
        """Open the toolkits of leader and members that all runs share, and hold them open until the block is left.

        Raises:
            GossamerError: one could not be opened.
        """
        await enter_block(self, list(dict.fromkeys(_toolkits(self))))
        return self

    async def __aexit__(self, *_: object) -> None:
        await leave_block(self)

    def replace(self, **changes: Any) -> Team:
        """Make a changed copy.

        Raises:
            ArgumentError: there is no such argument, or its value cannot be used.
        """
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(
                f"Team.replace: {error}; a team has {', '.join(self.__struct_fields__)}"
            ) from error


# --- what the loop drives ---------------------------------------------------------------------------------


def _led(team: Team) -> Agent[Any, Any]:
    """Make the agent of a team whose leader directs: the leader itself, with the members as further tools."""
    leader: Any = team.leader
    members: Any = team.members
    shared = team.context == "shared"
    more: list[Any] = []
    middleware = leader.middleware
    settings = leader.settings
    if team.mode == "route":
        more += [deciding(one, shared=shared) for one in members]
        middleware = (*middleware, OneMember([one.tool for one in members]))
        settings = ModelSettings(tool_choice="required").over(settings)
    elif team.mode == "plan":
        own = () if callable(leader.tools) else leader.tools
        plan = next((one for one in own if isinstance(one, Toolkit) and one.name == "plan"), None)
        if plan is None:
            plan = plan_toolkit()
            more.append(plan)
        more += [planned(one, plan, shared=shared) for one in members]
    else:
        more += [asking(one, shared=shared) for one in members]
    return leader.replace(
        name=team.name,
        instructions=_with_words(leader.instructions, _TOLD[team.mode]),
        tools=_with_tools(leader.tools, tuple(more)),
        middleware=middleware,
        settings=settings,
        limits=team.limits or leader.limits,
    )


def _ruled(team: Team, rule: Any, turns: int, more: Sequence[Tool[..., Any]] = ()) -> Agent[Any, Any]:
    """Make the agent of a team that a rule directs."""
    members: Any = team.members
    names = _names(team)
    tools = [by_rule(one, team.mode, names, shared=team.context == "shared") for one in members]
    leader: Any = team.leader
    limits = team.limits or (None if leader is None else leader.limits)
    if limits is None and turns > DEFAULT_MAX_TURNS:
        limits = Limits(max_turns=turns)
    director = Director(rule, led=leader is not None)
    if leader is None:  # no model reads the answers here, so that none is kept aside
        leader = Agent(Unasked("none", "a team without a leader has no model to ask"))
        tools = [one.replace(max_result_chars=_MOST_ANSWER) for one in tools]
    return leader.replace(
        name=team.name,
        tools=[*tools, *more],
        middleware=(*leader.middleware, director),
        limits=limits,
    )


def _broadcast(team: Team) -> Agent[Any, Any]:
    return _ruled(team, broadcast(team.name, _names(team)), 2)


def _sequential(team: Team) -> Agent[Any, Any]:
    return _ruled(team, sequential(team.name, _names(team)), len(team.members) + 1)


def _consensus(team: Team) -> Agent[Any, Any]:
    judged = team.leader is not None
    names = _names(team)
    rule = consensus(team.name, names, team.max_rounds, judged=judged)
    leader: Any = team.leader
    more = [judging(leader, names)] if judged else []
    return _ruled(team, rule, 2 * team.max_rounds + 1, more)


_RULES: dict[str, Callable[[Team], Agent[Any, Any]]] = {
    "broadcast": _broadcast,
    "sequential": _sequential,
    "consensus": _consensus,
}


def _names(team: Team) -> dict[str, str]:
    members: Any = team.members
    return {one.tool: one.name for one in members}


def _with_words(instructions: Any, words: str) -> Any:
    """Put what a leader is told behind its own instructions, also where a function gives those."""
    if not callable(instructions):
        return f"{instructions}\n\n{words}" if instructions else words

    async def both(context: RunContext[Any]) -> str:
        own = instructions(context)
        if inspect.isawaitable(own):
            own = await own
        return f"{own}\n\n{words}" if own else words

    return both


def _with_tools(tools: Any, more: tuple[Any, ...]) -> Any:
    """Put the members behind a leader's own tools, also where a function gives those."""
    if not callable(tools):
        return (*tools, *more)

    async def both(context: RunContext[Any]) -> Sequence[Any]:
        own: Any = tools(context)
        if inspect.isawaitable(own):
            own = await own
        return (*own, *more)

    return both


def _toolkits(runnable: Any) -> list[Toolkit]:
    """Give the toolkits of an agent, or of a team's leader and members."""
    if isinstance(runnable, Team):
        members: Any = runnable.members
        inside = [runnable.leader, *[one.runnable for one in members]]
        return [toolkit for one in inside for toolkit in _toolkits(one)]
    tools: Any = getattr(runnable, "tools", ())
    return [] if callable(tools) or not tools else [one for one in tools if isinstance(one, Toolkit)]
