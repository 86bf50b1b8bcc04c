"""What do guardrails, toolkits and approvals add to a run?"""

from __future__ import annotations

import functools
import re
from typing import Any

from benchmarks.floors import REPLY
from benchmarks.measure import Row, cpu_of_awaits, publish, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Session, Tool, Toolkit, tool
from gossamer.guardrails import regex

TOOLS = 100
WINDOW = 20

# What a guardrail of a help desk could look for, and a prompt of a page in which none of it is found.
PATTERNS = (
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"\b(?:password|passphrase|secret key)\s*[:=]",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"(?i)\bignore (?:all )?previous instructions\b",
)
PROMPT = "The parcel with the lamp came on a Tuesday, and the box was open on one side. " * 40

CALLS: list[tuple[int, int]] = []


@tool(inline=True)
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    CALLS.append((a, b))
    return a + b


def is_large(a: int, b: int) -> bool:
    """The policy of the approval: it passes."""
    return a + b > 1_000_000


async def checked(run: Any) -> Any:
    """Run a tool case once and look whether the tool was really called."""
    CALLS.clear()
    result = await run()
    assert result.output == REPLY
    assert CALLS == [(2, 3)]
    return run


async def nothing() -> None:
    """What is beneath everything that is awaited."""


def searching(patterns: list[re.Pattern[str]]) -> Any:
    """The bare searches, in a coroutine as all cases are."""

    async def search() -> None:
        for pattern in patterns:
            assert pattern.search(PROMPT) is None

    return search


async def measured() -> dict[str, float]:
    others: list[Tool[..., Any]] = [add.replace(name=f"other_{number}") for number in range(TOOLS - 1)]
    policy = add.replace(needs_approval=is_large)
    model = PrebuiltModel("add")
    plain, guarded = PrebuiltModel(), regex(*PATTERNS)
    cases = {
        "nothing": nothing,
        "searches": searching([re.compile(pattern) for pattern in PATTERNS]),
        "unguarded": functools.partial(Agent(plain).run, PROMPT),
        "guarded": functools.partial(Agent(plain, guardrails=[guarded]).run, PROMPT),
        "one tool": await checked(functools.partial(Agent(model, tools=[add]).run, "hello")),
        "toolkit": await checked(
            functools.partial(Agent(model, tools=[Toolkit("all", [*others, add])]).run, "hello")
        ),
        "free": await checked(
            functools.partial(Agent(model, tools=[add]).run, "hello", session=Session(window=WINDOW))
        ),
        "approved": await checked(
            functools.partial(Agent(model, tools=[policy]).run, "hello", session=Session(window=WINDOW))
        ),
    }
    assert (await cases["guarded"]()).output == REPLY
    return await cpu_of_awaits(cases)


def main() -> None:
    cpu = run_loop(measured())
    added = cpu["guarded"] - cpu["unguarded"]
    searches = cpu["searches"] - cpu["nothing"]
    approval = cpu["approved"] - cpu["free"]
    publish(
        "trust",
        [
            Row(
                f"regex guardrail of {len(PATTERNS)} patterns on {len(PROMPT):,} characters, beyond the run",
                "µs",
                added,
                searches,
                {},
                "≤ 1.2x the bare searches",
                added <= 1.2 * searches,
            ),
            Row(
                f"run with one inline tool out of a toolkit of {TOOLS}",
                "µs",
                cpu["toolkit"],
                cpu["one tool"],
                {},
                "≤ 1.05x the run with that tool alone",
                cpu["toolkit"] <= 1.05 * cpu["one tool"],
            ),
            Row(
                "an approval that is not needed, by a function of the arguments, beyond the run",
                "µs",
                approval,
                None,
                {},
                "≤ 1 µs",
                approval <= 1,
            ),
        ],
    )


if __name__ == "__main__":
    main()
