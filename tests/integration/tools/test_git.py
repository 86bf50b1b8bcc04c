"""A git repository for a model: what it reads, and what it adds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from tests.integration.tools.calling import given, names, refused
from tests.services import require

from gossamer import Agent, ArgumentError, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import git

READERS = ["git_status", "git_log", "git_diff", "git_show", "git_blame"]
READERS += ["git_branches", "git_list_files", "git_read_file", "git_grep"]
WRITERS = ["git_add", "git_commit", "git_create_branch", "git_switch"]
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05+00:00",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05+00:00",
}


def run(folder, *arguments) -> str:
    """Run git as a person would."""
    ran = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    require("git")
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a.txt").write_text("one\ntwo\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "größe.md").write_text("# Größe\n")
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "-m", "Begin")
    run(folder, "tag", "v1")
    (folder / "a.txt").write_text("one\nTWO\n")
    run(folder, "commit", "--quiet", "-am", "Shout [loud]")
    return folder


@pytest.fixture
def kit(repository):
    return git(repository)


def test_writing_has_to_be_asked_for(repository):
    assert names(git(repository)) == READERS
    assert names(git(repository, writable=True)) == READERS + WRITERS


async def test_reads_the_history(kit, repository):
    log = await given(kit, "git_log")
    assert [line.split(" ", 1)[1] for line in log.splitlines()] == [
        "2026-01-02T03:04:05+00:00 Ada: Shout [loud]",
        "2026-01-02T03:04:05+00:00 Ada: Begin",
    ]
    assert "Begin" not in await given(kit, "git_log", limit=1)
    assert "Shout" not in await given(kit, "git_log", path="docs")
    assert "Begin" not in await given(kit, "git_log", search="[LOUD]")
    assert await given(kit, "git_log", search="nothing") == "no commit"
    shown = await given(kit, "git_show", revision="main")
    assert "-two\n+TWO" in shown
    assert "Shout [loud]" in shown
    assert "a.txt" not in await given(kit, "git_show", revision="v1", path="docs")
    blamed = (await given(kit, "git_blame", path="a.txt", last=2)).splitlines()
    assert blamed[0].startswith("^")
    assert "TWO" in blamed[1]
    branches = await given(kit, "git_branches")
    assert "* main" in branches
    assert "v1" in branches


async def test_reads_files_of_a_revision(kit, repository):
    assert await given(kit, "git_list_files") == "a.txt\ndocs/größe.md"
    assert await given(kit, "git_list_files", path="docs") == "docs/größe.md"
    assert await given(kit, "git_list_files", path="none") == "no file"
    assert await given(kit, "git_read_file", path="a.txt", revision="v1") == "one\ntwo\n"
    assert await given(kit, "git_read_file", path="./docs/größe.md") == "# Größe\n"
    assert await given(kit, "git_grep", text="TWO") == "a.txt:2:TWO"
    assert await given(kit, "git_grep", text="two", revision="v1") == "a.txt:2:two"
    assert await given(kit, "git_grep", text="Two", ignore_case=True, path="docs") == "no line has that text"
    assert await given(kit, "git_grep", text=".") == "no line has that text"  # letter by letter
    for path in ("none", "docs", "a.txt/x"):
        assert "GitError" in await refused(kit, "git_read_file", path=path)


async def test_shows_what_changed(kit, repository):
    assert await given(kit, "git_status") == "## main"
    assert await given(kit, "git_diff") == "no changes"
    (repository / "a.txt").write_text("one\nthree\n")
    (repository / "new.txt").write_text("new\n")
    assert await given(kit, "git_status") == "## main\n M a.txt\n?? new.txt"
    assert "+three" in await given(kit, "git_diff")
    assert await given(kit, "git_diff", staged=True) == "no changes"
    assert "-two\n+three" in await given(kit, "git_diff", since="v1")
    assert "-two\n+TWO" in await given(kit, "git_diff", since="v1", until="HEAD")
    assert await given(kit, "git_diff", path="docs") == "no changes"
    assert "until goes with since" in await refused(kit, "git_diff", until="HEAD")


async def test_adds_commits_and_branches(repository):
    kit = git(repository, writable=True, author="Gossamer Bot <bot@example.org>")
    (repository / "new.txt").write_text("new\n")
    (repository / "a.txt").unlink()
    assert await given(kit, "git_create_branch", name="feature/x") == "on branch feature/x"
    assert await given(kit, "git_add", paths=["new.txt", "a.txt"]) == "## feature/x\nD  a.txt\nA  new.txt"
    assert "Gossamer Bot: Add --new" in await given(kit, "git_commit", message="Add --new\n\nThe why.")
    assert run(repository, "log", "-1", "--format=%an <%ae>|%cn|%B") == (
        "Gossamer Bot <bot@example.org>|Gossamer Bot|Add --new\n\nThe why."
    )
    assert "nothing to commit" in await refused(kit, "git_commit", message="Again")
    assert await given(kit, "git_switch", name="main") == "on branch main"
    assert (repository / "a.txt").exists()
    assert await given(kit, "git_create_branch", name="old", start="v1", switch=False) == "made branch old"
    assert run(repository, "rev-parse", "old") == run(repository, "rev-parse", "v1^{commit}")
    (repository / "a.txt").write_text("would be lost\n")
    assert "overwritten" in await refused(kit, "git_switch", name="feature/x")
    assert "already exists" in await refused(kit, "git_create_branch", name="old")
    assert "invalid reference" in await refused(kit, "git_switch", name="nothing")


async def test_a_commit_needs_an_author(repository):
    kit = git(repository, writable=True)
    (repository / "new.txt").write_text("new\n")
    await given(kit, "git_add", paths=["."])
    assert "tell me who you are" in await refused(kit, "git_commit", message="Who")
    run(repository, "config", "user.name", "Repo")
    run(repository, "config", "user.email", "repo@example.org")
    assert "Repo: Who" in await given(kit, "git_commit", message="Who")


async def test_a_person_may_be_asked_before_a_write(repository):
    kit = git(repository, writable=True, needs_approval=True)
    model = ScriptedModel([[ToolCall.of("git_status"), ToolCall.of("git_add", paths=["."])]])
    result = await Agent(model, tools=[kit]).run("go")
    assert [pending.call.name for pending in result.pending] == ["git_add"]


async def test_output_is_bounded(repository):
    (repository / "long.txt").write_text("".join(f"line {number}\n" for number in range(100_000)))
    (repository / "binary").write_bytes(b"\0" * 1000)
    run(repository, "add", ".")
    run(repository, "commit", "--quiet", "-m", "Long")
    kit = git(repository, max_output=1_000)
    shown = await given(kit, "git_show")
    assert "cut at 1000 bytes" in shown
    assert len(shown) < 1_100
    text = await given(kit, "git_read_file", path="long.txt")
    assert text.endswith("[read on at offset 1000]")
    onwards = await given(kit, "git_read_file", path="long.txt", offset=1000)
    assert (text.split("\n[read")[0] + onwards).startswith(
        "".join(f"line {number}\n" for number in range(150))
    )
    size = (repository / "long.txt").stat().st_size
    assert await given(kit, "git_read_file", path="long.txt", offset=size - 11) == "line 99999\n"
    assert "nothing at offset" in await refused(kit, "git_read_file", path="long.txt", offset=10**9)
    assert "binary" in await refused(kit, "git_read_file", path="binary")
    assert (await given(kit, "git_log", limit=1)).endswith("Ada: Long")


async def test_a_bare_repository_is_read(repository, tmp_path):
    run(tmp_path, "clone", "--quiet", "--bare", str(repository), "bare.git")
    kit = git(tmp_path / "bare.git")
    assert "Shout" in await given(kit, "git_log")
    assert await given(kit, "git_read_file", path="a.txt") == "one\nTWO\n"
    assert "GitError" in await refused(kit, "git_status")


async def test_a_further_working_tree_is_read(repository, tmp_path):
    run(repository, "worktree", "add", "--quiet", "-b", "second", str(tmp_path / "second"))
    kit = git(tmp_path / "second", writable=True, author="A <a@example.org>")
    (tmp_path / "second" / "b.txt").write_text("b\n")
    assert await given(kit, "git_status") == "## second\n?? b.txt"
    await given(kit, "git_add", paths=["b.txt"])
    assert "A: Second" in await given(kit, "git_commit", message="Second")


async def test_an_empty_repository_says_so(tmp_path):
    run(tmp_path, "init", "--quiet", "--initial-branch=main")
    kit = git(tmp_path)
    assert "No commits yet" in await given(kit, "git_status")
    assert "no revision 'HEAD'" in await refused(kit, "git_log")
    assert await given(kit, "git_branches") == "no branch"


# --- stopping ---------------------------------------------------------------------------------------------------


def processes_below(folder) -> list[str]:
    """Name the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
    return found


