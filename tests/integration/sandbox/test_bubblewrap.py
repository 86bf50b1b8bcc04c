"""BubblewrapSandbox: what runs in it, what comes back, what stays, and what ends it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gossamer.errors import (
    ArgumentError,
    CodeError,
    SandboxBusyError,
    SandboxCallsError,
    SandboxClosedError,
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
    SandboxUnavailableError,
)
from gossamer.sandbox import BubblewrapSandbox, HostAnswer, SandboxFile, SandboxLimits
from gossamer.sandbox.process_tree import descendants

pytestmark = pytest.mark.usefixtures("bubblewrap")

SMALL = SandboxLimits(
    timeout=9.0,
    cpu_seconds=1.0,
    memory_bytes=64 << 20,
    processes=4,
    file_bytes=1 << 20,
    disk_bytes=2 << 20,
    files=50,
    output_bytes=50_000,
    result_bytes=500_000,
    host_calls=20,
)


@pytest.fixture
async def sandbox():
    before = set(descendants(os.getpid()))
    async with BubblewrapSandbox(limits=SMALL, size=3, warm=1) as sandbox:
        yield sandbox
    deadline = asyncio.get_running_loop().time() + 10
    while left := set(descendants(os.getpid())) - before:
        assert asyncio.get_running_loop().time() < deadline, f"processes are left: {left}"
        await asyncio.sleep(0.01)


@pytest.fixture
async def session(sandbox):
    async with sandbox.session() as session:
        yield session


# --- what comes of a run ----------------------------------------------------------------------------------------------


async def test_the_last_expression_and_what_was_written_come_back(sandbox):
    made = await sandbox.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nx = 20\nx + 1")
    assert (made.value, made.shown, made.stdout, made.stderr) == (21, "21", "out\n", "err\n")
    assert made.images == ()
    assert made.files == {}
    assert made.seconds > 0


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [
        ("(1, [2.5, None, True], {'a': b'\\xff'})", [1, [2.5, None, True], {"a": b"\xff"}], "(1, [2.5, None, True], {'a': b'\\xff'})"),
        ("float('inf')", float("inf"), "inf"),
        ("2**200", 2**200, str(2**200)),
        ("{1: 2}", None, "{1: 2}"),
        ("object", None, "<class 'object'>"),
        ("'\\ud800'", None, "'\\ud800'"),
        ("{'\\0bytes': 'AA=='}", None, "{'\\x00bytes': 'AA=='}"),
        ("a = []\na.append(a)\na", None, "[[...]]"),
        ("x = 1", None, ""),
        ("None", None, ""),
        ("", None, ""),
        ("# nothing", None, ""),
        ("import sys\nsys.exit()\n1", None, ""),
    ],
)  # fmt: skip
async def test_plain_data_comes_back_as_it_is_and_the_rest_as_text(session, code, value, shown):
    made = await session.run(code)
    assert (made.value, made.shown) == (value, shown)


async def test_variables_files_and_functions_stay_in_a_session_and_nowhere_else(sandbox):
    async with sandbox.session() as one, sandbox.session() as other:
        await one.run("def f(n): return n * 2\nx = 4\nopen('kept.txt', 'w').write('kept')")
        assert (await one.run("f(x)")).value == 8
        assert (await one.run("open('kept.txt').read()")).value == "kept"
        with pytest.raises(CodeError, match="NameError"):
            await other.run("x")
        assert (
            await other.run("import os; os.listdir('.'), os.listdir('/tmp'), os.listdir('/dev/shm')")
        ).value == [[], [], []]


async def test_await_may_stand_outside_of_functions(session):
    assert (await session.run("import asyncio\nawait asyncio.sleep(0.001, 5)")).value == 5
    assert (await session.run("async def f(): return 6\nx = await f()\nx")).value == 6


async def test_dataclasses_pickles_and_subprocesses_work_as_in_python(session):
    code = """
