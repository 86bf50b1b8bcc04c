"""Running git on a repository that nobody vouches for, so that nothing but git itself runs.

A repository can name programs in many places: hooks, pagers, filters and converters of files, drivers of diffs, signature
checkers, monitors, helpers of remotes. No configuration but the repository's own is read, whatever in that can name a
program is set to nothing for the call, and every protocol is off.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gossamer.errors import ArgumentError, GossamerError, ToolkitError
from gossamer.tools.processes import run_process

__all__ = ["OLDEST", "GitError", "Output", "Repository", "git_version"]

# The oldest git that keeps to all of the settings below.
OLDEST = (2, 32)

_MAX_ERRORS = 8_192  # bytes of what git complains of
_MAX_LISTED = 4_000_000  # bytes of the names of a repository's settings
_MAX_SILENCED = 1_000
_MAX_REVISIONS = 1_000_000  # bytes of a list of commits that blame passes over
_REVISION = re.compile(rb"\s*([0-9a-fA-F]{40}([0-9a-fA-F]{24})?)?\s*(#.*)?")

# Last parts of settings that are, or may become, a program's name or a file that is read and quoted in complaints.
_PROGRAMS = frozenset(
    (
        *(
            "clean",
            "smudge",
            "process",
            "command",
            "cmd",
            "textconv",
            "driver",
            "program",
            "helper",
            "external",
        ),
        *(
            "sshcommand",
            "defaultkeycommand",
            "alternaterefscommand",
            "packobjectshook",
            "fsmonitor",
            "hookspath",
        ),
        *(
            "pager",
            "editor",
            "askpass",
            "gitproxy",
            "proxy",
            "uploadpack",
            "receivepack",
            "vcs",
            "difffilter",
        ),
        *("template", "attributesfile", "excludesfile", "orderfile", "allowedsignersfile"),
    )
)
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.quotePath": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "diff.external": "",
    "diff.ignoreSubmodules": "all",
    "submodule.recurse": "false",
    "log.showSignature": "false",
    "format.pretty": "medium",
    "log.date": "default",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "mailmap.file": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "credential.helper": "",
    "advice.detachedHead": "false",
    "color.ui": "false",
    "safe.directory": "*",  # whoever gave the repository has named it, and it can run nothing
}
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # stronger than protocol.*.allow of the repository
    "GIT_PAGER": "cat",
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_ASKPASS": ":",
    "SSH_ASKPASS": ":",
    "GIT_LITERAL_PATHSPECS": "1",
    "HOME": os.devnull,
    "XDG_CONFIG_HOME": os.devnull,
    "LC_ALL": "C.UTF-8",
}


class GitError(GossamerError):
    """Git cannot do what was asked; the message is git's own, or says which argument or bound stands against it."""


class Output(msgspec.Struct, frozen=True):
    """What git wrote.

    Attributes:
        output: the bytes asked for.
        more: whether there were more.
        skipped: bytes passed over before them.
    """

    output: bytes
    more: bool
    skipped: int


class _Taken:
    """Takes what git writes until it is enough."""

    def __init__(self, most: int, skip: int) -> None:
        self._most = most
        self._skip = skip
        self._skipped = 0
        self._taken = bytearray()

    def __call__(self, piece: bytes) -> bool:
        passed = min(self._skip - self._skipped, len(piece))
        self._skipped += passed
        self._taken += piece[passed:]
        return len(self._taken) <= self._most

    def output(self) -> Output:
        return Output(bytes(self._taken[: self._most]), len(self._taken) > self._most, self._skipped)


