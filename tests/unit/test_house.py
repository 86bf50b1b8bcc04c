"""The rules of the house that no linter knows."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer

SRC = Path(gossamer.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
MODULES = sorted(
    info.name for info in pkgutil.walk_packages([str(SRC)], "gossamer.") if "__main__" not in info.name
)

# Longer than 600 lines, each with its reason.
LONG_FILES: dict[str, str] = {
    "errors.py": "the one list of all errors, flat and under headings, to be looked up and not read through",
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_file_is_too_long(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= 600 or str(path.relative_to(SRC)) in LONG_FILES, f"{path.name} has {lines} lines"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    for public in module.__all__:
        assert getattr(module, public, None) is not None, f"{name}.{public} is not there"


def test_lazy_names_are_the_typed_ones() -> None:
    typed = {
        alias.asname or alias.name
        for node in ast.walk(tree_of(SRC / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gossamer")
        for alias in node.names
    }
    assert typed == set(gossamer.__all__)
    for name in gossamer.__all__:
        assert getattr(gossamer, name) is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_nothing_unbounded_and_nothing_that_sleeps(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "time.sleep", f"{path.name}:{node.lineno} blocks"
            if called in {"asyncio.Queue", "queue.Queue", "Queue"}:
                assert node.args or node.keywords, f"{path.name}:{node.lineno}: a queue without a bound"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node) or node.name.startswith("_"), f"{path.name}: {node.name}"
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
                    overloaded = any("overload" in ast.unparse(one) for one in item.decorator_list)
                    assert ast.get_docstring(item) or overloaded or node.name.startswith("_"), (
                        f"{node.name}.{item.name}"
                    )


def test_importing_gossamer_loads_nothing_heavy() -> None:
    program = (
        "import sys, json; import gossamer; bare = set(sys.modules); "
        "from gossamer import Agent, Session, tool; Agent('offline'); "
        "print(json.dumps([sorted(bare), sorted(sys.modules)]))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    bare, used = (set(names) for names in json.loads(out))
    assert not {"httptools", "asyncio", "logging"} & bare
    heavy = {
        "httptools",
        "uvloop",
        "jiter",
        "prometheus_client",
        "rich",
        "cyclopts",
        "pydantic",
        "docstring_parser",
    }
    assert not heavy & used


def test_the_repository_speaks_of_gossamer_alone() -> None:
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "/" + "work/")
    root = SRC.parents[1]
    for path in [
        *FILES,
        *root.glob("*.md"),
        *root.glob("docs/*.md"),
        root / "constraints.txt",
        root / "Makefile",
    ]:
        text = path.read_text()
        for host in hosts:
            assert host not in text, f"{path}: {host}"


def test_schemas_are_the_same_in_every_process() -> None:
    program = (
        "import typing; {first}; from gossamer.schema import json_schema; import msgspec\n"
        "class A(msgspec.Struct):\n    x: {x}\nprint(msgspec.json.encode(json_schema(A)))"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", program.format(first=first, x="typing.Optional[str] | int")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for first in ("typing.Union[None, str]", "typing.Union[int, None, str]", "typing.Union[str, None]")
    }
    assert len(outs) == 1
