"""Code mode: a model writes Python, and each call in it goes the way of any other call of a tool."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
import pytest
from tests.code_sandboxes import InProcess, bubblewrap, every_sandbox, kind, sandbox

from gossamer import (
    Agent,
    Image,
    Message,
    Middleware,
    RunContext,
    Session,
    Text,
    ToolCall,
    Toolkit,
    Usage,
    code_mode,
    handoff,
    tool,
)
from gossamer.errors import (
    ArgumentError,
    ModelRetry,
    SandboxBusyError,
    SandboxTimeoutError,
    SandboxUnavailableError,
    ToolError,
)
from gossamer.models import ModelSettings, ScriptedModel
from gossamer.sandbox import Execution
from gossamer.schema import HostedTool, ToolSchema
from gossamer.tools import Tool

__all__ = ["bubblewrap", "every_sandbox", "kind", "sandbox"]


def run(code: str) -> ToolCall:
    return ToolCall.of("run_code", code=code)


def came_of(result) -> list:
    """The results of the tools that the model called itself."""
    return [part for message in result.messages if message.role == "tool" for part in message.parts]


async def told(sandbox, code: str, tools, **options) -> str:
    """What the model is told of a piece of code."""
    agent = code_mode(Agent(ScriptedModel([run(code), "done"]), tools=tools), sandbox)
    result = await agent.run("x", **options)
    assert result.output == "done"
    return came_of(result)[0].text


@tool
async def double(number: int) -> int:
    """Double a number.

    Args:
        number: the number.
    """
    await asyncio.sleep(0)
    return number * 2


# --- steps ------------------------------------------------------------------------------------------------


async def test_twenty_calls_cost_one_turn_of_the_model(every_sandbox) -> None:
    code = "total = 0\nfor number in range(20):\n    total += await double(number)\nprint('total', total)\ntotal / 2"
    model = ScriptedModel([run(code), "The total is 380."])
    session = Session()
    result = await code_mode(Agent(model, tools=[double]), every_sandbox).run("x", session=session)
    assert result.output == "The total is 380."
    assert came_of(result)[0].text == "total 380\n190.0"
    # One call of the model for the code, one for the answer; the code itself is a tool call too.
    assert result.usage == Usage(model_calls=2, tool_calls=21, unpriced_calls=result.usage.unpriced_calls)
    inner = session.child(came_of(result)[0].call_id)
    calls = [call for message in inner.messages for call in message.tool_calls]
    assert [call.arguments for call in calls] == [f'{{"number":{number}}}' for number in range(20)]
    assert session.usage == result.usage


async def test_calls_that_are_gathered_are_one_step_and_run_at_the_same_time(every_sandbox) -> None:
    together = asyncio.Barrier(3)

    @tool
    async def meet(name: str) -> str:
        await together.wait()
        return name

    code = "import asyncio\nawait asyncio.gather(meet('a'), meet('b'), meet('c'))"
    session = Session()
    agent = code_mode(Agent(ScriptedModel([run(code), "done"]), tools=[meet]), every_sandbox)
    result = await agent.run("x", session=session)
    assert came_of(result)[0].text == "['a', 'b', 'c']"
    inner = session.child(came_of(result)[0].call_id)
    assert [len(message.tool_calls) for message in inner.messages] == [0, 3, 0, 0]


async def test_two_pieces_of_code_in_one_turn_run_at_the_same_time(sandbox) -> None:
    together = asyncio.Barrier(2)

    @tool
    async def meet() -> str:
        await together.wait()
        return "met"

    code = run("await meet()")
    agent = code_mode(Agent(ScriptedModel([[code, code], "done"]), tools=[meet]), sandbox)
    result = await agent.run("x")
    assert [part.text for part in came_of(result)] == ["'met'", "'met'"]
    assert result.usage.tool_calls == 4


async def test_a_bound_on_the_steps_of_one_piece_of_code(sandbox) -> None:
    code = "for number in range(9):\n    await double(number)"
    agent = code_mode(Agent(ScriptedModel([run(code), "done"]), tools=[double]), sandbox, max_steps=3)
    result = await agent.run("x")
    part = came_of(result)[0]
    assert part.outcome == "error"
    assert "waited for calls more than 3 times" in part.text
    assert '- double {"number":2}: 4' in part.text
    assert result.usage.tool_calls == 4


async def test_a_bound_on_the_results_of_one_piece_of_code(sandbox) -> None:
    called = []

    @tool
    async def large() -> str:
        """Give much."""
        called.append(1)
        return "x" * 999_000

    agent = code_mode(
        Agent(ScriptedModel([run("while True:\n    await large()"), "done"]), tools=[large]), sandbox
    )
    part = came_of(await agent.run("x"))[0]
    assert part.outcome == "error"
    assert "more than 16,000,000 characters together" in part.text
    assert len(called) == 17


class Hit(msgspec.Struct):
    url: str
    score: float = 0.0


# --- what the model sees ------------------------------------------------------------------------------------


async def test_the_model_sees_tools_as_functions_in_place_of_tools() -> None:
    @tool
    async def search(query: str, limit: int = 10, kind: Literal["web", "news"] = "web") -> list[Hit]:
        """Search.

        Args:
            query: what for
        """
        return []

    model = ScriptedModel([run("1"), "done"])
    agent = code_mode(Agent(model, tools=[search, double, HostedTool("web_search")]), InProcess())
    await agent.run("x")
    first, second = model.requests
    assert [one.name for one in first.tools] == ["run_code", "web_search"]
    assert first.tools is second.tools  # what dialects encoded of them, and the provider's cache, live by it
    again = ScriptedModel(["done"])
    await agent.replace(model=again).run("x")
    assert again.requests[0].tools is first.tools
    seen = first.tools[0]
    assert isinstance(seen, ToolSchema)
    assert list(seen.parameters["properties"]) == ["code"]
    functions = seen.description.partition("\n\n")[2]
    assert functions == (
        "class Hit(TypedDict):\n"
        "    url: str\n"
        "    score: NotRequired[float]\n"
        "\n"
        "async def search(query: str, limit: int = 10, kind: Literal['news', 'web'] = 'web') -> list[Hit]:\n"
        '    """Search.\n'
        "\n"
        "    query: what for\n"
        '    """\n'
        "\n"
        "async def double(number: int) -> int:\n"
        '    """Double a number.\n'
        "\n"
        "    number: the number.\n"
        '    """'
    )


