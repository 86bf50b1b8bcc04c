"""`gossamer bench`: the benchmarks of a source checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import gossamer
from gossamer.errors import ArgumentError

__all__ = ["bench"]


def bench(*names: str, quick: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Measure, in a source checkout: the named benchmarks, or all of them.

    Args:
        names: benchmarks by the name of their file, for example create or stream.
        quick: fewer rounds and nothing written: to see that they work.

    Returns:
        The exit code: 0 where all went through, 2 where a name is unknown, 1 else.

    Raises:
        ArgumentError: this is no source checkout.
    """
    command = [sys.executable, "-m", "benchmarks", *names, *(["--quick"] if quick else [])]
    return subprocess.run(command, cwd=_checkout(), check=False).returncode  # noqa: S603 - our own program


def _checkout() -> Path:
    """Find the source checkout: the one this package is run from, or the one around the working directory."""
    here = Path.cwd()
    for place in (Path(gossamer.__file__).parents[2], here, *here.parents):
        if (place / "benchmarks" / "__main__.py").is_file() and (place / "src" / "gossamer").is_dir():
            return place
    raise ArgumentError(
        "the benchmarks are part of the source, not of the package; clone the repository and run `make bench` there"
    )
