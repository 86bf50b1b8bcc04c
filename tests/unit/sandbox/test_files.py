"""Names of files that go into a sandbox and come out, and what is asked of a run."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import (
    ArgumentError,
    CodeError,
    SandboxDiskError,
    SandboxFileError,
    SandboxFileSizeError,
    SandboxLimitError,
)
from gossamer.sandbox import SandboxLimits
from gossamer.sandbox.files import check_patterns, check_uploads, matching
from gossamer.sandbox.request import check_code, check_timeout

LIMITS = SandboxLimits(file_bytes=10, disk_bytes=15, files=4, code_bytes=20, timeout=5)


def test_uploads_become_bytes() -> None:
    assert check_uploads({"a.txt": "ä", "b/c.bin": b"\0\xff"}, LIMITS) == {
        "a.txt": b"\xc3\xa4",
        "b/c.bin": b"\0\xff",
    }
    assert check_uploads(None, LIMITS) == {}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "../b",
        "a//b",
        "./a",
        "a/",
        ".",
        "nul\0name",
        "\ud800",
        "x" * 256,
        "x/" * 600 + "y",
        3,
    ],
)
def test_names_outside_of_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="files"):
        check_uploads({name: b""}, LIMITS)
    with pytest.raises(ArgumentError, match="outputs"):
        check_patterns([name])


@given(st.text(st.sampled_from("a./\0\ud800ä*"), max_size=12))
def test_a_name_that_is_taken_stays_below_the_folder(name: str) -> None:
    try:
        (taken,) = check_uploads({name: b""}, SandboxLimits())
    except ArgumentError:
        return
    parts = taken.split("/")
    assert taken == name
    assert all(part not in {"", ".", ".."} and "\0" not in part for part in parts)


def test_uploads_over_a_limit() -> None:
    with pytest.raises(SandboxFileSizeError, match="'big' has 11 bytes") as raised:
        check_uploads({"big": b"x" * 11}, LIMITS)
    assert (raised.value.limit, raised.value.allowed) == ("file_bytes", 10)
    with pytest.raises(SandboxDiskError) as raised:
        check_uploads({"a": b"x" * 10, "b": b"x" * 6}, LIMITS)
    assert (raised.value.limit, raised.value.allowed) == ("disk_bytes", 15)
    with pytest.raises(SandboxDiskError) as raised:
        check_uploads({"a/b/c/d": b"", "e": b""}, LIMITS)
    assert (raised.value.limit, raised.value.allowed) == ("files", 4)


def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'a' is int"):
        check_uploads({"a": 1}, LIMITS)  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="UTF-8"):
        check_uploads({"a": "\ud800"}, LIMITS)
    with pytest.raises(ArgumentError, match="folder of another"):
        check_uploads({"a": b"", "a/b": b""}, LIMITS)


NAMES = ["a.csv", "b.csv", "b.txt", "in/c.csv", "in/deep/d.csv", "odd[1].csv", "x*y"]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["a.csv"], ["a.csv"]),
        (["*.csv"], ["a.csv", "b.csv", "odd[1].csv"]),
        (["?.csv", "a.csv"], ["a.csv", "b.csv"]),
        (["*/*.csv"], ["in/c.csv"]),
        (["in/*"], ["in/c.csv"]),
        (["odd[1].*"], ["odd[1].csv"]),
        (["b*.*t"], ["b.txt"]),
        (["none*"], []),
        ([], []),
    ],
)
def test_names_are_found_by_patterns(patterns: list[str], found: list[str]) -> None:
    assert matching(NAMES, check_patterns(patterns)) == found


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(SandboxFileError, match=r"'c\.csv'"):
        matching(NAMES, ["a.csv", "c.csv"])


@given(st.text("ab?*.", min_size=1, max_size=8), st.lists(st.text("ab.", min_size=1, max_size=8)))
def test_patterns_are_those_of_the_shell(pattern: str, names: list[str]) -> None:
    if not {"*", "?"} & set(pattern):
        pattern += "*"
    plain = re.compile(fnmatch.translate(pattern))
    assert matching(names, [pattern]) == sorted({one for one in names if plain.match(one)})


def test_a_pattern_that_would_be_tried_forever_comes_to_an_end() -> None:
    assert matching(["a" * 255], ["*a" * 100 + "*b"]) == []


def test_too_much_is_asked_back() -> None:
    with pytest.raises(ArgumentError, match="1,001 names"):
        check_patterns([f"f{number}" for number in range(1001)])
    with pytest.raises(ArgumentError, match="1,001 characters"):
        check_patterns(["*" + "x" * 200, *["?" * 200] * 4])
    with pytest.raises(ArgumentError, match="one text"):
        check_patterns("abc")


def test_code_is_looked_at() -> None:
    assert check_code("1 + 1", LIMITS) == "1 + 1"
    for code in ("x" * 21, "ä" * 11):
        with pytest.raises(SandboxLimitError) as raised:
            check_code(code, LIMITS)
        assert (raised.value.limit, raised.value.allowed) == ("code_bytes", 20)
    for code in ("a\0b", "'\ud800'"):
        with pytest.raises(CodeError) as error:
            check_code(code, LIMITS)
        assert error.value.kind == "SyntaxError"
    with pytest.raises(ArgumentError, match="bytes"):
        check_code(b"1", LIMITS)  # type: ignore[arg-type]


def test_a_timeout_is_never_above_the_limit() -> None:
    assert check_timeout(None, LIMITS) == 5
    assert check_timeout(2, LIMITS) == 2
    assert check_timeout(50, LIMITS) == 5
    for timeout in (0, -1, float("nan"), True, "1"):
        with pytest.raises(ArgumentError, match="timeout"):
            check_timeout(timeout, LIMITS)  # type: ignore[arg-type]
