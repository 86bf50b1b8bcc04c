"""Messages that come from elsewhere: history with tool calls, and what must not get into a journal."""

import pytest

from gossamer import (
    Agent,
    ArgumentError,
    Message,
    RunPausedError,
    Session,
    Text,
    ToolCall,
    ToolResult,
    tool,
)
from gossamer.models import ScriptedModel

CALL = ToolCall("look", "{}", "call-1")
RESULTS = Message("tool", (ToolResult("call-1", "look", "seen"),))


def roles(session: Session) -> list[str]:
    return [message.role for message in session.messages]


async def test_pairs_stay_together_when_added() -> None:
    session = Session()
    session.add(Message.user("look"))
    session.add(Message.assistant(CALL))
    assert roles(session) == ["user"]
    session.add(RESULTS)
    assert roles(session) == ["user", "assistant", "tool"]
    assert roles(Session.from_export(session.export())) == ["user", "assistant", "tool"]


async def test_pairs_stay_together_in_a_prompt() -> None:
    session = Session()
    history = [Message.user("look"), Message.assistant(CALL), RESULTS, Message.user("and now?")]
    await Agent(ScriptedModel(["done"])).run(history, session=session)
    assert roles(session) == ["user", "assistant", "tool", "user", "assistant"]


@pytest.mark.parametrize("broken", [[RESULTS], [Message.assistant(CALL), Message.user("x")]])
async def test_half_a_pair_is_refused(broken: list[Message]) -> None:
    session = Session()
    with pytest.raises(ArgumentError, match="results are due"):
        for message in broken:
            session.add(message)
    with pytest.raises(ArgumentError, match="results are due"):
        await Agent(ScriptedModel(["x"])).run(broken, session=Session())


async def test_nothing_is_added_to_a_paused_session() -> None:
    @tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    session = Session()
    await Agent(ScriptedModel([ToolCall("pay"), "x"]), tools=[pay]).run("hi", session=session)
    with pytest.raises(RunPausedError):
        session.add(Message.user("meanwhile"))


@pytest.mark.parametrize(
    "message",
    [
        Message("usr", (Text("hi"),)),  # type: ignore[arg-type]
        Message("user", "hi"),  # type: ignore[arg-type]
        Message("user", ("hi",)),  # type: ignore[arg-type]
    ],
)
async def test_a_malformed_message_is_refused(message: Message) -> None:
    with pytest.raises(ArgumentError):
        await Agent(ScriptedModel(["x"])).run(message)
    with pytest.raises(ArgumentError):
        Session().add(message)


async def test_ids_and_users_are_text() -> None:
    with pytest.raises(ArgumentError, match="id must be text"):
        Session(id=42)  # type: ignore[arg-type]
    session = Session()
    with pytest.raises(ArgumentError, match="user must be text"):
        await Agent(ScriptedModel(["x"])).run("hi", user=42, session=session)  # type: ignore[arg-type]
    assert Session.from_export(session.export()).unfinished is None


async def test_an_error_text_that_no_json_holds() -> None:
    def instructions(context):
        raise FileNotFoundError("/x/\udcff")

    session = Session()
    with pytest.raises(FileNotFoundError):
        await Agent(ScriptedModel(["x"]), instructions=instructions).run("hi", session=session)
    Session.from_export(session.export())
