"""What code that means harm tries, and what may come of it; the same for every sandbox.

Code finds what it aims at in SECRET (a file of the host), PORT, UNIX, ABSTRACT (listeners there), PID (the process of the
test) and MARKER (a path that must not come to be). It notes in `got`, by `attempt`, whatever it gained: an attack that ends
well must have gained nothing, unless it says otherwise. Nothing secret may be in what comes out, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gossamer.errors import (
    SandboxCpuError,
    SandboxCrashedError,
    SandboxDiskError,
    SandboxError,
    SandboxFileError,
    SandboxFileSizeError,
    SandboxLimitError,
    SandboxMemoryError,
    SandboxOutputError,
    SandboxProcessError,
    SandboxTimeoutError,
)

__all__ = ["ANYTHING", "ATTACKS", "PRELUDE", "TIME", "Attack"]

ANYTHING: Any = type(
    "Anything", (), {"__eq__": lambda *_: True, "__hash__": None, "__repr__": lambda _: "anything"}
)()

PRELUDE = """
got = []
def attempt(what, do):
    try:
        got.append([what, repr(do())[:200]])
    except Exception:
        pass
def zero(answer):
    if answer != 0:
        raise ValueError('refused')
    return answer
"""


@dataclass(frozen=True)
class Attack:
    """Code, and what may come of it.

    Attributes:
        name: what it is.
        code: what is run.
        errors: errors in which it may end; those of time are always allowed, for the machine may be busy.
        kinds: kinds of `CodeError` in which it may end.
        gained: the value with which it may end well.
        outputs: the files that are asked back.
        only: the sandbox that it is for; every one where None.
    """

    name: str
    code: str
    errors: tuple[type[SandboxError], ...] = ()
    kinds: frozenset[str] = field(default_factory=frozenset)
    gained: Any = field(default_factory=list)
    outputs: tuple[str, ...] = ()
    only: str | None = None


# Allowed for every attack; named where they are what has to come.
TIME = (SandboxCpuError, SandboxTimeoutError)
MEMORY = (SandboxMemoryError,)
DIES = (SandboxCrashedError,)
DISK = (SandboxDiskError, SandboxFileSizeError)
PROCESSES = (SandboxProcessError, *TIME, *MEMORY)


def _kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


_FULL = _kinds("OSError", "MemoryError")

_PROCESSES = [
    Attack(
        "fork bomb",
        "import os\nwhile True: os.fork()",
        (*PROCESSES, *DIES),
        _kinds("BlockingIOError", "OSError"),
    ),
    Attack(
        "fork bomb that catches everything",
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        (*PROCESSES, *DIES),
    ),
    Attack(
        "thread bomb",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        PROCESSES,
        _kinds("RuntimeError", "MemoryError"),
    ),
    Attack(
        "interpreters without end",
        "import subprocess, sys\nwhile True: subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        PROCESSES,
        _kinds("BlockingIOError", "OSError", "MemoryError"),
    ),
    Attack(
        "a daemon that means to stay",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    while True: time.sleep(1)\n"
        "  os._exit(0)\ngot",
        (*PROCESSES, *DIES),
    ),
    Attack(
        "children that compute",
        "import os\nfor i in range(3):\n  if os.fork() == 0:\n    while True: pass\nimport time\ntime.sleep(60)",
        (*PROCESSES, *DIES),
    ),
]

_MEMORY = [
    Attack("a list that doubles", "x = [0]\nwhile True: x.extend(x)", MEMORY, _kinds("MemoryError")),
    Attack("lists in lists", "x = []\nwhile True: x.append([0] * 1000)", MEMORY, _kinds("MemoryError")),
    Attack("a dict without end", "x = {}\nfor i in range(10**9): x[i] = str(i)", MEMORY, _kinds("MemoryError")),
    Attack("byte arrays", "x = []\nwhile True: x.append(bytearray(1_000_000))", MEMORY, _kinds("MemoryError")),
    Attack("bytes at once", "x = bytes(10**11)", MEMORY, _kinds("MemoryError", "OverflowError")),
    Attack("text at once", "x = 'x' * 10**10", MEMORY, _kinds("MemoryError", "OverflowError")),
    Attack("text that doubles", "x = 'ab'\nwhile True: x += x", MEMORY, _kinds("MemoryError")),
    Attack("a number at once", "x = 1 << 10**11", MEMORY, _kinds("MemoryError", "OverflowError")),
    Attack("a number that squares", "x = 3\nwhile True: x = x * x", (*MEMORY, *TIME), _kinds("MemoryError")),
    Attack("a width", "x = f'{1:>10000000000}'", MEMORY, _kinds("MemoryError", "ValueError")),
    Attack("a list at once", "x = list(range(10**10))", (*MEMORY, *TIME), _kinds("MemoryError")),
    Attack("a replacement", "x = ('a' * 10**6).replace('a', 'b' * 10**6)", MEMORY, _kinds("MemoryError", "OverflowError")),
    Attack(
        "mapped memory",
        "import mmap\nx = []\nwhile True:\n  x.append(mmap.mmap(-1, 1 << 24))\n  for i in range(0, 1 << 24, 4096): x[-1][i] = 1",
        (*MEMORY, *TIME),
        _FULL | {"PermissionError"},  # memory that is shared and of no file is not to be had
    ),
    Attack(
        "shared memory",
        "import os, mmap\nf = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        (*MEMORY, *DISK),
        _kinds("OSError", "FileNotFoundError", "PermissionError"),
    ),
    Attack(
        "memory in files without names",
        "import os\nfd = os.memfd_create('x')\nwhile True: os.write(fd, bytes(1 << 20))",
        (*MEMORY, *DISK, *DIES),
        _kinds("OSError", "PermissionError"),
    ),
    Attack(
        "a bomb that unpacks",
        "import zlib\nx = zlib.compress(bytes(10**7), 9)\ny = [zlib.decompress(x) for i in range(100)]",
        (*MEMORY, *TIME),
        _kinds("MemoryError"),
    ),
    Attack("recursion that holds", "def f(x): return f([0] * 100_000 + x)\nf([])", MEMORY, _kinds("MemoryError", "RecursionError")),
]  # fmt: skip

_TIME = [
    Attack("a loop", "while True: pass", TIME),
    Attack("a loop that catches", "while True:\n  try:\n    while True: pass\n  except BaseException: pass", TIME),
    Attack("a loop in finally", "try:\n  while True: pass\nfinally:\n  while True: pass", TIME),
    Attack("a sum", "sum(range(10**13))", TIME),
    Attack("a power", "9 ** 9 ** 9", (*TIME, *MEMORY), _kinds("MemoryError")),
    Attack("a power that ends in nothing", "len(str(3 ** (10 ** 8) % 10))", (*TIME, *MEMORY), _kinds("MemoryError"), ANYTHING),
    Attack(
        "a divisor",  # one operation that asks no clock
        "import math\nmath.gcd((1 << 20_000_000) // 3, (1 << 19_000_000) // 7)",
        (*TIME, *MEMORY),
        gained=ANYTHING,
    ),
    Attack(
        "an expression that tries everything",
        "import re\nbool(re.match('(a|aa)+$', 'a' * 100 + 'b'))",
        TIME,
        _kinds("PatternError"),
        gained=False,
    ),
    Attack("sorting with a slow key", "sorted(range(10**7), key=lambda i: sum(range(1000)))", (*TIME, *MEMORY)),
    Attack(
        "digits without end",
        "import itertools\nfor i in itertools.repeat('9' * 4000): int(i)",
        TIME,
    ),
    Attack("sleeping", "import time\ntime.sleep(10**6)", TIME),
    Attack("sleeping by await", "import asyncio\nawait asyncio.sleep(10**6)", TIME),
    Attack("short sleeps", "import time\nwhile True: time.sleep(0.001)", TIME),
    Attack(
        "ignoring every signal",
        "import signal, time\nfor one in range(1, 65):\n  attempt(one, lambda: signal.signal(one, signal.SIG_IGN)) or got.clear()\n"
        "while True: time.sleep(0.01)",
        TIME,
    ),
    Attack(
        "ignoring every signal and computing",
        "import signal\nfor one in range(1, 65):\n  attempt(one, lambda: signal.signal(one, signal.SIG_IGN))\nwhile True: pass",
        TIME,
    ),
    Attack("a lock", "import threading\nx = threading.Lock()\nx.acquire()\nx.acquire()", TIME),
    Attack("a pipe", "import os\nos.read(os.pipe()[0], 1)", TIME),
    Attack("input", "input()", (), _kinds("EOFError")),
    Attack("reading stdin", "import sys\nsys.stdin.read()", TIME, gained=""),
    Attack("stopping itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\ngot", TIME),
    Attack("files without end", "import os\nwhile True: os.path.exists('x')", TIME),
]  # fmt: skip

_DISK = [
    Attack("one big file", "f = open('x', 'w')\nwhile True: f.write('x' * 100_000)", DISK, _FULL),
    Attack("many files", "i = 0\nwhile True:\n  open(str(i), 'w').close()\n  i += 1", (*DISK, *TIME), _FULL),
    Attack(
        "files of the largest size",
        "i = 0\nwhile True:\n  open(str(i), 'wb').write(bytes(1_000_000))\n  i += 1",
        DISK,
        _FULL,
    ),
    Attack("many folders", "import os\ni = 0\nwhile True:\n  os.mkdir(str(i))\n  i += 1", (*DISK, *TIME), _FULL),
    Attack(
        "folders without a bottom",
        "import os\nwhile True:\n  os.mkdir('d')\n  os.chdir('d')",
        (*DISK, *TIME),
        _FULL,
    ),
    Attack(
        "a file with holes",
        "import os\nf = open('x', 'wb')\nf.truncate(10**13)",
        DISK,
        _FULL,
        None,
    ),
    Attack("a full /tmp", "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(100_000))", DISK, _kinds("OSError", "PermissionError")),
    Attack(
        "the same file by many names",
        "import os\nopen('x', 'w').close()\ni = 0\nwhile True:\n  os.link('x', str(i))\n  i += 1",
        (*DISK, *TIME),
        _FULL,
    ),
    Attack("a long name", "open('x' * 10**6, 'w')", (), _kinds("OSError")),
    Attack(
        "writing everywhere",
        "import os\nfor where, _, _ in os.walk('/'):\n"
        "  if not where.startswith(('/session', '/tmp', '/dev/shm', '/proc')):\n"
        "    attempt(where, lambda: open(os.path.join(where, 'marker-of-the-attack'), 'w').close())\ngot",
        (*DISK, *TIME),
    ),
    Attack("a marker on the host", "attempt('marker', lambda: open(MARKER, 'w').write('x'))\ngot"),
]  # fmt: skip

_OUTPUT = [
    Attack("flooding stdout", "while True: print('x' * 1000)", (SandboxOutputError,)),
    Attack("flooding stdout with nothing", "while True: print()", (SandboxOutputError, *TIME)),
    Attack("flooding stderr", "import sys\nwhile True: print('x' * 1000, file=sys.stderr)", (SandboxOutputError,)),
    Attack("printing a huge text", "print('x' * 20_000_000)", (SandboxOutputError, *MEMORY), _kinds("MemoryError")),
    Attack("printing a huge list", "print(list(range(300_000)))", (SandboxOutputError, *MEMORY), _kinds("MemoryError")),
    Attack("writing to the pipe", "import os\nwhile True: os.write(1, b'x' * 65536)", (SandboxOutputError,)),
    Attack("bytes that are no text", "import os\nos.write(1, bytes(range(256)))", gained=256),
    Attack(
        "children that write",
        "import os\nif os.fork() == 0:\n  while True: os.write(2, b'x' * 65536)\nos.wait()",
        (SandboxOutputError, *TIME),
    ),
    Attack("a huge value", "'x' * 20_000_000", (SandboxOutputError, *MEMORY), _kinds("MemoryError")),
    Attack("a value of many parts", "[[] for i in range(200_000)]", (SandboxOutputError, *MEMORY), gained=None),
    Attack("a value that unfolds", "x = [0]\nfor i in range(100): x = [x, x]\nx", (SandboxOutputError, *MEMORY, *TIME), gained=None),
    Attack("a set that unfolds", "x = (0,)\nfor i in range(60): x = (x, x)\n{1: x}", (SandboxOutputError, *MEMORY, *TIME), gained=None),
    Attack("an error of many words", "raise ValueError('x' * 20_000_000)", (SandboxOutputError, *MEMORY, *DIES), _kinds("ValueError", "MemoryError")),
    Attack("control characters", "print('\\x1b]0;owned\\x07\\x1b[2J')\n'\\x1b[2J'", gained="\x1b[2J"),
    Attack("a large file asked back", "for i in range(3): open(str(i), 'wb').write(bytes(1_000_000))\ngot", (SandboxOutputError, SandboxFileError), outputs=("*",)),
]  # fmt: skip

_DEPTH = [
    Attack("a function that calls itself", "def f(): return f()\nf()", DIES, _kinds("RecursionError")),
    Attack("a loop of functions", "def f(): return g()\ndef g(): return f()\nf()", DIES, _kinds("RecursionError")),
    Attack("parentheses", "(" * 50_000 + "1" + ")" * 50_000, (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError")),
    Attack("lists in the source", "x = " + "[" * 50_000 + "]" * 50_000, (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError")),
    Attack("minus signs", "x = " + "-" * 100_000 + "1", (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError"), None),
    Attack("sums", "x = " + "1 + " * 100_000 + "1", (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError"), None),
    Attack("indentation", "\n".join(" " * i + "if True:" for i in range(1000)) + "\n" + " " * 1000 + "x = 1", (*DIES, *MEMORY), _kinds("SyntaxError", "IndentationError", "RecursionError"), None),
    Attack("attributes", "x = got" + ".x" * 100_000, (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError", "AttributeError")),
    Attack("source in source", "x = '1'\nfor i in range(10_000): x = '(' + x + ')'\neval(x)", (*DIES, *MEMORY), _kinds("SyntaxError", "MemoryError", "RecursionError")),
    Attack("the words for a deep list", "x = []\nfor i in range(200_000): x = [x]\nlen(repr(x))", (*DIES, *MEMORY), _kinds("RecursionError"), ANYTHING),
    Attack("a deep list as a value", "x = []\nfor i in range(200_000): x = [x]\nx", (*DIES, *MEMORY), _kinds("RecursionError"), None),
    Attack("a deep dict as a value", "x = {}\nfor i in range(200_000): x = {'a': x}\nx", (*DIES, *MEMORY), _kinds("RecursionError"), None),
    Attack("a list in itself", "x = []\nx.append(x)\nx", (), gained=ANYTHING),
    Attack("deep lists that are compared", "x = []\ny = []\nfor i in range(100_000):\n  x = [x]\n  y = [y]\nx == y", (*DIES, *MEMORY), _kinds("RecursionError"), ANYTHING),
    Attack("deep JSON", "import json\njson.loads('[' * 100_000)", (*DIES, *MEMORY), _kinds("RecursionError", "JSONDecodeError")),
    Attack("iterators in iterators", "import itertools\nx = iter([])\nfor i in range(200_000): x = itertools.chain(x)\nnext(x, None)", (*DIES, *MEMORY), _kinds("RecursionError"), ANYTHING),
    Attack("a class whose words have none", "class A:\n  def __repr__(self): return repr(self)\nA()", DIES, _kinds("RecursionError"), None),
]  # fmt: skip

_READS = """
import os
home = os.path.expanduser('~root')
for path in [SECRET, '/etc/shadow', '/etc/passwd', '/root/.ssh/id_rsa', home + '/.ssh/id_rsa', '/root/.bash_history',
             '/proc/1/environ', '/proc/self/environ', f'/proc/{PID}/environ', f'/proc/{PID}/cmdline', f'/proc/{PID}/maps',
             f'/proc/{PID}/root' + SECRET, f'/proc/{PID}/cwd', '/proc/1/root/etc/shadow', '/proc/kcore', '/proc/kallsyms',
             '/proc/self/root' + SECRET, '/proc/self/mountinfo', '/var/run/docker.sock', '/run/secrets', '/sys/kernel/notes',
             '../../../../../../../../' + SECRET, '/session/../../..' + SECRET, 'file://' + SECRET]:
    try:
        print(path, open(path, 'rb').read(100_000))
    except OSError:
        pass
