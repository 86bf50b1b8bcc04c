"""What an MCP server says, as parts: text, pictures, sound, files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gossamer.errors import MCPError
from gossamer.messages import Audio, File, Image, Message, Text

if TYPE_CHECKING:
    import mcp_types as types

    from gossamer.tools.mcp.result import Block, CallResult, Held

__all__ = ["Content", "ResultPart", "content_of", "message_of", "parts_of_resource", "words_in"]

ResultPart: TypeAlias = Text | Image | Audio | File

# What a tool's result is made of: text alone, or text and media in order.
Content: TypeAlias = str | tuple[ResultPart, ...]


def content_of(result: CallResult | types.CallToolResult, max_text: int) -> Content:
    """Turn the result of a tool into text, or into parts where there is more than text.

    Structured content counts where there is nothing else: servers put the same as text beside it.

    Args:
        result: what the server sent.
        max_text: characters of all texts that stand beside media; text alone is bounded where tools are run.

    Raises:
        MCPError: media that are not base64.
    """
    blocks = result.content
    if len(blocks) == 1 and blocks[0].type == "text":
        return blocks[0].text
    if not blocks:
        kept: Any = result.structured_content
        return "" if kept is None else msgspec.json.encode(kept).decode()
    parts = [part for block in blocks for part in _parts_of(block)]
    if all(type(part) is Text for part in parts):
        return words_in(parts)
    return _clipped(parts, max_text)


def words_in(parts: Iterable[ResultPart]) -> str:
    """Give the text of parts, a line or more each."""
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def message_of(message: types.PromptMessage) -> Message:
    """Turn a message of a prompt into one of ours.

    Raises:
        MCPError: media that are not base64.
    """
    return Message("user" if message.role == "user" else "assistant", tuple(_parts_of(message.content)))


def parts_of_resource(
    contents: Iterable[types.TextResourceContents | types.BlobResourceContents],
) -> tuple[ResultPart, ...]:
    """Turn the contents of a resource into parts.

    Raises:
        MCPError: media that are not base64.
    """
    return tuple(_part_of_resource(one) for one in contents)


def _parts_of(block: Block | types.ContentBlock) -> list[ResultPart]:
    match block.type:
        case "text":
            return [Text(block.text)]
        case "image":
            return [Image(data=_bytes(block.data), media_type=block.mime_type)]
        case "audio":
            return [Audio(data=_bytes(block.data), media_type=block.mime_type)]
        case "resource":
            return [_part_of_resource(block.resource)]
        case "resource_link":
            about = f": {block.description}" if block.description else ""
            return [Text(f"[{block.title or block.name}]({block.uri}){about}")]


def _part_of_resource(
    resource: Held | types.TextResourceContents | types.BlobResourceContents,
) -> ResultPart:
    text = getattr(resource, "text", None)
    if text is not None:
        return Text(text)
    media_type = resource.mime_type or ""
    data = _bytes(getattr(resource, "blob", None) or "")
    if media_type.startswith("image/"):
        return Image(data=data, media_type=media_type)
    if media_type.startswith("audio/"):
        return Audio(data=data, media_type=media_type)
    name = str(resource.uri).rstrip("/").rpartition("/")[2] or "file"
    return File(data=data, media_type=media_type, name=name)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MCPError(f"the server sent media that are not base64: {error}") from error


def _clipped(parts: list[ResultPart], most: int) -> tuple[ResultPart, ...]:
    """Bound the texts together; the one that goes beyond says so, and those after it are left out."""
    total = sum(len(part.text) for part in parts if isinstance(part, Text))
    if total <= most:
        return tuple(parts)
    kept: list[ResultPart] = []
    left = most
    for part in parts:
        if not isinstance(part, Text):
            kept.append(part)
        elif left >= 0:
            words = part.text
            if len(words) > left:
                words = f"{words[:left]}\n[… {total} characters of text in all, the rest was left out]"
            kept.append(Text(words))
            left -= len(part.text)
    return tuple(kept)
