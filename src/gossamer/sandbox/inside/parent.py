"""The parent of a box's workers: loads what they need once, then forks one whenever it is told to.

It runs no code but its own and the packages' that the user named. Each worker is a family of two: process 1 of its
namespaces, which only waits and tells how it ended, and the interpreter that runs what nobody has read.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

from gossamer.sandbox.inside import walls, worker
from gossamer.sandbox.inside.frames import Channel

__all__ = ["main"]


def main(control: socket.socket) -> None:
    """Serve the host until it closes the socket.

    Args:
        control: of packets. The first one says how things are to be, each further one brings the files of a worker.
    """
    settings: dict[str, Any] = json.loads(control.recv(1 << 18))
    try:
        if settings["user"] is not None:
            walls.become_unprivileged(settings["user"])
        sys.path.append(settings["packages"])
        for name in settings["modules"]:
            importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"[:2000]}).encode())
        return
    gc.collect()
    gc.freeze()
    # What the host's process ignores or holds back is nothing to what runs here, but for what Python itself ignores.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    control.send(b"{}")
    while True:
        told, files, _, _ = socket.recv_fds(control, 16, 5)
        if not told:
            return
        pid = os.fork()
        if not pid:
            control.close()
            _become_worker(settings, *files)
        for file in files:
            os.close(file)
        os.waitpid(pid, 0)


def _become_worker(
    settings: dict[str, Any], reading: int, writing: int, out: int, err: int, status: int
) -> NoReturn:
    """Go behind the walls and become the two processes of a worker."""
    ends = socket.socket(fileno=status)
    try:
        os.setsid()
        with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib is not loaded here
            taken = int(file.read().split()[0]) * resource.getpagesize()
        walls.unshare()
        walls.offer_to_be_killed()
        if os.fork():
            os._exit(0)
        limits: dict[str, Any] = settings["limits"]
        if settings["network"]:
            walls.keep_connections_small()
        walls.furnish(limits["disk_bytes"], limits["files"])
        listening = walls.listen() if settings["network"] else None
        program = bytes.fromhex(settings["program"])
        # The host learns from it which process this is: the kernel says so, not we.
        socket.send_fds(ends, [b"born"], [] if listening is None else [listening.fileno()])
        if listening is not None:
            listening.close()
        if not ends.recv(
            16
        ):  # it goes on once the host has put this process, and so its children, under its limits
            os._exit(0)
        pid = os.fork()
        if not pid:
            ends.close()
            _work(limits, program, taken, (reading, writing), out, err)
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        walls.close_others((status,))
        walls.drop_everything()
        walls.load_filter(program)
        while True:
            ended, code = os.wait()
            if ended == pid:
                ends.send(json.dumps({"ended": os.waitstatus_to_exitcode(code)}).encode())
                os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told
        ends.send(json.dumps({"failed": f"{type(error).__name__}: {error}"[:2000]}).encode())
    finally:
        os._exit(1)


def _work(
    limits: dict[str, Any], program: bytes, taken: int, channel: tuple[int, int], out: int, err: int
) -> NoReturn:
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        walls.close_others(channel)
        walls.limit(limits, taken)
        walls.drop_everything()
        walls.load_filter(program)
        worker.serve(Channel(*channel), limits)
    finally:
        os._exit(0)