"""

_READING = [
    Attack("files of the host", "attempt('secret', lambda: open(SECRET).read())\nattempt('shadow', lambda: open('/etc/shadow').read())\ngot"),
    Attack("files of the host by pathlib", "from pathlib import Path\nattempt('secret', lambda: Path(SECRET).read_text())\nattempt('up', lambda: Path('../../../../../..' + SECRET).read_text())\ngot"),
    Attack("files of the host by many ways", f"{_READS}got", (SandboxOutputError,)),
    Attack("looking for the secret", "import os\nname = os.path.basename(SECRET)\nfor where, _, files in os.walk('/'):\n  if name in files: got.append(where)\ngot", TIME),
    Attack("a link to a file of the host", "import os\nos.symlink(SECRET, 'x')\nattempt('x', lambda: open('x').read())\ngot", (SandboxFileError,), outputs=("x",)),
    Attack("a link to a folder of the host", "import os\nos.symlink(os.path.dirname(SECRET), 'd')\nattempt('x', lambda: os.listdir('d'))\ngot", outputs=("d/*",)),
    Attack("links that are asked back", "import os\nos.symlink('/etc/passwd', 'a.txt')\nos.symlink('/', 'root')\ngot", outputs=("*", "*/*")),
    Attack("a pipe that is asked back", "import os\nos.mkfifo('x')\ngot", (SandboxFileError, *TIME), _kinds("PermissionError"), outputs=("x",)),
    Attack("a hard link", "import os\nattempt('link', lambda: os.link(SECRET, 'x'))\nattempt('link', lambda: os.link('/etc/shadow', 'y'))\ngot"),
    Attack("the environment", "import os\nprint(dict(os.environ))\n[os.getenv(one) for one in ('GOSSAMER_TEST_SECRET', 'OPENAI_API_KEY', 'SSH_AUTH_SOCK')]", gained=[None, None, None]),
    Attack("the environment by C", "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\nlibc.getenv(b'GOSSAMER_TEST_SECRET')", DIES, _kinds("OSError"), None),
    Attack("open files of the host", "import os\nfor fd in range(3, 256):\n  try: print(fd, os.pread(fd, 1000, 0))\n  except OSError: pass\ngot"),
    Attack("files that are open, by name", "import os\nfor fd in range(256):\n  try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n  except OSError: pass\ngot"),
    Attack("folders that are open", "import os\nfor fd in range(3, 256):\n  attempt(fd, lambda: os.open('etc/shadow', os.O_RDONLY, dir_fd=fd))\n  attempt(fd, lambda: os.fchdir(fd))\ngot"),
    Attack("processes of the host", "import os\nattempt('kill', lambda: os.kill(PID, 0))\nattempt('exe', lambda: os.readlink(f'/proc/{PID}/exe'))\ngot"),
]  # fmt: skip

_FOREIGN_MEMORY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in (1, PID, os.getppid()):
    attempt(f'mem of {pid}', lambda: open(f'/proc/{pid}/mem', 'rb'))
    attempt(f'attach to {pid}', lambda: zero(libc.ptrace(16, pid, 0, 0)))
    attempt(f'seize {pid}', lambda: zero(libc.ptrace(0x4206, pid, 0, 0)))
class iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
local = iovec(ctypes.cast(buffer, ctypes.c_void_p), 8)
def readv(pid, call):
    remote = iovec(id(buffer), 8)
    if getattr(libc, call)(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        raise OSError
for pid in (1, PID, os.getppid()):
    attempt(f'read {pid}', lambda: readv(pid, 'process_vm_readv'))
    attempt(f'write {pid}', lambda: readv(pid, 'process_vm_writev'))
got
"""

