"""Tools of MCP servers in runs: over standard streams and over HTTP, as toolkits like any other."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.mcp.serving import PLAIN, calling, http_server, raw, results

from gossamer import Agent, ArgumentError, Image, Message, Session, Text, ToolCall, Toolkit, tool
from gossamer.errors import MCPBusyError, MCPError, MCPTimeoutError, MCPToolError
from gossamer.events import ToolProgress
from gossamer.messages import Audio, File
from gossamer.models import ScriptedModel
from gossamer.tools.mcp import MCPPrompt, MCPPromptArgument, MCPServer


@pytest.fixture(params=["stdio", "http"])
async def reach(request):
    """How to reach a plain server: over standard streams, or over HTTP."""
    if request.param == "stdio":
        yield {"command": PLAIN, "name": "plain"}
    else:
        async with http_server() as server:
            yield {"url": server.url, "name": "plain"}


def names(model: ScriptedModel) -> list[str]:
    return [one.name for one in model.requests[-1].tools]


async def test_a_run_uses_the_tools_of_a_server(reach):
    server = MCPServer(**reach)
    calls = [
        ToolCall.of("add", a=2, b=3),
        ToolCall.of("picture"),
        ToolCall.of("mixed"),
        ToolCall.of("fails"),
        ToolCall.of("huge", size=120_000),
        ToolCall.of("shop_items_list_now_efc94af3"),
    ]
    agent = calling(*calls, tools=[server])
    async with agent:
        result = await agent.run("x")
    told = results(result)
    assert result.output == "done"
    assert told[0].content == "5"
    assert isinstance(told[1].content[0], Image)
    assert told[1].content[0].data.startswith(b"\x89PNG")
    text, sound, note, file, link = told[2].content
    assert (text, note, link) == (Text("first"), Text("a note"), Text("[two](note://2): another note"))
    assert isinstance(sound, Audio)
    assert isinstance(file, File)
    assert (file.name, file.data) == ("report.pdf", b"%PDF-1")
    assert told[3].outcome == "error"
    assert "fails failed: MCPToolError: Error executing tool fails" in told[3].content
    assert "120000 characters in all, kept as offload-1" in told[4].content
    assert told[5].content == "listed"
    request = agent.model.requests[0]
    assert request.instructions == "Use add for sums."
    add = next(one for one in request.tools if one.name == "add")
    assert add.description == "Add two numbers."
    assert add.parameters["properties"]["a"] == {"title": "A", "type": "integer"}
    assert add.parameters["required"] == ["a", "b"]


async def test_arguments_are_checked_before_they_are_sent(tmp_path):
    log = tmp_path / "log"
    server = MCPServer(command=raw("plain", str(log)))
    calls = [
        ToolCall("echo", '{"n": "three"}'),
        ToolCall("echo", '{"m": 3}'),
        ToolCall("echo", "[1"),
        ToolCall("echo", '{"n": 4}'),
    ]
    agent = calling(*calls, tools=[server])
    async with agent:
        told = results(await agent.run("x"))
    assert [one.outcome for one in told] == ["error", "error", "error", "ok"]
    assert "Invalid arguments for echo: 'three' is not of type 'integer' - at `$.n`" in told[0].content
    assert "'n' is a required property" in told[1].content
    assert "Invalid arguments for echo" in told[2].content
    assert told[3].content == "4"
    assert log.read_text() == "called echo\n"


async def test_a_server_is_a_toolkit_like_any_other():
    @tool(inline=True)
    def echo(n: int) -> str:
        """Say n in our words."""
        return f"ours {n}"

    async def tell(server: MCPServer) -> list[str]:
        agent = calling(then="x", tools=[echo, server])
        async with agent:
            await agent.run("x")
        return names(agent.model)

    command = raw("plain")
    with pytest.raises(ArgumentError, match="two tools are called 'echo'"):
        await tell(MCPServer(command=command, name="raw"))
    assert await tell(MCPServer(command=command, name="raw", on_clash="rename")) == ["echo", "raw_echo"]
    assert await tell(MCPServer(command=command, name="raw", on_clash="skip")) == ["echo"]
    assert await tell(MCPServer(command=command, exclude=["echo"])) == ["echo"]
    with pytest.raises(ArgumentError, match="toolkit 'raw_server' has no tool ech; it has echo"):
        await tell(MCPServer(command=command, include=["ech"]))


@pytest.mark.parametrize("needs", [True, lambda n: n > 3])
async def test_a_person_may_have_to_approve(needs):
    from gossamer import Approve, Deny

    server = MCPServer(command=raw("plain"), needs_approval=needs)
    agent = calling(ToolCall.of("echo", n=4), ToolCall.of("echo", n=5), tools=[server])
    session = Session()
    async with agent:
        paused = await agent.run("x", session=session)
        (pending,) = paused.pending
        assert (pending.kind, pending.call.name) == ("approval", "echo")
        paused = await agent.resume(session, {pending.call_id: Approve()})
        (pending,) = paused.pending
        result = await agent.resume(session, {pending.call_id: Deny("no")})
    told = results(result)
    assert [one.outcome for one in told] == ["ok", "denied"]
    assert told[0].content == "4"


async def test_changed_tools_are_there_at_the_next_turn(reach):
    server = MCPServer(**reach, include=["add", "learn", "learned", "forget"])
    with pytest.raises(ArgumentError, match="has no tool learned"):
        async with server:
            await calling(then="x", tools=[server]).run("x")
    server = MCPServer(**reach)
    agent = calling(ToolCall.of("learn"), ToolCall.of("learned"), ToolCall.of("forget"), tools=[server])
    async with agent:
        result = await agent.run("x")
    if "command" in reach:  # over HTTP the announcement comes on another way, and perhaps later
        assert [one.content for one in results(result)] == ["learned", "new", "forgotten"]
        assert "learned" in [one.name for one in agent.model.requests[1].tools]
    assert "add" in [one.name for one in agent.model.requests[2].tools]


async def test_an_included_tool_may_go():
    server = MCPServer(command=PLAIN, include=["add", "forget"])
    agent = calling(ToolCall.of("forget"), tools=[server])
    async with agent:
        await agent.run("x")
    assert [[one.name for one in request.tools] for request in agent.model.requests] == [
        ["add", "forget"],
        ["forget"],
    ]


async def test_progress_is_told_while_a_tool_runs(reach):
    server = MCPServer(**reach)
    agent = calling(ToolCall.of("steps", many=3), tools=[server])
    told = []
    async with agent, agent.stream("x") as stream:
        told += [event.value async for event in stream if isinstance(event, ToolProgress)]
    assert told == [{"progress": n, "total": 3, "message": f"step {n}"} for n in (1, 2, 3)]
    assert results(stream.result)[0].content == "walked"


async def test_a_hundred_calls_at_once(reach):
    server = MCPServer(**reach, max_concurrent=100)
    calls = [ToolCall.of("add", a=n, b=n) for n in range(100)]
    agent = Agent(ScriptedModel([calls, "done"]), tools=[server])
    async with agent:
        told = results(await agent.run("x"))
    assert [one.content for one in told] == [str(2 * n) for n in range(100)]


async def test_calls_wait_for_a_place_up_to_a_bound():
    server = MCPServer(command=PLAIN, max_concurrent=3, max_waiting=4)
    async with server:
        calls = [server.call("slow", {"seconds": 0.05}) for _ in range(9)]
        came = await asyncio.gather(*calls, return_exceptions=True)
        most = await server.call("count", {"name": "most"})
        refused = [one for one in came if isinstance(one, MCPBusyError)]
        assert came.count("done") == 7
        assert len(refused) == 2
        assert "3 calls are under way and 4 wait; raise max_concurrent" in str(refused[0])
        assert most == "3"


async def test_a_call_that_takes_too_long_is_given_up(tmp_path):
    log = tmp_path / "log"
    server = MCPServer(command=raw("deaf", str(log)), timeout=0.2)
    agent = calling(ToolCall.of("echo", n=1), tools=[server])
    async with agent:
        (told,) = results(await agent.run("x"))
        with pytest.raises(MCPTimeoutError, match=r"echo took longer than 0\.2 seconds"):
            await server.call("echo", {"n": 1})
    assert told.outcome == "timeout"
    assert log.read_text().splitlines() == ["called", "cancelled"] * 2


async def test_a_cancelled_run_tells_the_server_and_frees_its_place(reach):
    server = MCPServer(**reach, max_concurrent=2, max_waiting=0)
    agent = calling(ToolCall.of("slow", seconds=60), tools=[server])
    async with agent:
        running = asyncio.ensure_future(agent.run("x"))
        await counted(server, running=1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await counted(server, running=0, cancelled=1)
        both = [server.call("slow", {"seconds": 0.01}) for _ in range(2)]
        assert await asyncio.gather(*both) == ["done", "done"]


async def counted(server: MCPServer, **counts: int) -> None:
    """Wait until the server counts this."""
    async with asyncio.timeout(20):
        for name, count in counts.items():
            while await server.call("count", {"name": name}) != str(count):
                await asyncio.sleep(0.01)


async def test_resources_and_prompts(reach):
    async with MCPServer(**reach) as server:
        found = await server.list_resources()
        assert [(one.uri, one.media_type) for one in found] == [
            ("note://1", "text/plain"),
            ("picture://1", "image/png"),
        ]
        assert found[0].description == "The first note"
        assert await server.read_resource("note://1") == (Text("buy milk"),)
        (shown,) = await server.read_resource("picture://1")
        assert isinstance(shown, Image)
        (prompt,) = await server.list_prompts()
        assert prompt == MCPPrompt(
            "review", "Review some code.", (MCPPromptArgument("code", "", required=True),)
        )
        (message,) = await server.prompt("review", {"code": "x = 1"})
        assert (message.role, message.text) == ("user", "Review this: x = 1")
        with pytest.raises(MCPError, match="Unknown resource: note://9"):
            await server.read_resource("note://9")
        with pytest.raises(MCPError):
            await server.prompt("review", {})
        with pytest.raises(MCPToolError, match="Unknown tool: nothing"):
            await server.call("nothing")
        agent = calling(then="fine")
        assert (await agent.run([message])).output == "fine"
        assert isinstance(agent.model.requests[0].messages[0], Message)


async def test_one_connection_serves_all_runs_and_a_scope_its_own():
    server = MCPServer(command=PLAIN, include=["pid"])
    agent = Agent(
        ScriptedModel(lambda r: ToolCall.of("pid") if len(r.messages) == 1 else "x"), tools=[server]
    )
    async with agent:
        first, second = await asyncio.gather(agent.run("x"), agent.run("x"))
        assert results(first)[0].content == results(second)[0].content
    server = MCPServer(command=PLAIN, include=["pid"], scope="run")
    agent = Agent(agent.model, tools=[server])
    first, second = await asyncio.gather(agent.run("x"), agent.run("x"))
    assert results(first)[0].content != results(second)[0].content


async def test_what_a_server_says_of_itself_can_be_left_out():
    agent = calling(then="x", tools=[MCPServer(command=PLAIN, take_instructions=False)])
    async with agent:
        await agent.run("x")
    assert agent.model.requests[0].instructions is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either command="),
        ({"command": ["x"], "url": "http://x"}, "either command="),
        ({"command": "npx server"}, "command must be a list of texts"),
        ({"url": "ftp://x"}, "url must begin with http"),
        ({"command": ["x"], "headers": {"a": "b"}}, "headers is for url only"),
        ({"url": "http://x", "env": {"a": "b"}}, "env is for command only"),
        ({"command": ["x"], "timeout": 0}, "timeout must be above 0"),
        ({"command": ["x"], "max_concurrent": 0}, "max_concurrent must be at least 1"),
        ({"command": ["x"], "scope": "day"}, "scope must be one of"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        MCPServer(**arguments)


def test_names_and_secrets():
    named = {
        ("npx", "-y", "@modelcontextprotocol/server-filesystem@1.2", "/data"): "server-filesystem",
        ("uvx", "mcp-server-time"): "mcp-server-time",
        ("python", "-m", "my_server"): "my_server",
        ("/usr/bin/python3", "/opt/weather.py"): "weather",
        ("./serve",): "serve",
        ("env", "API_KEY=swordfish", "my-server"): "my-server",
    }
    for command, name in named.items():
        assert MCPServer(command=command).name == name
    server = MCPServer(
        url="https://ada:pw@example.com:8443/mcp?key=secret", headers={"authorization": "Bearer secret"}
    )
    assert server.name == "example_com_8443"
    assert "secret" not in repr(server)
    assert "pw" not in repr(server)
    assert isinstance(server, Toolkit)
    assert server.replace(scope="run").scope == "run"
