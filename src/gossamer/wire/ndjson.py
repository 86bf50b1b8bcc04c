"""Newline-delimited JSON: bytes in any fragments to frames, one a line."""

from __future__ import annotations

from gossamer.errors import TooLargeError
from gossamer.wire.sse import Frame

__all__ = ["NDJSONDecoder"]


class NDJSONDecoder:
    """Turns the body of an `application/x-ndjson` stream into frames, each the bytes of a line.

    The state of one stream; not for use by two streams. Lines end with LF or CRLF, wherever packets cut them; lines of
    nothing but white space are passed over. What a line says is not looked at.

    Args:
        max_line: the most bytes of one line.
    """

    __slots__ = ("_line", "_max")

    def __init__(self, max_line: int = 16 * 1024 * 1024) -> None:
        self._max = max_line
        self._line = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the lines they complete.

        O(bytes); allocates the list and one frame for each line.

        Args:
            data: the next bytes of the stream.

        Returns:
            The lines, in order; often one, sometimes none.

        Raises:
            TooLargeError: a line is larger than the bound. The decoder is of no use after it.
        """
        line, end, rest = data.partition(b"\n")
        if not end:
            self._line += data
            if len(self._line) > self._max:
                self._refuse()
            return []
        # The packet that nearly all are: one whole line, with nothing pending before it.
        if not rest and not self._line and len(line) <= self._max:
            line = line.strip()
            return [Frame(line)] if line else []
        return self._feed_lines(data)

    def close(self) -> Frame | None:
        """Give the last line, once the stream has ended without a line feed; None where there is none."""
        line = bytes(self._line).strip()
        self._line.clear()
        return Frame(line) if line else None

    def _feed_lines(self, data: bytes) -> list[Frame]:
        first, *others = data.split(b"\n")
        self._line += first
        whole = [bytes(self._line), *others[:-1]]
        self._line[:] = others[-1]
        if len(self._line) > self._max or max(map(len, whole)) > self._max:
            self._refuse()
        return [Frame(line) for one in whole if (line := one.strip())]

    def _refuse(self) -> None:
        raise TooLargeError(f"a line of a stream is larger than {self._max} bytes; raise max_line")
