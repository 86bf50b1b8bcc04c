"""A data analyst: the model writes Python, which runs in a sandbox on a file that the user uploaded."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Session, ToolCall, ToolResult
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.tools import sandbox_session
from gossamer.tools.builtin import python

UPLOADED = b"""month,region,amount
2026-01,north,1200.50
2026-01,south,830.00
2026-02,north,990.25
2026-02,south,1410.00
2026-03,north,1105.75
2026-03,south,n/a
"""

LOOK = """
import csv
with open("sales.csv") as file:
    rows = list(csv.DictReader(file))
print(rows[0])
len(rows)
"""
# The last row has no number: this fails, and the model is told why.
ADD_UP = """
totals = {}
for row in rows:
    totals[row["region"]] = totals.get(row["region"], 0) + float(row["amount"])
totals
"""
ADD_UP_WHAT_IS_THERE = """
totals = {}
for row in rows:
    if row["amount"] != "n/a":
        totals[row["region"]] = totals.get(row["region"], 0) + float(row["amount"])
with open("totals.csv", "w") as file:
    for region, total in sorted(totals.items()):
        file.write(f"{region},{total:.2f}\\n")
max(totals, key=lambda region: totals[region])
"""


def answer(request: ModelRequest) -> ToolCall | str:
    """Do what a model would: look at the file, add up, mend what failed, and say what came out."""
    seen = [
        part.text for message in request.messages for part in message.parts if isinstance(part, ToolResult)
    ]
    steps = (LOOK, ADD_UP, ADD_UP_WHAT_IS_THERE)
    if len(seen) < len(steps):
        return ToolCall.of("run_python", code=steps[len(seen)].strip())
    best = seen[-1].splitlines()[1]
    return f"The region that sold most is {best}; one row had no amount. The totals are in totals.csv."


analyst = python(files={"sales.csv": UPLOADED})
agent = Agent(ScriptedModel(answer), tools=[analyst])


async def main() -> None:
    async with Session() as session:
        result = await agent.run("Which region sold most?", session=session)
        for message in result.messages:
            for part in message.parts:
                if isinstance(part, ToolResult):
                    print(f"--- {part.outcome}\n{part.text}")
        print(f"---\n{result.output}")
        box = await sandbox_session(analyst, session)
        print((await box.read("totals.csv")).decode(), end="")


if __name__ == "__main__":
    asyncio.run(main())
