"""A workflow with an agent, parallel checks and a person: it pauses, and goes on in another process."""

from __future__ import annotations

import asyncio
import tempfile

from gossamer import Agent, Answer, Condition, HumanInput, Parallel, Session, Step, Workflow


async def count_words(text: str) -> int:
    return len(text.split())


async def find_names(text: str) -> list[str]:
    return [word for word in text.split() if word.istitle()]


def report(checks: dict) -> str:
    return f"{checks['words']} words, names: {', '.join(checks['names'])}"


async def publish(text: str) -> str:
    return f"published: {text}"


def keep(text: str) -> str:
    return f"kept back: {text}"


writer = Agent("offline", "You write a note.", name="writer")
workflow = Workflow(
    "note",
    [
        writer,
        Parallel({"words": count_words, "names": find_names}),
        Step(report, inline=True),
        Condition(HumanInput(lambda text: f"Publish a note of {text}?", bool), publish, keep),
    ],
)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/notes.db"
        result = await workflow.run("Ada wrote to Grace.", session=Session("note-1", store=store))
        for waiting in result.pending:
            print(f"waits for a person: {waiting.call.arguments}")
        await result.session.store.aclose()

        session = Session("note-1", store=store)  # as another process would
        await session.load()
        result = await workflow.resume(session, {one.call_id: Answer(True) for one in session.pending})
        print(result.output)
        for place, step in result.steps.items():
            print(f"{place:32} {step.outcome}")
        print(workflow.visualize(result).mermaid)
        await session.store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
