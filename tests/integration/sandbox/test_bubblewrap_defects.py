"""Ways around what BubblewrapSandbox promises that were open once."""

import asyncio
import errno
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gossamer.errors import (
    CodeError,
    SandboxCpuError,
    SandboxCrashedError,
    SandboxError,
    SandboxMemoryError,
    SandboxOutputError,
    SandboxProcessError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from gossamer.sandbox import BubblewrapSandbox, SandboxLimits, box, process_tree, usage, worker_link
from gossamer.sandbox.process_tree import descendants
from gossamer.sandbox.worker_link import Worker, WorkerGoneError

pytestmark = pytest.mark.usefixtures("bubblewrap")

SMALL = SandboxLimits(
    timeout=9.0,
    cpu_seconds=1.0,
    memory_bytes=64 << 20,
    processes=8,
    file_bytes=1 << 20,
    disk_bytes=2 << 20,
    files=50,
    output_bytes=50_000,
    result_bytes=500_000,
    host_calls=20,
)

# What code does that speaks with the host by itself.
FORGE = """
import fcntl, json, os, stat, time
from gossamer.sandbox.inside.frames import HEAD, pack
channel = next(
    number for number in range(3, 256)
    if stat.S_ISFIFO(os.fstat(number).st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
)

def send(data):
    while data:
        data = data[os.write(channel, data):]

def tell(text, blob=b""):
    send(HEAD.pack(len(text), len(blob)) + text + blob)
"""


@pytest.fixture
async def sandbox():
    async with BubblewrapSandbox(limits=SMALL, size=3, warm=1) as sandbox:
        yield sandbox


@pytest.fixture
async def session(sandbox):
    async with sandbox.session() as session:
        yield session


# --- what it tells ----------------------------------------------------------------------------------------------------


async def test_an_answer_of_very_many_parts_costs_no_more_than_its_bytes():
    """Each part was cut off the rest, which was copied every time: seconds for two megabytes."""
    parts = 'b",".join([b"1"] * 20_000)'
    code = FORGE + f'tell(b\'{{"is":"done","blobs":[%s,2000000]}}\' % {parts}, bytes(2_020_000))'
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        assert (await sandbox.run(code)).value is None


@pytest.mark.parametrize("value", ["{}", "[]", '""', "1" * 4000])
async def test_an_answer_of_too_many_values_is_refused_before_it_is_decoded(value):
    """A megabyte of them was tens of megabytes here, and the event loop stood still for them."""
    code = f'{FORGE}tell(b\'{{"is":"done","value":[%s1]}}\' % (b\'{value},\' * {1_500_000 // (len(value) + 1)}))\ntime.sleep(9)'
    async with BubblewrapSandbox(limits=SandboxLimits(timeout=3.0), size=1, warm=0) as sandbox:
        with pytest.raises(SandboxCrashedError, match="nonsense"):
            await sandbox.run(code)


async def test_a_value_of_too_many_parts_comes_back_as_text_alone_and_long_text_as_it_is():
    async with BubblewrapSandbox(size=1, warm=0) as sandbox, sandbox.session() as session:
        made = await session.run("[[]] * 300_000")
        assert (made.value, made.shown[:4]) == (None, "[[],")
        text = '",[\\"' * 300_000
        assert (await session.run(f"{text[:5]!r} * 300_000")).value == text


async def test_value_images_and_files_together_keep_to_result_bytes(sandbox):
    code = "open('large', 'wb').write(bytes(300_000))\n'x' * 300_000"
    with pytest.raises(SandboxOutputError):
        await sandbox.run(code, outputs=["large"])
    forged = FORGE + 'tell(b\'{"is":"done","shown":"%s"}\' % (b\'x\' * 1_600_000))\ntime.sleep(9)'
    with pytest.raises(SandboxOutputError):
        await sandbox.run(forged)


async def test_what_code_gives_to_functions_of_the_host_keeps_to_result_bytes(sandbox):
    """Each call could have as much, and the host has to read it all."""
    given = []
    with pytest.raises(SandboxOutputError):
        await sandbox.run(
            "while True:\n    await f('x' * 200_000)", functions={"f": lambda text: given.append(len(text))}
        )
    assert given == [200_000, 200_000]


async def test_what_an_error_tells_is_bounded(sandbox):
    code = (
        FORGE
        + "tell(json.dumps({'is': 'done', 'error': dict.fromkeys(('kind', 'message', 'traceback'), 'x' * 300_000)}).encode())"
    )
    with pytest.raises(CodeError) as told:
        await sandbox.run(code)
    assert len(told.value.kind) + len(str(told.value)) + len(told.value.traceback) < 60_000


async def test_an_image_that_is_none_is_left_out(sandbox):
    code = (
        FORGE + 'tell(b\'{"is":"done","images":2,"blobs":[5,9]}\', b\'hello\' + b\'\\x89PNG\\r\\n\\x1a\\n!\')'
    )
    assert [image.data for image in (await sandbox.run(code)).images] == [b"\x89PNG\r\n\x1a\n!"]


# --- waiting for it ---------------------------------------------------------------------------------------------------

CALL = FORGE + 'send(pack({"is": "calls", "calls": [{"name": "f", "args": [], "kwargs": {}}]}))\n'


@pytest.mark.parametrize("then", ["time.sleep(60)", "os.closerange(3, 256)\ntime.sleep(60)"])
async def test_a_worker_that_does_not_take_its_answers_is_not_waited_for(sandbox, then):
    """The clock stood still until they were taken, so for ever."""

    async def answer():
        await asyncio.sleep(0.1)
        return "x" * 4_000_000

    with pytest.raises(SandboxError):
        await asyncio.wait_for(sandbox.run(CALL + then, functions={"f": answer}, timeout=0.5), 9)


async def test_its_time_is_that_of_a_run_with_its_files(sandbox):
    """Each question had the whole time: code that stays at work, as here by a thread, had three times as much."""
    code = FORGE + (
        "def answer():\n"
        "    while True:\n"
        "        time.sleep(0.2)\n"
        '        tell(b\'{"is":"done","listed":[["a",1]]}\')\n'
        "import threading\nthreading.Thread(target=answer, daemon=True).start()\ntime.sleep(60)"
    )
    with pytest.raises(SandboxTimeoutError) as told:
        await sandbox.run(code, outputs=["a"], timeout=0.5)
    assert told.value.allowed == 0.5


@pytest.mark.parametrize("number", [40, 63])
async def test_a_signal_that_has_no_name_is_told_by_its_number(sandbox, number):
    with pytest.raises(SandboxError, match=f"signal {number}"):
        await sandbox.run(f"import os\nos.kill(os.getpid(), {number})\nimport time\ntime.sleep(9)")


@pytest.mark.parametrize("network", [(), ("example.com",)])
async def test_no_file_can_be_passed_to_the_host(network):
    """A connection that lingers was closed by the host, which waited for as long as it said."""
    code = """
import os, socket, stat
passed = []
for number in range(256):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            passed.append(number)
    except OSError:
        pass
passed
"""
    async with BubblewrapSandbox(network=network, size=1, warm=0) as sandbox:
        assert (await sandbox.run(code)).value == []


async def test_children_of_children_close_what_the_host_speaks_through_once(session):
    code = """
import os, time
if not os.fork():
    taken = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    child = os.fork()
    if not child:
        os._exit(sum(os.get_blocking(one) for one in taken))
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.waitstatus_to_exitcode(os.wait()[1])
"""
    made = await session.run(code)
    assert (made.value, made.stderr) == (2, "")


# --- between runs -----------------------------------------------------------------------------------------------------


# Each process starts another one and ends, which is faster than looking for them.
FLEE = """
def begin():
    try:
        return not os.fork()
    except OSError:  # there are as many as may be
        return False
for _ in range(3):
    if begin():
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError: pass
    time.sleep(0.05)
"""
# One wakes the interpreter whenever it is stopped.
WAKE = """
interpreter = os.getpid()
if not os.fork():
    while True: os.kill(interpreter, signal.SIGCONT)
"""


@pytest.mark.parametrize("left", [FLEE, WAKE])
async def test_nothing_goes_on_between_runs(sandbox, left):
    before = "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    async with sandbox.session() as session:
        with suppress(SandboxProcessError, SandboxMemoryError):  # as many as may be, or their memory
            await session.run(before + left + "time.sleep(0.1)")
        if not session.closed:
            async with asyncio.timeout(5):
                while _states(session) != ["T"]:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert _states(session) == ["T"]


def _states(session):
    """Give the states of the processes of a session beside its process 1, those of dead ones left out."""
    found = []
    for pid in descendants(session._worker._pid):
        with suppress(OSError):
            found += Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    return [state for state in found if state not in {"Z", "X"}]


async def test_a_host_with_many_files_open_can_have_sandboxes():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 1500), hard), hard))
    held = []
    try:
        held += [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
        async with BubblewrapSandbox(size=1, warm=1) as sandbox:
            async with asyncio.timeout(9):
                while not sandbox._pools.here()._idle:
                    await asyncio.sleep(0.01)
            assert (await sandbox.run("1 + 1")).value == 2
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- what it uses, where there are no control groups ------------------------------------------------------------------


@pytest.fixture
async def ungrouped(monkeypatch):
    monkeypatch.setattr("gossamer.sandbox.worker_pool.find_cgroups", lambda: "not in this test")
    async with BubblewrapSandbox(limits=SMALL, size=3, warm=1) as sandbox:
        yield sandbox


async def test_memory_of_a_process_whose_first_thread_has_ended_counts(ungrouped):
    code = """
import ctypes, os, threading, time
def hold():
    time.sleep(0.1)
    held = b"x" * (40 << 20)
    time.sleep(60)
for _ in range(3):
    if not os.fork():
        threading.Thread(target=hold).start()
        ctypes.CDLL(None).pthread_exit(None)
time.sleep(60)
"""
    with pytest.raises(SandboxMemoryError):
        await ungrouped.run(code)


async def test_what_the_kernel_holds_in_sockets_that_are_closed_counts(ungrouped):
    code = """
import socket, time
with socket.socket(socket.AF_UNIX) as server:
    server.bind("s")
    server.listen(4096)
    for _ in range(900):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("s")
            client.setblocking(False)
            client.send(b"x")
    time.sleep(60)
"""
    with pytest.raises(SandboxMemoryError):
        await ungrouped.run(code)


async def test_what_the_kernel_holds_for_connections_is_little_and_counts():
    """Three megabytes each, out of what all connections of the machine share."""
    code = """
import socket, time
def pair():
    client = socket.socket()
    client.connect(server.getsockname())
    return client, server.accept()[0]
def fill(one):
    one.setblocking(False)
    sent, refused = 0, 0
    while refused < 50:
        try:
            sent += one.send(bytes(65536))
        except BlockingIOError:
            refused += 1
            time.sleep(0.001)
    return sent
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen(200)
held = pair()
fill(held[0])
"""
    async with BubblewrapSandbox(network=["example.com"], limits=SMALL, size=1, warm=0) as sandbox:
        async with sandbox.session() as session:
            assert (await session.run(code)).value < 1_000_000
        with pytest.raises(SandboxMemoryError):
            await sandbox.run(code + "more = [pair() for _ in range(100)]\ntime.sleep(9)")


async def test_processor_time_of_processes_that_nobody_waits_for_counts(monkeypatch):
    monkeypatch.setattr("gossamer.sandbox.worker_pool.find_cgroups", lambda: "not in this test")
    code = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(12):
    if not (child := os.fork()):
        while time.process_time() < 0.2: pass
        os._exit(0)
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass
"""
    limits = SandboxLimits(timeout=30.0, cpu_seconds=0.5)
    async with BubblewrapSandbox(limits=limits, size=1, warm=0) as sandbox:
        with pytest.raises(SandboxCpuError):
            await sandbox.run(code)


async def test_weighing_much_memory_that_processes_share_holds_nobody_up(monkeypatch):
    """The walk through their pages took most of the event loop's time."""
    monkeypatch.setattr("gossamer.sandbox.worker_pool.find_cgroups", lambda: "not in this test")
    on_loop, weigh = [], usage.has_more
    monkeypatch.setattr(usage, "has_more", lambda *args: on_loop.append(_on_a_loop()) or weigh(*args))
    code = """
import os, time
held = bytearray(b"x" * (20 << 20))
for _ in range(6):
    if not os.fork(): time.sleep(60)
time.sleep(0.5)
"""
    async with BubblewrapSandbox(limits=SMALL, size=1, warm=0) as sandbox:
        await sandbox.run(code)
    assert on_loop
    assert not any(on_loop)


def _on_a_loop():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def test_a_session_is_the_first_to_go_when_memory_is_short(sandbox):
    async with sandbox.session() as session:
        await session.run("1")
        for pid in (session._worker._pid, *descendants(session._worker._pid)):
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


async def test_a_worker_that_its_control_group_does_not_take_is_not_used(monkeypatch):
    class Full:
        def make(self, *_):
            return self

        def add(self, pid):
            return False

        def memory_exceeded(self):
            return False

        def remove(self):
            removed.append(1)

    removed = []
    monkeypatch.setattr("gossamer.sandbox.worker_pool.find_cgroups", Full)
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        with pytest.raises(SandboxCrashedError, match="control group"):
            await sandbox.run("1 + 1")
    assert removed


# --- opening and closing ----------------------------------------------------------------------------------------------


@pytest.fixture
async def nothing_left():
    before = _boxes(), len(_open_files())
    yield
    async with asyncio.timeout(5):
        while _boxes() - before[0] or len(_open_files()) > before[1]:
            gc.collect()
            await asyncio.sleep(0.01)


def _boxes():
    """Give the processes below this one, and those of bubblewrap that nobody waits for."""
    found = set(descendants(os.getpid()))
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            if place.name.isdigit() and (place / "comm").read_text() == "bwrap\n":
                status = (place / "status").read_text()
                if "\nPPid:\t1\n" in status and "\nState:\tZ" not in status:
                    found.add(int(place.name))
    return found


def _open_files():
    return {int(one.name) for one in Path("/proc/self/fd").iterdir()}


@pytest.mark.usefixtures("nothing_left")
async def test_a_box_whose_opening_is_cancelled_while_it_is_started_is_ended(monkeypatch):
    """It ran on, and files that it was to have were closed while a thread handed them over."""
    started, go_on = threading.Event(), threading.Event()

    def start(command, files, complaints):
        started.set()
        go_on.wait()
        found.append({*files, complaints} <= _open_files())
        return original(command, files, complaints)

    found = []
    original = box._start
    monkeypatch.setattr(box, "_start", start)
    sandbox = BubblewrapSandbox(size=1, warm=0)
    run = asyncio.create_task(sandbox.run("1"))
    await asyncio.to_thread(started.wait)
    for _ in range(3):
        run.cancel()
        await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert found == [True]
    await sandbox.aclose()


@pytest.mark.usefixtures("nothing_left")
async def test_a_box_that_is_ended_while_it_begins_leaves_nothing():
    """Bubblewrap makes a child and lets it begin a moment later; ended in between, the child waited for ever."""
    for wait in range(12):
        sandbox = BubblewrapSandbox(size=1, warm=0)
        run = asyncio.create_task(sandbox.run("1"))
        while not descendants(os.getpid()):
            await asyncio.sleep(0)
        await asyncio.sleep(wait / 2000)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await sandbox.aclose()


@pytest.mark.usefixtures("nothing_left")
async def test_a_sandbox_whose_closing_is_cancelled_ends_all_the_same():
    sandbox = BubblewrapSandbox(size=2, warm=2)
    session = sandbox.session()
    await session.run("1")
    worker = session._worker
    assert worker is not None
    closing = asyncio.create_task(sandbox.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with asyncio.timeout(5):
        await asyncio.shield(worker.dead)


@pytest.mark.usefixtures("nothing_left")
async def test_where_processes_cannot_be_watched_it_says_so(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(SandboxUnavailableError, match="Operation not permitted"):
        await BubblewrapSandbox(size=1, warm=0).run("1")


@pytest.mark.usefixtures("nothing_left")
async def test_where_the_kernel_does_not_tell_children_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(process_tree, "_PROC", str(tmp_path))
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        with pytest.raises(SandboxUnavailableError, match="CONFIG_PROC_CHILDREN"):
            await sandbox.run("1")


@pytest.mark.usefixtures("nothing_left")
async def test_where_files_run_out_it_says_so_and_goes_on_once_there_are_some():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        await sandbox.run("1")
        highest, held, outcomes = max(_open_files()), [], set()
        try:
            while not held or held[-1] <= highest:  # so that no number below is free
                held.append(os.open("/dev/null", os.O_RDONLY))
            for more in range(0, 24, 2):
                resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + more, hard))
                try:
                    outcomes.add((await sandbox.run("1 + 1")).value)
                except SandboxError as error:
                    outcomes.add("Too many open files" in str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                os.close(one)
        assert outcomes == {True, 2}
        assert (await sandbox.run("1 + 1")).value == 2


async def test_a_box_that_has_too_much_to_do_is_not_ended_with_its_sessions(sandbox, monkeypatch):
    """A burst of some three hundred sessions filled its socket, and every session was lost."""

    def fork(self, files):
        monkeypatch.setattr(box.Box, "fork", original)
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    original = box.Box.fork
    async with sandbox.session() as session:
        await session.run("x = 5")
        sandbox._pools.here()._idle.clear()
        monkeypatch.setattr(box.Box, "fork", fork)
        assert (await sandbox.run("1 + 1")).value == 2
        assert box.Box.fork is original
        assert (await session.run("x")).value == 5


async def test_a_session_that_begins_while_the_box_dies_is_given_another_box(monkeypatch):
    """It tried as often as it may while the box was still on its way out, and gave up."""

    async def start(box, limits, group):
        tried.append(box)
        if len(tried) < 4 and box is tried[0]:
            if len(tried) == 1:
                asyncio.get_running_loop().call_later(0.1, box.kill)
            raise WorkerGoneError("it ended before it began")
        return await original(box, limits, group)

    tried, original = [], Worker.start
    monkeypatch.setattr(Worker, "start", start)
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        assert (await sandbox.run("1 + 1")).value == 2
    assert tried[-1] is not tried[0]


async def test_a_worker_may_be_born_before_the_host_goes_on(monkeypatch):
    """Its number was asked for a moment after it could have told it, which on a busy machine was too late."""

    def fork(box):
        parts = original(box)
        poll = select.poll()
        poll.register(parts.status, select.POLLIN)
        forked.append(poll.poll(5000))
        return parts

    forked, original = [], worker_link._fork
    monkeypatch.setattr(worker_link, "_fork", fork)
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        assert (await sandbox.run("1 + 1")).value == 2
    assert len(forked) == 1
    assert forked[0]


async def test_no_control_group_is_left_behind(monkeypatch):
    class Groups:
        def make(self, *_):
            made.append(1)
            return self

        def add(self, pid):
            return True

        def cpu_seconds(self):
            return None

        def memory_exceeded(self):
            return False

        def remove(self):
            removed.append(1)

    made, removed = [], []
    monkeypatch.setattr("gossamer.sandbox.worker_pool.find_cgroups", Groups)
    async with BubblewrapSandbox(size=1, warm=0) as sandbox:
        await sandbox.run("1")
        opened = sandbox._pools.here().box
        assert opened is not None
        os.kill(descendants(opened.pid)[0], signal.SIGKILL)
        assert (await sandbox.run("1 + 1")).value == 2
        run = asyncio.create_task(sandbox.run("1"))
        while len(made) < 4:
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    async with asyncio.timeout(5):
        while len(removed) < len(made):
            await asyncio.sleep(0.01)


# --- what is there ----------------------------------------------------------------------------------------------------


async def test_devices_of_the_host_are_used_and_not_changed(session):
    code = """
import os
changed = []
for name in os.listdir("/dev"):
    if not os.path.islink(f"/dev/{name}") and name != "shm":
        for change in (os.utime, lambda path: os.chmod(path, 0o666), lambda path: os.setxattr(path, "user.x", b"x")):
            try:
                change(f"/dev/{name}")
                changed.append(name)
            except OSError:
                pass
with open("/dev/null", "w") as null:
    null.write("x")
changed
"""
    assert (await session.run(code)).value == []


async def test_the_few_files_in_etc_can_be_read_whoever_has_started_it(session):
    """Run by root, the folder was root's alone: no name of a user, no time zone, and libraries by their folders only."""
    assert (await session.run("import getpass, pwd\npwd.getpwuid(1000).pw_name")).value == "sandbox"
    assert (await session.run("import os\nos.path.exists('/etc/passwd')")).value is True


def test_what_the_host_ignores_ends_a_program_in_the_box():
    code = (
        "import asyncio, signal\nfrom gossamer.sandbox import BubblewrapSandbox\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])\n"
        "ended = 'import os, signal\\nos.kill(os.getpid(), signal.{})\\nimport time\\ntime.sleep(5)'\n"
        "async def main():\n"
        "    async with BubblewrapSandbox(warm=0) as sandbox:\n"
        "        for name in ('SIGTERM', 'SIGHUP'):\n"
        "            try: await sandbox.run(ended.format(name))\n"
        "            except Exception as error: print(name in str(error))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")
