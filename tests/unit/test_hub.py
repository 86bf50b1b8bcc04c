"""Agents in one conversation: who hears what, in which session, and when."""

from __future__ import annotations

import asyncio
import gc
import weakref

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.talker import drive

from gossamer import (
    Agent,
    Approve,
    ArgumentError,
    Image,
    Limits,
    Message,
    MessageHub,
    Session,
    SessionBusyError,
    Team,
    Text,
    Thinking,
    ToolCall,
    Usage,
    Workflow,
    fanout_pipeline,
    handoff,
    sequential_pipeline,
    stream_pipeline,
    tool,
)
from gossamer.context import current_hubs, open_hubs
from gossamer.models import ModelResponse, ScriptedModel

both = pytest.mark.parametrize("how", ["run", "stream"])


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    assert not open_hubs


def saying(name: str, *replies, **more) -> Agent:
    return Agent(ScriptedModel(list(replies)), name=name, **more)


def heard(hub: MessageHub, name: str) -> list[tuple[str, str | None, str]]:
    return [(message.role, message.author, message.text) for message in hub.sessions[name].messages]


def gated(name: str, gate: asyncio.Event, begun: asyncio.Event | None = None) -> Agent:
    async def reply(request):
        if begun is not None:
            begun.set()
        await gate.wait()
        return f"{name} speaks"

    return Agent(ScriptedModel(reply), name=name)


@tool(needs_approval=True)
def publish() -> str:
    """Publish."""
    return "published"


# --- hearing --------------------------------------------------------------------------------------------------------


@both
async def test_each_answer_is_heard_by_the_others(how):
    writer, critic, editor = (
        saying("writer", "A boat."),
        saying("critic", "Too short."),
        saying("editor", "Fine."),
    )
    async with MessageHub([writer, critic, editor], "Name a boat.") as hub:
        await drive(writer, how)
        await drive(critic, how, "Your view?")
        assert heard(hub, "writer") == [
            ("user", None, "Name a boat."),
            ("assistant", None, "A boat."),
            ("user", "critic", "Too short."),
        ]
        assert heard(hub, "critic") == [
            ("user", None, "Name a boat."),
            ("user", "writer", "A boat."),
            ("user", None, "Your view?"),
            ("assistant", None, "Too short."),
        ]
        assert heard(hub, "editor") == [
            ("user", None, "Name a boat."),
            ("user", "writer", "A boat."),
            ("user", "critic", "Too short."),
        ]
        result = await editor()
    assert result.session is hub.sessions["editor"]
    asked = editor.model.requests[0].messages
    assert [message.text for message in asked] == ["Name a boat.", "A boat.", "Too short."]


async def test_a_stream_has_been_heard_when_its_last_event_comes():
    writer, critic = saying("writer", "A boat."), saying("critic")
    async with MessageHub([writer, critic]) as hub, writer.stream("x") as stream:
        async for event in stream:
            if type(event).__name__ == "RunFinished":
                assert heard(hub, "critic") == [("user", "writer", "A boat.")]


async def test_a_call_in_a_child_task_takes_part():
    writer, critic = saying("writer", "one"), saying("critic")
    async with MessageHub([writer, critic]) as hub:
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run("x"))
        assert heard(hub, "critic") == [("user", "writer", "one")]


async def test_a_session_of_ones_own_is_kept_apart():
    writer, critic = saying("writer", "one"), saying("critic")
    own = Session()
    async with MessageHub([writer, critic]) as hub:
        await writer.run("x", session=own)
        assert heard(hub, "critic") == heard(hub, "writer") == []
    assert len(own.messages) == 2


@both
async def test_a_team_takes_part_like_an_agent(how):
    team = Team([saying("x", "one"), saying("y", "two")], mode="sequential", name="team")
    ada = saying("ada", "I hear you")
    async with MessageHub([team, ada]) as hub:
        if how == "run":
            await team.run("Go")
        else:
            async with team.stream("Go") as stream:
                async for _ in stream:
                    pass
        assert heard(hub, "ada") == [("user", "team", "two")]
        await ada.run()
        assert heard(hub, "team")[-1] == ("user", "ada", "I hear you")


