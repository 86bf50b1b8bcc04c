"""`gossamer resume`, after processes that were killed: what is stored goes on, and nothing starts twice."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from tests.integration.terminal import terminal
from tests.integration.test_cli import COMMAND, assert_one_line, call, environment

APP = '''
import asyncio, os, sys
from pathlib import Path
from gossamer import Agent, Limits, RunContext, Session, ToolCall, tool
from gossamer.flow import handoff
from gossamer.models import ScriptedModel

HERE = Path(__file__).parent
STUCK = os.environ.get("STUCK", "")

def note(word):
    with (HERE / "ran").open("a") as file:
        file.write(word + "\\n")

async def hang(word):
    note(word)
    if STUCK == word:
        print("stuck", flush=True)
        await asyncio.sleep(3600)

@tool
async def charge() -> str:
    """Charge."""
    await hang("charge")
    return "charged"

@tool(idempotent=True)
async def look(context: RunContext) -> str:
    """Look."""
    await hang("look")
    await asyncio.sleep(3600 if STUCK else 0.02)  # a process that is to be killed must not finish it before
    note(f"looked:{context.user}")
    return "looked"

@tool(needs_approval=True)
def pay() -> str:
    """Pay."""
    return "paid"

def reply(request):
    last = request.messages[-1]
    if last.role == "tool":
        if os.environ.get("TROUBLE") and "angry" in request.messages[-3].text:
            raise RuntimeError("no more")
        return " ".join(f"{part.name}:{part.outcome}" for part in last.parts)
    if "pay" in last.text:
        return [ToolCall("pay", id="call-pay")]
    return [ToolCall("charge", id="call-charge"), ToolCall("look", id="call-look")]

clerk = Agent(ScriptedModel(reply), os.environ.get("WORDS", "Be brief."), name="clerk", tools=[charge, look, pay])
boss = clerk.replace(name="boss", tools=[charge, look])
billing = clerk.replace(name="billing")
desk = Agent(
    ScriptedModel([ToolCall.of("hand_over_to_billing"), "Hello."]), name="desk", tools=[handoff(billing, "Money.")]
)
agents = [clerk, boss]
named = {"one": clerk, "two": boss}
strict = clerk.replace(limits=Limits(max_turns=1))
twins = [clerk, clerk.replace()]
nothing = [clerk, "boss"]

def give():
    return (clerk, boss)

async def give_later():
    return clerk

def give_some(count):
    return [clerk] * count

async def main(url, who, *sessions):
    agent = globals()[who]
    async def one(name):
        await agent.run("Please do it, " + name, session=Session(name, store=url), user="ada")
    await asyncio.gather(*map(one, sessions))

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
'''


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@contextmanager
def hanging(app, who, *sessions, tool="charge"):
    """Let a process run an agent in sessions, until each hangs in a tool."""
    with subprocess.Popen(
        [sys.executable, "app.py", "sqlite:///chats.db", who, *sessions],
        cwd=app,
        env=environment(STUCK=tool),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for _ in sessions:
                assert process.stdout.readline() == "stuck\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def killed(app, who, *sessions, tool="charge"):
    with hanging(app, who, *sessions, tool=tool) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (app / "ran").unlink()


def resume(app, target="app.py:agents", *options, **variables):
    return call("resume", target, "--store", "sqlite:///chats.db", *options, cwd=app, **variables)


def statuses(app):
    ran = call("sessions", "sqlite:///chats.db", "--json", cwd=app)
    return {info["id"]: info["status"] for info in map(json.loads, ran.stdout.splitlines())}


def ran(app):
    return sorted((app / "ran").read_text().split()) if (app / "ran").exists() else []


def test_runs_of_a_killed_process_go_on(app):
    killed(app, "clerk", "a", "b")
    killed(app, "boss", "c", tool="look")
    assert statuses(app) == {"a": "broken", "b": "broken", "c": "broken"}
    did = resume(app)
    assert did.returncode == 0, did.stdout + did.stderr
    assert did.stderr == ""
    assert statuses(app) == {"a": "idle", "b": "idle", "c": "idle"}
    # charge had begun everywhere: it never starts again; look is idempotent.
    assert ran(app) == ["look"] * 3 + ["looked:ada"] * 3
    for name, outcome in {"a": "unknown", "b": "unknown"}.items():
        assert f"{name} has ended: charge:{outcome} look:ok" in did.stdout
    assert re.search(r"^c: run \S+ of boss is to go on", did.stdout, re.MULTILINE)
    assert "[3 of 3 went on to their end]" in did.stdout
    shown = call("sessions", "show", "a", "--store", "sqlite:///chats.db", cwd=app).stdout
    assert "← charge (unknown): " in shown
    assert "assistant: charge:unknown look:ok" in shown
    assert "[no run broke off]" in resume(app).stdout


def test_on_a_terminal_there_is_a_bar_below_the_lines(app):
    killed(app, "clerk", "a", "b", "c")
    with terminal("app.py:agents", "sqlite:///chats.db", command="resume", cwd=app) as shown:
        for name in statuses(app):
            assert name in "abc"
        assert shown.ends() == 0
    assert shown.seen.count(b" has ended: charge:unknown look:ok") == 3
    assert b"resuming" in shown.seen


def test_a_dry_run_shows_and_does_nothing(app):
    killed(app, "clerk", "a")
    did = resume(app, "app.py:agents", "--dry-run")
    assert did.returncode == 0
    assert "a: run" in did.stdout
    assert "is to go on" in did.stdout
    assert statuses(app) == {"a": "broken"}
    assert ran(app) == []


def test_a_run_of_no_agent_here_is_left_alone(app):
    killed(app, "clerk", "a")
    killed(app, "boss", "b")
    did = resume(app, "app.py:boss")
    assert did.returncode == 1
    assert "of clerk is left alone: there is no agent of that name here; there are: boss\n" in did.stdout
    assert "[1 of 2 went on to their end, 1 left alone]" in did.stdout
    assert statuses(app) == {"a": "broken", "b": "idle"}


def test_an_agent_that_has_changed_is_asked_for(app):
    killed(app, "clerk", "a")
    killed(app, "boss", "b")
    did = resume(app, "app.py:agents", WORDS="Be long.")
    assert did.returncode == 1
    assert did.stdout.count("left alone: its agent has changed: instructions; see --also-changed") == 2
    assert statuses(app) == {"a": "broken", "b": "broken"}
    assert ran(app) == []
    dry = resume(app, "app.py:agents", "--dry-run", WORDS="Be long.")
    assert dry.returncode == 0
    did = resume(app, "app.py:agents", "--also-changed", WORDS="Be long.")
    assert did.returncode == 0, did.stdout
    assert "is to go on, though its agent has changed: instructions" in did.stdout
    assert statuses(app) == {"a": "idle", "b": "idle"}


def test_what_is_paused_or_held_is_left_alone(app):
    call("run", "please pay", "app.py:clerk", "--store", "sqlite:///chats.db", "--session", "waits", cwd=app)
    with hanging(app, "clerk", "lives", tool="look") as process:
        (app / "ran").unlink()
        assert statuses(app) == {"waits": "paused", "lives": "running"}
        did = resume(app)
        assert did.returncode == 0
        assert "waits waits for a decision, and is left alone" in did.stdout
        assert "lives" not in did.stdout
        for name, words in {
            "waits": "waits for a decision, and is left alone",
            "lives": "is held by a process that lives, and is left alone",
        }.items():
            one = resume(app, "app.py:agents", "--session", name)
            assert (one.returncode, one.stdout) == (0, f"{name} {words}\n")
        assert ran(app) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "lives has ended: charge:ok look:ok" in resume(app).stdout
    assert statuses(app) == {"waits": "paused", "lives": "idle"}
    one = resume(app, "app.py:agents", "--session", "lives")
    assert (one.returncode, one.stdout) == (0, "lives has no unfinished run\n")
    assert_one_line(resume(app, "app.py:agents", "--session", "nobody"), 1, "no session 'nobody'")


def test_one_session_of_several(app):
    killed(app, "clerk", "a", "b")
    did = resume(app, "app.py:agents", "--session", "b")
    assert did.returncode == 0
    assert statuses(app) == {"a": "broken", "b": "idle"}


def test_a_run_that_fails_is_told_and_the_others_go_on(app):
    killed(app, "clerk", "a", "angry", "c")
    did = resume(app, TROUBLE="1")
    assert did.returncode == 1
    assert "angry failed: RuntimeError: no more" in did.stdout
    assert "[2 of 3 went on to their end, 1 failed]" in did.stdout
    assert statuses(app) == {"a": "idle", "angry": "idle", "c": "idle"}


def test_a_run_that_its_limit_stops_is_a_failure(app):
    killed(app, "clerk", "a")
    did = resume(app, "app.py:strict")
    assert did.returncode == 1
    assert "a was stopped: " in did.stdout


def test_so_many_go_on_at_once(app):
    names = [f"s{number}" for number in range(6)]
    killed(app, "clerk", *names, tool="charge")
    did = resume(app, "app.py:agents", "--concurrency", "2")
    assert did.returncode == 0
    words = (app / "ran").read_text().split()
    at_once = most = 0
    for word in words:
        at_once += 1 if word == "look" else -1
        most = max(most, at_once)
    assert words.count("looked:ada") == 6
    assert most == 2


def test_a_run_of_an_agent_that_was_handed_to(app):
    """It goes on by way of the agent that hands over."""
    url = "sqlite:///chats.db"
    call("run", "hello", "app.py:desk", "--store", url, "--session", "a", cwd=app)
    # The session remembers who answers: the next run is billing's.
    killed(app, "desk", "a")
    (told,) = map(json.loads, call("sessions", url, "--json", cwd=app).stdout.splitlines())
    assert (told["agent"], told["status"]) == ("billing", "broken")
    did = resume(app, "app.py:desk")
    assert did.returncode == 0, did.stdout
    assert "a has ended: charge:unknown look:ok" in did.stdout


@pytest.mark.parametrize("target", ["app.py:clerk", "app.py:named", "app.py:give", "app:agents"])
def test_agents_by_name(app, target):
    killed(app, "clerk", "a")
    assert resume(app, target).returncode == 0
    assert statuses(app) == {"a": "idle"}


def test_what_is_no_agent(app):
    killed(app, "clerk", "a")
    assert_one_line(
        resume(app, "app.py:nothing"), 2, "one is of type str", "agents in app.py: ", "clerk, boss"
    )
    assert_one_line(resume(app, "app.py:nobody"), 2, "there is no such name")
    assert_one_line(resume(app, "app.py:twins"), 2, "two agents called clerk")
    assert_one_line(resume(app, "app.py:give_later"), 2, "'app.py:give_later' is an async function")
    assert_one_line(resume(app, "app.py:give_some"), 2, "called without arguments", "'count'")
    assert_one_line(resume(app, "app.py:agents", "--concurrency", "0"), 2, "--concurrency")
    assert_one_line(call("resume", "app.py:agents", cwd=app), 2, "GOSSAMER_STORE")
    missing = call("resume", "app.py:agents", "sqlite:///no.db", cwd=app)
    assert_one_line(missing, 2, "no database")
    assert not (app / "no.db").exists()


@pytest.mark.parametrize("target", ["script.py:clerk", "script:clerk"])
def test_a_program_without_a_guard_is_not_run(app, target):
    killed(app, "clerk", "a")
    (app / "script.py").write_text(
        "from app import *\nprint('began')\nasyncio.run(main('memory:', 'clerk', 'a'))\n"
    )
    did = resume(app, target)
    assert_one_line(did, 2, "is imported, and line 3 would call asyncio.run", "if __name__ == '__main__':")
    assert did.stdout == ""
    (app / "script.py").write_text("import sys\nfrom app import *\nsys.exit('usage: script.py URL')\n")
    did = resume(app, target)
    assert_one_line(
        did, 2, "is imported, and called exit('usage: script.py URL')", "if __name__ == '__main__':"
    )
    # What it makes of the value is no program.
    (app / "script.py").write_text(
        "from app import *\nasync def make():\n    return clerk\nmade = asyncio.run(make())\n"
    )
    assert resume(app, target.replace("clerk", "made")).returncode == 0


def test_a_chat_tells_of_a_run_that_lives_elsewhere(app):
    chat = ("chat", "app.py:clerk", "--store", "sqlite:///chats.db", "--session", "lives")
    with hanging(app, "clerk", "lives") as process:
        did = call(*chat, cwd=app)
        assert "[a run is under way in another process; your message waits for its end]" in did.stdout
        assert "process died" not in did.stdout
        process.send_signal(signal.SIGKILL)
        process.wait()
    did = call(*chat, cwd=app)
    assert "under way in another process" not in did.stdout
    assert "where its process died, gossamer resume goes on" in did.stdout


def test_a_missing_key_is_told_before_anything_goes_on(app):
    killed(app, "clerk", "a")
    (app / "later.py").write_text("from app import clerk\nclerk = clerk.replace(model='openai:gpt-5-mini')\n")
    did = resume(app, "later.py:clerk", "--also-changed")
    assert did.returncode != 0
    assert "OPENAI_API_KEY" in did.stderr
    assert statuses(app) == {"a": "broken"}


def test_sessions_that_changed_at_the_same_time_are_all_found(app):
    names = [f"s{number:03}" for number in range(150)]
    killed(app, "clerk", *names)
    with closing(sqlite3.connect(app / "chats.db")) as database:
        database.execute("UPDATE sessions SET updated = round(updated / 1000)")
        database.commit()
    did = resume(app, "app.py:agents", "--dry-run")
    assert did.stdout.count("is to go on") == 150


def test_two_that_resume_at_once_start_nothing_twice(app):
    names = [f"s{number}" for number in range(8)]
    killed(app, "clerk", *names)
    command = [COMMAND, "resume", "app.py:agents", "sqlite:///chats.db"]
    both = [
        subprocess.Popen(command, cwd=app, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], outs
    assert set(statuses(app).values()) == {"idle"}
    assert ran(app) == ["look"] * 8 + ["looked:ada"] * 8
    assert sum(out.count(" has ended: ") for out in outs) == 8
