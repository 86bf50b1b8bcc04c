"""Running a program on this machine: no shell, no input, and nothing that it starts in its group outlives the call."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeAlias

__all__ = ["Take", "run_process"]

_LOOK_EVERY = 0.05  # seconds between two looks at whether to stop
_TERMINATE_SECONDS = 1.0  # for a program to put things in order, before it is killed
_PIECE = 65_536
_MOST_LEFT = 32  # pieces that are read behind its end: more than a pipe holds, and the rest is not its own

# Takes a piece of what a program writes, and tells whether more is wanted.
Take: TypeAlias = Callable[[bytes], bool]


def run_process(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stopped: threading.Event,
    output: Take,
    errors: Take,
    program: str | None = None,
) -> int | None:
    """Run a program to its end, in a group of processes of its own, which ends with it. Blocks, and belongs in a thread.

    Args:
        arguments: the program's name, as found on the PATH of this process, and what it takes.
        folder: where it runs.
        environment: all its variables.
        stopped: ends it when it is set.
        output: takes what it writes to standard output; it is ended when no more is wanted.
        errors: the same for standard error.
        program: the path of the program, where it is not to be looked for.

    Returns:
        Its exit code, negative where a signal ended it; None where it was ended here before it came to its end.

    Raises:
        OSError: it cannot be started.
        ValueError: an argument or a variable has a NUL in it.
    """
    process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
        list(arguments),
        executable=program,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, so that what it starts is ended with it
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        ended = False
        try:
            ended = _read(process, {process.stdout: output, process.stderr: errors}, stopped) and _wait(
                process, stopped
            )
        finally:
            _end(process)
    return process.returncode if ended else None


def _read(
    process: subprocess.Popen[bytes], streams: Mapping[IO[bytes], Take], stopped: threading.Event
) -> bool:
    """Read until the program has nothing more to write; tell whether that came before anybody wanted it to stop."""
    with selectors.DefaultSelector() as selector:
        for stream, take in streams.items():
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, take)
        left = _MOST_LEFT
        while selector.get_map():
            if stopped.is_set():
                return False
            ended = not _runs(
                process
            )  # before the look at what is there: nothing of its own comes behind that
            ready = selector.select(0 if ended else _LOOK_EVERY)
            if ended:
                if not ready or not left:
                    break  # what it has left behind holds on to its output, and is ended with it
                left -= 1
            for key, _ in ready:
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                elif not key.data(piece):
                    return False
    return True


def _wait(process: subprocess.Popen[bytes], stopped: threading.Event) -> bool:
    """Wait for its end and tell whether it came."""
    pause = 0.0005
    while _runs(process):
        if stopped.wait(pause):
            return False
        pause = min(pause * 2, _LOOK_EVERY)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and what it may have started: gently first, so that it takes its locks away."""
    if _runs(process):
        _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _TERMINATE_SECONDS
        while _runs(process) and time.monotonic() < deadline:
            threading.Event().wait(_LOOK_EVERY)
    _signal(process, signal.SIGKILL)
    process.wait()


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether it runs, and leave it to be waited for: until then its group is nobody else's."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    return process.poll() is None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the latter of one that has ended, on macOS
        os.killpg(process.pid, number)
