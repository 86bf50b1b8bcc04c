"""Skills: folders with a SKILL.md, offered to the model by name and summary and read on demand.

The format is that of Agent Skills, https://agentskills.io/specification.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.function import Tool, tool
from gossamer.tools.rooted import FilesError, Found, Rooted
from gossamer.tools.sandbox_place import CommandSandbox, must_run_commands
from gossamer.tools.skill_scripts import script_tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["skills"]

_FILE = "SKILL.md"
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_NAME_CHARS = 64
_MAX_DESCRIPTION_CHARS = 1024
_MAX_FRONT_MATTER_CHARS = 4 * 1024
_MAX_FRONT_MATTER_LEVELS = 16
_MAX_ENTRIES = 10_000  # of a folder that holds skills
_MAX_LISTED = 100  # files of one skill
_MAX_LEVELS = 16
_HINT = "read_skill tells which files there are"
_LEAST_SUMMARY_CHARS = 40

_WHAT = (
    "Skills are folders with instructions for certain kinds of work. Where one fits the task, read it with "
    "read_skill before you begin, and do as it says; the files that it mentions are read with read_skill_file"
)
_HOW = f"{_WHAT}. The skills are:"
_HOW_WITH_SCRIPTS = f"{_WHAT}, and its scripts run with run_skill_script. The skills are:"


def skills(
    *folders: str | Path,
    sandbox: CommandSandbox | None = None,
    max_skills: int = 100,
    max_instructions_chars: int = 20_000,
    max_file_bytes: int = 1024 * 1024,
) -> Toolkit:
    """Make a toolkit of skills: `Agent(…, tools=[skills("./skills")])`.

    The system prompt lists the skills by name and description. The model reads one with `read_skill`, and its other
    files with `read_skill_file`. Folders are searched, and front matter is checked, here; what the model reads is read
    from the disk when it asks, as it is then. Without a sandbox nothing is ever executed.

    Args:
        folders: each a skill, that is a folder with a SKILL.md, or a folder with skills in it. There, hidden folders
            and those without SKILL.md are passed over.
        sandbox: where scripts of skills run, a `BubblewrapSandbox`: the model has a tool `run_skill_script` then, which
            copies the skill's files into a session of its own and runs a script there.
        max_skills: how many there may be.
        max_instructions_chars: of the list in the system prompt; where the descriptions do not fit, long ones are
            cut, all to the same length.
        max_file_bytes: a longer file is not read, and the model is told so.

    Raises:
        ArgumentError: a folder is missing or has no skill in it, a skill does not keep to the format, two have one
            name, or there are too many; the message names the file and what to do. Or the sandbox runs no programs.
        ToolkitError: PyYAML is missing, or this system cannot keep to a folder.
    """
    if not folders:
        raise ArgumentError("skills needs a folder, as in skills('./skills')")
    for bound, value in (
        ("max_skills", max_skills),
        ("max_instructions_chars", max_instructions_chars),
        ("max_file_bytes", max_file_bytes),
    ):
        if type(value) is not int or value < 1:
            raise ArgumentError(f"{bound} must be a whole number above 0, not {value!r}")
    if sandbox is not None:
        must_run_commands(sandbox)
    found: dict[str, _Skill] = {}
    for folder in folders:
        for place in _places(folder, max_skills):
            skill = _open_skill(place, max_file_bytes)
            other = found.get(skill.name)
            if other is not None:
                raise ArgumentError(
                    f"two skills are called {skill.name!r}: {other.folder.path} and {place.path}; "
                    "rename one, its folder too, or leave one out"
                )
            if len(found) == max_skills:
                raise ArgumentError(f"there are more than {max_skills} skills; raise max_skills")
            found[skill.name] = skill
    return Toolkit(
        "skills",
        _tools(found, max_file_bytes, sandbox),
        description=f"Instructions for certain kinds of work, read on demand: {', '.join(found)}"[:500],
        instructions=_instructions(
            tuple(found.values()), _HOW if sandbox is None else _HOW_WITH_SCRIPTS, max_instructions_chars
        ),
    )


class _Skill(msgspec.Struct, frozen=True):
    name: str
    description: str
    folder: Rooted


# --- what the model calls -----------------------------------------------------------------------------------


def _tools(
    found: Mapping[str, _Skill], max_file_bytes: int, sandbox: CommandSandbox | None
) -> tuple[Tool[..., Any], ...]:
    def read_skill(name: str) -> str:
        """Read the instructions of a skill, and see which files it has.

        Args:
            name: the skill's name, as listed.
        """
        skill = _known(found, name)
        text = _text_of(_read(skill.folder, _FILE, max_file_bytes))
        if text is None:
            raise FilesError(f"{_FILE} of the skill {name!r} is no text in UTF-8")
        files, whole = _files(skill.folder)
        return f"{_split(text)[1].strip()}\n\n{_listed(files, whole)}"

    def read_skill_file(name: str, path: str) -> str:
        """Read another file of a skill.

        Args:
            name: the skill's name.
            path: the file's path within the skill, as read_skill lists it.
        """
        skill = _known(found, name)
        if any(part.startswith(".") for part in skill.folder.parts(path)):
            raise FilesError(f"{path!r} is hidden, and no file of the skill")
        data = _read(skill.folder, path, max_file_bytes)
        text = _text_of(data)
        return f"{path} is no text: {len(data):,} bytes, not shown." if text is None else text

    readers = tool(idempotent=True)(read_skill), tool(idempotent=True)(read_skill_file)
    if sandbox is None:
        return readers
    return (*readers, script_tool(lambda name: _known(found, name).folder, sandbox))


def _known(found: Mapping[str, _Skill], name: str) -> _Skill:
    skill = found.get(name)
    if skill is None:
        near = difflib.get_close_matches(name[:_MAX_NAME_CHARS], found, n=5, cutoff=0.0)
        raise ArgumentError(f"there is no skill {name[:_MAX_NAME_CHARS]!r}; there is {', '.join(near)}")
    return skill


def _read(folder: Rooted, path: str, max_bytes: int) -> bytes:
    """Read a file as it is now.

    Raises:
        FilesError: there is no such file, or it is too long.
    """
    data, size = folder.read(path, 0, max_bytes + 1)
    if len(data) > max_bytes:
        size = max(size, len(data))  # it may grow meanwhile
        raise FilesError(f"{path!r} is too long: {size:,} bytes, at most {max_bytes:,} are read")
    return data


def _text_of(data: bytes) -> str | None:
    """Give a file's bytes as text, without carriage returns at the ends of lines; None where they are no text in UTF-8."""
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n")


