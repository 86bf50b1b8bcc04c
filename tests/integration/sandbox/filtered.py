"""Python in a process of its own, behind the filter of system calls and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from gossamer.sandbox.system_calls import filter_program

__all__ = ["run_filtered"]

# What a worker does with the program; then the code runs, and what it puts into `result` comes back.
_LOADER = """
import ctypes, errno, json, os, sys
size = int(sys.argv[1])
program = os.read(0, size)
assert len(program) == size
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(size // 8, program)), 0, 0) == 0

def call(number, *arguments):
    "Call the kernel; give the name of the error, or the value."
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return errno.errorcode[ctypes.get_errno()] if value == -1 else value

result = None
exec(compile(sys.stdin.read(), "code", "exec"))
print("result:" + json.dumps(result))
"""


def run_filtered(code: str, *, network: bool = False) -> Any:
    """Run code behind the filter and give what it put into `result`; it has `call(number, *arguments)`."""
    program = filter_program(network=network)
    # The program goes ahead of the code: a pipe holds it whole.
    done = subprocess.run(
        [sys.executable, "-c", _LOADER, str(len(program))],
        input=program + code.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    out = done.stdout.decode()
    assert done.returncode == 0, f"{done.returncode}: {out}{done.stderr.decode()}"
    return json.loads(out.rpartition("result:")[2])
