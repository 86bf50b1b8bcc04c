"""What a name such as `app.py:agents` or `package.module:agents` stands for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.agent import Agent
from gossamer.errors import ArgumentError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["call_without_arguments", "load_target"]

_GUARD = "put what it runs under if __name__ == '__main__':"


def load_target(target: str, example: str) -> tuple[Any, str]:
    """Give what a name stands for, and words about the agents beside it, for errors.

    A file or module is imported once, however many names in it are asked for.

    Args:
        target: `app.py:name` or `package.module:name`.
        example: the name that errors give as an example.

    Raises:
        ArgumentError: there is no such file, module or name, or importing it would run a program.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise ArgumentError(
            f"{target!r} names nothing in a file; write app.py:{example} or package.module:{example}"
        )
    module = _load_file(Path(place), example) if place.endswith(".py") else _load_module(place, example)
    others = ", ".join(key for key, value in vars(module).items() if isinstance(value, Agent))
    others = f"agents in {place}: {others or 'none'}"
    if not hasattr(module, name):
        raise ArgumentError(f"{target!r} is not there: there is no such name; {others}")
    return getattr(module, name), others


def call_without_arguments(function: Callable[..., Any], target: str) -> Any:
    """Call what a name stands for.

    Raises:
        ArgumentError: it wants arguments.
    """
    try:
        inspect.signature(function).bind()
    except ValueError:  # of something built in, which does not tell
        pass
    except TypeError as error:
        raise ArgumentError(f"{target!r} is called without arguments: {error}") from error
    return function()


def _load_file(path: Path, example: str) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"there is no file {str(path)!r}; write app.py:{example} with the path from here")
    whole = path.resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(whole):
        return known
    # As `python app.py` would: its folder first, so that it finds its neighbours.
    sys.path.insert(0, str(whole.parent))
    spec = importlib.util.spec_from_file_location(path.stem, whole)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with _importing(str(path), whole):
        spec.loader.exec_module(module)
    return module


def _load_module(name: str, example: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
        source = None if spec is None or not spec.has_location else Path(spec.origin or "")
        with _importing(name, source):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ArgumentError(
            f"there is no module {error.name!r}; write package.module:{example} or app.py:{example}"
        ) from error


@contextmanager
def _importing(place: str, source: Path | None) -> Generator[None]:
    """Refuse to import what runs a program of its own, or ends the process, when it is imported."""
    line = None if source is None else _program_line(source)
    if line is not None:
        raise ArgumentError(f"{place} is imported, and line {line} would call asyncio.run then; {_GUARD}")
    try:
        yield
    except SystemExit as error:
        raise ArgumentError(f"{place} is imported, and called exit({error.code!r}) then; {_GUARD}") from error


def _program_line(source: Path) -> int | None:
    """Give the line in which a file calls `asyncio.run` for no value, outside everything; None where it does not.

    What it makes of the value, as `agent = asyncio.run(build())`, is no program.
    """
    if source.suffix != ".py" or b"asyncio.run" not in (text := source.read_bytes()):
        return None
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None  # importing it tells
    for statement in body:
        if (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and ast.unparse(statement.value.func) == "asyncio.run"
        ):
            return statement.lineno
    return None
