"""Nothing runs that a repository names, and no argument is taken for an option."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_any
from hypothesis import strategies as st
from tests.integration.tools.calling import call, given, refused
from tests.integration.tools.test_git import ENVIRONMENT, run
from tests.services import require

from gossamer import Agent, ArgumentError, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import git


@pytest.fixture
def repository(tmp_path):
    require("git")
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a.txt").write_text("one\n")
    run(folder, "add", ".")
    run(folder, "commit", "--quiet", "-m", "Begin")
    (folder / "a.txt").write_text("two\n")
    run(folder, "commit", "--quiet", "-am", "Go on")
    return folder


@pytest.fixture
def program(tmp_path):
    """A program that leaves a trace when it runs, whatever it is called as."""
    path = tmp_path / "evil"
    path.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/trace\n")
    path.chmod(0o755)
    return path


def traced(program) -> bool:
    trace = program.parent / "trace"
    ran = trace.exists()
    trace.unlink(missing_ok=True)
    return ran


def on_terminal(folder, *arguments):
    """Run git as a person at a terminal does, for whom it starts a pager too."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            ["git", *arguments], cwd=folder, env=ENVIRONMENT | {"GIT_EDITOR": ":", "PAGER": "cat"}, stdin=subprocess.DEVNULL,
            stdout=theirs, stderr=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)


def setting(repository, key, value):
    run(repository, "config", key, value)


def attribute(repository, words):
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "attributes").write_text(f"* {words}\n")


def hook(repository, program, name):
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    (repository / ".git" / "hooks" / name).symlink_to(program)


def dirty(repository):
    """A changed file whose time says nothing, so that git looks into it."""
    (repository / "a.txt").write_text("six\n")
    os.utime(repository / "a.txt", (1, 1))


def filters(repository, program, name="evil"):
    for one in ("clean", "smudge"):
        setting(repository, f"filter.{name}.{one}", str(program))
    setting(repository, f"filter.{name}.required", "true")
    attribute(repository, f"filter={name}")
    dirty(repository)


def included(repository, program):
    (repository / ".git" / "more").write_text(f'[filter "evil"]\nclean = {program}\nrequired\n')
    setting(repository, "include.path", "more")
    attribute(repository, "filter=evil")
    dirty(repository)


def long_running_filter(repository, program):
    setting(repository, "filter.evil.process", str(program))
    attribute(repository, "filter=evil")
    dirty(repository)


def worktree_settings(repository, program):
    setting(repository, "core.repositoryformatversion", "1")
    setting(repository, "extensions.worktreeConfig", "true")
    (repository / ".git" / "config.worktree").write_text(f"[core]\nfsmonitor = {program}\n")


def external_diff(repository, program):
    setting(repository, "diff.external", str(program))
    dirty(repository)


def driver(repository, program):
    setting(repository, "diff.evil.command", str(program))
    attribute(repository, "diff=evil")
    dirty(repository)


def converter(repository, program):
    setting(repository, "diff.evil.textconv", str(program))
    attribute(repository, "diff=evil")
    dirty(repository)


def signatures(repository, program):
    setting(repository, "log.showSignature", "true")
    setting(repository, "gpg.program", str(program))
    commit = run(repository, "cat-file", "commit", "HEAD")
    head, _, message = commit.partition("\n\n")
    signed = (
        f"{head}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n{message}\n"
    )
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repository, input=signed, env=ENVIRONMENT, text=True, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    run(repository, "update-ref", "HEAD", made)


def signing(repository, program):
    setting(repository, "commit.gpgSign", "true")
    setting(repository, "gpg.program", str(program))


def missing_objects(repository, program):
    """A partial clone: what is missing is fetched from a remote when it is read, by any program."""
    setting(repository, "core.repositoryformatversion", "1")
    setting(repository, "extensions.partialClone", "origin")
    setting(repository, "remote.origin.promisor", "true")
    setting(repository, "remote.origin.url", f"ext::{program} x")
    setting(repository, "protocol.ext.allow", "always")
    blob = run(repository, "rev-parse", "HEAD:a.txt")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def missing_objects_here(repository, program):
    missing_objects(repository, program)
    setting(repository, "remote.origin.url", str(repository))
    setting(repository, "remote.origin.uploadpack", str(program))
    setting(repository, "protocol.file.allow", "always")