async def test_names_that_no_python_code_could_write() -> None:
    schema = {
        "type": "object",
        "properties": {"from": {"type": "string"}, "user-id": {"type": "integer"}, "x y": {}},
        "required": ["user-id"],
    }
    seen = []

    def server_tool(name: str) -> Tool:
        def invoke(_, arguments):
            seen.append((name, arguments))
            return "ok"

        plain = tool(inline=True, name=name)(lambda: "")
        return plain.replace(schema=ToolSchema(name, "", schema), decode=msgspec.json.decode, invoke=invoke)

    names = ("list-files", "print", "class", "2nd", "list_files")
    model = ScriptedModel(
        [
            run(
                "print(await list_files(1))\nawait print_(2, from_='a')\nawait class_(user_id=3, x_y=4)\n"
                "await _2nd(5, 'b')\nawait list_files_(6)"
            ),
            "done",
        ]
    )
    agent = code_mode(Agent(model, tools=[server_tool(name) for name in names]), InProcess())
    result = await agent.run("x")
    assert came_of(result)[0].text == "ok\n'ok'"
    assert seen == [
        ("list-files", {"user-id": 1}),
        ("print", {"user-id": 2, "from": "a"}),
        ("class", {"user-id": 3, "x y": 4}),
        ("2nd", {"user-id": 5, "from": "b"}),
        ("list_files", {"user-id": 6}),
    ]
    words = model.requests[0].tools[0].description
    assert "async def print_(user_id: int, from_: str = ..., x_y: Any = ...) -> Any: ..." in words


async def test_a_tool_with_a_name_of_python_s_own_leaves_code_as_it_is(every_sandbox) -> None:
    named = [tool(inline=True, name=name)(lambda: "ok") for name in ("__builtins__", "__name__", "open")]
    model = ScriptedModel(
        [run("print(len('abc'), await _builtins__(), await _name__(), await open_())"), "done"]
    )
    result = await code_mode(Agent(model, tools=named), every_sandbox).run("x")
    assert came_of(result)[0].text == "3 ok ok ok"


async def test_tools_that_a_function_gives_and_tools_of_a_run() -> None:
    model = ScriptedModel([run("await double(2)"), "done", ToolCall.of("double", number=4), "done"])
    agent = code_mode(Agent(model, tools=lambda context: [double]), InProcess())
    assert came_of(await agent.run("x"))[0].text == "4"
    # Others in their place are called one by one.
    assert came_of(await agent.run("x", tools=[double]))[0].text == "8"
    assert [one.name for one in model.requests[2].tools] == ["double"]


