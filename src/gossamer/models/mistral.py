"""Mistral's form of Chat Completions: it refuses fields and orders of roles that others let pass.

Wire format: https://docs.mistral.ai/api/#tag/chat. Call ids have nine letters and digits; results name their tool;
messages of users and systems do not follow a result, nor a system's an answer; there are no names of authors and no
refusals.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from gossamer.messages import Message, ToolResult
from gossamer.schema import is_array, is_object

__all__ = ["mistral_objects", "split_content"]


def mistral_objects(
    objects: list[dict[str, Any]], message: Message, previous: Message | None
) -> list[dict[str, Any]]:
    """Put the objects that a message became in Chat Completions into Mistral's form.

    Args:
        objects: the objects; they are changed.
        message: the message.
        previous: the message before it, or None.
    """
    results = iter([part for part in message.parts if isinstance(part, ToolResult)])
    before = previous.role if previous is not None else "system"
    ordered: list[dict[str, Any]] = []
    for said in objects:
        if said["role"] == "system" and before in {"assistant", "tool"}:
            said["role"] = "user"
        if said["role"] == "user" and before == "tool":
            ordered.append({"role": "assistant", "content": "OK."})
        _mend_content(said)
        for call in said.get("tool_calls", ()):
            call["id"] = _short_id(call["id"])
        if said["role"] == "tool":
            said["tool_call_id"] = _short_id(said["tool_call_id"])
            said["name"] = next(results).name
        before = said["role"]
        ordered.append(said)
    return ordered


def _mend_content(said: dict[str, Any]) -> None:
    if refusal := said.pop("refusal", None):
        said["content"] = said.get("content", "") + refusal
    content: Any = said.get("content")
    author = said.pop("name", None)
    if is_array(content):
        words = [{"type": "text", "text": f"{author}: "}] if author else []
        said["content"] = [*words, *map(_mend_part, content)]
    elif author:
        said["content"] = f"{author}: {content}"


def _mend_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "file":
        return {"type": "document_url", "document_url": part["file"]["file_data"]}
    if part["type"] == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]["data"]}
    return part


def _short_id(call_id: str) -> str:
    """Give the nine letters and digits that stand for a call id, always the same ones."""
    digest = hashlib.blake2b(call_id.encode(), digest_size=6).digest()
    return base64.b32encode(digest)[:9].decode()


def split_content(items: list[Any]) -> tuple[str, str]:
    """Take text and thinking out of the content of an answer that is a list of parts."""
    text: list[str] = []
    thinking: list[str] = []
    for part in items:
        if is_object(part) and part.get("type") == "thinking":
            thinking += [str(piece.get("text", "")) for piece in part.get("thinking", ())]
        elif is_object(part):
            text.append(str(part.get("text", "")))
    return "".join(text), "".join(thinking)