# What a repository may hold, and a plain git command that falls for it.
TRAPS = {
    "filter": (filters, ["status"]),
    "filter with = and . in its name": (lambda r, p: filters(r, p, "e=v.il"), ["status"]),
    "filter of an included file": (included, ["status"]),
    "long-running filter": (long_running_filter, ["status"]),
    "monitor": (lambda r, p: setting(r, "core.fsmonitor", str(p)), ["status"]),
    "monitor of a worktree": (worktree_settings, ["status"]),
    "external diff": (external_diff, ["diff"]),
    "driver of a diff": (driver, ["diff"]),
    "converter": (converter, ["diff"]),
    "converter in blame": (converter, ["blame", "HEAD", "--", "a.txt"]),
    "converter in show": (converter, ["show"]),
    "pager": (lambda r, p: setting(r, "core.pager", str(p)), ["log"]),
    "pager of a command": (lambda r, p: setting(r, "pager.log", str(p)), ["log"]),
    "signatures": (signatures, ["log"]),
    "signing": (signing, ["commit", "--allow-empty", "-m", "x"]),
    "missing objects": (missing_objects, ["show"]),
    "missing objects here": (missing_objects_here, ["show"]),
    "hook before a commit": (lambda r, p: hook(r, p, "pre-commit"), ["commit", "--allow-empty", "-m", "x"]),
    "hook after a commit": (lambda r, p: hook(r, p, "post-commit"), ["commit", "--allow-empty", "-m", "x"]),
    "hook of a message": (lambda r, p: hook(r, p, "prepare-commit-msg"), ["commit", "--allow-empty", "-m", "x"]),
    "hook after a checkout": (lambda r, p: hook(r, p, "post-checkout"), ["switch", "-c", "x"]),
    "hook of the index": (lambda r, p: hook(r, p, "post-index-change"), ["add", "--renormalize", "."]),
    "hook of references": (lambda r, p: hook(r, p, "reference-transaction"), ["branch", "x"]),
    "hooks elsewhere": (lambda r, p: (hook(r, p, "pre-commit"), setting(r, "core.hooksPath", ".git/hooks")),
                        ["commit", "--allow-empty", "-m", "x"]),
}  # fmt: skip

CALLS = [
    ToolCall.of("git_status"),
    ToolCall.of("git_log", path="a.txt"),
    ToolCall.of("git_log"),
    ToolCall.of("git_diff"),
    ToolCall.of("git_diff", since="HEAD"),
    ToolCall.of("git_diff", since="HEAD~1", until="HEAD"),
    ToolCall.of("git_diff", staged=True),
    ToolCall.of("git_show"),
    ToolCall.of("git_blame", path="a.txt"),
    ToolCall.of("git_branches"),
    ToolCall.of("git_list_files"),
    ToolCall.of("git_read_file", path="a.txt"),
    ToolCall.of("git_grep", text="two"),
    ToolCall.of("git_add", paths=["."]),
    ToolCall.of("git_commit", message="Commit"),
    ToolCall.of("git_create_branch", name="branch"),
    ToolCall.of("git_switch", name="main"),
]


@pytest.mark.parametrize("trap", TRAPS)
async def test_nothing_runs_that_a_repository_names(repository, program, trap):
    lay, falls_for_it = TRAPS[trap]
    lay(repository, program)
    on_terminal(repository, *falls_for_it)
    assert traced(program), "the trap does not work on a plain git: this test would prove nothing"
    dirty(repository)
    kit = git(repository, writable=True, author="Bot <bot@example.org>")
    result = await Agent(ScriptedModel([[one] for one in CALLS] + ["done"]), tools=[kit]).run("go")
    outcomes = [message.parts[0] for message in result.messages if message.role == "tool"]
    assert len(outcomes) == len(CALLS)
    assert not traced(program)
    if "missing" not in trap:  # there an object is gone, and git says so
        assert [one.content for one in outcomes if one.outcome != "ok"] == []


async def test_no_variable_of_the_process_reaches_git(repository, program, monkeypatch):
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "PAGER", "GIT_SSH_COMMAND", "GIT_PROXY_COMMAND"):
        monkeypatch.setenv(name, str(program))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={program}'")
    dirty(repository)
    for name in ("git_diff", "git_log", "git_status"):
        await given(git(repository), name)
    assert not traced(program)