async def test_what_middleware_leaves_out_is_no_function() -> None:
    class Leaving(Middleware):
        async def model(self, context, request, next):
            tools = tuple(one for one in request.tools if one.name == "double")
            return await next(msgspec.structs.replace(request, tools=tools))

    @tool(inline=True)
    def hidden() -> str:
        return "x"

    model = ScriptedModel([run("await double(2)"), "done"])
    agent = Agent(model, tools=[hidden, double], middleware=[Leaving()])
    assert came_of(await code_mode(agent, InProcess()).run("x"))[0].text == "4"
    (seen,) = model.requests[0].tools
    assert "async def double" in seen.description
    assert "hidden" not in seen.description


async def test_a_tool_that_is_to_be_called_first_is_called_by_code() -> None:
    for chosen, asked in (("double", "run_code"), ("run_code", "run_code"), ("required", "required")):
        model = ScriptedModel([run("await double(1)"), "done"])
        settings = ModelSettings(tool_choice=chosen)
        await code_mode(Agent(model, tools=[double], settings=settings), InProcess()).run("x")
        assert [request.tool_choice for request in model.requests] == [asked, None]


async def test_toolkits_are_opened_once_and_switched_under_way() -> None:
    opened = []

    @tool(inline=True)
    def where() -> str:
        return "here"

    class Opening:
        async def __aenter__(self):
            opened.append(1)
            return [where]

        async def __aexit__(self, *_):
            opened.append(-1)

    far = Toolkit("far", open=Opening, scope="session")
    more = Toolkit("more", [double], on=False, switchable=True)
    model = ScriptedModel(
        [
            run("print(await where())\nawait switch_toolkit('more', True)"),
            run("print(await where(), await double(4))"),
            "done",
        ]
    )
    session = Session()
    result = await code_mode(Agent(model, tools=[far, more]), InProcess()).run("x", session=session)
    assert [part.text for part in came_of(result)] == [
        "here\n'more is on from your next answer on.'",
        "here 8",
    ]
    words = [request.tools[0].description for request in model.requests]
    assert "async def double" not in words[0]
    assert "async def double" in words[1]
    assert session.switches == {"more": True}
    assert opened == [1]
    await session.aclose()
    assert opened == [1, -1]


async def test_a_tool_that_the_model_calls_all_the_same_runs() -> None:
    model = ScriptedModel([[ToolCall.of("double", number=3), ToolCall.of("tripple", number=3)], "done"])
    result = await code_mode(Agent(model, tools=[double]), InProcess()).run("x")
    assert came_of(result)[0].text == "6"
    assert "There is no tool called 'tripple'" in came_of(result)[1].text


# --- values ---------------------------------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int
    tags: list[str] = []


def returning(value, hint=None) -> Tool:
    def give():
        return value

    if hint is not None:
        give.__annotations__["return"] = hint
    return tool(inline=True)(give)


@pytest.mark.parametrize(
    ("value", "hint", "seen"),
    [
        ('{"a": 1}', str, "'{\"a\": 1}'"),
        ('{"a": 1}', None, "{'a': 1}"),
        (' {"a": 1}', None, "' {\"a\": 1}'"),
        ("[1, x]", None, "'[1, x]'"),
        ("5", None, "'5'"),
        ("5", Literal["5", "6"], "'5'"),
        (5, int, "5"),
        (5, None, "'5'"),
        (0.5, float, "0.5"),
        (True, bool, "True"),
        (None, type(None), "None"),
        (None, str | None, "None"),
        ("", str | None, "None"),
        ("", str, "''"),
        ("x", str | None, "'x'"),
        ([1, "a"], list, "[1, 'a']"),
        ({"a": [None]}, dict[str, list], "{'a': [None]}"),
        (Point(1, ["t"]), Point, "{'x': 1, 'tags': ['t']}"),
        (Point(1, ["t"]), Point | None, "{'x': 1, 'tags': ['t']}"),
        ((1, 2), None, "[1, 2]"),
        ("no JSON", list, "'no JSON'"),
        ([Text("see "), Image(data=b"\x89PNG")], None, "'see [image, image/png: not to be seen from code]'"),
        (Image(data=b"\x89PNG"), Image, "'[image, image/png: not to be seen from code]'"),
    ],
)
async def test_what_a_tool_returned_is_what_code_gets(sandbox, value, hint, seen: str) -> None:
    words = await told(sandbox, "print(repr(await give()))", [returning(value, hint)])
    assert words == seen


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ("await put(1, 'b')", "(1, 'b', None)"),
        ("await put(1, c=[1.5, {'k': None}], b='b')", "(1, 'b', [1.5, {'k': None}])"),
        ("await put(a=1, b='é')", "(1, 'é', None)"),
        ("await put()", "Invalid arguments for put: Object missing required field `a`"),
        ("await put('x', 'b')", "Invalid arguments for put: Expected `int`, got `str`"),
        ("await put(1, 'b', d=2)", "Invalid arguments for put: Object contains unknown field `d`"),
        ("await put(1, 'b', None, 4)", "put() was given 4 arguments by place; its parameters: a, b, c"),
        ("await put(1, 'b', a=2)", "put() was given 'a' twice"),
        ("await put(1, 'b', float('nan'))", "put(): its arguments have no JSON form: Out of range"),
        ("await put(1, 'b', b'x')", "put(): its arguments have no JSON form"),
        ("await put(10 ** 30, 'b')", f"({10**30}, 'b', None)"),
        ("await put(1, '\\ud800')", "put(): its arguments have no JSON form"),
    ],
)
async def test_what_code_gives_is_what_a_tool_takes(call: str, seen: str) -> None:
    @tool(inline=True)
    def put(a: int, b: str, c: Any = None) -> str:
        return repr((a, b, c))

    code = f"try:\n    print({call})\nexcept RuntimeError as error:\n    print(error)"
    assert (await told(InProcess(), code, [put])).startswith(seen)


