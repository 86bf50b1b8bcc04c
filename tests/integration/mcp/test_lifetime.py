"""How long a connection lives, what becomes of it when its server dies, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import uvloop
from tests.integration.mcp.serving import PLAIN, calling, gone, is_alive, raw, results, until

from gossamer import Agent, Session, ToolCall
from gossamer.errors import MCPConnectionError, MCPError
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPServer, process


async def test_a_killed_server_fails_the_calls_under_way_and_the_next_call_works():
    async with MCPServer(command=PLAIN) as server:
        pid = int(await server.call("pid"))
        calls = [asyncio.ensure_future(server.call("slow", {"seconds": 60})) for _ in range(20)]
        while await server.call("count", {"name": "running"}) != "20":
            pass
        os.kill(pid, signal.SIGKILL)
        came = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in came} == {MCPConnectionError}
        assert "whether it did it is unknown: it was ended by signal SIGKILL" in str(came[0])
        both = await asyncio.gather(server.call("pid"), server.call("pid"))
        assert both[0] == both[1] != str(pid)


async def test_the_model_is_told_and_the_run_goes_on():
    server = MCPServer(command=PLAIN)
    agent = calling(ToolCall.of("die"), ToolCall.of("add", a=1, b=2), tools=[server])
    async with agent:
        told = results(await agent.run("x"))
    assert [one.outcome for one in told] == ["error", "ok"]
    assert "MCPConnectionError" in told[0].content
    assert "it ended with code 7; it said last:" in told[0].content
    assert "about to die" in told[0].content
    assert told[1].content == "3"


async def test_a_server_killed_while_nobody_asks_is_started_again():
    async with MCPServer(command=PLAIN) as server:
        pid = int(await server.call("pid"))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{pid}").exists())
        assert await server.call("add", {"a": 1, "b": 2}) == "3"


async def test_a_server_that_dies_at_every_call_is_started_again_and_again():
    async with MCPServer(command=raw("dies")) as server:
        for _ in range(3):
            with pytest.raises(MCPConnectionError, match="out of memory"):
                await server.call("echo", {"n": 1})


async def test_closing_ends_the_process_and_what_it_started():
    async with MCPServer(command=raw("grandchild")) as server:
        await server.call("echo", {"n": 1})
        pid = only_child()
        family = group(pid)
        assert len(family) == 2
    for one in family:
        await gone(one)


async def test_a_server_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.1)
    async with MCPServer(command=raw("stubborn")) as server:
        pid = int(await server.call("echo", {"n": 1}))
    await gone(pid)


async def test_nobody_having_the_server_any_more_ends_it():
    server = MCPServer(command=PLAIN)
    pid = int(await server.call("pid"))
    assert is_alive(pid)
    del server
    gc.collect()
    await gone(pid)


async def test_a_scope_ends_it():
    agent = calling(ToolCall.of("pid"), tools=[MCPServer(command=PLAIN, scope="run")])
    (told,) = results(await agent.run("x"))
    await gone(int(told.content))
    agent = calling(ToolCall.of("pid"), tools=[MCPServer(command=PLAIN, scope="session", timeout=None)])
    session = Session()
    (told,) = results(await agent.run("x", session=session))
    assert is_alive(int(told.content))
    del session
    gc.collect()
    await gone(int(told.content))


async def test_a_run_cancelled_while_it_connects_leaves_nothing():
    agent = calling(ToolCall.of("echo", n=1), tools=[MCPServer(command=raw("silent"), scope="run")])
    running = asyncio.ensure_future(agent.run("x"))
    await until(lambda: only_child() is not None)
    pid = only_child()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(pid)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_run_cancelled_at_any_step_of_starting_it_leaves_nothing_open(loop, monkeypatch):
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def cancel_after(steps: int) -> None:
        began = asyncio.Event()
        here = asyncio.get_running_loop()

        def start(settings):
            popen = really_start(settings)
            here.call_soon_threadsafe(began.set)
            return popen

        monkeypatch.setattr(process, "_start", start)
        server = MCPServer(command=raw("plain"))
        calling = asyncio.ensure_future(server.call("echo", {"n": 1}))
        await began.wait()
        pid = only_child()
        for _ in range(steps):
            await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        del server
        await gone(pid)

    async def use() -> None:
        await cancel_after(0)
        before = opened()
        for steps in range(12):
            await cancel_after(steps)
        gc.collect()
        await until(lambda: opened() <= before)

    really_start = process._start
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(use())


def test_the_end_of_a_loop_ends_it(watch):
    watch.patience = 0  # the connection is to live as long as its loop
    server = MCPServer(command=PLAIN)

    async def use() -> int:
        return int(await server.call("pid"))

    pid = asyncio.run(use())
    assert not is_alive(pid)
    other = asyncio.run(use())
    assert other != pid
    assert not is_alive(other)
    watch.leaked_tasks.clear()


@pytest.mark.parametrize("ending", ["sys.exit(3)", "loop.stop()", "os.kill(os.getpid(), signal.SIGINT)"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_end_of_python_ends_it(loop, ending):
    program = f"""
        import asyncio, os, signal, sys, {loop}
        from gossamer.tools.mcp import MCPServer
        loop = {loop}.new_event_loop()
        server = MCPServer(command={PLAIN!r})
        async def use():
            print(await server.call("pid"), flush=True)
            {ending}
        task = loop.create_task(use())
        loop.run_forever()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    asyncio.run(gone(int(done.stdout)))


