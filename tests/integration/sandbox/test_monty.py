"""MontySandbox: what runs in it, what comes back, what stays, and what ends it."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from gossamer import disable_metrics, enable_metrics
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
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from gossamer.sandbox import (
    Execution,
    HostAnswer,
    HostCall,
    MontySandbox,
    MontySession,
    Sandbox,
    SandboxFile,
    SandboxLimits,
    SandboxSession,
)
from gossamer.sandbox.process_tree import descendants

SMALL = SandboxLimits(
    timeout=10.0,
    cpu_seconds=5.0,
    memory_bytes=64 << 20,
    file_bytes=1 << 20,
    disk_bytes=2 << 20,
    files=20,
    output_bytes=50_000,
    result_bytes=500_000,
    host_calls=20,
)

QUICK = msgspec.structs.replace(SMALL, cpu_seconds=0.2)


def workers() -> set[int]:
    return {pid for pid in descendants(os.getpid()) if _name(pid) == "monty"}


def _name(pid: int) -> str:
    try:
        folder = Path(f"/proc/{pid}")
        return "" if ") Z " in (folder / "stat").read_text() else (folder / "comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
async def sandbox() -> AsyncIterator[MontySandbox]:
    async with MontySandbox(limits=SMALL, size=3) as sandbox:
        yield sandbox
    await until(lambda: not workers())


@pytest.fixture
async def session(sandbox: MontySandbox) -> AsyncIterator[MontySession]:
    async with sandbox.session() as session:
        yield session


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


# --- what comes of a run ----------------------------------------------------------------------------------------------


async def test_the_last_expression_and_what_was_written_come_back(sandbox: MontySandbox) -> None:
    made = await sandbox.run("import sys\nprint('out', 'ä')\nprint('err', file=sys.stderr)\nx = 20\nx + 1")
    assert (made.value, made.shown, made.stdout, made.stderr) == (21, "21", "out ä\n", "err\n")
    assert (made.images, made.files) == ((), {})
    assert made.seconds > 0


def test_it_is_a_sandbox_like_any_other() -> None:
    sandbox: Sandbox = MontySandbox()
    session: SandboxSession = sandbox.session()
    assert (sandbox.name, session.closed) == ("monty", False)
    assert sandbox.limits == SandboxLimits()


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [
        ("(1, [2.5, None, True], {'a': b'\\xff'})", [1, [2.5, None, True], {"a": b"\xff"}], "(1, [2.5, None, True], {'a': b'\\xff'})"),
        ("(1,)", [1], "(1,)"),
        ("float('inf')", float("inf"), "inf"),
        ("2**200", 2**200, str(2**200)),
        ("{1: 2}", None, "{1: 2}"),
        ("{3}", None, "{3}"),
        ("[set(), frozenset([1])]", None, "[set(), frozenset({1})]"),
        ("1j", None, "1j"),
        ("import datetime\ndatetime.date(2020, 1, 2)", None, "datetime.date(2020, 1, 2)"),
        ("from pathlib import Path\nPath('a') / 'b'", None, "PurePosixPath('a/b')"),
        ("class A:\n  def __init__(self): self.x = 1\n[A()]", None, "[<A object>]"),
        ("from collections import namedtuple\nnamedtuple('P', 'x y')(1, (2,))", None, "P(1, (2,))"),
        ("1 << 20_000", None, "<int of 20,001 bits>"),
        ("x = 1", None, ""),
        ("None", None, ""),
        ("", None, ""),
        ("# nothing", None, ""),
    ],
)  # fmt: skip
async def test_plain_data_comes_back_as_it_is_and_the_rest_as_text(
    session: MontySession, code: str, value: object, shown: str
) -> None:
    made = await session.run(code)
    assert (made.value, made.shown) == (value, shown)


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("x = []\nfor i in range(100_000): x = [x]\nx", "[" * 100 + "…" + "]" * 100),
        ("x = ()\nfor i in range(100_000): x = (x,)\nx", "(" * 100 + "…" + ",)" * 100),
        ("x = {}\nfor i in range(100_000): x = {'a': x}\nx", "{'a': " * 100 + "…" + "}" * 100),
        ("x = []\nx.append(x)\nx", "['[...]']"),
    ],
)
async def test_values_without_a_bottom_harm_nobody(session: MontySession, code: str, shown: str) -> None:
    assert (await session.run(code)).shown == shown


async def test_a_value_that_unfolds_without_end_is_too_large(session: MontySession) -> None:
    with pytest.raises(SandboxOutputError, match="500,000 bytes") as raised:
        await session.run("print('so far')\nx = [0]\nfor i in range(60): x = [x, x]\nx")
    assert (raised.value.limit, raised.value.stdout) == ("result_bytes", "so far\n")
    made = await session.run("({1: x},)")  # no plain data, so that it is shown alone
    assert made.value is None
    assert len(made.shown) < 110_000
    assert made.shown.endswith(" …")


async def test_variables_files_and_functions_stay_in_a_session_and_nowhere_else(
    sandbox: MontySandbox,
) -> None:
    async with sandbox.session() as one, sandbox.session() as other:
        await one.run("def f(n): return n * 2\nx = 4\nopen('kept.txt', 'w').write('kept')")
        assert (await one.run("f(x)")).value == 8
        assert (await one.run("open('kept.txt').read()")).value == "kept"
        with pytest.raises(CodeError, match="NameError"):
            await other.run("x")
        assert (await other.run("import os\nos.listdir('.')")).value == []


async def test_await_may_stand_outside_of_functions(session: MontySession) -> None:
    assert (await session.run("import asyncio\nawait asyncio.sleep(0.001, 5)")).value == 5
    assert (await session.run("async def f(): return 6\nx = await f()\nx")).value == 6


async def test_sleeps_overlap_where_they_are_gathered(session: MontySession) -> None:
    code = """
