"""Which error stands for which limit, and its words."""

from __future__ import annotations

from gossamer.errors import (
    SandboxCallsError,
    SandboxCpuError,
    SandboxDiskError,
    SandboxFileSizeError,
    SandboxLimitError,
    SandboxMemoryError,
    SandboxOutputError,
    SandboxProcessError,
    SandboxTimeoutError,
)
from gossamer.sandbox.base import SandboxLimits

__all__ = ["LIMITS", "limit_error"]

LIMITS: dict[str, tuple[type[SandboxLimitError], str]] = {
    "timeout": (SandboxTimeoutError, "the code did not end within {0:g} seconds"),
    "cpu_seconds": (SandboxCpuError, "the code used more than {0:g} seconds of processor time"),
    "memory_bytes": (SandboxMemoryError, "the code wanted more than {0:,} bytes of memory"),
    "processes": (SandboxProcessError, "the code wanted more than {0:,} processes and threads"),
    "file_bytes": (SandboxFileSizeError, "the code wrote a file of more than {0:,} bytes"),
    "disk_bytes": (
        SandboxDiskError,
        "the files of the session have more than {0:,} bytes together",
    ),
    "files": (SandboxDiskError, "the session has more than {0:,} files and folders"),
    "output_bytes": (SandboxOutputError, "the code wrote more than {0:,} bytes to stdout and stderr"),
    "result_bytes": (SandboxOutputError, "the code gave back more than {0:,} bytes"),
    "host_calls": (SandboxCallsError, "the code called functions of the host more than {0:,} times"),
}


def limit_error(
    name: str, limits: SandboxLimits, *, allowed: float | None = None, stdout: str = "", stderr: str = ""
) -> SandboxLimitError:
    """Make the error of a limit that was reached.

    Args:
        name: its name in `SandboxLimits`.
        limits: the sandbox's.
        allowed: its value, where it was another than the sandbox's.
        stdout: what the code had written.
        stderr: the same.
    """
    kind, words = LIMITS[name]
    value = getattr(limits, name) if allowed is None else allowed
    advice = f"raise SandboxLimits({name}=...)"
    if allowed is not None and allowed < getattr(limits, name):
        advice = f"ask for more with {name}=..."
    return kind(
        f"{words.format(value)}; let it do with less, or {advice}",
        limit=name,
        allowed=value,
        stdout=stdout,
        stderr=stderr,
    )
