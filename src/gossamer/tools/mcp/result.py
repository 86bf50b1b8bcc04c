"""The result of a tool as a server sends it, read straight out of the message."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

__all__ = ["Block", "CallResult", "Held", "read_result"]


class _Block(msgspec.Struct, frozen=True, gc=False, tag_field="type", rename="camel"):
    """What all blocks share; fields that are not listed are passed over."""


class _Text(_Block, frozen=True, gc=False, tag="text"):
    text: str

    type: ClassVar[Literal["text"]] = "text"


class _Image(_Block, frozen=True, gc=False, tag="image"):
    data: str
    mime_type: str

    type: ClassVar[Literal["image"]] = "image"


class _Audio(_Block, frozen=True, gc=False, tag="audio"):
    data: str
    mime_type: str

    type: ClassVar[Literal["audio"]] = "audio"


class Held(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A resource inside a result: text, or bytes in base64."""

    uri: str
    mime_type: str | None = None
    text: str | None = None
    blob: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.blob is None):
            raise ValueError("a resource holds either text or blob")


class _Resource(_Block, frozen=True, tag="resource"):
    resource: Held

    type: ClassVar[Literal["resource"]] = "resource"


class _Link(_Block, frozen=True, gc=False, tag="resource_link"):
    uri: str
    name: str
    title: str | None = None
    description: str | None = None

    type: ClassVar[Literal["resource_link"]] = "resource_link"


Block: TypeAlias = _Text | _Image | _Audio | _Resource | _Link


class CallResult(msgspec.Struct, frozen=True, rename="camel"):
    """What came of a call; named as in the official package.

    Attributes:
        content: text, media, resources and links.
        structured_content: the same as data, where the server sends that.
        is_error: whether the tool says that it failed.
    """

    content: tuple[Block, ...] = ()
    structured_content: Any = None
    is_error: bool = False


def read_result(raw: dict[str, Any]) -> CallResult:
    """Read a result.

    Raises:
        msgspec.ValidationError: it is none.
    """
    return msgspec.convert(raw, CallResult)
