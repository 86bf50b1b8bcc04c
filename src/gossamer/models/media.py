"""What dialects share about media and about parts that they cannot say: data URLs, checks, and notes to the model."""

from __future__ import annotations

import base64
from collections.abc import Collection

from gossamer.errors import ArgumentError
from gossamer.messages import Audio, Citation, File, Image, Message, Part, ProviderBlock, ToolResult
from gossamer.schema import is_object
from gossamer.view import MessageView

__all__ = ["IMAGE_TYPES", "check_image", "data_url", "leading_results", "note_of", "unanswered"]

# What most providers read.
IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})


def data_url(part: Image | File | Audio) -> str:
    """Give the bytes of a part as a `data:` URL. O(bytes)."""
    return f"data:{part.media_type};base64,{base64.b64encode(part.data or b'').decode()}"


def check_image(image: Image, provider: str, media_types: Collection[str], max_bytes: int) -> None:
    """Refuse a picture that a provider would refuse, before it is sent.

    Args:
        image: the picture; one that is given by URL is left to the provider.
        provider: named in the error.
        media_types: those that the provider reads.
        max_bytes: the largest picture that it takes.

    Raises:
        ArgumentError: the picture is too large or of another type.
    """
    if image.data is None:
        return
    if image.media_type not in media_types:
        raise ArgumentError(
            f"{provider} takes no image of type {image.media_type!r}; convert it to one of {', '.join(sorted(media_types))}"
        )
    if len(image.data) > max_bytes:
        raise ArgumentError(
            f"an image of {len(image.data):,} bytes is larger than the {max_bytes:,} that {provider} takes; "
            "make it smaller, or give a URL"
        )


def note_of(part: Part) -> str:
    """Tell the model in a few words of a part that cannot be shown to it."""
    if isinstance(part, ProviderBlock):
        kind = None
        if is_object(part.raw):  # Gemini names a block by its field
            kind = part.raw.get("type") or next(
                (name for name, of in part.raw.items() if is_object(of)), None
            )
        return f"[{kind or part.dialect} by another provider, not shown]"
    if isinstance(part, Citation):
        return f"[source: {', '.join(filter(None, (part.title, part.source)))}]"
    if isinstance(part, Image | Audio | File) and part.url is not None:
        return f"[attachment at {part.url}, {part.media_type}; not shown]"
    if isinstance(part, Image | Audio | File):
        name = part.name if isinstance(part, File) else type(part).__name__
        return f"[{name}, {part.media_type}, that this provider cannot show]"
    return f"[{type(part).__name__} that this provider cannot show]"


def leading_results(messages: MessageView) -> int:
    """Count the messages of results that a view begins with, whose calls have left it. O(1) where there are none."""
    count = 0
    while count < len(messages) and messages[count].role == "tool":
        count += 1
    return count


def unanswered(message: Message) -> Message:
    """Make a user's message of results whose calls are not in view, which providers refuse as results."""
    parts: list[str | Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            parts.append(f"[result of an earlier call of {part.name}]\n{part.text}")
            if not isinstance(part.content, str):
                parts += [item for item in part.content if isinstance(item, Image | Audio | File)]
    return Message.user(*parts)
