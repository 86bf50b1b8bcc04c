"""What does a run cost on a model in the same process, whose answers lie ready?"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from benchmarks.floors import REPLY, FloorModel, floor_run, floor_tool_run
from benchmarks.measure import Row, cpu_of_awaits, figures, publish, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Session, Tool, tool
from gossamer.telemetry import disable_metrics, enable_metrics

CALLS: list[tuple[int, int]] = []
WINDOW = 100


@tool(inline=True)
def add_inline(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    CALLS.append((a, b))
    return a + b


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    CALLS.append((a, b))
    return a + b


@tool
def add_in_thread(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    CALLS.append((a, b))
    return a + b


class Numbers(msgspec.Struct):
    """The arguments of the floor's tool."""

    a: int
    b: int


async def floor_add(numbers: Numbers) -> int:
    """The floor's tool, async."""
    CALLS.append((numbers.a, numbers.b))
    return numbers.a + numbers.b


async def floor_add_in_thread(numbers: Numbers) -> int:
    """The floor's tool, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, _add, numbers)


def _add(numbers: Numbers) -> int:
    CALLS.append((numbers.a, numbers.b))
    return numbers.a + numbers.b


async def checked(run: Any) -> Any:
    """Run a tool case once and look whether the tool was really called."""
    CALLS.clear()
    result = await run()
    assert result.output == REPLY
    assert CALLS == [(2, 3)]
    assert result.usage.tool_calls == 1
    assert result.usage.model_calls == 2
    return run


async def full_session() -> Any:
    """A run in a session whose window is full: each run lets the oldest messages go now and then."""
    agent, session = Agent(PrebuiltModel()), Session(window=WINDOW)
    for _ in range(WINDOW):
        await agent.run("hello", session=session)
    assert WINDOW * 3 / 4 <= len(session.messages) <= WINDOW + 2
    return functools.partial(agent.run, "hello", session=session)


async def measured() -> dict[str, float]:
    agent = Agent(PrebuiltModel())
    result = await agent.run("hello")
    assert result.output == REPLY
    assert result.usage.input_tokens == 10
    decode = msgspec.json.Decoder(Numbers).decode
    model = PrebuiltModel()

    async def fresh() -> Any:
        return await Agent(model).run("hello")

    async def tool_case(one: Tool) -> Any:
        return await checked(functools.partial(Agent(PrebuiltModel(one.name), tools=[one]).run, "hello"))

    async def tool_floor(function: Any) -> Any:
        floor_model, tools = FloorModel("add"), {"add": (decode, function)}
        return await checked(functools.partial(floor_tool_run, floor_model, "hello", tools))

    cases = {
        "simple": functools.partial(agent.run, "hello"),
        "simple floor": functools.partial(floor_run, FloorModel(), "hello"),
        "fresh": fresh,
        "inline": await tool_case(add_inline),
        "async": await tool_case(add),
        "tool floor": await tool_floor(floor_add),
        "thread": await tool_case(add_in_thread),
        "thread floor": await tool_floor(floor_add_in_thread),
        "full": await full_session(),
    }
    cpu = await cpu_of_awaits(cases)
    recorder = enable_metrics(CollectorRegistry())
    observed = {"simple metrics": cases["simple"], "inline metrics": cases["inline"]}
    cpu |= await cpu_of_awaits(observed)
    counted = recorder.registry.get_sample_value(
        "gossamer_agent_run_duration_seconds_count", {"agent": "agent", "outcome": "stop"}
    )
    assert counted, "the metrics saw no run"
    disable_metrics()
    return cpu


def against(name: str, ours: float, rivals: dict[str, float | str]) -> Row:
    """The row that compares with the rivals of this run."""
    ratios = {
        rival: value if isinstance(value, str) else round(value / ours, 1) for rival, value in rivals.items()
    }
    least = min(figures(ratios), default=0.0)
    return Row(name, "x", least, None, ratios, "≥ 50x less than every rival", least >= 50 if least else None)


def main() -> None:
    cpu = run_loop(measured())
    simple, one_tool = rival_row("run"), rival_row("run_tool")
    simple_target, tool_target = "≤ 1.5 µs, ≤ 2x the floor", "≤ 3 µs"
    floor, tool_floor = cpu["simple floor"], cpu["tool floor"]
    publish(
        "run",
        [
            Row("simple run", "µs", cpu["simple"], floor, simple, simple_target, cpu["simple"] <= 2 * floor),
            against("simple run: the best rival costs", cpu["simple"], simple),
            Row("build an agent and run it once", "µs", cpu["fresh"], floor),
            Row(
                "simple run, metrics on",
                "µs",
                cpu["simple metrics"],
                floor,
                {},
                "≤ 5 µs",
                cpu["simple metrics"] <= 5,
            ),
            Row(
                "run with one inline tool",
                "µs",
                cpu["inline"],
                tool_floor,
                {},
                tool_target,
                cpu["inline"] <= 3,
            ),
            Row(
                "run with one async tool",
                "µs",
                cpu["async"],
                tool_floor,
                one_tool,
                tool_target,
                cpu["async"] <= 3,
            ),
            against("run with one async tool: the best rival costs", cpu["async"], one_tool),
            Row("run with one inline tool, metrics on", "µs", cpu["inline metrics"], tool_floor),
            Row(
                "run with one tool in a thread",
                "µs",
                cpu["thread"],
                cpu["thread floor"],
                {},
                "≤ 40 µs",
                cpu["thread"] <= 40,
            ),
            Row(f"run in a session whose window of {WINDOW} is full", "µs", cpu["full"], floor),
        ],
    )


if __name__ == "__main__":
    main()
