"""The cassette fixture, as a project that has Gossamer installed meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.integration.server import Server, completion

pytest_plugins = ["pytester"]

TESTS = """
import os

import pytest
from gossamer import Agent
from gossamer.models import OpenAIChat


def ask(prompt):
    agent = Agent(OpenAIChat("any", base_url=os.environ["PROVIDER"], api_key="none"))
    return agent.run_sync(prompt).output


def test_one(cassette):
    assert ask("Hi") == "said"


class TestGroup:
    @pytest.mark.parametrize("word", ["a", "b/c"])
    def test_two(self, cassette, word):
        assert ask(word) == "said"


def test_that_fails(cassette):
    assert ask("Hi") == "something else"


def test_without():
    pass
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """Runs the tests above in a process of their own, against a server or none."""
    monkeypatch.delenv("CI", raising=False)
    path = pytester.makepyfile(test_weather=TESTS)

    def run(*arguments, provider="http://127.0.0.1:9/v1"):
        monkeypatch.setenv("PROVIDER", provider)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    run.path = path.parent / "cassettes" / "test_weather"
    return run


async def asked_while(work):
    """Run blocking work beside a server; its result, and how many requests came."""
    import asyncio

    async with Server(completion("said")) as server:
        result = await asyncio.to_thread(work, server.url)
        return result, len(server.requests)


async def test_the_fixture_records_once_then_replays(project):
    result, requests = await asked_while(lambda url: project(provider=url))
    result.assert_outcomes(passed=4, failed=1)
    assert requests == 4
    # The test that failed has left no recording.
    names = sorted(path.name for path in project.path.iterdir())
    assert names[0] == "TestGroup.test_two[a].json"
    assert names[1].startswith("TestGroup.test_two[b_c]-")
    assert names[2:] == ["test_one.json"]
    result = project("--deselect", "test_weather.py::test_that_fails")
    result.assert_outcomes(passed=4, deselected=1)


async def test_modes_are_chosen_by_option_and_by_ci(project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    only = "test_weather.py::test_one"
    result, requests = await asked_while(lambda url: project(only, provider=url))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*CassetteError: there is no recording at *test_one.json*"])
    assert requests == 0
    result, requests = await asked_while(lambda url: project("--cassette=once", only, provider=url))
    result.assert_outcomes(passed=1)
    assert requests == 1
    project(only).assert_outcomes(passed=1)
    result, requests = await asked_while(lambda url: project("--cassette=record", only, provider=url))
    result.assert_outcomes(passed=1)
    assert requests == 1
    recorded = json.loads((project.path / "test_one.json").read_text())
    assert len(recorded["exchanges"]) == 1
    monkeypatch.delenv("CI")
    project("--cassette=replay", only).assert_outcomes(passed=1)
    result = project("--cassette=sometimes", only)
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_plugin_imports_little_until_it_is_used():
    program = (
        "import sys, pytest; before = set(sys.modules); import gossamer.testing.pytest_plugin; "
        "print(sorted(name for name in set(sys.modules) - before if name.startswith(('gossamer', 'httptools', 'cachebox'))))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(eval(out))
    assert (
        not {"httptools", "cachebox", "gossamer.wire", "gossamer.models", "gossamer.testing.cassette"}
        & loaded
    )