def _files(folder: Rooted) -> tuple[list[Found], bool]:
    """Find the files of a skill, and whether these are all.

    Links and what is hidden are left out, and names that cannot be printed on one line.
    """
    found: list[Found] = []
    walk = folder.walk(".", _MAX_LEVELS, _MAX_ENTRIES, hidden=False)
    for one, _, name in walk:
        if walk.seen > _MAX_ENTRIES or len(found) > _MAX_LISTED:
            return found, False
        if one.kind == "file" and name.isprintable() and one.path.isprintable():
            found.append(one)
    return found, not (walk.left_out or walk.deeper)


def _listed(files: Sequence[Found], whole: bool) -> str:
    others = [file for file in files if file.path != _FILE]
    if not others and whole:
        return "This skill has no other files."
    lines = [f"- {file.path} ({file.size:,} bytes)" for file in others[:_MAX_LISTED]]
    if not whole or len(others) > _MAX_LISTED:
        lines.append("- and more, not listed")
    return "\n".join(("Files of this skill:", *lines))


def _instructions(found: Sequence[_Skill], how: str, max_chars: int) -> str:
    """List the skills within a bound.

    Raises:
        ArgumentError: there are so many that hardly a word of each would be left.
    """
    room = max_chars - len(how) - sum(len(f"\n- {skill.name}: ") for skill in found)
    longest = _MAX_DESCRIPTION_CHARS
    if sum(len(skill.description) for skill in found) > room:
        longest = room // len(found)
        if longest < _LEAST_SUMMARY_CHARS:
            raise ArgumentError(
                f"{len(found)} skills do not fit into {max_chars:,} characters; raise max_instructions_chars"
            )
    lines = (f"- {skill.name}: {_cut(skill.description, longest)}" for skill in found)
    return "\n".join((how, *lines))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


# --- finding skills -----------------------------------------------------------------------------------------


def _places(folder: str | Path, max_skills: int) -> list[Rooted]:
    """Give the folder where it is a skill, or those of the skills in it, by name.

    Raises:
        ArgumentError: there is none, or there are too many.
    """
    rooted = Rooted(folder, _HINT)
    root = str(rooted.path)
    try:
        if _holds_skill(root):
            return [rooted]
        places: list[str] = []
        with os.scandir(root) as entries:
            for count, entry in enumerate(entries):
                if count == _MAX_ENTRIES:
                    raise ArgumentError(
                        f"the folder {root} has more than {_MAX_ENTRIES:,} entries; give the folder of the skills"
                    )
                if entry.name.startswith(".") or not entry.is_dir() or not _holds_skill(entry.path):
                    continue
                if entry.is_symlink():
                    raise ArgumentError(
                        f"{entry.path} is a link, and links are not followed; put the folder itself there, or give each skill's folder"
                    )
                places.append(entry.path)
    except OSError as error:
        raise ArgumentError(f"the folder {root} cannot be read: {error.strerror}") from error
    if not places:
        raise ArgumentError(f"there is no skill in {root}: no folder in it has a file {_FILE}")
    if len(places) > max_skills:
        raise ArgumentError(f"{root} has {len(places)} skills, more than {max_skills}; raise max_skills")
    return [Rooted(place, _HINT) for place in sorted(places)]