_SIGNALS = [
    Attack("memory of other processes", _FOREIGN_MEMORY, DIES, _kinds("OSError", "PermissionError")),
    Attack("killing the test", "import os, signal\nfor one in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGUSR1):\n  attempt(one, lambda: os.kill(PID, one))\ngot"),
    Attack("killing everybody", "import os, signal\nos.kill(-1, signal.SIGKILL)\nNone", (*DIES, *TIME), _kinds("ProcessLookupError", "PermissionError"), None),
    Attack("killing the group", "import os, signal\nos.killpg(0, signal.SIGKILL)\nNone", (*DIES, *TIME), _kinds("ProcessLookupError", "PermissionError"), None),
    Attack("killing the group of the test", "import os, signal\nattempt('group', lambda: os.killpg(PID, signal.SIGKILL))\ngot"),
    Attack("killing what started it", "import os, signal\nfor pid in (os.getppid(), 1):\n  try: os.kill(pid, signal.SIGKILL)\n  except OSError: pass\nNone", (*DIES, *TIME), gained=None),
    Attack("killing itself", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", (*DIES, *MEMORY)),
    Attack("leaving", "import os\nos._exit(0)", DIES),
    Attack("leaving by an exception", "raise SystemExit(0)", DIES, _kinds("SystemExit", "RuntimeError"), None),
    Attack("interrupting", "raise KeyboardInterrupt", DIES, _kinds("KeyboardInterrupt")),
    Attack("aborting", "import os\nos.abort()", DIES),
    Attack("a signal by a handle", "import os, signal\nattempt('handle', lambda: signal.pidfd_send_signal(os.pidfd_open(PID), 9))\ngot"),
]  # fmt: skip

_NETWORK = [
    Attack("a listener of the host", "import socket\nattempt('v4', lambda: socket.create_connection(('127.0.0.1', PORT), 1))\nattempt('v6', lambda: socket.create_connection(('::1', PORT), 1))\nattempt('name', lambda: socket.create_connection(('localhost', PORT), 1))\ngot", TIME, _kinds("OSError", "PermissionError")),
    Attack("datagrams", "import socket\ndef send():\n  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n  s.connect(('127.0.0.1', PORT))\n  s.send(b'x')\n  s.send(b'x')\nattempt('udp', send)\nattempt('multicast', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.1', PORT)))\ngot"),
    Attack("sockets of the host by path", "import socket\ndef connect(kind, where):\n  s = socket.socket(socket.AF_UNIX, kind)\n  s.settimeout(1)\n  s.connect(where)\nfor kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n  for where in (UNIX, '\\0' + ABSTRACT, '/run/docker.sock', '/run/dbus/system_bus_socket'):\n    attempt(where, lambda: connect(kind, where))\ngot"),
    Attack("the network beyond", "import socket\nfor where in ('1.1.1.1', '10.0.0.1', '169.254.169.254', '192.168.0.1'):\n  attempt(where, lambda: socket.create_connection((where, 80), 0.2))\ngot", TIME),
    Attack("names", "import socket\nattempt('name', lambda: socket.getaddrinfo('example.com', 80))\ngot", TIME),
    Attack("raw sockets", "import socket\nfor family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_INET6, socket.SOCK_RAW)):\n  attempt(family, lambda: socket.socket(family, kind, socket.IPPROTO_ICMP))\ngot"),
    Attack("other families", "import socket\nfor family in range(3, 50):\n  if family != 10:\n    for kind in (1, 2, 3, 5):\n      for protocol in (0, 16):\n        attempt((family, kind), lambda: socket.socket(family, kind, protocol))\ngot", TIME),
    Attack("the web", "import urllib.request\nattempt('web', lambda: urllib.request.urlopen(f'http://127.0.0.1:{PORT}/', timeout=1))\ngot", TIME),
    Attack("the web through a proxy", "import urllib.request, os\nos.environ['http_proxy'] = f'http://127.0.0.1:{PORT}'\nattempt('web', lambda: urllib.request.urlopen('http://example.com/', timeout=1))\ngot", TIME),
    Attack("sockets by system calls", "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef made(family, kind):\n  if libc.syscall(41, family, kind, 0) < 0: raise OSError\nfor family in (16, 17, 38, 40):\n  attempt(family, lambda: made(family, 3))\n  attempt(family, lambda: made(family, 5))\nattempt('ring', lambda: 1 / (1 + libc.syscall(425, 8, ctypes.create_string_buffer(120))))\ngot", DIES, _kinds("OSError")),
]  # fmt: skip

_SYSTEM_CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs('m', exist_ok=True)
attempt('mount', lambda: zero(libc.mount(b'x', os.path.abspath('m').encode(), b'tmpfs', 0, None)))
attempt('mount proc', lambda: zero(libc.mount(b'x', os.path.abspath('m').encode(), b'proc', 0, None)))
attempt('bind', lambda: zero(libc.mount(b'/', os.path.abspath('m').encode(), None, 4096, None)))
attempt('remount', lambda: zero(libc.mount(b'/', b'/', None, 4096 | 32, None)))
attempt('umount', lambda: zero(libc.umount2(b'/proc', 2)))
attempt('chroot', lambda: os.chroot('m'))
attempt('pivot', lambda: zero(libc.syscall(155, b'.', b'.')))
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x04000000, 0x08000000, 0x02000000):
    attempt(f'unshare {flag:x}', lambda: zero(libc.unshare(flag)))