async def test_a_workflow_is_heard_like_an_agent():
    flow = Workflow("flow", [str.upper])
    ada = saying("ada", "I hear you")
    async with MessageHub([flow, ada]) as hub:
        await flow.run("loud")
        assert heard(hub, "ada") == [("user", "flow", "LOUD")]


async def test_who_takes_no_part_has_no_session_there():
    writer, other = saying("writer", "one"), saying("other", "two")
    namesake = saying("writer", "three")
    async with MessageHub([writer]) as hub:
        assert (await other.run("x")).session is None
        assert (await namesake.run("x")).session is None
        assert heard(hub, "writer") == []


async def test_thinking_and_calls_are_not_broadcast_and_media_are():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "seen"

    image = Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
    said = Message("assistant", (Thinking("hm", signed=True), Text("look", {"x": {"id": 1}}), image))
    painter = saying("painter", ToolCall.of("look"), ModelResponse(said, Usage(), "stop", "m"), tools=[look])
    async with MessageHub([painter, saying("critic")]) as hub:
        await painter.run("x")
        (message,) = hub.sessions["critic"].messages
    assert message.parts == (Text("look"), image)
    assert (message.role, message.author) == ("user", "painter")


async def test_structured_answers_are_heard_as_json():
    class Draft(msgspec.Struct):
        title: str

    writer = saying("writer", '{"title":  "Lace"}', output=Draft)
    async with MessageHub([writer, saying("critic")]) as hub:
        await writer.run("x")
        assert heard(hub, "critic") == [("user", "writer", '{"title":"Lace"}')]


async def test_what_ended_a_run_is_heard():
    from gossamer import EndRun

    @tool(inline=True)
    def stop() -> str:
        """Stop."""
        raise EndRun({"answer": 7})

    writer = saying("writer", ToolCall.of("stop"), tools=[stop])
    async with MessageHub([writer, saying("critic")]) as hub:
        await writer.run("x")
        assert heard(hub, "critic") == [("user", "writer", '{"answer":7}')]


@both
async def test_nothing_of_a_run_that_failed_is_heard(how):
    writer = saying("writer", ValueError("no ink"), "later")
    async with MessageHub([writer, saying("critic")]) as hub:
        with pytest.raises(ValueError, match="no ink"):
            await drive(writer, how, "x")
        assert heard(hub, "critic") == []
        await drive(writer, how, "y")
        assert heard(hub, "critic") == [("user", "writer", "later")]


async def test_nothing_of_a_run_that_a_limit_stopped_is_heard():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "seen"

    writer = saying("writer", ToolCall.of("look"), tools=[look], limits=Limits(max_turns=1))
    async with MessageHub([writer, saying("critic")]) as hub:
        assert (await writer.run("x")).finish_reason == "limit"
        assert heard(hub, "critic") == []


async def test_a_run_that_paused_is_heard_when_it_has_been_resumed():
    writer = saying("writer", ToolCall.of("publish"), "It is out.", tools=[publish])
    critic = saying("critic", "Wait!")
    async with MessageHub([writer, critic]) as hub:
        result = await writer.run("x")
        assert result.pending
        assert heard(hub, "critic") == []
        await critic.run("y")  # the writer is paused: it hears of it later
        assert [message.text for message in hub.sessions["writer"].messages] == ["x"]
        result = await writer.resume(result.session, {result.pending[0].call_id: Approve()})
        assert result.output == "It is out."
        assert heard(hub, "critic")[-1] == ("user", "writer", "It is out.")
        assert heard(hub, "writer")[-2:] == [("assistant", None, "It is out."), ("user", "critic", "Wait!")]


async def test_after_a_handoff_the_answer_is_that_of_who_gave_it():
    billing = saying("billing", "It is paid.")
    desk = saying("desk", ToolCall.of("hand_over_to_billing"), tools=[handoff(billing, "x")])
    async with MessageHub([desk, saying("critic")]) as hub:
        await desk.run("x")
        assert heard(hub, "critic") == [("user", "billing", "It is paid.")]


