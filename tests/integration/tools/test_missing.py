"""What is told where something that a toolkit needs is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.integration.tools.calling import refused
from tests.services import missing, require

from gossamer import Agent, ToolkitError
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import dataframes, git, sql


async def test_a_missing_library_is_told_with_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    duckdb = await refused(sql(f"duckdb:///{tmp_path}/x"), "list_tables")
    assert "DuckDB is missing" in duckdb
    assert "pip install 'gossamer[sql]'" in duckdb
    postgres = await refused(sql("postgresql://u:hunter2@127.0.0.1/x"), "list_tables")
    assert "psycopg is missing" in postgres
    assert "pip install 'gossamer[sql]'" in postgres
    assert "hunter2" not in postgres
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(ToolkitError, match=r"pip install .*gossamer\[dataframes\]"):
        await Agent(ScriptedModel(["done"]), tools=[dataframes(tmp_path)]).run("go")


async def test_a_missing_git_is_told_with_how_to_get_it(monkeypatch, tmp_path):
    require("git")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=60)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install git" in await refused(git(tmp_path), "git_status")


def test_a_missing_service_skips_a_test_and_fails_it_where_all_has_to_be_there(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Postgres is not there; get it with: make services"):
        missing("Postgres", "make services")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="make services"):
        require("no-such-program")


def test_importing_the_toolkits_loads_nothing_heavy():
    program = "import sys, gossamer.tools.builtin; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"duckdb", "psycopg", "sqlite3", "docstring_parser", "httptools"} & set(loaded.stdout.split())
