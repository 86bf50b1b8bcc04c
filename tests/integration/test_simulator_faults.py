"""Every fault is the same in every wire format: what breaks, what still arrives, and what is counted."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import httpx
import openai
import pytest

from gossamer.errors import ArgumentError
from gossamer.simulator import Script, Simulator
from gossamer.simulator.faults import RATE_FAULTS, FaultDice

MESSAGES = [{"role": "user", "content": "x"}]


@dataclass
class Format:
    """How to ask for a stream, or for a whole answer, in one wire format."""

    path: str
    body: dict
    headers: dict = field(default_factory=dict)

    def request(self, simulator, *, stream):
        url = simulator.url.replace("/v1", self.path)
        return {"url": url, "json": {**self.body, "stream": stream}, "headers": self.headers}


class Gemini(Format):
    """The path tells whether it is a stream."""

    def request(self, simulator, *, stream):
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        url = simulator.url.replace("/v1", self.path + method)
        return {"url": url, "json": self.body, "headers": self.headers}


FORMATS = {
    "openai_chat": Format("/v1/chat/completions", {"model": "m", "messages": MESSAGES}),
    "openai_responses": Format("/v1/responses", {"model": "m", "input": "x"}),
    "anthropic_chat": Format(
        "/v1/messages",
        {"model": "m", "messages": MESSAGES, "max_tokens": 100},
        {"anthropic-version": "2023-06-01", "x-api-key": "k"},
    ),
    "ollama_chat": Format("/api/chat", {"model": "m", "messages": MESSAGES}),
    "gemini_chat": Gemini(
        "/v1beta/models/m:",
        {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
        {"x-goog-api-key": "k"},
    ),
}


@pytest.fixture(params=FORMATS)
def asked(request):
    """Ask with a fault, streamed or whole: status, body as far as it came, and whether the connection broke."""
    form = FORMATS[request.param]

    async def ask(reply, *, stream):
        patience = 0.5 if reply.get("fault") == "stall" else 20
        async with (
            Simulator(script=Script([reply])) as simulator,
            httpx.AsyncClient(timeout=patience) as http,
        ):
            body, broken, status = b"", False, 0
            try:
                async with http.stream("POST", **form.request(simulator, stream=stream)) as answer:
                    status = answer.status_code
                    async for piece in answer.aiter_raw():
                        body += piece
            except httpx.TransportError:
                broken = True
            async with asyncio.timeout(10):
                while simulator.stats.connections and broken:
                    await asyncio.sleep(0)
            assert simulator.stats.streams == 0
            counted = simulator.stats.errors
            assert simulator.stats.dialects[request.param].errors == sum(counted.values())
            return status, body, broken, counted

    return ask


def frames(body):
    """The JSON of each frame; None for one that is none. The end mark of OpenAI's chat is left out."""
    found = []
    for line in body.decode().splitlines():
        text = line.removeprefix("data:").strip()
        if not text or line.startswith(("event:", ":")) or text == "[DONE]":
            continue
        try:
            found.append(json.loads(text))
        except ValueError:
            found.append(None)
    return found


TEXT = "one two three four"


async def test_no_fault_is_the_measure(asked):
    status, body, broken, counted = await asked({"text": TEXT}, stream=True)
    assert (status, broken, counted) == (200, False, {})
    assert None not in frames(body)
    assert all(word in body.decode() for word in TEXT.split())


async def test_an_unknown_frame_is_one_frame_more(asked):
    _, usual, _, _ = await asked({"text": TEXT}, stream=True)
    for after in (0, 2, 4):
        fault = {"text": TEXT, "fault": "unknown_frame", "after": after}
        status, body, broken, counted = await asked(fault, stream=True)
        assert (status, broken, counted) == (200, False, {"unknown_frame": 1})
        assert None not in frames(body)
        assert len(frames(body)) == len(frames(usual)) + 1
        assert body.count(b"simulator") >= 1


async def test_a_whole_answer_gets_an_unknown_field(asked):
    status, body, broken, _ = await asked({"text": TEXT, "fault": "unknown_frame"}, stream=False)
    assert (status, broken) == (200, False)
    assert json.loads(body)["simulator_unknown"]
    assert TEXT in body.decode()


async def test_an_error_frame_ends_the_answer_in_good_form(asked):
    _, usual, _, _ = await asked({"text": TEXT}, stream=True)
    status, body, broken, counted = await asked(
        {"text": TEXT, "fault": "error_frame", "after": 2}, stream=True
    )
    assert (status, broken, counted) == (200, False, {"error_frame": 1})
    assert "error" in json.dumps(frames(body)[-1])
    assert "two" in body.decode()
    assert "three" not in body.decode()
    assert frames(body)[-1].keys() != frames(usual)[-1].keys() or b"failed" in body