for name in ('mnt', 'net', 'pid', 'user'):
    attempt(f'setns {name}', lambda: zero(libc.setns(os.open(f'/proc/1/ns/{name}', 0), 0)))
attempt('reboot', lambda: zero(libc.syscall(169, 0xfee1dead, 672274793, 0, 0)))
attempt('swapon', lambda: zero(libc.swapon(b'/x', 0)))
attempt('init_module', lambda: zero(libc.syscall(175, 0, 0, b'')))
attempt('kexec', lambda: zero(libc.syscall(246, 0, 0, 0, 0)))
attempt('hostname', lambda: zero(libc.sethostname(b'owned', 5)))
attempt('acct', lambda: zero(libc.acct(b'/x')))
attempt('syslog', lambda: 1 / (1 + libc.klogctl(10, None, 0)))
attempt('bpf', lambda: 1 / (1 + libc.syscall(321, 0, ctypes.create_string_buffer(128), 128)))
attempt('perf', lambda: 1 / (1 + libc.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)))
attempt('userfaultfd', lambda: 1 / (1 + libc.syscall(323, 0)))
attempt('keys', lambda: 1 / (1 + libc.syscall(248, b'user', b'x', b'y', 1, -4)))
attempt('quotactl', lambda: zero(libc.syscall(179, 0, None, 0, None)))
attempt('handle', lambda: 1 / (1 + libc.syscall(304, -100, ctypes.create_string_buffer(128), 0)))
attempt('fanotify', lambda: 1 / (1 + libc.syscall(300, 0, 0)))
attempt('personality', lambda: 1 / (libc.personality(0x0040000) + 1))
got
"""

_DEVICES = """
import os, stat
for name, kind, major, minor in (('mem', stat.S_IFCHR, 1, 1), ('null', stat.S_IFCHR, 1, 3), ('sda', stat.S_IFBLK, 8, 0)):
    attempt(f'mknod {name}', lambda: os.mknod(name, kind | 0o666, os.makedev(major, minor)))
