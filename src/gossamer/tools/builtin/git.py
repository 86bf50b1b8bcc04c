"""A git repository for a model: what changed, when and by whom; commits and branches where it may.

Git itself runs, without a shell. A revision is turned into the number of its commit before it is used, so that no word of a
model's is taken for an option, and nothing that the repository names is run, see `git_process`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any

import msgspec

from gossamer.errors import ArgumentError
from gossamer.tools.builtin.git_process import GitError, Output, Repository
from gossamer.tools.builtin.stoppable import run_stoppable
from gossamer.tools.checked_text import checked_text
from gossamer.tools.function import NeedsApproval, Tool, tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["MAX_COMMITS", "MAX_PATHS", "git"]

# What a call may ask for at most.
MAX_COMMITS = 200
MAX_PATHS = 100
MAX_MESSAGE = 10_000

_MAX_REVISION = 250
_NUMBER = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_AUTHOR = re.compile(r"([^<>\n\0]+?) <([^<>\s\0]+)>")

Line = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


def git(
    repository: str | os.PathLike[str],
    *,
    writable: bool = False,
    needs_approval: NeedsApproval = False,
    author: str | None = None,
    name: str = "git",
    timeout: float = 30.0,
    max_output: int = 50_000,
) -> Toolkit:
    """Make a toolkit with which a model reads the history of a repository, and adds to it where it may.

    There is no network and no merge. Nothing runs but git: neither hooks nor filters, pagers or programs of a diff that the
    repository names, whoever made it. (So a file that Git LFS keeps is seen as its pointer.)

    Args:
        repository: the folder with `.git` in it, or a bare repository.
        writable: whether there are tools that add, commit, make branches and switch between them.
        needs_approval: whether a person decides before one of those runs.
        author: of commits, as "Name <mail>"; what the repository itself says where None. The user's own settings
            are not read.
        name: of the toolkit. Where a tool's name is taken, it is put before it.
        timeout: seconds that a call may take; git is ended then.
        max_output: bytes of what git writes that a call gives.

    Returns:
        The toolkit. No process lives longer than its call.

    Raises:
        ArgumentError: there is no repository, or an argument is out of range.
        ToolkitError: the system cannot end git with all that it started (Windows).
    """
    if not 0 < timeout <= 3_600:
        raise ArgumentError(f"timeout must be above 0 and at most 3,600 seconds, not {timeout}")
    if max_output < 1:
        raise ArgumentError(f"max_output must be at least 1, not {max_output}")
    work = _Git(Repository(repository), _identity(author), timeout, max_output)
    readers: list[Any] = [
        work.git_status,
        work.git_log,
        work.git_diff,
        work.git_show,
        work.git_blame,
        work.git_branches,
        work.git_list_files,
        work.git_read_file,
        work.git_grep,
    ]
    most = max_output + 1_000
    tools: list[Tool[..., Any]] = [
        tool(idempotent=True, timeout=timeout + 30, max_result_chars=most)(one) for one in readers
    ]
    if writable:
        writers: list[Any] = [work.git_add, work.git_commit, work.git_create_branch, work.git_switch]
        tools += [
            tool(exclusive=True, needs_approval=needs_approval, timeout=timeout + 30, max_result_chars=most)(
                one
            )
            for one in writers
        ]
    verb = "Read and add to" if writable else "Read"
    return Toolkit(name, tools, description=f"{verb} the history of a git repository.", on_clash="rename")


class _Git:
    """The tools' work."""

    def __init__(
        self, repository: Repository, identity: dict[str, str], timeout: float, max_output: int
    ) -> None:
        self._repository = repository
        self._identity = identity
        self._timeout = timeout
        self._max_output = max_output

    async def git_status(self) -> str:
        """Tell the branch, and which files are changed, staged or not known to git."""
        shown = await self._run(
            "status", "--short", "--branch", "--ignore-submodules=all", "--untracked-files=normal"
        )
        return self._text(shown)

    async def git_log(
        self,
        revision: str = "HEAD",
        path: str | None = None,
        search: str | None = None,
        limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_COMMITS)] = 20,
    ) -> str:
        """List commits, the latest first: number, date, author and subject.

        Args:
            revision: where to begin: a branch, tag or commit.
            path: only commits that changed this file or folder.
            search: only commits whose message has this text.
            limit: how many commits.
        """
        arguments = ["log", f"--max-count={limit}", "--no-show-signature", "--date=iso-strict"]
        arguments += ["--format=%h %ad %an: %s", "--no-patch"]
        if search:
            arguments += ["--fixed-strings", "--regexp-ignore-case", f"--grep={_plain(search, 'search')}"]
        commit = await self._commit(revision)
        return self._text(await self._run(*arguments, commit, "--", *_paths(path)), "no commit")

    async def git_diff(
        self,
        since: str | None = None,
        until: str | None = None,
        staged: bool = False,
        path: str | None = None,
    ) -> str:
        """Show changes: of the files against what is staged, or since a revision, or between two.

        Args:
            since: a revision to compare with; what is staged where it is not given.
            until: a second one; the files as they are where it is not given.
            staged: what is staged, in place of the files as they are.
            path: only this file or folder.
        """
        if until is not None and (since is None or staged):
            raise GitError("until goes with since, and not with staged")
        arguments = ["diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--no-color"]
        commits = [await self._commit(one) for one in (since, until) if one is not None]
        staging = ["--cached"] if staged else []
        return self._text(await self._run(*arguments, *staging, *commits, "--", *_paths(path)), "no changes")

    async def git_show(self, revision: str = "HEAD", path: str | None = None) -> str:
        """Show a commit: its message, who made it and when, and what it changed.

        Args:
            revision: a branch, tag or commit.
            path: only what it changed in this file or folder.
        """
        arguments = [
            "show",
            "--no-ext-diff",
            "--no-textconv",
            "--no-show-signature",
            "--ignore-submodules=all",
        ]
        arguments += ["--no-color", "--date=iso-strict", "--format=fuller", "--stat", "--patch"]
        return self._text(await self._run(*arguments, await self._commit(revision), "--", *_paths(path)))

    async def git_blame(
        self, path: str, revision: str = "HEAD", first: Line = 1, last: Line | None = None
    ) -> str:
        """Tell for each line of a file which commit it comes from.

        Args:
            path: the file, from the top of the repository.
            revision: a branch, tag or commit.
            first: the first line to tell of.
            last: the last one; 200 lines where it is not given.
        """
        until = last or first + 199
        if until < first:
            raise GitError(f"last must not be before first: {first} to {until}")
        commit = await self._commit(revision)
        arguments = [
            "blame",
            "--no-textconv",
            "--date=short",
            f"-L{first},{until}",
            commit,
            "--",
            *_paths(path),
        ]
        return self._text(await self._run(*arguments))

    async def git_branches(self) -> str:
        """List branches and tags, the latest first; the one that is checked out has a star."""
        form = "--format=%(HEAD) %(refname:short) %(objectname:short) %(creatordate:iso-strict) %(subject)"
        arguments = ["for-each-ref", f"--count={MAX_COMMITS}", "--sort=-creatordate", form]
        return self._text(await self._run(*arguments, "refs/heads", "refs/remotes", "refs/tags"), "no branch")

    async def git_list_files(self, revision: str = "HEAD", path: str | None = None) -> str:
        """List the files at a revision, one a line.

        Args:
            revision: a branch, tag or commit.
            path: only those in this folder.
        """
        commit = await self._commit(revision)
        gave = await self._run(
            "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", *_paths(path)
        )
        names = Output(gave.output.replace(b"\n", b"\\n").replace(b"\0", b"\n"), gave.more, 0)
        return self._text(names, "no file")

    async def git_read_file(
        self,
        path: str,
        revision: str = "HEAD",
        offset: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0,
    ) -> str:
        """Read a file as it was at a revision.

        Args:
            path: the file, from the top of the repository.
            revision: a branch, tag or commit.
            offset: the byte to begin at, to read on in a long file.
        """
        (plain,) = _paths(path)
        commit = await self._commit(revision)
        gave = await self._run("cat-file", "blob", f"{commit}:{plain}", skip=offset)
        if b"\0" in gave.output:
            raise GitError(f"{path!r} is no text but a binary file")
        if gave.skipped < offset:
            raise GitError(f"{path!r} has {gave.skipped} bytes; there is nothing at offset {offset}")
        text = gave.output.decode("utf-8", "replace")
        return f"{text}\n[read on at offset {offset + len(gave.output)}]" if gave.more else text

    async def git_grep(
        self, text: str, revision: str = "HEAD", path: str | None = None, ignore_case: bool = False
    ) -> str:
        """Search for a text in the files at a revision; gives file, line number and line.

        Args:
            text: what to find, letter by letter.
            revision: a branch, tag or commit.
            path: only in this file or folder.
            ignore_case: whether capital and small letters are the same.
        """
        arguments = [
            "grep",
            "-n",
            "-I",
            "--full-name",
            "--no-color",
            "--no-textconv",
            "--no-recurse-submodules",
        ]
        arguments += ["--fixed-strings", *(["-i"] if ignore_case else []), "-e", _plain(text, "text")]
        commit = await self._commit(revision)
        gave = await self._run(*arguments, commit, "--", *_paths(path), good=(0, 1))
        prefix = re.compile(rb"^" + commit.encode() + b":", re.MULTILINE)  # git's, not what stands in a line
        found = Output(prefix.sub(b"", gave.output), gave.more, 0)
        return self._text(found, "no line has that text")

    async def git_add(self, paths: list[str]) -> str:
        """Stage files for the next commit: new, changed and deleted ones.

        Args:
            paths: files or folders, from the top of the repository; "." for all.
        """
        if not 0 < len(paths) <= MAX_PATHS:
            raise GitError(f"paths must be 1 to {MAX_PATHS}, not {len(paths)}")
        await self._run("add", "--all", "--", *(one for path in paths for one in _paths(path)))
        return await self._reported("staged", self.git_status())

    async def git_commit(self, message: str) -> str:
        """Commit what is staged.

        Args:
            message: a short subject, then an empty line and more where it is needed.
        """
        if not message.strip() or len(message) > MAX_MESSAGE:
            raise GitError(f"message must have 1 to {MAX_MESSAGE} characters, not {len(message)}")
        arguments = ["commit", "--no-verify", "--no-gpg-sign", "--cleanup=whitespace", "--quiet"]
        await self._run(*arguments, f"--message={_plain(message, 'message', lines=True)}")
        return await self._reported("committed", self.git_log(limit=1))

    async def git_create_branch(self, name: str, start: str = "HEAD", switch: bool = True) -> str:
        """Make a branch.

        Args:
            name: of the branch.
            start: the revision that it begins at.
            switch: whether to switch to it.
        """
        branch = await self._branch(name)
        await self._run("branch", "--no-track", branch, await self._commit(start))
        return await self.git_switch(branch) if switch else f"made branch {branch}"

    async def git_switch(self, name: str) -> str:
        """Switch to a branch; changes that would be lost stand against it.

        Args:
            name: of the branch, which must be there.
        """
        branch = await self._branch(name)
        await self._run("switch", "--no-guess", "--no-recurse-submodules", "--quiet", branch)
        return f"on branch {branch}"

    async def _reported(self, done: str, report: Awaitable[str]) -> str:
        """Give a report of what is done, which is no failure where only the report is one."""
        try:
            return await report
        except GitError as error:
            return f"{done}; git cannot show it: {error}"

    async def _commit(self, revision: str) -> str:
        """Turn a revision into the number of its commit: no option, and the same commit in every use."""
        asked = _plain(revision, "revision").strip()
        if not asked or len(asked) > _MAX_REVISION or asked.startswith("-"):
            raise GitError(f"{revision[:_MAX_REVISION]!r} is no revision; give a branch, a tag or a commit")
        try:
            gave = await self._run(
                "rev-parse", "--verify", "--quiet", "--end-of-options", asked + "^{commit}"
            )
        except GitError as error:
            why = f": {error}" if "code" not in str(error) else ""
            raise GitError(
                f"there is no revision {revision!r}{why}; git_branches tells what there is"
            ) from None
        number = gave.output.decode("ascii", "replace").strip()
        if not _NUMBER.fullmatch(number):
            raise GitError(f"{revision!r} is not one revision")
        return number

    async def _branch(self, name: str) -> str:
        asked = _plain(name, "name")
        if not asked or len(asked) > _MAX_REVISION or asked.startswith("-") or "@{" in asked:
            raise GitError(f"{name[:_MAX_REVISION]!r} is no name for a branch")
        try:
            await self._run("check-ref-format", "refs/heads/" + asked)
        except GitError:
            raise GitError(f"{name!r} is no name for a branch") from None
        return asked

    async def _run(self, *arguments: str, skip: int = 0, good: Sequence[int] = (0,)) -> Output:
        stopped = threading.Event()

        def run() -> Output:
            return self._repository.run(
                arguments,
                stopped=stopped,
                most=self._max_output,
                skip=skip,
                good=good,
                environment=self._identity,
            )

        try:
            return await run_stoppable(run, stopped.set, self._timeout)
        except TimeoutError:
            raise GitError(f"git took longer than {self._timeout:g} seconds and was ended") from None

    def _text(self, gave: Output, nothing: str = "") -> str:
        text = gave.output.decode("utf-8", "backslashreplace")
        if gave.more:
            text += f"\n[cut at {self._max_output} bytes; ask for less: a path, or fewer commits]"
        return text.strip("\n") or nothing


# --- arguments ------------------------------------------------------------------------------------------------------


def _plain(text: str, what: str, *, lines: bool = False) -> str:
    """Give text as it is, where it can be an argument of a program."""
    checked_text(text, what, MAX_MESSAGE, GitError)
    if not lines and "\n" in text:
        raise GitError(f"{what} has no line break in it")
    return text


def _paths(path: str | None) -> list[str]:
    """Give a path as git takes it behind `--`, where nothing is an option and, so told, nothing a pattern."""
    if path is None:
        return []
    plain = _plain(path, "path")
    if not plain or len(plain) > 4_096:
        raise GitError("a path has 1 to 4,096 characters")
    if plain.startswith("/") or ".." in plain.split("/"):
        raise GitError(f"{path!r} leads out; paths begin at the top of the repository")
    return [plain.removeprefix("./") or "."]


def _identity(author: str | None) -> dict[str, str]:
    if author is None:
        return {}
    found = _AUTHOR.fullmatch(author)
    if found is None:
        raise ArgumentError(f"author must be written as 'Name <mail>', not {author!r}")
    name, mail = found.groups()
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": mail,
    }