import pickle, subprocess, sys, threading, multiprocessing, sqlite3
from dataclasses import dataclass
@dataclass
class Point:
    x: int
back = pickle.loads(pickle.dumps(Point(3)))
told = subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout
heard = []
thread = threading.Thread(target=heard.append, args=(7,)); thread.start(); thread.join()
queue = multiprocessing.get_context("fork").SimpleQueue()
child = multiprocessing.get_context("fork").Process(target=queue.put, args=(9,)); child.start(); child.join()
rows = sqlite3.connect("data.db").execute("select 11").fetchone()
(back.x, told, heard, queue.get(), rows)
"""
    assert (await session.run(code)).value == [3, "5\n", [7], 9, [11]]


async def test_files_go_in_and_come_out(sandbox):
    made = await sandbox.run(
        "import os\nos.makedirs('made', exist_ok=True)\n"
        "open('made/upper.txt', 'w').write(open('in/a.txt').read().upper())\nopen('other', 'w').close()",
        files={"in/a.txt": "text", "b.bin": b"\x00\xff"},
        outputs=["made/*.txt", "b.bin", "none*"],
    )
    assert made.files == {"made/upper.txt": b"TEXT", "b.bin": b"\x00\xff"}


async def test_files_of_a_session_are_listed_and_read(session):
    await session.run(
        "open('b', 'w').write('22')\nopen('a', 'w').write('1')\nimport os\nos.symlink('/etc/passwd', 'link')"
    )
    assert await session.files() == (SandboxFile("a", 1), SandboxFile("b", 2))
    assert await session.read("b") == b"22"
    for name in ("none", "."[:0] + "x/y"):
        with pytest.raises(SandboxFileError):
            await session.read(name)
    with pytest.raises(SandboxFileError):
        await session.run("1", outputs=["none.txt"])
    assert (await session.run("1 + 1")).value == 2


async def test_output_that_is_no_text_is_replaced(session):
    made = await session.run("import os\nos.write(1, b'\\xff\\xfe ok')\nos.write(2, b'\\x00')")
    assert (made.stdout, made.stderr) == ("\ufffd\ufffd ok", "\x00")


async def test_errors_of_the_code_say_where_and_the_session_goes_on(session):
    with pytest.raises(CodeError, match="ZeroDivisionError: division by zero") as told:
        await session.run("print('before')\ndef f():\n    return 1 / 0\nf()")
    assert told.value.kind == "ZeroDivisionError"
    assert told.value.stdout == "before\n"
    assert told.value.traceback.splitlines()[:3] == [
        "Traceback (most recent call last):",
        '  File "<run 1>", line 4, in <module>',
        "    f()",
    ]
    with pytest.raises(CodeError, match="SyntaxError") as told:
        await session.run("this is no Python")
    assert "<run 2>" in told.value.traceback
    for code in ("raise SystemExit(3)", "raise KeyboardInterrupt", "raise BaseException('x')", "class E(Exception):\n  def __str__(self): 1/0\nraise E"):  # fmt: skip
        with pytest.raises(CodeError):
            await session.run(code)
    assert (await session.run("1 + 1")).value == 2


# --- functions of the host --------------------------------------------------------------------------------------------


async def test_code_calls_functions_of_the_host(session):
    def add(a, b=1):
        return a + b

    async def fail():
        raise ValueError("no")

    offered = {"add": add, "fail": fail}
    assert (await session.run("await add(2, b=3)", functions=offered)).value == 5
    with pytest.raises(CodeError, match="RuntimeError: ValueError: no"):
        await session.run("await fail()", functions=offered)
    with pytest.raises(CodeError, match="cannot be called in this run"):
        await session.run("await add(1)")
    with pytest.raises(CodeError, match="plain data"):
        await session.run("await add(object())", functions=offered)
    with pytest.raises(CodeError, match="no plain data"):
        await session.run("await make()", functions={"make": object})


async def test_calls_that_are_gathered_are_answered_in_one_step(session):
    steps = []

    class Functions:
        names = ("f",)

        async def answer(self, calls):
            steps.append([call.args[0] for call in calls])
            return [HostAnswer(call.args[0] * 10) for call in calls]

    code = """