import asyncio
order = []
async def late(seconds):
    await asyncio.sleep(seconds)
    order.append(seconds)
await asyncio.gather(late(0.03), late(0.01), late(0), late(0.02))
order
"""
    assert (await session.run(code)).value == [0, 0.01, 0.02, 0.03]


@pytest.mark.parametrize("code", ["a b", "(", "def", "x = 'open", "\ufeff\ufffe", "π²"])
async def test_code_that_is_no_python_is_told(session: MontySession, code: str) -> None:
    with pytest.raises(CodeError) as raised:
        await session.run(code)
    assert raised.value.kind in {"SyntaxError", "NameError"}
    assert (await session.run("1 + 1")).value == 2


async def test_what_is_written_comes_back_whatever_it_is(session: MontySession) -> None:
    text = "".join(map(chr, range(256))) + "\U0010ffff"
    made = await session.run(f"print({text!r}, end='')")
    assert made.stdout == text


async def test_errors_of_the_code_say_where_and_the_session_goes_on(session: MontySession) -> None:
    with pytest.raises(CodeError) as raised:
        await session.run("x = 3\nprint('before')\ndef f():\n  raise ValueError('no ' + str(x))\nf()")
    error = raised.value
    assert (error.kind, str(error), error.stdout) == ("ValueError", "ValueError: no 3", "before\n")
    assert "line 4, in f" in error.traceback
    assert (await session.run("x")).value == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("def f(): return f()\nf()", "RecursionError"),
        ("raise MemoryError('mine')", "MemoryError"),
        ("raise TimeoutError('mine')", "TimeoutError"),
        ("raise KeyboardInterrupt()", "KeyboardInterrupt"),
        ("raise SystemExit()", "SystemExit"),
        ("import numpy", "ModuleNotFoundError"),
        ("int('9' * 10_000)", "ValueError"),
        ("[][1]", "IndexError"),
        ("nobody(1)", "NameError"),
        ("nobody", "NameError"),
    ],
)
async def test_each_error_has_its_kind(session: MontySession, code: str, kind: str) -> None:
    with pytest.raises(CodeError) as raised:
        await session.run(code)
    assert raised.value.kind == kind
    assert not session.closed


async def test_words_of_an_error_are_bounded(session: MontySession) -> None:
    with pytest.raises(CodeError) as raised:
        await session.run("raise ValueError('x' * 10_000_000)")
    assert len(str(raised.value)) < 25_000
    assert len(raised.value.traceback) < 25_000


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_go_in_and_come_out(sandbox: MontySandbox) -> None:
    made = await sandbox.run(
        "import os\nos.makedirs('made', exist_ok=True)\n"
        "text = open('in/a.txt').read().upper()\nopen('made/upper.txt', 'w').write(text)\nopen('other', 'w').close()",
        files={"in/a.txt": "text", "b.bin": b"\x00\xff"},
        outputs=["made/*.txt", "b.bin", "none*"],
    )
    assert made.files == {"made/upper.txt": b"TEXT", "b.bin": b"\x00\xff"}


async def test_files_of_a_session_are_listed_and_read(session: MontySession) -> None:
    assert await session.files() == ()
    await session.run("import os\nos.mkdir('d')\nopen('d/b', 'wb').write(b'12')\nopen('a', 'w').write('ä')")
    assert await session.files() == (SandboxFile("a", 2), SandboxFile("d/b", 2))
    assert await session.read("d/b") == b"12"
    for name in ("none", "d", "d/b/c"):
        with pytest.raises(SandboxFileError, match="no file"):
            await session.read(name)
    with pytest.raises(ArgumentError, match="read"):
        await session.read("../x")
    with pytest.raises(SandboxFileError, match="'none'"):
        await session.run("1", outputs=["none"])
    await session.run("open('large', 'w').write('x' * 600_000)")
    with pytest.raises(SandboxFileError, match="600,000 bytes"):
        await session.read("large")
    with pytest.raises(SandboxOutputError) as raised:
        await session.run("1", outputs=["large"])
    assert raised.value.limit == "result_bytes"


async def test_files_behave_as_in_python(session: MontySession) -> None:
    code = """
