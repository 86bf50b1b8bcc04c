"""What code and programs wrote, as text for a model: named, and bounded by leaving out the middle."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from gossamer.sandbox import SandboxFile

__all__ = ["HeadAndTail", "cut_middle", "how_it_ended", "in_sections", "named_files"]

_MAX_NAMED = 20  # files
_MAX_NAME = 200  # characters of a file's name


def cut_middle(text: str, most: int) -> str:
    """Give a text, or its beginning and its end where it has more than so many characters."""
    if len(text) <= most:
        return text
    head = most // 2
    tail = most - head
    return f"{text[:head]}\n{_left_out(len(text) - most, 'characters')}\n{text[len(text) - tail :]}"


def in_sections(sections: Sequence[tuple[str, str]], most: int) -> str:
    """Put named texts below one another; empty ones are left out.

    Args:
        sections: the name of each, which may be empty, and the text.
        most: characters of all texts; the middle of those is left out that have more than the others leave to them.
    """
    # Half of a surrogate pair is no character, and nothing could hold it.
    there = [(name, text.rstrip("\n").encode(errors="replace").decode()) for name, text in sections]
    there = [(name, text) for name, text in there if text]
    shares: dict[int, int] = {}
    left = most
    for place in sorted(range(len(there)), key=lambda one: len(there[one][1])):
        shares[place] = min(len(there[place][1]), left // (len(there) - len(shares)))
        left -= shares[place]
    shown = (
        f"{name}:\n{text}" if name else text
        for name, text in (
            (name, cut_middle(text, shares[place])) for place, (name, text) in enumerate(there)
        )
    )
    return "\n".join(shown)


def named_files(files: Sequence[SandboxFile]) -> str:
    """Name files with their sizes, on one line; empty where there are none."""
    names = [f"{_printable(file.name)} ({file.size:,} bytes)" for file in files[:_MAX_NAMED]]
    if len(files) > _MAX_NAMED:
        names.append(f"and {len(files) - _MAX_NAMED:,} more")
    return ", ".join(names)


def how_it_ended(code: int) -> str:
    """Say how a program ended.

    Args:
        code: its exit code; negative where a signal ended it.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by the signal {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by the signal {-code}"


class HeadAndTail:
    """Takes what a program writes and keeps its beginning and its end.

    Args:
        most: bytes that are kept.
    """

    __slots__ = ("_half", "_head", "_size", "_tail")

    def __init__(self, most: int) -> None:
        self._half = max(most // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def __call__(self, piece: bytes) -> bool:
        """Take a piece; more is always wanted."""
        self._size += len(piece)
        room = self._half - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:] if room > 0 else piece
        if len(self._tail) > 4 * self._half:
            del self._tail[: -self._half]
        return True

    def text(self, most: int) -> str:
        """Give its beginning and its end; bytes that are no UTF-8 are replaced.

        Args:
            most: bytes of it that are given; never more than are kept.
        """
        half = min(max(most // 2, 1), self._half)
        kept = bytes(self._head + self._tail)
        left_out = self._size - 2 * half
        if left_out <= 0:
            return kept.decode("utf-8", "replace")
        head, tail = kept[:half], kept[-half:]
        while tail and tail[0] & 0xC0 == 0x80:  # the rest of a character whose beginning is left out
            tail = tail[1:]
        return f"{head.decode('utf-8', 'replace')}\n{_left_out(left_out, 'bytes')}\n{tail.decode('utf-8', 'replace')}"


def _left_out(count: int, of_what: str) -> str:
    return f"[{count:,} {of_what} left out]"


def _printable(name: str) -> str:
    shown = name if name.isprintable() else repr(name)
    return shown if len(shown) <= _MAX_NAME else f"{shown[:_MAX_NAME]}…"
