"""Reading below one folder and nowhere else, whatever path a model asks for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path

import msgspec

from gossamer.errors import ArgumentError, ToolkitError

__all__ = ["FoundFile", "RootedFolder", "parts_of", "text_of"]

_MAX_PATH_CHARS = 1024
_MAX_PARTS = 32
_MAX_DEPTH = 16
_MAX_ENTRIES = 10_000
_PIECE = 64 * 1024


class FoundFile(msgspec.Struct, frozen=True):
    """A file that was found.

    Attributes:
        path: from the folder on, its parts separated by `/`.
        size: in bytes.
    """

    path: str
    size: int


class RootedFolder(msgspec.Struct, frozen=True):
    """A folder below which files are read. A value: it holds nothing open.

    Every part of a path is opened by the descriptor of the part before it, and no link is followed, so that a path
    cannot leave the folder, not even while somebody moves things about. A hard link is a file like any other.

    Attributes:
        root: the folder itself, absolute and with its own links resolved.
    """

    root: str

    @classmethod
    def at(cls, folder: str | Path) -> RootedFolder:
        """Give the folder at a path; `~` stands for the home folder, and links on the way to it are followed.

        Raises:
            ArgumentError: there is no such folder.
            ToolkitError: this system cannot open files by the descriptor of their folder.
        """
        if not isinstance(folder, str | Path) or not str(folder):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"a folder must be a path, as text or pathlib.Path, not {folder!r}")
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise ToolkitError("folders cannot be kept to on this system: it opens no file by its folder")
        try:
            root = os.path.realpath(os.path.expanduser(folder), strict=True)  # noqa: PTH111 - pathlib raises RuntimeError
        except (OSError, ValueError) as error:
            raise ArgumentError(f"there is no folder {str(folder)!r}: {_reason(error)}") from error
        if not Path(root).is_dir():
            raise ArgumentError(f"{str(folder)!r} is no folder")
        return cls(root)

    def read(self, path: str, max_bytes: int) -> bytes:
        """Read a file as it is now.

        Args:
            path: from the folder on, its parts separated by `/`.
            max_bytes: a longer file is not read at all.

        Raises:
            ArgumentError: the path leaves the folder, or leads over a link or to something that is no file; or the
                file is missing, unreadable or too long.
        """
        parts = parts_of(path)
        with ExitStack() as stack:
            here = self._open_root(stack)
            for part in parts[:-1]:
                here = _open(stack, path, part, os.O_DIRECTORY, here)
            # Not to wait: a pipe that nobody writes to would hold the thread for ever.
            file = _open(stack, path, parts[-1], os.O_NONBLOCK, here)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ArgumentError(f"{path!r} is no file")
            return _read(file, path, max_bytes)

    def files(self, max_files: int) -> tuple[list[FoundFile], bool]:
        """List the files below the folder, by path. Links, hidden files and hidden folders are left out.

        So are files whose name is not text that can be printed on one line, and folders that cannot be read.

        Args:
            max_files: how many to list at most. Below 16 folders, and after 10,000 entries, nothing is looked for.

        Returns:
            The files, and whether these are all.

        Raises:
            ArgumentError: the folder cannot be read.
        """
        found: list[FoundFile] = []
        seen = 0
        whole = True

        def look(folder: int, before: str, depth: int) -> None:
            nonlocal seen, whole
            with os.scandir(folder) as entries:
                names: list[tuple[str, os.stat_result]] = []
                for entry in entries:
                    seen += 1
                    if seen > _MAX_ENTRIES:
                        whole = False
                        break
                    if not entry.name.startswith(".") and entry.name.isprintable():
                        with suppress(FileNotFoundError):  # gone since it was seen
                            names.append((entry.name, entry.stat(follow_symlinks=False)))
            for name, status in sorted(names, key=itemgetter(0)):
                if stat.S_ISREG(status.st_mode):
                    if len(found) >= max_files:
                        whole = False
                        return
                    found.append(FoundFile(before + name, status.st_size))
                elif stat.S_ISDIR(status.st_mode):
                    if depth >= _MAX_DEPTH:
                        whole = False
                        continue
                    with ExitStack() as stack:
                        try:
                            below = _open(stack, before + name, name, os.O_DIRECTORY, folder)
                        except ArgumentError:  # not to be read, or gone
                            whole = False
                            continue
                        look(below, f"{before}{name}/", depth + 1)

        with ExitStack() as stack:
            top = self._open_root(stack)
            try:
                look(top, "", 1)
            except OSError as error:
                raise ArgumentError(f"the folder {self.root!r} cannot be read: {_reason(error)}") from error
        return found, whole

    def _open_root(self, stack: ExitStack) -> int:
        try:
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ArgumentError(f"the folder {self.root!r} cannot be opened: {_reason(error)}") from error
        stack.callback(os.close, folder)
        return folder


def parts_of(path: str) -> list[str]:
    """Split a path into its parts.

    Raises:
        ArgumentError: it leaves the folder, or is no path.
    """
    if len(path) > _MAX_PATH_CHARS:
        raise ArgumentError(f"a path has at most {_MAX_PATH_CHARS} characters, not {len(path)}")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{path!r} is no path: it is not proper text") from error
    if "\0" in path:
        raise ArgumentError(f"{path!r} is no path: it holds a NUL character")
    if path.startswith("/"):
        raise ArgumentError(f"{path!r} is absolute; give the path from the folder on, as in 'notes/today.md'")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ArgumentError(f"{path!r} leads out of the folder; '..' is not allowed in a path")
    if not parts:
        raise ArgumentError(f"{path!r} names no file")
    if len(parts) > _MAX_PARTS:
        raise ArgumentError(f"a path has at most {_MAX_PARTS} parts, not {len(parts)}")
    return parts


def text_of(data: bytes) -> str | None:
    """Give a file's bytes as text, without carriage returns at the ends of lines; None where they are no text in UTF-8."""
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n")


def _open(stack: ExitStack, path: str, part: str, flags: int, folder: int) -> int:
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=folder)
    except OSError as error:
        raise ArgumentError(_refusal(path, part, folder, error)) from error
    stack.callback(os.close, descriptor)
    return descriptor


def _refusal(path: str, part: str, folder: int, error: OSError) -> str:
    try:
        link = stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        link = False
    if link:
        return f"{path!r} leads over the link {part!r}; links are not followed"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no file {path!r}"
    return f"{path!r} cannot be read: {_reason(error)}"


def _read(file: int, path: str, max_bytes: int) -> bytes:
    size = os.fstat(file).st_size
    pieces: list[bytes] = []
    left = max_bytes + 1
    try:
        # Read to the bound whatever its size is said to be: it may grow meanwhile.
        while size <= max_bytes and left > 0 and (piece := os.read(file, min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise ArgumentError(f"{path!r} cannot be read: {_reason(error)}") from error
    if size > max_bytes or left <= 0:
        raise ArgumentError(f"{path!r} is too long: {size:,} bytes, at most {max_bytes:,} are read")
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    """Say why, without the path: it stands in the message already."""
    strerror: Callable[[], str] | str | None = getattr(error, "strerror", None)
    return strerror if isinstance(strerror, str) else str(error)