import os, json
from pathlib import Path
with open('a.txt', 'w') as file:
    file.write('one\\n')
    file.write('two\\n')
with open('a.txt', 'a') as file:
    file.write('three')
lines = [line.strip() for line in open('a.txt')]
Path('d/e').mkdir(parents=True, exist_ok=True)
Path('d/e/x.json').write_text(json.dumps({'a': 1}))
os.rename('d/e', 'd/f')
found = sorted(str(one) for one in Path('d').glob('**/*.json'))
walked = [(where, folders, files) for where, folders, files in os.walk('d')]
size = Path('a.txt').stat().st_size
loaded = json.load(open('d/f/x.json'))
os.remove('a.txt')
Path('d/f/x.json').unlink()
Path('d/f').rmdir()
[lines, found, walked, size, loaded, os.listdir('.'), os.path.exists('a.txt'), Path('d').is_dir(), os.getcwd()]
"""
    made = await session.run(code)
    assert made.value == [
        ["one", "two", "three"],
        ["d/f/x.json"],
        [["d", ["f"], []], ["d/f", [], ["x.json"]]],
        13,
        {"a": 1},
        ["d"],
        False,
        True,
        "/session/files",
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("open('none')", "FileNotFoundError"),
        ("open('none/a', 'w')", "FileNotFoundError"),
        ("open('d')", "IsADirectoryError"),
        ("open('d', 'w')", "IsADirectoryError"),
        ("open('f/a', 'w')", "NotADirectoryError"),
        ("import os\nos.listdir('f')", "NotADirectoryError"),
        ("import os\nos.mkdir('d')", "FileExistsError"),
        ("import os\nos.makedirs('f/x')", "NotADirectoryError"),
        ("import os\nos.rmdir('d')", "OSError"),
        ("import os\nos.rename('d', 'd/in')", "OSError"),
        ("import os\nos.rename('none', 'x')", "FileNotFoundError"),
        ("import os\nos.remove('none')", "FileNotFoundError"),
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("open('../../etc/passwd')", "FileNotFoundError"),
        ("open('/tmp/x', 'w')", "PermissionError"),
        ("open('../x', 'w')", "PermissionError"),
        ("import os\nos.rmdir('/session/files')", "PermissionError"),
        ("open('x' * 300, 'w')", "OSError"),
        ("open('n\\0ul', 'w')", "ValueError"),
        ("open('binary').read()", "UnicodeDecodeError"),
        ("import os\nos.urandom(10_000_000)", "MemoryError"),
    ],
)
async def test_what_cannot_be_done_with_files_is_an_error_as_in_python(
    session: MontySession, code: str, kind: str
) -> None:
    files = {"d/inner": b"", "f": b"", "binary": b"\xff"}
    with pytest.raises(CodeError) as raised:
        await session.run(code, files=files)
    assert raised.value.kind == kind
    assert {file.name for file in await session.files()} == set(files)


async def test_uploads_of_several_runs_count_together(session: MontySession) -> None:
    for name in ("a", "b"):
        await session.run("1", files={name: bytes(900_000)})
    with pytest.raises(SandboxDiskError) as raised:
        await session.run("open('ran', 'w')", files={"c": bytes(900_000)})
    assert raised.value.limit == "disk_bytes"
    assert [file.name for file in await session.files()] == ["a", "b"]
    await session.run("1", files={"a": b"", "c": bytes(900_000)})  # in place of the first
    with pytest.raises(SandboxDiskError) as raised:
        await session.run("1", files={f"d/{number}": b"" for number in range(17)})
    assert raised.value.limit == "files"
    await session.run("1", files={f"d/{number}": b"" for number in range(16)})
    for name in ("d", "a/x"):
        with pytest.raises(ArgumentError, match="folder"):
            await session.run("1", files={name: b""})


async def test_the_environment_is_empty(session: MontySession) -> None:
    made = await session.run("import os\n[dict(os.environ), os.getenv('HOME'), os.getenv('A', 'b')]")
    assert made.value == [{}, None, "b"]
    assert len((await session.run("import os\nos.urandom(10)")).value) == 10


# --- functions of the host --------------------------------------------------------------------------------------------


async def test_code_calls_functions_of_the_host(session: MontySession) -> None:
    async def add(one: int, *, other: int) -> int:
        await asyncio.sleep(0)
        return one + other

    def shout(data: object) -> object:
        return {"got": data, "loud": ("a", b"b")}

    made = await session.run(
        "a = await add(1, other=2)\nask = shout\n[a, await ask({'x': (1, None)})]",
        functions={"add": add, "shout": shout},
    )
    assert made.value == [3, {"got": {"x": [1, None]}, "loud": ["a", b"b"]}]
    with pytest.raises(CodeError, match="NameError"):
        await session.run("await add(1, other=2)")  # offered to one run, and gone with it


async def test_calls_that_are_gathered_are_answered_in_one_step(session: MontySession) -> None:
    class Steps:
        names = ("ask",)
        steps: list[list[HostCall]] = []

        async def answer(self, calls: list[HostCall]) -> list[HostAnswer]:
            self.steps.append(list(calls))
            return [HostAnswer(call.args[0] * 10) for call in calls]

    steps = Steps()
    code = """
