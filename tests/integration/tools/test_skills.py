"""Skills: folders that the model sees by name and summary and reads on demand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossamer import Agent, ToolCall, ToolResult
from gossamer.errors import ArgumentError
from gossamer.models import ScriptedModel
from gossamer.tools import Toolkit, skills
from gossamer.tools.builtin import FilesError

EXAMPLES = Path(__file__).parents[3] / "examples" / "skills"


def write(folder: Path, name: str, head: str | None = None, body: str = "Do it well.") -> Path:
    place = folder / name
    place.mkdir(parents=True)
    head = f"name: {name}\ndescription: About {name}." if head is None else head
    (place / "SKILL.md").write_text(f"---\n{head}\n---\n\n{body}\n")
    return place


async def call(toolkit: Toolkit, tool: str, **arguments: object) -> ToolResult:
    model = ScriptedModel([ToolCall.of(tool, **arguments), "done"])
    result = await Agent(model, tools=[toolkit]).run("go")
    assert result.output == "done"
    return result.messages[2].parts[0]


# --- what the model sees ------------------------------------------------------------------------------------


async def test_names_and_summaries_stand_in_the_system_prompt_and_bodies_do_not(tmp_path):
    write(
        tmp_path,
        "b-second",
        "description: |\n  Two\n  lines\nname: b-second\nlicense: MIT\nmetadata:\n  v: [1]",
    )
    write(tmp_path, "a-first", body="SECRET BODY")
    model = ScriptedModel(["done"])
    await Agent(model, instructions="Be brief.", tools=[skills(tmp_path)]).run("go")
    instructions = model.requests[0].instructions
    assert instructions.startswith("Be brief.\n\nSkills are folders")
    assert instructions.endswith("\n- a-first: About a-first.\n- b-second: Two lines")
    assert "SECRET" not in instructions
    assert [one.name for one in model.requests[0].tools] == ["read_skill", "read_skill_file"]


async def test_a_skill_is_read_without_its_front_matter_and_with_its_files(tmp_path):
    place = write(tmp_path, "pdf", body="# Body\n---\nMore")
    (place / "scripts").mkdir()
    (place / "scripts" / "fill.py").write_text("print(1)")
    (place / "LICENSE").write_text("x" * 1234)
    (place / ".env").write_text("KEY=1")
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("x")
    result = await call(skills(place), "read_skill", name="pdf")
    assert result.outcome == "ok"
    assert result.text == (
        "# Body\n---\nMore\n\nFiles of this skill:\n- LICENSE (1,234 bytes)\n- scripts/fill.py (8 bytes)"
    )
    result = await call(skills(place), "read_skill_file", name="pdf", path="./scripts//fill.py")
    assert (result.outcome, result.text) == ("ok", "print(1)")


async def test_what_changes_later_is_read_fresh(tmp_path):
    place = write(tmp_path, "pdf")
    toolkit = skills(tmp_path)
    assert (await call(toolkit, "read_skill", name="pdf")).text.startswith("Do it well.\n\nThis skill has no")
    (place / "SKILL.md").write_bytes(b"\xef\xbb\xbf---\r\nname: pdf\r\n---\r\nNew body\r\n")
    (place / "new.txt").write_text("new")
    assert (await call(toolkit, "read_skill", name="pdf")).text.startswith("New body\n\nFiles of this skill:")
    assert (await call(toolkit, "read_skill_file", name="pdf", path="new.txt")).text == "new"
    (place / "SKILL.md").unlink()
    result = await call(toolkit, "read_skill", name="pdf")
    assert (result.outcome, "'SKILL.md': there is no such file" in result.text) == ("error", True)


async def test_the_example_skills_keep_to_the_format():
    toolkit = skills(EXAMPLES)
    assert "- currency-report: " in toolkit.instructions
    assert "- meeting-notes: " in toolkit.instructions


async def test_several_folders_single_skills_among_them(tmp_path):
    one = write(tmp_path / "x", "one")
    write(tmp_path / "y", "two")
    (tmp_path / "y" / "not-a-skill").mkdir()
    (tmp_path / "y" / ".hidden").mkdir()
    (tmp_path / "y" / ".hidden" / "SKILL.md").write_text("broken")
    toolkit = skills(str(one), tmp_path / "y")
    assert [line.split(":")[0] for line in toolkit.instructions.splitlines()[1:]] == ["- one", "- two"]


async def test_a_long_file_is_kept_aside_and_a_binary_one_told_about(tmp_path):
    place = write(tmp_path, "pdf")
    (place / "long.txt").write_text("word " * 20_000)
    (place / "logo.png").write_bytes(b"\x89PNG\0\1\2")
    (place / "latin.txt").write_bytes("Käse".encode("latin-1"))
    toolkit = skills(tmp_path, max_file_bytes=200_000)
    result = await call(toolkit, "read_skill_file", name="pdf", path="long.txt")
    assert "offload-1" in result.text
    assert len(result.text) < 60_000
    for name, size in (("logo.png", 7), ("latin.txt", 4)):
        result = await call(toolkit, "read_skill_file", name="pdf", path=name)
        assert (result.outcome, result.text) == ("ok", f"{name} is no text: {size} bytes, not shown.")
    result = await call(
        skills(tmp_path, max_file_bytes=99_999), "read_skill_file", name="pdf", path="long.txt"
    )
    assert result.outcome == "error"
    assert "too long: 100,000 bytes, at most 99,999" in result.text


async def test_exactly_as_long_as_allowed_is_read(tmp_path):
    place = write(tmp_path, "pdf")
    (place / "full.txt").write_text("x" * 1000)
    toolkit = skills(tmp_path, max_file_bytes=1000)
    assert (await call(toolkit, "read_skill_file", name="pdf", path="full.txt")).text == "x" * 1000


async def test_many_files_are_listed_up_to_a_bound(tmp_path):
    place = write(tmp_path, "pdf")
    for number in range(150):
        (place / f"{number:03}.txt").write_text("")
    (place / "forged\n- other.txt").write_text("")
    deep = place
    for _ in range(40):
        deep = deep / "a"
    deep.mkdir(parents=True)
    lines = (await call(skills(tmp_path), "read_skill", name="pdf")).text.splitlines()
    assert lines[-1] == "- and more, not listed"
    assert len(lines) == 2 + 1 + 100 + 1
    assert not any("other.txt" in line for line in lines)


# --- a path cannot leave the folder -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../secret.txt", "has '..' in it"),
        ("a/../../secret.txt", "has '..' in it"),
        ("a/../inside.txt", "has '..' in it"),
        ("/etc/passwd", "is absolute"),
        ("inside.txt\0.md", "NUL"),
        ("", "the root folder itself"),
        (".", "the root folder itself"),
        ("a", "it is a folder"),
        ("a/..", "has '..' in it"),
        ("nothing.txt", "'nothing.txt': there is no such file or folder; read_skill tells which files"),
        ("inside.txt/more", "a part of it is no folder"),
        ("..\\secret.txt", "is hidden"),
        ("a\\..\\secret.txt", "there is no such file"),
        ("%2e%2e/secret.txt", "is hidden|there is no such file"),
        ("~/secret.txt", "there is no such file"),
        ("link.txt", "is a symbolic link"),
        ("linked/secret.txt", "or a symbolic link"),
        ("dangling", "is a symbolic link"),
        ("pipe", "not a regular file"),
        ("socket", "not a regular file"),
        (".env", "is hidden"),
        ("a/.env", "is hidden"),
        ("x" * 5000, "at most 4,096"),
        ("x" * 300, "the name is too long"),
        ("a/" * 100 + "b", "at most 32 components"),
    ],
)
async def test_paths_that_lead_elsewhere(tmp_path, path, says):
    (tmp_path / "secret.txt").write_text("SECRET")
    place = write(tmp_path / "s", "pdf")
    (place / "a").mkdir()
    (place / "a" / ".env").write_text("SECRET")
    (place / ".env").write_text("SECRET")
    (place / "inside.txt").write_text("inside")
    (place / "link.txt").symlink_to(tmp_path / "secret.txt")
    (place / "linked").symlink_to(tmp_path)
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(place)  # the address of a socket is short
        listening.bind("socket")
    finally:
        os.chdir(here)
        listening.close()
    result = await call(skills(place), "read_skill_file", name="pdf", path=path)
    assert result.outcome == "error"
    assert any(one in result.text for one in says.split("|")), result.text
    assert "SECRET" not in result.text
    listed = (await call(skills(place), "read_skill", name="pdf")).text
    assert listed.endswith("Files of this skill:\n- inside.txt (6 bytes)")


async def test_a_file_that_becomes_a_link_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("SECRET")
    place = write(tmp_path / "s", "pdf")
    toolkit = skills(place)
    (place / "SKILL.md").unlink()
    (place / "SKILL.md").symlink_to(tmp_path / "secret.txt")
    result = await call(toolkit, "read_skill", name="pdf")
    assert result.outcome == "error"
    assert "is a symbolic link" in result.text


async def test_a_folder_that_was_replaced_is_not_followed(tmp_path):
    elsewhere = write(tmp_path / "elsewhere", "pdf", body="SECRET")
    (elsewhere / "secret.txt").write_text("SECRET")
    for lay in (lambda place: place.symlink_to(elsewhere), lambda place: elsewhere.rename(place)):
        place = write(tmp_path / "s", "pdf")
        toolkit = skills(place)
        place.rename(tmp_path / f"old-{len(list(tmp_path.iterdir()))}")
        lay(place)
        for result in (
            await call(toolkit, "read_skill_file", name="pdf", path="secret.txt"),
            await call(toolkit, "read_skill", name="pdf"),
        ):
            assert (result.outcome, "SECRET" in result.text) == ("error", False)
            assert "replaced by another" in result.text
        if place.is_symlink():
            place.unlink()


async def test_hidden_folders_are_not_gone_into_and_what_is_left_out_is_told(tmp_path):
    place = write(tmp_path, "pdf")
    (place / "note.txt").write_text("")
    (place / ".git").mkdir()
    for number in range(10_001):
        (place / ".git" / str(number)).touch()
    listed = (await call(skills(place), "read_skill", name="pdf")).text
    assert listed.endswith("Files of this skill:\n- note.txt (0 bytes)")
    (place / ".git").rename(place / "many")
    listed = (await call(skills(place), "read_skill", name="pdf")).text
    assert listed.endswith("- and more, not listed")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(["..", ".", "", "a", "up", "/", "\0", "secret.txt", "SKILL.md"]),
            st.text(max_size=5),
        ),
        max_size=6,
    )
)
def test_no_path_reads_what_lies_outside(tmp_path, parts):
    place = tmp_path / "s" / "pdf"
    if not place.exists():
        write(tmp_path / "s", "pdf")
        (tmp_path / "secret.txt").write_text("SECRET")
        (tmp_path / "s" / "secret.txt").write_text("SECRET")
        (place / "a").mkdir()
        (place / "up").symlink_to("..")
    read = skills(place).tools[1]
    try:
        text = read("pdf", "/".join(parts))
    except FilesError:
        return
    assert "SECRET" not in text


# --- what the model may get wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "pfd"}, "there is no skill 'pfd'; there is pdf"),
        ({"name": ""}, "there is no skill ''"),
        ({"name": "../pdf"}, "there is no skill"),
        ({"name": "x" * 100_000}, "there is no skill"),
        ({}, "Invalid arguments"),
        ({"name": 7}, "Invalid arguments"),
        ({"name": "pdf", "path": "x"}, "Invalid arguments"),
    ],
)
async def test_calls_that_do_not_fit(tmp_path, arguments, says):
    write(tmp_path, "pdf")
    result = await call(skills(tmp_path), "read_skill", **arguments)
    assert result.outcome == "error"
    assert says in result.text
    assert len(result.text) < 1000


# --- folders that are no good -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must begin with front matter"),
        ("# No front matter", "must begin with front matter"),
        ("---\nname: pdf\ndescription: never closed", "must begin with front matter"),
        ("---\n---\nBody", "must be lines of 'key: value'"),
        ("---\n- a\n---\n", "must be lines of 'key: value'"),
        ("---\ndescription: x\n---\n", "has no name; add a line 'name: …'"),
        ("---\nname: pdf\n---\n", "has no description"),
        ("---\nname:\ndescription: x\n---\n", "the name is empty"),
        ("---\nname: pdf\ndescription: ' '\n---\n", "the description is empty"),
        ("---\nname: 7\ndescription: x\n---\n", "called '7', its folder 'pdf'"),
        ("---\nname: pdf\ndescription:\n---\n", "the description is empty"),
        ("---\nname: pdf\ndescription: [x]\n---\n", "the description must be text"),
        ("---\nname: PDF\ndescription: x\n---\n", "must be lower-case letters"),
        ("---\nname: -pdf\ndescription: x\n---\n", "must be lower-case letters"),
        ("---\nname: p--df\ndescription: x\n---\n", "must be lower-case letters"),
        ("---\nname: ../pdf\ndescription: x\n---\n", "must be lower-case letters"),
        (f"---\nname: {'a' * 65}\ndescription: x\n---\n", "has 65 characters, at most 64"),
        ("---\nname: other\ndescription: x\n---\n", "called 'other', its folder 'pdf'"),
        (f"---\nname: pdf\ndescription: {'x' * 1025}\n---\n", "1,025 characters, at most 1,024"),
        ("---\nname: pdf\ndescription: Use: this\n---\n", "line 3: the front matter is no YAML"),
        ("---\nname: pdf\ndescription: [\n---\n", "is no YAML"),
        ("---\nname: pdf\ndescription: !!python/object:os.system x\n---\n", "has a '!' before a value"),
        ("---\nname: pdf\ndescription: !!bool foo\n---\n", "has a '!' before a value"),
        ("---\nname: pdf\ndescription: !!int ''\n---\n", "has a '!' before a value"),
        ("---\nname: pdf\ndescription: !!timestamp foo\n---\n", "has a '!' before a value"),
        ("---\nname: pdf\ndescription: x\nk: !!set {a, b}\n---\n", "has a '!' before a value"),
        ("---\n!!map\nname: pdf\ndescription: x\n---\n", "has a '!' before a value"),
        ('---\nname: pdf\ndescription: "\\Uffffffff"\n---\n', "is no YAML"),
        ("---\nname: pdf\ndescription: x\n? [a]\n: b\n---\n", "is no YAML"),
        ("---\nname: pdf\ndescription: \x07\n---\n", "is no YAML"),
        (f"---\nname: pdf\ndescription: x\ndeep: {'[' * 3000}\n---\n", "more than 16 levels"),
        (f"---\nname: pdf\ndescription: x\ndeep: {'{a: ' * 900}\n---\n", "more than 16 levels"),
        (f"---\nname: pdf\ndescription: x\ndeep:\n{'- ' * 1900}x\n---\n", "more than 16 levels"),
        ("---\na: &a [x]\nb: [*a, *a]\nname: pdf\ndescription: x\n---\n", "refers to itself"),
        (f"---\nname: pdf\ndescription: x\n# {'x' * 20_000}\n---\n", "at most 4,096 may be"),
        (b"---\nname: pdf\ndescription: \xff\n---\n", "no text in UTF-8"),
        (b"---\nname: pdf\0\n---\n", "no text in UTF-8"),
    ],
)
def test_a_skill_that_does_not_keep_to_the_format_is_named(tmp_path, content, says):
    write(tmp_path, "fine")
    (tmp_path / "pdf").mkdir()
    file = tmp_path / "pdf" / "SKILL.md"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArgumentError) as caught:
        skills(tmp_path)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [
                *"[]{}:,-?!*&|>'\"%@`#\n \t\\",
                "!!int ",
                "!!bool ",
                "a",
                "9",
                "<<: ",
                "0x",
                "...",
                "\\U",
                "name: ",
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_any_front_matter_is_read_or_refused(tmp_path, head):
    place = tmp_path / "pdf"
    place.mkdir(exist_ok=True)
    (place / "SKILL.md").write_text(f"---\nname: pdf\ndescription: x\nk: {head}\n---\n")
    try:
        instructions = skills(place).instructions
    except ArgumentError:
        return
    assert "- pdf: " in instructions


def test_values_that_look_like_others_are_text(tmp_path):
    write(tmp_path, "7", "name: 7\ndescription: 2024-99-99\nk: 0x\nn: " + "9" * 3_000)
    assert skills(tmp_path).instructions.splitlines()[1:] == ["- 7: 2024-99-99"]


def test_a_description_cannot_look_like_more_than_one_entry(tmp_path):
    write(tmp_path, "pdf", 'name: pdf\ndescription: "One\\n- other: Two\\u2028- third: \\e[2J"')
    assert skills(tmp_path).instructions.splitlines()[1:] == ["- pdf: One - other: Two - third: [2J"]


def test_folders_that_hold_no_skill(tmp_path):
    with pytest.raises(ArgumentError, match="needs a folder"):
        skills()
    with pytest.raises(ArgumentError, match=r"'.*/nowhere' must be a folder"):
        skills(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="there is no skill in"):
        skills(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="must be a folder"):
        skills(tmp_path / "file")
    for wrong in ("", 7, None, b"x", "a\0b"):
        with pytest.raises(ArgumentError, match="folder"):
            skills(wrong)
    (tmp_path / "pdf").mkdir()
    (tmp_path / "pdf" / "skill.md").write_text("---\nname: pdf\n---\n")
    with pytest.raises(
        ArgumentError, match=r"pdf/skill\.md: the file of a skill is called SKILL\.md; rename"
    ):
        skills(tmp_path)


def test_a_skill_whose_file_cannot_be_read(tmp_path):
    (tmp_path / "pdf" / "SKILL.md").mkdir(parents=True)
    with pytest.raises(ArgumentError, match=r"pdf/SKILL\.md: 'SKILL\.md': it is a folder"):
        skills(tmp_path)
    (tmp_path / "pdf" / "SKILL.md").rmdir()
    (tmp_path / "pdf" / "SKILL.md").symlink_to("/etc/hostname")
    with pytest.raises(ArgumentError, match="is a symbolic link"):
        skills(tmp_path)
    (tmp_path / "pdf" / "SKILL.md").unlink()
    os.mkfifo(tmp_path / "pdf" / "SKILL.md")
    with pytest.raises(ArgumentError, match="not a regular file"):
        skills(tmp_path)


def test_links_to_skills_are_told_about(tmp_path):
    write(tmp_path / "elsewhere", "pdf")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pdf").symlink_to(tmp_path / "elsewhere" / "pdf")
    with pytest.raises(ArgumentError, match="here/pdf is a link"):
        skills(tmp_path / "here")
    assert "- pdf:" in skills(tmp_path / "here" / "pdf").instructions


def test_two_skills_of_one_name(tmp_path):
    write(tmp_path / "a", "pdf")
    write(tmp_path / "b", "pdf")
    with pytest.raises(ArgumentError, match=r"two skills are called 'pdf': .*/a/pdf and .*/b/pdf"):
        skills(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ArgumentError, match="two skills are called 'pdf'"):
        skills(tmp_path / "a", tmp_path / "a" / "pdf")


def test_bounds(tmp_path):
    for number in range(12):
        write(tmp_path, f"skill-{number}", f"name: skill-{number}\ndescription: {'x' * 1000}")
    with pytest.raises(ArgumentError, match="12 skills, more than 11; raise max_skills"):
        skills(tmp_path, max_skills=11)
    with pytest.raises(ArgumentError, match="raise max_skills"):
        skills(*(tmp_path / f"skill-{number}" for number in range(12)), max_skills=11)
    assert "…" not in skills(tmp_path, max_skills=12).instructions
    cut = skills(tmp_path, max_instructions_chars=1500).instructions
    assert 1400 < len(cut) <= 1500
    assert cut.count("x…") == 12
    with pytest.raises(ArgumentError, match="do not fit into 500 characters"):
        skills(tmp_path, max_instructions_chars=500)
    with pytest.raises(ArgumentError, match=r"SKILL\.md: 'SKILL\.md' is too long"):
        skills(tmp_path, max_file_bytes=1000)
    for name in ("max_skills", "max_instructions_chars", "max_file_bytes"):
        for wrong in (0, -1, 1.5, "3", True):
            with pytest.raises(ArgumentError, match=name):
                skills(tmp_path, **{name: wrong})


def test_yaml_is_loaded_when_skills_are_made():
    program = "import sys; import gossamer.tools; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_pyyaml_the_error_says_what_to_install(tmp_path, monkeypatch):
    from gossamer.errors import ToolkitError

    write(tmp_path, "pdf")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ToolkitError, match=r"pip install 'gossamer\[skills\]'"):
        skills(tmp_path)
