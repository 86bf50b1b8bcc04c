"""What code and programs wrote, as text for a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossamer.sandbox import SandboxFile
from gossamer.tools.output_text import HeadAndTail, cut_middle, how_it_ended, in_sections, named_files


@given(st.text(max_size=300), st.integers(0, 200))
def test_a_text_that_is_cut_keeps_its_beginning_and_its_end(text, most):
    cut = cut_middle(text, most)
    if len(text) <= most:
        assert cut == text
        return
    head, tail = most // 2, most - most // 2
    assert cut == f"{text[:head]}\n[{len(text) - most:,} characters left out]\n{text[len(text) - tail :]}"


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.text("xy\n", max_size=80)), max_size=4))
def test_sections_are_whole_where_they_fit(sections):
    text = in_sections(sections, sum(len(one) for _, one in sections))
    expected = [
        (f"{name}:\n" if name else "") + one.rstrip("\n") for name, one in sections if one.rstrip("\n")
    ]
    assert text == "\n".join(expected)


def test_a_long_section_takes_what_the_short_ones_leave():
    text = in_sections([("value", "3"), ("stdout", "x" * 100), ("stderr", "y" * 100)], 61)
    assert text == "\n".join(
        [
            "value:\n3",
            f"stdout:\n{'x' * 15}\n[70 characters left out]\n{'x' * 15}",
            f"stderr:\n{'y' * 15}\n[70 characters left out]\n{'y' * 15}",
        ]
    )


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(2, 100), st.integers(2, 120))
def test_of_a_flood_the_beginning_and_the_end_are_kept(pieces, keeps, most):
    kept = HeadAndTail(keeps)
    for piece in pieces:
        assert kept(piece)
    whole = b"".join(pieces)
    half = min(most, keeps) // 2
    if len(whole) <= 2 * half:
        assert kept.text(most) == whole.decode(errors="replace")
        return
    head, note, tail = kept.text(most).partition(f"\n[{len(whole) - 2 * half:,} bytes left out]\n")
    assert note
    assert head == whole[:half].decode(errors="replace")
    end = whole[-half:]
    while end and end[0] & 0xC0 == 0x80:
        end = end[1:]
    assert tail == end.decode(errors="replace")


def test_a_flood_is_not_held():
    kept = HeadAndTail(1000)
    for _ in range(1000):
        kept(b"x" * 1000)
        assert len(kept._head) + len(kept._tail) <= 4000


def test_files_are_named_on_one_line_up_to_a_bound():
    assert named_files([]) == ""
    assert named_files([SandboxFile("a.csv", 1234), SandboxFile("b\nc", 0)]) == (
        "a.csv (1,234 bytes), 'b\\nc' (0 bytes)"
    )
    many = named_files([SandboxFile(f"{number}", 1) for number in range(23)])
    assert many.endswith("19 (1 bytes), and 3 more")


def test_how_a_program_ended():
    assert how_it_ended(0) == "exit code 0"
    assert how_it_ended(-9) == "ended by the signal SIGKILL"
    assert how_it_ended(-1000) == "ended by the signal 1000"