import asyncio
async def twice(n):
    return await ask(await ask(n))
await asyncio.gather(twice(1), twice(2), ask(3), asyncio.sleep(0.01, 'slept'))
"""
    made = await session.run(code, functions=steps)
    assert made.value == [100, 200, 30, "slept"]
    assert [[call.args[0] for call in step] for step in steps.steps] == [[3, 1, 2], [10, 20]]


async def test_errors_of_calls_are_raised_in_the_code(session: MontySession) -> None:
    async def fail(what: str) -> None:
        raise LookupError(what)

    code = "try:\n  await fail('nothing')\nexcept RuntimeError as e:\n  x = str(e)\nx"
    assert (await session.run(code, functions={"fail": fail})).value == "LookupError: nothing"
    with pytest.raises(CodeError) as raised:
        await session.run("await fail('nothing')", functions={"fail": fail})
    assert (raised.value.kind, str(raised.value)) == ("RuntimeError", "RuntimeError: LookupError: nothing")
    with pytest.raises(CodeError, match="object, which is no plain data"):
        await session.run("await f()", functions={"f": object})
    with pytest.raises(CodeError) as raised:
        await session.run("await f({1})", functions={"f": print})
    assert raised.value.kind == "TypeError"
    with pytest.raises(CodeError, match="1,048,576 bytes"):
        await session.run("await f('x' * 2_000_000)", functions={"f": print})
    assert not session.closed


@pytest.mark.parametrize("code", ["f(1)", "x = f(1)\n[f(2), 3][1]", "f(1)\nprint('done')"])
async def test_a_call_without_await_is_an_error(session: MontySession, code: str) -> None:
    called: list[int] = []
    with pytest.raises(CodeError, match=r"f\(\) was called without await, and did not run; write `await f\("):
        await session.run(code, functions={"f": called.append})
    assert called == []
    assert (await session.run("await f(3)", functions={"f": lambda n: n + 1})).value == 4


async def test_time_that_the_host_takes_is_not_the_runs(sandbox: MontySandbox) -> None:
    async def slow() -> int:
        await asyncio.sleep(0.15)
        return 4

    code = "x = await slow()\nx + await slow()"
    made = await sandbox.run(code, timeout=0.1, functions={"slow": slow})
    assert made.value == 8
    assert made.seconds > 0.1


async def test_too_many_calls_end_it(session: MontySession) -> None:
    called = []
    functions = {"f": lambda: called.append(1)}
    with pytest.raises(SandboxCallsError) as raised:
        await session.run("for i in range(100): await f()", functions=functions)
    assert (raised.value.limit, raised.value.allowed, len(called)) == ("host_calls", 20, 20)
    code = "n = 0\nwhile n < 100:\n  n += 1\n  try:\n    await f()\n  except RuntimeError: pass\nn"
    called.clear()
    assert (await session.run(code, functions=functions)).value == 100
    assert len(called) == 20


async def test_a_function_of_the_host_that_breaks_off_ends_the_session(session: MontySession) -> None:
    class Pausing:
        names = ("ask",)

        async def answer(self, _: object) -> list[HostAnswer]:
            raise BrokenPipeError("the run pauses")

    with pytest.raises(BrokenPipeError, match="the run pauses"):
        await session.run("await ask()", functions=Pausing())
    assert session.closed


async def test_a_function_that_closes_its_own_session_ends_the_run(session: MontySession) -> None:
    with pytest.raises(SandboxClosedError):
        await session.run("await close()", functions={"close": session.aclose})
    assert session.closed


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "limit", "goes_on"),
    [
        ("x = [0] * 10**9", SandboxMemoryError, "memory_bytes", True),
        ("x = []\nwhile True: x.append('a' * 1000)", SandboxMemoryError, "memory_bytes", True),
        ("'x' * 62_000_000", SandboxMemoryError, "memory_bytes", False),
        ("open('a', 'w').write('x' * 2_000_000)", SandboxFileSizeError, "file_bytes", True),
        ("for i in range(3): open(str(i), 'w').write('x' * 1_000_000)", SandboxDiskError, "disk_bytes", True),
        ("for i in range(30): open(str(i), 'w').close()", SandboxDiskError, "files", True),
        ("import os\nos.makedirs('/'.join('d' * 30))", SandboxDiskError, "files", True),
        ("print('x' * 100_000)", SandboxOutputError, "output_bytes", True),
        ("while True: print('x' * 1000)", SandboxOutputError, "output_bytes", False),
        ("import sys\nwhile True: print('', file=sys.stderr)", SandboxOutputError, "output_bytes", False),
        ("list(range(100_000))", SandboxOutputError, "result_bytes", True),
        ("'x' * 500_001", SandboxOutputError, "result_bytes", True),
    ],
)  # fmt: skip
async def test_each_limit_has_its_error(
    session: MontySession, code: str, error: type[SandboxLimitError], limit: str, goes_on: bool
) -> None:
    with pytest.raises(SandboxLimitError) as raised:
        await session.run(code)
    assert (type(raised.value), raised.value.limit) == (error, limit)
    assert raised.value.allowed == getattr(SMALL, limit)
    assert session.closed != goes_on
    if goes_on:
        assert (await session.run("x = None\n1 + 1")).value == 2


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "try:\n  while True: pass\nexcept BaseException: pass",
        # One operation that asks no clock, and tells nothing that it had not told before.
        "import math, time\ntime.sleep(0)\nmath.gcd((1 << 10_000_000) // 3, (1 << 9_000_000) // 7)",
    ],
)
async def test_processor_time_ends_it(code: str) -> None:
    async with MontySandbox(limits=QUICK) as sandbox:
        async with sandbox.session() as session:
            with pytest.raises(SandboxCpuError) as raised:
                await session.run(f"print('so far')\n{code}")
            assert (raised.value.limit, raised.value.allowed) == ("cpu_seconds", 0.2)
            assert raised.value.stdout == "so far\n"
            assert session.closed
        assert (await sandbox.run("1 + 1")).value == 2


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(1e9)",
        "import asyncio\nawait asyncio.sleep(1e9)",
        "import time\nwhile True: time.sleep(0.001)",
        "while True: pass",
        "from pathlib import Path\nwhile True: Path('x').exists()",
    ],
)
async def test_time_ends_it_whatever_it_does(sandbox: MontySandbox, code: str) -> None:
    async with sandbox.session() as session:
        with pytest.raises(SandboxTimeoutError) as raised:
            await session.run(f"print('begun')\n{code}", timeout=0.3)
        assert (raised.value.limit, raised.value.allowed, raised.value.stdout) == ("timeout", 0.3, "begun\n")
        assert session.closed
        with pytest.raises(SandboxClosedError):
            await session.run("1")
    assert (await sandbox.run("1 + 1")).value == 2


async def test_where_the_code_catches_a_limit_on_files_it_goes_on(session: MontySession) -> None:
    code = "try:\n  open('a', 'w').write('x' * 2_000_000)\nexcept OSError as e:\n  x = str(e)\nx"
    assert (await session.run(code)).value == "[Errno 27] File too large: '/session/files/a'"


async def test_what_was_written_before_a_limit_is_told(session: MontySession) -> None:
    with pytest.raises(SandboxOutputError) as raised:
        await session.run("print('ä' * 25_000 + 'b')")
    assert raised.value.stdout == "ä" * 25_000


async def test_sleeps_have_a_bound(session: MontySession) -> None:
    code = "import asyncio\nawait asyncio.gather(*[asyncio.sleep(60) for i in range(1001)])"
    with pytest.raises(CodeError, match="1,000 sleeps"):
        await session.run(code)


async def test_ten_megabytes_of_code_are_refused() -> None:
    with pytest.raises(SandboxLimitError) as raised:
        await MontySandbox().run("x = 1\n" * 1_700_000)
    assert raised.value.limit == "code_bytes"
    assert not workers()  # nothing has begun


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "nul\0name", "a//b", "./a"])
async def test_names_that_are_no_names_are_refused(session: MontySession, name: str) -> None:
    with pytest.raises(ArgumentError, match="files"):
        await session.run("1", files={name: b""})
    with pytest.raises(ArgumentError, match="outputs"):
        await session.run("1", outputs=[name])


async def test_an_upload_that_is_too_large_is_refused(session: MontySession) -> None:
    with pytest.raises(SandboxFileSizeError):
        await session.run("1", files={"a": bytes(1 << 21)})
    with pytest.raises(SandboxDiskError):
        await session.run("1", files={name: bytes(1 << 20) for name in "abc"})
    assert await session.files() == ()


def test_arguments_are_checked() -> None:
    for wrong in (
        {"size": 0},
        {"size": 1.5},
        {"warm": -1},
        {"warm": True},
        {"max_waiting": -1},
        {"wait_timeout": 0},
        {"wait_timeout": float("nan")},
        {"wait_timeout": "1"},
    ):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            MontySandbox(**wrong)
    with pytest.raises(ArgumentError, match="snapshot"):
        MontySandbox().session(snapshot="text")


# --- snapshots --------------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_from_a_snapshot(sandbox: MontySandbox) -> None:
    async with sandbox.session() as first:
        await first.run(
            "import os\nx = {'a': 1}\ndef f(n): return n + x['a']\nos.mkdir('d')\nopen('f', 'w').write('1')"
        )
        kept = await first.snapshot()
        await first.run("x['a'] = 100\nopen('f', 'w').write('2')")
        assert (await first.run("f(1)")).value == 101
    for _ in range(2):  # as often as one likes
        async with sandbox.session(snapshot=kept) as other:
            assert await other.files() == (SandboxFile("f", 1),)
            assert (
                await other.run("import os\n[f(1), open('f').read(), sorted(os.listdir('.'))]")
            ).value == [2, "1", ["d", "f"]]
            again = await other.snapshot()
    assert (await MontySandbox(limits=SMALL).session(snapshot=again).read("f")) == b"1"


async def test_a_snapshot_of_a_session_that_has_not_begun(sandbox: MontySandbox) -> None:
    async with sandbox.session() as empty:
        kept = await empty.snapshot()
    async with sandbox.session(snapshot=kept) as session:
        assert (await session.run("1 + 1")).value == 2


async def test_the_limits_are_those_of_the_sandbox_that_goes_on(sandbox: MontySandbox) -> None:
    async with MontySandbox() as large:
        async with large.session() as first:
            await first.run("x = 'x' * 1_000_000", files={"a": bytes(1 << 21)})
            kept = await first.snapshot()
    async with sandbox.session(snapshot=kept) as session:
        with pytest.raises(SandboxFileSizeError):
            await session.run("1")
    async with MontySandbox(limits=SandboxLimits(memory_bytes=4 << 20)) as small:
        async with small.session(snapshot=kept) as session:
            with pytest.raises(SandboxMemoryError):
                await session.run("y = [0] * 1_000_000")


async def test_damaged_snapshots_are_refused(sandbox: MontySandbox) -> None:
    async with sandbox.session() as session:
        await session.run("x = 1", files={"a": b"1"})
        kept = await session.snapshot()
    for damaged in (b"", b"x", kept[:-1], kept + b"x", kept[:100] + b"\xff" + kept[101:], bytes(100)):
        async with sandbox.session(snapshot=damaged) as session:
            with pytest.raises(ArgumentError, match="snapshot"):
                await session.run("x")
            with pytest.raises(ArgumentError, match="snapshot"):
                await session.files()
    assert (await sandbox.run("1 + 1")).value == 2


# --- what the metrics tell ----------------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    yield enable_metrics(CollectorRegistry()).registry
    disable_metrics()


async def test_runs_waits_and_starts_are_counted(registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    async with MontySandbox(limits=QUICK, size=1) as sandbox:
        await asyncio.gather(sandbox.run("1"), sandbox.run("2"))
        for code in ("1 / 0", "while True: pass", "x = [0] * 10**9"):
            with pytest.raises(SandboxError):
                await sandbox.run(code)

    def runs(outcome: str) -> float | None:
        labels = {"sandbox": "monty", "outcome": outcome}
        return value("gossamer_sandbox_run_duration_seconds_count", labels)

    assert [runs(one) for one in ("ok", "code", "cpu_seconds", "memory_bytes")] == [2, 1, 1, 1]
    assert value("gossamer_sandbox_starts_total", {"sandbox": "monty"}) == 5
    assert value("gossamer_sandbox_wait_seconds_count", {"sandbox": "monty"}) == 1


# --- places and ends --------------------------------------------------------------------------------------------------


async def test_a_closed_session_runs_nothing_and_closing_twice_is_once(sandbox: MontySandbox) -> None:
    session = sandbox.session()
    await session.aclose()
    await session.aclose()
    assert session.closed
    for do in (session.run("1"), session.files(), session.read("a"), session.snapshot()):
        with pytest.raises(SandboxClosedError):
            await do


class Begun:
    """A function of the host by which code says that it has begun."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.functions = {"begin": self.event.set, "wait": self.wait}

    async def wait(self) -> None:
        self.event.set()
        await asyncio.sleep(60)

    def __await__(self):
        return asyncio.wait_for(self.event.wait(), 10).__await__()


