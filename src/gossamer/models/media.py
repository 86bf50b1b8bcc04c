"""What dialects share about media and about parts that they cannot say: data URLs, pictures that fit, and notes to the model."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from gossamer.errors import ArgumentError
from gossamer.messages import Audio, Citation, File, Image, Message, Part, ProviderBlock, Text, ToolResult
from gossamer.schema import is_object

__all__ = ["IMAGE_TYPES", "ImageRules", "data_url", "fit_images", "note_of", "told_media"]

# What most providers read.
IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})


def data_url(part: Image | File | Audio) -> str:
    """Give the bytes of a part as a `data:` URL. O(bytes)."""
    return f"data:{part.media_type};base64,{base64.b64encode(part.data or b'').decode()}"


class ImageRules(msgspec.Struct, frozen=True):
    """Which pictures a provider takes; one that is given by URL is left to the provider.

    Attributes:
        provider: named in errors.
        media_types: those that it reads.
        max_bytes: the largest picture that it takes.
    """

    provider: str
    media_types: frozenset[str]
    max_bytes: int

    def fault(self, image: Image) -> str | None:
        """Say what is wrong with a picture and what to do; None where nothing is."""
        if image.data is None:
            return None
        if not image.data:
            return f"an image without a byte, of type {image.media_type!r}; read it again"
        if image.media_type not in self.media_types:
            known = ", ".join(sorted(self.media_types))
            return (
                f"{self.provider} takes no image of type {image.media_type!r}; convert it to one of {known}"
            )
        if len(image.data) > self.max_bytes:
            return (
                f"an image of {len(image.data):,} bytes is larger than the {self.max_bytes:,} that {self.provider} takes; "
                "make it smaller, or give a URL"
            )
        return None


def fit_images(message: Message, rules: ImageRules) -> Message:
    """Give a message as a provider takes its pictures: those of a user must fit, those of tools become a note if not.

    O(1) for a message of one text, else O(parts).

    Raises:
        ArgumentError: a user's picture is empty, too large or of another type.
    """
    parts = message.parts
    if message.role == "assistant" or (len(parts) == 1 and type(parts[0]) is Text):
        return message
    fitting = tuple(_fit_part(part, rules) for part in parts)
    if all(new is old for new, old in zip(fitting, parts, strict=True)):
        return message
    return msgspec.structs.replace(message, parts=fitting)


def _fit_part(part: Part, rules: ImageRules) -> Part:
    if isinstance(part, Image):
        part = _usual(part)
        if fault := rules.fault(part):
            raise ArgumentError(fault)
    elif isinstance(part, ToolResult) and not isinstance(part.content, str):
        shown = tuple(_usual(item) if isinstance(item, Image) else item for item in part.content)
        told = tuple(
            Text(note_of(item)) if isinstance(item, Image) and rules.fault(item) else item for item in shown
        )
        if any(new is not old for new, old in zip(told, part.content, strict=True)):
            return msgspec.structs.replace(part, content=told)
    return part


def _usual(image: Image) -> Image:
    """Give a picture under the name that its type has for all: `image/jpg` is what many write."""
    return (
        msgspec.structs.replace(image, media_type="image/jpeg") if image.media_type == "image/jpg" else image
    )


def told_media(message: Message, *, images: bool, files: bool) -> Message:
    """Give a message for a model that sees no pictures or reads no files: of those it is told.

    O(1) for a message of one text, else O(parts).

    Args:
        message: what is said.
        images: whether the model sees pictures.
        files: whether it reads files.
    """
    parts = message.parts
    if len(parts) == 1 and type(parts[0]) is Text:
        return message
    if images and files:
        return message
    hidden = File if images else Image if files else Image | File
    told = tuple(
        Text(note_of(part)) if isinstance(part, hidden) else _told_result(part, hidden) for part in parts
    )
    return msgspec.structs.replace(message, parts=told)


def _told_result(part: Part, hidden: Any) -> Part:
    if not isinstance(part, ToolResult) or isinstance(part.content, str):
        return part
    content = tuple(Text(note_of(item)) if isinstance(item, hidden) else item for item in part.content)
    return msgspec.structs.replace(part, content=content)


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
