"""Files of one folder for a model: list, read and search; write, edit, move and delete where it may.

Nothing leads out of the folder, see `rooted`. Whatever is given or taken is bounded, and a file is written as one step.
"""

from __future__ import annotations

import codecs
import fnmatch
import os
import re
from threading import Lock
from typing import Annotated, Any

import msgspec

from gossamer.errors import ArgumentError
from gossamer.tools import rooted_writes
from gossamer.tools.checked_text import checked_text
from gossamer.tools.function import NeedsApproval, Tool, tool
from gossamer.tools.rooted import FilesError, Found, Rooted, read_at
from gossamer.tools.toolkit import Toolkit

__all__ = ["FileMatch", "FoundText", "Listing", "files"]

# What a call of search_files reads at most; larger files and binary ones are passed over.
MAX_SEARCHED_FILES = 2_000
MAX_SEARCHED_BYTES = 64 * 1024 * 1024
MAX_SEARCHED_FILE = 4 * 1024 * 1024
MAX_MATCHES = 200
MAX_LINE = 300

# Characters of what it searches for. The time that a pattern takes grows with the square of its length.
MAX_SEARCHED_TEXT = 1_000
MAX_PATTERN = 256

# Levels that list_files and search_files go down.
MAX_LEVELS = 16

_LEAST_COUNTED = (
    4096  # what a file takes on disk at least, and so counts against the bound of what is written
)


class Listing(msgspec.Struct, frozen=True):
    """What `list_files` gives.

    Attributes:
        entries: in the order of their names, what is in a folder behind the folder.
        more: whether there are more than may be listed, or some that cannot be read.
    """

    entries: list[Found]
    more: bool


class FileMatch(msgspec.Struct, frozen=True):
    """A line in which the text stands.

    Attributes:
        path: of the file, relative to the root.
        line: its number, from 1.
        text: the line, its middle around the text where it is long.
    """

    path: str
    line: int
    text: str


class FoundText(msgspec.Struct, frozen=True):
    """What `search_files` gives.

    Attributes:
        matches: in the order of the files.
        searched: how many files were read.
        passed_over: how many were not: binary, too large, or not readable.
        stopped: why not all was searched; empty where all was.
    """

    matches: list[FileMatch]
    searched: int
    passed_over: int
    stopped: str


def files(
    root: str | os.PathLike[str],
    *,
    writable: bool = False,
    needs_approval: NeedsApproval = False,
    name: str = "files",
    max_read: int = 40_000,
    max_write: int = 1_000_000,
    max_written: int = 100_000_000,
    max_entries: int = 1_000,
) -> Toolkit:
    """Make a toolkit with which a model works on the files of a folder, and on no others.

    Symbolic links in it are never followed, special files never opened. A file that is written has its old content or
    all of its new one at any moment. Nothing is changed in a `.git` or a bare repository, and none can be made: git would
    run what its settings name, later and as somebody else.

    Args:
        root: the folder; it must be there.
        writable: whether there are tools that write, append, edit, move, delete and make folders.
        needs_approval: whether a person decides before one of those runs.
        name: of the toolkit. Where a tool's name is taken, it is put before it, so that two folders can be given.
        max_read: bytes that one call reads.
        max_write: bytes of a file that is written, appended to or edited.
        max_written: bytes that this toolkit writes in all; a file or folder counts for at least 4,096.
        max_entries: entries that a call lists, and that are read of any one folder.

    Returns:
        The toolkit. It holds nothing open.

    Raises:
        ArgumentError: `root` is no folder, or a bound is below 1.
        ToolkitError: the system cannot keep files to a folder (Windows).
    """
    bounds = {
        "max_read": max_read,
        "max_write": max_write,
        "max_written": max_written,
        "max_entries": max_entries,
    }
    for bound, value in bounds.items():
        if value < 1:
            raise ArgumentError(f"{bound} must be at least 1, not {value}")
    work = _Files(
        Rooted(root, "list_files tells what there is"), max_read, max_write, max_written, max_entries
    )
    tools: list[Tool[..., Any]] = [
        tool(idempotent=True, timeout=60)(work.list_files),
        tool(idempotent=True, timeout=60, max_result_chars=max_read + 1_000)(work.read_file),
        tool(idempotent=True, timeout=60, max_result_chars=200_000)(work.search_files),
    ]
    if writable:
        writers: list[Any] = [
            work.write_file,
            work.append_file,
            work.edit_file,
            work.move_file,
            work.delete_file,
            work.make_folder,
        ]
        tools += [tool(exclusive=True, timeout=60, needs_approval=needs_approval)(one) for one in writers]
    verbs = "List, read, search and change" if writable else "List, read and search"
    return Toolkit(name, tools, description=f"{verbs} the files of a folder.", on_clash="rename")