@pytest.mark.parametrize(
    "code", ["await begin()\nwhile True: pass", "await begin()\nimport time\ntime.sleep(60)", "await wait()"]
)
async def test_a_session_that_is_closed_in_the_middle_ends_its_run(sandbox: MontySandbox, code: str) -> None:
    begun, session = Begun(), sandbox.session()
    running = asyncio.ensure_future(session.run(f"print('x')\n{code}", functions=begun.functions))
    waiting = asyncio.ensure_future(session.run("1"))
    await begun
    await session.aclose()
    with pytest.raises(SandboxClosedError) as raised:
        await running
    assert raised.value.stdout == "x\n"
    with pytest.raises(SandboxClosedError):
        await waiting
    assert [(await sandbox.run("1 + 1")).value for _ in range(4)] == [2] * 4


async def test_a_sandbox_that_is_closed_in_the_middle_ends_its_runs_and_can_be_used_again() -> None:
    sandbox, begun = MontySandbox(limits=SMALL, size=1), Begun()
    code = "await begin()\nwhile True: pass"
    running = asyncio.ensure_future(sandbox.session().run(code, functions=begun.functions))
    await begun
    waiting = asyncio.ensure_future(sandbox.run("1"))
    await asyncio.sleep(0.01)
    await sandbox.aclose()
    for one in (running, waiting):
        with pytest.raises(SandboxClosedError):
            await one
    await until(lambda: not workers())
    assert (await sandbox.run("1 + 1")).value == 2
    await sandbox.aclose()


