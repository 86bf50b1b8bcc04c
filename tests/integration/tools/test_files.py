"""Files of a folder: what a model can do with them."""

from __future__ import annotations

import pytest
from tests.integration.tools.calling import given, names, refused

from gossamer import Agent, ArgumentError, ToolCall
from gossamer.models import ScriptedModel
from gossamer.tools.builtin import files

READERS = ["list_files", "read_file", "search_files"]
WRITERS = ["write_file", "append_file", "edit_file", "move_file", "delete_file", "make_folder"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "docs" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("one\ntwo\nthree\n")
    (folder / "docs" / "guide.md").write_text("# Guide\nTwo things\n")
    (folder / "docs" / "deep" / "x.py").write_text("two = 2\n")
    return folder


# --- reading ----------------------------------------------------------------------------------------------------


def test_writing_has_to_be_asked_for(root):
    assert names(files(root)) == READERS
    assert names(files(root, writable=True)) == READERS + WRITERS


async def test_lists_a_folder_and_those_below(root):
    kit = files(root)
    one = await given(kit, "list_files")
    assert [(e["path"], e["kind"], e["size"]) for e in one["entries"]] == [
        ("a.txt", "file", 14),
        ("docs", "folder", 0),
    ]
    assert not one["more"]
    below = await given(kit, "list_files", path="docs/", depth=2)
    assert [e["path"] for e in below["entries"]] == ["docs/deep", "docs/deep/x.py", "docs/guide.md"]


async def test_lists_no_more_than_the_bound(root):
    for number in range(5):
        (root / f"f{number}").touch()
    kit = files(root, max_entries=3)
    listing = await given(kit, "list_files")
    assert (len(listing["entries"]), listing["more"]) == (3, True)
    assert (await given(files(root, max_entries=7), "list_files"))["more"] is False


async def test_reads_a_file_in_parts(root):
    text = "".join(f"line {number} äöü€\n" for number in range(100))
    (root / "long.txt").write_text(text)
    kit = files(root, max_read=101)
    offset, parts = 0, []
    while True:
        head, _, body = (await given(kit, "read_file", path="long.txt", offset=offset)).partition("\n")
        parts.append(body)
        if "read on at offset" not in head:
            break
        offset = int(head.split("read on at offset ")[1].rstrip("]"))
    assert "".join(parts) == text
    assert len(parts) > 10


async def test_reads_from_the_middle_of_a_character_and_no_less_than_one(root):
    (root / "euro").write_text("€€€")
    assert await given(files(root), "read_file", path="euro", offset=1) == "[bytes 3 to 9 of 9]\n€€"
    assert (await given(files(root), "read_file", path="euro", length=1)).endswith("]\n€")


async def test_tells_of_what_is_no_text(root):
    (root / "latin").write_bytes("gr\xfc\xdfe".encode("latin-1"))
    told = await given(files(root), "read_file", path="latin")
    assert "no UTF-8" in told
    assert told.endswith("gr\ufffd\ufffde")
    (root / "image").write_bytes(b"\x89PNG\0\0")
    assert "a binary file of 6 bytes" in await refused(files(root), "read_file", path="image")


async def test_an_empty_file_and_an_offset_behind_the_end(root):
    (root / "empty").touch()
    assert await given(files(root), "read_file", path="empty") == "[bytes 0 to 0 of 0]\n"
    assert "nothing at offset 14" in await refused(files(root), "read_file", path="a.txt", offset=14)
    assert "nothing at offset" in await refused(files(root), "read_file", path="a.txt", offset=2**62)


async def test_searches(root):
    kit = files(root)
    found = await given(kit, "search_files", text="two")
    assert [(m["path"], m["line"], m["text"]) for m in found["matches"]] == [
        ("a.txt", 2, "two"),
        ("docs/deep/x.py", 1, "two = 2"),
    ]
    assert (found["searched"], found["stopped"]) == (3, "")
    found = await given(kit, "search_files", text="TWO", path="docs", files="*.md", ignore_case=True)
    assert [m["text"] for m in found["matches"]] == ["Two things"]
    assert "must not be empty" in await refused(kit, "search_files", text="")


async def test_what_is_left_out_is_told(root):
    for number in range(5):
        (root / "docs" / f"f{number}").write_text("needle")
    kit = files(root, max_entries=6)
    listing = await given(kit, "list_files", path="docs")
    assert (len(listing["entries"]), listing["more"]) == (6, True)
    found = await given(kit, "search_files", text="needle")
    assert found["stopped"] == "not all could be searched: docs: it has more than 6 entries"
    found = await given(files(root, max_entries=7), "search_files", text="needle")
    assert (len(found["matches"]), found["stopped"]) == (5, "")
    (root / "/".join("d" * 16)).mkdir(parents=True)
    found = await given(files(root), "search_files", text="needle")
    assert found["stopped"] == f"'{'/'.join('d' * 16)}' lies below 16 levels; search in it"


async def test_a_search_is_bounded(root):
    (root / "many").write_text("needle\n" * 500)
    (root / "long-line").write_text("x" * 10_000 + "needle" + "y" * 10_000)
    (root / "binary").write_bytes(b"needle\0")
    found = await given(files(root), "search_files", text="needle")
    assert len(found["matches"]) == 200
    assert "more than 200 matches" in found["stopped"]
    found = await given(files(root), "search_files", text="needle", files="[lb]*")
    (match,) = found["matches"]
    assert "needle" in match["text"]
    assert len(match["text"]) == 300
    assert found["passed_over"] == 1


async def test_what_is_searched_for_is_bounded(root):
    kit = files(root)
    for name, size, bound in (("text", 1_001, "1,000"), ("files", 257, "256")):
        for value in ("[" * size, "[" * 20_000):
            told = await refused(kit, "search_files", **{"text": "two", name: value})
            assert f"{name} has {len(value):,} characters; at most {bound} are taken" in told
    assert "NUL" in await refused(kit, "search_files", text="a\0")
    assert "NUL" in await refused(kit, "search_files", text="a", files="\0")
    (root / ("[" * 200)).write_text("x" * 1_000)
    found = await given(kit, "search_files", text="x" * 1_000, files="[" * 200)
    assert len(found["matches"]) == 1


# --- writing ----------------------------------------------------------------------------------------------------


async def test_writes_appends_and_edits(root):
    kit = files(root, writable=True)
    await given(kit, "make_folder", path="new/inner")
    assert (
        await given(kit, "write_file", path="new/inner/t.txt", text="häl")
        == "wrote 4 bytes to new/inner/t.txt"
    )
    await given(kit, "append_file", path="new/inner/t.txt", text="lo hello")
    await given(kit, "append_file", path="new/other.txt", text="made")
    target = root / "new/inner/t.txt"
    assert target.read_text() == "hällo hello"
    assert (root / "new/other.txt").read_text() == "made"
    assert "2 times" in await refused(kit, "edit_file", path="new/inner/t.txt", old="llo", new="y")
    assert await given(kit, "edit_file", path="new/inner/t.txt", old=" hello", new="!") == (
        "replaced 1 time in new/inner/t.txt"
    )
    await given(kit, "edit_file", path="new/inner/t.txt", old="l", new="L", everywhere=True)
    assert target.read_text() == "häLLo!"
    assert "does not hold" in await refused(kit, "edit_file", path="new/inner/t.txt", old="zzz", new="")
    await given(kit, "write_file", path="new/inner/t.txt", text="")
    assert target.read_text() == ""
    assert [one.name for one in target.parent.iterdir()] == ["t.txt"]  # nothing temporary is left


async def test_a_file_keeps_its_mode(root):
    (root / "a.txt").chmod(0o750)
    await given(files(root, writable=True), "write_file", path="a.txt", text="new")
    assert (root / "a.txt").stat().st_mode & 0o777 == 0o750


async def test_moves_and_deletes(root):
    kit = files(root, writable=True)
    await given(kit, "move_file", source="a.txt", target="docs/b.txt")
    assert (root / "docs/b.txt").read_text().startswith("one")
    assert not (root / "a.txt").exists()
    await given(kit, "move_file", source="docs", target="papers")
    assert "is there already" in await refused(
        kit, "move_file", source="papers/b.txt", target="papers/guide.md"
    )
    assert "is there already" in await refused(kit, "move_file", source="papers/deep", target="papers")
    assert "not go into itself" in await refused(kit, "move_file", source="papers", target="papers/deep/in")
    assert "not empty" in await refused(kit, "delete_file", path="papers")
    for path in ("papers/b.txt", "papers/guide.md", "papers/deep/x.py", "papers/deep", "papers"):
        await given(kit, "delete_file", path=path)
    assert list(root.iterdir()) == []


async def test_what_is_written_is_bounded(root):
    kit = files(root, writable=True, max_write=10, max_written=10_000)
    assert "at most 10 bytes" in await refused(kit, "write_file", path="b", text="x" * 11)
    assert not (root / "b").exists()
    assert "at most 10 bytes" in await refused(kit, "append_file", path="a.txt", text="x")
    await given(kit, "write_file", path="b", text="x" * 9)
    assert "at most 10 bytes" in await refused(kit, "append_file", path="b", text="yy")
    assert "at most 10 bytes" in await refused(
        kit, "edit_file", path="b", old="x", new="y" * 1000, everywhere=True
    )
    await given(kit, "write_file", path="c", text="")
    assert "no more may be written" in await refused(kit, "write_file", path="d", text="")
    assert not (root / "d").exists()


async def test_a_person_may_be_asked_before_a_write_and_not_before_a_read(root):
    kit = files(root, writable=True, needs_approval=True)
    model = ScriptedModel(
        [[ToolCall.of("read_file", path="a.txt"), ToolCall.of("delete_file", path="a.txt")]]
    )
    result = await Agent(model, tools=[kit]).run("go")
    assert [pending.call.name for pending in result.pending] == ["delete_file"]
    assert (root / "a.txt").exists()


async def test_two_folders_at_once(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "o").write_text("other")
    model = ScriptedModel([ToolCall.of("second_read_file", path="o"), "done"])
    result = await Agent(model, tools=[files(root), files(other, name="second")]).run("go")
    assert result.new_messages[2].parts[0].content.endswith("other")


# --- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["max_read", "max_write", "max_written", "max_entries"])
def test_a_bound_is_at_least_one(root, bound):
    with pytest.raises(ArgumentError, match=bound):
        files(root, **{bound: 0})


@pytest.mark.parametrize("path", ["missing", "a.txt", "\0", 5, None])
def test_the_root_must_be_a_folder(root, path):
    with pytest.raises(ArgumentError, match="must be a folder"):
        files(root / path if isinstance(path, str) else path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_file", {}),
        ("read_file", {"path": 1}),
        ("read_file", {"path": "a.txt", "offset": -1}),
        ("read_file", {"path": "a.txt", "offset": 10**30}),
        ("read_file", {"path": "a.txt", "length": 0}),
        ("read_file", {"path": "a.txt", "encoding": "latin-1"}),
        ("list_files", {"depth": 100}),
        ("write_file", {"path": "b"}),
        ("write_file", {"path": "b", "text": ["x"]}),
        ("edit_file", {"path": "a.txt", "old": "one"}),
    ],
)
async def test_arguments_that_do_not_fit_are_told(root, name, arguments):
    told = await refused(files(root, writable=True), name, **arguments)
    assert f"Invalid arguments for {name}" in told
