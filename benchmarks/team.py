"""What does a team cost beyond its members' runs, and are members that wait really waiting at the same time?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.floors import REPLY
from benchmarks.measure import Row, cpu_of_awaits, figures, publish, quick, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Message, Session, Team, ToolCall
from gossamer.events import InnerEvent, TextDelta
from gossamer.ids import new_id
from gossamer.models import ModelRequest, ModelResponse
from gossamer.usage import Usage

PROMPT = "hello"
WAIT = 0.1
MEMBERS = 4
MANY = 16
CHUNKS = 1_000


class WaitingModel(PrebuiltModel):
    """Answers after a tenth of a second."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Wait, then answer."""
        await asyncio.sleep(WAIT)
        return await super().respond(request)


class LeadingModel(PrebuiltModel):
    """Asks every member in one turn, then answers."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Call all tools where the last word is the user's, else answer."""
        if request.messages[-1].role != "user":
            return self.answer
        calls = [ToolCall(one.name, '{"prompt": "hello"}', new_id()) for one in request.tools]
        return ModelResponse(Message("assistant", tuple(calls)), self.answer.usage, "tool_calls", self.name)


class ChattyModel(PrebuiltModel):
    """Streams a thousand chunks that lie ready."""

    async def stream(self, request: ModelRequest) -> Any:
        """Give the chunks, then the whole."""
        chunk = TextDelta("word ")
        for _ in range(CHUNKS):
            yield chunk
        yield ModelResponse(Message.assistant("word " * CHUNKS), Usage(model_calls=1, unpriced_calls=1))


def members(model: PrebuiltModel, count: int) -> list[Agent]:
    """So many agents on one model."""
    return [Agent(model, name=f"m{number}") for number in range(count)]


async def _fastest(work: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(3 if quick() else 7):
        began = time.perf_counter()
        await work()
        best = min(best, time.perf_counter() - began)
    return best * 1e3


async def waiting() -> Row:
    """Four members that wait 100 ms."""
    agents = members(WaitingModel(), MEMBERS)
    team = Team(agents, mode="broadcast")

    async def by_team() -> None:
        result = await team.run(PROMPT)
        assert result.output.count(REPLY) == MEMBERS
        assert result.usage.model_calls == MEMBERS

    async def by_gather() -> None:
        results = await asyncio.gather(*(one.run(PROMPT) for one in agents))
        assert all(one.output == REPLY for one in results)

    ours, floor = await _fastest(by_team), await _fastest(by_gather)
    rivals = rival_row("team", "waiting_ms", ("agno",))
    return Row(
        f"{MEMBERS} members that wait 100 ms, beside plain gather",
        "ms",
        ours,
        floor,
        rivals,
        "≤ 1.1x the floor",
        ours <= 1.1 * floor,
    )


async def delegating() -> list[Row]:
    """What one delegation costs beyond the members' runs, each in a session of its own and a task of its own."""
    cases: dict[str, Callable[[], Awaitable[Any]]] = {}
    for count in (MEMBERS, MANY):
        agents = members(PrebuiltModel(), count)
        ruled = Team(agents, mode="broadcast")
        led = Team(agents, leader=LeadingModel())
        first, second = await ruled.run(PROMPT), await led.run(PROMPT)
        assert first.output.count(REPLY) == count
        assert (first.usage.tool_calls, second.usage.tool_calls) == (count, count)
        assert (first.usage.model_calls, second.usage.model_calls) == (count, count + 2)
        cases |= {
            f"gather {count}": lambda agents=agents: asyncio.gather(
                *(one.run(PROMPT, session=Session()) for one in agents)
            ),
            f"ruled {count}": lambda team=ruled: team.run(PROMPT),
            f"led {count}": lambda team=led: team.run(PROMPT),
        }
    cost = await cpu_of_awaits(cases)
    rivals = rival_row("team", "value", ("agno",))
    rows: list[Row] = []
    for count in (MEMBERS, MANY):
        for kind, words in (("ruled", "a rule directs"), ("led", "a model directs")):
            more = (cost[f"{kind} {count}"] - cost[f"gather {count}"]) / count
            compared = rivals if (count, kind) == (MEMBERS, "led") else {}
            known = figures(compared)
            rows.append(
                Row(
                    f"a delegation beyond its run, {count} at once, {words}",
                    "µs",
                    more,
                    None,
                    compared,
                    "≤ 10 µs" if count == MANY else ("≥ 50x less than the rival" if compared else ""),
                    more <= 10 if count == MANY else (min(known) >= 50 * more if known else None),
                )
            )
    return rows


async def listening() -> Row:
    """What a chunk costs that comes through a team."""
    alone = Agent(ChattyModel(), name="m0")
    team = Team([alone], mode="broadcast")
    nested = Team([team], mode="broadcast", name="outer")

    def reading(runnable: Any) -> Callable[[], Awaitable[None]]:
        async def read() -> None:
            heard = 0
            async with runnable.stream(PROMPT) as stream:
                async for event in stream:
                    if type(event) is InnerEvent:
                        event = event.event  # noqa: PLW2901 - what it carries
                    heard += type(event) is TextDelta and event.text == "word "
            assert heard == CHUNKS, heard

        return read

    cost = await cpu_of_awaits({"alone": reading(alone), "team": reading(team), "nested": reading(nested)})
    per = {case: value / CHUNKS for case, value in cost.items()}
    print(f"     a chunk: alone {per['alone']:.2f}, one team {per['team']:.2f}, two {per['nested']:.2f} µs")
    return Row(
        "a chunk of a member of a team in a team, beside one of an agent", "µs", per["nested"], per["alone"]
    )


async def measured() -> list[Row]:
    """All rows."""
    return [await waiting(), *await delegating(), await listening()]


def main() -> None:
    publish("team", run_loop(measured()))


if __name__ == "__main__":
    main()