async def test_without_auto_broadcast_only_what_is_broadcast_is_heard():
    writer, critic = saying("writer", "one", "two"), saying("critic")
    async with MessageHub([writer, critic], enable_auto_broadcast=False) as hub:
        await writer.run("x")
        assert heard(hub, "critic") == []
        await hub.broadcast(Message.user("Quiet, please.", author="host"))
        assert heard(hub, "critic") == [("user", "host", "Quiet, please.")]
        assert heard(hub, "writer")[-1] == ("user", "host", "Quiet, please.")
        hub.enable_auto_broadcast = True
        await writer.run("x")
        assert heard(hub, "critic")[-1] == ("user", "writer", "two")


async def test_a_models_message_is_broadcast_as_a_users():
    async with MessageHub([saying("critic")]) as hub:
        await hub.broadcast(Message("assistant", (Thinking("hm"), Text("So it is.")), "judge"))
        assert heard(hub, "critic") == [("user", "judge", "So it is.")]


async def test_a_pipeline_of_participants_tells_nobody_twice():
    writer, critic, guest = (
        saying("writer", "A boat."),
        saying("critic", "Too short."),
        saying("guest", "Hm."),
    )
    async with MessageHub([writer, critic]) as hub:
        await sequential_pipeline([writer, critic, guest], "Name it.")
        assert heard(hub, "critic") == [("user", "writer", "A boat."), ("assistant", None, "Too short.")]
        assert guest.model.requests[0].messages[0].text == "Too short."
        hub.enable_auto_broadcast = False
        twice = saying("twice", "one", "two")
        hub.add(twice)
        await sequential_pipeline([twice, twice], "x")
        assert [text for _, _, text in heard(hub, "twice")] == ["x", "one", "one", "two"]


async def test_a_merged_stream_of_participants_is_heard():
    writer, critic = saying("writer", "A boat."), saying("critic", "A ship.")
    async with MessageHub([writer, critic]) as hub:
        async with stream_pipeline([writer, critic], "Name it.") as stream:
            async for _ in stream:
                pass
        assert ("user", "critic", "A ship.") in heard(hub, "writer")
        assert ("user", "writer", "A boat.") in heard(hub, "critic")


async def test_an_agent_as_a_tool_keeps_its_own_session_in_a_hub():
    critic = saying("critic", "Too short.")
    writer = saying(
        "writer",
        ToolCall.of("ask", prompt="Well?"),
        "Longer.",
        tools=[critic.as_tool("ask", "Asks the critic.")],
    )
    async with MessageHub([writer, critic]) as hub:
        await writer.run("x")
        assert heard(hub, "critic") == [("user", "writer", "Longer.")]


# --- while others are busy ------------------------------------------------------------------------------------------


async def test_who_is_running_hears_of_it_when_its_run_has_ended():
    gate, begun = asyncio.Event(), asyncio.Event()
    slow, quick = gated("slow", gate, begun), saying("quick", "one", "two")
    async with MessageHub([slow, quick]) as hub:
        running = asyncio.ensure_future(slow.run("x"))
        await begun.wait()
        await quick.run("y")
        await quick.run("z")
        await hub.broadcast("Hurry.")
        assert heard(hub, "slow") == [("user", None, "x")]
        gate.set()
        await running
        assert heard(hub, "slow") == [
            ("user", None, "x"),
            ("assistant", None, "slow speaks"),
            ("user", "quick", "one"),
            ("user", "quick", "two"),
            ("user", None, "Hurry."),
        ]
        assert len(slow.model.requests) == 1  # it was not made to speak again


