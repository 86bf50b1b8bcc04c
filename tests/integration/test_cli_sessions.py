"""`gossamer sessions`, and `run` and `chat` with a store, as a user calls them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time

import pytest
from tests.integration.terminal import CTRL_D, terminal
from tests.integration.test_cli import COMMAND, assert_one_line, call, environment

URL = "sqlite:///chats.db"

APP = '''
import os
from gossamer import Agent, Message, Session, ToolCall, tool
from gossamer.messages import Image, Text
from gossamer.models import ScriptedModel

@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"

def reply(request):
    last = request.messages[-1]
    if last.role == "tool":
        return "Done: " + last.parts[0].text
    return [ToolCall("pay", '{"amount":5}', id="call-1")] if "pay" in last.text else "Hello."

agent = Agent(ScriptedModel(reply), name="clerk", tools=[pay])
picture = Message("user", (Text("Look"), Image(b"12345", media_type="image/png")))
'''

FILL = """
import asyncio
from app import *

async def main():
    for number, user in enumerate(["ada", "ada", "bob"]):
        await agent.run(f"Hi number {number}", session=Session(f"s{number}", store="sqlite:///chats.db"), user=user)
    await agent.run(picture, session=Session("s0", store="sqlite:///chats.db"))
    await agent.run("pay\\x1b[31m now", session=Session("s3", store="sqlite:///chats.db"))

asyncio.run(main())
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    (folder / "app.py").write_text(APP)
    subprocess.run([COMMAND.replace("gossamer", "python"), "-c", FILL], cwd=folder, check=True)
    return folder


@pytest.fixture
def filled(filled_once, tmp_path):
    return shutil.copytree(filled_once, tmp_path, dirs_exist_ok=True)


def sessions(app, *arguments, **options):
    return call("sessions", *arguments, cwd=app, GOSSAMER_STORE=URL, **options)


def ids(ran):
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line)["id"] for line in ran.stdout.splitlines() if line.startswith("{")]


# --- list ---------------------------------------------------------------------------------------------------


def test_a_table(filled):
    ran = sessions(filled)
    assert ran.returncode == 0
    header, *rows = [line.split() for line in ran.stdout.splitlines()]
    assert header == ["session", "status", "agent", "user", "messages", "changed", "title"]
    assert [row[0] for row in rows] == ["s3", "s0", "s2", "s1"]
    assert rows[0][1:3] == ["paused", "clerk"]
    assert rows[1][1:5] == ["idle", "clerk", "ada", "4"]
    assert rows[2][-3:] == ["Hi", "number", "2"]
    assert "\x1b" not in ran.stdout


def test_nothing_of_a_long_id_is_cut(app):
    name = "x" * 300
    call("run", "hello", "--store", URL, "--session", name, cwd=app, COLUMNS="40")
    assert name in sessions(app, COLUMNS="40").stdout


def test_filters_and_pages(filled):
    assert ids(sessions(filled, "--json", "--user", "ada")) == ["s0", "s1"]
    assert ids(sessions(filled, "--json", "--status", "paused")) == ["s3"]
    assert ids(sessions(filled, "--json", "--agent", "nobody")) == []
    assert "[no sessions]" in sessions(filled, "--agent", "nobody").stdout
    found, before = [], []
    while True:
        ran = sessions(filled, "--limit", "3", *before)
        lines = ran.stdout.splitlines()
        found += [line.split()[0] for line in lines[1:] if not line.startswith("[")]
        if not lines[-1].startswith("[the next page: "):
            break
        before = lines[-1].removeprefix("[the next page: ").rstrip("]").split()
    assert found == ["s3", "s0", "s2", "s1"]


def test_the_store_by_argument_option_and_variable(filled):
    for ran in (
        call("sessions", URL, "--json", cwd=filled),
        call("sessions", "--store", URL, "--json", cwd=filled),
        call("sessions", "--json", cwd=filled, GOSSAMER_STORE=URL),
    ):
        assert ids(ran) == ["s3", "s0", "s2", "s1"]


def test_the_list_by_its_name(filled):
    for word in ("list", "ls"):
        assert ids(call("sessions", word, URL, "--json", "--user", "ada", cwd=filled)) == ["s0", "s1"]
        assert sessions(filled, word).stdout == sessions(filled).stdout