async def test_standard_error_goes_to_the_log_and_not_to_the_terminal(caplog, capfd):
    caplog.set_level("INFO", "gossamer")
    async with MCPServer(command=raw("talks"), name="talker") as server:
        assert await server.call("echo", {"n": 1}) == "1"
        await until(lambda: "second line" in caplog.text)
    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("MCP server talker: ")]
    assert lines[-1] == "MCP server talker: second line"
    assert sum(one.count("x") for one in lines) == 5000
    assert max(map(len, lines)) < 2_100
    assert capfd.readouterr() == ("", "")


async def test_the_log_has_a_bound(caplog):
    caplog.set_level("INFO", "gossamer")
    async with MCPServer(command=raw("many-lines")) as server:
        await server.call("echo", {"n": 1})
        await until(lambda: "said more than 10000 lines" in caplog.text)
    assert len(caplog.records) < 10_100


async def test_the_environment_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    async with MCPServer(command=PLAIN, env={"CITY": "Graz"}, cwd="/") as server:
        assert await server.call("environment", {"name": "OPENAI_API_KEY"}) == "not set"
        assert await server.call("environment", {"name": "CITY"}) == "Graz"


async def test_programs_that_cannot_be_started():
    for command, words in [
        (["/no/such/program"], "No such file"),
        ([os.devnull], "Permission denied"),
        (["a\0b"], "null byte"),
    ]:
        server = MCPServer(command=command, name="none")
        with pytest.raises(MCPError, match=f"'none' cannot be started: .*{words}"):
            await server.call("x")
        with pytest.raises(MCPError, match="cannot be started"):
            await calling(then="x", tools=[server]).run("x")


def test_run_sync_leaves_nothing_and_says_nothing():
    program = f"""
        from gossamer import Agent, ToolCall
        from gossamer.models import ScriptedModel
        from gossamer.tools.mcp import MCPServer
        agent = Agent(ScriptedModel([ToolCall.of("pid"), "ok"]), tools=[MCPServer(command={PLAIN!r})])
        print(agent.run_sync("x").messages[2].parts[0].content)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr == ""
    assert not is_alive(int(ran.stdout))


def test_it_works_on_uvloop():
    async def use() -> None:
        async with MCPServer(command=PLAIN) as server:
            pid = int(await server.call("pid"))
            calls = [asyncio.ensure_future(server.call("slow", {"seconds": 60})) for _ in range(3)]
            while await server.call("count", {"name": "running"}) != "3":
                pass
            os.kill(pid, signal.SIGKILL)
            came = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(one) for one in came} == {MCPConnectionError}
            many = await asyncio.gather(*[server.call("add", {"a": n, "b": 0}) for n in range(100)])
            assert many == [str(n) for n in range(100)]
            with pytest.raises(MCPConnectionError):
                await server.call("die")
            assert await server.call("add", {"a": 1, "b": 2}) == "3"
        async with MCPServer(command=raw("floods"), max_message_bytes=1_000_000) as server:
            with pytest.raises(MCPConnectionError, match="more than 1000000 bytes"):
                await server.call("echo", {"n": 1})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


def test_the_package_loads_at_the_first_use_and_its_absence_is_told():
    program = """
        import asyncio, sys
        from gossamer.tools.mcp import MCPServer
        server = MCPServer(command=["x"])
        assert not {"mcp", "httpx2", "anyio", "pydantic", "jsonschema"} & set(sys.modules)
        sys.modules["mcp"] = None
        try:
            asyncio.run(server.call("x"))
        except Exception as error:
            print(type(error).__name__, error)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    ).stdout
    assert "ToolkitError" in out
    assert "pip install 'gossamer[mcp]'" in out


def processes() -> list[tuple[int, int, int, str]]:
    """All processes: id, parent, group, command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            found.append((int(folder.name), int(parent), int(group), words))
    return found


def group(pid: int | None) -> list[int]:
    """The processes of a process group."""
    return [one for one, _, owner, _ in processes() if owner == pid]


def only_child() -> int | None:
    """The one server of the standard library that this process has started."""
    return next(
        (one for one, parent, _, said in processes() if parent == os.getpid() and "raw_server" in said), None
    )


async def test_tools_that_change_while_it_connects_are_there():
    model = ScriptedModel(lambda request: "done")
    agent = Agent(model, tools=[MCPServer(command=raw("late-tool"))])
    async with agent, asyncio.timeout(20):
        while True:
            await agent.run("x")
            if [one.name for one in model.requests[-1].tools] == ["echo", "second"]:
                break
            await asyncio.sleep(0.01)


async def test_an_answer_does_not_wait_for_tools_that_never_come():
    agent = calling(ToolCall.of("echo", n=1), tools=[MCPServer(command=raw("lists-once"), timeout=2)])
    async with agent:
        (told,) = results(await agent.run("x"))
    assert (told.outcome, told.content) == ("ok", "1")


async def test_who_waits_for_a_connection_that_is_closed_is_told():
    async with MCPServer(command=PLAIN).open() as connection:
        with pytest.raises(MCPConnectionError):
            await connection.call("die", {})
        asking = asyncio.ensure_future(connection.ask("prompts", lambda session: session.list_prompts()))
        await asyncio.sleep(0)  # it has begun to wait for the next connection
    with pytest.raises(MCPConnectionError, match="the connection was closed"):
        await asking
