"""Each example runs as written: offline, without a key, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# What each example prints beyond the offline model's own words.
SAYS = {
    "approval.py": ["20.00 euros paid", "waits for approval: pay", "250.00 euros paid", "That is too much."],
    "approval_in_a_workflow.py": [
        'waits for a person: {"step":"condition/test","answer":"bool"',
        "published: 12 words, names: You, Ada, Grace.",
        "condition/otherwise              not_run",
    ],
    "code_mode.py": [
        "25 calls done",
        'waits for a person: refund {"number":18,"amount":108.0}',
        "6 of 20 orders are late",
        "90.00 euros for order 15",
        "order 18 - A person denied this call. Not again.",
        "2 calls of the model, 26 tool calls",
    ],
    "crash.py": [
        "it was killed by signal 9",
        "session order-7: a run of shop broke off",
        "the model was told of stock: 7",
        "the model was told of charge: The process ended while this tool ran; whether it took effect is unknown.",
        "answer: I cannot tell whether your card was charged.",
    ],
    "data_analyst.py": [
        "{'month': '2026-01', 'region': 'north', 'amount': '1200.50'}",
        "run_python failed: CodeError: Traceback",
        "ValueError: could not convert string to float: 'n/a'",
        "The region that sold most is 'north'",
        "north,3296.50\nsouth,2240.00\n",
    ],
    "delegation.py": ["multiply gave 42.0", "4 model calls and 2 tool calls"],
    "guardrails.py": [
        "You said: Write to [email] about order 7.",
        "stopped: it reads like a prompt injection: an order to ignore what was said before",
        "stopped: it speaks of a rival",
        "2 messages in view, 3 runs in the journal",
    ],
    "handoff.py": ["invoice gave invoice 7 is paid", "billing: invoice gave invoice 8 is paid"],
    "providers.py": [
        "openai_chat      convert returned: 11.0",
        "gemini_chat      convert returned: 44.0",
        "20 messages in one session",
    ],
    "quickstart.py": ["You said: What is an agent?"],
    "research_team.py": [
        "research > library: count_sources gave 7",
        "research: ask_archive gave count_sources gave 7",
        "You said: research said before you:",
        "5 model calls, 6 tool calls, 6 messages",
    ],
    "resilience.py": [
        "gpt-5-mini: Good morning from the first! (circuit closed)",
        "claude-haiku-5-5: You said: Good evening (circuit open)",
        "was asked 5 times",
        "0 calls, 1 from the cache",
        "ended by limit: max_cost",
    ],
    "review.py": [
        "at once: writer said 'You said: Name a boat.",
        "(3 model calls)",
        "the editor knows: critic - You said: What is weak in it?",
        "editor has spoken, 9 words",
    ],
    "session.py": ["4 messages:", "2 messages after", "ticket-42 goes on: You said: Who am I?"],
    "skills.py": [
        '→ read_skill {"name":"currency-report"}',
        '→ read_skill_file {"name":"currency-report","path":"references/rates.csv"}',
        "3200.00 JPY\n22.00 USD\n17.00 GBP",
    ],
    "streaming.py": ["… count_up: 1", "… count_up: 3", "← count_up: 3", "count_up gave 3"],
    "structured_output.py": ["Quote: Quote(amount=0.0", "so far: {'amount': 0", "in the end: Quote("],
    "long_term_memory.py": [
        "ann: Lentil soup.",
        "bob: Roast beef.",
        "remembered of ann: Ann eats vegetarian food. (used 1 times)",
        "forgotten: 1",
    ],
    "working_memory.py": [
        "The bridge opens on the 4th of April.",
        "44 messages in view, about 15,6",
        "[12,020 characters of read_page moved out of view: read_message(place=2)",
    ],
    "tools.py": ["convert gave 22.0", "look_up gave London"],
}


def test_every_example_is_checked():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "test_cassette.py"}


def run(arguments, folder):
    """Run Python in a folder, without any key."""
    keys = [key for key in os.environ if key.endswith(("_API_KEY", "_BASE_URL")) or key == "GOSSAMER_MODEL"]
    environment = {key: value for key, value in os.environ.items() if key not in keys}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example(name, tmp_path):
    ran = run(["-W", "error", str(EXAMPLES / name)], tmp_path)
    assert ran.stderr == ""
    assert ran.returncode == 0
    for said in SAYS[name]:
        assert said in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_example_with_a_cassette_needs_no_provider(tmp_path):
    path = EXAMPLES / "test_cassette.py"
    ran = run(["-m", "pytest", "-p", "no:cacheprovider", "--cassette=replay", "-v", str(path)], tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout
