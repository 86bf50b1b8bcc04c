"""What the tools that work in a sandbox make of what it gives, whichever it is; the sandbox itself is scripted here."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tests.integration.tools.calling import call, given, refused
from tests.integration.tools.fake_sandbox import FakeSandbox

from gossamer import Agent, ArgumentError, Image, Session, Text, ToolCall, Toolkit
from gossamer.errors import (
    CodeError,
    SandboxClosedError,
    SandboxDiskError,
    SandboxFileError,
    SandboxFileSizeError,
    SandboxTimeoutError,
    SandboxUnavailableError,
)
from gossamer.models import ScriptedModel
from gossamer.sandbox import Execution, SandboxLimits
from gossamer.tools import sandbox_session
from gossamer.tools.builtin import python, shell

PNG = b"\x89PNG\r\n\x1a\n"


def results(result) -> list[str]:
    return [part.text for message in result.messages if message.role == "tool" for part in message.parts]


async def converse(toolkit: Toolkit, session: Session, *codes: str, tool: str = "run_python") -> list[str]:
    """Let a model run code, a turn each, and give what it sees of it in this run."""
    key = "code" if tool == "run_python" else "argv"
    model = ScriptedModel([*(ToolCall.of(tool, **{key: code}) for code in codes), "done"])
    result = await Agent(model, tools=[toolkit]).run("go", session=session)
    return [part.text for message in result.new_messages if message.role == "tool" for part in message.parts]


# --- what the model sees ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("execution", "seen"),
    [
        (Execution(), "(no output)"),
        (Execution(stdout="a\nb\n"), "stdout:\na\nb"),
        (Execution(value=3, shown="3"), "value:\n3"),
        (Execution(stdout="a", stderr="b", shown="'c'"), "stdout:\na\nstderr:\nb\nvalue:\n'c'"),
    ],
)
async def test_what_was_written_and_the_value_are_named(execution, seen):
    assert (await call(python(FakeSandbox(lambda *_: execution)), "run_python", code="x")).content == seen


async def test_what_is_long_is_cut_in_the_middle():
    sandbox = FakeSandbox(lambda *_: Execution(stdout="a" * 5000 + "b" * 5000, shown="3"))
    content = (await call(python(sandbox, max_output=1001), "run_python", code="x")).content
    assert content == f"stdout:\n{'a' * 500}\n[9,000 characters left out]\n{'b' * 500}\nvalue:\n3"


async def test_plots_come_as_images_behind_the_text():
    images = tuple(Image(data=PNG + bytes([number])) for number in range(10))
    result = await call(python(FakeSandbox(lambda *_: Execution(images=images[:2]))), "run_python", code="x")
    assert result.content == images[:2]
    sandbox = FakeSandbox(lambda *_: Execution(stdout="two", images=images))
    result = await call(python(sandbox), "run_python", code="x")
    words = "stdout:\ntwo\n10 images were made, of which these are the first 8"
    assert result.content == (Text(words), *images[:8])


async def test_what_is_no_character_is_replaced():
    images = (Image(data=PNG),)
    sandbox = FakeSandbox(lambda *_: Execution(stdout="é\ud800", images=images))
    assert (await call(python(sandbox), "run_python", code="x")).content == (Text("stdout:\né?"), *images)


async def test_files_that_are_new_or_of_another_size_are_named():
    def write(session, code):
        name, _, content = code.partition("=")
        session.kept[name] = content.encode()
        return Execution()

    toolkit = python(FakeSandbox(write), files={"data.csv": "a,b", "x.txt": b"12"})
    seen = await converse(toolkit, Session(), "new=1234", "new=4321", "x.txt=123", "data.csv=b,a")
    assert seen == [
        "files written: new (4 bytes)",
        "(no output)",
        "files written: x.txt (3 bytes)",
        "(no output)",
    ]


async def test_an_error_comes_with_its_traceback_and_what_was_written():
    error = CodeError(
        "ValueError: no", kind="ValueError", traceback="Traceback:\nValueError: no", stdout="a\n"
    )
    text = await refused(python(FakeSandbox(lambda *_: error)), "run_python", code="x")
    assert text == "run_python failed: CodeError: stdout:\na\nTraceback:\nValueError: no"


async def test_the_end_of_a_long_traceback_is_seen():
    error = CodeError(
        "x", traceback="y" * 100_000 + "ValueError: no", stdout="a" * 100_000, stderr="b" * 100_000
    )
    text = await refused(python(FakeSandbox(lambda *_: error)), "run_python", code="x")
    assert text.endswith("ValueError: no")
    assert "characters)" not in text[-20:]
    assert len(text) < 4_000
    assert text.count("left out]") == 3


async def test_a_sandbox_that_cannot_be_had_ends_the_run_and_says_why():
    sandbox = FakeSandbox(lambda *_: SandboxUnavailableError("there is none; install it"))
    for toolkit, arguments in (
        (python(sandbox), {"code": "x"}),
        (shell(["ls"], sandbox=sandbox), {"argv": ["ls"]}),
    ):
        name = "run_python" if "code" in arguments else "run_command"
        with pytest.raises(SandboxUnavailableError, match=r"^there is none; install it$"):
            await call(toolkit, name, **arguments)


# --- what lasts ---------------------------------------------------------------------------------------------


async def test_a_conversation_keeps_its_session_and_shares_it_with_nobody():
    sandbox = FakeSandbox()
    toolkit = python(sandbox)
    async with Session() as one:
        await converse(toolkit, one, "1", "2")
        await converse(toolkit, one, "3")
        assert len(sandbox.used) == 1
        other = Session()
        await converse(toolkit, other, "4")
        assert [len(session.put) for session in sandbox.used] == [3, 1]
        assert not any(session.closed for session in sandbox.used)
    assert [session.closed for session in sandbox.used] == [True, False]
    del other
    gc.collect()
    async with asyncio.timeout(5):
        while not sandbox.used[1].closed:
            await asyncio.sleep(0)


async def test_a_run_without_a_session_gives_its_place_back():
    sandbox = FakeSandbox()
    agent = Agent(
        ScriptedModel(
            lambda request: (
                "done" if request.messages[-1].role == "tool" else ToolCall.of("run_python", code="1")
            )
        ),
        tools=[python(sandbox)],
    )
    kept = await asyncio.gather(*(agent.run("go") for _ in range(20)))
    assert len(kept) == len(sandbox.used) == 20
    assert all(session.closed for session in sandbox.used)


async def test_calls_of_one_turn_run_one_after_the_other():
    sandbox = FakeSandbox(lambda session, code: Execution(stdout=code))
    calls = [ToolCall.of("run_python", code=str(number)) for number in range(5)]
    await Agent(ScriptedModel([calls, "done"]), tools=[python(sandbox)]).run("go")
    assert [code for code, _ in sandbox.asked] == ["0", "1", "2", "3", "4"]


async def test_behind_a_limit_that_closed_the_session_a_new_one_begins_with_the_files():
    def script(session, code):
        if code == "loop":
            session.closed = True
            return SandboxTimeoutError(
                "the run took longer than 1 s", limit="timeout", allowed=1, stdout="so far"
            )
        return Execution(stdout=code)

    sandbox = FakeSandbox(script)
    toolkit = python(sandbox, files={"a": "1"})
    seen = await converse(toolkit, Session(), "1", "loop", "2", "3")
    ended = (
        "run_python failed: SandboxTimeoutError: stdout:\nso far\nthe run took longer than 1 s\n"
        "The session is closed: variables and files of earlier calls are gone, and the next call begins anew."
    )
    new = "[a new session: variables and files of earlier calls are gone]\nstdout:\n2"
    assert seen == ["stdout:\n1", ended, new, "stdout:\n3"]
    assert [session.put for session in sandbox.used] == [[{"a": b"1"}, None, None]] * 2


async def test_a_limit_that_left_the_session_open_loses_nothing():
    def script(session, code):
        return (
            SandboxDiskError("the disk is full", limit="disk_bytes", allowed=1)
            if code == "fill"
            else Execution()
        )

    sandbox = FakeSandbox(script)
    seen = await converse(python(sandbox), Session(), "1", "fill", "2")
    assert seen[1:] == ["run_python failed: SandboxDiskError: the disk is full", "(no output)"]
    assert len(sandbox.used) == 1


async def test_who_goes_on_in_a_session_that_was_closed_is_told_so_also_by_an_error():
    error = CodeError("NameError: x", traceback="NameError: x")
    sandbox = FakeSandbox(lambda session, code: error if code == "x" else Execution(stdout=code))
    toolkit = python(sandbox)
    session = Session()
    assert await converse(toolkit, session, "1") == ["stdout:\n1"]
    await session.aclose()
    note = "[a new session: variables and files of earlier calls are gone]"
    assert await converse(toolkit, session, "x", "2") == [
        f"run_python failed: CodeError: {note}\nNameError: x",
        "stdout:\n2",
    ]
    await session.aclose()


async def test_a_session_that_is_closed_under_way_begins_no_other_one():
    entered = asyncio.Event()

    class Slow(FakeSandbox):
        def session(self):
            session = super().session()

            async def run(code, **_):
                entered.set()
                while not session.closed:
                    await asyncio.sleep(0)
                raise SandboxClosedError("closed")

            session.run = run
            return session

    sandbox = Slow()
    session = Session()
    calls = [ToolCall.of("run_python", code=code) for code in "ab"]
    agent = Agent(ScriptedModel([calls, "done"]), tools=[python(sandbox)])
    running = asyncio.create_task(agent.run("go", session=session))
    await entered.wait()
    await session.aclose()
    result = await asyncio.wait_for(running, 10)
    first, second = (part.text for part in result.messages[2].parts)
    assert "SandboxClosedError" in first
    assert "SandboxClosedError: the conversation's session was closed" in second
    assert len(sandbox.sessions) == 1


# --- files of the user ---------------------------------------------------------------------------------------


async def test_the_user_puts_files_into_the_session_and_takes_some_out():
    def script(session, code):
        if code == "sum":
            session.kept["out"] = session.kept["in"] * 2
        return Execution()

    sandbox = FakeSandbox(script)
    toolkit = python(sandbox)
    async with Session() as session:
        box = await sandbox_session(toolkit, session)
        await box.run("", files={"in": b"12"})
        assert await converse(toolkit, session, "sum") == ["files written: in (2 bytes), out (4 bytes)"]
        assert await (await sandbox_session(toolkit, session)).read("out") == b"1212"
    assert len(sandbox.used) == 1
    toolkit = python(FakeSandbox(), files={"in": b"1"})
    async with Session() as session:
        box = await sandbox_session(toolkit, session)
        assert [file.name for file in await box.files()] == ["in"]
        await box.run("", files={"in": b"mine"})
        assert await converse(toolkit, session, "1") == ["files written: in (4 bytes)"]
        assert await box.read("in") == b"mine"
    for other in (Toolkit("other"), toolkit.replace(scope="run"), Toolkit("other", scope="session")):
        with pytest.raises(ArgumentError, match="keeps no sandbox"):
            await sandbox_session(other, session)


async def test_the_model_is_told_which_files_are_there():
    model = ScriptedModel(["done"])
    files = {"b.csv": "1", **{f"a{number:02}": b"" for number in range(25)}}
    await Agent(model, tools=[python(FakeSandbox(), files=files)]).run("go")
    (schema,) = model.requests[0].tools
    assert schema.description.endswith("a18, a19 and 6 more.")
    assert "small Python" not in schema.description


async def test_files_that_the_sandbox_does_not_take_are_refused_when_the_toolkit_is_made():
    limits = SandboxLimits(file_bytes=10, disk_bytes=15)
    for made in (python, lambda sandbox, files: shell(["ls"], sandbox=sandbox, files=files)):
        with pytest.raises(ArgumentError, match="goes upwards"):
            made(FakeSandbox(), files={"../x": "1"})
        with pytest.raises(SandboxFileSizeError):
            made(FakeSandbox(limits=limits), files={"x": b"1" * 11})
        with pytest.raises(SandboxDiskError):
            made(FakeSandbox(limits=limits), files={"x": b"1" * 8, "y": "2" * 8})


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": 4000}, {"timeout": -1}, {"max_output": 99}])
def test_bounds_that_are_none_are_refused(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=name):
        python(FakeSandbox(), **options)
    with pytest.raises(ArgumentError, match=name):
        shell(["ls"], sandbox=FakeSandbox(), **options)


async def test_the_time_of_a_call_is_passed_on():
    sandbox = FakeSandbox()
    await converse(python(sandbox, timeout=2.5), Session(), "1")
    await converse(python(sandbox), Session(), "1")
    assert [seconds for _, seconds in sandbox.asked] == [2.5, None]


# --- commands ------------------------------------------------------------------------------------------------


async def test_a_command_is_a_list_and_its_end_is_told():
    def script(session, argv):
        session.kept["out"] = b"123"
        return Execution(value=3 if argv[0] == "wc" else -9, stdout="a\n", stderr="b\n")

    sandbox = FakeSandbox(script)
    toolkit = shell(["wc", "jq", "wc"], sandbox=sandbox, timeout=5)
    seen = await converse(toolkit, Session(), ["wc", "-l", "a b; c"], ["jq"], tool="run_command")
    assert seen == [
        "exit code 3\nstdout:\na\nstderr:\nb\nfiles written: out (3 bytes)",
        "ended by the signal SIGKILL\nstdout:\na\nstderr:\nb",
    ]
    assert sandbox.asked == [(["wc", "-l", "a b; c"], 5), (["jq"], 5)]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "argv is empty"),
        (["rm", "x"], "'rm' may not be run; these may: ls, jq"),
        (["/bin/ls"], "'/bin/ls' may not be run"),
        (["./ls"], "may not be run"),
        (["ls "], "may not be run"),
        (["LS"], "may not be run"),
        (["ls -l"], "may not be run"),
        (["ls;rm"], "may not be run"),
        (["ls", "a\0b"], "NUL"),
        (["ls"] * 1001, "1,001 items"),
        (["ls", "x" * 60_000, "y" * 60_000], "120,002 characters"),
        (["ls", "x" * 100_001], "100,001 characters"),
    ],
)
async def test_what_is_not_named_and_what_is_no_command_is_refused(argv, says):
    sandbox = FakeSandbox()
    text = await refused(shell(["ls", "jq"], sandbox=sandbox), "run_command", argv=argv)
    assert says in text
    assert text.startswith("run_command failed: CommandError: ")
    assert not sandbox.asked


@pytest.mark.parametrize(
    "allow", [[], (), "ls", b"ls", ["/bin/ls"], ["a/b"], [""], ["ls -l"], ["a\0"], ["."], [1]]
)
def test_only_names_of_programs_can_be_allowed(allow):
    with pytest.raises(ArgumentError, match="allow"):
        shell(allow, sandbox=FakeSandbox())


def test_a_sandbox_without_programs_is_refused():
    class OnlyPython:
        limits = SandboxLimits()

        def session(self):
            return object()

    with pytest.raises(ArgumentError, match="OnlyPython runs Python and no programs"):
        shell(["ls"], sandbox=OnlyPython())


async def test_a_program_that_is_not_there_is_told():
    sandbox = FakeSandbox(lambda *_: SandboxFileError("there is no program 'jq' in the sandbox"))
    text = await refused(shell(["jq"], sandbox=sandbox), "run_command", argv=["jq"])
    assert text == "run_command failed: SandboxFileError: there is no program 'jq' in the sandbox"


async def test_two_of_a_kind_go_together():
    one, other = python(FakeSandbox()), python(FakeSandbox(lambda *_: Execution(stdout="other")), name="py2")
    model = ScriptedModel([ToolCall.of("py2_run_python", code="1"), "done"])
    result = await Agent(model, tools=[one, other]).run("go")
    assert results(result) == ["stdout:\nother"]
    assert await given(one, "run_python", code="1") == "(no output)"
