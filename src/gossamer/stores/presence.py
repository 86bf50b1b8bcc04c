"""Who is alive, told by the operating system: a lock on a file, which ends with the process that holds it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gossamer.errors import StoreUnavailableError

__all__ = ["Presence"]

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Presence:
    """Says that a store is in use by this process, and tells of others whether they still are.

    No clock is asked. The lock lies beside the database, on a file system of this machine.

    Args:
        database: the database's file.
        token: names this user of it.

    Raises:
        StoreUnavailableError: the file cannot be made.
    """

    def __init__(self, database: Path, token: str) -> None:
        self._database = database
        self._path = self._of(token)
        try:
            self._descriptor = self._begin()
        except OSError as error:
            raise StoreUnavailableError(f"cannot write beside {database}: {error}") from error

    def _begin(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                # Somebody who sweeps may have taken it for left behind before it was locked.
                if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    return descriptor
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def is_alive(self, token: str) -> bool:
        """Tell whether the process is alive that names itself so."""
        path = self._of(token)
        if path == self._path:
            return True
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:  # another user's: only its owner may say that it is dead
            return True
        try:
            if not _lock(descriptor):
                return True
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what dead processes left behind."""
        for path in self._database.parent.glob(f"{_escaped(self._database.name)}-holder-*"):
            self.is_alive(path.name.rpartition("-")[2])

    def end(self) -> None:
        """Say that the store is not in use any more."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def forget(self) -> None:
        """Let go of the lock in a forked child, where it stays the parent's."""
        os.close(self._descriptor)

    def _of(self, token: str) -> Path:
        return self._database.with_name(f"{self._database.name}-holder-{token}")


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
