"""Python for a model, in the real sandboxes."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.tools.calling import call, given, refused

from gossamer import Agent, Image, Session, ToolCall, Toolkit
from gossamer.errors import SandboxUnavailableError
from gossamer.models import ScriptedModel
from gossamer.sandbox import BubblewrapSandbox, MontySandbox, Sandbox, SandboxLimits
from gossamer.sandbox.in_words import MONTY_MODULES
from gossamer.tools import sandbox_session
from gossamer.tools.builtin import python

LIMITS = SandboxLimits(timeout=2.0, cpu_seconds=1.0, memory_bytes=96 << 20)
CSV = "month,total\njan,10\nfeb,32.5\nmar,7\n"


@pytest.fixture(params=["monty", "bubblewrap"])
def kind(request) -> str:
    if request.param == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    return request.param


@pytest.fixture
async def sandbox(kind) -> Sandbox:
    made = (
        MontySandbox(limits=LIMITS, size=3) if kind == "monty" else BubblewrapSandbox(limits=LIMITS, size=3)
    )
    async with made as one:
        yield one


async def converse(toolkit: Toolkit, session: Session, *codes: str) -> list[str]:
    """Let a model run code, a turn each, and give what it sees of it in this run."""
    model = ScriptedModel([*(ToolCall.of("run_python", code=code) for code in codes), "done"])
    result = await Agent(model, tools=[toolkit]).run("go", session=session)
    return [part.text for message in result.new_messages if message.role == "tool" for part in message.parts]


async def test_a_model_sees_what_is_printed_and_the_last_value(sandbox):
    toolkit = python(sandbox)
    assert (
        await given(toolkit, "run_python", code="print('a')\nx = 20\nx * 2.1") == "stdout:\na\nvalue:\n42.0"
    )
    assert await given(toolkit, "run_python", code="x = 1") == "(no output)"
    assert await given(toolkit, "run_python", code="'é\\n'") == "value:\n'é\\n'"


async def test_variables_files_and_functions_last_for_the_conversation(sandbox):
    toolkit = python(sandbox, files={"sales.csv": CSV})
    async with Session() as session:
        first = "import csv\nrows = list(csv.DictReader(open('sales.csv')))\ndef total(): return sum(float(row['total']) for row in rows)"
        assert await converse(toolkit, session, first, "total()") == ["(no output)", "value:\n49.5"]
        write = "with open('best.txt', 'w') as file:\n    file.write(max(rows, key=lambda row: float(row['total']))['month'])"
        (seen,) = await converse(toolkit, session, write)
        assert seen.endswith("files written: best.txt (3 bytes)")
        box = await sandbox_session(toolkit, session)
        assert await box.read("best.txt") == b"feb"
        await box.run("", files={"more.csv": "1,2"})
        assert await converse(toolkit, session, "open('more.csv').read()") == [
            "value:\n'1,2'\nfiles written: more.csv (3 bytes)"
        ]
    async with Session() as other:
        (seen,) = await converse(toolkit, other, "total()")
        assert seen.startswith("run_python failed: CodeError: ")
        assert "NameError" in seen


async def test_an_error_is_shown_as_python_shows_it_and_loses_nothing(sandbox):
    async with Session() as session:
        seen = await converse(python(sandbox), session, "x = 1\nprint('here')\n1 / 0", "1 +", "x")
    assert seen[0].startswith(
        "run_python failed: CodeError: stdout:\nhere\nTraceback (most recent call last):\n"
    )
    assert seen[0].endswith("ZeroDivisionError: division by zero")
    assert "SyntaxError" in seen[1]
    assert seen[2] == "value:\n1"


async def test_a_limit_says_which_it_is_and_what_is_gone(sandbox):
    async with Session() as session:
        seen = await converse(python(sandbox), session, "x = 1", "while True: pass", "x", "2")
    assert "run_python failed: Sandbox" in seen[1]
    assert seen[1].endswith("variables and files of earlier calls are gone, and the next call begins anew.")
    assert "[a new session: variables and files of earlier calls are gone]" in seen[2]
    assert "NameError" in seen[2]
    assert seen[3] == "value:\n2"


async def test_more_memory_than_there_may_be_is_a_limit(sandbox):
    async with Session() as session:
        seen = await converse(python(sandbox), session, "x = 'a' * 500_000_000", "1")
    assert seen[0].startswith("run_python failed: SandboxMemoryError: ")
    assert seen[1].endswith("value:\n1")


@pytest.mark.parametrize("first", ["", "\0"], ids=["after a limit", "after what is no Python"])
async def test_files_are_put_there_once_whatever_becomes_of_the_first_call(kind, first):
    made = MontySandbox if kind == "monty" else BubblewrapSandbox
    change = "open('a', 'w').write('changed')\nopen('b', 'w').write('x' * 50_000)"
    async with made(limits=SandboxLimits(file_bytes=10_000)) as sandbox, Session() as session:
        toolkit = python(sandbox, files={"a": "1"})
        seen = await converse(toolkit, session, first + change, "print(open('a').read())")
    assert seen[0].startswith("run_python failed: ")
    assert seen[1].splitlines()[:2] == ["stdout:", "1" if first else "changed"]


async def test_the_time_of_a_call_ends_it(sandbox):
    said = await refused(python(sandbox, timeout=0.2), "run_python", code="while True: pass")
    assert said.startswith("run_python failed: SandboxTimeoutError: ")
    assert "0.2 seconds" in said


async def test_much_output_is_cut_in_the_middle(sandbox):
    said = await given(
        python(sandbox, max_output=1000), "run_python", code="for i in range(20_000): print('line', i)"
    )
    assert said.startswith("stdout:\nline 0\n")
    assert said.endswith("line 19999")
    assert len(said) < 1_100


async def test_conversations_run_beside_one_another_and_see_nothing_of_each_other(sandbox):
    toolkit = python(sandbox)

    async def one(number: int) -> list[str]:
        async with Session() as session:
            return await converse(
                toolkit, session, f"x = {number}\nopen('f', 'w').write('{number}')", "[x, open('f').read()]"
            )

    seen = await asyncio.gather(*map(one, range(9)))  # more than there are places: they wait
    assert [answers[1] for answers in seen] == [f"value:\n[{number}, '{number}']" for number in range(9)]


async def test_code_that_no_python_is_is_told(sandbox):
    toolkit = python(sandbox)
    for code in ("a\0b", "x = '" + "y" * 2_000_000 + "'", "def"):
        said = await refused(toolkit, "run_python", code=code)
        assert said.startswith("run_python failed: ")
        assert len(said) < 4_100


# --- each its own -------------------------------------------------------------------------------------------


async def test_monty_has_what_the_model_is_told_and_not_what_it_is_told_it_has_not():
    async with MontySandbox(size=1) as sandbox:
        toolkit = python(sandbox)
        model = ScriptedModel(["done"])
        await Agent(model, tools=[toolkit]).run("go")
        (schema,) = model.requests[0].tools
        assert ", ".join(MONTY_MODULES) in schema.description
        async with Session() as session:
            assert set(await converse(toolkit, session, *(f"import {name}" for name in MONTY_MODULES))) == {
                "(no output)"
            }
            cannot = [
                "import statistics",
                "import numpy",
                "class A: pass\nclass B(A): pass",
                "class A:\n    @property\n    def x(self): return 1",
                "class A:\n    @classmethod\n    def x(cls): return 1",
                "def f():\n    yield 1",
                "next(x for x in [1])",
                "x = 1\ndel x",
                "class Error(Exception): pass",
                "max({}, key={}.get)",
            ]
            assert all("failed" in seen for seen in await converse(toolkit, session, *cannot))


async def test_full_python_is_not_told_to_be_a_small_one(bubblewrap):
    model = ScriptedModel([ToolCall.of("run_python", code=_GENERATOR), "done"])
    async with BubblewrapSandbox(warm=1) as sandbox:
        result = await Agent(model, tools=[python(sandbox)]).run("go")
    description = model.requests[0].tools[0].description
    assert "small Python" not in description
    assert description.endswith(". It is CPython with its standard library, and no other package.")
    assert result.messages[2].parts[0].text == "value:\n[0, 1, 2]"


_GENERATOR = """
class Numbers(list):
    def each(self):
        yield from self

list(Numbers(range(3)).each())
"""


async def test_a_plot_is_seen_as_a_picture(bubblewrap):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 2])\nprint('drawn')"
    model = ScriptedModel([ToolCall.of("run_python", code=code), "done"])
    async with BubblewrapSandbox(["matplotlib"], warm=1) as sandbox:
        result = await Agent(model, tools=[python(sandbox)]).run("go")
    assert "with its standard library and the packages matplotlib." in model.requests[0].tools[0].description
    text, image = result.messages[2].parts[0].content
    assert text.text.startswith("stdout:\ndrawn")
    assert isinstance(image, Image)
    assert image.data.startswith(b"\x89PNG")


async def test_where_bubblewrap_is_missing_nothing_runs_and_it_says_why(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailableError, match="apt-get install bubblewrap"):
        await call(python(BubblewrapSandbox()), "run_python", code="1")
