"""The files of a session of Monty: a folder in memory, within limits, that code sees with `open` and pathlib.

Beside the folder there is nothing: no path of the host is ever looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar, TypeAlias

from pydantic_monty import NOT_HANDLED, MontyFileHandle, ScanEntry, StatResult

from gossamer.errors import ArgumentError, SandboxFileError, SandboxLimitError
from gossamer.sandbox.base import SandboxFile, SandboxLimits
from gossamer.sandbox.files import why_no_name
from gossamer.sandbox.limits_reached import limit_error

__all__ = ["FOLDER", "MontyFiles"]

# Where the folder stands, as code sees it; the working folder of each run.
FOLDER = "/session/files"

_ABOVE = {"/": "session", "/session": "files"}
_MOST_RANDOM = 1024 * 1024

_Folder: TypeAlias = "dict[str, _Folder | bytearray]"


class MontyFiles:
    """A folder in memory.

    Args:
        limits: what it may hold.

    Attributes:
        reached: the limits that a run has come to, by the words that its code was told; emptied for each.
    """

    __slots__ = ("_bytes", "_count", "_limits", "_root", "reached")

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._root: _Folder = {}
        self._bytes = 0
        self._count = 0
        self.reached: dict[str, SandboxLimitError] = {}

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Do what code asks of its system: files, an environment that is empty, random bytes.

        Args:
            name: what it asks, as Monty names it.
            args: whatever it gave.
            kwargs: the same.

        Returns:
            The answer; `NOT_HANDLED` where there is nothing of the kind.

        Raises:
            Exception: what the code is to see.
        """
        do = self._CALLS.get(name)
        return NOT_HANDLED if do is None else do(self, *args, **kwargs)

    # --- the host's side --------------------------------------------------------------------------------------------

    def put(self, files: Mapping[str, bytes], folders: Sequence[str] = ()) -> None:
        """Put files into the folder, all or none.

        Args:
            files: by name, as `check_uploads` gave them.
            folders: folders that may be empty.

        Raises:
            ArgumentError: a name is that of a folder, or goes through a file.
            SandboxLimitError: with what is there already they would be too large, or too many.
        """
        if not files and not folders:
            return
        there = {name: len(content) for name, content in self._walk()}
        known = self._folder_names()
        for name in files:
            if name in known or not there.keys().isdisjoint(_above(name)):
                raise ArgumentError(
                    f"files: {name[:100]!r} is a folder of the session, or goes through a file"
                )
        there.update({name: len(data) for name, data in files.items()})
        if sum(there.values()) > self._limits.disk_bytes:
            raise limit_error("disk_bytes", self._limits)
        every = known.union(folders, *map(_above, folders), *map(_above, files))
        if not every.isdisjoint(there):
            raise ArgumentError(f"files: {min(every & there.keys())[:100]!r} is a file and a folder")
        if len(there) + len(every) > self._limits.files:
            raise limit_error("files", self._limits)
        for folder in folders:
            self._make_folders(folder)
        for name, data in files.items():
            above, _, last = name.rpartition("/")
            folder = self._make_folders(above) if above else self._root
            before = folder.get(last)
            self._bytes += len(data) - (len(before) if before is not None else 0)
            self._count += before is None
            folder[last] = bytearray(data)

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            SandboxFileError: there is no such file, or it is larger than `result_bytes`.
        """
        entry = _find(self._root, name.split("/"))
        if not isinstance(entry, bytearray):
            raise SandboxFileError(f"there is no file {name[:100]!r} in the session")
        if len(entry) > self._limits.result_bytes:
            raise SandboxFileError(
                f"{name[:100]!r} has {len(entry):,} bytes, and no more than {self._limits.result_bytes:,} come out;"
                " let the code write less, or raise SandboxLimits(result_bytes=...)"
            )
        return bytes(entry)

    def listed(self) -> tuple[SandboxFile, ...]:
        """List the files, by name."""
        return tuple(sorted((SandboxFile(name, len(data)) for name, data in self._walk()), key=_by_name))

    def size(self, name: str) -> int:
        """Give the size of a file that is there."""
        entry = _find(self._root, name.split("/"))
        return len(entry) if entry is not None else 0

    def kept(self) -> tuple[dict[str, bytes], list[str]]:
        """Give all files, and the names of all folders."""
        return {name: bytes(data) for name, data in self._walk()}, sorted(self._folder_names())

    # --- what code sees ---------------------------------------------------------------------------------------------

    def _open(self, path: Any, mode: str) -> MontyFileHandle:
        handle = MontyFileHandle(_text(path), mode)
        if handle.mode[0] == "r":
            self._file(path)
        elif handle.mode[0] == "w":
            self._write(path, b"")
        else:
            self._append(path, b"")
        return handle

    def _exists(self, path: Any) -> bool:
        return self._entry(path) is not None

    def _is_file(self, path: Any) -> bool:
        return isinstance(self._entry(path), bytearray)

    def _is_folder(self, path: Any) -> bool:
        return isinstance(self._entry(path), dict)

    def _is_link(self, _: Any) -> bool:
        return False

    def _read_text(self, path: Any) -> str:
        return self._file(path).decode()

    def _read_bytes(self, path: Any) -> bytes:
        return bytes(self._file(path))

    def _write_text(self, path: Any, text: str) -> int:
        self._write(path, text.encode())
        return len(text)

    def _write_bytes(self, path: Any, data: bytes) -> int:
        self._write(path, data)
        return len(data)

    def _append_text(self, path: Any, text: str) -> int:
        self._append(path, text.encode())
        return len(text)

    def _append_bytes(self, path: Any, data: bytes) -> int:
        self._append(path, data)
        return len(data)

    def _write(self, path: Any, data: bytes) -> None:
        folder, name, entry = self._place_of_file(path)
        self._check(path, len(data), len(data) - (0 if entry is None else len(entry)), entry is None)
        if entry is None:
            folder[name] = bytearray(data)
        else:
            entry[:] = data

    def _append(self, path: Any, data: bytes) -> None:
        folder, name, entry = self._place_of_file(path)
        before = 0 if entry is None else len(entry)
        self._check(path, before + len(data), len(data), entry is None)
        if entry is None:
            folder[name] = bytearray(data)
        else:
            entry += data

    def _check(self, path: Any, size: int, more: int, new: bool) -> None:
        """See whether a file may have a size, and count what it takes more."""
        if size > self._limits.file_bytes:
            self._refuse("file_bytes", f"[Errno 27] File too large: {_shown(path)}")
        if self._bytes + more > self._limits.disk_bytes:
            self._refuse("disk_bytes", f"[Errno 28] No space left on device: {_shown(path)}")
        if new:
            self._count_one(path)
        self._bytes += more

    def _count_one(self, path: Any) -> None:
        if self._count >= self._limits.files:
            self._refuse("files", f"[Errno 28] Too many files and folders: {_shown(path)}")
        self._count += 1

    def _refuse(self, limit: str, words: str) -> None:
        if len(self.reached) < 100:  # the code may come to it again and again
            self.reached[words] = limit_error(limit, self._limits)
        raise OSError(words)

    def _mkdir(self, path: Any, *, parents: bool = False, exist_ok: bool = False, **_: Any) -> None:
        entry = self._entry(path)
        if entry is not None:
            if exist_ok and isinstance(entry, dict):
                return
            raise FileExistsError(f"[Errno 17] File exists: {_shown(path)}")
        folder = self._root
        *above, name = _inside(path)
        for part in above:
            under = folder.get(part)
            if under is None:
                if not parents:
                    raise _missing(path)
                self._count_one(path)
                under = folder[part] = {}
            if not isinstance(under, dict):
                raise NotADirectoryError(f"[Errno 20] Not a directory: {_shown(path)}")
            folder = under
        self._count_one(path)
        folder[name] = {}

    def _unlink(self, path: Any) -> None:
        if self._entry(path) is None:
            raise _missing(path)
        folder, name, entry = self._place_of_file(path)
        assert entry is not None
        del folder[name]
        self._bytes -= len(entry)
        self._count -= 1

    def _rmdir(self, path: Any) -> None:
        folder, name = self._place(path)
        if self._folder(path):
            raise OSError(f"[Errno 39] Directory not empty: {_shown(path)}")
        del folder[name]
        self._count -= 1

    def _rename(self, path: Any, target: Any) -> None:
        entry = self._entry(path)
        if entry is None:
            raise _missing(path)
        folder, name = self._place(path)
        aim, new = self._place(target)
        there = aim.get(new)
        if there is entry:
            return
        source, goal = _inside(path), _inside(target)
        if isinstance(entry, dict) and goal[: len(source)] == source:
            raise OSError(f"[Errno 22] Invalid argument: {_shown(path)} -> {_shown(target)}")
        if there is not None:
            if isinstance(there, dict) != isinstance(entry, dict):
                kind = IsADirectoryError if isinstance(there, dict) else NotADirectoryError
                raise kind(f"[Errno 20] {_shown(path)} and {_shown(target)} are of different kinds")
            if isinstance(there, dict) and there:
                raise OSError(f"[Errno 39] Directory not empty: {_shown(target)}")
            self._bytes -= len(there)  # an empty folder has none
            self._count -= 1
        del folder[name]
        aim[new] = entry

    def _stat(self, path: Any) -> StatResult:
        entry = self._entry(path)
        if entry is None:
            raise _missing(path)
        return StatResult.dir_stat() if isinstance(entry, dict) else StatResult.file_stat(len(entry))

    def _scan(self, path: Any, *, max_depth: int | None = None, **_: Any) -> list[ScanEntry]:
        entry = self._entry(path)
        if entry is None:
            raise _missing(path)
        found = [_scanned("", entry)]
        waiting: list[tuple[_Folder, str, int]] = [(entry, "", 1)] if isinstance(entry, dict) else []
        while waiting:
            folder, above, depth = waiting.pop()
            if max_depth is not None and depth > max_depth:
                continue
            for name, one in folder.items():
                relative = f"{above}/{name}" if above else name
                found.append(_scanned(relative, one))
                if isinstance(one, dict):
                    waiting.append((one, relative, depth + 1))
        return found

    def _list(self, path: Any) -> list[PurePosixPath]:
        return [PurePosixPath(_text(path), name) for name in self._folder(path)]

    def _resolve(self, path: Any) -> str:
        return _absolute(path)

    def _variable(self, _: str, default: str | None = None) -> str | None:
        return default

    def _variables(self) -> dict[str, str]:
        return {}

    def _random(self, size: int) -> bytes:
        if size > _MOST_RANDOM:
            raise MemoryError(f"os.urandom gives {_MOST_RANDOM:,} bytes at most")
        return os.urandom(size)

    # --- finding ----------------------------------------------------------------------------------------------------

    def _entry(self, path: Any) -> _Folder | bytearray | None:
        text = _absolute(path)
        if text in _ABOVE:
            return {_ABOVE[text]: {}}
        parts = _below(text)
        return None if parts is None else _find(self._root, parts)

    def _file(self, path: Any) -> bytearray:
        entry = self._entry(path)
        if entry is None:
            raise _missing(path)
        if isinstance(entry, dict):
            raise IsADirectoryError(f"[Errno 21] Is a directory: {_shown(path)}")
        return entry

    def _folder(self, path: Any) -> _Folder:
        entry = self._entry(path)
        if entry is None:
            raise _missing(path)
        if isinstance(entry, bytearray):
            raise NotADirectoryError(f"[Errno 20] Not a directory: {_shown(path)}")
        return entry

    def _place(self, path: Any) -> tuple[_Folder, str]:
        """Find the folder in which something is, or will be, and its name in there."""
        *above, name = _inside(path)
        folder = _find(self._root, above)
        if folder is None:
            raise _missing(path)
        if isinstance(folder, bytearray):
            raise NotADirectoryError(f"[Errno 20] Not a directory: {_shown(path)}")
        return folder, name

    def _place_of_file(self, path: Any) -> tuple[_Folder, str, bytearray | None]:
        folder, name = self._place(path)
        entry = folder.get(name)
        if isinstance(entry, dict):
            raise IsADirectoryError(f"[Errno 21] Is a directory: {_shown(path)}")
        return folder, name, entry

    def _make_folders(self, name: str) -> _Folder:
        folder = self._root
        for part in name.split("/"):
            under = folder.get(part)
            if under is None:
                under = folder[part] = {}
                self._count += 1
            assert isinstance(under, dict)
            folder = under
        return folder

    def _walk(self) -> Iterator[tuple[str, bytearray]]:
        for name, entry in self._every():
            if isinstance(entry, bytearray):
                yield name, entry

    def _folder_names(self) -> set[str]:
        return {name for name, entry in self._every() if isinstance(entry, dict)}

    def _every(self) -> Iterator[tuple[str, _Folder | bytearray]]:
        waiting: list[tuple[str, _Folder]] = [("", self._root)]
        while waiting:
            above, folder = waiting.pop()
            for name, entry in folder.items():
                whole = f"{above}/{name}" if above else name
                yield whole, entry
                if isinstance(entry, dict):
                    waiting.append((whole, entry))

    # What code asks for, as Monty names it.
    _CALLS: ClassVar[dict[str, Callable[..., Any]]] = {
        "open": _open,
        "Path.exists": _exists,
        "Path.is_file": _is_file,
        "Path.is_dir": _is_folder,
        "Path.is_symlink": _is_link,
        "Path.read_text": _read_text,
        "Path.read_bytes": _read_bytes,
        "Path.write_text": _write_text,
        "Path.write_bytes": _write_bytes,
        "Path.append_text": _append_text,
        "Path.append_bytes": _append_bytes,
        "Path.mkdir": _mkdir,
        "Path.unlink": _unlink,
        "Path.rmdir": _rmdir,
        "Path.iterdir": _list,
        "Path.scan": _scan,
        "Path.stat": _stat,
        "Path.rename": _rename,
        "Path.resolve": _resolve,
        "Path.absolute": _resolve,
        "os.getenv": _variable,
        "os.environ": _variables,
        "os.urandom": _random,
    }


def _find(root: _Folder, parts: Sequence[str]) -> _Folder | bytearray | None:
    entry: _Folder | bytearray | None = root
    for part in parts:
        if not isinstance(entry, dict):
            return None
        entry = entry.get(part)
    return entry


def _text(path: Any) -> str:
    return path.path if isinstance(path, MontyFileHandle) else str(path)


def _absolute(path: Any) -> str:
    """Give a path as it stands from the root on, without `.` and `..`; there are no links that could mean another one."""
    return os.path.normpath(os.path.join("/", FOLDER, _text(path)))  # noqa: PTH118 - it is no path of the host's


def _below(text: str) -> list[str] | None:
    """Give the parts of a path below the folder; None for one beside it."""
    if text == FOLDER:
        return []
    if not text.startswith(f"{FOLDER}/"):
        return None
    return text[len(FOLDER) + 1 :].split("/")


def _inside(path: Any) -> list[str]:
    """Give the parts of a path that may be written."""
    text = _absolute(path)
    parts = _below(text)
    if not parts:
        raise PermissionError(f"[Errno 13] Permission denied: {_shown(path)}")
    if why_no_name("/".join(parts)) is not None:
        raise OSError(f"[Errno 36] File name too long: {_shown(path)}")
    return parts


def _above(name: str) -> list[str]:
    """Give the folders above a name, without itself."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _shown(path: Any) -> str:
    return repr(_text(path)[:1100])


def _missing(path: Any) -> FileNotFoundError:
    return FileNotFoundError(f"[Errno 2] No such file or directory: {_shown(path)}")


def _scanned(relative: str, entry: _Folder | bytearray) -> ScanEntry:
    folder = isinstance(entry, dict)
    return ScanEntry(relative, folder, not folder, False)


def _by_name(file: SandboxFile) -> str:
    return file.name
