"""Programs for a model, in a sandbox: it gives a list of arguments, never a line for a shell, and only named ones run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import SandboxError
from gossamer.sandbox.in_words import about_network
from gossamer.tools.commands import (
    MAX_FAILURE,
    about_programs,
    allowed_programs,
    check_bounds,
    checked_command,
    run_command,
    told,
    told_of_failure,
)
from gossamer.tools.function import Tool, tool
from gossamer.tools.output_text import named_files
from gossamer.tools.sandbox_place import (
    CommandSandbox,
    CommandSession,
    Place,
    about_files,
    bound,
    must_run_commands,
    place_in,
    with_words,
)
from gossamer.tools.toolkit import Toolkit

__all__ = ["shell"]


def shell(
    allow: Sequence[str],
    *,
    sandbox: CommandSandbox | None = None,
    files: Mapping[str, bytes | str] | None = None,
    name: str = "shell",
    timeout: float | None = None,
    max_output: int = 20_000,
) -> Toolkit:
    """Make a toolkit with which a model runs programs in a sandbox: `Agent(…, tools=[shell(["jq", "wc"])])`.

    The list says what you expect to be run; it is the sandbox that holds. Many programs start others: where one of
    `sh`, `python3`, `env`, `find`, `xargs`, `awk`, `tar` or `git` is among them, whatever the sandbox has can be run.

    Args:
        allow: the names of the programs that may be run; nothing else is, and there is no default.
        sandbox: where they run; a `BubblewrapSandbox` of 16 places that all such toolkits share where None.
        files: put into the working folder before the first call, by name. What commands leave there lasts as long as
            the session of the conversation is held open in this process.
        name: of the toolkit. Where a tool's name is taken, it is put before it.
        timeout: seconds that a command may take; the sandbox's limit where None, and never more than that.
        max_output: characters that a call gives of what a program wrote; the middle of longer texts is left out.

    Returns:
        The toolkit. Where this machine cannot have the sandbox, nothing runs, and the run of the agent ends with a
        `SandboxUnavailableError`.

    Raises:
        ArgumentError: `allow` names no program or something else than names, the sandbox runs no programs, or an
            argument is out of range.
        SandboxFileSizeError: a file is larger than the sandbox takes.
        SandboxDiskError: the files together are.
    """
    allowed = allowed_programs(allow)
    check_bounds(timeout, max_output)
    where = _shared() if sandbox is None else sandbox
    must_run_commands(where)
    words = (
        f"Run a program in a sandbox; files last from call to call in this conversation. {about_network(where)} "
        f"{about_programs(allowed)} {about_files(files)}"
    ).rstrip()
    pattern = tool(timeout=None, description=words, max_result_chars=2 * max_output + MAX_FAILURE)(
        run_command
    )

    def tools(place: Place[CommandSession]) -> tuple[Tool[..., Any], ...]:
        async def run(_: RunContext[Any], arguments: Any) -> str:
            argv = checked_command(arguments.argv, allowed)
            try:
                ran = await place.use(lambda one: one.command(argv, timeout=timeout))
            except SandboxError as error:
                raise with_words(error, told_of_failure(str(error), error.stdout, error.stderr)) from error
            done = ran.execution
            text = told(int(done.value), done.stdout, done.stderr, max_output)
            return f"{text}\nfiles written: {named_files(ran.changed)}" if ran.changed else text

        return (bound(pattern, run),)

    return Toolkit(
        name,
        description="Run programs in a sandbox.",
        open=place_in(where, files, tools),
        scope="session",
        on_clash="rename",
    )


def _shared() -> CommandSandbox:
    from gossamer.sandbox.shared import shared_bubblewrap

    return shared_bubblewrap()
