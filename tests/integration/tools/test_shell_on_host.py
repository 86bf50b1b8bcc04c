"""Programs on this machine: real ones, in a folder of the test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from tests.integration.tools.calling import function, given, refused

from gossamer import Agent, Approve, ArgumentError, Deny, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import shell_on_host


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder on PATH, for programs of the test; `py` is this Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "py").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    return place


def free(allow, folder, **options):
    return shell_on_host(allow, folder, needs_approval=False, **options)


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def gone(process: int) -> None:
    async with asyncio.timeout(10):
        while not is_gone(process):
            await asyncio.sleep(0.01)


async def written(file: Path) -> str:
    async with asyncio.timeout(20):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.01)
    return file.read_text()


async def test_a_program_runs_in_the_folder_and_gets_its_arguments_as_they_are(programs, folder):
    (folder / "a b").write_text("1")
    toolkit = free(["py", "ls"], folder)
    assert await given(toolkit, "run_command", argv=["ls"]) == "exit code 0\nstdout:\na b"
    code = "import sys, os; print(sys.argv[1:], os.getcwd()); print('x', file=sys.stderr); sys.exit(3)"
    wild = ["*", "$HOME", "; rm -rf x", "`id`", "| cat", ""]
    assert await given(toolkit, "run_command", argv=["py", "-c", code, *wild]) == (
        f"exit code 3\nstdout:\n{wild} {folder}\nstderr:\nx"
    )


async def test_nothing_of_the_environment_is_seen_but_what_was_named(programs, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}{os.environ['PATH']}")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    said = await given(
        free(["py"], folder, environment={"MINE": "1"}), "run_command", argv=["py", "-S", "-c", code]
    )
    seen = json.loads(said.splitlines()[2])
    seen.pop("LC_CTYPE", None)  # Python's own
    assert seen == {
        "PATH": os.environ["PATH"].removeprefix(f".{os.pathsep}{os.pathsep}"),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "MINE": "1",
    }


async def test_there_is_nothing_to_read_from_standard_input(programs, folder):
    assert await given(free(["cat"], folder), "run_command", argv=["cat"]) == "exit code 0"


async def test_a_flood_is_cut_in_the_middle_and_bytes_that_are_no_text_are_replaced(programs, folder):
    toolkit = free(["py"], folder, max_output=1000)
    code = "import sys; w = sys.stdout.buffer.write; w(b'\\xff' + b'a' * 9_999_999 + b'b' * 10_000_000)"
    said = await given(toolkit, "run_command", argv=["py", "-c", code])
    assert said == f"exit code 0\nstdout:\n\ufffd{'a' * 499}\n[19,999,000 bytes left out]\n{'b' * 500}"


async def test_how_much_of_two_floods_is_left_out_is_told_also_where_time_ended_them(programs, folder):
    code = (
        "import sys; w = sys.stdout.write; w('a' * 10**6); sys.stderr.write('b' * 10**7); sys.stdout.flush()"
    )
    said = await given(free(["py"], folder, max_output=1000), "run_command", argv=["py", "-c", code])
    assert said == (
        f"exit code 0\nstdout:\n{'a' * 500}\n[999,000 bytes left out]\n{'a' * 500}\n"
        f"stderr:\n{'b' * 500}\n[9,999,000 bytes left out]\n{'b' * 500}"
    )
    waits = f"{code}; open('done', 'w').close(); import time; time.sleep(1000)"
    said = await refused(free(["py"], folder, timeout=3), "run_command", argv=["py", "-c", waits])
    assert (folder / "done").exists()
    assert said.count("a" * 800) == said.count("b" * 800) == 2
    assert said.count(" left out]") == 2
    assert "[998,400 bytes left out]" in said
    assert "[9,998,400 bytes left out]" in said
    assert said.endswith("py took longer than 3 seconds and was ended")


async def test_a_signal_that_ended_it_is_named(programs, folder):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    said = await given(free(["py"], folder), "run_command", argv=["py", "-c", code])
    assert said == "ended by the signal SIGSEGV"


# What starts a process that goes on, and tells its number in a file.
_TELLS_CHILD = """
import os, sys, time
child = os.fork()
if child == 0:
    time.sleep(1000)
    os._exit(0)
