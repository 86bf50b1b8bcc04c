"""Sends one answer over a connection: at its pace, up to its end or its fault."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gossamer.simulator.service import Streamed, Whole
from gossamer.simulator.stats import SimulatorStats
from gossamer.simulator.wheel import TimerWheel

__all__ = ["Delivery", "Line", "StreamDelivery", "WholeDelivery"]

_STALL_SECONDS = 600.0
_CATCH_UP_SECONDS = 0.002


class Line(Protocol):
    """What a delivery needs of its connection.

    Attributes:
        transport: where bytes go.
        wheel: wakes deliveries.
        stats: counts what is sent.
        paused: whether the client reads too slowly.
    """

    transport: asyncio.Transport
    wheel: TimerWheel
    stats: SimulatorStats
    paused: bool

    def delivered(self) -> None:
        """The answer is complete."""
        ...

    def shut(self) -> None:
        """Close after what was written has left."""
        ...

    def reset(self) -> None:
        """Close at once, so that the client sees a reset."""
        ...


class Delivery(Protocol):
    """An answer on its way."""

    def start(self) -> None:
        """Begin, or begin to wait."""
        ...

    def resume(self) -> None:
        """The client reads again."""
        ...

    def cancel(self) -> None:
        """The client is gone: stop every timer."""
        ...


class WholeDelivery:
    """Sends an answer with a length.

    Args:
        line: the connection.
        answer: what to send.
        tail: ends the head: the connection's header and the empty line.
    """

    __slots__ = ("_answer", "_line", "_tail", "_timer", "slot")

    def __init__(self, line: Line, answer: Whole, tail: bytes) -> None:
        self._line = line
        self._answer = answer
        self._tail = tail
        self._timer: asyncio.TimerHandle | None = None
        self.slot = 0

    def start(self) -> None:
        """Send, or wait for the answer's time."""
        if self._answer.delay:
            # A timer of its own: the wheel's millisecond would show in an answer after one.
            self._timer = asyncio.get_running_loop().call_later(self._answer.delay, self._send)
        else:
            self._send()

    def resume(self) -> None:
        """Nothing to do: a whole answer is written at once."""

    def cancel(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        self._line.wheel.cancel(self)

    def fire(self, now: float) -> None:  # noqa: ARG002 - the wheel tells the time
        """The longest stall is over."""
        self._line.reset()

    def _send(self) -> None:
        line, answer = self._line, self._answer
        self._timer = None
        fault = answer.fault
        if fault is None:
            line.transport.write(b"%b%b%b" % (answer.head, self._tail, answer.body))
            line.delivered()
        elif fault == "malformed":
            # Same length, so that only the JSON is broken: the closing brackets turn into spaces.
            half = len(answer.body) // 2
            body = answer.body[:half].ljust(len(answer.body))
            line.transport.write(b"%b%b%b" % (answer.head, self._tail, body))
            line.delivered()
        elif fault == "stall":
            line.wheel.schedule(self, line.wheel.time() + _STALL_SECONDS)
        elif fault == "reset":
            line.reset()
        else:
            if fault == "half_frame":
                line.transport.write(
                    b"%b%b%b" % (answer.head, self._tail, answer.body[: len(answer.body) // 2])
                )
            line.shut()


class StreamDelivery:
    """Sends a streamed answer frame by frame, each in a packet of its own.

    Args:
        line: the connection.
        answer: what to send.
        tail: ends the head: the connection's header and the empty line.
        chunked: whether frames go in the chunked transfer coding; otherwise the end of the connection ends them.
    """

    __slots__ = (
        "_answer",
        "_chunked",
        "_due",
        "_interval",
        "_left",
        "_line",
        "_parked",
        "_stalled",
        "_tail",
        "_timer",
        "slot",
    )

    def __init__(self, line: Line, answer: Streamed, tail: bytes, *, chunked: bool) -> None:
        self._line = line
        self._answer = answer
        self._tail = tail
        self._chunked = chunked
        self._interval = answer.interval
        self._due = 0.0
        # Frames until something else happens: the fault, or the end.
        self._left = answer.stream.length if answer.fault is None else max(answer.after, 0)
        self._parked = self._stalled = False
        self._timer: asyncio.TimerHandle | None = None
        self.slot = 0

    def start(self) -> None:
        """Open the stream, or wait for the first byte's time."""
        stats = self._line.stats
        stats.streams += 1
        stats.streams_peak = max(stats.streams_peak, stats.streams)
        if self._answer.delay:
            self._timer = asyncio.get_running_loop().call_later(self._answer.delay, self._open)
        else:
            self._open()

    def resume(self) -> None:
        """Go on where the client's slowness stopped the stream."""
        if self._parked:
            self._parked = False
            self._due = max(self._due, self._line.wheel.time())
            self._line.wheel.soon(self)

    def cancel(self) -> None:
        """Stop every timer; nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._line.wheel.cancel(self)
        self._parked = False
        self._line.stats.streams -= 1

    def fire(self, now: float) -> None:
        """Send the next frame. O(1), one write."""
        line = self._line
        if line.paused:
            self._parked = True
            return
        left = self._left
        if not left:
            self._turn()
            return
        frame = self._answer.stream.frame()
        line.transport.write(b"%x\r\n%b\r\n" % (len(frame), frame) if self._chunked else frame)
        line.stats.chunks += 1
        self._left = left = left - 1
        if left and self._interval:
            due = self._due + self._interval
            if due > now:
                self._due = due
                line.wheel.schedule(self, due)
                return
            # The wheel knows milliseconds only, so a faster stream makes up for them; a client that was slow, or a busy
            # machine, must not be answered by a burst.
            self._due = max(due, now - _CATCH_UP_SECONDS)
            line.wheel.soon(self)
        else:
            line.wheel.soon(self)

    def _open(self) -> None:
        self._timer = None
        answer, line = self._answer, self._line
        if answer.after < 0 and answer.fault is not None:
            self._break()
            return
        line.transport.write(answer.head + self._tail + self._framed(answer.stream.opening()))
        if self._interval and self._left:
            self._due = line.wheel.time() + self._interval
            line.wheel.schedule(self, self._due)
        else:
            line.wheel.soon(self)

    def _turn(self) -> None:
        if self._stalled:
            self._line.reset()
        elif self._answer.fault is not None:
            self._break()
        else:
            self._end()

    def _end(self) -> None:
        answer = self._answer
        self._line.stats.completion_tokens += answer.tokens
        answer.counts.completion_tokens += answer.tokens
        self._finish(answer.stream.closing())

    def _finish(self, last: bytes) -> None:
        framed = self._framed(last)
        self._line.transport.write(framed + b"0\r\n\r\n" if self._chunked else framed)
        self._line.stats.streams -= 1
        self._line.delivered()

    def _break(self) -> None:
        answer, line = self._answer, self._line
        fault = answer.fault
        if fault == "stall":
            self._stalled = True
            line.wheel.schedule(self, line.wheel.time() + _STALL_SECONDS)
        elif fault == "malformed":
            frame = self._another()
            end = frame.rstrip()
            # Without its last bracket the JSON is broken, and the frame still ends where it should.
            line.transport.write(self._framed(end[:-1] + frame[len(end) :]))
            self._go_on(answer.after + 1)
        elif fault == "unknown_frame":
            line.transport.write(self._framed(answer.stream.unknown()))
            self._go_on(answer.after)
        elif fault == "error_frame":
            self._finish(answer.stream.failure())
        elif fault == "reset":
            line.reset()
        else:
            if fault == "half_frame":
                framed = self._framed(self._another())
                line.transport.write(framed[: len(framed) // 2])
            line.shut()

    def _another(self) -> bytes:
        # A fault may be set for after the last token, where no frame is left that it could break.
        stream = self._answer.stream
        return stream.frame() if self._answer.after < stream.length else stream.unknown()

    def _go_on(self, sent: int) -> None:
        self._answer.fault = None
        self._left = max(self._answer.stream.length - sent, 0)
        self._due = self._line.wheel.time() + self._interval
        self._line.wheel.schedule(self, self._due)

    def _framed(self, frames: bytes) -> bytes:
        # An empty chunk would be the end of the answer; a format may open with nothing.
        return b"%x\r\n%b\r\n" % (len(frames), frames) if self._chunked and frames else frames