def _holds_skill(folder: str) -> bool:
    """Tell whether a folder has a SKILL.md.

    Raises:
        ArgumentError: it has one that is spelt in another way.
    """
    if os.path.lexists(os.path.join(folder, _FILE)):  # noqa: PTH118 - pathlib has no lexists
        return True
    for name in ("skill.md", "Skill.md", "SKILL.MD"):
        if os.path.lexists(os.path.join(folder, name)):  # noqa: PTH118 - as above
            raise ArgumentError(f"{folder}/{name}: the file of a skill is called {_FILE}; rename it")
    return False


def _open_skill(folder: Rooted, max_file_bytes: int) -> _Skill:
    """Read what the list tells of a skill.

    Raises:
        ArgumentError: it does not keep to the format.
    """
    file = f"{folder.path}/{_FILE}"
    try:
        text = _text_of(_read(folder, _FILE, max_file_bytes))
    except FilesError as error:
        raise ArgumentError(f"{file}: {error}") from error
    if text is None:
        raise ArgumentError(f"{file}: it is no text in UTF-8; save it as UTF-8")
    head = _split(text)[0]
    if head is None:
        raise ArgumentError(
            f"{file}: it must begin with front matter: a line '---', name and description in YAML, a line '---'"
        )
    if len(head) > _MAX_FRONT_MATTER_CHARS:
        raise ArgumentError(
            f"{file}: the front matter has {len(head):,} characters, at most {_MAX_FRONT_MATTER_CHARS:,} may be"
        )
    keys = _front_matter(head, file)
    name = _text(keys, "name", _MAX_NAME_CHARS, file)
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"{file}: the name {name!r} must be lower-case letters, digits and single hyphens, as in 'pdf-forms'"
        )
    if name != folder.path.name:
        raise ArgumentError(
            f"{file}: the skill is called {name!r}, its folder {folder.path.name!r}; give both one name"
        )
    return _Skill(name, _text(keys, "description", _MAX_DESCRIPTION_CHARS, file), folder)


# --- front matter -------------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str | None, str]:
    """Split a SKILL.md into front matter, None where it has none, and body."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return None, text
    for place, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:place]), "\n".join(lines[place + 1 :])
    return None, text


def _front_matter(head: str, file: str) -> dict[Any, Any]:
    """Read the YAML.

    Raises:
        ArgumentError: it is broken, or not keys with values.
        ToolkitError: PyYAML is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise ToolkitError("skills need PyYAML: pip install 'gossamer[skills]'") from error
    level = 0
    try:
        for event in yaml.parse(head, Loader=yaml.BaseLoader):
            # A few lines of references to references would grow without bound.
            if isinstance(event, yaml.AliasEvent):
                raise ArgumentError(f"{file}: the front matter refers to itself with '*'; write the text out")
            if getattr(event, "tag", None) is not None:
                raise ArgumentError(
                    f"{file}: the front matter has a '!' before a value; leave it out, or put the value into quotes"
                )
            level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if level > _MAX_FRONT_MATTER_LEVELS:  # the time grows with the square of them
                raise ArgumentError(
                    f"{file}: the front matter has more than {_MAX_FRONT_MATTER_LEVELS} levels; it needs one"
                )
        # Every value is text with this one: nothing is made of any.
        data: Any = yaml.load(head, Loader=yaml.BaseLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 2}"
        raise ArgumentError(
            f"{file}{line}: the front matter is no YAML: {error.problem}; put text with ': ' or '#' in it into quotes"
        ) from error
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # the last two of characters that there are not
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{file}: the front matter is no YAML: {str(error)[:200]}") from error
    if not isinstance(data, dict):
        raise ArgumentError(f"{file}: the front matter must be lines of 'key: value', name and description")
    return data  # pyright: ignore[reportUnknownVariableType] - whatever the file says


def _text(keys: dict[Any, Any], key: str, longest: int, file: str) -> str:
    """Give a text of the front matter on one line, so that it cannot look like more than one entry of the list.

    Raises:
        ArgumentError: it is missing, empty, too long or no text.
    """
    if key not in keys:
        raise ArgumentError(f"{file}: the front matter has no {key}; add a line '{key}: …'")
    value = keys[key]
    if value == "":
        raise ArgumentError(f"{file}: the {key} is empty; write it behind '{key}:'")
    if not isinstance(value, str):
        raise ArgumentError(f"{file}: the {key} must be text, not {value!r}; put it into quotes")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    if not text:
        raise ArgumentError(f"{file}: the {key} is empty; write it behind '{key}:'")
    if len(text) > longest:
        raise ArgumentError(f"{file}: the {key} has {len(text):,} characters, at most {longest:,} may be")
    return text
