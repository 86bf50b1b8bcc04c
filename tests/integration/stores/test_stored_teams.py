"""Teams on sessions in a store: what pauses or dies in one process goes on in another."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.integration.stores.dying_teams import team

from gossamer import Agent, Approve, RunContext, Session, Team, ToolCall, plan_of, plan_toolkit, tool
from gossamer.models import ScriptedModel
from gossamer.stores import open_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def url(tmp_path):
    where = f"sqlite:///{tmp_path}/teams.db"
    yield where
    await open_store(where).aclose()


async def loaded(name: str, url: str) -> Session:
    session = Session(name, store=url)
    await session.load()
    return session


@tool(needs_approval=True)
async def pay(context: RunContext, amount: int) -> str:
    """Pay."""
    context.deps.append((context.agent, amount))
    return f"paid {amount}"


def paying_teams() -> Team:
    def paying(name: str, amount: int) -> Agent:
        def reply(request):
            done = any(message.role == "tool" for message in request.messages)
            return f"{name} done" if done else ToolCall.of("pay", amount=amount)

        return Agent(ScriptedModel(reply), name=name, tools=[pay])

    line = Team([paying("a", 1), paying("b", 2)], mode="sequential", name="line")
    return Team([line, paying("c", 3)], mode="broadcast", name="all")


async def test_approvals_of_nested_members_are_decided_in_one_process_after_another(url):
    done: list[tuple[str, int]] = []
    result = await paying_teams().run("x", session=await loaded("s", url), deps=done)
    assert len(result.pending) == 2
    while result.pending:
        session = await loaded("s", url)
        assert session.pending == result.pending
        first = session.pending[0].call_id
        result = await paying_teams().resume(session, {first: Approve()}, deps=done)
    assert sorted(done) == [("a", 1), ("b", 2), ("c", 3)]
    assert result.output == "## line\n\nb done\n\n## c\n\nc done"
    session = await loaded("s", url)
    assert session.unfinished is None
    assert session.usage == result.usage


@pytest.mark.parametrize("deadly", range(8))
async def test_a_team_goes_on_whichever_act_its_process_died_in(url, tmp_path, deadly):
    died = subprocess.run(
        [sys.executable, "-m", "tests.integration.stores.dying_teams", url, str(tmp_path), str(deadly)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    acts = (tmp_path / f"acts-{deadly}").read_text().split()
    assert len(acts) == deadly + 1
    session = await loaded(f"s{deadly}", url)
    assert session.unfinished is not None
    result = await team(acts.append).resume(session)
    assert max(Counter(acts).values()) == 1, "nobody acted twice"
    assert result.output == (
        "## line\n\nb done\n\n## led\n\nled\n\n## e\n\ne done\n\n## flow\n\n"
        '{"g":"g done","h":"## h\\n\\nh done"}'
    )
    assert result.usage.tool_calls == 4 + 2 + 2 + 1 + 8


async def test_a_plan_is_there_in_another_process(url):
    calls = [
        ToolCall.of("create_plan", goal="move", items=["pack", "carry"]),
        ToolCall.of("update_plan_item", item=1, status="done"),
        "so far",
    ]
    agent = Agent(ScriptedModel(calls), tools=[plan_toolkit()])
    await agent.run("plan", session=await loaded("p", url))
    plan = plan_of(await loaded("p", url))
    assert plan is not None
    assert str(plan) == "Plan: move\n[x] 1. pack\n[ ] 2. carry"
