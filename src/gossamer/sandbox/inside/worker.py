"""A worker's work: does what the host asks, one thing after the other, and tells what came of it.

Code that nobody has read runs in this very process, so all that the host hears from here is as good as that code.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from gossamer.sandbox.inside.execution import Interpreter, LimitReachedError, failure
from gossamer.sandbox.inside.frames import HEAD, Channel, costs_too_much, pack, receive
from gossamer.sandbox.inside.walls import FILES

__all__ = ["serve"]

_MOST_LISTED = 10_000


def serve(channel: Channel, limits: dict[str, Any]) -> None:
    """Do what the host asks until it closes the channel.

    Args:
        channel: to the host.
        limits: the fields of `SandboxLimits`.
    """
    own = os.getpid()
    os.register_at_fork(after_in_child=channel.close)  # the host speaks with one of them
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # pyright: ignore - what was written before a limit is to be known
    interpreter = Interpreter(channel)
    channel.write(pack({"is": "ready"}))
    while (frame := receive(channel)) is not None:
        message, blobs = frame
        if "do" not in message:  # answers to calls of a run that did not wait for them
            continue
        told: dict[str, Any] = {"is": "done"}
        parts: list[bytes] = []
        try:
            _put(message.get("files", ()), blobs)
            match message["do"]:
                case "run":
                    told |= interpreter.run(message["code"], message["functions"])
                    parts = interpreter.images()
                    told["images"] = len(parts)
                case "command":
                    told["value"] = _command(message["argv"], blobs[-1])
                case "read":
                    parts = _read(message["names"], message["most"])
                case _:
                    told["listed"] = list(_listed())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the host is told
            told, parts = {"is": "done", "error": failure(error)}, []
        interpreter.flush()
        if os.getpid() != own:
            os._exit(int("error" in told))
        answer = pack(told, *parts)
        if "value" in told and costs_too_much(answer[HEAD.size : HEAD.unpack_from(answer)[0] + HEAD.size]):
            del told["value"]  # what is shown of it stays
            answer = pack(told, *parts)
        if len(answer) > limits["result_bytes"] + 100_000:
            answer = pack({"is": "done", "error": failure(LimitReachedError("result_bytes"))})
        channel.write(answer)


def _put(names: list[str], blobs: list[bytes]) -> None:
    for name, data in zip(names, blobs, strict=False):
        path = f"{FILES}/{name}"
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120 - pathlib is not loaded here
        with open(path, "wb") as file:  # noqa: PTH123 - as above
            file.write(data)


def _command(argv: list[str], given: bytes) -> int:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, cwd=FILES) as process:  # noqa: S603 - that is what it is for
        process.communicate(given)
        return process.returncode


def _read(names: list[str], most: int) -> list[bytes]:
    found: list[bytes] = []
    for name in names:
        path = f"{FILES}/{name}"
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as above
            raise FileNotFoundError(name)
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            data = file.read(most + 1)
        most -= len(data)
        if most < 0:
            raise LimitReachedError("result_bytes")
        found.append(data)
    return found


def _listed() -> Iterator[tuple[str, int]]:
    count = 0
    for folder, folders, names in os.walk(FILES):
        folders.sort()
        for name in sorted(names):
            path = f"{folder}/{name}"
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and count < _MOST_LISTED:
                count += 1
                yield path[len(FILES) + 1 :].encode(errors="replace").decode(), about.st_size