class _Files:
    """The tools' work."""

    def __init__(
        self, rooted: Rooted, max_read: int, max_write: int, max_written: int, max_entries: int
    ) -> None:
        self._rooted = rooted
        self._max_read = max_read
        self._max_write = max_write
        self._max_written = max_written
        self._max_entries = max_entries
        self._written = 0
        self._lock = Lock()  # between reading a file and replacing it

    def list_files(
        self, path: str = ".", depth: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEVELS)] = 1
    ) -> Listing:
        """List what is in a folder: files with their sizes in bytes, folders, and links, which are not followed.

        Args:
            path: the folder, relative to the root; "." is the root itself.
            depth: how many levels to go down.
        """
        entries: list[Found] = []
        walk = self._rooted.walk(path, depth, self._max_entries)
        for found, _, _ in walk:
            if len(entries) == self._max_entries:
                return Listing(entries, more=True)
            entries.append(found)
        return Listing(entries, more=bool(walk.left_out))

    def read_file(
        self,
        path: str,
        offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0,
        length: Annotated[int, msgspec.Meta(ge=1)] | None = None,
    ) -> str:
        """Read a text file, or a part of it. The first line of the answer says which bytes follow.

        Args:
            path: the file, relative to the root.
            offset: the byte to begin at, to read on in a long file.
            length: how many bytes to read at most.
        """
        wanted = max(min(length or self._max_read, self._max_read), 4)  # a character at least
        content, size = self._rooted.read(path, offset, wanted)
        if offset and offset >= size:
            raise FilesError(f"{path!r} has {size} bytes; there is nothing at offset {offset}")
        if b"\0" in content:
            raise FilesError(f"{path!r} is no text: a binary file of {size} bytes")
        start = offset
        if offset:  # in the middle of a character: its rest says nothing
            skipped = next((i for i, byte in enumerate(content[:3]) if byte & 0xC0 != 0x80), 0)
            content, start = content[skipped:], offset + skipped
        text, used, broken = _decoded(content, whole=start + len(content) >= size)
        note = "; bytes that are no UTF-8 are shown as \ufffd" if broken else ""
        more = f"; read on at offset {start + used}" if start + used < size else ""
        return f"[bytes {start} to {start + used} of {size}{more}{note}]\n{text}"

    def search_files(
        self, text: str, path: str = ".", files: str = "*", ignore_case: bool = False
    ) -> FoundText:
        """Search for a text in the files of a folder and of those below it. Binary and very large files are passed over.

        Args:
            text: what to find, letter by letter, within one line; at most 1,000 characters.
            path: the folder to search, relative to the root.
            files: which files, by a pattern of their names such as "*.py"; at most 256 characters.
            ignore_case: whether capital and small letters are the same.
        """
        if not text or "\n" in text:
            raise FilesError("text must not be empty and has no line break: the search goes line by line")
        checked_text(text, "text", MAX_SEARCHED_TEXT, FilesError)
        checked_text(files, "files", MAX_PATTERN, FilesError)
        needle = text.casefold() if ignore_case else text
        matches: list[FileMatch] = []
        searched = passed_over = read = seen = 0
        stopped = ""
        walk = self._rooted.walk(path, MAX_LEVELS, self._max_entries)
        for found, folder, name in walk:
            seen += 1
            if seen > 20 * MAX_SEARCHED_FILES or searched == MAX_SEARCHED_FILES:
                stopped = f"{searched} files were searched; search in a folder below"
                break
            if read >= MAX_SEARCHED_BYTES:
                stopped = f"{read} bytes were searched; search in a folder below"
                break
            if found.kind != "file" or not fnmatch.fnmatch(name, files):
                continue
            content = _searchable(folder, name, found)
            if content is None:
                passed_over += 1
                continue
            searched += 1
            read += len(content)
            matches += _matches(found.path, content, needle, ignore_case, MAX_MATCHES + 1 - len(matches))
            if len(matches) > MAX_MATCHES:
                stopped = (
                    f"there are more than {MAX_MATCHES} matches; search for a longer text or in fewer files"
                )
                break
        if not stopped and walk.left_out:
            stopped = f"not all could be searched: {walk.left_out}"
        if not stopped and walk.deeper:
            stopped = f"{walk.deeper!r} lies below {MAX_LEVELS} levels; search in it"
        return FoundText(matches[:MAX_MATCHES], searched, passed_over, stopped)

    def write_file(self, path: str, text: str) -> str:
        """Write a text file: make it, or replace all that is in it.

        Args:
            path: the file, relative to the root; its folder must be there.
            text: all that the file is to hold.
        """
        with self._lock:
            return self._write(path, _encoded(text))

    def append_file(self, path: str, text: str) -> str:
        """Put text at the end of a file; the file is made where it is not there.

        Args:
            path: the file, relative to the root.
            text: what to put there; begin a new line in it where one is wanted.
        """
        addition = _encoded(text)
        with self._lock:
            try:
                content = self._content(path)
            except FilesError:
                with self._rooted.parent(path) as (folder, name):
                    if _exists(folder, name):
                        raise
                content = b""
            return self._write(path, content + addition)

    def edit_file(self, path: str, old: str, new: str, everywhere: bool = False) -> str:
        """Replace a text in a file by another.

        Args:
            path: the file, relative to the root.
            old: the text as it stands in the file, with enough around it to be there only once.
            new: what is to stand there instead.
            everywhere: replace it wherever it stands.
        """
        if not old:
            raise FilesError("old must not be empty; append_file puts text at the end")
        with self._lock:
            try:
                text = self._content(path).decode()
            except UnicodeDecodeError:
                raise FilesError(f"{path!r} is no UTF-8 text and cannot be edited") from None
            count = text.count(old)
            if count == 0:
                raise FilesError(f"{path!r} does not hold that text; read the file again")
            if count > 1 and not everywhere:
                raise FilesError(
                    f"{path!r} holds that text {count} times; give more of what is around it, or everywhere=true"
                )
            if len(text) + count * (len(new) - len(old)) > self._max_write:  # before it is made
                raise self._too_large(path)
            self._write(path, _encoded(text.replace(old, new)))
        return f"replaced {count} time{'s' if count > 1 else ''} in {path}"

    def move_file(self, source: str, target: str) -> str:
        """Move or rename a file or a folder. Nothing that is there is replaced.

        Args:
            source: what to move, relative to the root.
            target: its new path; the folder it lies in must be there.
        """
        with self._lock:
            self._check(source)
            self._check(target)
            rooted_writes.move(self._rooted, source, target)
        return f"moved {source} to {target}"

    def delete_file(self, path: str) -> str:
        """Delete a file or an empty folder.

        Args:
            path: what to delete, relative to the root.
        """
        with self._lock:
            self._check(path)
            rooted_writes.delete(self._rooted, path)
        return f"deleted {path}"

    def make_folder(self, path: str) -> str:
        """Make a folder, and those above it that are missing.

        Args:
            path: the folder, relative to the root.
        """
        with self._lock:
            self._check(path)
            self._count(len(self._rooted.parts(path)) * _LEAST_COUNTED)
            made = rooted_writes.make_folder(self._rooted, path)
        return f"made {path}" if made else f"{path} is there already"

    def _content(self, path: str) -> bytes:
        content, size = self._rooted.read(path, 0, self._max_write + 1)
        if size > self._max_write or len(content) > self._max_write:
            raise self._too_large(path)
        return content

    def _write(self, path: str, content: bytes) -> str:
        if len(content) > self._max_write:
            raise self._too_large(path)
        self._check(path)
        self._count(max(len(content), _LEAST_COUNTED))
        rooted_writes.replace(self._rooted, path, content)
        return f"wrote {len(content)} bytes to {path}"

    def _check(self, path: str) -> None:
        """Refuse what git would run, later and as somebody else: a change of a repository's own files, or into one.

        Called with the lock, so that no two calls make a repository together.
        """
        if any(_is_git_folder(part) for part in self._rooted.parts(path)):
            raise FilesError(f"{path!r}: nothing is changed in a folder of git's own")
        for folder, part in self._rooted.steps(path):
            if _would_be_repository(folder, part):
                raise FilesError(
                    f"{path!r}: HEAD, objects and refs in one folder are a repository to git, and none may be made or changed"
                )

    def _count(self, size: int) -> None:
        if self._written + size > self._max_written:
            raise FilesError(f"no more may be written: {self._written} of {self._max_written} bytes were")
        self._written += size

    def _too_large(self, path: str) -> FilesError:
        return FilesError(f"{path!r}: a file that is written or changed has at most {self._max_write} bytes")


