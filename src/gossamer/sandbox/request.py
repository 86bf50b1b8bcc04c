"""What is asked of a run, looked at before anything happens: its code and its time."""

from __future__ import annotations

import math
from collections.abc import Collection

from gossamer.errors import ArgumentError, CodeError, SandboxLimitError
from gossamer.sandbox.base import SandboxLimits

__all__ = ["check_code", "check_sizes", "check_timeout", "names_of"]


def check_code(code: str, limits: SandboxLimits) -> str:
    """Give code that may be run.

    Raises:
        ArgumentError: it is no text.
        CodeError: it is text that no Python can be, as it cannot be written as UTF-8 or has a NUL.
        SandboxLimitError: it is longer than `code_bytes`.
    """
    if not isinstance(code, str):  # pyright: ignore[reportUnnecessaryIsInstance] - whatever somebody passes
        raise ArgumentError(f"code: text is wanted, and not {type(code).__name__}")
    size = len(code)
    if size <= limits.code_bytes:  # else it is too long already, and need not be encoded
        try:
            size = len(code.encode())
        except UnicodeEncodeError as error:
            raise CodeError(f"the code is no Python: {error}", kind="SyntaxError") from None
    if size > limits.code_bytes:
        raise SandboxLimitError(
            f"the code has more than {limits.code_bytes:,} bytes, which a run of this sandbox may have at most;"
            " write less, give data as files, or raise SandboxLimits(code_bytes=...)",
            limit="code_bytes",
            allowed=limits.code_bytes,
        )
    if "\0" in code:
        raise CodeError("the code is no Python: source code cannot contain null bytes", kind="SyntaxError")
    return code


def check_timeout(timeout: float | None, limits: SandboxLimits) -> float:
    """Give the seconds that a run may take: those asked for, and never more than the sandbox's.

    Raises:
        ArgumentError: it is no number above 0.
    """
    if timeout is None:
        return limits.timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"timeout: seconds are wanted, and not {timeout!r}")
    if math.isnan(timeout) or timeout <= 0:
        raise ArgumentError(f"timeout must be above 0, not {timeout!r}")
    return min(timeout, limits.timeout)


def check_sizes(limits: SandboxLimits | None, wait_timeout: float, **sizes: tuple[int, int]) -> SandboxLimits:
    """Check what a sandbox is built with, and give its limits.

    Args:
        limits: the sandbox's; the usual ones where None.
        wait_timeout: seconds.
        **sizes: whole numbers by name, each with the least that it may be.

    Raises:
        ArgumentError: something is out of range or of another type; the message names it.
    """
    if limits is not None and not isinstance(limits, SandboxLimits):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"limits must be a SandboxLimits, not {type(limits).__name__}")
    for name, (value, least) in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if isinstance(wait_timeout, bool | str) or not 0 < wait_timeout < math.inf:
        raise ArgumentError(f"wait_timeout must be above 0 seconds, not {wait_timeout!r}")
    return limits or SandboxLimits()


def names_of(what: str, names: object) -> tuple[str, ...]:
    """Give names as a tuple, if they are some.

    Args:
        what: what they are for, in the message.
        names: whatever came.

    Raises:
        ArgumentError: they are no list of text.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Collection):
        raise ArgumentError(f"{what} must be a list of names, not {names!r:.100}")
    for one in names:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(one, str):
            raise ArgumentError(f"{what} must be a list of names, and {one!r:.100} is none")
    return tuple(names)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
