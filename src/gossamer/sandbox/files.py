"""Files that go into a sandbox and come out of it: which names there are, what may be put in, what is asked back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from gossamer.errors import ArgumentError, SandboxDiskError, SandboxFileError, SandboxFileSizeError
from gossamer.sandbox.base import SandboxLimits

__all__ = ["check_name", "check_patterns", "check_uploads", "matching", "why_no_name"]

# A part of a name, and a whole one, in bytes: what Linux takes of them, so that a name fits every sandbox.
_MAX_PART = 255
_MAX_NAME = 1024

# What may be asked back: what patterns cost grows with their characters and the names they are held against.
_MAX_OUTPUTS = 1000
_MAX_PATTERN_CHARS = 1000


def why_no_name(name: str) -> str | None:
    """Say why this cannot be the name of a file below a session's folder; None where it can.

    Args:
        name: a path with `/`; whatever it is.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is no UTF-8"
    parts = name.split("/")
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it has a NUL"
    if size > _MAX_NAME:
        return f"it is longer than {_MAX_NAME} bytes"
    if name.startswith("/"):
        return "it is absolute"
    if ".." in parts:
        return "it goes upwards"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if any(len(part.encode()) > _MAX_PART for part in parts):
        return f"a part of it is longer than {_MAX_PART} bytes"
    return None


def check_name(name: object, what: str) -> str:
    """Give a name of a file of a session, if it is one.

    Args:
        name: whatever came.
        what: what it is for, in the message.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"{what}: a name of a file is text, and not {type(name).__name__}")
    why = why_no_name(name)
    if why is not None:
        raise ArgumentError(f"{what}: {_short(name)} is no name of a file below the session's folder: {why}")
    return name


def check_uploads(files: Mapping[str, bytes | str] | None, limits: SandboxLimits) -> dict[str, bytes]:
    """Give files that are to be put into a session as bytes, by name.

    What is in the session already is not known here; its sandbox counts both together.

    Args:
        files: bytes or text, by name.
        limits: the sandbox's.

    Raises:
        ArgumentError: a name is no name below the session's folder, or is a folder of another one; something is
            neither bytes nor text.
        SandboxFileSizeError: one is larger than `file_bytes`.
        SandboxDiskError: together they are larger than `disk_bytes`, or with their folders more than `files`.
    """
    if not files:
        return {}
    if not isinstance(files, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever somebody passes
        raise ArgumentError(f"files must be a dict of bytes or text by name, not {type(files).__name__}")
    checked: dict[str, bytes] = {}
    total = 0
    for name, content in files.items():
        data = _bytes_of(check_name(name, "files"), content)
        if len(data) > limits.file_bytes:
            raise SandboxFileSizeError(
                f"files: {_short(name)} has {len(data):,} bytes, and a file of this sandbox {limits.file_bytes:,}"
                " at most; give less, or raise SandboxLimits(file_bytes=...)",
                limit="file_bytes",
                allowed=limits.file_bytes,
            )
        total += len(data)
        checked[name] = data
    if total > limits.disk_bytes:
        raise SandboxDiskError(
            f"files: together they have {total:,} bytes, and a session of this sandbox {limits.disk_bytes:,}"
            " at most; give less, or raise SandboxLimits(disk_bytes=...)",
            limit="disk_bytes",
            allowed=limits.disk_bytes,
        )
    folders = _folders_of(checked)
    both = folders & checked.keys()
    if both:
        raise ArgumentError(f"files: {_short(min(both))} is a file, and the folder of another one")
    count = len(checked) + len(folders)
    if count > limits.files:
        raise SandboxDiskError(
            f"files: with their folders they are {count:,}, and a session of this sandbox has {limits.files:,}"
            " at most; give less, or raise SandboxLimits(files=...)",
            limit="files",
            allowed=limits.files,
        )
    return checked


def check_patterns(outputs: Sequence[str]) -> tuple[str, ...]:
    """Give the names and patterns of files that are asked back.

    Args:
        outputs: names, or patterns with `*` and `?`, which stand for what is between two `/`.

    Raises:
        ArgumentError: one is no name below the session's folder, or they are too many or too long.
    """
    if isinstance(outputs, str | bytes):
        raise ArgumentError("outputs: a list of names and patterns is wanted, and not one text")
    checked = tuple(check_name(one, "outputs") for one in outputs)
    if len(checked) > _MAX_OUTPUTS:
        raise ArgumentError(
            f"outputs: {len(checked):,} names and patterns are too many, {_MAX_OUTPUTS:,} are allowed"
        )
    chars = sum(len(one) for one in checked if _is_pattern(one))
    if chars > _MAX_PATTERN_CHARS:
        raise ArgumentError(
            f"outputs: patterns of {chars:,} characters together are too long, {_MAX_PATTERN_CHARS:,} are allowed"
        )
    return checked


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Give the names that are asked for, in order and each once.

    Args:
        names: the files that there are.
        patterns: what `check_patterns` gave. A pattern that nothing fits is no error.

    Raises:
        SandboxFileError: one without a pattern is not among the names.
    """
    there = set(names)
    found = {one for one in patterns if not _is_pattern(one)}
    missing = found - there
    if missing:
        raise SandboxFileError(f"outputs: there is no file {_short(min(missing))} in the session")
    for pattern in filter(_is_pattern, patterns):
        fits = _compiled(pattern)
        found.update(name for name in there if fits.match(name))
    return sorted(found)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("/".join(map(_translated, pattern.split("/"))) + r"\Z")


def _translated(part: str) -> str:
    """Make of what stands between two `/` an expression that never tries twice, whatever name it is held against."""
    first, *others = (
        "".join("[^/]" if char == "?" else re.escape(char) for char in fixed)
        for fixed in re.split(r"\*+", part)
    )
    if not others:
        return first
    # As early as it fits is as good as any later place, but for what stands at the end.
    middle = "".join(f"(?>[^/]*?{fixed})" for fixed in others[:-1])
    return rf"{first}{middle}(?>[^/]*{others[-1]}(?=/|\Z))"


def _folders_of(names: Collection[str]) -> set[str]:
    folders: set[str] = set()
    for name in names:
        end = name.rfind("/")
        while end > 0 and name[:end] not in folders:
            folders.add(name[:end])
            end = name.rfind("/", 0, end)
    return folders


def _bytes_of(name: str, content: object) -> bytes:
    if isinstance(content, bytes):
        return content
    if not isinstance(content, str):
        raise ArgumentError(f"files: {_short(name)} is {type(content).__name__}, neither bytes nor text")
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"files: the text of {_short(name)} cannot be written as UTF-8") from None


def _short(name: str) -> str:
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}..."