@both
async def test_it_hears_of_it_also_when_its_run_fails(how):
    gate, begun = asyncio.Event(), asyncio.Event()

    async def fail(request):
        begun.set()
        await gate.wait()
        raise ValueError("no")

    slow, quick = Agent(ScriptedModel(fail), name="slow"), saying("quick", "one")
    async with MessageHub([slow, quick]) as hub:
        running = asyncio.ensure_future(drive(slow, how, "x"))
        await begun.wait()
        await quick.run("y")
        gate.set()
        with pytest.raises(ValueError, match="no"):
            await running
        assert heard(hub, "slow") == [("user", "quick", "one")]


async def test_a_call_that_waits_for_the_session_has_heard_what_came_before_its_turn():
    gate, begun = asyncio.Event(), asyncio.Event()
    slow, quick = gated("slow", gate, begun), saying("quick", "one")
    async with MessageHub([slow, quick]):
        first = asyncio.ensure_future(slow.run("x"))
        second = asyncio.ensure_future(slow.run("again"))
        await begun.wait()
        await quick.run("y")
        gate.set()
        await asyncio.gather(first, second)
        asked = [message.text for message in slow.model.requests[1].messages]
        assert asked == ["x", "slow speaks", "one", "again"]


async def test_a_fan_out_of_participants_hears_itself():
    gates = [asyncio.Event() for _ in range(3)]
    agents = [gated(f"agent {number}", gate) for number, gate in enumerate(gates)]
    async with MessageHub(agents) as hub:
        work = asyncio.ensure_future(fanout_pipeline(agents, "x"))
        for gate in (gates[2], gates[0], gates[1]):
            gate.set()
            for _ in range(20):
                await asyncio.sleep(0)
        await work
        assert [author for _, author, _ in heard(hub, "agent 0")] == [None, None, "agent 2", "agent 1"]
        assert [author for _, author, _ in heard(hub, "agent 1")] == [None, None, "agent 2", "agent 0"]
        assert [author for _, author, _ in heard(hub, "agent 2")] == [None, None, "agent 0", "agent 1"]


async def test_no_more_waits_for_a_busy_participant_than_its_window_holds():
    gate, begun = asyncio.Event(), asyncio.Event()
    slow = gated("slow", gate, begun)
    async with MessageHub([slow]) as hub:
        running = asyncio.ensure_future(slow.run("x"))
        await begun.wait()
        for number in range(1_200):
            await hub.broadcast(f"message {number}")
        gate.set()
        await running
        texts = [message.text for message in hub.sessions["slow"].messages]
        assert texts[-1] == "message 1199"
        assert len(texts) <= 1_000


async def test_a_participant_called_in_its_own_tool_is_refused():
    async def again():
        return (await writer.run("again")).output

    @tool
    async def ask_myself() -> str:
        """Ask."""
        return await again()

    writer = saying("writer", ToolCall.of("ask_myself"), "done", tools=[ask_myself])
    async with MessageHub([writer]) as hub:
        await writer.run("x")
        (result,) = [m for m in hub.sessions["writer"].messages if m.role == "tool"]
    assert SessionBusyError.__name__ in result.parts[0].text


async def test_a_participant_called_in_anothers_tool_takes_part():
    critic = saying("critic", "Too short.")

    @tool
    async def ask_critic() -> str:
        """Ask."""
        return (await critic.run("Well?")).output

    writer = saying("writer", ToolCall.of("ask_critic"), "Longer.", tools=[ask_critic])
    async with MessageHub([writer, critic]) as hub:
        await writer.run("x")
        assert heard(hub, "critic")[-1] == ("user", "writer", "Longer.")
        assert heard(hub, "writer")[-2:] == [("assistant", None, "Longer."), ("user", "critic", "Too short.")]


# --- coming, going, blocks ------------------------------------------------------------------------------------------


async def test_who_comes_later_hears_from_then_on():
    writer, late = saying("writer", "one", "two"), saying("late", "three")
    async with MessageHub([writer]) as hub:
        await writer.run("x")
        hub.add(late)
        await writer.run("y")
        assert heard(hub, "late") == [("user", "writer", "two")]
        await late.run("z")
        assert heard(hub, "writer")[-1] == ("user", "late", "three")
        assert hub.participants == (writer, late)


