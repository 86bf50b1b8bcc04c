"""A process that uses a store: `python -m tests.integration.stores.process SPEC WHAT …`; tells what it did on stdout."""

import asyncio
import faulthandler
import os
import sys
import time

import msgspec
from tests.integration.stores.places import Place

from gossamer import Agent, Session
from gossamer.errors import SessionBusyError
from gossamer.models import ScriptedModel


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def write(place: Place, name: str, shared: str, rounds: str) -> None:
    """Append to a session of one's own and to one that others write to as well."""
    store = place.open()
    agent = Agent(ScriptedModel(lambda request: f"{name} heard {request.messages[-1].text}"), name=name)

    async def own(number: int) -> None:
        session = Session(f"{name}-{number}", store=store)
        for turn in range(int(rounds)):
            await agent.run(f"{name} {number} {turn}", session=session)

    async def common() -> None:
        session = Session(shared, store=store)
        for turn in range(int(rounds)):
            await agent.run(f"{name} {turn}", session=session)

    await asyncio.gather(common(), *[own(number) for number in range(5)])
    await store.aclose()
    say("done")


async def hold(place: Place, session: str) -> None:
    """Begin a run that never ends."""
    store = place.open()

    async def reply(request):
        say("holding")
        await asyncio.sleep(600)

    await Agent(ScriptedModel(reply)).run("Hold", session=Session(session, store=store))


async def look(place: Place, session: str) -> None:
    """Tell whether the session can be had."""
    store = place.open()
    try:
        held = await store.hold(session)
        say(f"held {held.length}")
    except SessionBusyError:
        say("busy")
    await store.aclose()


async def ready(place: Place) -> None:
    """Migrate the database, with others at once."""
    store = place.open()
    say(len(await store.list_sessions()))
    await store.aclose()


def fork(place: Place, session: str) -> None:
    """Write in turns with forked children, which use the same object."""
    faulthandler.dump_traceback_later(60, exit=True)
    store = place.open()
    agent = Agent(ScriptedModel(lambda request: "x"))

    async def speak(text: str, *, last: bool = False) -> None:
        await agent.run(text, session=Session(session, store=store))
        if last:
            await store.aclose()

    for turn in range(5):
        asyncio.run(speak(f"parent {turn}"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(speak(f"child {turn}", last=turn % 2 == 0))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0
    asyncio.run(store.aclose())
    say("forked")


def orphan(place: Place, session: str) -> None:
    """Hold a session, and have a child that only waits."""
    store = place.open()

    async def hold() -> None:
        await store.hold(session)

    with asyncio.Runner() as runner:
        runner.run(hold())
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        say(child)
        time.sleep(600)


def main() -> None:
    spec, what, *arguments = sys.argv[1:]
    alone = {"fork": fork, "orphan": orphan}.get(what)
    if alone is not None:
        alone(msgspec.json.decode(spec, type=Place), *arguments)
        return
    work = {"write": write, "hold": hold, "look": look, "ready": ready}[what]
    asyncio.run(work(msgspec.json.decode(spec, type=Place), *arguments))


if __name__ == "__main__":
    main()
