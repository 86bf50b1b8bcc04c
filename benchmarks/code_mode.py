"""What does a call of a tool cost that code makes, beside one that a model makes, and how many turns does it save?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.floors import REPLY
from benchmarks.measure import Row, cpu_of_awaits, publish, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Message, Session, ToolCall, code_mode, tool
from gossamer.ids import new_id
from gossamer.models import ModelRequest, ModelResponse
from gossamer.sandbox import MontySandbox

PROMPT = "hello"
CALLS = 200
TURNS = 20

IN_TURN = f"for number in range({CALLS}):\n    await double(number)\n'done'"
TOGETHER = f"import asyncio\nlen(await asyncio.gather(*[double(number) for number in range({CALLS})]))"
NONE = "'done'"


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


class ScriptedCalls(PrebuiltModel):
    """Makes calls, turn by turn, then answers.

    Args:
        turns: the names and arguments of the calls of each turn.
    """

    def __init__(self, turns: list[list[tuple[str, str]]]) -> None:
        super().__init__()
        self.turns = turns

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Make the calls of the next turn."""
        done = sum(message.role == "assistant" for message in request.messages)
        if done >= len(self.turns):
            return self.answer
        calls = tuple(ToolCall(name, arguments, new_id()) for name, arguments in self.turns[done])
        return ModelResponse(Message("assistant", calls), self.answer.usage, "tool_calls", self.name)


def writing(code: str) -> ScriptedCalls:
    """A model that writes code."""
    return ScriptedCalls([[("run_code", ToolCall.of("run_code", code=code).arguments)]])


async def measured() -> list[Row]:
    """All rows."""
    async with MontySandbox() as sandbox:
        functions = {"double": double.function}

        def by_hand(code: str) -> Callable[[], Awaitable[Any]]:
            return lambda: sandbox.run(code, functions=functions)

        def by_code(code: str) -> Callable[[], Awaitable[Any]]:
            agent = code_mode(Agent(writing(code), tools=[double]), sandbox)

            async def run() -> None:
                result = await agent.run(PROMPT, session=Session())
                assert result.output == REPLY
                assert result.usage.model_calls == 2

            return run

        calls = [[("double", f'{{"number":{number}}}')] for number in range(TURNS)]
        plain = Agent(ScriptedCalls(calls), tools=[double])

        async def one_by_one() -> None:
            result = await plain.run(PROMPT, session=Session())
            assert result.usage.model_calls == TURNS + 1

        async def nothing() -> None:
            result = await Agent(PrebuiltModel()).run(PROMPT, session=Session())
            assert result.output == REPLY

        for code in (IN_TURN, TOGETHER):
            result = await code_mode(Agent(writing(code), tools=[double]), sandbox).run(PROMPT)
            assert result.usage.tool_calls == CALLS + 1, result
        cost = await cpu_of_awaits(
            {
                "hand none": by_hand(NONE),
                "hand in turn": by_hand(IN_TURN),
                "hand together": by_hand(TOGETHER),
                "code none": by_code(NONE),
                "code in turn": by_code(IN_TURN),
                "code together": by_code(TOGETHER),
                "one by one": one_by_one,
                "nothing": nothing,
            }
        )

    def a_call(kind: str, way: str) -> float:
        return (cost[f"{kind} {way}"] - cost[f"{kind} none"]) / CALLS

    plain_call = (cost["one by one"] - cost["nothing"]) / TURNS
    rows = [
        Row(
            f"a call in code, {CALLS} {words}, beside the same code with a plain function",
            "µs",
            a_call("code", way),
            a_call("hand", way),
        )
        for way, words in (("in turn", "one after another"), ("together", "gathered"))
    ]
    rows.append(Row("a call of the same tool in a turn of a model's, in a session", "µs", plain_call))
    rows.append(
        Row(
            "a run with one piece of code without calls, beside the sandbox by itself",
            "µs",
            cost["code none"],
            cost["hand none"],
        )
    )
    code = "for number in range(20):\n    await double(number)"
    async with MontySandbox() as sandbox:
        result = await code_mode(Agent(writing(code), tools=[double]), sandbox).run(PROMPT)
    assert result.usage.tool_calls == 21
    rows.append(
        Row(
            "turns of the model for 20 calls, beside one call a turn",
            "turns",
            result.usage.model_calls - 1,
            20,
            target="1",
            ok=result.usage.model_calls == 2,
        )
    )
    return rows


def main() -> None:
    publish("code_mode", run_loop(measured()))


if __name__ == "__main__":
    main()