import asyncio
async def twice(n):
    return await f(await f(n))
await asyncio.gather(twice(1), twice(2), asyncio.sleep(0.001))
"""
    assert (await session.run(code, functions=Functions())).value == [100, 200, None]
    assert steps == [[1, 2], [10, 20]]


async def test_a_call_that_nobody_waits_for_spoils_nothing(session):
    answered = []

    async def slow(n):
        answered.append(n)
        return n

    code = "import asyncio\ntask = asyncio.ensure_future(slow(1))\nawait asyncio.sleep(0)\n5"
    assert (await session.run(code, functions={"slow": slow})).value == 5
    assert (await session.run("await slow(2)", functions={"slow": slow})).value == 2


async def test_time_that_the_host_takes_is_not_the_runs(sandbox):
    done = []

    async def wait():
        await asyncio.sleep(0.4)
        done.append(1)

    await sandbox.run("await wait()", functions={"wait": wait}, timeout=0.3)
    assert done == [1]


async def test_too_many_calls_end_it(session):
    with pytest.raises(SandboxCallsError) as told:
        await session.run("while True:\n    await f()", functions={"f": lambda: None})
    assert (told.value.limit, told.value.allowed) == ("host_calls", 20)
    assert session.closed


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "limit", "goes_on"),
    [
        ("import time\ntime.sleep(60)", SandboxTimeoutError, "timeout", False),
        ("while True: pass", SandboxCpuError, "cpu_seconds", False),
        ("x = bytearray(200 << 20)", SandboxMemoryError, "memory_bytes", True),
        ("import os\nwhile True: os.fork()", SandboxProcessError, "processes", True),
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", SandboxProcessError, "processes", True),
        ("open('x', 'wb').write(bytes(3 << 20))", SandboxFileSizeError, "file_bytes", True),
        ("for n in range(9): open(f'{n}', 'wb').write(bytes(1 << 19))", SandboxDiskError, "disk_bytes", True),
        ("for n in range(99): open(f'{n}', 'w').close()", SandboxDiskError, "files", True),
        ("print('x' * 100_000)", SandboxOutputError, "output_bytes", False),
        ("'x' * 600_000", SandboxOutputError, "result_bytes", True),
    ],
)  # fmt: skip
async def test_each_limit_has_its_error(sandbox, code, error, limit, goes_on):
    timeout = 0.3 if limit == "timeout" else None
    async with sandbox.session() as session:
        with pytest.raises(error) as told:
            await session.run(code, timeout=timeout)
        assert told.value.limit == limit
        assert told.value.allowed == (timeout or getattr(SMALL, limit))
        assert (f"more with {limit}=" if timeout else f"SandboxLimits({limit}=") in str(told.value)
        if goes_on and not session.closed:
            assert (await session.run("1 + 1")).value == 2
        assert goes_on != session.closed or limit == "processes"
    assert (await sandbox.run("1 + 1")).value == 2


async def test_memory_of_all_processes_together_counts(sandbox):
    code = """
import os, time
for _ in range(3):
    if not os.fork():
        held = b"x" * (30 << 20)
        time.sleep(60)
time.sleep(60)
"""
    with pytest.raises(SandboxMemoryError):
        await sandbox.run(code)


async def test_memory_that_is_shared_and_of_no_file_is_refused(session):
    """Nothing would count it: all but one page can be given back to the system without its being free."""
    with pytest.raises(CodeError, match="PermissionError"):
        await session.run("import mmap\nmmap.mmap(-1, 4096)")
    await session.run("import mmap\nheld = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)")
    with pytest.raises(CodeError, match="FileNotFoundError"):
        await session.run("open('/dev/zero')")
    code = (
        "import mmap\nwith open('/dev/shm/shared', 'wb+') as file:\n"
        "    file.truncate(4096)\n    held = mmap.mmap(file.fileno(), 4096)\nheld.write(b'x')"
    )
    assert (await session.run(code)).value == 1


async def test_memory_that_processes_share_counts_once(sandbox):
    code = """
