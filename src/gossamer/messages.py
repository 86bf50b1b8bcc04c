"""What is said: messages and their parts. Frozen plain data that goes to JSON and back without loss."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from time import time
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
from msgspec.structs import force_setattr

from gossamer.errors import ArgumentError

__all__ = [
    "Audio",
    "Citation",
    "File",
    "Image",
    "Message",
    "Outcome",
    "Part",
    "ProviderBlock",
    "ProviderData",
    "Refusal",
    "Role",
    "Text",
    "Thinking",
    "ToolCall",
    "ToolResult",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

_ROLES = frozenset(get_args(Role))

# Raw data of a provider by dialect (signatures, encrypted reasoning, item ids): opaque, sent back to that
# dialect only.
ProviderData: TypeAlias = dict[str, Any]

Outcome: TypeAlias = Literal["ok", "error", "timeout", "denied", "interrupted", "not_run", "unknown"]


class _Part(
    msgspec.Struct, frozen=True, gc=False, tag_field="type", omit_defaults=True, forbid_unknown_fields=True
):
    """The options that all parts share."""


class Text(_Part, frozen=True, gc=False, tag="text"):
    """Plain text."""

    text: str
    provider: ProviderData | None = None


class Thinking(_Part, frozen=True, gc=False, tag="thinking"):
    """What the model thought; kept apart from the answer.

    Attributes:
        text: the thought, empty where the provider hides it.
        signed: whether the provider signed it; unsigned thinking of an interrupted answer is dropped.
        provider: signatures and encrypted content, by dialect.
    """

    text: str = ""
    signed: bool = False
    provider: ProviderData | None = None


class _Media(_Part, frozen=True, gc=False):
    """Bytes or an address, and a media type."""

    data: bytes | None = None
    url: str | None = None
    media_type: str = ""
    provider: ProviderData | None = None

    default_media_type: ClassVar[str] = "application/octet-stream"

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ArgumentError(f"{type(self).__name__} takes either data or url; give one of the two")
        if not self.media_type:
            guess = _sniff(self.data) if self.data else mimetypes.guess_type(self.url or "")[0]
            force_setattr(self, "media_type", guess or self.default_media_type)

    @classmethod
    def from_path(cls, path: str | Path, media_type: str = "") -> Any:
        """Read a file into a part.

        Args:
            path: the file; it is read at once, in the caller's thread.
            media_type: for example `image/png`; guessed from the name where it is empty.

        Returns:
            The part, holding the file's bytes.

        Raises:
            OSError: the file cannot be read.
        """
        path = Path(path)
        guess = media_type or mimetypes.guess_type(path.name)[0] or ""
        return cls(data=path.read_bytes(), media_type=guess)


class Image(_Media, frozen=True, gc=False, tag="image"):
    """A picture, by bytes or by URL."""

    default_media_type: ClassVar[str] = "image/png"


class Audio(_Media, frozen=True, gc=False, tag="audio"):
    """A sound recording, by bytes or by URL."""

    default_media_type: ClassVar[str] = "audio/wav"


class File(_Media, frozen=True, gc=False, tag="file"):
    """A document such as a PDF, by bytes or by URL.

    Attributes:
        name: the file's name as the model sees it.
    """

    name: str = "file"

    @classmethod
    def from_path(cls, path: str | Path, media_type: str = "") -> File:
        """Read a file into a part that keeps the file's name; see `Image.from_path`."""
        part: File = super().from_path(path, media_type)
        return msgspec.structs.replace(part, name=Path(path).name)


class ToolCall(_Part, frozen=True, gc=False, tag="tool_call"):
    """The model asks for a tool.

    Attributes:
        name: the tool's name.
        arguments: a JSON object as text, exactly as the model wrote it, which may be invalid.
        id: ours, unique; a dialect maps it to the provider's id and back. Empty until a model gives it out.
        provider: the provider's own id and signatures, by dialect.
    """

    name: str
    arguments: str = "{}"
    id: str = ""
    provider: ProviderData | None = None

    def __post_init__(self) -> None:
        if type(self.arguments) is not str:
            force_setattr(self, "arguments", msgspec.json.encode(self.arguments).decode())

    @classmethod
    def of(cls, tool: str, /, **arguments: Any) -> ToolCall:
        """Make a call from keyword arguments: `ToolCall.of("convert", amount=20, rate=1.1)`."""
        return cls(tool, msgspec.json.encode(arguments).decode())


