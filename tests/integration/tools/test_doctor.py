"""What `gossamer doctor` says of the toolkits that come along."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from gossamer.tools import builtin


def doctor(*arguments, **variables) -> str:
    program = "import sys; from gossamer.cli import main; sys.argv[0] = 'gossamer'; main()"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    ran = subprocess.run(
        [sys.executable, "-c", program, "doctor", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout


def told(**variables) -> tuple[dict, dict]:
    """Give what is told of toolkits and of sandboxes, by name."""
    report = json.loads(doctor("--json", **variables))
    return tuple({state["name"]: state for state in report[part]} for part in ("tools", "sandboxes"))


def states(**variables) -> dict:
    return told(**variables)[0]


# What runs in a box of bubblewrap, which not every machine can have.
BOXED = {"skills' scripts", "python on bubblewrap", "shell"}


def hidden(tmp_path, name) -> str:
    """Give a PYTHONPATH on which a library cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n")
    return f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"


def test_every_toolkit_is_listed_and_what_is_here_is_found():
    found = states()
    functions = {name for name in builtin.__all__ if name[0].islower()}
    assert functions <= {name.split(" on ")[0] for name in found}
    here = [state for name, state in found.items() if name not in BOXED]
    assert all(state["ready"] and state["found"] and not state["get"] for state in here), found
    assert found["git"]["found"].startswith("git 2.")
    assert found["sql on Postgres"]["found"].startswith("psycopg 3.")
    assert found["dataframes"]["found"].startswith("duckdb ")
    assert "\nTools\n  ✓ calculator: needs nothing more\n" in doctor()


def test_what_is_missing_is_told_with_how_to_get_it(tmp_path):
    found = states(PATH="/nowhere")
    assert (found["git"]["ready"], found["calculator"]["ready"]) == (False, True)
    assert "git: not ready; install git 2.32 or newer" in doctor(PATH="/nowhere")
    for library, names in {"duckdb": ["sql on DuckDB", "dataframes"], "psycopg": ["sql on Postgres"]}.items():
        found = states(PYTHONPATH=hidden(tmp_path, library))
        assert [name for name, state in found.items() if not state["ready"] and name not in BOXED] == names
        assert all("pip install 'gossamer[" in found[name]["get"] for name in names)


def test_a_git_that_is_too_old_is_none(tmp_path):
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\necho git version 2.31.9\n")
    program.chmod(0o755)
    assert states(PATH=str(tmp_path))["git"]["ready"] is False
    program.write_text("#!/bin/sh\necho something else\n")
    assert states(PATH=str(tmp_path))["git"]["ready"] is False


def test_sandboxes_that_can_be_had_are_told_with_what_they_use(bubblewrap):
    tools, sandboxes = told()
    assert sandboxes["bubblewrap"] == {"name": "bubblewrap", "ready": True, "found": bubblewrap, "why": ""}
    assert sandboxes["monty"]["ready"] is True
    assert "monty" in sandboxes["monty"]["found"]
    assert all(tools[name]["ready"] and "the sandbox bubblewrap" in tools[name]["found"] for name in BOXED)
    assert f"\n  ✓ bubblewrap: {bubblewrap}\n" in doctor()


def test_sandboxes_that_cannot_be_had_are_told_with_why_and_what_to_do(tmp_path):
    program = tmp_path / "bwrap"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit\n'
        "echo 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    for path, says in (
        ("/nowhere", "apt-get install bubblewrap"),
        (str(tmp_path), "No permissions to create"),
    ):
        tools, sandboxes = told(PATH=path)
        assert sandboxes["bubblewrap"]["ready"] is False
        assert says in sandboxes["bubblewrap"]["why"]
        needs = "it needs the sandbox bubblewrap, see below"
        assert {name: tools[name]["get"] for name in BOXED} == dict.fromkeys(BOXED, needs)
        assert tools["python on Monty"]["ready"] is True
        assert tools["shell_on_host"]["ready"] is True
    said = doctor(PYTHONPATH=hidden(tmp_path, "pydantic_monty"))
    assert "  - monty: not ready; " in said
    assert said.count("pip install 'gossamer[sandbox]'") >= 2  # the library, and the sandbox
    assert "python on Monty: not ready; it needs the sandbox monty, see below" in said