async def test_errors_of_tools_are_errors_in_the_code(every_sandbox) -> None:
    @tool(inline=True, retries=0)
    def fail(how: str) -> str:
        raise ModelRetry("Say it better.") if how == "retry" else ValueError("no such thing")

    code = (
        "for how in ('retry', 'retry', 'error'):\n    try:\n        await fail(how)\n"
        "    except RuntimeError as error:\n        print(error)"
    )
    words = await told(every_sandbox, code, [fail])
    assert words.splitlines() == [
        "Say it better.",
        "Say it better.",
        "fail failed: ValueError: no such thing",
    ]


async def test_a_tool_that_no_model_can_mend_ends_the_run(sandbox) -> None:
    @tool(inline=True)
    def fail() -> str:
        raise ToolError("the disk is full")

    agent = code_mode(Agent(ScriptedModel([run("await fail()")]), tools=[fail]), sandbox)
    with pytest.raises(ToolError, match="the disk is full"):
        await agent.run("x")


# --- what comes of code ---------------------------------------------------------------------------------------


async def test_code_that_fails_is_told_and_may_be_mended(every_sandbox) -> None:
    model = ScriptedModel(
        [
            run("this is no Python"),
            run("print('so far')\nawait double(1)\n1 / 0"),
            run("print('fine')"),
            "done",
        ]
    )
    result = await code_mode(Agent(model, tools=[double]), every_sandbox).run("x")
    wrong, broken, fine = came_of(result)
    assert [part.outcome for part in (wrong, broken, fine)] == ["error", "error", "ok"]
    assert wrong.text.startswith("The code failed: ")
    assert "SyntaxError" in wrong.text
    assert "ZeroDivisionError" in broken.text
    assert "It had printed:\nso far" in broken.text
    assert 'which are not undone:\n- double {"number":1}: 2' in broken.text
    assert fine.text == "fine"


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("x = 1", "The code ran and showed nothing; print what you need to see, or end with an expression."),
        ("'a'", "'a'"),
        ("print('a')\n2", "a\n2"),
        ("  \n", "The code failed: it is empty"),
    ],
)
async def test_what_the_model_is_told(sandbox, code: str, seen: str) -> None:
    assert await told(sandbox, code, [double]) == seen


async def test_nothing_is_kept_between_two_runs_of_code(every_sandbox) -> None:
    model = ScriptedModel([run("x = 1"), run("x"), "done"])
    result = await code_mode(Agent(model, tools=[double]), every_sandbox).run("x")
    assert "NameError" in came_of(result)[1].text


async def test_what_is_too_long_for_the_model_is_kept_aside_and_read_by_code() -> None:
    model = ScriptedModel(
        [
            run("for number in range(20_000):\n    print('line', number)"),
            run("print(await read_offloaded('offload-1', find='line 19998'))"),
            "done",
        ]
    )
    result = await code_mode(Agent(model, tools=[double]), InProcess()).run("x")
    first, second = came_of(result)
    assert "kept as offload-1" in first.text
    assert len(first.text) < 1_000
    assert "line 19998" in second.text
    assert "read_offloaded" in model.requests[1].tools[0].description