class Repository:
    """A repository and how git is run on it. Everything here blocks, and belongs in a thread.

    Args:
        path: of the working tree, or of a bare repository.

    Raises:
        ArgumentError: there is no repository.
        ToolkitError: the system has no groups of processes (Windows).
    """

    __slots__ = ("_environment", "_folders", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not hasattr(os, "killpg"):
            raise ToolkitError(
                "git is run on Linux, macOS and BSD only: elsewhere what it starts cannot be ended with it"
            )
        try:
            self._path = Path(path).resolve(strict=True)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"repository must be a folder, not {path!r}: {error}") from None
        self._folders = _folders_of(self._path)
        self._environment = {
            **_ENVIRONMENT,
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_DIR": str(self._folders[0]),
        }
        if self._folders[0] != self._path:
            self._environment["GIT_WORK_TREE"] = str(self._path)  # not one that the repository names

    def run(
        self,
        arguments: Sequence[str],
        *,
        stopped: threading.Event,
        most: int,
        skip: int = 0,
        good: Sequence[int] = (0,),
        environment: Mapping[str, str] | None = None,
    ) -> Output:
        """Run git with arguments, none of which may come from a model where git could take it for an option.

        Args:
            arguments: the command and what it takes.
            stopped: ends git when it is set.
            most: bytes of output to take; git is ended past them.
            skip: bytes of output to pass over first.
            good: exit codes that are no failure.
            environment: more variables.

        Raises:
            GitError: git failed, or was stopped.
            ToolkitError: git is not there, or too old.
        """
        _check_version()
        for folder in self._folders:
            _check_links(folder)
        if arguments[0] == "blame":
            self._check_revisions(stopped)
        settings = {**_SETTINGS, **dict.fromkeys(self._programs(stopped), "")}
        numbered = {"GIT_CONFIG_COUNT": str(len(settings))}
        for number, (key, value) in enumerate(settings.items()):  # not by -c: a name may have a '=' in it
            numbered[f"GIT_CONFIG_KEY_{number}"] = key
            numbered[f"GIT_CONFIG_VALUE_{number}"] = value
        variables = {**self._environment, **numbered, **(environment or {})}
        return self._start(["--no-pager", *arguments], variables, stopped, most, skip, good)

    def _programs(self, stopped: threading.Event) -> list[str]:
        """Name the repository's settings that can run a program; listing them runs none."""
        listing = ["config", "--list", "--name-only", "--includes", "-z"]
        gave = self._start(listing, self._environment, stopped, _MAX_LISTED, 0, (0,))
        found: set[str] = set()
        for name in gave.output.decode("utf-8", "surrogateescape").split("\0"):
            section, _, rest = name.partition(".")
            subsection, _, last = rest.rpartition(".")
            if last in _PROGRAMS and name.lower() not in _SET:
                found.add(name)
            if section == "filter" and subsection:  # a filter that must run and cannot would be a failure
                found.update(
                    {f"filter.{subsection}.{one}" for one in ("clean", "smudge", "process", "required")}
                )
        if gave.more or len(found) > _MAX_SILENCED:
            raise GitError("the repository has more settings than can be made harmless")
        return sorted(found)

    def _check_revisions(self, stopped: threading.Event) -> None:
        """Refuse what blame would read in place of a list of commits: nothing that is set keeps it from that.

        Raises:
            GitError: the repository names something else as such a list.
        """
        asking = ["config", "--includes", "-z", "--path", "--get-all", "blame.ignoreRevsFile"]
        gave = self._start(asking, self._environment, stopped, _MAX_LISTED, 0, (0, 1))
        for name in filter(None, gave.output.decode("utf-8", "surrogateescape").split("\0")):
            if not _is_list_of_commits(self._path / name):
                raise GitError(
                    f"blame.ignoreRevsFile of the repository is {name!r}, which is no list of commits; "
                    "blame can be used when that file is mended or the setting taken away"
                )

    def _start(
        self,
        arguments: Sequence[str],
        variables: dict[str, str],
        stopped: threading.Event,
        most: int,
        skip: int,
        good: Sequence[int],
    ) -> Output:
        taken = _Taken(most, skip)
        complaints = bytearray()

        def complain(piece: bytes) -> bool:
            complaints.extend(piece[: _MAX_ERRORS - len(complaints)])
            return True

        try:
            code = run_process(
                ["git", *arguments],  # as found on PATH, which is the user's
                folder=self._path,
                environment=variables,
                stopped=stopped,
                output=taken,
                errors=complain,
            )
        except FileNotFoundError:
            raise _missing() from None
        except (OSError, ValueError) as error:
            raise GitError(f"git cannot be run: {error}") from None
        gave = taken.output()
        if stopped.is_set():
            raise GitError("git was stopped")
        if code is not None and code not in good:
            words = (bytes(complaints) or gave.output[:_MAX_ERRORS]).decode("utf-8", "replace").strip()
            words = words.replace(str(self._path), "the repository")
            # What follows may be a line of a file outside that the repository names as a list of commits.
            words = re.sub(r"(invalid object name): .*", r"\1", words)
            raise GitError(words or f"git failed with code {code}")
        return gave


