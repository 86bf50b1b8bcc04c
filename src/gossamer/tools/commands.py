"""Commands of a model's: programs that it may start, and what it is told of how they ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, GossamerError
from gossamer.tools.checked_text import checked_text
from gossamer.tools.output_text import how_it_ended, in_sections

__all__ = [
    "MAX_ARGUMENTS",
    "MAX_ARGUMENT_CHARS",
    "CommandError",
    "allowed_programs",
    "checked_command",
    "told",
]

# What a command may have.
MAX_ARGUMENTS = 1_000
MAX_ARGUMENT_CHARS = 100_000

# Characters of what is told of a failure: what a model is told of a tool's has 4,000.
MAX_FAILURE = 3_600

_NO_SHELL = (
    "argv is the program and its arguments, an item each, as in {example}. There is no shell: neither pipes and "
    "redirections nor patterns and variables."
)
_NAME = re.compile(r"[^\s/\0]+")


class CommandError(GossamerError):
    """A command cannot be run, or did not come to its end; the message says why."""


def allowed_programs(allow: Sequence[str]) -> tuple[str, ...]:
    """Give the names of programs that a model may start.

    Raises:
        ArgumentError: there is none, or one is no name.
    """
    given: Any = allow
    if isinstance(given, str | bytes) or not all(isinstance(one, str) for one in given):
        raise ArgumentError(f"allow must be a list of names of programs, as in ['ls', 'jq'], not {allow!r}")
    names = tuple(dict.fromkeys(allow))
    if not names:
        raise ArgumentError("allow names no program; nothing may be run that it does not name")
    for name in names:
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise ArgumentError(
                f"allow: {name!r} is no name of a program; give it as it is found on PATH, without '/'"
            )
    return names


def checked_command(argv: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Give a command that may be run.

    Raises:
        CommandError: its program is not allowed, or it is no command.
    """
    if not argv:
        raise CommandError("argv is empty; its first item is the program")
    if len(argv) > MAX_ARGUMENTS:
        raise CommandError(f"argv has {len(argv):,} items, at most {MAX_ARGUMENTS:,} are taken")
    if argv[0] not in allowed:
        raise CommandError(
            f"{argv[0][:100]!r} may not be run; these may: {', '.join(allowed)}. The first item of argv is the "
            "program's name alone, there is no shell"
        )
    for argument in argv:
        checked_text(argument, "an argument", MAX_ARGUMENT_CHARS, CommandError)
    size = sum(map(len, argv))
    if size > MAX_ARGUMENT_CHARS:
        raise CommandError(f"argv has {size:,} characters, at most {MAX_ARGUMENT_CHARS:,} are taken")
    return list(argv)


def told(code: int, stdout: str, stderr: str, most: int) -> str:
    """Give what a model sees of a program that has ended."""
    text = in_sections((("stdout", stdout), ("stderr", stderr)), most)
    return f"{how_it_ended(code)}\n{text}" if text else how_it_ended(code)


def told_of_failure(words: str, stdout: str, stderr: str) -> str:
    """Give what a model is told of a program that did not come to its end, with what it had written."""
    return in_sections((("stdout", stdout), ("stderr", stderr), ("", words)), MAX_FAILURE)


def about_programs(allowed: Sequence[str]) -> str:
    """Say which programs there are and how they are called."""
    example = msgspec.json.encode([allowed[0], "first argument", "second"]).decode()
    return f"Programs: {', '.join(allowed)}. {_NO_SHELL.format(example=example)}"


def check_bounds(seconds: float | None, max_output: int) -> None:
    """Check the bounds of a call.

    Raises:
        ArgumentError: one is out of range.
    """
    if seconds is not None and not 0 < seconds <= 3_600:
        raise ArgumentError(f"timeout must be above 0 and at most 3,600 seconds, not {seconds}")
    if max_output < 100:
        raise ArgumentError(f"max_output must be at least 100, not {max_output}")


async def run_command(argv: list[str]) -> None:
    """Run a program; the pattern of tools that do.

    Args:
        argv: the program's name and its arguments, an item each.
    """
