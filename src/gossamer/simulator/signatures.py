"""Signatures of thinking, by which a provider knows its own thinking when it comes back."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import blake2b

__all__ = ["check", "sign"]

_KEY = b"gossamer simulator"
_DIGEST_BYTES = 24
_URL_SAFE = str.maketrans("-_", "+/")


def sign(content: str) -> str:
    """The signature of some content, as base64; the same content always has the same one. O(len(content))."""
    digest = blake2b(content.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    return b64encode(digest + _seal(digest)).decode()


def check(signature: str, content: str | None = None) -> bool:
    """Whether `sign` made a signature, and for this very content where it is given. O(len(content)).

    Base64 of both alphabets is read, as some clients decode signatures and encode them anew.
    """
    if content is not None:
        return signature.translate(_URL_SAFE) == sign(content)
    try:
        whole = b64decode(signature.translate(_URL_SAFE), validate=True)
    except (Base64Error, ValueError):
        return False
    return whole[_DIGEST_BYTES:] == _seal(whole[:_DIGEST_BYTES])


def _seal(digest: bytes) -> bytes:
    return blake2b(digest, digest_size=_DIGEST_BYTES, key=_KEY).digest()
