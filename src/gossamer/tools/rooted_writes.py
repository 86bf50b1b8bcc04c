"""Writing below one folder and nowhere else: what is opened is what is changed, see `rooted`."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, suppress

from gossamer.tools.rooted import Rooted, regular

__all__ = ["delete", "make_folder", "move", "replace"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)


def replace(rooted: Rooted, path: str, content: bytes) -> None:
    """Make or replace a regular file as one step: it has its old content or all of the new, also after a crash.

    Raises:
        FilesError: the folder is not there, or something else than a file has the name.
    """
    with rooted.parent(path) as (folder, name), rooted.errors_of(path):
        mode = None
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(regular(os.stat(name, dir_fd=folder, follow_symlinks=False), path).st_mode)
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


def move(rooted: Rooted, source: str, target: str) -> None:
    """Move a regular file or a folder; nothing is ever replaced.

    Raises:
        FilesError: there is nothing to move, or something stands at the target.
    """
    with rooted.parent(source) as (from_folder, from_name), rooted.parent(target) as (to_folder, to_name):
        with rooted.errors_of(source):
            status = os.stat(from_name, dir_fd=from_folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                regular(status, source)
        with rooted.errors_of(target):
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


def delete(rooted: Rooted, path: str) -> None:
    """Delete a regular file or an empty folder.

    Raises:
        FilesError: it is not there, not empty, or something else.
    """
    with rooted.parent(path) as (folder, name), rooted.errors_of(path):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(name, dir_fd=folder)
        else:
            regular(status, path)
            os.unlink(name, dir_fd=folder)


def make_folder(rooted: Rooted, path: str) -> int:
    """Make a folder and those above it that are missing; give how many were made.

    Raises:
        FilesError: something else than a folder is in the way.
    """
    made = 0
    parts = rooted.parts(path)
    with ExitStack() as stack, rooted.errors_of(path):
        folder = stack.enter_context(rooted.folder("."))
        for part in parts:
            try:
                os.mkdir(part, dir_fd=folder)
                made += 1
            except FileExistsError:
                pass
            folder = os.open(part, _FOLDER, dir_fd=folder)
            stack.callback(os.close, folder)
    return made
