"""How evenly the simulator streams, on a clock that only moves when nothing else is to be done."""

from __future__ import annotations

import heapq
from itertools import count

import pytest

from gossamer.simulator.delivery import StreamDelivery
from gossamer.simulator.service import Streamed
from gossamer.simulator.stats import DialectStats, SimulatorStats
from gossamer.simulator.wheel import TimerWheel

FRAMES = 2000


class Handle:
    def __init__(self, call):
        self.call = call

    def cancel(self):
        self.call = lambda: None


class Clock:
    """The part of an event loop that the wheel uses."""

    def __init__(self):
        self.now = 0.0
        self.order = count()
        self.ready = []
        self.timers = []

    def time(self):
        return self.now

    def call_soon(self, call):
        self.ready.append(Handle(call))
        return self.ready[-1]

    def call_at(self, when, call):
        handle = Handle(call)
        heapq.heappush(self.timers, (when, next(self.order), handle))
        return handle

    def run(self, until=float("inf")):
        while self.ready or (self.timers and self.timers[0][0] <= until):
            if not self.ready:
                when, _, handle = heapq.heappop(self.timers)
                self.now = max(self.now, when)
                self.ready.append(handle)
            for handle in self.ready[:]:
                self.ready.remove(handle)
                handle.call()
        self.now = max(self.now, until) if until < float("inf") else self.now


class Frames:
    length = FRAMES

    def opening(self):
        return b"["

    def frame(self):
        return b"x"

    def closing(self):
        return b"]"


class Line:
    """A connection that notes when a frame was written."""

    def __init__(self, clock):
        self.clock = clock
        self.wheel = TimerWheel(clock)
        self.stats = SimulatorStats()
        self.paused = False
        self.transport = self
        self.times = []

    def write(self, data):
        if data == b"x":
            self.times.append(self.clock.now)

    def delivered(self):
        self.times.append(self.clock.now)


def streaming(tps):
    clock = Clock()
    line = Line(clock)
    answer = Streamed(b"", Frames(), FRAMES, 0.0, 1 / tps, None, 0, DialectStats())
    delivery = StreamDelivery(line, answer, b"", chunked=False)
    delivery.start()
    return clock, line, delivery


@pytest.mark.parametrize("tps", [10, 300, 1000, 1500, 20_000])
def test_a_stream_keeps_its_pace(tps):
    clock, line, _ = streaming(tps)
    clock.run()
    assert len(line.times) == FRAMES + 1
    assert line.times[-1] == pytest.approx(FRAMES / tps, abs=0.003)
    assert all(at >= (index + 1) / tps - 1e-6 for index, at in enumerate(line.times[:-1]))


@pytest.mark.parametrize("tps", [100, 5000])
def test_a_client_that_was_slow_gets_no_burst(tps):
    clock, line, delivery = streaming(tps)
    clock.run(until=0.1)
    line.paused = True
    clock.run(until=5.0)
    sent = len(line.times)
    line.paused = False
    delivery.resume()
    clock.run(until=5.1)
    assert len(line.times) - sent <= 0.1 * tps + 0.003 * tps + 2
