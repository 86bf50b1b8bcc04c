"""Cassettes in pytest: a fixture that names the file after the test. Loaded by pytest; imports little until used."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gossamer.testing.cassette import Cassette, CassetteMode

__all__ = ["cassette", "cassette_path", "pytest_addoption", "pytest_runtest_makereport"]

_passed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --cassette."""
    parser.getgroup("gossamer").addoption(
        "--cassette",
        choices=("once", "replay", "record"),
        default=None,
        help="what the cassette fixture does: once (the default): replay what was recorded, record what was not; "
        "replay (the default where CI is set): never ask a provider; record: ask, and write anew",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether the test itself passed, for its fixtures to know at their end."""
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Generator[Cassette, None, None]:
    """A cassette around the test, at `cassettes/<module>/<test>.json` beside the test's file.

    A recording is written where the test passed, and only there.
    """
    from gossamer.testing.cassette import Cassette

    chosen: Any = request.config.getoption("--cassette")
    mode: CassetteMode = chosen or ("replay" if os.environ.get("CI") else "once")
    tape = Cassette(cassette_path(request.node), mode)
    tape.open()
    try:
        yield tape
    finally:
        tape.close(keep=request.node.stash.get(_passed, False))


def cassette_path(item: pytest.Item) -> Path:
    """Where the recording of a test lies: `cassettes/<module>/<test>.json`, its class before a dot."""
    names: list[str] = [item.name]
    node = item.parent
    while node is not None and not isinstance(node, pytest.Module):
        if isinstance(node, pytest.Class):
            names.insert(0, node.name)
        node = node.parent
    name = ".".join(names)
    plain = re.sub(r"[^\w.\[\]-]", "_", name)[:150]
    if plain != name:  # two names may have become one
        plain += f"-{sha256(name.encode()).hexdigest()[:8]}"
    return item.path.parent / "cassettes" / item.path.stem / f"{plain}.json"
