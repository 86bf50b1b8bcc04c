"""Does a turn cost the same at message 10 and at 10,000, in every dialect? Loop and encoded request, bytes apart.

Each turn runs in a session of so many messages; the model encodes the whole request as `OpenAIChat` does and then
answers at once. A request as long as that must be put together once: this copy is the floor, and taken off where
turns are compared. It is measured in its place, as what a turn at message 10 costs more when its model also copies
so many bytes: a large copy empties the processor's caches for whatever comes after it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.measure import Row, publish, quick, rival, rival_row, run_loop
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Message, Session
from gossamer.models import (
    AnthropicChat,
    GeminiChat,
    ModelRequest,
    ModelResponse,
    OllamaChat,
    OpenAIChat,
    OpenAIResponses,
)

LENGTHS = (10, 100, 1_000, 10_000)
QUESTION = "What is the distance from the Earth to the Moon, and how long does light take for it?"
SESSIONS = 4 if quick() else 12
# What is compared is measured in turns, so that a slow moment of the machine hits it alike.
ROUNDS = 2 if quick() else 5
SERVER = "http://127.0.0.1:9"
MODELS: dict[str, Any] = {
    "openai_chat": OpenAIChat("gpt-4o-mini", base_url=f"{SERVER}/v1", api_key="sk-none"),
    "openai_responses": OpenAIResponses("gpt-4o-mini", base_url=f"{SERVER}/v1", api_key="sk-none"),
    "anthropic_chat": AnthropicChat("claude", base_url=SERVER, api_key="sk-none"),
    "gemini_chat": GeminiChat("gemini", base_url=SERVER, api_key="sk-none"),
    "ollama_chat": OllamaChat("llama", base_url=SERVER),
}


class EncodingModel(PrebuiltModel):
    """Encodes each request for the wire, and answers at once.

    Args:
        dialect: in which format.
        copied: copied once beside each request, for the floor.
    """

    def __init__(self, dialect: str, copied: bytes = b"") -> None:
        super().__init__()
        chat = MODELS[dialect]
        # Gemini's path says whether an answer is streamed; elsewhere the body does.
        self.encode: Callable[[ModelRequest], bytes] = (
            chat._body if dialect == "gemini_chat" else functools.partial(chat._body, stream=True)
        )
        self.copied = (memoryview(copied), b"]}") if copied else ()
        self.bytes = 0

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Encode, then answer."""
        # Not kept: what was sent is let go, and the next request takes its place in memory.
        self.bytes = len(self.encode(request))
        if self.copied:
            b"".join(self.copied)
        return self.answer


def conversation(count: int) -> Session[Any]:
    """A session of so many messages, all in view."""
    session: Session[Any] = Session(window=1_000_000)
    for number in range(count // 2):
        session.add(Message.user(f"{QUESTION} ({number})"))
        session.add(Message.assistant(f"384,400 km; 1.28 seconds. ({number})"))
    return session


async def cpu_of_turn(model: EncodingModel, count: int) -> tuple[float, bytes]:
    """µs of a turn at that length, and a request as long as the last one."""
    agent = Agent(model, instructions="Be brief.")
    best = float("inf")
    for _ in range(SESSIONS):
        session = conversation(count - 6)
        turn = functools.partial(agent.run, QUESTION, session=session)
        # A turn adds two messages, so few are run in each session; the first encodes what was said before it.
        for _ in range(2):
            await turn()
        start = time.process_time()
        for _ in range(4):
            await turn()
        best = min(best, (time.process_time() - start) / 4 * 1e6)
        messages = session.messages
        assert len(messages) == count + 6
    body = model.encode(ModelRequest(messages, "Be brief."))
    read = msgspec.json.decode(body)
    said = read.get("messages") or read.get("input") or read.get("contents")
    assert len(said) in {len(messages), len(messages) + 1}
    where = 0
    for message in messages:
        where = body.index(msgspec.json.encode(message.text), where)
    # The last request held all but the answer, which came after it.
    assert 0 < len(body) - model.bytes < 100
    return best, body


async def measured(dialect: str, lengths: tuple[int, ...]) -> dict[int, tuple[float, float, int]]:
    """By length: µs of a turn, µs of copying its request once, bytes of the request."""
    costs: dict[int, tuple[float, float, int]] = {}
    for count in lengths:
        best = [float("inf")] * 3
        size = 0
        for _ in range(ROUNDS):
            cost, body = await cpu_of_turn(EncodingModel(dialect), count)
            plain, _ = await cpu_of_turn(EncodingModel(dialect), LENGTHS[0])
            copying, _ = await cpu_of_turn(EncodingModel(dialect, body), LENGTHS[0])
            best = [min(pair) for pair in zip(best, (cost, plain, copying), strict=True)]
            size = len(body)
        cost, plain, copying = best
        costs[count] = (cost, max(copying - plain, 0.0), size)
    return costs


def cheaper_way(line: dict[str, Any], count: int) -> float:
    """A rival's better figure at a length: history handed over by the caller, or kept by the framework."""
    return min(line[way][str(count)] for way in ("given_at", "kept_at") if way in line)


def dialect_row(dialect: str) -> Row:
    """How a turn grows in a dialect."""
    costs = run_loop(measured(dialect, (10, 1_000)))
    first, last = (costs[count][0] - costs[count][1] for count in (10, 1_000))
    name = f"turn at message 1,000 against message 10 in {dialect}, one copy of the bytes apart"
    return Row(name, "x", last / first, None, {}, "≤ 1.5x", last / first <= 1.5)


def main() -> None:
    costs = run_loop(measured("openai_chat", LENGTHS))
    rows: list[Row] = []
    for count, (cost, copy, _) in costs.items():
        # The rivals' turns encode nothing for the wire, and end at 1,000.
        rivals = rival_row("turns", functools.partial(cheaper_way, count=count)) if count <= 1_000 else {}
        rows.append(Row(f"turn at message {count:,}", "µs", cost, copy, rivals))
    rows += [
        Row(f"bytes of the request at message {count:,}", "B", size) for count, (_, _, size) in costs.items()
    ]
    first, last = (costs[count][0] - costs[count][1] for count in (10, 10_000))
    growth: dict[str, float | str] = {}
    for name in rival_row("turns"):
        line = rival(name, "turns")
        growth[name] = line.get("unsupported") or round(cheaper_way(line, 1_000) / cheaper_way(line, 10), 2)
    target = "≤ 1.5x"
    rows.append(
        Row(
            "turn at message 10,000 against message 10, one copy of the bytes apart (rivals: 1,000 against 10)",
            "x",
            last / first,
            None,
            growth,
            target,
            last / first <= 1.5,
        )
    )
    rows += [dialect_row(dialect) for dialect in MODELS if dialect != "openai_chat"]
    publish("turns", rows)


if __name__ == "__main__":
    main()
