"""Scripts of skills, in a box of bubblewrap."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.integration.tools.calling import given, refused
from tests.integration.tools.fake_sandbox import FakeSandbox

from gossamer import Agent, ArgumentError
from gossamer.models import ScriptedModel
from gossamer.sandbox import BubblewrapSandbox, Execution, SandboxLimits
from gossamer.tools import skills


@pytest.fixture
def skill(tmp_path) -> Path:
    place = tmp_path / "skills" / "tax"
    (place / "scripts").mkdir(parents=True)
    (place / "SKILL.md").write_text("---\nname: tax\ndescription: About tax.\n---\nRun scripts/sum.py.\n")
    (place / "rates.csv").write_text("it,22\nde,19\n")
    return place


def script(skill: Path, name: str, text: str, mode: int = 0o644) -> str:
    path = skill / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return name


@pytest.fixture
async def sandbox(bubblewrap):
    async with BubblewrapSandbox(limits=SandboxLimits(timeout=10.0), size=2, warm=1) as one:
        yield one


async def run(skill: Path, sandbox, path: str, *args: str) -> str:
    return await given(
        skills(skill, sandbox=sandbox), "run_skill_script", name="tax", path=path, args=list(args)
    )


async def test_a_script_runs_in_the_folder_of_its_skill_and_gets_its_arguments(skill, sandbox):
    code = "import sys\nprint(sys.argv[1:], open('rates.csv').read().split())\nsys.exit(3)\n"
    path = script(skill, "scripts/sum.py", code)
    assert await run(skill, sandbox, path, "a b", "--x", "*") == (
        "exit code 3\nstdout:\n['a b', '--x', '*'] ['it,22', 'de,19']"
    )


async def test_a_script_has_the_packages_of_the_sandbox_and_runs_in_its_python(skill, bubblewrap):
    code = "import sys, packaging\nprint(sys.version_info[:3], packaging.__name__)"
    path = script(skill, "a.py", code)
    async with BubblewrapSandbox(["packaging"], warm=1) as sandbox:
        assert await run(skill, sandbox, path) == f"exit code 0\nstdout:\n{sys.version_info[:3]} packaging"
    async with BubblewrapSandbox(warm=1) as sandbox:
        assert "No module named 'packaging'" in await run(skill, sandbox, path)


async def test_what_it_writes_is_named_and_shown_and_changes_nothing_of_the_skill(skill, sandbox):
    code = (
        "open('out.csv', 'w').write('1,2\\n'); open('rates.csv', 'a').write('fr,20\\n')\n"
        "open('picture.png', 'wb').write(b'\\x89PNG\\0')\nopen('long.txt', 'w').write('x' * 20_000)\n"
    )
    path = script(skill, "scripts/write.py", code)
    said = await run(skill, sandbox, path)
    assert said == (
        "exit code 0\n"
        "files written: long.txt (20,000 bytes), out.csv (4 bytes), picture.png (5 bytes), rates.csv (18 bytes)\n"
        "out.csv:\n1,2\n"
        "rates.csv:\nit,22\nde,19\nfr,20"
    )
    assert (skill / "rates.csv").read_text() == "it,22\nde,19\n"
    assert sorted(one.name for one in skill.iterdir()) == ["SKILL.md", "rates.csv", "scripts"]
    assert "out.csv" not in await run(skill, sandbox, script(skill, "list.sh", "ls"))  # nor of the next call


async def test_links_and_what_is_hidden_are_not_copied(skill, sandbox, tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    (skill / "linked").symlink_to(tmp_path / "secret")
    (skill / ".env").write_text("KEY=1")
    said = await run(skill, sandbox, script(skill, "list.sh", "ls -A; cat linked .env"))
    assert said.startswith("exit code 1\nstdout:\nSKILL.md\nlist.sh\nrates.csv\nstderr:\n")


@pytest.mark.parametrize(
    ("name", "text", "mode", "argv"),
    [
        ("a.py", "", 0o644, ["python3"]),
        ("a.py", "#!/usr/bin/env -S uv run --script\n", 0o755, ["python3"]),
        ("a.PY", "", 0o644, ["python3"]),
        ("a.js", "", 0o644, ["node"]),
        ("a.mjs", "", 0o644, ["node"]),
        ("a.sh", "", 0o644, ["sh"]),
        ("a.bash", "", 0o644, ["bash"]),
        ("a.sh", "#!/bin/bash -e\n", 0o644, ["/bin/bash", "-e"]),
        ("a.sh", "#!/usr/bin/env bash\r\n", 0o644, ["bash"]),
        ("a.sh", "#!\n", 0o644, ["sh"]),
        ("a.sh", "#!/usr/bin/env\n", 0o644, ["sh"]),
        ("tool", "#!/usr/bin/awk -f -v\n", 0o755, ["/usr/bin/awk", "-f -v"]),
        ("tool", "#! /usr/bin/env -S perl -w\n", 0o755, ["perl", "-w"]),
        ("-tool.rb", "#!/usr/bin/ruby", 0o755, ["/usr/bin/ruby"]),
    ],
)
async def test_what_runs_a_script(skill, name, text, mode, argv):
    fake = FakeSandbox(lambda *_: Execution(value=0))
    path = script(skill, f"scripts/{name}", text, mode)
    assert await run(skill, fake, path, "1") == "exit code 0"
    assert fake.asked == [([*argv, f"./{path}", "1"], None)]
    assert set(fake.used[0].put[0]) == {"SKILL.md", "rates.csv", path}
    assert fake.used[0].closed


@pytest.mark.parametrize(
    ("name", "text", "mode", "says"),
    [
        ("tool", "echo", 0o755, "it names none in a first line"),
        ("tool", "#!/bin/sh\n", 0o644, "it is not executable"),
        ("tool", "#!/usr/bin/env -i sh\n", 0o755, "it names none in a first line"),
        ("a.exe", "MZ", 0o755, "its suffix tells no program"),
        ("a.py", "x", 0o644, "an argument has a NUL"),
    ],
)
async def test_what_cannot_be_run_is_told(skill, name, text, mode, says):
    path = script(skill, name, text, mode)
    toolkit = skills(skill, sandbox=FakeSandbox())
    assert says in await refused(toolkit, "run_skill_script", name="tax", path=path, args=["a\0"])


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("tax", "../../secret.py", "'..'"),
        ("tax", "/bin/ls", "absolute"),
        ("tax", "nowhere.py", "read_skill tells which files there are"),
        ("tax", "scripts", "it is a folder"),
        ("tax", ".hidden.py", "is hidden"),
        ("tax", "linked.py", "symbolic link"),
        ("tax", "", "cannot be meant"),
        ("vat", "a.py", "there is no skill 'vat'"),
    ],
)
async def test_a_path_cannot_leave_the_skill(skill, tmp_path, name, path, says):
    (tmp_path / "secret.py").write_text("")
    (skill / ".hidden.py").write_text("")
    (skill / "linked.py").symlink_to(tmp_path / "secret.py")
    fake = FakeSandbox()
    assert says in await refused(skills(skill, sandbox=fake), "run_skill_script", name=name, path=path)
    assert not fake.asked


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"file_bytes": 100}, "'big.bin' is too large for the sandbox: 101 bytes; a file has at most 100"),
        ({"disk_bytes": 150}, "is too large for the sandbox"),
        ({"files": 3}, "more than 3 files and folders"),
    ],
)
async def test_a_skill_that_is_larger_than_the_sandbox_takes_is_not_copied(skill, limits, says):
    (skill / "big.bin").write_bytes(b"x" * 101)
    path = script(skill, "scripts/a.py", "")
    fake = FakeSandbox(limits=SandboxLimits(**limits))
    assert says in await refused(skills(skill, sandbox=fake), "run_skill_script", name="tax", path=path)
    assert not fake.asked


async def test_a_script_that_takes_too_long_is_ended(skill, bubblewrap):
    path = script(skill, "slow.sh", "echo so far; sleep 1000")
    async with BubblewrapSandbox(limits=SandboxLimits(timeout=0.5), warm=1) as sandbox:
        said = await refused(skills(skill, sandbox=sandbox), "run_skill_script", name="tax", path=path)
    assert said.startswith("run_skill_script failed: SandboxTimeoutError: stdout:\nso far\n")


async def test_the_tool_is_there_with_a_sandbox_alone(skill):
    model = ScriptedModel(["done", "done"])
    await Agent(model, tools=[skills(skill)]).run("go")
    await Agent(model, tools=[skills(skill, sandbox=FakeSandbox())]).run("go")
    names = [[schema.name for schema in request.tools] for request in model.requests]
    assert names == [["read_skill", "read_skill_file"], ["read_skill", "read_skill_file", "run_skill_script"]]
    assert ["run_skill_script" in request.instructions for request in model.requests] == [False, True]


def test_a_sandbox_that_runs_no_programs_is_refused(skill):
    class OnlyPython:
        limits = SandboxLimits()

        def session(self):
            return object()

    with pytest.raises(ArgumentError, match="OnlyPython runs Python and no programs"):
        skills(skill, sandbox=OnlyPython())
