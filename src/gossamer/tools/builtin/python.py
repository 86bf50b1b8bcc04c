"""Python for a model: it writes code, which runs in a sandbox and leaves variables and files for the next call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import CodeError, SandboxError
from gossamer.messages import Image, Text, ToolResult
from gossamer.sandbox import Sandbox, SandboxSession
from gossamer.sandbox.in_words import about_network, about_python
from gossamer.tools.commands import MAX_FAILURE, check_bounds
from gossamer.tools.function import Tool, tool
from gossamer.tools.output_text import in_sections, named_files
from gossamer.tools.sandbox_place import Place, Ran, about_files, bound, place_in, with_words
from gossamer.tools.toolkit import Toolkit

__all__ = ["MAX_IMAGES", "python"]

# Images that a call gives.
MAX_IMAGES = 8

_WHAT = (
    "Run Python code in a sandbox and see what it prints and the value of its last expression. Variables and files last "
    "from call to call in this conversation."
)
_FRESH = "[a new session: variables and files of earlier calls are gone]"


def python(
    sandbox: Sandbox | None = None,
    *,
    files: Mapping[str, bytes | str] | None = None,
    name: str = "python",
    timeout: float | None = None,
    max_output: int = 20_000,
) -> Toolkit:
    """Make a toolkit with which a model runs Python that it wrote: `Agent(…, tools=[python()])`.

    The code runs in a sandbox and nowhere else. Its variables and files last as long as the session of the
    conversation is held open in this process; a run without a session has them for itself. `sandbox_session` gives you
    the files.

    Args:
        sandbox: where it runs. Where None a `MontySandbox` of 16 processes that all such toolkits share: a small Python
            of its own, quick to begin, without third-party packages. A `BubblewrapSandbox` has all of CPython.
        files: put there before the first call, by name.
        name: of the toolkit. Where a tool's name is taken, it is put before it.
        timeout: seconds that a call may take; the sandbox's limit where None, and never more than that.
        max_output: characters that a call gives of all that the code wrote; the middle of longer texts is left out.

    Returns:
        The toolkit. Where this machine cannot have the sandbox, nothing runs, and the run of the agent ends with a
        `SandboxUnavailableError`; `await sandbox.check()` tells it before.

    Raises:
        ArgumentError: an argument is out of range, or a name cannot be that of a file.
        SandboxFileSizeError: a file is larger than the sandbox takes.
        SandboxDiskError: the files together are.
    """
    check_bounds(timeout, max_output)
    where = _shared() if sandbox is None else sandbox
    most = 2 * max_output + MAX_FAILURE
    pattern = tool(timeout=None, description=_described(where, files), max_result_chars=most)(run_python)

    def tools(place: Place[SandboxSession]) -> tuple[Tool[..., Any], ...]:
        async def run(context: RunContext[Any], arguments: Any) -> str | tuple[Text | Image, ...]:
            code: str = arguments.code
            note = _FRESH if place.is_new and _ran_before(context) else ""
            try:
                ran = await place.use(lambda one: one.run(code, timeout=timeout))
            except SandboxError as error:
                raise with_words(error, _told(error, note)) from error
            return _shown(ran, note, max_output)

        return (bound(pattern, run),)

    return Toolkit(
        name,
        description="Run Python code in a sandbox.",
        open=place_in(where, files, tools),
        scope="session",
        on_clash="rename",
    )


async def run_python(code: str) -> None:
    """Run Python; the pattern of the tool.

    Args:
        code: what to run; the value of its last expression is shown.
    """


def _described(sandbox: Sandbox, files: Mapping[str, bytes | str] | None) -> str:
    words = (_WHAT, about_network(sandbox), about_python(sandbox), about_files(files))
    return " ".join(filter(None, words))


def _shared() -> Sandbox:
    from gossamer.sandbox.shared import shared_monty

    return shared_monty()


def _shown(ran: Ran, note: str, most: int) -> str | tuple[Text | Image, ...]:
    """Give what the model sees of a run."""
    execution = ran.execution
    text = in_sections(
        (
            ("stdout", execution.stdout),
            ("stderr", execution.stderr),
            ("value", execution.shown),
        ),
        most,
    )
    lines = list(filter(None, (note, text)))
    if ran.changed:
        lines.append(f"files written: {named_files(ran.changed)}")
    images = execution.images[:MAX_IMAGES]
    if len(execution.images) > MAX_IMAGES:
        lines.append(f"{len(execution.images)} images were made, of which these are the first {MAX_IMAGES}")
    if images:
        return (*((Text("\n".join(lines)),) if lines else ()), *images)
    return "\n".join(lines) or "(no output)"


def _ran_before(context: RunContext[Any]) -> bool:
    """Tell whether the model sees results of this tool, and so may count on what they left."""
    call = context.call
    return call is not None and any(
        isinstance(part, ToolResult) and part.name == call.name
        for message in context.messages
        for part in message.parts
    )


def _told(error: SandboxError, note: str) -> str:
    """Give what the model is told of code that failed: with what it had written, and the traceback."""
    trace = error.traceback if isinstance(error, CodeError) else ""
    told = (("", note), ("stdout", error.stdout), ("stderr", error.stderr), ("", trace or str(error)))
    return in_sections(told, MAX_FAILURE)