async def test_an_error_frame_is_an_http_error_where_nothing_is_streamed(asked):
    status, body, broken, counted = await asked({"text": TEXT, "fault": "error_frame"}, stream=False)
    assert (status, broken, counted) == (500, False, {"error_frame": 1})
    assert json.loads(body)["error"]


async def test_one_malformed_frame_and_the_answer_goes_on(asked):
    _, usual, _, _ = await asked({"text": TEXT}, stream=True)
    status, body, broken, _ = await asked({"text": TEXT, "fault": "malformed", "after": 1}, stream=True)
    assert (status, broken) == (200, False)
    assert frames(body).count(None) == 1
    assert len(frames(body)) == len(frames(usual))
    _, body, broken, _ = await asked({"text": TEXT, "fault": "malformed"}, stream=False)
    assert not broken
    with pytest.raises(ValueError, match=r"."):
        json.loads(body)


@pytest.mark.parametrize("kind", ["reset", "close", "half_frame", "stall"])
async def test_an_answer_that_breaks_off(asked, kind):
    status, body, broken, counted = await asked({"text": TEXT, "fault": kind, "after": 2}, stream=True)
    assert (status, broken, counted) == (200, True, {kind: 1})
    assert "four" not in body.decode()
    if kind != "reset":  # a reset may overtake what was sent before it
        assert "two" in body.decode()
    if kind in {"close", "stall"}:
        assert None not in frames(body)
    status, body, broken, counted = await asked({"text": TEXT, "fault": kind}, stream=False)
    assert (broken, counted) == (True, {kind: 1})
    assert (status, bool(body)) == ((200, True) if kind == "half_frame" else (0, False))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
async def test_any_status_has_a_body_in_the_formats_own_form(asked, status):
    told, body, broken, counted = await asked({"error": status, "message": "because"}, stream=True)
    assert (told, broken, counted) == (status, False, {str(status): 1})
    error = json.loads(body)["error"]
    assert "because" in (error if isinstance(error, str) else error["message"])


# --- reasons to end, in OpenAI's chat; each other format has its own test ------------------------------------


@pytest.mark.parametrize(
    ("reply", "finish", "content", "refusal"),
    [
        ({"text": "half an", "finish": "length"}, "length", "half an", None),
        ({"text": "filtered", "finish": "content_filter"}, "content_filter", "filtered", None),
        ({"text": "I will not.", "finish": "refusal"}, "stop", None, "I will not."),
        ({"finish": "content_filter"}, "content_filter", "You said: x", None),
        ({"tool": "f", "finish": "stop"}, "stop", None, None),
    ],
)
async def test_scripted_reasons_to_end(reply, finish, content, refusal):
    async with Simulator(script=Script([reply])) as simulator:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
            choice = (await client.chat.completions.create(model="m", messages=MESSAGES)).choices[0]
            assert (choice.finish_reason, choice.message.content, choice.message.refusal) == (
                finish,
                content,
                refusal,
            )
            said, refused, ended = "", "", None
            async for chunk in await client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True
            ):
                said += chunk.choices[0].delta.content or ""
                refused += chunk.choices[0].delta.refusal or ""
                ended = chunk.choices[0].finish_reason or ended
            assert (said or None, refused or None, ended) == (content, refusal, finish)


async def test_an_error_frame_raises_in_the_official_client():
    async with Simulator(script=Script([{"text": TEXT, "fault": "error_frame", "after": 1}])) as simulator:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
            said = ""
            with pytest.raises(openai.APIError, match="had an error"):
                async for chunk in await client.chat.completions.create(
                    model="m", messages=MESSAGES, stream=True
                ):
                    said += chunk.choices[0].delta.content or ""
            assert said == "one"


def test_dice_know_their_faults():
    with pytest.raises(ArgumentError, match="unknown_frame"):
        FaultDice(0.5, ["unknown_frame"], 0)
    with pytest.raises(ArgumentError, match="finish"):
        Script([{"error": 500, "finish": "stop"}])
    with pytest.raises(ArgumentError, match="finish"):
        Script([{"text": "x", "finish": "tired"}])
    rolled = [FaultDice(1, RATE_FAULTS, seed).roll() for seed in range(100)]
    assert set(rolled) == set(RATE_FAULTS)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("openai_chat", lambda answer: answer["error"]["code"]),
        ("openai_responses", lambda answer: answer["error"]["code"]),
        ("anthropic_chat", lambda answer: answer["error"]["type"]),
        ("gemini_chat", lambda answer: answer["error"]["status"]),
    ],
)
async def test_an_error_has_the_word_that_the_script_gives_it(name, read):
    script = Script([{"error": 429, "code": "insufficient_quota", "message": "All gone."}])
    async with Simulator(script=script) as simulator, httpx.AsyncClient() as http:
        answer = await http.post(**FORMATS[name].request(simulator, stream=True))
        assert answer.status_code == 429
        assert (read(answer.json()), answer.json()["error"]["message"]) == ("insufficient_quota", "All gone.")
