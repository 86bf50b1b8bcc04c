"""What does working memory cost: bringing a long history into its budget, and a turn when there is nothing to do?"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.measure import Row, publish, quick, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Message, Session, ToolCall, ToolResult
from gossamer.memory import WorkingMemory
from gossamer.models import Capabilities, ModelResponse, ScriptedModel
from gossamer.usage import Usage

COUNT = 1_000
RESULT = "the bridge opens in the spring, before the rivers rise. " * 180
QUESTION = "When does the bridge open?"
LEAST = 250  # characters; shorter results stay
ROUNDS = 2 if quick() else 9
TURNS = 20


def searches(count: int, result: str = RESULT) -> Session[Any]:
    """So many messages, all in view: a question, a call, its result, an answer, and so on."""
    session: Session[Any] = Session(window=1_000_000)
    for number in range(count // 4):
        call = ToolCall("search", "{}", f"call-{number}")
        session.add(Message.user(f"question {number}"))
        session.add(Message("assistant", (call,)))
        session.add(Message("tool", (ToolResult(call.id, "search", result),)))
        session.add(Message.assistant(f"answer {number}"))
    return session


def by_hand(messages: list[Message]) -> list[Message]:
    """The floor: short messages in place of long ones."""
    return [
        msgspec.structs.replace(
            one,
            parts=tuple(
                [
                    msgspec.structs.replace(
                        part, content=f"[{len(part.text):,} characters moved out of view]"
                    )
                    for part in one.parts
                ]
            ),
        )
        if one.role == "tool" and len(one.parts[0].text) > LEAST
        else one
        for one in messages
    ]


async def least_of(work: Callable[[], tuple[Any, Callable[[Any], Any]]]) -> float:
    """ms of CPU of work on something that is made anew each time, the least of the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        subject, act = work()
        gc.collect()
        start = time.process_time()
        done = act(subject)
        if hasattr(done, "__await__"):
            await done
        best = min(best, time.process_time() - start)
    return best * 1e3


async def compacting(mode: Any) -> float:
    """ms of bringing 1,000 messages into the budget."""
    wide = Capabilities(context_window=10_000_000)
    model = ScriptedModel(lambda _: "Goal: to know when the bridge opens.", capabilities=wide)

    def work() -> Any:
        async def act(session: Session[Any]) -> None:
            async with WorkingMemory(working_summary_mode=mode, model=model) as memory:
                done = await memory.fit(session)
            assert done is not None
            if mode == "compact":
                assert done.shortened == COUNT // 4 - 3, done
                assert len(session.messages) == COUNT
            else:
                assert done.summarised == COUNT - 11, done
                assert len(session.messages) == 12

        return searches(COUNT), act

    return await least_of(work)


async def floor() -> float:
    return await least_of(lambda: (list(searches(COUNT).messages), by_hand))


class CountingModel(PrebuiltModel):
    """Says that its provider counted as many tokens as were sent, so that the budget stays what it is."""

    async def respond(self, request: Any) -> ModelResponse:
        """Answer."""
        return self.answer


async def turn(session: Session[Any], memory: WorkingMemory | None) -> float:
    """µs of a turn in a session, which it makes a little longer."""
    model = CountingModel()
    model.answer = ModelResponse(model.answer.message, Usage(model_calls=1), "stop", model.name)
    agent = Agent(model, instructions="Be brief.", memory=memory)
    run = functools.partial(agent.run, QUESTION, session=session)
    await run()
    best = float("inf")
    for _ in range(ROUNDS * 3):
        start = time.process_time()
        for _ in range(TURNS):
            await run()
        best = min(best, time.process_time() - start)
    return best / TURNS * 1e6


async def turns() -> dict[str, tuple[float, float]]:
    """µs of a turn with memory and without one, by what the session holds."""
    costs: dict[str, tuple[float, float]] = {}
    wide = 100_000_000
    for count in (12, 10_000):
        on = await turn(searches(count, "short"), WorkingMemory(wide))
        off = await turn(searches(count, "short"), None)
        costs[f"{count}"] = (on, off)
    session = searches(10_000)
    # Compacted, and not in need of it for a while: 2,500 lines stand for results.
    memory = WorkingMemory(400_000, working_summary_mode="compact")
    async with memory:
        done = await memory.fit(session)
    assert done is not None
    assert done.shortened > 2_400
    assert done.tokens_after < 400_000
    other = Session.from_export(session.export())
    costs["compacted"] = (await turn(session, memory), await turn(other, None))
    return costs


def main() -> None:
    compact, summed, bare = (
        run_loop(compacting("compact")),
        run_loop(compacting("compress")),
        run_loop(floor()),
    )
    rivals = {
        name: value if isinstance(value, str) else value / 1e3
        for name, value in rival_row("compress", names=("agentscope",)).items()
    }
    rows = [
        Row(
            "compact a history of 1,000 messages, no model", "ms", compact, bare, {}, "≤ 20 ms", compact <= 20
        ),
        Row("compress one, its model answering at once", "ms", summed, None, rivals),
    ]
    costs = run_loop(turns())
    names = {
        "12": "turn with memory at message 12",
        "10000": "turn with memory at message 10,000",
        "compacted": "turn with memory behind 10,000 messages that were compacted",
    }
    rows += [Row(names[key], "µs", on, off) for key, (on, off) in costs.items()]
    growth = costs["compacted"][0] / costs["12"][0]
    rows.append(
        Row(
            "turn behind 10,000 compacted messages against message 12",
            "x",
            growth,
            None,
            {},
            "≤ 1.5x",
            growth <= 1.5,
        )
    )
    publish("memory", rows)


if __name__ == "__main__":
    main()