open("pid.tmp", "w").write(str(child))
os.rename("pid.tmp", "pid")
print("so far", flush=True)
"""


async def test_time_ends_it_and_all_that_it_started_whether_they_want_to_or_not(programs, folder):
    line = "trap '' TERM; sleep 1000 & echo $! $$ > pids; echo so far; sleep 1000"
    said = await refused(free(["sh"], folder, timeout=1.5), "run_command", argv=["sh", "-c", line])
    assert said == (
        "run_command failed: CommandError: stdout:\nso far\nsh took longer than 1.5 seconds and was ended"
    )
    for process in (folder / "pids").read_text().split():
        await gone(int(process))


async def test_what_a_program_leaves_behind_ends_with_it_and_is_not_waited_for(programs, folder):
    said = await given(free(["py"], folder), "run_command", argv=["py", "-c", _TELLS_CHILD])
    assert said == "exit code 0\nstdout:\nso far"
    await gone(int((folder / "pid").read_text()))


async def test_what_goes_on_writing_behind_a_program_is_not_waited_for(programs, folder):
    line = "for one in 1 2 3 4; do yes & echo $! >> pids; done"
    toolkit = free(["sh"], folder, max_output=200, timeout=20)
    said = await given(toolkit, "run_command", argv=["sh", "-c", line])
    assert said.startswith("exit code 0\nstdout:\ny\ny\n")
    for process in (folder / "pids").read_text().split():
        await gone(int(process))


async def test_it_ends_when_the_run_is_cancelled(programs, folder):
    toolkit = free(["py"], folder)
    task = asyncio.create_task(
        function(toolkit, "run_command")(["py", "-c", f"{_TELLS_CHILD}\ntime.sleep(1000)"])
    )
    process = int(await written(folder / "pid"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(process)


async def test_only_what_is_named_runs(programs, folder):
    said = await refused(free(["ls"], folder), "run_command", argv=["cat", "/etc/passwd"])
    assert said.startswith("run_command failed: CommandError: 'cat' may not be run; these may: ls.")
    said = await refused(free(["ls"], folder), "run_command", argv=["ls", "x" * 200_000])
    assert "at most 100,000" in said


async def test_a_program_that_is_gone_or_broken_is_told(programs, folder):
    broken = programs / "broken"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    toolkit = free(["broken"], folder)
    assert "CommandError: broken cannot be run: " in await refused(toolkit, "run_command", argv=["broken"])
    broken.unlink()
    assert "CommandError: broken cannot be run: " in await refused(toolkit, "run_command", argv=["broken"])


def test_what_cannot_be_allowed_is_refused_when_the_toolkit_is_made(programs, folder, monkeypatch):
    with pytest.raises(ArgumentError, match="'no-such-program' is not on PATH"):
        shell_on_host(["no-such-program"], folder)
    with pytest.raises(ArgumentError, match="allow names no program"):
        shell_on_host([], folder)
    with pytest.raises(ArgumentError, match="without '/'"):
        shell_on_host(["/bin/ls"], folder)
    with pytest.raises(ArgumentError, match="folder must be a folder"):
        shell_on_host(["ls"], folder / "nowhere")
    (folder / "file").write_text("")
    with pytest.raises(ArgumentError, match="folder must be a folder"):
        shell_on_host(["ls"], folder / "file")
    with pytest.raises(ArgumentError, match="timeout"):
        shell_on_host(["ls"], folder, timeout=0)
    mine = folder / "bin" / "mine"
    mine.parent.mkdir()
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    (programs / "linked").symlink_to(mine)
    monkeypatch.setenv("PATH", f"{mine.parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("mine", "linked"):
        with pytest.raises(ArgumentError, match="in the working folder, where a command could change it"):
            shell_on_host([name], folder)


async def test_a_person_decides_before_anything_runs(programs, folder):
    argv = ["py", "-c", "open('made', 'w')"]
    model = ScriptedModel(
        [ToolCall.of("run_command", argv=argv), "a", ToolCall.of("run_command", argv=argv), "b"]
    )
    agent = Agent(model, tools=[shell_on_host(["py"], folder)])
    for decision, there in ((Deny("no"), False), (Approve(), True)):
        paused = await agent.run("go")
        (call,) = paused.pending
        assert not (folder / "made").exists()
        await agent.resume(paused.session, {call.call_id: decision})
        assert (folder / "made").exists() is there


async def test_a_function_of_the_arguments_says_which_a_person_decides_about(programs, folder):
    toolkit = shell_on_host(["ls", "py"], folder, needs_approval=lambda argv: argv[0] == "py")
    model = ScriptedModel(
        [ToolCall.of("run_command", argv=["ls"]), ToolCall.of("run_command", argv=["py", "-V"])]
    )
    paused = await Agent(model, tools=[toolkit]).run("go")
    assert [json.loads(one.call.arguments)["argv"] for one in paused.pending] == [["py", "-V"]]
