"""Content codings: gzip and deflate, undone piece by piece with a bound on every piece."""

from __future__ import annotations

import zlib

from gossamer.errors import ProtocolError

__all__ = ["PIECE_LIMIT", "Inflater", "inflater_for"]

PIECE_LIMIT = 256 * 1024
"""The most decoded bytes that one read returns, however small the compressed input was."""

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"


def inflater_for(coding: str | None) -> Inflater | None:
    """Choose the decoder for a `Content-Encoding`.

    Args:
        coding: the header's value, or None where there is none.

    Returns:
        The decoder, or None where the body is plain.

    Raises:
        ProtocolError: the coding is none that is known here.
    """
    name = "" if coding is None else coding.strip().lower()
    if name in {"", "identity"}:
        return None
    if name in {"gzip", "x-gzip"}:
        return Inflater(gzip=True)
    if name == "deflate":
        return Inflater(gzip=False)
    raise ProtocolError(
        f"the body is coded as {coding!r}, which is not known here; ask for gzip, deflate or identity"
    )


class Inflater:
    """Undoes one content coding. Holds back what does not fit into a piece, so that a bomb cannot burst."""

    __slots__ = ("_coded", "_fed", "_gzip", "_more", "_zlib")

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._zlib = zlib.decompressobj(_GZIP) if gzip else None
        self._coded: bytes = b""
        self._fed = False
        self._more = False

    @property
    def pending(self) -> bool:
        """True where `decode(b"")` may give more."""
        return self._more

    def decode(self, data: bytes) -> bytes:
        """Decode `data` behind what was held back.

        Args:
            data: the next coded bytes; `b""` to get what was held back.

        Returns:
            At most `PIECE_LIMIT` bytes; perhaps none.

        Raises:
            ProtocolError: the bytes are not in this coding.
        """
        coded = self._coded + data if self._coded else data
        self._coded = b""
        self._more = False
        self._fed |= bool(coded)
        inflate = self._zlib
        if inflate is None:
            if len(coded) < 2:
                self._coded = coded
                return b""
            inflate = self._zlib = zlib.decompressobj(_deflate_wbits(coded))
        elif inflate.eof:
            # A gzip body may be several members in a row; anything else behind the end is padding.
            if not self._gzip or not coded.startswith(_GZIP_MAGIC):
                self._coded = coded if self._gzip and coded == _GZIP_MAGIC[:1] else b""
                return b""
            inflate = self._zlib = zlib.decompressobj(_GZIP)
        try:
            out = inflate.decompress(coded, PIECE_LIMIT)
        except zlib.error as error:
            raise ProtocolError(f"the compressed body is damaged: {error}") from error
        self._coded = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        self._more = bool(self._coded) or (len(out) == PIECE_LIMIT and not inflate.eof)
        return out

    def finish(self) -> None:
        """Check that the coding came to its end, unless there was no body at all; O(1).

        Raises:
            ProtocolError: the body was cut off.
        """
        if self._fed and (self._zlib is None or not self._zlib.eof):
            raise ProtocolError("the compressed body ended before its last byte")


def _deflate_wbits(start: bytes) -> int:
    # Some servers send deflate without the zlib header that the standard asks for.
    wrapped = start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