import os, time
held = bytearray(b"x" * (20 << 20))
for _ in range(4):
    if not os.fork():
        sum(held[::4096])
        time.sleep(60)
time.sleep(0.3)
7
"""
    assert (await sandbox.run(code)).value == 7


async def test_what_was_written_before_a_limit_is_told(sandbox):
    with pytest.raises(SandboxTimeoutError) as told:
        await sandbox.run("import time\nprint('so far', flush=True)\ntime.sleep(60)", timeout=0.3)
    assert told.value.stdout == "so far\n"


async def test_a_file_that_is_too_large_to_come_back_is_told(session):
    await session.run("open('large', 'wb').write(bytes(600_000))")
    with pytest.raises(SandboxOutputError):
        await session.read("large")
    with pytest.raises(SandboxOutputError):
        await session.run("1", outputs=["lar*"])


async def test_what_code_leaves_running_stands_still_between_runs(session):
    await session.run(
        "import threading, subprocess\ncount = 0\ndef on():\n    global count\n    while True: count += 1\n"
        "threading.Thread(target=on, daemon=True).start()\nchild = subprocess.Popen(['sleep', '60'])"
    )
    before = (await session.run("count")).value
    await asyncio.sleep(0.2)
    after = (await session.run("count")).value
    again = (await session.run("import time\ntime.sleep(0.2)\ncount")).value
    assert again - after > 2 * (after - before)
    assert (await session.run("child.wait(5)")).value == -signal.SIGKILL


# --- bad input --------------------------------------------------------------------------------------------------------


async def test_ten_megabytes_of_code_are_refused(sandbox):
    with pytest.raises(SandboxLimitError) as told:
        await sandbox.run("x = 1\n" * 2_000_000)
    assert told.value.limit == "code_bytes"


@pytest.mark.parametrize("name", ["a\0b", "/etc/x", "../x", "", "a//b", "x" * 300])
async def test_names_that_are_no_names_are_refused(sandbox, name):
    with pytest.raises(ArgumentError, match="files"):
        await sandbox.run("1", files={name: b""})
    async with sandbox.session() as session:
        with pytest.raises(ArgumentError):
            await session.read(name)


async def test_an_upload_that_is_too_large_is_refused(session):
    with pytest.raises(SandboxFileSizeError):
        await session.run("1", files={"x": bytes(3 << 20)})
    with pytest.raises(SandboxDiskError):
        await session.run("1", files={f"{n}": bytes(1 << 20) for n in range(3)})
    await session.run("open('there', 'wb').write(bytes(1 << 20))")
    with pytest.raises(SandboxDiskError):  # together with what is there already
        await session.run("1", files={"x": bytes(1 << 20), "y": bytes(1 << 19)})
    assert (await session.run("1 + 1")).value == 2


async def test_an_upload_cannot_leave_through_a_link(session):
    await session.run("import os\nos.symlink('/opt', 'out')")
    with pytest.raises(CodeError, match=r"Read-only|PermissionError"):
        await session.run("1", files={"out/x": b"1"})


def test_arguments_are_checked():
    for wrong in ({"size": 0}, {"warm": -1}, {"max_waiting": -1}, {"wait_timeout": 0}, {"size": True}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            BubblewrapSandbox(**wrong)


# --- packages ---------------------------------------------------------------------------------------------------------


async def test_the_packages_that_are_named_are_there_and_no_others():
    code = """