# --- text -----------------------------------------------------------------------------------------------------------


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FilesError("the text has half of a surrogate pair, which is no character") from None


def _decoded(content: bytes, *, whole: bool) -> tuple[str, int, bool]:
    """Decode bytes; give the text, how many of them it is, and whether some were no UTF-8.

    A character that is cut off at the end is left for the next call, but for the end of the file.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(content, final=whole)
    used = len(content) - len(decoder.getstate()[0])
    broken = "\ufffd" in text and "\ufffd".encode() not in content
    return text, used, broken


def _searchable(folder: int, name: str, found: Found) -> bytes | None:
    """Read a file to search in; None where it is too large, binary, or cannot be read."""
    if found.size > MAX_SEARCHED_FILE:
        return None
    try:
        content, _ = read_at(folder, name, found.path, 0, MAX_SEARCHED_FILE)
    except (OSError, FilesError):
        return None
    return None if b"\0" in content else content


def _matches(path: str, content: bytes, needle: str, ignore_case: bool, most: int) -> list[FileMatch]:
    text = content.decode(errors="replace")
    if needle not in (text.casefold() if ignore_case else text):
        return []
    matches: list[FileMatch] = []
    for number, line in enumerate(text.split("\n"), 1):
        place = (line.casefold() if ignore_case else line).find(needle)
        if place < 0:
            continue
        begin = max(0, min(place - 60, len(line) - MAX_LINE)) if len(line) > MAX_LINE else 0
        matches.append(FileMatch(path, number, line[begin : begin + MAX_LINE].rstrip("\r")))
        if len(matches) >= most:
            break
    return matches


# --- what is git's --------------------------------------------------------------------------------------------------

# Characters that a file system of Apple's passes over in a name.
_PASSED_OVER = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def _is_git_folder(name: str) -> bool:
    """Tell whether a name is `.git` to some file system: Windows cuts dots, spaces and `:…` off and shortens names."""
    plain = _PASSED_OVER.sub("", name).casefold()
    pieces = [piece.partition(":")[0].rstrip(". ") for piece in plain.split("\\")]
    return any(piece == ".git" or re.fullmatch(r"git~\d+", piece) for piece in pieces)


def _would_be_repository(folder: int, name: str) -> bool:
    """Tell whether git takes a folder for a repository, once it has that name in it: its settings can name programs."""

    def has(one: str) -> bool:
        return name.casefold() == one.casefold() or _exists(folder, one)

    # With a `commondir`, objects and refs lie where that says.
    return has("HEAD") and ((has("objects") and has("refs")) or has("commondir"))


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
