"""Cassettes: what a server answered is answered again without it, through the true wire formats."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from tests.integration.asking import TWO, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import Close, Server, completion, frame, http, packets, say

from gossamer import Agent, Message, Text
from gossamer.errors import (
    ArgumentError,
    CassetteError,
    GossamerError,
    ModelConnectionError,
    ProviderError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta
from gossamer.messages import Image
from gossamer.models import FallbackModel, ModelSettings, OpenAIChat, RetryModel
from gossamer.simulator import Simulator
from gossamer.testing import Cassette

KEY = "sk-this-is-the-key-1234567890"


def agent(url, **options):
    key = options.pop("api_key", KEY)
    return Agent(OpenAIChat("gpt-test", base_url=url, api_key=key), **options)


# A port that nobody listens on: whoever goes out in a replay fails.
NOWHERE = "http://127.0.0.1:9/v1"


async def record(path, work, *answers, mode="once"):
    async with Server(*answers) as server:
        with Cassette(path, mode):
            told = await work(server.url)
    return told, server.requests


async def replay(path, work, url=NOWHERE):
    with Cassette(path, "replay"):
        return await work(url)


@streamed_and_not
async def test_an_answer_is_replayed_without_the_server(tmp_path, streamed):
    async def work(url):
        result, events = await ask(agent(url), "Hi", streamed)
        return result.output, result.usage, [event.text for event in events if type(event) is TextDelta]

    answer = (
        packets(*say("He", "llo"))
        if streamed
        else completion("Hello", usage={"prompt_tokens": 3, "completion_tokens": 2})
    )
    recorded, _ = await record(tmp_path / "a.json", work, answer)
    assert await replay(tmp_path / "a.json", work) == recorded
    assert recorded[0] == "Hello"
    assert recorded[2] == (["He", "llo"] if streamed else [])


@streamed_and_not
async def test_a_tool_loop_is_replayed_whatever_ids_its_calls_get(tmp_path, streamed):
    async def work(url):
        result, _ = await ask(agent(url, tools=[convert]), "convert", streamed)
        return result.output

    answers = calling(streamed, *TWO), reply(streamed, "2 and 12")
    await record(tmp_path / "a.json", work, *answers)
    assert await replay(tmp_path / "a.json", work) == "2 and 12"
    assert '"tool_call_id": "id#2"' in (tmp_path / "a.json").read_text()


async def test_once_records_where_the_file_is_missing_and_replays_where_it_is_there(tmp_path):
    async def work(url):
        return (await agent(url).run("Hi")).output

    path = tmp_path / "deep" / "down" / "a.json"
    assert (await record(path, work, completion("first")))[0] == "first"
    told, requests = await record(path, work, completion("second"))
    assert (told, requests) == ("first", [])
    told, requests = await record(path, work, completion("second"), mode="record")
    assert (told, len(requests)) == ("second", 1)
    assert await replay(path, work) == "second"
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]


async def test_equal_requests_get_their_answers_in_order(tmp_path):
    async def work(url):
        return [(await agent(url).run("Hi")).output for _ in range(3)]

    await record(tmp_path / "a.json", work, *map(completion, "abc"))
    assert await replay(tmp_path / "a.json", work) == ["a", "b", "c"]

    async def more(url):
        await work(url)
        await agent(url).run("Hi")

    with pytest.raises(CassetteError, match="3 answers to this request, and it was asked for once more"):
        await replay(tmp_path / "a.json", more)


async def test_a_request_that_is_not_there_never_goes_out_and_tells_the_nearest(tmp_path):
    async def work(url):
        await agent(url, instructions="Be brief.").run("2 + 2?")
        return await agent(url).run("something else entirely")

    path = tmp_path / "a.json"
    await record(path, work, completion("4"))
    async with Server(completion("never")) as server:
        with Cassette(path) as cassette:
            assert not cassette.recording
            with pytest.raises(CassetteError) as caught:
                await agent(server.url, instructions="Be brief.").run("3 + 3?")
            assert server.requests == []
            assert isinstance(caught.value, GossamerError)
    assert 'messages[1].content: recorded "2 + 2?", asked "3 + 3?"' in str(caught.value)
    assert "number 1" in str(caught.value)
    with pytest.raises(CassetteError, match=r"temperature: asked 0\.5, not recorded"):
        await replay(
            path,
            lambda url: agent(url, instructions="Be brief.").run(
                "2 + 2?", settings=ModelSettings(temperature=0.5)
            ),
        )


async def test_a_missing_request_is_no_error_of_a_model_to_fall_back_from(tmp_path):
    path = tmp_path / "a.json"
    await record(path, lambda url: agent(url).run("Hi"), completion("x"))
    chat = OpenAIChat("gpt-test", base_url=NOWHERE, api_key=KEY)
    for model in (RetryModel(chat), FallbackModel(chat, chat)):
        with pytest.raises(CassetteError):
            await replay(path, lambda url, model=model: Agent(model).run("Ho"))


async def test_errors_and_what_came_after_them_are_replayed(tmp_path):
    answers = (
        http({"error": {"message": "slow down"}}, 429, "Retry-After: 7", "x-request-id: r1"),
        http(b"<html>oops</html>", 500, kind="text/html"),
        completion("at last"),
    )

    async def work(url):
        told = []
        for _ in range(3):
            try:
                told.append((await agent(url).run("Hi")).output)
            except (RateLimitError, ProviderError) as error:
                told.append((type(error), error.status, error.retry_after, error.request_id, str(error)))
        return told

    recorded, _ = await record(tmp_path / "a.json", work, *answers)
    assert recorded[0][:4] == (RateLimitError, 429, 7.0, "r1")
    assert recorded[2] == "at last"
    assert await replay(tmp_path / "a.json", work) == recorded


@pytest.mark.parametrize("tail", [b"", b'data: {"cho'], ids=["between", "half a frame"])
async def test_a_stream_that_broke_breaks_again(tmp_path, tail):
    broken = [
        *packets(frame({"content": "half"}))[:-1],
        Close(b"%x\r\n%b\r\n" % (len(tail), tail) if tail else b""),
    ]

    async def work(url):
        with pytest.raises(StreamBrokenError) as caught:
            await ask(agent(url), "Hi", True)
        return caught.value.text

    recorded, _ = await record(tmp_path / "a.json", work, broken)
    assert await replay(tmp_path / "a.json", work) == recorded == "half"


async def test_a_stream_that_was_left_can_be_left_again(tmp_path):
    async def work(url):
        async with asyncio.timeout(10):
            async with agent(url).stream("Hi") as stream:
                async for event in stream:
                    if type(event) is TextDelta:
                        return event.text
        return None

    async def slow(connection, request):
        await connection.send(*packets(frame({"content": "one"}))[:-1])
        await connection.wait_closed_by_client()

    assert (await record(tmp_path / "a.json", work, slow))[0] == "one"
    assert "its reader went away" in (tmp_path / "a.json").read_text()
    assert await replay(tmp_path / "a.json", work) == "one"


async def test_a_request_without_an_answer_is_not_recorded(tmp_path):
    async def work(url):
        with pytest.raises(ModelConnectionError):
            await agent(NOWHERE).run("Hi")
        return (await agent(url).run("Hi")).output

    await record(tmp_path / "a.json", work, completion("x"))
    assert len(json.loads((tmp_path / "a.json").read_text())["exchanges"]) == 1


# --- the file -----------------------------------------------------------------------------------------------


async def test_the_file_is_readable_and_stable(tmp_path):
    async def work(url):
        await ask(agent(url), "Grüße", True)
        await agent(url).run("Hi")

    texts = []
    for name in ("a.json", "b.json"):
        await record(tmp_path / name, work, packets(*say("a", "b")), completion("c"))
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    lines = texts[0].splitlines()
    assert lines[:2] == ["{", '  "gossamer_cassette": 1,']
    assert any("Grüße" in line for line in lines)
    events = [line for line in lines if '"content": "a"' in line]
    assert len(events) == 1  # one line an event
    assert events[0].strip().startswith('{"data": {')
    assert '{"data": "[DONE]"}' in texts[0]
    assert "127.0.0.1/v1/chat/completions" in texts[0]


async def test_no_secret_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_API_KEY", "a-key-of-the-environment")
    header = "Bearer-less-value-0123"
    said = f"your key is {KEY}, the other a-key-of-the-environment, AIzaSyA0123456789012345678901234567890, {header}"
    path = tmp_path / "a.json"

    async def work(url):
        one = agent(
            f"{url}?key=AIza-in-the-url&api-version=3",
            settings=ModelSettings(extra_headers={"x-api-key": header, "cookie": "session=abcdef123"}),
        )
        whole = await one.run(f"my key is {KEY} and sk-proj-abcdefghijklmnop")
        await ask(one, "again", True)
        return whole.output

    answer = http(
        {"choices": [{"message": {"content": said}}], "model": KEY},
        200,
        f"x-request-id: {KEY}",
        "set-cookie: a=b",
    )
    recorded, requests = await record(path, work, answer, packets(*say(f"it is {KEY}")))
    assert recorded == said
    assert requests[0].headers["authorization"] == f"Bearer {KEY}"
    text = path.read_text()
    for secret in (KEY, "sk-", "AIza", "a-key-of", header, "abcdef123", "cookie", "authorization", "Bearer"):
        assert secret.lower() not in text.lower(), secret
    assert "api-version=3" in text
    assert text.count("[removed]") >= 6

    async def with_another_key(url):
        return (
            await agent(f"{url}?key=other&api-version=3", api_key="another-key").run(
                "my key is another-key and sk-proj-qrstuvwxyz123456"
            )
        ).output

    assert "[removed]" in await replay(path, with_another_key)


async def test_no_secret_of_a_body_is_written(tmp_path):
    servers = [{"url": "http://tools", "authorization_token": "remote-token-5678"}]
    headers = {"Authorization": "Custom header-token-9012", "X-Api-Key": "third-token-3456"}
    body = {"mcp_servers": servers, "tools_of": {"headers": headers}, "key": "the weather"}
    path = tmp_path / "a.json"

    async def work(url):
        one = agent(url, settings=ModelSettings(extra_body=body))
        return (await one.run("What is the weather?")).output

    said = "remote-token-5678, header-token-9012 and third-token-3456 for the weather"
    await record(path, work, completion(said))
    text = path.read_text()
    assert "-token-" not in text
    assert text.count("the weather") == 3
    assert (await replay(path, work)).count("[removed]") == 3


async def test_a_word_that_is_a_secret_elsewhere_is_found(tmp_path, monkeypatch):
    async def work(url):
        return (await agent(url).run("What is postgres?")).output

    path = tmp_path / "a.json"
    await record(path, work, completion("a database"))
    monkeypatch.setenv("DB_PASSWORD", "postgres")
    assert await replay(path, work) == "a database"


async def test_a_stream_that_outlives_its_recording_is_in_no_other(tmp_path):
    async with Server(packets(*say("a", "b")), completion("c")) as server:
        one = agent(server.url)
        tape = Cassette(tmp_path / "a.json", "record")
        with tape:
            running = one.stream("first")
            async for event in running:
                if type(event) is TextDelta:
                    break
        with tape:
            await one.run("second")
            await running.aclose()
    exchanges = json.loads((tmp_path / "a.json").read_text())["exchanges"]
    assert [one["request"]["body"]["messages"][0]["content"] for one in exchanges] == ["second"]


async def test_media_is_kept_as_its_hash(tmp_path):
    picture, other = Image(b"\x89PNG\r\n\x1a\n" + bytes(5000)), Image(b"\x89PNG\r\n\x1a\n" + bytes(5001))
    path = tmp_path / "a.json"
    await record(path, lambda url: agent(url).run(Message.user("What?", picture)), completion("black"))
    assert path.stat().st_size < 2000
    assert (
        await replay(path, lambda url: agent(url).run(Message.user(Text("What?"), picture)))
    ).output == "black"
    with pytest.raises(CassetteError, match="sha256"):
        await replay(path, lambda url: agent(url).run(Message.user("What?", other)))


async def test_nothing_is_written_where_the_block_failed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("as it was")
    async with Server(completion("x")) as server:
        with pytest.raises(ZeroDivisionError), Cassette(path, "record"):
            await agent(server.url).run("Hi")
            _ = 1 / 0
    assert path.read_text() == "as it was"
    assert (await record(tmp_path / "b.json", lambda url: agent(url).run("Hi"), completion("y")))[
        0
    ].output == "y"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"gossamer_cassette": 99, "exchanges": []}', "version 99"),
        ('{"gossamer_cassette": 1, "exchanges": [{"request": 3}]}', "cannot be read"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_bad_file_is_told(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CassetteError, match=words):
        Cassette(tmp_path / "a.json").open()


def test_bad_use_is_told(tmp_path):
    with pytest.raises(ArgumentError, match="mode"):
        Cassette(tmp_path / "a.json", "twice")
    with pytest.raises(CassetteError, match="no recording"):
        Cassette(tmp_path / "a.json", "replay").open()
    with Cassette(tmp_path / "a.json"), pytest.raises(CassetteError, match="in place already"):
        Cassette(tmp_path / "b.json").open()
    Cassette(tmp_path / "b.json").close()
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


# --- loops, threads, dialects -------------------------------------------------------------------------------


async def test_runs_at_once_are_replayed_in_any_order(tmp_path):
    async def answer(connection, request):
        await connection.send(completion(request.messages[-1]["content"].upper()))

    async def work(url, names="abcdefgh"):
        one = agent(url)
        return [result.output for result in await asyncio.gather(*[one.run(name) for name in names])]

    await record(tmp_path / "a.json", work, answer)
    assert await replay(tmp_path / "a.json", lambda url: work(url, "hgfedcba")) == list("HGFEDCBA")


async def test_threads_and_loops_share_a_cassette(tmp_path):
    async def answer(connection, request):
        await connection.send(completion(request.messages[-1]["content"].upper()))

    def in_threads(url):
        told = {}

        def run(name):
            told[name] = asyncio.run(agent(url).run(name)).output

        threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return told

    async def work(url):
        return await asyncio.to_thread(in_threads, url)

    recorded, _ = await record(tmp_path / "a.json", work, answer)
    assert recorded == {"a": "A", "b": "B", "c": "C"}
    assert await replay(tmp_path / "a.json", work) == recorded


async def test_the_simulators_traffic_is_replayed(tmp_path):
    async def work(url):
        one = Agent(OpenAIChat("any", base_url=url, api_key="none"), tools=[convert])
        said = await ask(one, "Good morning", True)
        called = await ask(one, 'call convert {"amount": 2, "rate": 3}', True)
        return said[0].output, called[0].output, called[0].usage

    async with Simulator() as simulator:
        with Cassette(tmp_path / "a.json"):
            recorded = await work(simulator.url)
    assert await replay(tmp_path / "a.json", work) == recorded
    assert recorded[1] == "convert returned: 6.0"
