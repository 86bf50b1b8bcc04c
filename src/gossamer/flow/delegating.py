"""The members of a team, as the tools that ask them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, cast

import msgspec

from gossamer.agent import Agent
from gossamer.context import CallPaused, RunContext
from gossamer.delegation import Runnable, asking_for, delegate, delegation_of
from gossamer.errors import ArgumentError, EndRun, LimitError
from gossamer.flow.course import conversation, course_of, rounds_of
from gossamer.flow.directing import JUDGE
from gossamer.flow.plan import plan_of
from gossamer.messages import Message
from gossamer.tools.function import Tool, tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["Member", "as_members", "asking", "by_rule", "deciding", "driven", "judging", "planned"]

_MOST_MEMBERS = 1_000  # as many sessions inside one session are kept
_MOST_NAME = 60
_MOST_DESCRIPTION = 1_000
_RUNS = ("run", "stream", "resume", "resume_stream")


class Member(msgspec.Struct, frozen=True, eq=False):
    """A member of a team, and what its leader is told of it: `Team([Member(search, "Finds sources.")], …)`.

    Attributes:
        runnable: an `Agent`, a `Team`, or whatever runs and resumes as they do.
        description: what it is good for; taken from its instructions where empty.
    """

    runnable: Runnable
    description: str = ""

    @property
    def name(self) -> str:
        """The member's name."""
        return self.runnable.name

    @property
    def tool(self) -> str:
        """The name of the tool that asks it."""
        return f"ask_{re.sub('[^A-Za-z0-9_-]+', '_', self.name)[:_MOST_NAME]}"

    @property
    def described(self) -> str:
        """What a leader is told of it."""
        if self.description:
            return self.description
        own: Any = getattr(self.runnable, "description", "")
        if isinstance(own, str) and own:
            return own[:_MOST_DESCRIPTION]
        words: Any = getattr(self.runnable, "instructions", "")
        known = f" It is told: {words}" if isinstance(words, str) and words else ""
        return f"Asks {self.name}.{known}"[:_MOST_DESCRIPTION]


class Verdict(msgspec.Struct, frozen=True):
    """What a judge says of the answers of a round.

    Attributes:
        agreed: whether they say the same.
        reason: why.
    """

    agreed: bool
    reason: str = ""


def as_members(team: str, members: Any) -> tuple[Member, ...]:
    """Check the members of a team.

    Raises:
        ArgumentError: there are none, one is not a member, or two have one name; the message names the team.
    """
    if isinstance(members, str | bytes) or not hasattr(members, "__iter__"):
        raise ArgumentError(
            f"members of team {team!r} must be a list of agents, not {type(members).__name__}"
        )
    items: list[Any] = list(members)
    found = tuple(one if isinstance(one, Member) else Member(one) for one in items)
    if len(found) > _MOST_MEMBERS:
        raise ArgumentError(f"team {team!r} has {len(found)} members; {_MOST_MEMBERS} are the most")
    if not found:
        raise ArgumentError(f"team {team!r} has no members; give it at least one")
    for one in found:
        if not all(callable(getattr(one.runnable, name, None)) for name in _RUNS):
            raise ArgumentError(
                f"a member of team {team!r} is an agent, a team or a Member, not {type(one.runnable).__name__}"
            )
    by_tool: dict[str, str] = {}
    for one in found:
        if one.tool in by_tool:
            raise ArgumentError(
                f"two members of team {team!r} are called {by_tool[one.tool]!r} and {one.name!r}, which is one name "
                "for a tool; give one of them another name"
            )
        by_tool[one.tool] = one.name
    return found


def driven(runnable: Any) -> Any:
    """Give the agent that the loop drives for an agent or a team."""
    agent: Any = getattr(runnable, "agent", None)
    return agent if isinstance(agent, Agent) else runnable  # pyright: ignore[reportUnknownVariableType]


def asking(member: Member, *, shared: bool) -> Tool[..., Any]:
    """Make the tool with which a leader asks a member in its own words."""
    runnable, name = member.runnable, member.name
    takes: Any = getattr(runnable, "prompt_type", str)
    pattern = _asking
    if takes is not str:  # a workflow's
        pattern, shared = asking_for(takes), False

    async def ask(context: RunContext[Any], arguments: Any) -> Any:
        prompt = arguments.prompt
        return await delegate(
            runnable,
            name,
            lambda: [*conversation(context), Message.user(prompt)] if shared else prompt,
        )

    return delegation_of(driven(member.runnable), pattern, ask, member.tool, member.described)


def deciding(member: Member, *, shared: bool) -> Tool[..., Any]:
    """Make the tool with which a leader lets a member answer in its stead; the run ends with the member's answer."""
    runnable, name = member.runnable, member.name
    prompt = conversation if shared else _prompt

    async def ask(context: RunContext[Any], _: Any) -> Any:
        raise EndRun(await delegate(runnable, name, lambda: prompt(context)))

    return delegation_of(driven(member.runnable), _calling, ask, member.tool, member.described)


