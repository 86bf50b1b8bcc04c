"""Runs from code that is not async: scripts, threads, notebooks, Ctrl-C, forks; and ids that never repeat."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextvars import ContextVar

import pytest

from gossamer import Agent, ArgumentError, Limits, RunContext, Session, ToolCall, sync, tool
from gossamer.ids import new_id
from gossamer.models import OpenAIChat, ScriptedModel
from gossamer.simulator import Simulator


def program(text: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(text: str) -> str:
    process = program(text)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert err == ""
    return out


def test_in_plain_code():
    agent = Agent(ScriptedModel(["one", "two"]))
    session = Session()
    assert agent.run_sync("a", session=session).output == "one"
    assert agent.run_sync("b", session=session).output == "two"
    assert len(session.messages) == 4


def test_errors_come_out_as_they_are():
    agent = Agent(ScriptedModel([KeyError("k")]))
    with pytest.raises(KeyError, match="k"):
        agent.run_sync("x")
    with pytest.raises(ArgumentError, match="prompt"):
        agent.run_sync("")


def test_limits_and_context_variables_hold():
    who: ContextVar[str] = ContextVar("who")
    who.set("ada")

    @tool(inline=True)
    def name() -> str:
        return who.get()

    result = Agent(ScriptedModel([ToolCall("name"), "x"]), tools=[name]).run_sync("x")
    assert result.messages[2].parts[0].content == "ada"

    @tool
    async def hang() -> str:
        await asyncio.Event().wait()

    slow = Agent(ScriptedModel([ToolCall("hang")]), tools=[hang], limits=Limits(max_seconds=0.02))
    assert slow.run_sync("x").stopped.limit == "max_seconds"


def test_from_many_threads_at_once_on_one_loop():
    meeting = threading.Barrier(8)
    loops = set()

    @tool
    async def where() -> str:
        loops.add(asyncio.get_running_loop())
        return threading.current_thread().name

    agent = Agent(
        ScriptedModel(lambda request: ToolCall("where") if len(request.messages) == 1 else "x"), tools=[where]
    )
    outputs: list[str] = []

    def work(number: int) -> None:
        meeting.wait()
        outputs.append(agent.run_sync(f"q{number}").messages[0].text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outputs) == [f"q{number}" for number in range(8)]
    assert len(loops) == 1


async def test_inside_a_running_loops_thread_as_in_a_notebook():
    assert Agent(ScriptedModel(["cell"])).run_sync("x").output == "cell"


def test_over_a_real_connection_again_and_again():
    async def serve(started: threading.Event, stop: asyncio.Event) -> None:
        async with Simulator() as simulator:
            address.append((simulator.url, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    address: list = []
    started = threading.Event()
    server = threading.Thread(target=lambda: asyncio.run(serve(started, asyncio.Event())))
    server.start()
    started.wait(20)
    url, loop, stop = address[0]
    try:
        agent = Agent(OpenAIChat("gpt", base_url=url, api_key="k"))
        assert all("hi" in agent.run_sync("hi").output for _ in range(3))
    finally:
        loop.call_soon_threadsafe(stop.set)
        server.join(20)


@pytest.mark.parametrize("kind", ["inline", "async"])
def test_on_its_own_loop_it_raises_instead_of_waiting_for_itself(kind):
    inner = Agent(ScriptedModel(lambda request: "never"))

    def call() -> str:
        return inner.run_sync("x").output

    async def call_async() -> str:
        return call()

    made = tool(name="call", inline=True)(call) if kind == "inline" else tool(name="call")(call_async)
    result = Agent(ScriptedModel([ToolCall("call"), "told"]), tools=[made]).run_sync("x")
    assert "run_sync was called on Gossamer's own event loop" in result.messages[2].parts[0].content


def test_in_a_synchronous_tools_thread_it_works_and_knows_its_parent():
    parents = []

    def instructions(context: RunContext) -> str:
        parents.append(context.parent.run_id)
        return ""

    inner = Agent(ScriptedModel(lambda request: "inner"), instructions=instructions)

    @tool
    def call() -> str:
        return inner.run_sync("x").output

    result = Agent(ScriptedModel([ToolCall("call"), "done"]), tools=[call]).run_sync("x")
    assert result.messages[2].parts[0].content == "inner"
    assert parents == [result.run_id]


def test_a_cancelled_run_is_told_as_such():
    @tool
    async def cancel() -> str:
        asyncio.current_task().cancel()
        await asyncio.Event().wait()

    agent = Agent(ScriptedModel([ToolCall("cancel"), "fine"]), tools=[cancel])
    with pytest.raises(BaseException) as caught:
        agent.run_sync("x")
    assert "Cancelled" in type(caught.value).__name__
    assert agent.run_sync("y").output == "fine"


CTRL_C = """
    import asyncio, sys
    from gossamer import Agent, Session, ToolCall, tool
    from gossamer.models import ScriptedModel

    @tool
    async def hang() -> str:
        print("hanging", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            print("cleaned up", flush=True)

    session = Session()
    agent = Agent(ScriptedModel([ToolCall("hang"), "next"]), tools=[hang])
    try:
        agent.run_sync("x", session=session)
    except KeyboardInterrupt:
        print("interrupted", session.unfinished, session.messages[-1].parts[0].outcome, flush=True)
    print(agent.run_sync("y", session=session).output, flush=True)
"""


def test_ctrl_c_cancels_the_run_and_the_program_goes_on():
    process = program(CTRL_C)
    try:
        assert process.stdout.readline() == "hanging\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out.splitlines() == ["cleaned up", "interrupted None interrupted", "next"], err
    assert process.returncode == 0
    assert err == ""


@pytest.mark.parametrize("told", [True, False], ids=["told", "not-told"])
def test_ctrl_c_in_the_moment_a_run_begins_leaves_no_run_behind(monkeypatch, told):
    class Interrupted(asyncio.SelectorEventLoop):
        pressed = False

        def call_soon_threadsafe(self, callback, *args, context=None):
            if self.pressed or threading.current_thread() is not threading.main_thread():
                return super().call_soon_threadsafe(callback, *args, context=context)
            self.pressed = True
            if told:
                super().call_soon_threadsafe(callback, *args, context=context)
            raise KeyboardInterrupt

    async def answer(request) -> str:
        if request.messages[-1].text == "x":
            await asyncio.Event().wait()
        return "fine"

    background = sync._Background()
    monkeypatch.setattr(sync, "_new_loop", Interrupted)
    monkeypatch.setattr(sync, "_background", background)
    agent = Agent(ScriptedModel(answer))
    session = Session(when_busy="refuse")
    with pytest.raises(KeyboardInterrupt):
        agent.run_sync("x", session=session)
    assert agent.run_sync("y", session=session).output == "fine"
    background.loop.call_soon_threadsafe(background.loop.stop)
    background.thread.join()
    background.loop.close()


def test_a_script_ends_although_a_synchronous_tool_hangs():
    began = time.monotonic()
    text = output_of(
        """
        import threading
        from gossamer import Agent, ToolCall, tool
        from gossamer.models import ScriptedModel

        @tool(timeout=0.05)
        def hang() -> str:
            threading.Event().wait()

        result = Agent(ScriptedModel([ToolCall("hang"), "done"]), tools=[hang]).run_sync("x")
        print(result.messages[2].parts[0].outcome, result.output)
        """
    )
    assert text == "timeout done\n"
    assert time.monotonic() - began < 60


def test_after_a_fork_both_processes_run_and_no_id_repeats():
    text = output_of(
        """
        import os
        from gossamer import Agent, ToolCall, tool
        from gossamer.ids import new_id
        from gossamer.models import ScriptedModel

        @tool
        def work() -> str:
            return str(os.getpid())

        def reply(request):
            return ToolCall("work") if len(request.messages) == 1 else "done"

        agent = Agent(ScriptedModel(reply), tools=[work])
        first = agent.run_sync("x")
        assert first.messages[2].parts[0].content == str(os.getpid())
        reader, writer = os.pipe()
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                result = agent.run_sync("x")
                assert result.messages[2].parts[0].content == str(os.getpid())
                ids = [result.run_id, *(new_id() for _ in range(100))]
                os.write(writer, ("\\n".join(ids) + "\\n").encode())
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        os.close(writer)
        with open(reader) as file:
            ids = file.read().split()
        ids += [first.run_id, agent.run_sync("x").run_id, *(new_id() for _ in range(100))]
        print(len(ids), len(set(ids)))
        """
    )
    assert text == "405 405\n"


def test_ids_are_unique_across_threads_and_sort_by_their_making():
    made: list[list[str]] = [[] for _ in range(8)]
    meeting = threading.Barrier(8)

    def work(mine: list[str]) -> None:
        meeting.wait()
        mine.extend(new_id() for _ in range(5000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 40_000
    for mine in made:
        assert mine == sorted(mine)


def test_ids_of_two_processes_differ():
    text = "from gossamer.ids import new_id; print(new_id())"
    assert output_of(text).rpartition("-")[0] != output_of(text).rpartition("-")[0]


def test_importing_starts_no_thread_and_loads_nothing_heavy():
    text = output_of(
        """
        import sys, threading
        import gossamer
        heavy = {"asyncio", "httptools", "pydantic", "jiter", "prometheus_client", "uvloop", "docstring_parser"}
        print(threading.active_count(), sorted(heavy & set(sys.modules)))
        """
    )
    assert text == "1 []\n"
