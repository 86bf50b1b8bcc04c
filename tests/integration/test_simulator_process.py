"""The simulator as a process: starts, says where it listens, ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "simulator_script.json"


@contextmanager
def process(*arguments):
    started = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def ask(url, **options):
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], **options
        )
        return answer.choices[0].message.content


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_module_prints_a_json_line_and_ends_on_signals(stop):
    with process("-m", "gossamer.simulator", "--chunks", "3", "--seed", "1") as started:
        ready = json.loads(started.stdout.readline())
        assert ready["pid"] == started.pid
        assert ask(ready["url"]) == "You said:"
        started.send_signal(stop)
        assert started.wait(10) == 0
        assert started.stdout.read() == started.stderr.read() == ""


def test_serve_prints_its_url():
    code = f"from gossamer.simulator import serve; serve(script={str(EXAMPLE)!r})"
    with process("-c", code) as started:
        url = started.stdout.readline().strip()
        assert ask(url) == "Hello! How can I help?"
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
            assert json.load(answer)["requests"] == 2
        started.terminate()
        assert started.wait(10) == 0


def test_ends_with_streams_still_running():
    with process("-m", "gossamer.simulator", "--tps", "2", "--chunks", "1000") as started:
        url = json.loads(started.stdout.readline())["url"]
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            with client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            ) as stream:
                next(iter(stream))
                started.terminate()
                assert started.wait(10) == 0
                assert started.stderr.read() == ""


def test_wrong_arguments_are_one_line_and_status_2(tmp_path):
    script = tmp_path / "broken.json"
    script.write_text('[{"txt": 1}]')
    for arguments, says in (
        (["--script", str(script)], "broken.json: reply 1"),
        (["--tps", "-1"], "tps is -1"),
    ):
        with process("-m", "gossamer.simulator", *arguments) as started:
            assert started.wait(10) == 2
            complaint = started.stderr.read()
            assert says in complaint
            assert complaint.count("\n") == 1


def test_importing_gossamer_does_not_load_the_simulator():
    code = "import gossamer, sys; print([m for m in sys.modules if 'simulator' in m or m in ('httptools', 'uvloop')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