for path in ('/dev/mem', '/dev/kmem', '/dev/kmsg', '/dev/port', '/dev/sda', '/dev/vda', '/dev/kvm', '/dev/fuse',
             '/dev/net/tun', '/dev/console', '/dev/tty', '/dev/ptmx', '/dev/loop-control', '/dev/uinput'):
    attempt(path, lambda: os.open(path, os.O_RDWR))
got
"""

_SETTINGS = """
import os
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/overcommit_memory', '/proc/self/oom_score_adj',
             '/proc/self/uid_map', '/proc/self/mem', '/proc/self/attr/current', '/sys/kernel/uevent_helper',
             '/sys/fs/cgroup/cgroup.procs', '/sys/power/state', '/etc/passwd', '/etc/ld.so.preload', '/usr/bin/python3'):
    attempt(path, lambda: os.open(path, os.O_WRONLY))
got
"""

_SYSTEM = [
    Attack("system calls of the mighty", _SYSTEM_CALLS, DIES, _kinds("OSError")),
    Attack("devices", _DEVICES),
    Attack("settings of the system", _SETTINGS),
    Attack("keys typed into the terminal", "import fcntl, termios\nfor fd in (0, 1, 2): attempt(fd, lambda: fcntl.ioctl(fd, termios.TIOCSTI, b'x'))\ngot"),
    Attack("the terminal of the host", "import os\nfor fd in (0, 1, 2): attempt(fd, lambda: os.ttyname(fd))\nattempt('ctermid', lambda: os.open(os.ctermid(), os.O_RDWR))\ngot"),
    Attack("becoming root", "import os\nattempt('setuid', lambda: os.setuid(0))\nattempt('setgid', lambda: os.setgid(0))\nattempt('groups', lambda: os.setgroups([0]))\ngot"),
    Attack("programs that become root", "import subprocess\nfor argv in (['su', '-c', 'id -u'], ['sudo', '-n', 'id', '-u'], ['unshare', '-r', 'id', '-u'], ['pkexec', 'id', '-u']):\n  attempt(argv, lambda: zero(subprocess.run(argv, capture_output=True, timeout=1, stdin=subprocess.DEVNULL).stdout != b'0\\n'))\ngot", TIME),
    Attack("a file that becomes root", "import os\nopen('x', 'w').close()\nattempt('chown', lambda: os.chown('x', 0, 0))\nos.chmod('x', 0o4777)\ngot", (), _kinds("PermissionError", "OSError")),
    Attack("the clock", "import time\nattempt('clock', lambda: time.clock_settime(time.CLOCK_REALTIME, 0))\ngot"),
    Attack("larger limits", "import resource\nfor name in ('RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_FSIZE', 'RLIMIT_NOFILE', 'RLIMIT_CORE'):\n  kind = getattr(resource, name)\n  soft, hard = resource.getrlimit(kind)\n  if hard == resource.RLIM_INFINITY: got.append([name, 'had none'])\n  attempt(name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))\ngot"),
    Attack("limits of the test", "import resource\nattempt('prlimit', lambda: resource.prlimit(PID, resource.RLIMIT_NOFILE, (0, 0)))\ngot"),
    Attack("priorities", "import os\nattempt('nice', lambda: os.nice(-5))\nattempt('of the test', lambda: os.setpriority(os.PRIO_PROCESS, PID, 19))\nattempt('real time', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))\nattempt('cores of the test', lambda: os.sched_setaffinity(PID, {0}))\ngot"),
    Attack("a core file", "import os, resource\nattempt('core', lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)))\nos.abort()", DIES),
]  # fmt: skip

_PYTHON = [
    Attack("a system call by C", "import ctypes\nctypes.CDLL(None).system(('touch ' + MARKER).encode())\nNone", (*DIES, *TIME), _kinds("OSError"), None),
    Attack("a shell", "import subprocess\nsubprocess.run(['sh', '-c', 'id > ' + MARKER], capture_output=True)\nNone", TIME, _kinds("FileNotFoundError", "PermissionError"), None),
    Attack("os.system", "import os\nos.system('touch ' + MARKER)\nNone", TIME, gained=None),
    Attack("writing to nowhere", "import ctypes\nctypes.memset(0, 1, 8)", DIES, _kinds("OSError")),
    Attack("reading from nowhere", "import ctypes\nctypes.string_at(0)", DIES, _kinds("OSError")),
    Attack("memory that runs", "import mmap\nattempt('rwx', lambda: mmap.mmap(-1, 4096, prot=7).write(b'\\x90'))\nNone", DIES, gained=None),
    Attack("forking by the back door", "import _posixsubprocess\nNone", gained=None),
    Attack("packages of the host", "for name in ('pydantic_monty', 'pytest', 'hypothesis', 'httptools'):\n  attempt(name, lambda: __import__(name))\ngot"),
    Attack("a module of its own", "open('json.py', 'w').write('raise SystemExit(\"owned\")')\nopen('sitecustomize.py', 'w').write('raise SystemExit')\nimport sys\nsys.path.insert(0, '.')\nsys.modules.pop('json', None)\nimport json", (*DIES, SandboxDiskError), _kinds("SystemExit", "RuntimeError"), None),
    Attack("changing the library", "import builtins, json\nbuiltins.print = None\nbuiltins.len = lambda x: 7\njson.dumps = lambda x: 'owned'\nNone", (*DIES, *MEMORY), _kinds("TypeError"), None),
    Attack("a module that is written where all look", "import os\nattempt('module', lambda: open(os.path.join(os.path.dirname(os.__file__), 'owned.py'), 'w').close())\ngot"),
    Attack("hooks", "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = None\nsys.displayhook = None\nsys.stdout = None\nsys.stderr = None\nNone", DIES, gained=None),
    Attack("a value that unpickles", "import os\nclass A:\n  def __reduce__(self): return (os.system, ('touch ' + MARKER,))\nA()", gained=None),
    Attack("pickled code", "import pickle\npickle.loads(b'cos\\nsystem\\n(S\"touch ' + MARKER.encode() + b'\"\\ntR.')\nNone", TIME, _kinds("FileNotFoundError", "PermissionError"), None),
    Attack("a value that pretends", "class A(dict):\n  def items(self): raise SystemExit\n  def __iter__(self): raise SystemExit\n  def __len__(self): return -1\nA(a=1)", DIES, _kinds("SystemExit", "ValueError"), ANYTHING),
    Attack("a text that pretends", "class A(str):\n  def encode(self, *a): return 7\n  def __repr__(self): return 7\nA('x')", DIES, _kinds("TypeError"), ANYTHING),
    Attack("a value with a class that lies", "class A:\n  @property\n  def __class__(self): return str\n  def __repr__(self): raise ValueError('no')\nA()", DIES, _kinds("ValueError"), ANYTHING),
    Attack("subclasses of object", "[one for one in ().__class__.__base__.__subclasses__() if one.__name__ == 'Secret']"),
    Attack("frames", "import sys\nframe = sys._getframe()\nwhile frame:\n  print(list(frame.f_globals), list(frame.f_locals))\n  frame = frame.f_back\ngot", (SandboxOutputError,)),
    Attack("what a function of the host holds", "print(note.__globals__, note.__closure__, note.__code__)\nNone", gained=None),
    Attack("every object there is", "import gc\nfor one in gc.get_objects():\n  if 'secret' in repr(type(one)).lower(): got.append(repr(one))\ngot", (*TIME, *MEMORY, *DIES)),
    Attack("a function of the host with anything", "for one in (lambda: 1, object(), note, {1}, 1j):\n  try: await note(one)\n  except (TypeError, RuntimeError): pass\ngot"),
    Attack("a name that is no function of the host", "for one in ('__class__', '_secret', 'eval', 'note.__globals__'):\n  attempt(one, lambda: eval(one)('1') if one != '__class__' else 1 / 0) or got.clear()\ngot"),
    Attack("format strings", "'{0.__globals__}'.format(note)", (SandboxOutputError,), _kinds("AttributeError", "KeyError"), ANYTHING),
    Attack("a debugger", "breakpoint()", TIME, _kinds("BdbQuit", "EOFError", "RuntimeError"), None),
    Attack("code at the exit", "import atexit, os\natexit.register(lambda: os.system('touch ' + MARKER))\nNone", gained=None),
    Attack("code at a later time", "import threading\nthreading.Timer(0.1, lambda: open(MARKER, 'w')).start()\nNone", gained=None),
]  # fmt: skip

_FORGED = """
import os, struct
payloads = [b'garbage' * 100, bytes(1000), b'\\xff' * 8, struct.pack('>II', 0xffffffff, 0xffffffff), struct.pack('>II', 10, 0) + b'{"kind',
            struct.pack('<Q', 1 << 62), b'{"kind":"done","value":42}' + b'\\n', struct.pack('>I', 2**31) + b'x' * 100]
for body in (b'{"kind":"done","value":"forged","shown":"forged"}', b'{"kind":"calls","calls":[{"name":"note","args":[1],"kwargs":{}}]}',
             b'{"kind":"calls","calls":[{"name":"__import__","args":["os"],"kwargs":{}}]}', b'[' * 100000, b'null'):
    payloads.append(struct.pack('>II', len(body), 0) + body)
for fd in range(3, 256):
    try: os.set_blocking(fd, False)
    except OSError: continue
    for payload in PICKED:
        try: os.write(fd, payload)
        except OSError: pass
'real'
"""

_FORGERY = [
    Attack(
        f"forged answers, {number}",
        _FORGED.replace("PICKED", f"payloads[{number}:{number + 1}]"),
        (SandboxLimitError, *DIES),
        gained=ANYTHING,
        only="bubblewrap",
    )
    for number in range(13)
]

ATTACKS: tuple[Attack, ...] = (
    *_PROCESSES,
    *_MEMORY,
    *_TIME,
    *_DISK,
    *_OUTPUT,
    *_DEPTH,
    *_READING,
    *_SIGNALS,
    *_NETWORK,
    *_SYSTEM,
    *_PYTHON,
    *_FORGERY,
)
