"""What a snapshot of a session of Monty is: the state of its interpreter and its files, with a hash over both."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from pydantic_monty import __version__

from gossamer.errors import ArgumentError
from gossamer.sandbox.base import SandboxLimits
from gossamer.sandbox.files import check_uploads, why_no_name

__all__ = ["Snapshot", "open_snapshot", "seal_snapshot"]

_MARK = b"gossamer-monty-1\n"
_HASH = 32

# What a snapshot has beside files and memory: names, and what the library writes around values.
_AROUND = 8 * 1024 * 1024


class Snapshot(msgspec.Struct, frozen=True):
    """A session that was kept.

    Attributes:
        library: the version that wrote the state.
        state: the interpreter's, in bytes of the library's own.
        files: the files, by name.
        folders: the folders, empty ones too.
    """

    library: str
    state: bytes
    files: dict[str, bytes]
    folders: list[str]


def seal_snapshot(state: bytes, files: dict[str, bytes], folders: list[str]) -> bytes:
    """Write a snapshot, with a hash over it."""
    body = msgspec.msgpack.encode(Snapshot(__version__, state, files, folders))
    return b"".join((_MARK, blake2b(body, digest_size=_HASH).digest(), body))


def open_snapshot(data: bytes, limits: SandboxLimits) -> Snapshot:
    """Read a snapshot.

    Raises:
        ArgumentError: it is none, was damaged, or another version of the library wrote it.
        SandboxLimitError: its files are more than the sandbox allows.
    """
    most = limits.memory_bytes + limits.disk_bytes + _AROUND
    if len(data) > most:
        raise ArgumentError(f"snapshot: {len(data):,} bytes are more than a session of this sandbox can have")
    begin = len(_MARK) + _HASH
    body = data[begin:]
    if not data.startswith(_MARK) or blake2b(body, digest_size=_HASH).digest() != data[len(_MARK) : begin]:
        raise ArgumentError("snapshot: these bytes are none, or were damaged")
    try:
        snapshot = msgspec.msgpack.decode(body, type=Snapshot)
    except msgspec.DecodeError as error:
        raise ArgumentError(f"snapshot: these bytes are none ({error})") from error
    if snapshot.library != __version__:
        raise ArgumentError(
            f"snapshot: pydantic-monty {snapshot.library[:20]} wrote it, and {__version__} is installed"
        )
    check_uploads(snapshot.files, limits)
    if any(why_no_name(folder) is not None for folder in snapshot.folders):
        raise ArgumentError("snapshot: it has folders with names that none can have")
    return snapshot
