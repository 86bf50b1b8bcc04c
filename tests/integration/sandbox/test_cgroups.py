"""Limits for processes together, by the kernel where this machine has them; version 2's by files that look like its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

import gossamer.sandbox.cgroups as module
from gossamer.sandbox.cgroups import Cgroup, Cgroups, find_cgroups

MOUNTED = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpuacct")
VERSION_1 = os.geteuid() == 0 and all(
    (MOUNTED / one / "cgroup.clone_children").exists() for one in CONTROLLERS
)
VERSION_2 = next(
    (one for one in (MOUNTED, MOUNTED / "unified") if (one / "cgroup.controllers").exists()), None
)

needs_version_1 = pytest.mark.skipif(not VERSION_1, reason="needs root and cgroups of version 1")
needs_version_2 = pytest.mark.skipif(
    os.geteuid() != 0 or VERSION_2 is None, reason="needs root and cgroups of version 2"
)

# Runs in a cgroup of the test's own; everything is made below that one.
PRELUDE = """
import json, os, pathlib, signal, subprocess, sys, time
for place in json.loads(sys.argv[1]):
    (pathlib.Path(place) / "cgroup.procs").write_text(str(os.getpid()))
from gossamer.sandbox.cgroups import find_cgroups

def begin(cgroup, code):
    "Start Python in a cgroup; it begins with the code when it is in it."
    child = subprocess.Popen([sys.executable, "-c", "input()\\n" + code], stdin=-1, stdout=-1, text=True)
    assert cgroup.add(child.pid)
    child.stdin.write("go\\n")
    child.stdin.flush()
    return child

def left():
    return sorted(one.name for place in json.loads(sys.argv[1]) for one in pathlib.Path(place).glob("gossamer-*"))

MIB = 1024 * 1024
cgroups = find_cgroups()
"""


class Place:
    """A cgroup of the test's own in each hierarchy, in which Python runs."""

    def __init__(self) -> None:
        self.folders = [MOUNTED / one / f"tests-of-gossamer-{os.getpid()}" for one in CONTROLLERS]

    def start(self, code):
        return subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, json.dumps([str(one) for one in self.folders])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code):
        """Run code and give what it says in the end as JSON."""
        out, _ = self.start(code).communicate(timeout=60)
        return json.loads(out)

    def left(self):
        return sorted(one.name for folder in self.folders for one in folder.glob("gossamer-*"))


@pytest.fixture
def place():
    made = Place()
    for folder in made.folders:
        folder.mkdir()
    yield made
    for folder in made.folders:
        for one in [*folder.glob("gossamer-*"), folder]:
            one.rmdir()