async def test_a_sandbox_that_is_closed_while_it_opens() -> None:
    sandbox = MontySandbox()
    running = asyncio.ensure_future(sandbox.run("1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await sandbox.aclose()
    with pytest.raises(SandboxClosedError):
        await running
    await until(lambda: not workers())


async def test_a_cancelled_run_ends_its_session_and_its_process(sandbox: MontySandbox) -> None:
    async with sandbox.session() as session:
        await session.run("1")
        before = workers()
        begun = Begun()
        code = "await begin()\nwhile True: pass"
        running = asyncio.ensure_future(session.run(code, functions=begun.functions))
        await begun
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert session.closed
        await until(lambda: not before & workers())
    assert (await sandbox.run("1 + 1")).value == 2


async def test_cancelling_at_any_moment_leaves_the_places_free(sandbox: MontySandbox) -> None:
    for moment in range(30):
        running = asyncio.ensure_future(sandbox.run("await f()\n1", functions={"f": dict}))
        for _ in range(moment):
            await asyncio.sleep(0)
        await asyncio.sleep(moment * 1e-4 if moment > 15 else 0)
        running.cancel()
        await asyncio.wait((running,))
    async with asyncio.timeout(10):
        made = await asyncio.gather(*(sandbox.run("1 + 1") for _ in range(6)))
    assert [one.value for one in made] == [2] * 6


async def test_closing_at_any_moment_leaves_the_places_free(sandbox: MontySandbox) -> None:
    for moment in range(30):
        session = sandbox.session()
        running = asyncio.ensure_future(session.run("await f()\n1", functions={"f": dict}))
        for _ in range(moment):
            await asyncio.sleep(0)
        await asyncio.sleep(moment * 1e-4 if moment > 15 else 0)
        await session.aclose()
        (done,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(done, SandboxClosedError) or done.value == 1
        assert session.closed
    async with asyncio.timeout(10):
        made = await asyncio.gather(*(sandbox.run("1 + 1") for _ in range(6)))
    assert [one.value for one in made] == [2] * 6


async def test_runs_of_one_session_come_one_after_the_other(session: MontySession) -> None:
    made = await asyncio.gather(*(session.run(f"x = {number}\nx") for number in range(10)))
    assert [one.value for one in made] == list(range(10))


async def test_two_hundred_runs_wait_for_their_places() -> None:
    async with MontySandbox(limits=SMALL, size=4) as sandbox:
        made = await asyncio.gather(*(sandbox.run(f"{number} * 2") for number in range(200)))
        assert [one.value for one in made] == [number * 2 for number in range(200)]
        assert len(workers()) <= 4


async def test_waiting_is_bounded() -> None:
    async with MontySandbox(limits=SMALL, size=1, max_waiting=1, wait_timeout=0.05) as sandbox:
        async with sandbox.session() as first:
            await first.run("1")
            waiting = asyncio.ensure_future(sandbox.run("2"))
            await asyncio.sleep(0.01)
            with pytest.raises(SandboxBusyError, match="max_waiting"):
                await sandbox.run("3")
            with pytest.raises(SandboxBusyError, match=r"0\.05 seconds"):
                await waiting
        assert (await sandbox.run("1 + 1")).value == 2


async def test_a_session_that_waits_for_its_place_can_be_closed() -> None:
    async with MontySandbox(size=1) as sandbox, sandbox.session() as first:
        await first.run("1")
        second = sandbox.session()
        waiting = asyncio.ensure_future(second.run("1"))
        await asyncio.sleep(0.01)
        await second.aclose()
        with pytest.raises(SandboxClosedError):
            await waiting


async def test_a_worker_that_dies_is_told_and_the_pool_goes_on(sandbox: MontySandbox) -> None:
    async with sandbox.session() as session:
        await session.run("x = 1")
        (pid,) = workers()
        begun = Begun()
        code = "await begin()\nwhile True: pass"
        running = asyncio.ensure_future(session.run(code, functions=begun.functions))
        await begun
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxCrashedError, match="SIGKILL"):
            await running
        assert session.closed
    async with sandbox.session() as session:
        await session.run("x = 1")
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not workers())
        with pytest.raises(SandboxCrashedError):
            await session.run("x")  # it died between two runs
        assert session.closed
    async with sandbox.session() as session:
        await session.run("x = 1")
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxCrashedError):
            await session.snapshot()
        assert session.closed
    assert (await sandbox.run("1 + 1")).value == 2


