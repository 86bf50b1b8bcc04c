"""The simulator as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from gossamer.simulator.faults import RATE_FAULTS, RateFault
from gossamer.simulator.script import Script
from gossamer.simulator.server import Simulator

__all__ = ["serve"]


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    latency: float = 0.0,
    tps: float = 0.0,
    chunks: int | None = None,
    error_rate: float = 0.0,
    faults: Sequence[RateFault] = RATE_FAULTS,
    script: Script | str | os.PathLike[str] | None = None,
    seed: int = 0,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    announce: Callable[[Simulator], str] | None = None,
) -> None:
    """Run a `Simulator` until SIGTERM or SIGINT; returns then. Call it in the main thread of a process of its own.

    Uses uvloop where it is installed, and as many open files as the system allows.

    Args:
        host: as in `Simulator`, like everything down to `key`.
        port: likewise.
        latency: likewise.
        tps: likewise.
        chunks: likewise.
        error_rate: likewise.
        faults: likewise.
        script: likewise.
        seed: likewise.
        certificate: likewise.
        key: likewise.
        announce: makes the line that is printed once the port is open; None for the URL alone.

    Raises:
        ArgumentError: as `Simulator` raises it, or the port is taken.
    """
    simulator = Simulator(
        host,
        port,
        latency=latency,
        tps=tps,
        chunks=chunks,
        error_rate=error_rate,
        faults=faults,
        script=script,
        seed=seed,
        certificate=certificate,
        key=key,
    )
    _raise_file_limit()
    # Ten thousand connections are long-lived: without this the collector looks at all of them again and again.
    gc.set_threshold(50_000, 50, 50)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(simulator, announce))


async def _run(simulator: Simulator, announce: Callable[[Simulator], str] | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no signal handlers on a loop; Ctrl-C then ends the runner as KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    async with simulator:
        sys.stdout.write((announce(simulator) if announce is not None else simulator.url) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None


def _raise_file_limit() -> None:
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