async def test_what_is_too_long_beside_pictures_is_cut_and_says_so() -> None:
    picture = Image(b"png")

    class Plots(InProcess):
        def session(self):
            session = super().session()

            async def execute(code, *, functions):
                return Execution(stdout="a" * 40_000 + "b" * 40_000, images=(picture,))

            session.run = execute
            return session

    model = ScriptedModel([run("plot()"), "done"])
    result = await code_mode(Agent(model, tools=[double]), Plots()).run("x")
    text, image = came_of(result)[0].content
    assert text.text == f"{'a' * 25_000}\n[30,000 characters left out]\n{'b' * 25_000}"
    assert image == picture


async def test_long_results_come_into_code_whole_up_to_a_bound() -> None:
    @tool(inline=True)
    def much(size: int) -> str:
        return "x" * size

    code = (
        "print(len(await much(1_000_000)))\ntry:\n    await much(1_000_001)\n"
        "except RuntimeError as error:\n    print(error)"
    )
    assert (await told(InProcess(), code, [much])).splitlines() == [
        "1000000",
        "much() gave more than 1,000,000 characters, which do not come into code; ask for less",
    ]


async def test_a_sandbox_that_has_no_room_is_told_and_one_that_is_not_there_ends_the_run() -> None:
    for error in (
        SandboxBusyError("no place is free"),
        SandboxTimeoutError("it took too long", stdout="so far"),
    ):
        model = ScriptedModel([run("1"), "done"])
        result = await code_mode(Agent(model, tools=[double]), InProcess(error)).run("x")
        assert came_of(result)[0].outcome == "error"
        assert came_of(result)[0].text.startswith(f"The code failed: {error}")
    gone = InProcess(SandboxUnavailableError("there are no namespaces here"))
    agent = code_mode(Agent(ScriptedModel([run("1")]), tools=[double]), gone)
    with pytest.raises(SandboxUnavailableError, match="no namespaces"):
        await agent.run("x")


# --- arguments ----------------------------------------------------------------------------------------------


def test_arguments_that_cannot_be_used() -> None:
    agent = Agent("offline", tools=[double])
    with pytest.raises(ArgumentError, match="has no tools that code could call"):
        code_mode(Agent("offline"), InProcess())
    with pytest.raises(ArgumentError, match="is it in code mode"):
        code_mode(code_mode(agent, InProcess()), InProcess())
    with pytest.raises(ArgumentError, match="max_steps must be at least 1, not 0"):
        code_mode(agent, InProcess(), max_steps=0)
    with pytest.raises(ArgumentError, match="sandbox must be a Sandbox"):
        code_mode(agent, double)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="code_mode takes an Agent, not str"):
        code_mode("offline")  # type: ignore[arg-type]


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "in a thread"])
async def test_what_is_the_run_s_own(sandbox, inline: bool) -> None:
    """Tools see the run, the session and the messages that they would see if they were called directly."""
    seen = {}

    @tool(inline=inline)
    def look(context: RunContext, note: str) -> str:
        context.session.update(note=note)
        seen.update(
            run=context.run_id,
            call=context.call.name,
            session=context.session,
            deps=context.deps,
            user=context.user,
            asked=context.messages[0].text,
        )
        return context.state["note"]

    session = Session(state={"note": ""})
    agent = code_mode(
        Agent(ScriptedModel([run("await look('a')\nawait look('b')"), "done"]), tools=[look]), sandbox
    )
    result = await agent.run("x", session=session, deps=["d"], user="ada")
    assert came_of(result)[0].text == "'b'"
    assert session.state == {"note": "b"}
    assert seen == {
        "run": result.run_id,
        "call": "look",
        "session": session,
        "deps": ["d"],
        "user": "ada",
        "asked": "x",
    }


async def test_a_word_steered_in_from_a_tool_reaches_the_model(sandbox) -> None:
    @tool(inline=True)
    def hear(context: RunContext) -> str:
        context.steer("Be quick.")
        return "heard"

    model = ScriptedModel([run("await hear()"), "done"])
    await code_mode(Agent(model, tools=[hear]), sandbox).run("x")
    assert model.requests[1].messages[-1] == msgspec.structs.replace(
        Message.user("Be quick."), created=model.requests[1].messages[-1].created
    )


async def test_handing_over_stays_beside_the_code() -> None:
    other = Agent(ScriptedModel(["It is I now."]), name="other")
    model = ScriptedModel([run("hand_over_to_other"), ToolCall.of("hand_over_to_other")])
    agent = code_mode(Agent(model, tools=[double, handoff(other, "Knows more.")]), InProcess())
    result = await agent.run("x")
    assert {one.name for one in model.requests[0].tools} == {"run_code", "hand_over_to_other"}
    assert "NameError" in came_of(result)[0].text
    assert (result.output, result.agent) == ("It is I now.", "other")
