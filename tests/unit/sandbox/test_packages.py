"""Which files packages consist of: the real ones of this environment, and made-up ones for what is rare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.errors import ArgumentError, SandboxUnavailableError
from gossamer.sandbox.packages import files_of, modules_of


class Site:
    """A folder of installed packages, as pip would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name, files=(), *, version="1.0", needs=(), extras=(), recorded=True, origin=None):
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        headers = [f"Name: {name}", f"Version: {version}"]
        headers += [f"Provides-Extra: {one}" for one in extras] + [f"Requires-Dist: {one}" for one in needs]
        written = {f"{info}/METADATA": "Metadata-Version: 2.1\n" + "\n".join(headers) + "\n"}
        if origin is not None:
            written[f"{info}/direct_url.json"] = json.dumps(origin)
        written |= files if isinstance(files, dict) else dict.fromkeys(files, "")
        if recorded:
            lines = [f'"{one}",,' if "," in one else f"{one},sha256=x,1" for one in written]
            written[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"])
        for path, text in written.items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    return Site(folder)


def names_of(*packages):
    """Name what packages consist of, but for what is written about them."""
    return [name for name in files_of(packages) if not name.endswith(".dist-info")]


def test_what_is_found_is_enough_to_import_it_and_nothing_else_is_there(tmp_path) -> None:
    found = files_of(["matplotlib"])
    for name, place in found.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(place)
    code = f"""
import sys
sys.path.append({str(tmp_path)!r})
import importlib, importlib.metadata
for name in {modules_of(["matplotlib", "numpy"])!r}:
    importlib.import_module(name)
print(importlib.metadata.version("matplotlib"))
for name in ("msgspec", "google", "pip"):
    try:
        importlib.import_module(name)
    except ImportError:
        print("no", name)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    version, *missing = done.stdout.splitlines()
    assert missing == ["no msgspec", "no google", "no pip"], done.stderr
    assert f"matplotlib-{version}.dist-info" in found
    assert {"numpy", "numpy.libs", "PIL", "dateutil"} <= found.keys()


def test_a_folder_that_packages_share_is_given_in_parts() -> None:
    found = names_of("google-auth")
    assert [name for name in found if name.startswith("google")] == ["google/auth", "google/oauth2"]
    assert modules_of(["google-auth"]) == ("google.auth", "google.oauth2")


def test_such_a_folder_is_given_whole_where_all_in_it_was_asked_for() -> None:
    assert "google" in names_of("google-genai")  # which needs google-auth
    assert modules_of(["google-genai"]) == ("google.genai",)


def test_dependencies_come_along_with_theirs_and_by_their_conditions(site) -> None:
    site.install(
        "one",
        ["one/__init__.py"],
        needs=[
            "two",
            "absent; python_version < '3'",
            "Some.Thing[deep]>=1; extra == 'more'",
            "absent; extra == 'most' and sys_platform == 'nowhere'",
        ],
        extras=["more", "most"],
    )
    site.install("two", ["two.py"], needs=["one"])
    site.install("some-thing", ["thing/__init__.py"], needs=["deep; extra == 'deep'"], extras=["deep"])
    site.install("deep", ["deep.cpython-311-x86_64-linux-gnu.so"])
    assert names_of("one") == ["one", "two.py"]
    assert names_of("one[MORE]") == [
        "deep.cpython-311-x86_64-linux-gnu.so",
        "one",
        "thing",
        "two.py",
    ]
    assert names_of("one[most]", "one[more]", "some_thing") == names_of("one[more]")


def test_only_what_is_below_site_packages_and_of_one_package_is_taken(site) -> None:
    site.install(
        "one",
        [
            "one/__init__.py",
            "one/data, with a comma.txt",
            "one.libs/lib.so",
            "__pycache__/single.cpython-311.pyc",
            "single.py",
            "../../bin/one",
            "one/../../outside.py",
            "one-start.pth",
        ],
    )
    (site.folder / "other.py").write_text("")
    found = files_of(["one"])
    assert list(found) == ["one", "one-1.0.dist-info", "one.libs", "single.py"]
    assert found["one.libs"] == site.folder / "one.libs"
    assert modules_of(["one"]) == ("one", "single")


def test_a_shared_folder_of_the_old_kind_is_given_in_parts_too(site) -> None:
    old = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    site.install(
        "one", {"shop/__init__.py": old, "shop/deep/__init__.py": old, "shop/deep/a/__init__.py": ""}
    )
    site.install(
        "two", {"shop/__init__.py": old, "shop/deep/__init__.py": old, "shop/deep/b/__init__.py": ""}
    )
    assert names_of("one") == ["shop/__init__.py", "shop/deep/__init__.py", "shop/deep/a"]
    assert names_of("one", "two") == ["shop"]
    assert modules_of(["one"]) == ("shop.deep.a",)


def test_a_shared_folder_is_given_in_parts_however_deep_the_sharing_is(site) -> None:
    site.install("one", ["cloud/a/x/__init__.py"])
    site.install("two", ["cloud/a/y/__init__.py"])
    site.install("three", ["alone/a/x/__init__.py", "alone/__pycache__/x.pyc"])
    assert names_of("one") == ["cloud/a/x"]
    assert names_of("one", "two") == ["cloud"]
    assert names_of("three") == ["alone"]


def test_a_folder_shared_between_two_site_packages_is_never_given_whole(site, tmp_path, monkeypatch) -> None:
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    monkeypatch.syspath_prepend(other.folder)
    site.install("one", ["cloud/a/__init__.py"])
    other.install("two", ["cloud/b/__init__.py", "plain/__init__.py"])
    found = files_of(["one", "two"])
    assert found["cloud/a"] == site.folder / "cloud/a"
    assert found["cloud/b"] == other.folder / "cloud/b"
    assert "cloud" not in found


def test_modules_are_those_one_would_import(site) -> None:
    site.install(
        "one",
        [
            "one/__init__.py",
            "_one.abi3.so",
            "_hidden/__init__.py",
            "native/__init__.cpython-311-x86_64-linux-gnu.so",
            "examples/first.py",
            "one.so.1",
            "not-a-name.py",
            "README.md",
        ],
        needs=["two"],
    )
    site.install("two", ["two.py"])
    assert modules_of(["one"]) == ("native", "one")
    assert modules_of(["one", "two", "one"]) == ("native", "one", "two")


REFUSED = {
    "a name that is not there": ("nunpy", "pip install nunpy; or did you mean numpy?"),
    "a module's name": ("yaml", "is of PyYAML: name that"),
    "another version": ("numpy>=99", "pip install 'numpy>=99'"),
    "an extra that is not there": ("psycopg[nonsense]", "has no extra 'nonsense'; it has "),
    "no name": ("two words", "'two words' is no name"),
    "nothing": ("", "'' is no name"),
    "an address": ("numpy @ https://example.org/numpy.whl", "without an address"),
    "a condition": ("numpy; python_version > '3'", "without an address or a condition"),
    "a path": ("../numpy", "'../numpy' is no name"),
    "a NUL": ("num\0py", "is no name"),
    "no text": (7, "7 is no name"),
}


@pytest.mark.parametrize(("package", "says"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("function", [files_of, modules_of])
def test_what_cannot_be_had_is_refused_by_name(function, package, says) -> None:
    with pytest.raises(ArgumentError) as caught:
        function(["msgspec", package])
    assert says in str(caught.value)


def test_a_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"write \['numpy'\]"):
        files_of("numpy")


def test_nothing_asked_for_is_nothing_found() -> None:
    assert files_of([]) == {}
    assert modules_of([]) == ()


def test_what_is_missing_of_what_a_package_needs_is_named(site) -> None:
    site.install("one", ["one.py"], needs=["absent>=2; extra == 'more'"], extras=["more"])
    with pytest.raises(ArgumentError, match=r"one\[more\] needs absent, which .* pip install 'one\[more\]'"):
        files_of(["one[more]"])


def test_what_is_installed_editable_is_refused(site) -> None:
    site.install("one", ["__editable__.one-1.0.pth", "__editable___one_1_0_finder.py"])
    site.install("two", ["two.pth"], origin={"url": "file:///home/me/two", "dir_info": {"editable": True}})
    site.install("three", ["three.py"], needs=["two"])
    for name in ("one", "two", "three"):
        with pytest.raises(ArgumentError, match="is installed editable"):
            files_of([name])
    with pytest.raises(ArgumentError, match="pip install /home/me/two"):
        modules_of(["two"])


def test_what_nobody_knows_the_files_of_is_refused(site) -> None:
    site.install("one", ["one.py"], recorded=False)
    egg = site.folder / "two-1.0.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: two\nVersion: 1.0\n")
    for name in ("one", "two"):
        with pytest.raises(ArgumentError, match=f"which files are those of {name}"):
            files_of([name])


def test_what_is_gone_or_leads_elsewhere_is_refused(site, tmp_path) -> None:
    site.install("one", ["one.py"])
    (site.folder / "one.py").unlink()
    with pytest.raises(ArgumentError, match=r"one\.py is gone from .*--force-reinstall"):
        files_of(["one"])
    site.install("two", ["two/__init__.py"])
    (tmp_path / "cache.py").write_text("")
    (site.folder / "two/__init__.py").unlink()
    (site.folder / "two/__init__.py").symlink_to(tmp_path / "cache.py")
    with pytest.raises(ArgumentError, match="links to files elsewhere"):
        files_of(["two"])


def test_without_the_library_that_reads_names_nothing_is_guessed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    with pytest.raises(SandboxUnavailableError, match=r"pip install 'gossamer\[sandbox\]'"):
        files_of(["numpy"])
