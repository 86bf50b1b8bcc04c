"""A bounded place for what is too large for the view: the model sees a reference and reads on demand."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice

from gossamer.errors import ToolError

__all__ = ["Offload", "is_kept_aside", "read_part"]

_PREVIEW = 400
_MAX_READ = 20_000
_MAX_MATCHES = 20

# How the words end that stand for a text in the view, and how long they are at most.
_REFERENCE = re.compile(
    r"\n\[… \d+ characters in all, kept as offload-\d+: read_offloaded\([^\n]*\) reads on, find=… searches\]\Z"
)
_MOST_WORDS = _PREVIEW + 300


class Offload:
    """Texts by reference, oldest dropped when the bound is reached.

    Args:
        max_chars: most characters held in all; the oldest texts go first.

    Attributes:
        texts: the texts by reference, oldest first.
        dropped: how many were dropped for want of room.
    """

    __slots__ = ("_next", "_size", "dropped", "max_chars", "texts")

    def __init__(self, max_chars: int = 64 * 1024 * 1024) -> None:
        self.max_chars = max_chars
        self.texts: dict[str, str] = {}
        self.dropped = 0
        self._size = 0
        self._next = 1

    def __len__(self) -> int:
        return len(self.texts)

    def put(self, text: str) -> str:
        """Keep a text.

        Returns:
            Its reference, such as `offload-3`.

        Raises:
            ToolError: the text alone is larger than the bound.
        """
        if len(text) > self.max_chars:
            raise ToolError(
                f"a text of {len(text)} characters is larger than the offload's bound of {self.max_chars}"
            )
        while self._size + len(text) > self.max_chars:
            oldest = next(iter(self.texts))
            self._size -= len(self.texts.pop(oldest))
            self.dropped += 1
        reference = f"offload-{self._next}"
        self._next += 1
        self.texts[reference] = text
        self._size += len(text)
        return reference

    def restore(self, texts: dict[str, str]) -> None:
        """Take over texts that were exported."""
        self.texts = dict(texts)
        self._size = sum(map(len, texts.values()))
        self._next = 1
        self.skip(texts)

    def skip(self, references: Collection[str]) -> None:
        """Give out none of these references, which stand for texts that are kept elsewhere."""
        numbers = [reference.rpartition("-")[2] for reference in references]
        self._next = 1 + max(
            (int(number) for number in numbers if number.isdecimal()), default=self._next - 1
        )

    def reference(self, text: str) -> tuple[str, str]:
        """Keep a text; give its reference, and the words that stand in its place in the view."""
        key = self.put(text)
        return key, (
            f"{text[:_PREVIEW]}\n[… {len(text)} characters in all, kept as {key}: "
            f"read_offloaded(reference={key!r}, start=…, length=…) reads on, find=… searches]"
        )

    def read(self, reference: str, start: int = 0, length: int = 4_000, find: str | None = None) -> str:
        """Read a part of a text that is kept, or find words in it; see `read_part`."""
        text = self.texts.get(reference)
        if text is None:
            known = ", ".join(self.texts) or "nothing"
            return f"There is no {reference!r}; kept are: {known}."
        return read_part(text, start, length, find)


def is_kept_aside(text: str) -> bool:
    """Tell whether a text is what stands in the view for one that was kept aside."""
    return len(text) <= _MOST_WORDS and _REFERENCE.search(text) is not None


def read_part(text: str, start: int = 0, length: int = 4_000, find: str | None = None) -> str:
    """Read a part of a text, or the places where words occur in it.

    Args:
        text: the text.
        start: first character.
        length: how many characters, at most 20,000.
        find: words to search for, regardless of case; gives up to 20 places with what stands around them.

    Returns:
        Text that a model can use, also where nothing was found.
    """
    if find:
        return _search(text, find)
    start, length = max(start, 0), min(max(length, 0), _MAX_READ)
    end = min(start + length, len(text))
    return f"[characters {start} to {end} of {len(text)}]\n{text[start:end]}"


def _search(text: str, words: str) -> str:
    found: list[str] = []
    for match in islice(re.finditer(re.escape(words), text, re.IGNORECASE), _MAX_MATCHES):
        around = text[max(match.start() - 100, 0) : match.end() + 200].replace("\n", " ")
        found.append(f"at {match.start()}: …{around}…")
    return "\n".join(found) or f"{words!r} does not occur in it."
