"""Server-sent events: bytes in any fragments to frames, as the WHATWG standard reads them."""

from __future__ import annotations

import msgspec

from gossamer.errors import TooLargeError

__all__ = ["Frame", "SSEDecoder"]

_BOM = b"\xef\xbb\xbf"
# As a number, for which `in` looks ten times faster than for a byte string.
_CR = 13


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One event.

    Attributes:
        data: its data lines joined by line feeds, as the bytes that came.
        event: its type; empty where the server named none.
        id: the last id that the server gave; it stays until it gives another.
    """

    data: bytes
    event: bytes = b""
    id: bytes = b""


class SSEDecoder:
    """Turns the body of a `text/event-stream` into frames.

    The state of one stream; not for use by two streams. Lines end with LF, CR or CRLF, wherever packets cut
    them. Bytes are never decoded, so half a character across two packets is no case of its own.

    Args:
        max_event: the most bytes of one event, and of one line.
    """

    __slots__ = ("_at_start", "_data", "_event", "_fresh", "_id", "_line", "_max", "_size", "_skip_lf")

    def __init__(self, max_event: int = 16 * 1024 * 1024) -> None:
        self._max = max_event
        # True where the next byte begins an event: nothing pending, and no byte order mark to look for.
        self._at_start = False
        self._fresh = True
        self._skip_lf = False
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._id = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the events they complete.

        O(bytes); allocates the list and one frame for each event.

        Args:
            data: the next bytes of the stream.

        Returns:
            The events, in order; often one, sometimes none.

        Raises:
            TooLargeError: a line or an event is larger than the bound. The decoder is of no use after it.
        """
        # The packets that nearly all are: one whole event with nothing pending before it. Slices and `partition` are
        # what looks fastest into bytes.
        if self._at_start and len(data) <= self._max:
            line, _, rest = data.partition(b"\n")
            if line[:6] == b"data: ":
                # One data line; Google ends its lines with CRLF.
                if rest == b"\n":
                    if _CR not in line:
                        return [Frame(line[6:], b"", self._id)]
                elif rest == b"\r\n" and line[-1] == _CR and _CR not in (value := line[6:-1]):
                    return [Frame(value, b"", self._id)]
            elif line[:7] == b"event: " and rest[:6] == b"data: ":
                # Its type in a line before, as OpenAI's Responses and Anthropic send it.
                value, _, rest = rest.partition(b"\n")
                if rest == b"\n" and _CR not in value and _CR not in line:
                    return [Frame(value[6:], line[7:], self._id)]
        return self._feed_lines(data)

    def close(self) -> Frame | None:
        """Tell what was cut off, once the stream has ended.

        The standard discards an event whose closing blank line never came, and so does `feed`. Whoever must
        know a truncated stream from a whole one looks here.

        Returns:
            None where the stream ended between two events; else the event as far as it came, its data
            perhaps empty.
        """
        line = bytes(self._line)
        self._line.clear()
        cut = bool(self._data or self._event)
        if line and not line.startswith(b":"):
            cut = True
            self._take_line(line)
        if not cut:
            return None
        frame = Frame(b"\n".join(self._data), self._event, self._id)
        self._data.clear()
        self._size = 0
        self._event = b""
        return frame

    def _feed_lines(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        if not data:
            return frames
        self._at_start = False
        if self._skip_lf:
            # The CR at the end of the last packet ended its line; this LF belongs to it.
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        if self._fresh:
            data = bytes(self._line) + data
            self._line.clear()
            if len(data) < 3 and _BOM.startswith(data):
                self._line += data
                return frames
            self._fresh = False
            data = data.removeprefix(_BOM)
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if end == 0:
            self._keep_partial(data)
            return frames
        whole, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        self._skip_lf = not rest and whole.endswith(b"\r")
        if self._line:
            self._line += whole
            whole = bytes(self._line)
            self._line.clear()
        for line in whole.splitlines():
            if line:
                self._take_line(line)
            elif self._data:
                frames.append(Frame(b"\n".join(self._data), self._event, self._id))
                self._data.clear()
                self._size = 0
                self._event = b""
            else:
                self._event = b""
        if rest:
            self._keep_partial(rest)
        else:
            self._at_start = not (self._skip_lf or self._data or self._event)
        return frames

    def _take_line(self, line: bytes) -> None:
        if line.startswith(b"data: "):
            value = line[6:]
        else:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name != b"data":
                if len(line) > self._max:
                    self._refuse()
                if name == b"event":
                    self._event = value
                elif name == b"id" and b"\0" not in value:
                    self._id = value
                return
        self._data.append(value)
        # The line feed between two lines counts, so that empty lines are bounded too.
        self._size += len(value) + 1
        if self._size > self._max:
            self._refuse()

    def _keep_partial(self, data: bytes) -> None:
        self._line += data
        if len(self._line) + self._size > self._max:
            self._refuse()

    def _refuse(self) -> None:
        raise TooLargeError(f"a server-sent event is larger than {self._max} bytes; raise max_event")