def test_errors_are_one_line(filled):
    assert_one_line(call("sessions", cwd=filled), 2, "GOSSAMER_STORE")
    assert_one_line(call("sessions", "chats.db", cwd=filled), 2, "'chats.db'")
    missing = call("sessions", "sqlite:///no.db", cwd=filled)
    assert_one_line(missing, 2, "no database", f"no file '{filled}/no.db'")
    for arguments in (["memory:"], ["list", "memory:"], ["import", "app.py", "memory:"]):
        assert_one_line(call("sessions", *arguments, cwd=filled), 2, "memory of the process")
    assert not (filled / "no.db").exists()
    assert_one_line(sessions(filled, "--limit", "0"), 2, "--limit")
    assert_one_line(sessions(filled, "--status", "dead"), 2, "dead")
    assert_one_line(call("sessions", "sqlite:///app.py", cwd=filled), 1, "app.py")


def test_help_of_each(app):
    assert "--before" in call("sessions", "--help").stdout
    for command in ("show", "export", "import", "delete"):
        assert "GOSSAMER_STORE" in call("sessions", command, "--help").stdout


# --- show ---------------------------------------------------------------------------------------------------


def test_a_transcript(filled):
    told = sessions(filled, "show", "s0").stdout
    for line in (
        "user: Hi number 0",
        "assistant: Hello.",
        "user: [image, image/png, 5 bytes]",
        "[session s0: idle, 4 messages, 4 in view, 8 records]",
        "[2 model calls]",
    ):
        assert line in told.splitlines()
    paused = sessions(filled, "show", "s3").stdout
    assert '→ pay {"amount":5}' in paused
    assert '? pay {"amount":5} waits for a decision (approval, call-1)' in paused
    assert "[session s3: paused, run " in paused
    assert_one_line(sessions(filled, "show", "s9"), 1, "no session 's9'")


def test_the_list_counts_what_the_transcript_counts(filled):
    call("chat", "app.py:agent", "--session", "s3", cwd=filled, stdin="a\n", GOSSAMER_STORE=URL)
    counts = {}
    for name in ("s0", "s1", "s3"):
        told = sessions(filled, "show", name).stdout
        counts[name] = re.search(r": idle, (\d+) messages?, (\d+) in view, \d+ records", told).groups()
    # The result of a tool is no message that anybody said; the model sees it in one.
    assert counts == {"s0": ("4", "4"), "s1": ("2", "2"), "s3": ("3", "4")}
    listed = {info["id"]: info["messages"] for info in map(json.loads, lines_of(filled))}
    assert {name: str(listed[name]) for name in counts} == {name: said for name, (said, _) in counts.items()}


def lines_of(filled):
    return sessions(filled, "--json").stdout.splitlines()


def test_one_is_not_called_several(app):
    code = "import asyncio; from gossamer import *; from gossamer.models import ScriptedModel; a = Agent(ScriptedModel([]))"
    failing = f"{code}\ntry: a.run_sync('hi', session=Session('one', store={URL!r}))\nexcept Exception: pass"
    subprocess.run([sys.executable, "-c", failing], cwd=app, check=True, capture_output=True)
    assert ": idle, 1 message, 0 in view, " in sessions(app, "show", "one").stdout


NASTY = "\x1b]0;title\x07 \x9b31m \x7f \u202e\ta\r\nb"
SHOWN = "\\x1b]0;title\\x07 \\x9b31m \\x7f \\u202e\ta\nb"


def test_what_anybody_wrote_moves_no_terminal_not_even_from_a_file(app):
    """It is shown as escapes; lines and tabs stay."""
    (app / "nasty.py").write_text(
        "from gossamer import Agent\nfrom gossamer.models import ScriptedModel\n"
        f"agent = Agent(ScriptedModel(lambda request: {NASTY!r}), name={NASTY!r})\n"
    )
    name = "id\x1b[2J"
    ran = call("run", NASTY, "nasty.py:agent", "--store", URL, "--session", name, cwd=app)
    shown = sessions(app, "show", name)
    listed = sessions(app)
    chat = call("chat", "nasty.py:agent", "--session", name, cwd=app, stdin="", GOSSAMER_STORE=URL)
    missing = sessions(app, "show", "no\x9b31m")
    deleted = sessions(app, "delete", name, "--yes")
    for one in (ran, shown, listed, chat, missing, deleted):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", one.stdout + one.stderr)
    assert f"user: {SHOWN}\nassistant: {SHOWN}\n[session id\\x1b[2J: idle" in shown.stdout
    assert f"user: {SHOWN}\nassistant: {SHOWN}\n" in chat.stdout
    assert SHOWN in ran.stdout
    assert "id\\x1b[2J" in listed.stdout