@needs_version_1
def test_memory_ends_at_its_limit(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
before = cgroup.memory_exceeded()
small = begin(cgroup, "bytearray(8 * 1024 * 1024)")
small = [small.wait(), cgroup.memory_exceeded()]
large = begin(cgroup, "bytearray(256 * 1024 * 1024)")
print(json.dumps([before, *small, large.wait(), cgroup.memory_exceeded(), cgroup.remove()]))
"""
    assert place.run(code) == [False, 0, False, -signal.SIGKILL, True, True]


@needs_version_1
def test_memory_of_several_processes_and_of_files_in_it_counts_together(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
hold = "block = bytearray(24 * 1024 * 1024); print('held', flush=True); input()"
one, other = begin(cgroup, hold), begin(cgroup, hold)
one.stdout.readline(), other.stdout.readline()
before = cgroup.memory_exceeded()
files = begin(cgroup, '''
import os
held = [os.memfd_create(str(n)) for n in range(4)]
for file in held:
    os.write(file, bytes(16 * 1024 * 1024))
''')
ended = files.wait()
after = cgroup.memory_exceeded()
for process in (one, other):
    process.kill(), process.wait()
print(json.dumps([before, after, cgroup.remove()]))
"""
    assert place.run(code) == [False, True, True]


@needs_version_1
def test_what_is_swapped_out_counts_as_memory(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
folder = cgroup.folders["memory"]
limits = [int((folder / name).read_text()) for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")]
print(json.dumps([limits, cgroup.remove()]))
"""
    assert place.run(code) == [[64 * 1024 * 1024] * 2, True]


BOMBS = {
    "processes": "os.fork() or signal.pause()",
    "threads": "threading.Thread(target=signal.pause, daemon=True).start()",
}


@needs_version_1
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_stops_at_the_number_of_processes(place, bomb) -> None:
    code = f"""
cgroup = cgroups.make(256 * MIB, 12)
bomb = begin(cgroup, '''
import os, signal, threading
made = 1
while True:
    try:
        {bomb}
    except (OSError, RuntimeError):
        print(made, flush=True)
        signal.pause()
    made += 1
''')
made = int(bomb.stdout.readline())
members = (cgroup.folders["pids"] / "tasks").read_text().split()
still_there = cgroup.remove()
for pid in (cgroup.folders["pids"] / "cgroup.procs").read_text().split():
    os.kill(int(pid), signal.SIGKILL)
bomb.wait()
while not cgroup.remove():
    pass
print(json.dumps([made, len(members), still_there, left()]))
"""
    assert place.run(code) == [12, 12, False, []]


@needs_version_1
def test_processor_time_of_all_that_ran_is_counted(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
before = cgroup.cpu_seconds()
begin(cgroup, '''
import os, time
start = time.process_time()
os.fork()
while time.process_time() < start + 0.2:
    pass
''').wait()
while (cgroup.folders["pids"] / "cgroup.procs").read_text():
    pass
print(json.dumps([before, cgroup.cpu_seconds(), cgroup.remove(), cgroup.cpu_seconds()]))
"""
    before, after, removed, gone = place.run(code)
    assert before == 0
    assert after >= 0.4
    assert removed
    assert gone == 0


@needs_version_1
def test_what_a_dead_process_left_is_taken_away_and_what_a_living_one_has_is_not(place) -> None:
    leave = (
        "kept = [cgroups.make(64 * MIB, 8) for _ in range(2)]; print(json.dumps(left()), flush=True); input()"
    )
    with place.start(leave) as dead, place.start(leave) as living:
        assert json.loads(dead.stdout.readline())
        assert json.loads(living.stdout.readline())
        of_both = place.left()
        of_living = [name for name in of_both if f"-{living.pid}-" in name]
        assert len(of_both) == 2 * len(of_living) == 12
        dead.kill()
        dead.wait()
        assert place.run("print(json.dumps(left()))") == of_living
        living.communicate("\n", timeout=60)
    assert place.run("print(json.dumps([left(), cgroups.missing, cgroups.version]))") == [[], [], 1]


@needs_version_1
def test_what_is_gone_raises_nothing(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
child = begin(cgroup, "pass")
child.wait()
nobody = [cgroup.add(child.pid), cgroup.add(0), cgroup.add(-1), cgroup.add(2**31)]
print(json.dumps([nobody, cgroup.kill(), cgroup.remove(), cgroup.remove(), cgroup.add(os.getpid()), cgroup.memory_exceeded()]))
"""
    assert place.run(code) == [[False] * 4, False, True, True, False, False]


@needs_version_1
def test_who_may_not_is_told_why(place) -> None:
    code = """
cgroup = cgroups.make(64 * MIB, 8)
cgroup.remove()
os.setresuid(65534, 65534, 65534)
print(json.dumps([find_cgroups(), cgroups.make(64 * MIB, 8) is None, left()]))
"""
    why, none, left = place.run(code)
    assert why.startswith("no cgroups can be made in /sys/fs/cgroup/memory/tests-of-gossamer-")
    assert "Permission denied; run as root" in why
    assert none is True
    assert left == []


def gone(cgroup):
    """Take a cgroup away, whose processes are dead or about to be."""
    deadline = monotonic() + 10
    while not (removed := cgroup.remove()) and monotonic() < deadline:
        pass
    return removed


# --- version 2 ------------------------------------------------------------------------------------------------------


@needs_version_2
def test_version_2_adds_counts_ends_and_is_taken_away() -> None:
    folder = VERSION_2 / f"tests-of-gossamer-{os.getpid()}"
    folder.mkdir()
    cgroup = Cgroup(2, dict.fromkeys(CONTROLLERS, folder))
    burn = """
import os, time
start = time.process_time()
os.fork()
while time.process_time() < start + 0.1:
    pass
print("burnt", flush=True)
input()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", "input()\n" + burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert cgroup.add(child.pid)
        child.stdin.write(b"go\n")
        child.stdin.flush()
        assert child.stdout.readline() + child.stdout.readline() == b"burnt\nburnt\n"
        assert cgroup.cpu_seconds() >= 0.2
        assert not cgroup.remove()
        assert cgroup.kill()
        assert child.wait() == -signal.SIGKILL
        assert child.stdout.read() == b""  # the other one is gone too
        child.stdin.close()
        child.stdout.close()
        assert not cgroup.memory_exceeded()
    finally:
        cgroup.kill()
        child.wait()
        assert gone(cgroup)
    assert not folder.exists()
    assert not cgroup.kill()


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """Files that look like those of version 2: a service below a slice, both this user's."""
    monkeypatch.setattr(module, "_PROC", tmp_path / "proc")
    # Folders of real cgroups go with the files in them.
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").write_text("")
    tree = tmp_path / "a tree"
    (tree / "app.slice/gossamer.service").mkdir(parents=True)

    def pretend(*, mounted="cgroup2 cgroup2 rw", root="/", own="0::/app.slice/gossamer.service", **files):
        # mountinfo writes a space as octal digits.
        at = str(tree).replace(" ", "\\040")
        (tmp_path / "proc/self/mountinfo").write_text(
            f"24 1 0:22 / /proc rw - proc proc rw\n41 31 0:38 {root} {at} rw,relatime shared:9 - {mounted}\n"
        )
        (tmp_path / "proc/self/cgroup").write_text(f"{own}\n")
        for folder in (tree, tree / "app.slice", tree / "app.slice/gossamer.service"):
            (folder / "cgroup.controllers").write_text("cpu memory pids\n")
            (folder / "cgroup.subtree_control").write_text("cpu memory pids\n")
            (folder / "cgroup.procs").write_text("")
        return tree

    return pretend


class Busy:
    """Lets writes to a file fail as the kernel lets them fail where processes are in a cgroup."""

    def __init__(self, monkeypatch, file) -> None:
        write = Path.write_text

        def write_text(self, text):
            if self == file:
                raise OSError(16, "Device or resource busy", str(file))
            return write(self, text)

        monkeypatch.setattr(Path, "write_text", write_text)


def test_version_2_limits_memory_without_swap_and_processes(pretended, monkeypatch) -> None:
    tree = pretended()
    found = find_cgroups()
    assert isinstance(found, Cgroups)
    assert (found.version, found.missing) == (2, ())
    assert found.parents == dict.fromkeys(CONTROLLERS, tree / "app.slice/gossamer.service")
    mkdir = Path.mkdir

    def mkdir_of_kernel(self):
        mkdir(self)
        (self / "memory.swap.max").write_text("max\n")

    monkeypatch.setattr(Path, "mkdir", mkdir_of_kernel)
    made = found.make(64 * 1024 * 1024, 12)
    folder = made.folders["memory"]
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": "67108864\n",
        "memory.swap.max": "0\n",
        "pids.max": "12\n",
    }
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 0\noom_group_kill 0\n")
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    assert (made.memory_exceeded(), made.cpu_seconds(), made.kill()) == (False, 1.5, False)
    (folder / "memory.events").write_text("max 9\noom 2\noom_kill 1\n")
    assert made.memory_exceeded()
    assert made.remove()


def test_version_2_is_asked_one_higher_where_processes_are_in_the_way(pretended, monkeypatch) -> None:
    tree = pretended()
    service = tree / "app.slice/gossamer.service"
    (service / "cgroup.subtree_control").write_text("\n")
    (tree / "app.slice/cgroup.subtree_control").write_text("cpu\n")
    Busy(monkeypatch, service / "cgroup.subtree_control")
    found = find_cgroups()
    assert isinstance(found, Cgroups)
    assert found.parents["memory"] == tree / "app.slice"
    assert (tree / "app.slice/cgroup.subtree_control").read_text() == "+memory +pids\n"


def test_version_2_is_not_asked_above_what_is_mounted(pretended, monkeypatch) -> None:
    tree = pretended(root="/app.slice/gossamer.service")
    (tree / "cgroup.subtree_control").write_text("\n")
    Busy(monkeypatch, tree / "cgroup.subtree_control")
    assert find_cgroups() == (
        f"no cgroups with limits can be made: {tree} hands out no limits: Device or resource busy; "
        "start it with systemd-run --user --scope, or as root"
    )


def test_version_2_without_controllers_is_said(pretended) -> None:
    tree = pretended(own="0::/")
    (tree / "cgroup.controllers").write_text("cpu io\n")
    found = find_cgroups()
    assert isinstance(found, str)
    assert "hands out limits of memory and of processes" in found


def test_swap_that_nobody_counts_is_said(pretended, tmp_path) -> None:
    pretended()
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    found = find_cgroups()
    assert isinstance(found, Cgroups)
    assert found.missing == (
        "memory that is swapped out is not counted; boot with swapaccount=1, or swapoff -a",
    )


@pytest.mark.parametrize(
    ("mounted", "says"),
    [
        ("tmpfs tmpfs rw", "no cgroups are mounted that limit memory"),
        ("cgroup cgroup rw,name=systemd", "no cgroups are mounted that limit memory"),
        ("cgroup cgroup rw,memory", "the pids controller of cgroups is not mounted"),
    ],
)
def test_what_is_not_mounted_is_said(pretended, mounted, says) -> None:
    pretended(mounted=mounted, own="4:memory:/")
    found = find_cgroups()
    assert isinstance(found, str)
    assert says in found


def test_version_1_without_time_counts_none(pretended) -> None:
    pretended(
        mounted="cgroup cgroup rw,memory,pids", own="4:memory,pids:/app.slice/../gone\n5:cpuacct:/elsewhere"
    )
    found = find_cgroups()
    assert isinstance(found, Cgroups)
    assert found.missing == ("processor time is not counted: the cpuacct controller is not there; mount it",)
    made = found.make(64 * 1024 * 1024, 12)
    assert made.cpu_seconds() is None
    assert made.remove()


def test_without_proc_nothing_is_guessed(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(module, "_PROC", tmp_path)
    found = find_cgroups()
    assert isinstance(found, str)
    assert found.startswith("/proc cannot be read")