@pytest.fixture
def stuck(repository):
    """A repository on which `git log` waits: what branches there are is to be read from a pipe."""
    (repository / ".git" / "packed-refs").unlink(missing_ok=True)
    os.mkfifo(repository / ".git" / "packed-refs")
    return repository


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks for processes in /proc, which is Linux's")
async def test_git_is_ended_when_its_time_is_over(stuck):
    told = await refused(git(stuck, timeout=0.3), "git_log", revision="nothing")
    assert "longer than 0.3 seconds" in told
    assert processes_below(stuck) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks for processes in /proc, which is Linux's")
async def test_git_is_ended_when_the_run_is_cancelled(stuck):
    agent = Agent(ScriptedModel([ToolCall.of("git_log", revision="nothing")]), tools=[git(stuck)])
    task = asyncio.create_task(agent.run("go"))
    async with asyncio.timeout(20):
        while not processes_below(stuck):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_below(stuck) == []


# --- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"author": "nobody"}, "author"),
        ({"author": "A <b>\nC <d>"}, "author"),
        ({"timeout": 0}, "timeout"),
        ({"max_output": 0}, "max_output"),
    ],
)
def test_arguments_are_checked(repository, arguments, told):
    with pytest.raises(ArgumentError, match=told):
        git(repository, **arguments)


def test_a_repository_must_be_there(repository, tmp_path):
    for path in (tmp_path, tmp_path / "none", repository / "docs", 5):
        with pytest.raises(ArgumentError, match="repository"):
            git(path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("git_log", {"limit": 0}),
        ("git_log", {"limit": 10**6}),
        ("git_log", {"revision": 1}),
        ("git_log", {"output": "x"}),
        ("git_blame", {}),
        ("git_blame", {"path": "a.txt", "first": 0}),
        ("git_add", {"paths": "a.txt"}),
        ("git_commit", {}),
    ],
)
async def test_arguments_that_do_not_fit_are_told(repository, name, arguments):
    assert f"Invalid arguments for {name}" in await refused(git(repository, writable=True), name, **arguments)