import numpy, matplotlib.pyplot as plt, importlib.util
plt.plot(numpy.arange(3)); plt.figure(); plt.plot([1])
int(numpy.arange(4).sum()), [importlib.util.find_spec(name) is None for name in ("msgspec", "pytest", "PIL", "pip")]
"""
    async with BubblewrapSandbox(["numpy", "matplotlib"], warm=1) as sandbox:
        made = await sandbox.run(code)
        assert made.value == [6, [True, True, False, True]]
        assert [image.media_type for image in made.images] == ["image/png"] * 2
        assert all(image.data[:8] == b"\x89PNG\r\n\x1a\n" for image in made.images)
        shown = await sandbox.run("from PIL import Image\nImage.new('RGB', (2, 2))")
        assert len(shown.images) == 1


async def test_a_package_that_is_not_there_is_told():
    with pytest.raises(ArgumentError, match="no-such-package"):
        await BubblewrapSandbox(["no-such-package"]).run("1")


async def test_where_bubblewrap_is_missing_nothing_runs(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailableError, match="bubblewrap"):
        await BubblewrapSandbox().run("open('/tmp/ran', 'w')")
    with pytest.raises(SandboxUnavailableError, match="apt-get install bubblewrap"):
        await BubblewrapSandbox().check()


async def test_where_namespaces_are_forbidden_the_error_says_so(tmp_path, monkeypatch):
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: Creating new namespace failed: Operation not permitted' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailableError, match="Creating new namespace failed"):
        await BubblewrapSandbox().run("1")


# --- sessions, places, ends -------------------------------------------------------------------------------------------


async def test_a_closed_session_runs_nothing_and_closing_twice_is_once(session):
    await session.run("1")
    await session.aclose()
    await session.aclose()
    for work in (session.run("1"), session.read("x"), session.files(), session.command(["ls"])):
        with pytest.raises(SandboxClosedError):
            await work


async def test_a_session_that_is_closed_in_the_middle_ends_its_run(sandbox):
    session = sandbox.session()
    began = asyncio.Event()

    async def begin():
        began.set()
        await asyncio.sleep(60)

    for code in ("await begin()", "await tell()\nimport time\ntime.sleep(60)"):
        began.clear()
        session = sandbox.session()
        run = asyncio.create_task(session.run(code, functions={"begin": begin, "tell": began.set}))
        await began.wait()
        await session.aclose()
        with pytest.raises(SandboxClosedError):
            await run
        assert session.closed


async def test_a_sandbox_that_is_closed_in_the_middle_ends_its_runs_and_can_be_used_again(sandbox):
    began = asyncio.Event()
    runs = [
        asyncio.create_task(
            sandbox.run("await tell()\nimport time\ntime.sleep(60)", functions={"tell": began.set})
        )
        for _ in range(5)
    ]
    await began.wait()
    await sandbox.aclose()
    for run in runs:
        with pytest.raises(SandboxClosedError):
            await run
    assert (await sandbox.run("1 + 1")).value == 2


async def test_a_cancelled_run_ends_its_session(sandbox):
    began = asyncio.Event()
    async with sandbox.session() as session:
        code = "await tell()\nwhile True: pass"
        run = asyncio.create_task(session.run(code, functions={"tell": began.set}))
        await began.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        with pytest.raises(SandboxClosedError):
            await session.run("1")


async def test_runs_of_one_session_come_one_after_the_other(session):
    await session.run("x = []")
    await asyncio.gather(*(session.run(f"x.append({n})") for n in range(10)))
    assert (await session.run("x")).value == list(range(10))


async def test_two_hundred_runs_wait_for_their_places():
    async with BubblewrapSandbox(size=8, warm=4) as sandbox:

        async def run(n):
            return (await sandbox.run(f"{n} + 1")).value

        assert await asyncio.gather(*map(run, range(200))) == list(range(1, 201))


async def test_waiting_is_bounded():
    async with (
        BubblewrapSandbox(size=1, warm=1, max_waiting=1, wait_timeout=0.05) as sandbox,
        sandbox.session() as first,
    ):
        await first.run("1")
        waiting = asyncio.create_task(sandbox.run("2"))
        await asyncio.sleep(0)
        with pytest.raises(SandboxBusyError, match="max_waiting"):
            await sandbox.run("3")
        with pytest.raises(SandboxBusyError, match=r"within 0\.05 seconds"):
            await waiting
        await first.aclose()
        assert (await sandbox.run("4")).value == 4


async def test_a_worker_that_dies_is_told_and_the_pool_goes_on(sandbox):
    for code, words in (("import os\nos._exit(7)", "exit code 7"), ("import os\nos.kill(os.getpid(), 9)", "SIGKILL"), ("import ctypes\nctypes.string_at(0)", "SIGSEGV")):  # fmt: skip
        with pytest.raises(SandboxCrashedError, match=words):
            await sandbox.run(code)
    assert (await sandbox.run("1 + 1")).value == 2


async def test_the_parent_of_the_pool_is_killed_and_the_pool_goes_on(sandbox):
    async with sandbox.session() as session:
        await session.run("x = 1")
        box = sandbox._pools.here().box
        for pid in descendants(box.pid)[:2]:
            with suppress(ProcessLookupError):  # the second goes with the first
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxCrashedError):
            await session.run("import time\ntime.sleep(3)")
    await asyncio.wait_for(asyncio.shield(box.ended), 5)
    assert (await sandbox.run("1 + 1")).value == 2


async def test_every_process_ends_with_this_one():
    code = (
        "import asyncio, os\nfrom gossamer.sandbox import BubblewrapSandbox\n"
        "from gossamer.sandbox.process_tree import descendants\n"
        "async def main():\n"
        "    session = BubblewrapSandbox().session()\n"
        "    print((await session.run('1 + 1')).value, *descendants(os.getpid()), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    value, *started = told.decode().split()
    assert value == "2"
    assert len(started) >= 5
    deadline = asyncio.get_running_loop().time() + 5
    while left := [pid for pid in started if Path("/proc", pid).exists()]:
        assert asyncio.get_running_loop().time() < deadline, left
        await asyncio.sleep(0.01)


def test_a_sandbox_serves_one_loop_after_the_other():
    sandbox = BubblewrapSandbox(warm=0)
    for _ in range(2):
        assert asyncio.run(sandbox.run("1 + 1")).value == 2


# --- programs ---------------------------------------------------------------------------------------------------------


async def test_programs_run_in_the_folder_of_the_session(session):
    made = await session.command(["cat", "a.txt", "-"], files={"a.txt": "one "}, stdin=b"two")
    assert (made.value, made.stdout) == (0, "one two")
    made = await session.command(["sh", "-c", "echo no >&2; exit 3"])
    assert (made.value, made.stderr) == (3, "no\n")
    assert (await session.command(["python3", "-c", "print(1 + 1)"])).stdout == "2\n"
    assert (await session.command(["sh", "-c", "kill -9 $$"])).value == -9
    with pytest.raises(SandboxFileError, match="no-such-program"):
        await session.command(["no-such-program"])
    for wrong in ([], "ls", ["a\0"], [1]):
        with pytest.raises(ArgumentError, match="argv"):
            await session.command(wrong)
    with pytest.raises(SandboxTimeoutError):
        await session.command(["sleep", "60"], timeout=0.3)


# --- forged answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        "b'\\xff' * 100",
        "HEAD.pack(2**32 - 1, 0)",
        "HEAD.pack(2, 2**31) + b'{}'",
        "HEAD.pack(2, 0) + b'{}'",
        'HEAD.pack(10, 0) + b\'{"is":"done\'',
        'HEAD.pack(30, 0) + b\'{"is":"done","blobs":[-1,1]}  \'',
        "pack({'is': 'calls', 'calls': [{'name': 'rm', 'args': [], 'kwargs': {}}]})",
        "pack({'is': 'calls', 'calls': [{'name': 'f', 'args': 5, 'kwargs': []}]})",
        "pack({'is': 'calls', 'calls': [{}]})",
        "pack({'is': 'calls', 'calls': []})",
        "pack({'is': 'strange'})",
        "HEAD.pack(300_000, 0) + b'[' * 300_000",
    ],
)
async def test_a_worker_that_forges_its_answers_harms_itself_alone(sandbox, forged):
    called = []
    code = f"""
