"""Nothing leads out of the folder: paths, links, special files, and a swap between two steps."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_any
from hypothesis import strategies as st
from tests.integration.tools.calling import given, refused

from gossamer.tools.builtin import FilesError, files

SECRET = "the secret outside"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("inside")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    return folder


@pytest.fixture
def outside(root):
    return root.parent / "outside"


def tool_of(kit, name):
    return next(tool for tool in kit.tools if tool.name == name)


CALLS = [
    ("read_file", {"path": "{}"}),
    ("list_files", {"path": "{}"}),
    ("search_files", {"text": "secret", "path": "{}"}),
    ("write_file", {"path": "{}", "text": "evil"}),
    ("append_file", {"path": "{}", "text": "evil"}),
    ("edit_file", {"path": "{}", "old": "secret", "new": "evil"}),
    ("move_file", {"source": "a.txt", "target": "{}"}),
    ("move_file", {"source": "{}", "target": "stolen"}),
    ("delete_file", {"path": "{}"}),
    ("make_folder", {"path": "{}"}),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=[f"{n}-{next(iter(a))}" for n, a in CALLS])
@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret",
        "inner/../../outside/secret",
        "./../outside/secret",
        "/etc/passwd",
        "//etc/passwd",
        "link-to-file",
        "link-to-folder/secret",
        "link-to-folder/new",
        "link-to-folder/new/newer",
        "inner/deep-link/secret",
        "link-to-root/a.txt",
        "a.txt/x",
        "a\0b",
        "x" * 300,
        "x/" * 40,
        "x" * 5000,
        "",
        ".",
        "\udcff",
    ],
    ids=lambda path: repr(path)[:30],
)
async def test_no_path_leads_out(root, outside, name, arguments, path):
    (root / "link-to-file").symlink_to(outside / "secret")
    (root / "link-to-folder").symlink_to(outside)
    (root / "inner/deep-link").symlink_to("../../outside")
    (root / "link-to-root").symlink_to(".")
    kit = files(root, writable=True)
    filled = {key: value.replace("{}", path) for key, value in arguments.items()}
    harmless = path in {"", "."} and name in {"list_files", "search_files", "make_folder"}
    if "\udcff" in path:  # JSON from a provider cannot hold it, a call from Python can
        with pytest.raises(FilesError):
            tool_of(kit, name)(**filled)
    elif harmless:
        assert SECRET not in str(await given(kit, name, **filled))
    else:
        told = await refused(kit, name, **filled)
        assert "FilesError" in told
        assert SECRET not in told
        assert str(root.parent) not in told
    assert (outside / "secret").read_text() == SECRET
    assert [one.name for one in outside.iterdir()] == ["secret"]
    assert (root / "a.txt").read_text() == "inside"


async def test_links_are_listed_and_not_followed(root, outside):
    (root / "link").symlink_to(outside)
    listing = await given(files(root), "list_files", depth=5)
    assert [(e["path"], e["kind"]) for e in listing["entries"]] == [
        ("a.txt", "file"),
        ("inner", "folder"),
        ("link", "link"),
    ]
    found = await given(files(root), "search_files", text="secret")
    assert found["matches"] == []


async def test_special_files_are_refused_and_wait_for_nobody(root):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(root):  # the name of a socket is short
            listener.bind("socket")
    kit = files(root, writable=True)
    for path in ("pipe", "socket"):
        for name, more in [
            ("read_file", {}),
            ("write_file", {"text": "x"}),
            ("append_file", {"text": "x"}),
            ("edit_file", {"old": "a", "new": "b"}),
            ("delete_file", {}),
        ]:
            assert "not a regular file" in await refused(kit, name, path=path, **more)
    found = await given(kit, "search_files", text="x")
    assert (found["searched"], found["passed_over"]) == (1, 0)
    kinds = {e["path"]: e["kind"] for e in (await given(kit, "list_files"))["entries"]}
    assert (kinds["pipe"], kinds["socket"]) == ("special", "special")


async def test_names_that_are_no_utf8_are_listed(root):
    (root / os.fsdecode(b"caf\xe9")).write_text("needle")
    listing = await given(files(root), "list_files")
    assert "caf\\xe9" in [e["path"] for e in listing["entries"]]
    found = await given(files(root), "search_files", text="needle")
    assert [m["path"] for m in found["matches"]] == ["caf\\xe9"]


@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/post-checkout",
        "inner/.GIT/config",
        ".git",
        "inner/git~1/config",
        "inner/GIT~2",
        "inner/.git. ./config",
        "inner/.git::$INDEX_ALLOCATION/config",
        "inner/.g\u200cit/config",
        "inner\\.git",
        "inner/.gi\ufefft",
    ],
)
async def test_nothing_is_changed_that_git_would_run(root, path):
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / ".git" / "config").write_text("[core]")
    kit = files(root, writable=True)
    for name, arguments in [
        ("write_file", {"path": path, "text": "evil"}),
        ("append_file", {"path": path, "text": "evil"}),
        ("move_file", {"source": "a.txt", "target": path}),
        ("move_file", {"source": path, "target": "b"}),
        ("delete_file", {"path": path}),
        ("make_folder", {"path": path}),
    ]:
        assert "FilesError" in await refused(kit, name, **arguments)
    assert "git's own" in await refused(kit, "edit_file", path=".git/config", old="core", new="evil")
    assert (await given(kit, "read_file", path=".git/config")).endswith("[core]")
    assert list((root / ".git" / "hooks").iterdir()) == []
    assert not (root / "inner" / ".GIT").exists()


@pytest.mark.parametrize("last", ["HEAD", "objects", "refs"])
async def test_no_repository_can_be_made(root, last):
    """Git would run what its settings name as soon as somebody asks for its status there."""
    kit = files(root, writable=True)
    made = {
        "HEAD": ("write_file", {"path": "inner/HEAD", "text": "ref: refs/heads/main\n"}),
        "objects": ("make_folder", {"path": "inner/objects"}),
        "refs": ("make_folder", {"path": "inner/refs/heads"}),
    }
    name, arguments = made.pop(last)
    for other, more in made.values():
        await given(kit, other, **more)
    assert "a repository to git" in await refused(kit, name, **arguments)
    await given(kit, "make_folder", path="parked")
    assert "a repository to git" in await refused(kit, "move_file", source="parked", target=f"inner/{last}")
    assert not (root / "inner" / last).exists()
    await given(kit, "move_file", source="a.txt", target="inner/a.txt")  # all else may be


async def test_no_repository_can_be_made_whose_objects_lie_elsewhere(root):
    kit = files(root, writable=True)
    await given(kit, "write_file", path="inner/HEAD", text="ref: refs/heads/main\n")
    assert "a repository to git" in await refused(kit, "write_file", path="inner/commondir", text="../a")
    await given(kit, "make_folder", path="inner/objects")
    assert "a repository to git" in await refused(kit, "make_folder", path="inner/Refs/heads")
    await given(kit, "delete_file", path="inner/HEAD")
    await given(kit, "make_folder", path="inner/refs")
    assert "a repository to git" in await refused(kit, "append_file", path="inner/HEAD", text="x")


async def test_nothing_is_changed_in_a_bare_repository(root):
    bare = root / "inner" / "bare"
    for name in ("objects", "refs/heads"):
        (bare / name).mkdir(parents=True)
    (bare / "HEAD").write_text("ref: refs/heads/main\n")
    (bare / "config").write_text("[core]\n\tbare = false\n")
    kit = files(root, writable=True)
    for name, arguments in [
        ("write_file", {"path": "inner/bare/config", "text": "evil"}),
        ("append_file", {"path": "inner/bare/config", "text": "evil"}),
        ("edit_file", {"path": "inner/bare/config", "old": "core", "new": "evil"}),
        ("write_file", {"path": "inner/bare/refs/heads/main", "text": "evil"}),
        ("move_file", {"source": "a.txt", "target": "inner/bare/config.worktree"}),
        ("move_file", {"source": "inner/bare/config", "target": "b"}),
        ("delete_file", {"path": "inner/bare/config"}),
        ("make_folder", {"path": "inner/bare/hooks"}),
    ]:
        assert "a repository to git" in await refused(kit, name, **arguments)
    assert (await given(kit, "read_file", path="inner/bare/config")).endswith("bare = false\n")


async def test_a_root_below_a_link_is_where_it_was_when_it_was_given(root, outside):
    alias = root.parent / "alias"
    alias.symlink_to(root.parent)
    kit = files(alias / "root")
    alias.unlink()
    alias.symlink_to(outside)
    (outside / "root").mkdir()
    (outside / "root" / "a.txt").write_text(SECRET)
    assert (await given(kit, "read_file", path="a.txt")).endswith("inside")


async def test_a_root_that_was_replaced_is_refused(root, outside):
    kit = files(root)
    root.rename(root.parent / "old")
    root.symlink_to(outside)
    assert "replaced by another" in await refused(kit, "read_file", path="secret")


async def test_a_second_name_of_a_file_outside_keeps_its_content(root, outside):
    os.link(outside / "secret", root / "twin")
    kit = files(root, writable=True)
    await given(kit, "append_file", path="twin", text="evil")
    await given(kit, "edit_file", path="twin", old="secret", new="evil")
    assert (outside / "secret").read_text() == SECRET


def test_a_swap_between_two_steps_leads_nowhere(root, outside):
    """Somebody swaps a folder for a link to the outside as fast as they can; no call ever gets there."""
    (root / "inner" / "secret").write_text("harmless")
    folder, parked, link = root / "inner", root / "parked", root / "link"
    link.symlink_to(outside)
    kit = files(root, writable=True)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            folder.rename(parked)
            link.rename(folder)
            folder.rename(link)
            parked.rename(folder)

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = {"done": 0, "refused": 0}
    try:
        for round_ in range(1_500):
            for name, arguments in [
                ("read_file", {"path": "inner/secret"}),
                ("write_file", {"path": "inner/secret", "text": f"harmless {round_}"}),
                ("list_files", {"path": "inner"}),
                ("search_files", {"text": SECRET, "path": "."}),
            ]:
                try:
                    gave = str(tool_of(kit, name)(**arguments))
                    outcomes["done"] += 1
                    assert SECRET not in gave
                except FilesError:
                    outcomes["refused"] += 1
    finally:
        stop.set()
        swapper.join()
    assert outcomes["done"] > 0
    assert outcomes["refused"] > 0  # the swapper was there
    assert (outside / "secret").read_text() == SECRET
    assert [one.name for one in outside.iterdir()] == ["secret"]


PIECES = st.sampled_from(
    ["..", ".", "", "/", "inner", "a.txt", "link", "secret", "outside", "root", "\0", "~", "*"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@for_any(parts=st.lists(PIECES, max_size=8), call=st.sampled_from(["read_file", "list_files"]))
def test_no_path_of_any_shape_shows_the_outside(root, outside, parts, call):
    if not (root / "link").is_symlink():
        (root / "link").symlink_to(outside)
    try:
        gave = str(tool_of(files(root), call)(path="/".join(parts)))
    except FilesError:
        return
    assert SECRET not in gave
    assert "path='secret'" not in gave
    assert "link/secret" not in gave
