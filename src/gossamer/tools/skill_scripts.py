"""Scripts of skills, run in a sandbox: each call with a copy of the skill's files in a session of its own."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

from gossamer.errors import SandboxError
from gossamer.sandbox import SandboxFile, SandboxLimits, SandboxSession
from gossamer.tools.commands import MAX_FAILURE, CommandError, checked_command, told, told_of_failure
from gossamer.tools.function import Tool, tool
from gossamer.tools.output_text import cut_middle, named_files
from gossamer.tools.rooted import FilesError, Rooted, read_at
from gossamer.tools.sandbox_place import CommandSandbox, with_words
from gossamer.tools.threads import run_in_thread

__all__ = ["script_tool"]

_MAX_LEVELS = 16
_MAX_OUTPUT = 20_000  # characters of what a script wrote
_MAX_SHOWN_FILES = 5  # whose text is shown
_MAX_SHOWN_BYTES = 10_000  # of such a file
_MAX_FIRST_LINE = 256

_PROGRAMS = {".py": "python3", ".js": "node", ".mjs": "node", ".cjs": "node"}


def script_tool(folder_of: Callable[[str], Rooted], sandbox: CommandSandbox) -> Tool[..., Any]:
    """Make the tool that runs a skill's script.

    Args:
        folder_of: gives the folder of a skill by its name, and raises for one that is not there.
        sandbox: where scripts run.
    """

    async def run_skill_script(name: str, path: str, args: list[str] = []) -> str:  # noqa: B006 - copied for each call
        """Run a script of a skill in a sandbox, in a fresh copy of the skill's folder. There is no network.

        Args:
            name: the skill's name.
            path: the script's path within the skill, as read_skill lists it.
            args: its arguments, an item each; there is no shell.
        """
        folder = folder_of(name)
        argv, files = await run_in_thread(lambda: _prepared(folder, path, args, sandbox.limits))
        sizes = {one: len(content) for one, content in files.items()}
        try:
            async with sandbox.session() as session:
                done = await session.command(argv, files=files)
                made = [one for one in await session.files() if sizes.get(one.name) != one.size]
                shown = await _shown(session, made)
        except SandboxError as error:
            raise with_words(error, told_of_failure(str(error), error.stdout, error.stderr)) from error
        return "\n".join((told(int(done.value), done.stdout, done.stderr, _MAX_OUTPUT), *shown))

    most = 2 * _MAX_OUTPUT + _MAX_SHOWN_FILES * _MAX_SHOWN_BYTES + MAX_FAILURE
    return tool(timeout=None, max_result_chars=most)(run_skill_script)


def _prepared(
    folder: Rooted, path: str, args: Sequence[str], limits: SandboxLimits
) -> tuple[list[str], dict[str, bytes]]:
    """Give the command that runs a script, and the files that it may need.

    Raises:
        FilesError: there is no such script, or the skill is larger than the sandbox takes.
        CommandError: it is not known how to run it, or an argument is no good.
    """
    parts = folder.parts(path)
    if any(part.startswith(".") for part in parts):
        raise FilesError(f"{path!r} is hidden, and no file of the skill")
    script = "/".join(parts)
    with folder.parent(path) as (parent, name), folder.errors_of(path):
        start, _ = read_at(parent, name, path, 0, _MAX_FIRST_LINE)
        executable = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o111 != 0
    # Not by its bare name: it would be looked for on PATH, and one that begins with a hyphen be an option.
    argv = [*_interpreter(script, start, executable=executable), f"./{script}", *args]
    return checked_command(argv, argv[:1]), _copied(folder, limits)


def _interpreter(script: str, start: bytes, *, executable: bool) -> list[str]:
    """Give what runs a script: by its suffix, or by what its first line says.

    Raises:
        CommandError: neither says anything.
    """
    suffix = posixpath.splitext(script)[1].lower()
    known = _PROGRAMS.get(suffix)
    if known is not None:
        return [known]
    says = _first_line(start)
    if suffix in {".sh", ".bash"}:
        return says or [suffix.removeprefix(".")]
    if says and executable:
        return says
    why = (
        "its first line names a program, but it is not executable"
        if says
        else "it names none in a first line '#!…'"
    )
    raise CommandError(
        f"{script!r} cannot be run: its suffix tells no program (.py, .sh, .bash, .js do), and {why}"
    )


def _first_line(start: bytes) -> list[str]:
    """Give the program and its argument out of a line `#!/usr/bin/env bash`; empty where there is none."""
    if not start.startswith(b"#!"):
        return []
    line = start[2:].split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    program, _, rest = line.partition(" ")
    if posixpath.basename(program) == "env":
        words = rest.removeprefix("-S ").split()
        return words if words and not words[0].startswith("-") and "=" not in words[0] else []
    return [program, *filter(None, [rest.strip()])] if program else []


def _copied(folder: Rooted, limits: SandboxLimits) -> dict[str, bytes]:
    """Read a skill's files; links and what is hidden are left out.

    Raises:
        FilesError: they are more, or larger, than a session of the sandbox takes, or cannot all be read.
    """
    files: dict[str, bytes] = {}
    left = limits.disk_bytes
    walk = folder.walk(".", _MAX_LEVELS, limits.files, hidden=False)
    for found, parent, name in walk:
        if walk.seen > limits.files:
            raise FilesError(
                f"the skill has more than {limits.files:,} files and folders, too many for the sandbox"
            )
        if found.kind != "file":
            continue
        content, size = read_at(parent, name, found.path, 0, min(left, limits.file_bytes) + 1)
        if len(content) > min(left, limits.file_bytes):
            raise FilesError(
                f"{found.path!r} is too large for the sandbox: {size:,} bytes; a file has at most {limits.file_bytes:,}, "
                f"and all of a skill {limits.disk_bytes:,}"
            )
        left -= len(content)
        files[found.path] = content
    if walk.left_out or walk.deeper:
        raise FilesError(
            f"the skill cannot be copied whole: {walk.left_out or f'{walk.deeper} lies too deep'}"
        )
    return files


async def _shown(session: SandboxSession, made: Sequence[SandboxFile]) -> list[str]:
    """Name the files that a script made, and show the text of the first ones, for they are gone afterwards."""
    if not made:
        return []
    lines = [f"files written: {named_files(made)}"]
    for file in made[:_MAX_SHOWN_FILES]:
        if file.size > _MAX_SHOWN_BYTES:
            continue
        try:
            text = (await session.read(file.name)).decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text and text.strip():
            lines.append(f"{file.name}:\n{cut_middle(text.rstrip(), _MAX_SHOWN_BYTES)}")
    return lines
