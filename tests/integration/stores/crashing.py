"""A run with several tools, one of them an agent with a tool of its own, that dies at a point of one's choice.

As a program it runs the same conversation again and again, each time in a child process that is killed at the next
point, until one comes to its end: `python -m tests.integration.stores.crashing URL FOLDER`. Points lie before and
after each write to the store, each effect of a tool and each call of a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gossamer import Agent, Session, ToolCall, tool
from gossamer.journal import Journal
from gossamer.models import ScriptedModel
from gossamer.stores import open_store
from gossamer.stores.thread import StoreThread

__all__ = ["Effects", "agents", "count_points", "die_at_each_point", "session_id"]

MOST_POINTS = 300


def session_id(point: int) -> str:
    """The session in which the process dies at a point."""
    return f"crash-{point}"


class Effects:
    """What tools did, a line each, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: str) -> None:
        """Tell of an effect; it is in the file when this returns."""
        with self.path.open("a") as file:
            file.write(line + "\n")

    def lines(self) -> list[str]:
        """All effects so far."""
        return self.path.read_text().splitlines() if self.path.exists() else []


def rounds(request) -> int:
    """How many turns of tools the model has seen the results of since the user spoke."""
    messages = list(request.messages)
    asked = max(place for place, message in enumerate(messages) if message.role == "user")
    return sum(message.role == "tool" for message in messages[asked:])


def agents(effects: Effects, reach=lambda _: None) -> dict[str, Agent]:
    """The agents, by name.

    Args:
        effects: where their tools leave traces.
        reach: is told of each point that is reached.
    """

    @tool
    async def pay(amount: int) -> str:
        """Pay an amount; not to be done twice."""
        reach("before an effect")
        effects.add(f"pay {amount}")
        reach("after an effect")
        await asyncio.sleep(0)
        return f"paid {amount}"

    @tool(idempotent=True)
    async def look(where: str) -> str:
        """Look something up; may be done again."""
        effects.add(f"look {where}")
        reach("after a look")
        await asyncio.sleep(0)
        return f"seen {where}"

    @tool(inline=True)
    def note(text: str) -> str:
        """Take a note, in place; not to be done twice."""
        effects.add(f"note {text}")
        reach("after a note")
        return "noted"

    @tool
    def stamp(paper: str) -> str:
        """Stamp a paper, in a thread; not to be done twice."""
        effects.add(f"stamp {paper}")
        reach("after a stamp")
        return f"{paper} stamped"

    def clerk_says(request):
        reach("the clerk's model")
        paper = next(m for m in reversed(list(request.messages)) if m.role == "user").text
        return ToolCall.of("stamp", paper=paper) if rounds(request) == 0 else f"{paper} is done"

    def boss_says(request):
        reach("the boss's model")
        match rounds(request):
            case 0:
                return [ToolCall.of("pay", amount=1), ToolCall.of("look", where="here")]
            case 1:
                return [ToolCall.of("ask_clerk", prompt="A"), ToolCall.of("note", text="x")]
            case 2:
                return [ToolCall.of("ask_clerk", prompt="B"), ToolCall.of("pay", amount=2)]
            case 3:
                return ToolCall.of("note", text="y")
        return "all done"

    clerk = Agent(ScriptedModel(clerk_says), name="clerk", tools=[stamp])
    boss = Agent(
        ScriptedModel(boss_says),
        name="boss",
        tools=[pay, look, note, clerk.as_tool("ask_clerk", "Stamps papers.")],
    )
    return {"boss": boss, "clerk": clerk}


class Points:
    """Counts the points that are reached, and dies at one."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.reached = 0

    def reach(self, _what: str) -> None:
        """A point is reached."""
        if self.reached == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self.reached += 1


def watch_writes(points: Points) -> None:
    """Make a point of the moments before each transaction and after it, before anybody is told of it."""
    begin = StoreThread.__init__

    def watched(self, kind, do, close):
        def work(jobs):
            points.reach("before a write")
            do(jobs)
            points.reach("after a write")

        begin(self, kind, work if kind == "write" else do, close)

    StoreThread.__init__ = watched


def watch_acknowledgements(folder: Path, point: int) -> None:
    """Write down, for each session, how many records were said to be on disk."""
    settle = Journal.settle

    async def told(self):
        await settle(self)
        if self.saving is not None and self.saving.loaded:
            with (folder / f"acknowledged-{point}").open("a") as file:
                file.write(f"{self.saving.session}\t{self.saving.saved}\n")

    Journal.settle = told


def run(url: str, folder: Path, point: int) -> None:
    """Run the conversation, and die at a point."""
    points = Points(point)
    watch_writes(points)
    watch_acknowledgements(folder, point)
    effects = Effects(folder / f"effects-{point}")

    async def main() -> None:
        boss = agents(effects, points.reach)["boss"]
        result = await boss.run("Go", session=Session(session_id(point), store=url))
        assert result.output == "all done"
        await open_store(url).aclose()

    asyncio.run(main())


def die_at_each_point(run: Callable[[str, Path, int], None], most: int) -> None:
    """Run a scenario in a child that dies at the first point, then at the second, until one comes to its end.

    The program's arguments are the store's URL and a folder; it prints how many points there are.
    """
    url, folder = sys.argv[1], Path(sys.argv[2])
    load_what_it_takes(run, url, folder, most)
    for point in range(most):
        status = run_in_a_child(run, url, folder, point)
        if not os.WIFSIGNALED(status):
            sys.stdout.write(str(point) if os.WEXITSTATUS(status) == 0 else "failed")
            return


def load_what_it_takes(run: Callable[[str, Path, int], None], url: str, folder: Path, most: int) -> None:
    """Import what the scenario imports late, so that not each of its many children does so again."""

    def run_and_tell(url: str, folder: Path, point: int) -> None:
        run(url, folder, point)
        (folder / "modules").write_text("\n".join(sys.modules))

    status = run_in_a_child(run_and_tell, url, folder, most)
    if os.waitstatus_to_exitcode(status) == 0:
        for name in (folder / "modules").read_text().splitlines():
            with contextlib.suppress(ImportError):  # some put others under names of their own
                importlib.import_module(name)


def run_in_a_child(run: Callable[[str, Path, int], None], url: str, folder: Path, point: int) -> int:
    """Run a scenario in a forked process, and give the status that it ended with."""
    child = os.fork()
    if child == 0:
        try:
            run(url, folder, point)
        except BaseException as error:
            (folder / "failed").write_text(f"point {point}: {error!r}")
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def count_points(module: str, url: str, folder: Path) -> int:
    """Run a module whose program is `die_at_each_point`; gives how many points there are."""
    out = subprocess.run(
        [sys.executable, "-m", module, url, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        cwd=Path(__file__).parents[3],
    )
    told = out.stdout.strip()
    failed = folder / "failed"
    assert told.isdecimal(), f"{out.stderr[-3000:]} {failed.exists() and failed.read_text()}"
    return int(told)


if __name__ == "__main__":
    die_at_each_point(run, MOST_POINTS)
