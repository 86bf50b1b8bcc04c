"""The command line in a pseudo-terminal, as a person has it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("gossamer"))
VARIABLES = re.compile(r"_API_KEY$|_BASE_URL$|^GOSSAMER_|_proxy$", re.IGNORECASE)
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x01\x02]")
CTRL_C, CTRL_D, CTRL_U = b"\x03", b"\x04", b"\x15"
SECONDS = 30


def environment(**variables):
    kept = {key: value for key, value in os.environ.items() if not VARIABLES.search(key)}
    return {**kept, "TERM": "xterm", "INPUTRC": "/dev/null", **variables}


class Terminal:
    """A chat in a pseudo-terminal."""

    def __init__(self, master, process):
        self.master = master
        self.process = process
        self.seen = b""  # all of it
        self.raw = b""  # not yet expected

    def expect(self, words):
        """Read on until these words come; give what came up to them."""
        pattern = words.encode()
        deadline = time.monotonic() + SECONDS
        while True:
            plain = ESCAPES.sub(b"", self.raw)
            if pattern in plain:
                before, _, rest = plain.partition(pattern)
                self.raw = rest
                return (before + pattern).decode()
            left = deadline - time.monotonic()
            assert left > 0, f"{words!r} did not come; so far {plain.decode(errors='replace')!r}"
            if select.select([self.master], [], [], left)[0]:
                self.take()

    def take(self):
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            piece = b""
        assert piece, f"the chat ended; so far {self.seen.decode(errors='replace')!r}"
        self.raw += piece
        self.seen += piece

    def take_soon(self):
        """Read on for a moment, where there is something to read."""
        if select.select([self.master], [], [], 0.05)[0]:
            self.take()

    def wait_for(self, condition):
        """Wait until something holds, and read on meanwhile."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"in vain; so far {self.seen.decode(errors='replace')!r}"
            time.sleep(0.05)

    def say(self, line):
        os.write(self.master, line.encode() + b"\n")

    def press(self, key):
        os.write(self.master, key)

    def interrupt(self):
        """Press Ctrl-C at a prompt that was just written, until it is noticed.

        The interpreter writes the prompt a moment before it waits for keys. A signal that comes in between stays
        pending until the next key or signal; no person is that quick, but this program is.
        """
        for _ in range(SECONDS):
            self.press(CTRL_C)
            if select.select([self.master], [], [], 1)[0]:
                return
        raise AssertionError("Ctrl-C at the prompt was never noticed")

    def ends(self):
        """Wait for the end, and read what there is up to it; give the exit code."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, (
                f"the chat goes on; so far {self.seen.decode(errors='replace')!r}"
            )
            if self.has_more(0.05) and not self.reads_on():
                self.process.wait(SECONDS)
        while self.has_more(0) and self.reads_on():
            pass
        return self.process.returncode

    def has_more(self, seconds):
        return bool(select.select([self.master], [], [], seconds)[0])

    def reads_on(self):
        """Read what has come; False where nothing will come any more."""
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            piece = b""
        self.seen += piece
        return bool(piece)


@contextmanager
def terminal(*arguments, command="chat", cwd=None, **variables):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BECOME, COMMAND, command, *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


# Take the terminal as the controlling one, so that Ctrl-C becomes a signal, then become the chat.
BECOME = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