# --- export, import -----------------------------------------------------------------------------------------


def test_there_and_back(filled):
    ran = sessions(filled, "export", "s0")
    assert ran.returncode == 0
    (filled / "s0.jsonl").write_text(ran.stdout)
    target = ("--store", "sqlite:///other.db")
    one = call("sessions", "import", "s0.jsonl", *target, cwd=filled)
    assert (one.returncode, one.stdout) == (0, "s0\n")
    two = call("sessions", "import", "-", *target, "--id", "copy", cwd=filled, stdin=ran.stdout)
    assert (two.returncode, two.stdout) == (0, "copy\n")
    assert call("sessions", "export", "s0", *target, cwd=filled).stdout == ran.stdout
    shown = [call("sessions", "show", name, *target, cwd=filled).stdout for name in ("s0", "copy")]
    assert shown[0].replace("session s0", "session copy") == shown[1]
    assert_one_line(call("sessions", "import", "s0.jsonl", *target, cwd=filled), 1, "'s0' already")


def test_what_cannot_be_imported(filled):
    lines = sessions(filled, "export", "s0").stdout.splitlines(keepends=True)
    target = ("--store", "sqlite:///other.db")
    cut = call("sessions", "import", "-", *target, cwd=filled, stdin="".join(lines[:3]))
    assert_one_line(cut, 1, "line 3: ", "cut off")
    assert ids(call("sessions", "--json", *target, cwd=filled)) == []
    assert_one_line(call("sessions", "import", "no.jsonl", *target, cwd=filled), 2, "'no.jsonl'")
    assert_one_line(sessions(filled, "export", "s9"), 1, "no session 's9'")


def test_an_import_that_is_killed_leaves_nothing_to_resume(filled):
    lines = sessions(filled, "export", "s3").stdout
    target = ("--store", "sqlite:///other.db")
    with subprocess.Popen(
        [COMMAND, "sessions", "import", "-", *target],
        cwd=filled,
        env=environment(),
        stdin=subprocess.PIPE,
        text=True,
    ) as importing:
        importing.stdin.write(lines[: lines.rindex('{"line":"end"')])
        importing.stdin.flush()
        until = time.monotonic() + 30
        while not (filled / "other.db").exists() or ids(call("sessions", "--json", *target, cwd=filled)) != [
            "s3"
        ]:
            assert time.monotonic() < until
        importing.kill()
    (left,) = map(json.loads, call("sessions", "--json", *target, cwd=filled).stdout.splitlines())
    assert (left["status"], left["run"]) == ("idle", None)
    dry = call("resume", "app.py:agent", "--dry-run", *target, cwd=filled)
    assert "[no run broke off]" in dry.stdout
    call("sessions", "delete", "s3", "--yes", *target, cwd=filled)
    again = call("sessions", "import", "-", *target, cwd=filled, stdin=lines)
    assert (again.returncode, again.stdout) == (0, "s3\n")


# --- delete -------------------------------------------------------------------------------------------------


def test_deleting(filled):
    assert_one_line(sessions(filled, "delete", "s0"), 2, "--yes")
    assert_one_line(sessions(filled, "delete"), 2, "--user")
    assert_one_line(sessions(filled, "delete", "s0", "--user", "ada"), 2, "--user", "not both")
    assert ids(sessions(filled, "--json")) == ["s3", "s0", "s2", "s1"]
    assert sessions(filled, "delete", "s2", "--yes").stdout == "[1 session deleted]\n"
    assert_one_line(sessions(filled, "delete", "s2", "--yes"), 1, "no session 's2'")
    assert sessions(filled, "delete", "--user", "ada", "--yes").stdout.startswith("[2 sessions deleted, ")
    assert ids(sessions(filled, "--json")) == ["s3"]
    # What there was beside sessions, no store counts: of it is told that it is gone.
    told = "[0 sessions deleted, and what else was kept of user 'eve', memories among it]\n"
    assert sessions(filled, "delete", "--user", "eve", "--yes").stdout == told


