"""Programs for a model, in a box of bubblewrap."""

from __future__ import annotations

import pytest
from tests.integration.tools.calling import call, given, refused

from gossamer import Agent, Session, ToolCall, Toolkit
from gossamer.errors import SandboxUnavailableError
from gossamer.models import ScriptedModel
from gossamer.sandbox import BubblewrapSandbox, SandboxLimits
from gossamer.tools import sandbox_session
from gossamer.tools.builtin import shell


@pytest.fixture
async def sandbox(bubblewrap):
    async with BubblewrapSandbox(
        limits=SandboxLimits(timeout=3.0, output_bytes=100_000), size=2, warm=1
    ) as one:
        yield one


async def converse(toolkit: Toolkit, session: Session, *commands: list[str]) -> list[str]:
    """Let a model run programs, a turn each, and give what it sees of it in this run."""
    model = ScriptedModel([*(ToolCall.of("run_command", argv=argv) for argv in commands), "done"])
    result = await Agent(model, tools=[toolkit]).run("go", session=session)
    return [part.text for message in result.new_messages if message.role == "tool" for part in message.parts]


async def test_programs_work_on_files_that_last_for_the_conversation(sandbox):
    toolkit = shell(["sort", "cp", "wc", "cat"], sandbox=sandbox, files={"names.txt": "Ben\nAda\n"})
    async with Session() as session:
        seen = await converse(
            toolkit,
            session,
            ["sort", "names.txt", "-o", "sorted.txt"],
            ["cat", "sorted.txt"],
            ["wc", "-l", "names.txt"],
            ["cat", "nothing"],
        )
        assert seen == [
            "exit code 0\nfiles written: sorted.txt (8 bytes)",
            "exit code 0\nstdout:\nAda\nBen",
            "exit code 0\nstdout:\n2 names.txt",
            "exit code 1\nstderr:\ncat: nothing: No such file or directory",
        ]
        assert await (await sandbox_session(toolkit, session)).read("sorted.txt") == b"Ada\nBen\n"
    async with Session() as other:
        assert (await converse(toolkit, other, ["cat", "sorted.txt"]))[0].startswith("exit code 1")


async def test_no_shell_reads_the_arguments(sandbox):
    toolkit = shell(["echo"], sandbox=sandbox)
    said = await given(toolkit, "run_command", argv=["echo", "*", "$HOME", "; id", "`id`", "> x"])
    assert said == "exit code 0\nstdout:\n* $HOME ; id `id` > x"


async def test_nothing_of_this_machine_is_seen(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (tmp_path / "secret").write_text("s3cret")
    toolkit = shell(["cat", "env"], sandbox=sandbox)
    assert "No such file" in await given(toolkit, "run_command", argv=["cat", str(tmp_path / "secret")])
    assert "sk-secret" not in await given(toolkit, "run_command", argv=["env"])


async def test_a_program_that_takes_too_long_is_ended_and_a_new_session_begins(sandbox):
    toolkit = shell(["sleep", "cat", "sh"], sandbox=sandbox, files={"a": "1"}, timeout=0.5)
    async with Session() as session:
        seen = await converse(toolkit, session, ["sh", "-c", "echo so far; sleep 1000"], ["cat", "a"])
    assert seen[0].startswith("run_command failed: SandboxTimeoutError: stdout:\nso far\n")
    assert seen[0].endswith("the next call begins anew.")
    assert seen[1] == "exit code 0\nstdout:\n1"


async def test_too_much_output_is_a_limit_and_much_is_cut(sandbox):
    toolkit = shell(["seq"], sandbox=sandbox, max_output=200)
    said = await given(toolkit, "run_command", argv=["seq", "10000"])
    assert said.startswith("exit code 0\nstdout:\n1\n2\n")
    assert said.endswith("9999\n10000")
    assert "characters left out" in said
    assert "SandboxOutputError" in await refused(toolkit, "run_command", argv=["seq", "100000"])


async def test_a_program_that_the_sandbox_has_not_is_told(sandbox):
    said = await refused(shell(["no-such-program"], sandbox=sandbox), "run_command", argv=["no-such-program"])
    assert said.startswith("run_command failed: SandboxFileError: ")
    assert "'no-such-program' cannot be started in the sandbox" in said


async def test_where_bubblewrap_is_missing_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    made = tmp_path / "made"
    with pytest.raises(SandboxUnavailableError, match="apt-get install bubblewrap"):
        await call(shell(["touch"]), "run_command", argv=["touch", str(made)])
    assert not made.exists()
