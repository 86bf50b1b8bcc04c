"""Text of a model's as the system takes it: bounded, and made of characters."""

from __future__ import annotations

from gossamer.errors import GossamerError

__all__ = ["checked_text"]


def checked_text(text: str, what: str, max_chars: int, error: type[GossamerError]) -> str:
    """Give text as it is, where it can be a path or an argument of a program.

    Args:
        text: what a model gave.
        what: what the message calls it.
        max_chars: how long it may be.
        error: raised where it is no good.

    Raises:
        GossamerError: an `error`; it is too long, or has a NUL or half of a surrogate pair in it.
    """
    if len(text) > max_chars:
        raise error(f"{what} has {len(text):,} characters; at most {max_chars:,} are taken")
    if "\0" in text:
        raise error(f"{what} has a NUL character in it: {text[:100]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise error(f"{what} has half of a surrogate pair in it, which is no character") from None
    return text