@pytest.mark.parametrize(("answer", "left"), [("n", 4), ("", 4), ("y", 2)])
def test_deleting_asks_a_person(filled, answer, left):
    with terminal("delete", "--user", "ada", "--store", URL, command="sessions", cwd=filled) as asked:
        asked.expect("Delete all that is kept of user 'ada'")
        asked.expect("(y/N) ")
        asked.say(answer)
        assert asked.ends() == (0 if left == 2 else 2)
    assert len(ids(sessions(filled, "--json"))) == left


def test_a_table_on_a_terminal_moves_no_cursor(filled):
    with terminal(URL, command="sessions", cwd=filled) as table:
        table.ends()
    assert b"pay" in table.seen
    assert b"pay\x1b[31m" not in table.seen


# --- run and chat -------------------------------------------------------------------------------------------


def test_a_run_goes_on_in_a_session(app):
    options = ("--store", URL, "--session", "mine")
    first = call("run", "One", "--model", "offline", *options, cwd=app)
    assert "[session mine]" in first.stdout
    second = call("run", "Two", "--model", "offline", *options, "--json", cwd=app)
    assert json.loads(second.stdout)["session"] == "mine"
    assert "4 messages, 4 in view" in sessions(app, "show", "mine").stdout
    assert_one_line(call("run", "One", "--session", "mine", cwd=app), 2, "GOSSAMER_STORE")


def test_a_new_session_is_named(app):
    ran = call("run", "One", "--model", "offline", cwd=app, GOSSAMER_STORE=URL)
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("[session ")]
    assert ids(sessions(app, "--json")) == [line.removeprefix("[session ").rstrip("]")]


def test_a_chat_goes_on(app):
    chat = ("chat", "app.py:agent", "--store", URL, "--session", "mine")
    first = call(*chat, cwd=app, stdin="Good day\n/new\nAnother\n")
    assert "[session mine]" in first.stdout
    assert "[a new conversation, session " in first.stdout
    second = call(*chat, cwd=app, stdin="Good night\n")
    assert "[session mine, 2 messages in view]" in second.stdout
    assert "user: Good day\nassistant: Hello.\n" in second.stdout
    assert len(ids(sessions(app, "--json"))) == 2
    assert "4 messages, 4 in view" in sessions(app, "show", "mine").stdout


def test_a_chat_asks_for_the_decision_that_a_session_waits_for(app):
    paused = call("run", "pay it", "app.py:agent", "--store", URL, "--session", "mine", cwd=app)
    way = f"decide in gossamer chat app.py:agent --store sqlite:///{app}/chats.db --session mine\n"
    assert_one_line(paused, 1, "session 'mine' waits for a decision about pay", way)
    # A session that waited before is no other matter, and a store that a variable names need not be said.
    for flags in ([], ["--json"], ["--no-stream"], ["--json", "--stream"]):
        again = ("run", "and", "app.py:agent", "--session", "mine", *flags)
        again = call(*again, cwd=app, GOSSAMER_STORE=URL)
        assert_one_line(again, 1, "about pay; decide in gossamer chat app.py:agent --session mine\n")
    with terminal("app.py:agent", "--store", URL, "--session", "mine", cwd=app) as chat:
        chat.expect('? pay {"amount":5} waits for your approval')
        chat.say("a")
        chat.expect("Done: paid 5")
        chat.expect("> ")
        chat.press(CTRL_D)
        assert chat.ends() == 0
    assert [info["status"] for info in map(json.loads, sessions(app, "--json").stdout.splitlines())] == [
        "idle"
    ]


def test_a_chat_tells_of_a_store_that_fails(app):
    (app / "no").mkdir()
    ran = call("chat", "app.py:agent", "--store", "sqlite:///nowhere/chats.db", cwd=app, stdin="Hello\n")
    assert_one_line(ran, 1, "folder")


def test_environment_of_these_tests_names_no_store():
    assert "GOSSAMER_STORE" not in environment()
