"""What a sandbox has, in words for a model that writes code for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["MONTY_MODULES", "about_network", "about_python"]

# What Monty has of the standard library; a test holds it against the one that is installed.
MONTY_MODULES = (
    "asyncio",
    "base64",
    "bisect",
    "collections",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "os",
    "pathlib",
    "random",
    "re",
    "sys",
    "time",
    "tomllib",
    "typing",
    "unicodedata",
)

_MONTY = (
    "It is a small Python: there are no third-party packages, and of the standard library only "
    f"{', '.join(MONTY_MODULES)}; of asyncio `gather`, without options, and `sleep`. It has neither inheritance of classes, "
    "properties and class methods, nor generators (yield, next), del, or exceptions of your own. Methods of built-in types "
    "are called and not passed on: key=lambda name: totals[name], not key=totals.get. Use functions, lists, dicts and "
    "comprehensions."
)


def about_python(sandbox: Any) -> str:
    """Say which Python there is; nothing of a sandbox that is not known here.

    Args:
        sandbox: a `Sandbox`.
    """
    if sandbox.name == "monty":
        return _MONTY
    if sandbox.name != "bubblewrap":
        return ""
    packages: Sequence[str] = getattr(sandbox, "packages", ())
    others = f" and the packages {', '.join(packages)}" if packages else ", and no other package"
    return f"It is CPython with its standard library{others}."


def about_network(sandbox: Any) -> str:
    """Say what of the network can be reached.

    Args:
        sandbox: a `Sandbox`.
    """
    hosts: Sequence[str] = getattr(sandbox, "network", ())
    if not hosts:
        return "There is no network, and nothing of the user's machine."
    return (
        f"Of the network there are only {', '.join(hosts)}, by the proxy that https_proxy and http_proxy name, and nothing of "
        "the user's machine."
    )
