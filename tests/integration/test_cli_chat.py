"""The chat, in a pseudo-terminal as a person has it, and on a pipe."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tests.integration.terminal import (
    COMMAND,
    CTRL_C,
    CTRL_D,
    CTRL_U,
    SECONDS,
    environment,
    terminal,
)

from gossamer.simulator import Simulator

APP = """
import asyncio
from gossamer import Agent, Limits, tool
from gossamer.models import OpenAIChat, ScriptedModel
from gossamer.messages import ToolCall
import os

@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    return f"paid {amount}"

@tool(run_by="person")
def ask(question: str) -> str: ...

@tool
async def wait_forever(seconds: int) -> str:
    try:
        await asyncio.sleep(3600)
    finally:
        print("cleaned up", flush=True)

@tool(inline=True)
def fail(code: int) -> str:
    raise RuntimeError(f"code {code}")

url = os.environ.get("SIMULATOR")
agent = Agent(OpenAIChat("m", base_url=url, api_key="k") if url else "offline", tools=[pay, ask])
slow = agent.replace(tools=[wait_forever, fail])
limited = slow.replace(limits=Limits(max_turns=1))
escape = Agent(ScriptedModel(["\\x1b]0;title\\x07\\x1b[31mred\\x1b[2J done"]))
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


# --- in a terminal ------------------------------------------------------------------------------------------


def test_a_tool_a_stream_and_the_usage():
    with terminal() as chat:
        assert "offline" in chat.expect("> ")
        chat.say("What are 20 euros at 1.1?")
        assert '→ convert {"amount":20.0,"rate":1.1}' in chat.expect("← convert: 22.0")
        chat.expect("convert gave 22.0")
        chat.expect("> ")
        chat.say("/usage")
        chat.expect("2 model calls, 1 tool call")
        chat.expect("> ")
        chat.say("/exit")
        assert chat.ends() == 0


async def test_an_answer_is_shown_as_it_comes_and_ctrl_c_cancels_it_alone(app):
    script = [
        {"when": "slowly", "text": "one two three four five " * 200, "tps": 20},
        {"when": "again", "text": "Here I am."},
    ]
    async with Simulator(script=_script(app, script)) as simulator:
        import asyncio

        def talk():
            with terminal("app.py:agent", cwd=app, SIMULATOR=simulator.url) as chat:
                chat.expect("> ")
                chat.say("speak slowly")
                shown = chat.expect("one two three")
                assert "cancelled" not in shown
                chat.press(CTRL_C)
                chat.expect("[cancelled]")
                chat.expect("> ")
                chat.say("and again")
                assert "Here I am." in chat.expect("> ")
                chat.interrupt()  # at the empty prompt
                assert chat.ends() == 0
                assert b"Traceback" not in chat.seen

        await asyncio.to_thread(talk)
        assert simulator.stats.requests == 2


async def test_ctrl_c_cancels_a_tool_and_the_tool_cleans_up(app):
    import asyncio

    async with Simulator() as simulator:

        def talk():
            with terminal("app.py:slow", cwd=app, SIMULATOR=simulator.url) as chat:
                chat.expect("> ")
                chat.say('call wait_forever {"seconds": 9}')
                chat.expect("→ wait_forever")
                chat.press(CTRL_C)
                chat.expect("cleaned up")
                chat.expect("[cancelled]")
                chat.expect("> ")
                chat.say("are you there")
                chat.expect("You said: are you there\r\n")
                chat.expect("> ")
                chat.press(CTRL_D)
                assert chat.ends() == 0

        await asyncio.to_thread(talk)


def test_ctrl_c_empties_a_line_first(app):
    with terminal() as chat:
        chat.expect("> ")
        chat.press(b"never said")
        chat.expect("never said")
        chat.interrupt()
        chat.expect("> ")
        chat.say("hello")
        chat.expect("You said: hello (offline")
        chat.expect("> ")
        chat.interrupt()
        assert chat.ends() == 0