async def test_who_goes_is_not_heard_and_hears_nothing():
    writer, critic, editor = saying("writer", "one", "two"), saying("critic", "three"), saying("editor")
    async with MessageHub([writer, critic, editor]) as hub:
        await writer.run("x")
        session = hub.sessions["critic"]
        hub.remove(critic)
        await writer.run("y")
        assert (await critic.run("z")).session is None
        assert [text for _, _, text in heard(hub, "editor")] == ["one", "two"]
        assert len(session.messages) == 1
        hub.remove("editor")
        assert list(hub.sessions) == ["writer"]
        with pytest.raises(ArgumentError, match="'editor' takes no part in the hub; there are writer"):
            hub.remove("editor")
        with pytest.raises(ArgumentError, match="takes no part"):
            hub.remove(saying("writer"))


async def test_who_goes_while_it_runs_is_not_heard():
    gate, begun = asyncio.Event(), asyncio.Event()
    slow = gated("slow", gate, begun)
    async with MessageHub([slow, saying("critic")]) as hub:
        running = asyncio.ensure_future(slow.run("x"))
        await begun.wait()
        hub.remove(slow)
        gate.set()
        await running
        assert heard(hub, "critic") == []


async def test_participants_need_names_of_their_own():
    with pytest.raises(
        ArgumentError, match="two participants of the hub are named 'agent'; give each a name"
    ):
        MessageHub([Agent("offline"), Agent("offline")])
    hub = MessageHub([saying("one")])
    with pytest.raises(ArgumentError, match="'one'"):
        hub.add(saying("one"))


@pytest.mark.parametrize("participants", ["agents", [7], 7])
async def test_wrong_participants(participants):
    with pytest.raises(ArgumentError):
        MessageHub(participants)


async def test_calls_and_nothing_at_all_cannot_be_broadcast():
    hub = MessageHub([saying("one")])
    for wrong in (None, "", 7, Message("assistant", (ToolCall("x"),))):
        with pytest.raises(ArgumentError):
            await hub.broadcast(wrong)
    with pytest.raises(ArgumentError):
        MessageHub([], "")


async def test_an_announcement_may_be_several_messages():
    async with MessageHub([saying("one")], [Message.user("a", author="x"), Message.user("b")]) as hub:
        assert [text for _, _, text in heard(hub, "one")] == ["a", "b"]


async def test_an_error_in_the_block_leaves_nothing_behind():
    writer = saying("writer", "one")
    with pytest.raises(ValueError, match="mine"):
        async with MessageHub([writer]):
            assert len(current_hubs.get()) == 1
            raise ValueError("mine")
    assert current_hubs.get() == ()
    assert (await writer.run("x")).session is None


async def test_outside_of_the_block_a_hub_does_nothing():
    writer = saying("writer", "one", "two")
    hub = MessageHub([writer])
    assert (await writer.run("x")).session is None
    async with hub:
        pass
    assert (await writer.run("x")).session is None


async def test_a_task_that_outlives_the_block_takes_no_part_any_more():
    gate, begun = asyncio.Event(), asyncio.Event()
    slow, late = gated("slow", gate, begun), saying("late", "x")

    async def later():
        await gate.wait()
        return await late.run("x")

    async with MessageHub([slow, late, saying("critic")]) as hub:
        running = asyncio.ensure_future(slow.run("x"))
        waiting = asyncio.ensure_future(later())
        await begun.wait()
    gate.set()
    await running
    assert heard(hub, "critic") == []
    assert (await waiting).session is None


async def test_the_conversation_goes_on_in_another_block():
    writer, critic = saying("writer", "one", "two"), saying("critic")
    hub = MessageHub([writer, critic])
    async with hub:
        await writer.run("x")
    async with hub:
        await writer.run("y")
        with pytest.raises(ArgumentError, match="open already"):
            await hub.__aenter__()
    assert [text for _, _, text in heard(hub, "critic")] == ["one", "two"]


