"""What other agents are told of an agent's answer."""

from __future__ import annotations

from typing import Any

from gossamer.messages import Audio, File, Image, Message, Part, Text
from gossamer.schema import encode_value, stored_value

__all__ = ["reply_message"]


def reply_message(value: Any, last: Message | None, author: str) -> Message | None:
    """Make a user's message of an agent's answer: its words, its media, its author.

    Thinking, calls, citations and what only a provider understands stay out.

    Args:
        value: the output: text as it is, anything else as JSON.
        last: the message that the answer was given with, for its media.
        author: the agent's name.

    Returns:
        The message, or None where the agent said nothing.
    """
    text = encode_value(value if isinstance(value, str) else stored_value(value))
    parts: list[Part] = [Text(text)] if text else []
    if last is not None and last.role == "assistant":
        parts += [part for part in last.parts if isinstance(part, Image | Audio | File)]
    return Message("user", tuple(parts), author) if parts else None