import os, stat, socket
from gossamer.sandbox.inside.frames import HEAD, pack
for number in range(3, 256):
    try:
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.write(number, {forged})
    except OSError:
        pass
import time
time.sleep(0.3)
"""
    with pytest.raises(SandboxError):
        await sandbox.run(code, functions={"f": lambda: called.append(1)}, timeout=1)
    assert called == []
    assert (await sandbox.run("1 + 1")).value == 2


async def test_a_forged_result_is_data_and_nothing_else(sandbox):
    code = """
import os, stat
from gossamer.sandbox.inside.frames import pack
for number in range(3, 256):
    try:
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.write(number, pack({"is": "done", "value": {"\\0bytes": "!"}, "shown": "forged", "error": None}))
    except OSError:
        pass
"""
    made = await sandbox.run(code)
    assert (made.value, made.shown) == (None, "forged")


async def test_the_network_is_not_there(session):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        with pytest.raises(CodeError, match=r"PermissionError|OSError"):
            await session.run(code)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# --- what newcomers meet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["f(1)", "f(1)\nprint('done')", "x = [f(1), f(2)]", "async def g(): f(1)\nawait g()"]
)
async def test_a_call_without_await_is_an_error_and_not_made(session, code):
    called = []
    with pytest.raises(CodeError, match=r"f\(\) was called without await, and did not run; write `await f\("):
        await session.run(code, functions={"f": called.append})
    assert called == []
    assert (await session.run("await f(3)", functions={"f": lambda n: n + 1})).value == 4


async def test_lines_that_were_written_before_a_limit_are_told(sandbox):
    with pytest.raises(SandboxTimeoutError) as told:
        await sandbox.run("print('one')\nwhile True: pass", timeout=0.3)
    assert told.value.stdout == "one\n"
    assert "timeout=..." in str(told.value)


async def test_too_many_files_are_another_limit_than_too_large_ones(session):
    with pytest.raises(SandboxDiskError) as told:
        await session.run("for n in range(99): open(str(n), 'w').close()")
    assert (told.value.limit, told.value.allowed) == ("files", SMALL.files)


async def test_a_syntax_error_shows_the_code_alone(session):
    with pytest.raises(CodeError) as told:
        await session.run("x = = 1")
    assert told.value.traceback.splitlines()[:2] == ['  File "<run 1>", line 1', "    x = = 1"]


def test_a_program_that_closes_nothing_ends_without_a_word():
    code = (
        "from gossamer import Agent, Session, ToolCall, python\n"
        "from gossamer.models import ScriptedModel\nfrom gossamer.sandbox import BubblewrapSandbox\n"
        "model = ScriptedModel([ToolCall('run_python', '{\"code\": \"1 + 1\"}'), 'two'])\n"
        "print(Agent(model, tools=[python(BubblewrapSandbox())]).run_sync('?', session=Session()).output)"
    )
    code = code.replace("ToolCall, python\n", "ToolCall\nfrom gossamer.tools.builtin import python\n")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("two\n", "", 0)


def test_arguments_of_other_types_are_told():
    for wrong in ({"limits": {"timeout": 3}}, {"network": True}, {"packages": "numpy"}, {"packages": [1]}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            BubblewrapSandbox(**wrong)


async def test_functions_and_files_of_other_types_are_told(session):
    with pytest.raises(ArgumentError, match="functions must be a dict"):
        await session.run("1", functions=[len])
    with pytest.raises(ArgumentError, match="files must be a dict"):
        await session.run("1", files=["a"])
