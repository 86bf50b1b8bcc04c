"""The simulator counts what it did, by wire format, for programs and for people."""

from __future__ import annotations

import html.parser
import json

import httpx
import ollama
import openai
import pytest

from gossamer.simulator import Script, Simulator

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Page(html.parser.HTMLParser):
    """The cells of a page's tables and lists, and the addresses it loads from."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.addresses, self._open = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._open = tag
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open in {"td", "th", "dt", "dd"}:
            self.cells.append(data)

    def after(self, cell):
        return self.cells[self.cells.index(cell) + 1 :]


@pytest.fixture
async def simulator():
    script = Script([{"when": "fail", "error": 503}, {"when": "odd", "fault": "unknown_frame"}])
    async with Simulator(script=script) as running:
        yield running


async def ask(simulator):
    """Ask in three formats: one stream, two whole answers, one embedding, one error, one fault."""
    message = [{"role": "user", "content": "a b"}]
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
        await client.chat.completions.create(model="m", messages=message)
        async for _ in await client.responses.create(model="m", input="a b", stream=True):
            pass
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="fail")
        await client.responses.create(model="m", input="odd")
    async with ollama.AsyncClient(host=simulator.url.removesuffix("/v1")) as client:
        await client.chat(model="m", messages=message)
        await client.embed(model="m", input=["a b c", "d"])


async def test_counts_are_kept_by_format(simulator):
    await ask(simulator)
    stats = simulator.stats
    assert set(stats.dialects) == {"openai_chat", "openai_responses", "ollama_chat"}
    responses = stats.dialects["openai_responses"]
    assert (responses.requests, responses.streamed, responses.errors) == (3, 1, 2)
    assert (responses.prompt_tokens, responses.completion_tokens) == (5 + 4 + 4, 5 + 4)
    local = stats.dialects["ollama_chat"]
    assert (local.requests, local.prompt_tokens, local.completion_tokens) == (2, 5 + 4, 5)
    assert stats.embeddings == 2
    assert stats.errors == {"503": 1, "unknown_frame": 1}
    for name in ("prompt_tokens", "completion_tokens"):
        assert sum(getattr(each, name) for each in stats.dialects.values()) == getattr(stats, name)


async def test_programs_get_json(simulator):
    await ask(simulator)
    async with httpx.AsyncClient() as http:
        answer = await http.get(simulator.url.replace("/v1", "/stats"))
        assert answer.headers["content-type"] == "application/json"
        told = json.loads(answer.text)
        assert told["dialects"]["ollama_chat"]["requests"] == 2
        assert told["requests"] == simulator.stats.requests == 7


async def test_browsers_get_a_page_that_needs_nothing_else(simulator):
    async with httpx.AsyncClient(headers=BROWSER) as http:
        url = f"{simulator.url}/stats"
        empty = (await http.get(url)).text
        assert "Nothing was asked yet." in empty
        await ask(simulator)
        answer = await http.get(url)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(answer.text)
        assert page.after("openai_responses")[:5] == ["3", "1", "13", "9", "2"]
        assert page.after("503")[0] == page.after("unknown_frame")[0] == "1"
        assert page.after("Embeddings")[0] == "2"
        assert page.after("Requests")[0] == "8"
        assert page.addresses == ["data:,"]
        assert "color-scheme: light dark" in answer.text
        assert "<script" not in answer.text
