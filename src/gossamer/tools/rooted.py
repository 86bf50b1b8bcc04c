"""Reading below one folder and nowhere else, whatever path a model asks for.

Every step of a path is opened relative to the descriptor of the step before, and no step may be a symbolic link. There
is no moment between a check and a use: what was opened is what is used, whatever somebody swaps meanwhile. Writing is in
`rooted_writes`.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, GossamerError, ToolkitError
from gossamer.tools.checked_text import checked_text

__all__ = [
    "MAX_COMPONENTS",
    "MAX_PATH_CHARS",
    "FilesError",
    "Found",
    "Rooted",
    "Walk",
    "kind_of",
    "opened_file",
    "read_at",
    "regular",
]

# Components of a path, and so descriptors that are open at once on the way to it.
MAX_COMPONENTS = 32
MAX_PATH_CHARS = 4_096

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
_FOLDER = _READ | getattr(os, "O_DIRECTORY", 0)
# Not blocking: a pipe would wait for somebody at its other end. No terminal: it would take over the process.
_FILE = _READ | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class FilesError(GossamerError):
    """Something cannot be done with a file; the message names it and says why."""


class Found(msgspec.Struct, frozen=True):
    """What a folder holds.

    Attributes:
        path: relative to the root; bytes that are no UTF-8 are shown escaped.
        kind: `file`, `folder`, `link` (never followed) or `special`.
        size: bytes of a file; 0 for anything else.
    """

    path: str
    kind: str
    size: int = 0


class Rooted:
    """A folder and what is below it. Safe across threads; holds nothing open between calls.

    Args:
        root: the folder; it may be reached through links, for whoever names it is trusted. `~` stands for the home folder.
        hint: what tells which files there are, for the message where one is not.

    Raises:
        ArgumentError: there is no such folder.
        ToolkitError: the system cannot open files relative to a folder.
    """

    __slots__ = ("_hint", "_identity", "_root")

    def __init__(self, root: str | os.PathLike[str], hint: str = "") -> None:
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise ToolkitError(
                "files are kept to a folder on Linux, macOS and BSD only; this system cannot do it"
            )
        try:
            if not os.fspath(root):
                raise ValueError("it is empty")
            self._root = Path(root).expanduser().resolve(strict=True)
            self._identity = _identity(self._root.stat())
            os.close(os.open(self._root, _FOLDER))
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            shown = str(root) if isinstance(root, Path) else root
            raise ArgumentError(f"{shown!r} must be a folder that can be read: {error}") from None
        self._hint = hint

    @property
    def path(self) -> Path:
        """The folder, absolute and without links on the way."""
        return self._root

    @contextmanager
    def folder(self, path: str) -> Generator[int]:
        """Open a folder below the root and give its descriptor; "." is the root itself.

        Raises:
            FilesError: there is no such folder, it leads out, or a component is a link.
        """
        with self.errors_of(path):
            descriptor = self._open(self.parts(path))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def parent(self, path: str) -> Generator[tuple[int, str]]:
        """Open the folder that holds a path; give its descriptor and the last component.

        Raises:
            FilesError: as `folder`, and the path is that of the root.
        """
        parts = self.parts(path)
        if not parts:
            raise FilesError("the root folder itself cannot be meant here; name something in it")
        with self.errors_of(path):
            descriptor = self._open(parts[:-1])
        try:
            yield descriptor, parts[-1]
        finally:
            os.close(descriptor)

    def read(self, path: str, offset: int, length: int) -> tuple[bytes, int]:
        """Read some bytes of a regular file; give them and the size of the whole.

        Raises:
            FilesError: there is no such file, or it is none.
        """
        with self.parent(path) as (folder, name), self.errors_of(path):
            return read_at(folder, name, path, offset, length)

    def steps(self, path: str) -> Iterator[tuple[int, str]]:
        """Go down a path as far as it is there.

        Yields:
            The descriptor of a folder on the way, from the root on (good until the next step), and the component that
            comes next in it, there or not.

        Raises:
            FilesError: the path is none, or the root folder has been replaced.
        """
        parts = self.parts(path)
        with self.errors_of(path):
            folder = self._open([])
        try:
            for part in parts:
                yield folder, part
                try:
                    inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                except OSError:  # it ends here
                    return
                os.close(folder)
                folder = inner
        finally:
            os.close(folder)

    def walk(self, path: str, depth: int, most: int, *, hidden: bool = True) -> Walk:
        """Go through a folder and those below it, each in the order of its names.

        Args:
            path: where to begin.
            depth: how many levels to go down; 1 for the folder alone.
            most: entries to read of each folder; those after are left out, and the walk tells so.
            hidden: whether names that begin with a dot are given, and their folders gone into.
        """
        return Walk(self, path, depth, most, hidden=hidden)

    def parts(self, path: str) -> list[str]:
        """Split a path into its components.

        Raises:
            FilesError: it is absolute, has `..` or a NUL, or is too long or too deep.
        """
        checked_text(path, "a path", MAX_PATH_CHARS, FilesError)
        if path.startswith("/"):
            raise FilesError(
                f"{path!r} is absolute; paths are relative to the root folder, such as 'notes/today.txt'"
            )
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise FilesError(f"{path!r} has '..' in it; name the path from the root folder down")
        if len(parts) > MAX_COMPONENTS:
            raise FilesError(f"a path has at most {MAX_COMPONENTS} components, not {len(parts)}")
        return parts

    @contextmanager
    def errors_of(self, path: str) -> Generator[None]:
        """Turn what the system says of a path into a `FilesError` that a model understands."""
        try:
            yield
        except OSError as error:
            words = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
            hint = f"; {self._hint}" if self._hint and error.errno == errno.ENOENT else ""
            raise FilesError(f"{path!r}: {words}{hint}") from None

    def _open(self, parts: list[str]) -> int:
        folder = os.open(self._root, _FOLDER)
        try:
            if _identity(os.fstat(folder)) != self._identity:
                raise FilesError("the root folder has been replaced by another since it was given")
            for part in parts:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
        except BaseException:
            os.close(folder)
            raise
        return folder


class Walk:
    """A way through a folder and those below it; to be gone once, see `Rooted.walk`.

    Each step gives what was found, the descriptor of its folder (good until the next step), and its name in it.

    Attributes:
        left_out: what was not gone through although it was asked for, the first of it; empty where there is nothing.
        deeper: a folder that was not gone into, for it lies below the last level; empty where there is none.
        seen: entries read so far, those that were not given among them.
    """

    __slots__ = ("_depth", "_hidden", "_most", "_path", "_rooted", "deeper", "left_out", "seen")

    def __init__(self, rooted: Rooted, path: str, depth: int, most: int, *, hidden: bool) -> None:
        self._rooted = rooted
        self._path = path
        self._depth = depth
        self._most = most
        self._hidden = hidden
        self.left_out = ""
        self.deeper = ""
        self.seen = 0

    def __iter__(self) -> Iterator[tuple[Found, int, str]]:
        with self._rooted.folder(self._path) as folder:
            yield from self._through(folder, "/".join(self._rooted.parts(self._path)), self._depth)

    def _through(self, folder: int, path: str, depth: int) -> Iterator[tuple[Found, int, str]]:
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, self._most + 1)]
        except OSError as error:
            self._leave_out(path, error.strerror or "it cannot be read")
            return
        if len(names) > self._most:
            self._leave_out(path, f"it has more than {self._most:,} entries")
            names.pop()
        self.seen += len(names)
        for name in sorted(names):
            if not self._hidden and name.startswith("."):
                continue
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            where = f"{path}/{shown}" if path else shown
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:  # gone since the folder was read
                continue
            except OSError as error:
                self._leave_out(where, error.strerror or "it cannot be read")
                continue
            kind = kind_of(status.st_mode)
            yield Found(where, kind, status.st_size if kind == "file" else 0), folder, name
            if kind != "folder":
                continue
            if depth <= 1:
                self.deeper = self.deeper or where
                continue
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except OSError as error:  # not ours to read, or swapped for something else
                self._leave_out(where, error.strerror or "it cannot be read")
                continue
            try:
                yield from self._through(inner, where, depth - 1)
            finally:
                os.close(inner)

    def _leave_out(self, path: str, why: str) -> None:
        self.left_out = self.left_out or f"{path or '.'}: {why[0].lower()}{why[1:]}"


def read_at(folder: int, name: str, path: str, offset: int, length: int) -> tuple[bytes, int]:
    """Read some bytes of a regular file in an open folder; give them and the size of the whole.

    Raises:
        FilesError: it is no regular file.
        OSError: it cannot be opened or read.
    """
    with opened_file(folder, name, path) as (file, size):
        pieces: list[bytes] = []
        if offset < size:  # a place far behind the end is an error to the system
            file.seek(offset)
        else:
            length = 0
        while length > 0 and (piece := file.read(length)):
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces), size


@contextmanager
def opened_file(folder: int, name: str, path: str) -> Generator[tuple[FileIO, int]]:
    """Open a regular file in an open folder; give it and its size.

    Raises:
        FilesError: it is no regular file.
        OSError: it cannot be opened.
    """
    # Looked at before it is opened, for a device may act on that, and once more when it is.
    regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb", buffering=0) as file:
        yield file, regular(os.fstat(file.fileno()), path).st_size


def kind_of(mode: int) -> str:
    """Name what a mode is that of: `file`, `folder`, `link` or `special`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"


def regular(status: os.stat_result, path: str) -> os.stat_result:
    """Give a status as it is, where it is that of a regular file.

    Raises:
        FilesError: it is that of something else.
    """
    kind = kind_of(status.st_mode)
    if kind != "file":
        words = {
            "folder": "it is a folder",
            "link": "it is a symbolic link, and those are not followed",
            "special": "it is a pipe, a socket or a device, not a regular file",
        }
        raise FilesError(f"{path!r}: {words[kind]}")
    return status


_REASONS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ELOOP: "it is a symbolic link, and those are not followed",
    errno.ENOTDIR: "a part of it is no folder, or a symbolic link, and those are not followed",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "it is there already",
    errno.ENOTEMPTY: "the folder is not empty; delete what is in it first",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit it",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "it is no regular file",
    errno.EINVAL: "it cannot be there: a folder does not go into itself",
    errno.EXDEV: "it lies on another file system",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EROFS: "the file system is read-only",
}


def _identity(status: Any) -> tuple[int, int]:
    return status.st_dev, status.st_ino
