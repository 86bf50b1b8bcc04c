"""`gossamer resume` of agents whose tools want `deps`, which no store keeps."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pytest
from tests.integration.test_cli import COMMAND, assert_one_line, call, environment
from tests.integration.test_cli_resume_store import ran, statuses

URL = "sqlite:///chats.db"

APP = '''
import asyncio, os, sys
from pathlib import Path
from typing import Any
from gossamer import Agent, RunContext, Session, ToolCall, tool
from gossamer.models import ScriptedModel

class Shop:
    def __init__(self, name):
        self.name = name

async def hang():
    if os.environ.get("STUCK"):
        print("stuck", flush=True)
        await asyncio.sleep(3600)

def told(deps):
    return deps.name if isinstance(deps, Shop) else repr(deps)

@tool(idempotent=True)
async def bare(context: RunContext) -> str:
    """Look."""
    await hang()
    return told(context.deps)

@tool(idempotent=True)
async def typed(context: RunContext[Shop]) -> str:
    """Look."""
    return told(context.deps)

@tool(idempotent=True)
async def perhaps(context: RunContext[Shop | None]) -> str:
    """Look."""
    return told(context.deps)

@tool(idempotent=True)
async def anything(context: RunContext[Any]) -> str:
    """Look."""
    return told(context.deps)

def greet(context: RunContext[dict[str, Any]]) -> str:
    return "Be brief."

def reply(request):
    last = request.messages[-1]
    return "saw " + last.parts[0].text if last.role == "tool" else ToolCall("bare", "{}", id="call-1")

model = ScriptedModel(reply)
agents = [
    Agent(model, name="plain", tools=[bare, perhaps, anything]),
    Agent(model, name="wants", tools=[bare, typed]),
    Agent(model, greet, name="greets", tools=[bare]),
]
agents.append(Agent(model, name="asks", tools=[bare, agents[1].as_tool("ask", "Ask.")]))
by_name = {one.name: one for one in agents}

def make_deps():
    with (Path(__file__).parent / "ran").open("a") as file:
        file.write("made\\n")
    return Shop("tea shop")

async def make_later():
    await asyncio.sleep(0)
    return Shop("late shop")

def make_some(count): ...

def wait_and_make():
    print("listed", flush=True)
    sys.stdin.readline()

shop = Shop("constant")

async def main(who, *sessions):
    async def one(name):
        await by_name[who].run("x", session=Session(name, store="sqlite:///chats.db"), deps=Shop("first shop"))
    await asyncio.gather(*map(one, sessions))

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
'''


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@contextmanager
def stuck(app, command, count):
    """Let a process run until so many of its runs hang in a tool; it is killed at the end of the block."""
    with subprocess.Popen(
        command, cwd=app, env=environment(STUCK="1", PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            while count:
                line = process.stdout.readline()
                assert line, f"the process ended: {process.wait()}"
                count -= line == "stuck\n"
            yield
        finally:
            process.kill()


def killed(app, who, *sessions):
    with stuck(app, [sys.executable, "app.py", who, *sessions], len(sessions)):
        pass


def resume(app, *options, target="app.py:agents"):
    return call("resume", target, URL, *options, cwd=app)


NOTE = "[no deps are given: in these runs context.deps is None; see --deps]"


def test_runs_without_deps_are_told_of_first(app):
    killed(app, "plain", "a")
    did = resume(app)
    assert did.returncode == 0
    assert did.stdout.index(NOTE) < did.stdout.index("a has ended: saw None")


@pytest.mark.parametrize(
    ("who", "wanted"),
    [
        ("wants", "tool typed of wants wants RunContext[app.Shop]"),
        ("greets", "what gives the instructions of greets wants RunContext[dict[str, typing.Any]]"),
        ("asks", "tool typed of wants wants RunContext[app.Shop]"),
    ],
)
def test_who_says_that_it_wants_deps_is_left_alone_without(app, who, wanted):
    killed(app, who, "a")
    did = resume(app)
    assert did.returncode == 1
    assert f"of {who} is left alone: {wanted}; say --deps app.py:make_deps, or --without-deps\n" in did.stdout
    assert "[0 of 1 went on to their end, 1 left alone]" in did.stdout
    assert NOTE not in did.stdout
    assert statuses(app) == {"a": "broken"}
    did = resume(app, "--without-deps")
    assert did.returncode == 0
    assert "a has ended: saw None" in did.stdout
    assert NOTE not in did.stdout


@pytest.mark.parametrize("target", ["app.py:agents", "app:agents"])
def test_a_function_gives_the_deps_once(app, target):
    killed(app, "wants", "a", "b")
    assert resume(app, "--deps", "app.py:make_deps", "--dry-run", target=target).returncode == 0
    assert ran(app) == []
    did = resume(app, "--deps", "app.py:make_deps", target=target)
    assert did.returncode == 0, did.stdout + did.stderr
    # They are of the class that the tools know: the file was imported once.
    assert "a has ended: saw tea shop" in did.stdout
    assert "b has ended: saw tea shop" in did.stdout
    assert NOTE not in did.stdout
    assert ran(app) == ["made"]


def test_an_async_function_gives_the_deps(app):
    killed(app, "plain", "a")
    assert "a has ended: saw late shop" in resume(app, "--deps", "app:make_later").stdout


def test_what_gives_no_deps(app):
    killed(app, "plain", "a")
    assert_one_line(resume(app, "--deps", "app.py:shop"), 2, "'app.py:shop' is of type Shop")
    assert_one_line(resume(app, "--deps", "app.py:nothing"), 2, "no such name")
    assert_one_line(resume(app, "--deps", "make_deps"), 2, "app.py:make_deps")
    assert_one_line(resume(app, "--deps", "app.py:make_deps", "--without-deps"), 2, "not both")
    assert_one_line(resume(app, "--deps", "app.py:make_some"), 2, "called without arguments", "'count'")
    assert statuses(app) == {"a": "broken"}


def test_what_another_process_took_meanwhile_did_not_go_on_here(app):
    killed(app, "plain", "a", "b", "c")
    command = [COMMAND, "resume", "app.py:agents", URL]
    with subprocess.Popen(
        [*command, "--deps", "app.py:wait_and_make"],
        cwd=app,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as second:
        while (line := second.stdout.readline()) != "listed\n":
            assert line
        with stuck(app, command, 3):
            said, _ = second.communicate("\n", timeout=60)
            assert second.returncode == 0
            for name in "abc":
                assert f"{name} is held by another process meanwhile, and is left alone\n" in said
            assert "[0 of 3 went on to their end, 3 left alone]" in said