async def test_a_session_that_nobody_has_any_more_gives_its_place_back() -> None:
    async with MontySandbox(size=1, wait_timeout=5) as sandbox:
        session = sandbox.session()
        await session.run("1")
        del session
        gc.collect()
        assert (await sandbox.run("1 + 1")).value == 2


def test_a_sandbox_serves_one_loop_after_the_other() -> None:
    sandbox = MontySandbox()
    sessions = []

    async def use() -> Execution:
        sessions.append(sandbox.session())
        return await sessions[-1].run("1 + 1")

    for _ in range(2):
        assert asyncio.run(use()).value == 2
        assert not workers()  # closed with the loop
    assert sessions[0].closed


def test_a_loop_that_was_closed_over_a_sandbox_leaves_no_process() -> None:
    sandbox = MontySandbox(warm=2)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(sandbox.run("1 + 1")).value == 2
    loop.close()  # and nothing shut down
    assert workers()
    del sandbox
    gc.collect()
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers()


async def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("MONTY_BIN", str(tmp_path / "none"))
    sandbox = MontySandbox()
    for use in (sandbox.check(), sandbox.run("1"), sandbox.__aenter__()):
        with pytest.raises(SandboxUnavailableError, match="process of Monty"):
            await use
    monkeypatch.undo()
    assert (await sandbox.run("1 + 1")).value == 2  # tried anew
    await sandbox.aclose()


