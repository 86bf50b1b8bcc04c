"""The command line: `gossamer run`, `chat`, `sessions`, `resume`, `simulate`, `bench`, `models`, `doctor`.

Each command is a file of its own, loaded when it is called. The list of commands is written without loading
anything, so that `gossamer --help` costs little more than the interpreter.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gossamer import __version__
from gossamer.errors import ArgumentError, GossamerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App

__all__ = ["main"]

_ABOUT = "Run AI agents, talk to them, and see what they need."
_COMMANDS = {
    "run": "Run an agent once and show its tool calls and its answer.",
    "chat": "Talk to an agent.",
    "sessions": "List the sessions of a store; show, export, import or delete one.",
    "resume": "Go on with the runs of a store whose process died.",
    "simulate": "Serve a model provider that costs nothing: OpenAI's, Anthropic's, Gemini's and Ollama's formats.",
    "bench": "Measure, in a source checkout.",
    "models": "List the providers, what each can do, and which are configured.",
    "doctor": "Show what is configured, what can be reached, and what is missing.",
}
_COMPLETION = "Install completion for bash, zsh or fish."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind `gossamer`; the process's own where None.

    Returns:
        The exit code: 0; 1 where the work failed; 2 where an argument is wrong; 130 after Ctrl-C.
    """
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if tokens in ([], ["--help"], ["-h"]):
            sys.stdout.write(_help())
            code = 0
        elif tokens == ["--version"]:
            sys.stdout.write(f"{__version__}\n")
            code = 0
        else:
            code = _dispatch(tokens)
        sys.stdout.flush()
    except ArgumentError as error:
        return _complain(str(error), 2)
    except GossamerError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left, `head` perhaps; the interpreter must not try to flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _dispatch(tokens: list[str]) -> int:
    """Read the arguments of a command and call it."""
    from cyclopts import App, CycloptsError

    app: App = App(name="gossamer", help=_ABOUT, version=__version__, help_format="plaintext")
    for name, summary in _COMMANDS.items():
        app.command(f"gossamer.cli.{name}:{name}", name=name, help=summary)
    app.register_install_completion_command(help=_COMPLETION)  # pyright: ignore[reportUnknownMemberType] - its **kwargs have no type
    try:
        return app(
            tokens, print_error=False, exit_on_error=False, result_action="return_int_as_exit_code_else_zero"
        )
    except CycloptsError as error:
        command = f"{tokens[0]} " if tokens[0] in _COMMANDS else ""
        return _complain(f"{error} See gossamer {command}--help.", 2)


def _help() -> str:
    entries = {
        **_COMMANDS,
        "--help, -h": "Show this, or behind a command, its arguments.",
        "--version": "Show the version.",
        "--install-completion": _COMPLETION,
    }
    lines = "".join(f"  {name:<22}{summary}\n" for name, summary in entries.items())
    return f"Usage: gossamer COMMAND\n\n{_ABOUT}\n\n{lines}"


def _complain(message: str, code: int) -> int:
    from gossamer.cli.screen import printable

    sys.stderr.write(f"gossamer: {printable(message)}\n")
    return code