def by_rule(member: Member, mode: str, names: dict[str, str], *, shared: bool) -> Tool[..., Any]:
    """Make the tool with which a rule asks a member: what the team was asked, and what others have said.

    Args:
        member: the member.
        mode: the team's mode.
        names: the names of the members by those of their tools.
        shared: whether it sees the whole conversation.
    """
    runnable, name = member.runnable, member.name
    given = conversation if shared else _asked
    prompt = conversation if shared else _prompt
    alone = mode == "broadcast" or (mode == "sequential" and next(iter(names.values())) == name)

    async def ask(context: RunContext[Any], _: Any) -> Any:
        said = () if alone else await _said_before(context, mode, names)
        try:
            if said:
                return await delegate(runnable, name, lambda: [*given(context), *said])
            return await delegate(runnable, name, lambda: prompt(context))
        except LimitError as error:
            if context.budget is not None and context.budget.is_at(error):  # it holds for the team too
                # A copy: the error's traceback would keep the run and its agents.
                course_of(context).stopped = LimitError(
                    str(error), limit=error.limit, allowed=error.allowed, used=error.used
                )
            raise

    return delegation_of(driven(member.runnable), _calling, ask, member.tool, member.described)


def judging(leader: Agent[Any, Any], names: dict[str, str]) -> Tool[..., Any]:
    """Make the tool with which a rule asks the leader whether the members agree."""
    judge = Agent(leader.model, _JUDGE, name="judge", output=Verdict, settings=leader.settings)

    async def ask(context: RunContext[Any], _: Any) -> Any:
        said = await _said_before(context, "consensus", names)
        return await delegate(judge, judge.name, lambda: [*_asked(context), *said])

    return delegation_of(judge, _calling, ask, JUDGE, "Tells whether the members agree.")


def planned(member: Member, plan: Toolkit, *, shared: bool) -> Tool[..., Any]:
    """Make the tool with which a leader asks a member to do an item of the plan.

    Args:
        member: the member; it sees the plan, and where it is an agent it can change its items.
        plan: the toolkit of the plan.
        shared: whether it sees the whole conversation.
    """
    runnable, name = _with_plan(member.runnable, plan), member.name
    tools: Any = plan.tools
    update: Any = next(one for one in tools if one.name == "update_plan_item")

    async def ask(context: RunContext[Any], arguments: Any) -> Any:
        number: int | None = arguments.item
        if number is not None and not _is_at_work(context, plan, number, name):
            await update(context, number, "doing", None, name)

        def prompt() -> Any:
            plan_now = plan_of(context.session, plan.name)
            words = arguments.prompt if plan_now is None else f"{arguments.prompt}\n\n{plan_now}"
            if number is not None:
                words += f"\n\nYours is item {number}."
            return [*conversation(context), Message.user(words)] if shared else words

        try:
            answer = await delegate(runnable, name, prompt)
        except CallPaused:
            raise
        except Exception as error:
            if number is not None and _is_at_work(context, plan, number, name):
                await update(context, number, "open", f"{name} failed: {error}", "")
            raise
        if number is not None and _is_at_work(context, plan, number, name):
            await update(context, number, "done", None, None)
        return answer

    return delegation_of(driven(member.runnable), _planning, ask, member.tool, member.described)


def _with_plan(runnable: Runnable, plan: Toolkit) -> Runnable:
    """Let an agent see the plan and change its items, unless it has a toolkit of that name already."""
    if not isinstance(runnable, Agent):
        return runnable
    agent = cast("Agent[Any, Any]", runnable)
    tools: Any = agent.tools
    if callable(tools) or any(isinstance(one, Toolkit) and one.name == plan.name for one in tools):
        return agent
    return agent.replace(tools=(*tools, plan.replace(include=("view_plan", "update_plan_item"))))


def _is_at_work(context: RunContext[Any], plan: Toolkit, number: int, name: str) -> bool:
    kept = plan_of(context.session, plan.name)
    return kept is not None and any(
        item.id == number and item.status == "doing" and item.assignee == name for item in kept.items
    )


def _asked(context: RunContext[Any]) -> list[Message]:
    return course_of(context).asked


def _prompt(context: RunContext[Any]) -> str | list[Message]:
    return course_of(context).prompt


async def _said_before(context: RunContext[Any], mode: str, names: dict[str, str]) -> Sequence[Message]:
    """Give what a member is told of the others: by the one before it, or by all in the round before."""
    rounds = reversed(await rounds_of(context))
    last = next((one for one in rounds if one.is_over and one.result(JUDGE) is None), None)
    if last is None:
        return ()
    said = [
        (names[tool], result.text)
        for tool in last.calls
        if tool in names and (result := last.result(tool)) is not None and result.outcome == "ok"
    ]
    if mode == "sequential":
        return [Message.user(f"{name} said before you:\n\n{text}") for name, text in said]
    heard = "\n\n".join(f"## {name}\n\n{text}" for name, text in said)
    return (
        Message.user(f"What was answered so far:\n\n{heard}\n\nWeigh it, then give your own answer, whole."),
    )


@tool(name="ask", timeout=None)
async def _asking(prompt: Annotated[str, "What it is to do, and what it needs to know for that."]) -> None:
    """The pattern of a tool that asks a member."""


@tool(name="call", timeout=None)
async def _calling() -> None:
    """The pattern of a tool that asks a member what the team was asked."""


@tool(name="plan", timeout=None)
async def _planning(
    prompt: Annotated[str, "What it is to do, and what it needs to know for that; it sees the plan."],
    item: Annotated[
        int | None,
        "The number of the item of the plan that this does; it is marked as being done, then as done.",
    ] = None,
) -> None:
    """The pattern of a tool that asks a member to do an item of the plan."""


_JUDGE = (
    "Several people answered the same question. Tell whether their answers agree in substance: wording, detail and order "
    "do not matter, a different claim, choice or number does."
)