async def test_check_says_what_there_is() -> None:
    assert (await MontySandbox().check()).startswith("pydantic-monty 1.")
    assert not workers()


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_library_is_loaded_at_its_first_use_and_its_absence_is_told() -> None:
    program = """
import asyncio, sys
import gossamer.sandbox
from gossamer import SandboxUnavailableError
from gossamer.sandbox import MontySandbox
sandbox = MontySandbox()
assert "pydantic_monty" not in sys.modules
sys.modules["pydantic_monty"] = None
for use in (sandbox.run("1"), sandbox.check(), sandbox.__aenter__()):
    try:
        asyncio.run(use)
    except SandboxUnavailableError as error:
        print(error)
"""
    told = _python(program)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.count("pip install 'gossamer[sandbox]'") == 3


def test_python_ends_well_after_runs_in_any_loop() -> None:
    program = """
import asyncio, threading
from gossamer.sandbox import MontySandbox
sandbox = MontySandbox()
async def use(): return (await sandbox.run("print(1)\\n1 + 1")).value
assert asyncio.run(use()) == 2
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
assert asyncio.run_coroutine_threadsafe(use(), loop).result() == 2
held = sandbox.session()
asyncio.run_coroutine_threadsafe(held.run("1"), loop).result()
"""
    for _ in range(3):
        told = _python(program)
        assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_fork_leaves_the_parents_processes_alone() -> None:
    program = """
import asyncio, gc, os, sys, warnings
warnings.simplefilter("ignore")
from gossamer.sandbox import MontySandbox
from gossamer import SandboxClosedError, SandboxUnavailableError
async def main():
    async with MontySandbox() as sandbox:
        session = sandbox.session()
        await session.run("x = 5")
        child = os.fork()
        if not child:
            return session, sandbox
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert (await session.run("x")).value == 5
        print("parent")
    return None
loop = asyncio.new_event_loop()
made = loop.run_until_complete(main()) if False else None
async def parent():
    sandbox = MontySandbox()
    session = sandbox.session()
    await session.run("x = 5")
    return sandbox, session
sandbox, session = loop.run_until_complete(parent())
child = os.fork()
if not child:
    async def use():
        for do in (session.run("x"), sandbox.run("1"), MontySandbox().check()):
            try:
                await do
            except (SandboxClosedError, SandboxUnavailableError) as error:
                print(type(error).__name__, flush=True)
    asyncio.run(use())
    del session, sandbox
    gc.collect()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
async def after():
    print((await session.run("x")).value)
    await sandbox.aclose()
loop.run_until_complete(after())
"""
    told = _python(program)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.split() == [
        "SandboxClosedError",
        "SandboxUnavailableError",
        "SandboxUnavailableError",
        "5",
    ]