async def test_the_inner_hub_counts_for_its_participants():
    writer, critic, guest = saying("writer", "a", "b", "c"), saying("critic", "d"), saying("guest")
    async with MessageHub([writer, critic]) as outer:
        await writer.run("x")
        async with MessageHub([writer, guest]) as inner:
            await writer.run("y")
            await critic.run("z")
            assert [text for _, _, text in heard(inner, "guest")] == ["b"]
            assert heard(outer, "critic")[-1] == ("assistant", None, "d")
        await writer.run("w")
        assert [text for _, _, text in heard(outer, "critic") if text in "abc"] == ["a", "c"]
        assert [author for _, author, _ in heard(outer, "writer") if author] == ["critic"]


async def test_hubs_in_tasks_do_not_meet():
    async def talk(word: str) -> list[str]:
        writer, critic = saying("writer", word), saying("critic")
        async with MessageHub([writer, critic]) as hub:
            await asyncio.sleep(0)
            await writer.run("x")
            await asyncio.sleep(0)
            return [text for _, _, text in heard(hub, "critic")]

    assert await asyncio.gather(talk("a"), talk("b")) == [["a"], ["b"]]


async def test_a_result_does_not_keep_the_agents_alive():
    agents = [saying("writer", "one"), saying("critic")]
    alive = [weakref.ref(agent) for agent in agents]
    async with MessageHub(agents):
        result = await agents[0].run("x")
    del agents
    gc.collect()
    assert result.output == "one"
    assert [agent() for agent in alive] == [None, None]


# --- threads --------------------------------------------------------------------------------------------------------


async def test_run_sync_in_a_thread_takes_part_on_the_hubs_loop():
    loops = []

    async def reply(request):
        loops.append(asyncio.get_running_loop())
        return "one"

    writer = Agent(ScriptedModel(reply), name="writer")
    async with MessageHub([writer, saying("critic")]) as hub:
        result = await asyncio.to_thread(writer.run_sync, "x")
        assert result.session is hub.sessions["writer"]
        assert heard(hub, "critic") == [("user", "writer", "one")]
    assert loops == [asyncio.get_running_loop()]


async def test_run_sync_on_the_hubs_loop_is_refused():
    writer, other = saying("writer", "one"), saying("other", "two")
    async with MessageHub([writer]):
        with pytest.raises(ArgumentError, match="run_sync was called on the event loop of the hub"):
            writer.run_sync("x")
        assert (await asyncio.to_thread(other.run_sync, "x")).session is None


async def test_another_loop_is_refused():
    writer = saying("writer", "one")

    def elsewhere():
        async def run():
            return await writer.run("x")

        return asyncio.run(run())

    async with MessageHub([writer]):
        with pytest.raises(ArgumentError, match="a hub of another event loop"):
            await asyncio.to_thread(elsewhere)


# --- any conversation -----------------------------------------------------------------------------------------------


@given(
    speakers=st.lists(st.integers(0, 3), max_size=14),
    delays=st.lists(st.integers(0, 3), min_size=14, max_size=14),
    together=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_everybody_hears_each_answer_once_and_in_the_order_of_speaking(speakers, delays, together):
    async def main():
        spoken: list[tuple[str, str]] = []

        def participant(name: str) -> Agent:
            async def reply(request):
                number = request.messages[-1].text
                for _ in range(delays[int(number)]):
                    await asyncio.sleep(0)
                spoken.append((name, f"answer {number}"))
                return f"answer {number}"

            return Agent(ScriptedModel(reply), name=name)

        agents = [participant(f"agent {number}") for number in range(4)]
        async with MessageHub(agents) as hub:
            runs = [agents[speaker].run(str(turn)) for turn, speaker in enumerate(speakers)]
            if together:
                await asyncio.gather(*runs)
            else:
                for run in runs:
                    await run
            for agent in agents:
                others = [(author, text) for _, author, text in heard(hub, agent.name) if author]
                assert others == [said for said in spoken if said[0] != agent.name]
                own = [text for role, _, text in heard(hub, agent.name) if role == "assistant"]
                assert own == [text for name, text in spoken if name == agent.name]

    asyncio.run(main())