def test_approvals_at_the_prompt(app):
    with terminal("app.py:agent", cwd=app) as chat:
        chat.expect("> ")
        chat.say("pay 20")
        assert 'pay {"amount":20} waits for your approval' in chat.expect("(d)eny: ")
        chat.say("perhaps")
        chat.expect("write a, s, e or d")
        chat.expect("(d)eny: ")
        chat.say("a")
        chat.expect("← pay: paid 20")
        chat.expect("pay gave paid 20")
        chat.expect("> ")

        chat.say("pay 30")
        chat.expect("(d)eny: ")
        chat.say("e")
        chat.expect('arguments: {"amount":30}')  # to be edited in place
        chat.press(CTRL_U)
        chat.say("{broken")
        chat.expect("no JSON object")
        chat.expect("(d)eny: ")
        chat.say('e {"amount": "five"}')
        chat.expect("do not fit")
        chat.expect("(d)eny: ")
        chat.say('e {"amount": 5}')
        chat.expect("← pay: paid 5")
        chat.expect("> ")

        chat.say("pay 40")
        chat.expect("(d)eny: ")
        chat.say("d")
        chat.expect("reason")
        chat.say("too much")
        chat.expect("← pay (denied): A person denied this call. too much")
        chat.expect("> ")

        chat.say("pay 50")
        chat.expect("(d)eny: ")
        chat.say("s")
        chat.expect("← pay: paid 50")
        chat.expect("> ")
        chat.say("pay 60")
        assert "approval" not in chat.expect("← pay: paid 60")
        chat.expect("> ")

        chat.say('what is "your name"')
        assert "ask asks you" in chat.expect("your answer: ")
        chat.say("Ada")
        chat.expect("← ask: Ada")
        chat.expect("> ")
        chat.press(CTRL_D)
        assert chat.ends() == 0


def test_ctrl_c_takes_a_question_back_and_the_next_message_denies(app):
    with terminal("app.py:agent", cwd=app) as chat:
        chat.expect("> ")
        chat.say("pay 20")
        chat.expect("(d)eny: ")
        chat.interrupt()
        chat.expect("not decided")
        chat.expect("> ")
        chat.say("hello")
        chat.expect("You said: hello")
        chat.expect("> ")
        chat.say("/exit")
        assert chat.ends() == 0
        assert b"paid" not in chat.seen


def test_control_characters_of_a_model_do_not_reach_the_terminal(app):
    with terminal("app.py:escape", cwd=app) as chat:
        chat.expect("> ")
        chat.say("hello")
        chat.expect("done")
        assert b"\x1b]0;title" not in chat.seen
        assert b"\x1b[31mred" not in chat.seen
        assert b"\x1b[2J" not in chat.seen


# --- on a pipe ----------------------------------------------------------------------------------------------


def piped(*arguments, lines, cwd=None, **variables):
    return subprocess.run(
        [COMMAND, "chat", *arguments],
        cwd=cwd,
        env=environment(**variables),
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_lines_from_a_pipe(app):
    lines = ["hello", "", "/what", "pay 7", 'e {"amount": 8}', "pay 9", "d too much", "/new", "/usage"]
    ran = piped("app.py:agent", lines=lines, cwd=app)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    for said in (
        "> hello\nYou said: hello (offline",
        "[there is no /what;",
        "← pay: paid 8",
        "← pay (denied): A person denied this call. too much",
        "[a new conversation]",
        "[5 model calls, 1 tool call]",
    ):
        assert said in ran.stdout


def test_input_that_ends_at_a_question_ends_the_chat(app):
    ran = piped("app.py:agent", lines=["pay 7"], cwd=app)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "left while the run waits for a decision" in ran.stdout
    assert "waits for your approval" in ran.stdout
    assert "paid" not in ran.stdout


async def test_what_goes_wrong_is_told_and_the_chat_goes_on(app):
    import asyncio

    script = [
        {"when": "refuse", "error": 429},
        {"when": "break", "text": "one two three four", "fault": "close", "after": 2},
        {"when": "hello", "text": "Good day."},
    ]
    async with Simulator(script=_script(app, script)) as simulator:
        lines = ["refuse", "break", 'call no_such_tool {"a": 1}', "hello"]
        ran = await asyncio.to_thread(
            lambda: piped("app.py:agent", lines=lines, cwd=app, SIMULATOR=simulator.url)
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "RateLimitError: " in ran.stdout
    assert "StreamBrokenError: " in ran.stdout
    assert "\nGood day.\n" in ran.stdout


async def test_a_tool_that_raises_and_a_limit_are_told(app):
    import asyncio

    async with Simulator() as simulator:
        lines = ['call fail {"code": 3}']
        failed, limited = [
            await asyncio.to_thread(piped, target, lines=lines, cwd=app, SIMULATOR=simulator.url)
            for target in ("app.py:slow", "app.py:limited")
        ]
    assert "← fail (error): " in failed.stdout
    assert "code 3" in failed.stdout
    assert "[stopped: " in limited.stdout
    assert "max_turns" in limited.stdout
    assert failed.returncode == limited.returncode == 0


def test_a_signal_while_lines_are_awaited_ends_the_chat():
    started = subprocess.Popen(
        [COMMAND, "chat"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with started:
        started.stdin.write(b"hello\n/usage\n")
        started.stdin.flush()
        while b"1 model call" not in (line := started.stdout.readline()):
            assert line
        started.send_signal(signal.SIGINT)
        assert started.wait(SECONDS) in {0, 130}
        assert started.stderr.read() == b""


def _script(folder, replies):
    import json

    path = folder / "script.json"
    path.write_text(json.dumps(replies))
    return path
