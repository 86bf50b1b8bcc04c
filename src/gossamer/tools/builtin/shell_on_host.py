"""Programs for a model on this machine itself, outside of any sandbox, where somebody asks for that."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.builtin.stoppable import run_stoppable
from gossamer.tools.commands import (
    MAX_FAILURE,
    CommandError,
    about_programs,
    allowed_programs,
    check_bounds,
    checked_command,
    told,
    told_of_failure,
)
from gossamer.tools.function import NeedsApproval, tool
from gossamer.tools.output_text import HeadAndTail
from gossamer.tools.processes import run_process
from gossamer.tools.toolkit import Toolkit

__all__ = ["shell_on_host"]

# Characters of what is said beside an output: how much of it is left out, and what ended the program.
_MOST_WORDS = 200


def shell_on_host(
    allow: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    needs_approval: NeedsApproval = True,
    environment: Mapping[str, str] | None = None,
    name: str = "shell",
    timeout: float = 60.0,
    max_output: int = 20_000,
) -> Toolkit:
    """Make a toolkit with which a model runs programs on this machine, as the user that runs this process. Unprotected.

    Nothing holds such a program but that a person is asked before each: it can read and write whatever this user can,
    and use the network. `shell` runs programs in a sandbox; take this only where that cannot do, for programs that you
    would let the author of any text that the model reads run.

    A command runs in the folder, without a shell, with nothing to read from standard input, and with three variables
    of its own (`PATH`, `HOME`, which is the folder, `LANG`) and none of this process. It is ended with its group
    of processes when its time is over, when the run is cancelled, and when its program has ended; a program that moves
    to a session of its own gets away from that.

    Args:
        allow: the names of the programs that may be run; nothing else is, and there is no default. They are looked up
            on `PATH` now, and not again.
        folder: the working folder. It keeps no program in it.
        needs_approval: whether a person decides before a command runs: always, never, or by a function of `argv`.
        environment: more variables, such as those that you want it to know.
        name: of the toolkit. Where a tool's name is taken, it is put before it.
        timeout: seconds that a command may take.
        max_output: bytes that a call gives of standard output, and of standard error; the middle of more is left out.

    Raises:
        ArgumentError: `allow` names no program or something else than names, one is not on `PATH` or lies in the
            folder, where the model could change it; the folder is none; or an argument is out of range.
        ToolkitError: the system has no groups of processes (Windows).
    """
    if not hasattr(os, "killpg"):
        raise ToolkitError(
            "commands run on Linux, macOS and BSD only: elsewhere what they start cannot be ended"
        )
    check_bounds(timeout, max_output)
    allowed = allowed_programs(allow)
    try:
        place = Path(folder).resolve(strict=True)
        os.listdir(place)  # noqa: PTH208 - whether it is a folder that can be read
    except (OSError, TypeError, ValueError) as error:
        raise ArgumentError(f"folder must be a folder that can be read, not {folder!r}: {error}") from None
    search = _search_path()
    programs = {name: _program(name, search, place) for name in allowed}
    variables = {"PATH": search, "HOME": str(place), "LANG": "C.UTF-8"} | dict(environment or {})

    @tool(
        name="run_command",
        description=f"Run a program on the user's machine, in the working folder. {about_programs(allowed)}",
        timeout=timeout + 30,
        needs_approval=needs_approval,
        exclusive=True,
        max_result_chars=2 * max_output + MAX_FAILURE,
    )
    async def run_on_host(argv: list[str]) -> str:
        """Run a program.

        Args:
            argv: the program's name and its arguments, an item each.
        """
        command = checked_command(argv, allowed)
        stdout, stderr = HeadAndTail(max_output), HeadAndTail(max_output)
        stopped = threading.Event()

        def run() -> int | None:
            return run_process(
                command,
                folder=place,
                environment=variables,
                stopped=stopped,
                output=stdout,
                errors=stderr,
                program=programs[command[0]],
            )

        try:
            code = await run_stoppable(run, stopped.set, timeout)
        except TimeoutError:
            words = f"{command[0]} took longer than {timeout:g} seconds and was ended"
            most = MAX_FAILURE // 2 - _MOST_WORDS
            raise CommandError(told_of_failure(words, stdout.text(most), stderr.text(most))) from None
        except (OSError, ValueError) as error:
            raise CommandError(f"{command[0]} cannot be run: {error}") from None
        if code is None:
            raise CommandError(f"{command[0]} was ended before it came to its end")
        most = 2 * (max_output + _MOST_WORDS)  # so that nothing is cut again, and how much was left out
        return told(code, stdout.text(max_output), stderr.text(max_output), most)

    return Toolkit(name, [run_on_host], description="Run programs on the user's machine.", on_clash="rename")


def _search_path() -> str:
    """Give the folders of PATH that mean the same wherever a program runs."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())


def _program(name: str, search: str, folder: Path) -> str:
    """Find a program.

    Raises:
        ArgumentError: it is not there, or lies in the working folder.
    """
    found = shutil.which(name, path=search)
    if found is None:
        raise ArgumentError(f"allow: {name!r} is not on PATH; install it, or leave it out")
    if any(Path(one).is_relative_to(folder) for one in (found, Path(found).resolve())):
        raise ArgumentError(
            f"allow: {name!r} is {found}, in the working folder, where a command could change it; give another folder"
        )
    return found
