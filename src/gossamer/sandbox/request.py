"""What is asked of a run, looked at before anything happens: its code and its time."""

from __future__ import annotations

import math

from gossamer.errors import ArgumentError, CodeError, SandboxLimitError
from gossamer.sandbox.base import SandboxLimits

__all__ = ["check_code", "check_timeout"]


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