def _is_list_of_commits(path: Path) -> bool:
    # Not waiting: a pipe would, for somebody at its other end.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            content = file.read(_MAX_REVISIONS + 1)
    except OSError:
        return False
    return len(content) <= _MAX_REVISIONS and all(map(_REVISION.fullmatch, content.split(b"\n")))


_SET = frozenset(name.lower() for name in _SETTINGS)


def _folders_of(path: Path) -> list[Path]:
    """Find where git keeps the repository: its folder, and for a further working tree that of the first one too.

    Raises:
        ArgumentError: it is nowhere, or in a place that only this folder says it is in.
    """
    inside = path / ".git"
    if inside.is_dir() and not inside.is_symlink():
        return [inside]
    if (path / "HEAD").is_file() and (path / "objects").is_dir():
        return [path]
    if not inside.is_file():
        raise ArgumentError(f"{str(path)!r} is no git repository: give the folder that has .git in it")
    try:  # `git worktree` makes such a file, and the place that it names knows of it
        folder = (path / inside.read_text().removeprefix("gitdir:").strip()).resolve(strict=True)
        if Path((folder / "gitdir").read_text().strip()).resolve() == inside.resolve():
            return [folder, (folder / (folder / "commondir").read_text().strip()).resolve(strict=True)]
    except (OSError, ValueError):
        pass
    raise ArgumentError(
        f"{inside} leads to another place, which does not know of it; give the repository itself"
    )


def _check_links(folder: Path) -> None:
    """Refuse what would make git read, and quote in complaints, files outside of the repository.

    Raises:
        GitError: a file or folder of it is a link, or names another place for the rest.
    """
    try:
        with os.scandir(folder) as entries:
            links = [one.name for one in entries if one.is_symlink() and one.name not in {"hooks", "lfs"}]
        if (folder / "info").is_dir():
            with os.scandir(folder / "info") as entries:
                links += [f"info/{one.name}" for one in entries if one.is_symlink()]
    except OSError as error:
        raise GitError(f"the repository cannot be read: {error.strerror}") from None
    if links:
        raise GitError(f"{links[0]} of the repository is a symbolic link, and those are not followed")
    if (folder / "commondir").exists() and not (folder / "gitdir").exists():
        raise GitError("the repository says that the rest of it lies elsewhere; give the one that holds it")


def git_version() -> tuple[int, ...] | None:
    """Give the version of the git on PATH, as numbers; None where there is none. Blocks."""
    program = shutil.which("git")
    if program is None:
        return None
    try:
        told = subprocess.run(  # noqa: S603 - no argument of anybody's
            [program, "version"], capture_output=True, text=True, timeout=10, check=True, env=_ENVIRONMENT
        ).stdout
        return tuple(int(part) for part in told.split()[2].split(".")[:3] if part.isdigit())
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


_checked = threading.Event()


def _check_version() -> None:
    """Make sure, once a process, that git is there and not too old.

    Raises:
        ToolkitError: it is not.
    """
    if _checked.is_set():
        return
    version = git_version()
    if version is None:
        raise _missing()
    if version < OLDEST:
        raise ToolkitError(
            f"git {'.'.join(map(str, version))} is too old: {'.'.join(map(str, OLDEST))} is needed, for older ones "
            "read settings that could run programs"
        )
    _checked.set()


def _missing() -> ToolkitError:
    return ToolkitError("git is not on PATH; install it with: apt-get install git (or as your system does)")
