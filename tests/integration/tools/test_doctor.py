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


def states(**variables) -> dict:
    return {state["name"]: state for state in json.loads(doctor("--json", **variables))["tools"]}


def hidden(tmp_path, name) -> str:
    """Give a PYTHONPATH on which a library cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n")
    return f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"


def test_every_toolkit_is_listed_and_what_is_here_is_found():
    found = states()
    functions = {name for name in builtin.__all__ if name[0].islower()}
    assert functions <= {name.split(" on ")[0] for name in found}
    assert all(state["ready"] and state["found"] and not state["get"] for state in found.values()), found
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
        assert [name for name, state in found.items() if not state["ready"]] == names
        assert all("pip install 'gossamer[" in found[name]["get"] for name in names)


def test_a_git_that_is_too_old_is_none(tmp_path):
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\necho git version 2.31.9\n")
    program.chmod(0o755)
    assert states(PATH=str(tmp_path))["git"]["ready"] is False
    program.write_text("#!/bin/sh\necho something else\n")
    assert states(PATH=str(tmp_path))["git"]["ready"] is False