async def test_the_user_s_own_settings_are_not_read(repository, program, monkeypatch, tmp_path):
    (tmp_path / ".gitconfig").write_text(f"[core]\nfsmonitor = {program}\n[diff]\nexternal = {program}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    dirty(repository)
    await given(git(repository), "git_diff")
    assert not traced(program)


async def test_a_repository_does_not_say_where_its_files_are(repository, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (outside / "a.txt").write_text("secret")
    setting(repository, "core.worktree", str(outside))
    kit = git(repository, writable=True, author="Bot <bot@example.org>")
    assert await given(kit, "git_status") == "## main"
    assert await given(kit, "git_diff") == "no changes"
    assert "secret" not in await given(kit, "git_add", paths=["."])


async def test_no_file_behind_a_link_is_read(repository, tmp_path):
    """The index knows folder/secret as a file, and folder is a link to the outside."""
    (repository / "folder").mkdir()
    (repository / "folder" / "secret").write_text("inside\n")
    run(repository, "add", ".")
    run(repository, "commit", "--quiet", "-m", "Folder")
    outside = tmp_path / "outside"
    (repository / "folder").rename(outside)
    (outside / "secret").write_text("the secret outside\n")
    (repository / "folder").symlink_to(outside)
    (repository / "link").symlink_to(outside / "secret")
    kit = git(repository, writable=True, author="Bot <bot@example.org>")
    for name, arguments in [
        ("git_grep", {"text": "e"}),
        ("git_diff", {}),
        ("git_diff", {"since": "HEAD"}),
        ("git_add", {"paths": ["link"]}),
        ("git_diff", {"staged": True}),
        ("git_read_file", {"path": "folder/secret"}),
    ]:
        assert "the secret" not in await given(kit, name, **arguments)
    assert "GitError" in await refused(kit, "git_add", paths=["folder/secret"])


async def test_a_repository_that_lies_elsewhere_is_refused(repository, tmp_path):
    """Whoever makes a folder with such a file in it would have the model read another repository of the host."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / ".git").write_text(f"gitdir: {repository}/.git\n")
    with pytest.raises(ArgumentError, match="does not know of it"):
        git(trap)
    (trap / ".git").unlink()
    (trap / ".git").symlink_to(repository / ".git")
    with pytest.raises(ArgumentError, match=r"no git repository|does not know of it"):
        git(trap)
    (trap / ".git").unlink()
    run(trap, "init", "--quiet")
    (trap / ".git" / "commondir").write_text(str(repository / ".git"))
    assert "lies elsewhere" in await refused(git(trap), "git_log")


@pytest.mark.parametrize(
    "name", ["packed-refs", "shallow", "HEAD", "config", "info/attributes", "info/exclude"]
)
async def test_no_file_of_git_is_a_link(repository, tmp_path, name):
    (tmp_path / "secret").write_text("the secret word\n")
    (repository / ".git" / name).unlink(missing_ok=True)
    (repository / ".git" / name).symlink_to(tmp_path / "secret")
    for tool in ("git_status", "git_log", "git_branches"):
        told = await refused(git(repository), tool)
        assert "symbolic link" in told
        assert "the secret" not in told


async def test_the_repository_of_a_folder_above_is_not_taken(repository):
    inner = repository / "inner"
    (inner / ".git").mkdir(parents=True)  # looks like one and is none
    assert "not a git repository" in await refused(git(inner), "git_status")


async def test_a_file_that_settings_name_is_not_quoted(repository, tmp_path):
    (tmp_path / "secret").write_text("the secret word\n")
    setting(repository, "blame.ignoreRevsFile", str(tmp_path / "secret"))
    setting(repository, "mailmap.file", str(tmp_path / "secret"))
    assert "the secret" not in (await call(git(repository), "git_blame", path="a.txt")).content


async def test_blame_passes_over_listed_commits_and_reads_no_other_file(repository, tmp_path):
    kit = git(repository)
    for spelling in ("sum(1,2)\n", "sum(1, 2)\n"):
        (repository / "a.txt").write_text(spelling)
        run(repository, "commit", "--quiet", "-am", spelling)
    before, last = run(repository, "rev-parse", "HEAD~1"), run(repository, "rev-parse", "HEAD")
    assert (await given(kit, "git_blame", path="a.txt")).startswith(last[:7])
    (repository / "listed").write_text(f"# of style alone\n{last}  # the last\n\n")
    setting(repository, "blame.ignoreRevsFile", "listed")
    assert (await given(kit, "git_blame", path="a.txt")).startswith(before[:7])
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/zero", str(tmp_path / "pipe"), "nowhere", "a.txt", "."):
        setting(repository, "blame.ignoreRevsFile", name)
        assert "is no list of commits" in await refused(kit, "git_blame", path="a.txt")


@pytest.mark.parametrize(
    "revision",
    ["--output={outside}", "-O{outside}", "--all", "-p", "--", "", " ", "-", "HEAD\n--all", "HEAD\0", "x" * 300,
     "HEAD --output={outside}", "HEAD..v1", "^HEAD", ":a.txt", "HEAD:a.txt", "--exec=touch {outside}", "\u2014all",
     "--end-of-options", "@{{-1}}", "nothing"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("git_log", {"revision": None}),
        ("git_show", {"revision": None}),
        ("git_diff", {"since": None}),
        ("git_diff", {"since": "HEAD", "until": None}),
        ("git_blame", {"path": "a.txt", "revision": None}),
        ("git_list_files", {"revision": None}),
        ("git_read_file", {"path": "a.txt", "revision": None}),
        ("git_grep", {"text": "two", "revision": None}),
        ("git_create_branch", {"name": "x", "start": None}),
        ("git_create_branch", {"name": None}),
        ("git_switch", {"name": None}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
async def test_no_argument_is_taken_for_an_option(repository, tmp_path, name, arguments, revision):
    outside = tmp_path / "outside"
    before, head = run(repository, "for-each-ref"), run(repository, "rev-parse", "HEAD")
    filled = {
        key: revision.format(outside=outside) if value is None else value for key, value in arguments.items()
    }
    if filled == {"name": "nothing"} and name == "git_create_branch":
        return  # a name as good as any
    if revision == "\u2014all" and filled.get("name") == revision and name == "git_create_branch":
        return  # begins with a dash, but one of print
    told = await refused(git(repository, writable=True), name, **filled)
    assert "GitError" in told
    assert "usage:" not in told
    assert not outside.exists()
    assert (run(repository, "for-each-ref"), run(repository, "rev-parse", "HEAD")) == (before, head)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "",
        "\0",
        "a\nb",
        "x" * 5000,
        ":(top)*",
        "*",
        "--all",
        "-A",
    ],
)
async def test_no_path_is_a_pattern_an_option_or_leads_out(repository, tmp_path, path):
    (tmp_path / "outside").write_text("the secret outside")
    kit = git(repository, writable=True)
    for name, arguments in [
        ("git_add", {"paths": [path]}),
        ("git_read_file", {"path": path}),
        ("git_blame", {"path": path}),
    ]:
        told = await refused(kit, name, **arguments)
        assert "GitError" in told
        assert "the secret" not in told
    assert run(repository, "status", "--short") == ""


@pytest.mark.parametrize("paths", [[], ["a.txt"] * 101])
async def test_paths_are_counted(repository, paths):
    assert "paths must be 1 to 100" in await refused(git(repository, writable=True), "git_add", paths=paths)


@pytest.mark.parametrize("message", ["", " \n", "x" * 10_001, "a\0b"])
async def test_messages_are_checked(repository, message):
    assert "message" in await refused(git(repository, writable=True), "git_commit", message=message)


async def test_settings_of_a_repository_do_not_make_calls_fail(repository):
    for key in ("format.pretty", "log.date"):
        setting(repository, key, "of no kind")
    kit = git(repository, writable=True, author="Bot <bot@example.org>")
    dirty(repository)
    for one in CALLS:
        result = await call(kit, one.name, **json.loads(one.arguments))
        assert result.outcome == "ok", result.content


async def test_what_is_done_is_no_failure_where_only_its_report_is_one(repository):
    dirty(repository)
    kit = git(repository, writable=True, author="Bot <bot@example.org>")
    setting(repository, "status.showUntrackedFiles", "of no kind")
    assert (await given(kit, "git_add", paths=["."])).startswith("staged; git cannot show it: ")
    run(repository, "config", "--unset", "status.showUntrackedFiles")
    setting(repository, "log.diffMerges", "of no kind")
    assert (await given(kit, "git_commit", message="Six")).startswith("committed; git cannot show it: ")
    run(repository, "config", "--unset", "log.diffMerges")
    assert run(repository, "log", "-1", "--format=%s") == "Six"
    assert run(repository, "status", "--short") == ""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_any(
    text=st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=20)
)
async def test_any_text_is_searched_for_as_it_is(repository, text):
    log, grep = (next(t for t in git(repository).tools if t.name == name) for name in ("git_log", "git_grep"))
    assert await grep(text) == ("a.txt:1:two" if text in "two" else "no line has that text")
    found = [line for line in ("Go on", "Begin") if text.lower() in line.lower()]
    told = (await log(search=text)).splitlines()
    assert [line.partition(": ")[2] or line for line in told] == (found or ["no commit"])


@pytest.mark.parametrize("text", ["t", "two", " ", "o", "O", "n", "--all", "[", "\\", "*", "%", "^two"])
async def test_each_of_these_texts_is_searched_for_as_it_is(repository, text):
    found = await given(git(repository), "git_grep", text=text)
    assert found == ("a.txt:1:two" if text in "two" else "no line has that text")


async def test_a_number_of_a_commit_within_a_line_stays(repository):
    """The line names the commit that is searched; it can do so only because its files are replaced afterwards."""
    commit = run(repository, "rev-parse", "HEAD")
    (repository / "a.txt").write_text(f"in {commit}: two\n")
    run(repository, "commit", "--quiet", "-am", "Name it")
    run(repository, "replace", commit, "HEAD")
    found = await given(git(repository), "git_grep", text="two", revision=commit)
    assert found == f"a.txt:1:in {commit}: two"
