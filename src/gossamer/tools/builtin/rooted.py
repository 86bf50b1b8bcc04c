"""Files below one folder, reached component by component, so that nothing leads out of it.

Every step of a path is opened relative to the descriptor of the step before, and no step may be a symbolic link. There
is no moment between a check and a use: what was opened is what is used, whatever somebody swaps meanwhile.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, GossamerError, ToolkitError

__all__ = ["MAX_COMPONENTS", "FilesError", "Found", "Rooted", "kind_of", "opened_file", "read_at", "told"]

# Components of a path, and so descriptors that are open at once on the way to it.
MAX_COMPONENTS = 32

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
_FOLDER = _READ | getattr(os, "O_DIRECTORY", 0)
# Not blocking: a pipe would wait for somebody at its other end. No terminal: it would take over the process.
_FILE = _READ | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


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
        root: the folder; it may be reached through links, for whoever names it is trusted.

    Raises:
        ArgumentError: there is no such folder.
        ToolkitError: the system cannot open files relative to a folder.
    """

    __slots__ = ("_identity", "_root")

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise ToolkitError(
                "files are kept to a folder on Linux, macOS and BSD only; this system cannot do it"
            )
        try:
            self._root = Path(root).resolve(strict=True)
            self._identity = _identity(self._root.stat())
            os.close(os.open(self._root, _FOLDER))
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"root must be a folder that can be read, not {root!r}: {error}") from None

    @contextmanager
    def folder(self, path: str) -> Generator[int]:
        """Open a folder below the root and give its descriptor; "." is the root itself.

        Raises:
            FilesError: there is no such folder, it leads out, or a component is a link.
        """
        with told(path):
            descriptor = self._walk(self.parts(path))
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
        with told(path):
            descriptor = self._walk(parts[:-1])
        try:
            yield descriptor, parts[-1]
        finally:
            os.close(descriptor)

    def read(self, path: str, offset: int, length: int) -> tuple[bytes, int]:
        """Read some bytes of a regular file; give them and the size of the whole.

        Raises:
            FilesError: there is no such file, or it is none.
        """
        with self.parent(path) as (folder, name), told(path):
            return read_at(folder, name, path, offset, length)

    def replace(self, path: str, content: bytes) -> None:
        """Make or replace a regular file as one step: it has its old content or all of the new, also after a crash.

        Raises:
            FilesError: the folder is not there, or something else than a file has the name.
        """
        with self.parent(path) as (folder, name), told(path):
            mode = None
            with suppress(FileNotFoundError):
                mode = stat.S_IMODE(
                    _regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path).st_mode
                )
            temporary = f".gossamer-{secrets.token_hex(8)}"
            descriptor = os.open(temporary, _NEW, 0o666, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    if mode is not None:
                        os.fchmod(file.fileno(), mode & 0o777)
                    os.fsync(file.fileno())
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def move(self, source: str, target: str) -> None:
        """Move a regular file or a folder; nothing is ever replaced.

        Raises:
            FilesError: there is nothing to move, or something stands at the target.
        """
        with self.parent(source) as (from_folder, from_name), self.parent(target) as (to_folder, to_name):
            with told(source):
                status = os.stat(from_name, dir_fd=from_folder, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    _regular(status, source)
            with told(target):
                if not stat.S_ISDIR(status.st_mode):
                    try:  # a second name cannot replace anything, where a rename would
                        os.link(
                            from_name,
                            to_name,
                            src_dir_fd=from_folder,
                            dst_dir_fd=to_folder,
                            follow_symlinks=False,
                        )
                    except OSError as error:
                        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                            raise
                    else:
                        os.unlink(from_name, dir_fd=from_folder)
                        return
                with suppress(FileNotFoundError):
                    os.stat(to_name, dir_fd=to_folder, follow_symlinks=False)
                    raise FileExistsError(errno.EEXIST, "")
                os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def delete(self, path: str) -> None:
        """Delete a regular file or an empty folder.

        Raises:
            FilesError: it is not there, not empty, or something else.
        """
        with self.parent(path) as (folder, name), told(path):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                _regular(status, path)
                os.unlink(name, dir_fd=folder)

    def make_folder(self, path: str) -> int:
        """Make a folder and those above it that are missing; give how many were made.

        Raises:
            FilesError: something else than a folder is in the way.
        """
        made = 0
        parts = self.parts(path)
        with told(path):
            folder = self._walk([])
            try:
                for part in parts:
                    try:
                        os.mkdir(part, dir_fd=folder)
                        made += 1
                    except FileExistsError:
                        pass
                    inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                    os.close(folder)
                    folder = inner
            finally:
                os.close(folder)
        return made

    def walk(self, path: str, depth: int, most: int) -> Iterator[tuple[Found, int, str]]:
        """Go through a folder and those below it, each in the order of its names.

        Args:
            path: where to begin.
            depth: how many levels to go down; 1 for the folder alone.
            most: entries to read of each folder; those after are left out.

        Yields:
            What was found, the descriptor of its folder (good until the next step), and its name in it.
        """
        with self.folder(path) as folder:
            yield from _walk(folder, "/".join(self.parts(path)), depth, most)

    def parts(self, path: str) -> list[str]:
        """Split a path into its components.

        Raises:
            FilesError: it is absolute, has `..` or a NUL, or is too long or too deep.
        """
        if "\0" in path:
            raise FilesError(f"a path has no NUL character: {path!r}")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise FilesError(f"{path!r} is no name that a file can have") from None
        if len(path) > 4096:
            raise FilesError(f"a path has at most 4096 characters, not {len(path)}")
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

    def _walk(self, parts: list[str]) -> int:
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
    _regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
    with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb", buffering=0) as file:
        yield file, _regular(os.fstat(file.fileno()), path).st_size


def kind_of(mode: int) -> str:
    """Name what a mode is that of: `file`, `folder`, `link` or `special`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"


@contextmanager
def told(path: str) -> Generator[None]:
    """Turn what the system says of a path into a `FilesError` that a model understands."""
    try:
        yield
    except OSError as error:
        words = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
        raise FilesError(f"{path!r}: {words}") from None


_REASONS = {
    errno.ENOENT: "there is no such file or folder; list_files tells what there is",
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


def _walk(folder: int, path: str, depth: int, most: int) -> Iterator[tuple[Found, int, str]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, most))
    for name in names:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:  # gone since the folder was read
            continue
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        kind = kind_of(status.st_mode)
        where = f"{path}/{shown}" if path else shown
        yield Found(where, kind, status.st_size if kind == "file" else 0), folder, name
        if kind == "folder" and depth > 1:
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except OSError:  # not ours to read, or swapped for something else
                continue
            try:
                yield from _walk(inner, where, depth - 1, most)
            finally:
                os.close(inner)


def _regular(status: os.stat_result, path: str) -> os.stat_result:
    kind = kind_of(status.st_mode)
    if kind != "file":
        words = {
            "folder": "it is a folder",
            "link": "it is a symbolic link, and those are not followed",
            "special": "it is a pipe, a socket or a device, not a regular file",
        }
        raise FilesError(f"{path!r}: {words[kind]}")
    return status


def _identity(status: Any) -> tuple[int, int]:
    return status.st_dev, status.st_ino
