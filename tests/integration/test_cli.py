"""The command line as a user calls it: in processes of their own, offline and against the simulator."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

import gossamer

COMMAND = str(Path(sys.executable).with_name("gossamer"))
SCRIPT = Path(__file__).parents[2] / "examples" / "simulator_script.json"
VARIABLES = re.compile(r"_API_KEY$|_BASE_URL$|_ENDPOINT$|^OLLAMA_HOST$|^GOSSAMER_|_proxy$", re.IGNORECASE)


def environment(**variables):
    kept = {key: value for key, value in os.environ.items() if not VARIABLES.search(key)}
    return {**kept, "COLUMNS": "200", **variables}


def call(*arguments, cwd=None, stdin="", **variables):
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_line(ran, code, *said):
    assert ran.returncode == code
    assert ran.stderr.startswith("gossamer: ")
    assert ran.stderr.count("\n") == 1
    for words in said:
        assert words in ran.stderr


@contextmanager
def simulator(*arguments):
    started = subprocess.Popen(
        [COMMAND, "simulate", *arguments],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started.stdout.readline().strip(), started
        finally:
            if started.poll() is None:
                started.kill()


@pytest.fixture
def app(tmp_path):
    (tmp_path / "neighbour.py").write_text("WORD = 'pirate'\n")
    (tmp_path / "app.py").write_text(
        "from neighbour import WORD\n"
        "from gossamer import Agent, EndRun, tool\n"
        "from gossamer.models import ScriptedModel\n"
        "from gossamer.messages import ToolCall\n"
        "\n"
        "@tool(needs_approval=True, inline=True)\n"
        "def pay(amount: int) -> str:\n"
        "    return f'paid {amount}'\n"
        "\n"
        "@tool(inline=True)\n"
        "def stop(code: int) -> str:\n"
        "    raise EndRun({'code': code})\n"
        "\n"
        "agent = Agent('offline', name=WORD)\n"
        "payer = Agent(ScriptedModel([ToolCall.of('pay', amount=3), 'Done.']), tools=[pay])\n"
        "stopper = Agent(ScriptedModel([ToolCall.of('stop', code=3)]), tools=[stop])\n"
        "told = Agent(ScriptedModel(lambda request: request.instructions or 'nothing'))\n"
        "escape = Agent(ScriptedModel(['\\x1b[31mred\\x07']))\n"
        "number = 3\n"
    )
    return tmp_path


# --- help and errors ----------------------------------------------------------------------------------------


def test_help_lists_the_commands_without_loading_anything():
    ran = call("--help")
    assert ran.returncode == 0
    for command in (
        "run",
        "chat",
        "simulate",
        "bench",
        "models",
        "doctor",
        "--version",
        "--install-completion",
    ):
        assert f"\n  {command}" in ran.stdout
    assert call("-h").stdout == call().stdout == ran.stdout
    code = (
        "import sys; from gossamer.cli import main; main(['--help']);"
        "print(sorted(n for n in ('cyclopts', 'rich', 'msgspec', 'asyncio', 'inspect') if n in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.endswith("[]\n")


@pytest.mark.parametrize("command", ["run", "chat", "simulate", "bench", "models", "doctor"])
def test_each_command_explains_its_arguments(command):
    ran = call(command, "--help")
    assert ran.returncode == 0
    assert f"gossamer {command}" in ran.stdout
    assert ran.stderr == ""


def test_version():
    ran = call("--version")
    assert (ran.returncode, ran.stdout) == (0, f"{gossamer.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], ["rnu", "run"]),
        (["run", "--modle", "x"], ["--modle", "--model", "gossamer run --help"]),
        (["run", "hi", "--model", "nobody:x"], ["nobody:x", "openai"]),
        (["run", "hi", "nowhere.py:agent"], ["nowhere.py"]),
        (["run", "hi", "nowhere:agent"], ["nowhere"]),
        (["run", "hi", "app.py"], ["app.py:agent"]),
        (["run", "hi", "app.py:agnet"], ["app.py:agnet", "agent, payer"]),
        (["run", "hi", "app.py:number"], ["app.py:number", "int"]),
        (["chat", "app.py:number"], ["app.py:number", "int"]),
        (["simulate", "--error-rate", "2"], ["error_rate is 2.0"]),
        (["simulate", "--port", "x"], ["--port"]),
        (["simulate", "--script", "nowhere.json"], ["nowhere.json"]),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(arguments, said, app):
    assert_one_line(call(*arguments, cwd=app), 2, *said)


def test_a_missing_key_is_one_line_and_status_1():
    assert_one_line(call("run", "hi", "--model", "groq:x"), 1, "GROQ_API_KEY")
    assert_one_line(call("chat", "--model", "groq:x"), 1, "GROQ_API_KEY")


def test_an_unreachable_server_is_one_line_and_status_1():
    for flag in ("--stream", "--no-stream", "--json"):
        ran = call("run", "hi", flag, OPENAI_BASE_URL="http://127.0.0.1:1/v1")
        assert_one_line(ran, 1, "127.0.0.1:1")


def test_a_reader_that_leaves_is_no_error():
    started = subprocess.Popen(
        [COMMAND, "run", "--json", "--stream", "word " * 5_000],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with started:
        started.stdout.readline()
        started.stdout.close()
        assert started.wait(60) == 1
        assert started.stderr.read() == b""


# --- run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--stream", "--no-stream"])
def test_the_main_job_calls_a_tool_and_answers(flag):
    ran = call("run", flag)
    assert ran.returncode == 0
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert "offline" in lines[0]
    assert lines[2:5] == [
        '→ convert {"amount":20.0,"rate":1.1}',
        "← convert: 22.0",
        "convert gave 22.0 (offline model: no provider was asked)",
    ]
    assert "2 model calls, 1 tool call" in lines[5]


def test_a_result_as_json():
    result = json.loads(call("run", "What are 3 at 2?", "--json").stdout)
    assert result["output"].startswith("convert gave 6.0")
    assert result["finish_reason"] == "stop"
    assert result["usage"]["tool_calls"] == 1
    assert [message["role"] for message in result["messages"]] == ["user", "assistant", "tool", "assistant"]


def test_events_as_lines_of_json():
    events = [json.loads(line) for line in call("run", "--json", "--stream").stdout.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run_started"
    assert kinds.index("tool_call_finished") < kinds.index("text_delta")
    assert kinds[-1] == "run_finished"
    said = "".join(event["text"] for event in events if event["type"] == "text_delta")
    assert said == events[-1]["result"]["output"]


def test_an_agent_of_ones_own(app):
    assert "You said: hi" in call("run", "hi", "app.py:agent", cwd=app).stdout
    assert "You said: hi" in call("run", "hi", "app:agent", cwd=app).stdout
    assert "You said: hi" in call("run", "hi", f"{app}/app.py:agent").stdout
    assert "Be kind." in call("run", "hi", "app.py:told", "--instructions", "Be kind.", cwd=app).stdout
    assert "You said: hi" in call("run", "hi", "app.py:told", "--model", "offline", cwd=app).stdout
    assert_one_line(call("run", "", cwd=app), 2, 'prompt is ""')


def test_a_run_that_pauses_says_where_to_decide(app):
    for flag in ("--stream", "--no-stream"):
        assert_one_line(call("run", "pay", "app.py:payer", flag, cwd=app), 1, "pay", "gossamer chat")
    ran = call("run", "pay", "app.py:payer", "--json", cwd=app)
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["pending"][0]["call"]["name"] == "pay"


def test_a_value_that_ends_the_run_is_shown(app):
    for flag in ("--stream", "--no-stream"):
        assert '{"code":3}' in call("run", "stop", "app.py:stopper", flag, cwd=app).stdout.splitlines()


def test_an_error_in_the_users_file_keeps_its_traceback(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    for target in ("broken.py:agent", "broken:agent"):
        ran = call("run", "hi", target, cwd=tmp_path)
        assert ran.returncode == 1
        assert "broken.py" in ran.stderr
        assert "ModuleNotFoundError" in ran.stderr


def test_the_environment_chooses_the_server():
    with simulator() as (url, _):
        prompt = 'call convert {"amount": 3, "rate": 2}'
        for variables in ({"OPENAI_BASE_URL": url}, {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k"}):
            for flag in ("--stream", "--no-stream"):
                ran = call("run", prompt, flag, **variables)
                assert ran.returncode == 0
                assert (
                    ran.stdout.splitlines()[0] == f"[model: openai:gpt-5-mini at {url.removesuffix('/v1')}]"
                )
                assert "← convert: 6.0" in ran.stdout
                assert "\nconvert returned: 6.0\n" in ran.stdout
                assert "tokens in" in ran.stdout
        named = call("run", "hi", "--json", OPENAI_BASE_URL=url, GOSSAMER_MODEL="openai:other")
        assert json.loads(named.stdout)["model"] == "other"
        argued = call(
            "run", "hi", "--json", "--model", "openai:third", OPENAI_BASE_URL=url, GOSSAMER_MODEL="offline"
        )
        assert json.loads(argued.stdout)["model"] == "third"


def test_a_base_url_with_a_password_keeps_it_to_itself():
    ran = call("run", "hi", OPENAI_BASE_URL="http://user:hunter2@127.0.0.1:1/v1")
    assert ran.returncode in {1, 2}
    assert "hunter2" not in ran.stdout + ran.stderr


# --- simulate, bench ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_simulate_serves_a_script_until_it_is_stopped(stop):
    with simulator("--script", str(SCRIPT), "--latency", "0.01", "--tps", "500") as (url, started):
        ran = call("run", "hello", "--json", OPENAI_BASE_URL=url)
        assert json.loads(ran.stdout)["output"] == "Hello! How can I help?"
        started.send_signal(stop)
        assert started.wait(10) == 0
        assert started.stderr.read() == ""


def test_simulate_fails_as_told():
    with simulator("--error-rate", "1", "--fault", "500") as (url, _):
        assert_one_line(call("run", "hello", OPENAI_BASE_URL=url), 1, "500")


def test_simulate_on_a_port_of_ones_own():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        taken.listen()
        assert_one_line(call("simulate", "--port", port), 2, port)
    with simulator("--port", port) as (url, _):
        assert url == f"http://127.0.0.1:{port}/v1"


def test_bench_knows_its_benchmarks():
    ran = call("bench", "no-such-benchmark")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "create" in ran.stderr


def test_bench_measures(tmp_path):
    ran = call("bench", "create", "--quick", cwd=tmp_path)
    assert ran.returncode == 0
    assert "build an agent" in ran.stdout


def test_bench_needs_a_checkout(tmp_path):
    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "gossamer").symlink_to(Path(gossamer.__file__).parent, target_is_directory=True)
    code = "import sys; from gossamer.cli import main; sys.exit(main(['bench']))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_one_line(ran, 2, "clone the repository")


# --- doctor -------------------------------------------------------------------------------------------------


def test_doctor_finds_all_well():
    ran = call("doctor")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "gossamer run uses the model offline" in ran.stdout
    assert "OPENAI_API_KEY is not set" in ran.stdout
    assert re.search(r"✓ msgspec \d", ran.stdout)


def test_doctor_tells_what_is_reachable_and_no_key():
    with simulator() as (url, started):
        ran = call(
            "doctor",
            "--json",
            OPENAI_BASE_URL=url,
            OPENAI_API_KEY="sk-secret",
            VLLM_BASE_URL="http://127.0.0.1:1",
        )
        started.terminate()
    assert ran.returncode == 0
    assert "sk-secret" not in ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    providers = {provider["name"]: provider for provider in report["providers"]}
    assert report["model"] == "openai:gpt-5-mini"
    assert providers["openai"]["key_set"] is True
    assert providers["openai"]["reachable"] is True
    assert providers["openai"]["url"] == url.removesuffix("/v1")
    assert providers["vllm"]["reachable"] is False
    assert "127.0.0.1:1" in providers["vllm"]["problem"]
    assert providers["groq"]["reachable"] is None
    assert report["open_files"]["limit"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert report["broken"] == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "127.0.0.1:1"),
        ({"OPENAI_BASE_URL": "ftp://x"}, "OPENAI_BASE_URL"),
        ({"GOSSAMER_MODEL": "groq:x"}, "GROQ_API_KEY is not set"),
        ({"GOSSAMER_MODEL": "nobody:x"}, "GOSSAMER_MODEL"),
    ],
)
def test_doctor_fails_where_the_model_in_use_cannot_answer(variables, said):
    ran = call("doctor", **variables)
    assert ran.returncode == 1
    assert said in ran.stdout.splitlines()[-1]
    assert ran.stderr == ""


def test_doctor_tells_how_to_raise_a_low_limit():
    code = (
        "import resource, sys, os; _, hard = resource.getrlimit(resource.RLIMIT_NOFILE);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, COMMAND, "doctor"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "256: about 192 streams at once" in ran.stdout
    assert "ulimit -n" in ran.stdout


def test_doctor_tells_how_to_get_what_is_missing(tmp_path):
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['prometheus_client'] = None\n")
    ran = call("doctor", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 0
    assert "prometheus_client is missing" in ran.stdout
    assert "pip install 'gossamer[metrics]'" in ran.stdout
    hidden.write_text("import sys\nsys.modules['jiter'] = None\n")
    ran = call("doctor", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 1
    assert "jiter is missing" in ran.stdout


def test_doctor_knows_every_library_that_is_asked_for():
    asked = [one for one in metadata.requires("gossamer") if not re.search(r"extra == .(dev|bench)", one)]
    names = {re.split(r"[^\w-]", one)[0].replace("-", "_").lower() for one in asked}
    names = {"yaml" if name == "pyyaml" else name for name in names}
    assert {library["name"] for library in json.loads(call("doctor", "--json").stdout)["libraries"]} == names


def test_completion_is_installed_for_the_users_shell(tmp_path):
    ran = call("--install-completion", HOME=str(tmp_path), SHELL="/bin/bash")
    assert (ran.returncode, ran.stderr) == (0, "")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("simulate" in text and "--latency" in text for text in written)