class Refusal(_Part, frozen=True, gc=False, tag="refusal"):
    """The model declined to answer, in its words."""

    text: str
    provider: ProviderData | None = None


class Citation(_Part, frozen=True, gc=False, tag="citation"):
    """A source that the answer rests on.

    Attributes:
        source: a URL, a document's name or its id.
        title: the source's title.
        quote: the words cited.
        start: offset in the answer's text where the cited passage begins, in characters.
        end: offset just behind its end.
    """

    source: str
    title: str = ""
    quote: str = ""
    start: int | None = None
    end: int | None = None
    provider: ProviderData | None = None


class ProviderBlock(_Part, frozen=True, gc=False, tag="provider_block"):
    """Something that only one dialect understands, kept whole and sent back to that dialect only.

    Attributes:
        dialect: whose it is; `gossamer` marks a part written by another version of this library.
        raw: the block as JSON data.
    """

    dialect: str
    raw: Any
    provider: ProviderData | None = None


class ToolResult(_Part, frozen=True, gc=False, tag="tool_result"):
    """What came of a tool call.

    Attributes:
        call_id: the `id` of the call.
        name: the tool's name.
        content: text, or text and media as parts.
        outcome: how the call ended. `timeout`: stopped by its time limit; `denied`: by a person;
            `interrupted`: cancelled while it ran; `not_run`: never started; `unknown`: started, then the
            process died.
        provider: the provider's raw data, by dialect.
    """

    call_id: str
    name: str
    content: str | tuple[Text | Image | Audio | File, ...] = ""
    outcome: Outcome = "ok"
    provider: ProviderData | None = None

    @property
    def text(self) -> str:
        """The text of the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))


Part: TypeAlias = (
    Text | Thinking | Image | Audio | File | ToolCall | ToolResult | Refusal | Citation | ProviderBlock
)


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One contribution to a conversation. Its id is its place in the journal.

    Attributes:
        role: who speaks: `system`, `user`, `assistant` or `tool`.
        parts: what is said, in order.
        author: the name of the speaker where several share a role.
        created: seconds since the epoch.
        provider: raw data of a provider that belongs to the whole message, by dialect.
    """

    role: Role
    parts: tuple[Part, ...]
    author: str | None = None
    created: float = msgspec.field(default_factory=time)
    provider: ProviderData | None = None

    @classmethod
    def user(cls, *parts: str | Part, author: str | None = None) -> Message:
        """Make a user's message from text and other parts."""
        return cls("user", as_parts(parts), author)

    @classmethod
    def assistant(cls, *parts: str | Part, author: str | None = None) -> Message:
        """Make a model's message from text and other parts."""
        return cls("assistant", as_parts(parts), author)

    @classmethod
    def system(cls, *parts: str | Part) -> Message:
        """Make a system message, for instructions given in the middle of a conversation."""
        return cls("system", as_parts(parts))

    @property
    def text(self) -> str:
        """The text of the message without thinking, media and calls."""
        parts = self.parts
        if len(parts) == 1 and type(parts[0]) is Text:
            return parts[0].text
        return "".join(part.text for part in parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in the message, in order."""
        return tuple([part for part in self.parts if type(part) is ToolCall])


def as_parts(parts: tuple[str | Part, ...]) -> tuple[Part, ...]:
    """Turn text and parts into parts.

    Raises:
        ArgumentError: one of them is neither text nor a part.
    """
    for part in parts:
        if not isinstance(part, str | _Part):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"a message is made of str and parts, not of {type(part).__name__}")
    return tuple(Text(part) if isinstance(part, str) else part for part in parts)


def check_message(message: Message) -> None:
    """Check a message that a user made: what is wrong in it would come out only when it is sent or stored.

    Raises:
        ArgumentError: the role is unknown, or the parts are not a tuple of parts.
    """
    if not isinstance(message, Message):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f'a message is made by Message.user("…"), not by {type(message).__name__}')
    if message.role not in _ROLES:
        raise ArgumentError(f"role must be one of {', '.join(get_args(Role))}, not {message.role!r}")
    if type(message.parts) is not tuple or not all(isinstance(part, _Part) for part in message.parts):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError('parts must be a tuple of parts; Message.user("…") makes them of text')


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)


def _sniff(data: bytes) -> str | None:
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    return None
