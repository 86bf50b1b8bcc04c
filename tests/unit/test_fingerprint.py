"""The fingerprint of an agent: the same in every process, another one as soon as its runs would go another way."""

import gc
import logging
import os
import subprocess
import sys
import weakref

import msgspec
import pytest

from gossamer import Agent, Approve, Limits, Session, ToolCall, tool
from gossamer.fingerprint import changes, fingerprint
from gossamer.flow import handoff
from gossamer.models import OpenAIChat, ScriptedModel
from gossamer.models.base import ModelSettings
from gossamer.schema import HostedTool
from gossamer.stores import SQLiteStore
from gossamer.tools import Toolkit


class Quote(msgspec.Struct):
    amount: float


class Price(msgspec.Struct):
    amount: int


@tool(inline=True)
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool(inline=True)
def subtract(a: int, b: int) -> int:
    """Subtract."""
    return a - b


@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def say(context: object) -> str:
    return "Be brief."


def give_tools(context: object) -> list:
    return [add]


CLERK = Agent("offline", "Be brief.", name="clerk", tools=[add], output=Quote)


def test_what_is_in_it() -> None:
    other = {
        "name": CLERK.replace(name="boss"),
        "model": CLERK.replace(model="openai:gpt-5-mini"),
        "instructions": CLERK.replace(instructions="Be long."),
        "tools": CLERK.replace(tools=[add.replace(description="Add two numbers.")]),
        "output": CLERK.replace(output=Price),
    }
    for part, agent in other.items():
        assert changes(fingerprint(CLERK), fingerprint(agent)) == (part,)
    assert len(fingerprint(CLERK)) < 40


def test_what_is_not_in_it() -> None:
    for agent in (
        CLERK.replace(),
        CLERK.replace(limits=Limits(max_turns=3), settings=ModelSettings(temperature=0.5)),
        CLERK.replace(tools=[add.replace(timeout=3.0)]),
    ):
        assert fingerprint(agent) == fingerprint(CLERK)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([add], [add, subtract]),
        ([Toolkit("sums", [add])], [Toolkit("sums", [subtract])]),
        ([Toolkit("sums", [add])], [Toolkit("totals", [add])]),
        ([Toolkit("sums", [add, subtract])], [Toolkit("sums", [add, subtract], exclude=["add"])]),
        ([Toolkit("sums", [add], instructions="Add it.")], [Toolkit("sums", [add])]),
        ([HostedTool("web_search")], [HostedTool("web_search", {"max_uses": 3})]),
        ([CLERK.as_tool("ask", "Asks.")], [CLERK.replace(tools=[subtract]).as_tool("ask", "Asks.")]),
        ([handoff(CLERK, "Sums.")], [handoff(CLERK.replace(name="boss"), "Sums.")]),
        ([add], give_tools),
    ],
)
def test_tools_that_differ(one: list, other: list) -> None:
    marks = [fingerprint(Agent("offline", tools=tools)) for tools in (one, other)]
    assert changes(*marks) == ("tools",)


def test_tools_that_do_not() -> None:
    assert fingerprint(Agent("offline", tools=[add, subtract])) == fingerprint(
        Agent("offline", tools=[subtract, add])
    )
    # The agent to whom it hands over may hand back; who that is counts, and not what it is like.
    assert fingerprint(Agent("offline", tools=[handoff(CLERK, "Sums.")])) == fingerprint(
        Agent("offline", tools=[handoff(CLERK.replace(instructions="Be long."), "Sums.")])
    )


def test_models_and_instructions() -> None:
    mini = OpenAIChat("gpt-5-mini", base_url="http://one.test/v1", api_key="a")
    same = OpenAIChat("gpt-5-mini", base_url="http://two.test/v1", api_key="b")
    assert fingerprint(Agent(mini)) == fingerprint(Agent(same))
    assert changes(
        fingerprint(Agent(mini)),
        fingerprint(Agent(OpenAIChat("gpt-5", base_url="http://one.test/v1", api_key="a"))),
    ) == ("model",)
    assert fingerprint(Agent("offline", say)) != fingerprint(Agent("offline", "say"))
    assert fingerprint(Agent("offline", "half \ud800")) != fingerprint(Agent("offline", "half "))


def test_it_is_the_same_in_every_process() -> None:
    program = (
        "import msgspec\nfrom gossamer import Agent, tool\nfrom gossamer.fingerprint import fingerprint\n"
        "class Quote(msgspec.Struct):\n    amount: float | None\n    kind: set[str]\n"
        "@tool\ndef f(x: int | str | None = None) -> str: ...\n"
        "print(fingerprint(Agent('offline', 'Be brief.', tools=[f], output=Quote)))"
    )
    marks = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(marks) == 1


def test_it_keeps_no_agent_alive() -> None:
    agent = Agent("offline", tools=[Agent("offline", name="inner").as_tool("ask", "Asks.")])
    fingerprint(agent)
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None


async def test_a_run_in_a_store_has_one() -> None:
    async with SQLiteStore(":memory:") as store:
        agent = Agent(ScriptedModel([ToolCall.of("pay", amount=1), "Done."]), tools=[pay])
        kept, free = Session("s", store=store), Session()
        for session in (kept, free):
            await agent.replace(model=ScriptedModel([ToolCall.of("pay", amount=1), "Done."])).run(
                "pay", session=session
            )
        assert kept.unfinished is not None
        assert kept.unfinished.fingerprint == fingerprint(agent)
        assert free.unfinished is not None
        assert free.unfinished.fingerprint == ""
        (info,) = await store.list_sessions()
        assert info.fingerprint == fingerprint(agent)


@pytest.mark.parametrize("changed", [False, True])
async def test_an_agent_that_has_changed_goes_on_and_the_log_tells(
    caplog: pytest.LogCaptureFixture, changed: bool
) -> None:
    async with SQLiteStore(":memory:") as store:
        agent = Agent(ScriptedModel([ToolCall.of("pay", amount=1), "Done."]), tools=[pay])
        session = Session("s", store=store)
        result = await agent.run("pay", session=session)
        now = agent.replace(instructions="Be brief.", tools=[pay, add]) if changed else agent
        with caplog.at_level(logging.WARNING, "gossamer"):
            done = await now.resume(session, {result.pending[0].call_id: Approve()})
        assert done.output == "Done."
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == changed
        if changed:
            assert "instructions, tools" in told[0]
            assert "session s: agent 'agent'" in told[0]


def test_a_fingerprint_of_another_version() -> None:
    assert changes("abc", fingerprint(CLERK)) == ("form of the fingerprint",)
