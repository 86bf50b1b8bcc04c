"""How a team goes on where no model directs it: who is called next, what each is asked, and when there is an answer.

A director is middleware around the team's model. It answers the loop's request itself, with the calls that are due or
with the team's answer, as long as no words of the leader are wanted. All it knows it reads from the records of the
run, so that a pause, a crash and a resume need nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, MemberError, NoConsensusError
from gossamer.flow.course import Round, course_of, rounds_of
from gossamer.ids import new_id
from gossamer.messages import Message, Text, ToolCall, ToolResult
from gossamer.middleware import CallModel, Middleware
from gossamer.models.base import ModelRequest, ModelResponse
from gossamer.usage import UNASKED

__all__ = ["JUDGE", "Director", "Due", "OneMember", "broadcast", "consensus", "sequential"]

# The tool with which the leader of a team that seeks consensus tells whether there is one.
JUDGE = "judge_answers"

# What is due: tools to be called at once, by name; or the team's answer.
Due: TypeAlias = Sequence[str] | str


class Director(Middleware):
    """Directs the members of a team by a rule.

    Args:
        rule: tells what is due, given how far the run has come.
        led: whether the leader writes the answer, from what the members said.
    """

    def __init__(self, rule: Callable[[Sequence[Round]], Due], *, led: bool) -> None:
        self._rule = rule
        self._led = led

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002
        """Answer with what is due; only the leader's own words are asked for."""
        course = course_of(context, anew=True)
        if not course.asked:
            raise ArgumentError(
                f"team {context.agent!r} needs a prompt: its members are asked what it is asked"
            )
        if course.stopped is not None:
            raise course.stopped
        due = self._rule(await rounds_of(context))
        if isinstance(due, str):
            if self._led:
                return await next(msgspec.structs.replace(request, tool_choice="none"))
            return ModelResponse(Message("assistant", (Text(due),)), UNASKED)
        calls = tuple(ToolCall(name, "{}", new_id()) for name in due)
        return ModelResponse(Message("assistant", calls), UNASKED, "tool_calls")


class OneMember(Middleware):
    """Keeps the leader of a routing team to one member: of several that it calls at once only the first is asked.

    Args:
        members: the names of the members' tools.
    """

    def __init__(self, members: Sequence[str]) -> None:
        self._members = frozenset(members)

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002, ARG002
        """Leave out the calls of members behind the first one."""
        response = await next(request)
        chosen = [call for call in response.message.tool_calls if call.name in self._members]
        if len(chosen) < 2:
            return response
        parts = tuple(part for part in response.message.parts if not any(part is call for call in chosen[1:]))
        return msgspec.structs.replace(
            response, message=msgspec.structs.replace(response.message, parts=parts)
        )


def broadcast(team: str, members: Mapping[str, str]) -> Callable[[Sequence[Round]], Due]:
    """Make the rule of a team whose members are all asked at once.

    Args:
        team: its name.
        members: the names of its members by those of their tools.

    Returns:
        The rule; it raises `MemberError` where no member answered.
    """

    def rule(rounds: Sequence[Round]) -> Due:
        if not rounds:
            return tuple(members)
        last = rounds[-1]
        answers = _answers(last, members)
        if not answers:
            raise _failed(team, last, members)
        sections = [
            f"## {name}\n\n{answers.get(name) or _failure(last.result(tool))}"
            for tool, name in members.items()
        ]
        return "\n\n".join(sections)

    return rule


def sequential(team: str, members: Mapping[str, str]) -> Callable[[Sequence[Round]], Due]:
    """Make the rule of a team whose members are asked one after another; arguments as for `broadcast`.

    Returns:
        The rule; it raises `MemberError` where a member failed.
    """
    tools = tuple(members)

    def rule(rounds: Sequence[Round]) -> Due:
        done = len(rounds)
        if done:
            last = rounds[-1]
            answers = _answers(last, members)
            if not answers:
                raise _failed(team, last, members)
            if done >= len(tools):
                return answers[members[tools[-1]]]
        return tools[done : done + 1]

    return rule


def consensus(
    team: str, members: Mapping[str, str], most: int, *, judged: bool
) -> Callable[[Sequence[Round]], Due]:
    """Make the rule of a team whose members are asked until they agree.

    They agree where more than half of them answered, and all that did said the same, but for case, space and a full
    stop; or where the judge says so.

    Args:
        team: its name.
        members: see `broadcast`.
        most: how often each is asked at most.
        judged: whether the leader tells if they agree.

    Returns:
        The rule; it raises `NoConsensusError` after the last round, and `MemberError` where half of them failed.
    """

    def rule(rounds: Sequence[Round]) -> Due:
        if not rounds:
            return tuple(members)
        last = rounds[-1]
        verdict = last.result(JUDGE)
        said = rounds[-2] if verdict is not None else last
        answers = _answers(said, members)
        if 2 * len(answers) <= len(members):
            raise _failed(team, said, members)
        if judged and verdict is None:
            return (JUDGE,)
        if verdict is not None and verdict.outcome != "ok":
            raise MemberError(f"the judge of team {team!r} failed: {verdict.text}", team=team, member=JUDGE)
        agreed = (
            _agrees(verdict)
            if verdict is not None
            else len({_position(one) for one in answers.values()}) == 1
        )
        if agreed:
            return next(iter(answers.values()))
        asked = sum(one.result(JUDGE) is None for one in rounds)
        if asked >= most:
            raise NoConsensusError(
                f"the members of team {team!r} did not agree in {most} rounds; see the error's answers, "
                "raise max_rounds, or let a leader judge",
                answers=answers,
            )
        return tuple(members)

    return rule


def _answers(last: Round, members: Mapping[str, str]) -> dict[str, str]:
    """Give what the members said in a round, by name, those that failed left out."""
    found = ((members[tool], last.result(tool)) for tool in last.calls if tool in members)
    return {name: result.text for name, result in found if result is not None and result.outcome == "ok"}


def _failure(result: ToolResult | None) -> str:
    return f"(No answer: {'it was not asked' if result is None else result.text})"


def _failed(team: str, last: Round, members: Mapping[str, str]) -> MemberError:
    tool, result = next(
        (name, result)
        for name in last.calls
        if (result := last.result(name)) is not None and result.outcome != "ok"
    )
    member = members[tool]
    return MemberError(
        f"member {member!r} of team {team!r} gave no answer: {result.text}", team=team, member=member
    )


def _position(text: str) -> str:
    """Reduce an answer to what it says: equal JSON is equal, and so are words but for case, space and a full stop."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted").decode()
    except msgspec.DecodeError:
        return " ".join(text.casefold().split()).rstrip(".! ")


def _agrees(verdict: ToolResult) -> bool:
    return bool(msgspec.json.decode(verdict.text)["agreed"])
