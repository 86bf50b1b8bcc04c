"""Long-term memory: what a user said in one session is known in the next, and to nobody else."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from gossamer import Agent, Session
from gossamer.memory import Memory
from gossamer.models import ModelRequest, ScriptedModel


def reply(request: ModelRequest) -> str:
    """Stands in for a model: answers, and extracts what is worth remembering when it is asked to."""
    if request.output_schema is not None:
        said = request.messages[0].text
        if "vegetarian" not in said:
            return json.dumps({"changes": []})
        return json.dumps(
            {"changes": [{"action": "add", "text": "Ann eats vegetarian food.", "importance": 0.9}]}
        )
    known = "\n".join(message.text for message in request.messages if message.author == "memory")
    return "Lentil soup." if "vegetarian" in known else "Roast beef."


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'chats.db'}"
        async with Memory(store) as memory:
            agent = Agent(ScriptedModel(reply), name="cook", memory=memory)
            await agent.run("I eat vegetarian food.", user="ann", session=Session("monday", store=store))
            await memory.flush()  # only so that this example does not outrun it

            for user in ("ann", "bob"):
                result = await agent.run(
                    "What food shall I have?", user=user, session=Session(f"{user}-tuesday", store=store)
                )
                print(f"{user}: {result.output}")

            for one in await memory.memories(user="ann"):
                print(f"remembered of ann: {one.text} (used {one.uses} times)")
            print("forgotten:", await memory.forget_user("ann"))


if __name__ == "__main__":
    asyncio.run(main())
