"""Embedders against servers on real sockets: every wire format, batches, order, repeats, cancellation, bad answers."""

from __future__ import annotations

import asyncio
import base64
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.server import Close, Server, http

from gossamer import ArgumentError, Price, Usage
from gossamer.errors import (
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    RateLimitError,
)
from gossamer.models.embeddings import (
    AzureOpenAIEmbedder,
    Batching,
    Embedder,
    GeminiEmbedder,
    OllamaEmbedder,
    OpenAIEmbedder,
    embedder,
)

QUICK = Batching(max_texts=2, max_concurrent=3, first_wait=0.001)


def numbers(text: str) -> list[float]:
    """A vector that tells the text."""
    return [float(len(text)), float(sum(map(ord, text)) % 1000), 0.5]


def packed(values: list[float]) -> str:
    return base64.b64encode(array("f", values).tobytes()).decode()


def openai_answer(texts, *, floats=False, backwards=False, tokens=None, **more):
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": numbers(text) if floats else packed(numbers(text)),
        }
        for place, text in enumerate(texts)
    ]
    tokens = sum(map(len, texts)) if tokens is None else tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return http(
        {"object": "list", "data": data[::-1] if backwards else data, "model": "e-1", "usage": usage, **more}
    )


def answering(**options):
    async def answer(connection, request):
        await connection.send(openai_answer(request.body["input"], **options))

    return answer


def ask(server, **keywords):
    keywords.setdefault("batching", QUICK)
    return OpenAIEmbedder("text-embedding-3-small", base_url=server.url, **keywords)


TEXTS = [f"text {place}" + "x" * place for place in range(9)]


# --- bad input ----------------------------------------------------------------------------------------------


async def test_a_text_that_utf8_cannot_say():
    async with Server(answering()) as server:
        with pytest.raises(ArgumentError, match=r"texts\[1\] holds '\\ud800'"):
            await ask(server).embed(["fine", "half \ud800"])
    assert server.requests == []


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [3, 4]}],
        [{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [3, 4]}],
        [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [3]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
    ],
)
async def test_vectors_that_cannot_be_those_of_the_texts(data):
    async with Server(http({"data": data})) as server:
        with pytest.raises(InvalidResponseError, match="no list of embeddings"):
            await ask(server, batching=Batching(attempts=1)).embed(["a", "b"])


async def test_gemini_leaves_the_values_out():
    async with Server(http({"embeddings": [{}]})) as server:
        model = GeminiEmbedder("gemini-embedding-001", base_url=server.url, batching=Batching(attempts=1))
        with pytest.raises(InvalidResponseError, match="no list of embeddings"):
            await model.embed(["a"])


async def test_what_is_free_is_free_uncounted_too():
    async with Server(http({"data": [{"embedding": [1, 2]}]})) as server:
        free = await ask(server, price=Price(0)).embed(["a"])
        priced = await ask(server, price=Price(1)).embed(["a"])
    assert (free.usage.cost, free.usage.unpriced_calls) == (0, 0)
    assert (priced.usage.cost, priced.usage.unpriced_calls) == (0, 1)


# --- wire formats -------------------------------------------------------------------------------------------


async def test_openai():
    async with Server(answering(backwards=True)) as server:
        model = ask(server, dimensions=3, api_key="k")
        assert isinstance(model, Embedder)
        found = await model.embed(["a", "bc"])
    assert [list(vector) for vector in found.vectors] == [numbers("a"), numbers("bc")]
    assert {vector.typecode for vector in found.vectors} == {"f"}
    assert memoryview(found.vectors[0]).format == "f"
    assert found.model == "e-1"
    assert found.usage == Usage(input_tokens=3, model_calls=1, cost=pytest.approx(3 * 0.02 / 1e6))
    [request] = server.requests
    assert request.target == "/v1/embeddings"
    assert request.headers["authorization"] == "Bearer k"
    assert request.body == {
        "model": "text-embedding-3-small",
        "input": ["a", "bc"],
        "encoding_format": "base64",
        "dimensions": 3,
    }


async def test_a_server_that_sends_numbers_all_the_same():
    async with Server(answering(floats=True)) as server:
        found = await ask(server, batching=Batching()).embed(["x" * place for place in range(1, 100)])
    assert [vector[0] for vector in found.vectors] == list(range(1, 100))


async def test_indexes_left_out_keep_the_order():
    data = [{"embedding": numbers("a")}, {"embedding": numbers("bc")}]
    async with Server(http({"data": data})) as server:
        found = await ask(server).embed(["a", "bc"])
    assert [vector[0] for vector in found.vectors] == [1, 2]
    assert found.usage == Usage(model_calls=1, unpriced_calls=1)  # nothing was counted, so nothing is free


async def test_azure():
    async with Server(answering()) as server:
        root = server.url.removesuffix("/v1")
        await AzureOpenAIEmbedder("my deployment", base_url=root, api_key="k").embed(["a"])
        dated = AzureOpenAIEmbedder("my deployment", base_url=root, api_key="k", api_version="2024-10-21")
        found = await dated.embed(["a"])
    assert [request.target for request in server.requests] == [
        "/openai/v1/embeddings",
        "/openai/deployments/my%20deployment/embeddings?api-version=2024-10-21",
    ]
    assert {request.headers["api-key"] for request in server.requests} == {"k"}
    assert found.usage.unpriced_calls == 1


@pytest.mark.parametrize(
    ("model", "purpose", "task", "text"),
    [
        ("gemini-embedding-001", "document", "RETRIEVAL_DOCUMENT", "a"),
        ("gemini-embedding-001", "query", "RETRIEVAL_QUERY", "a"),
        ("models/gemini-embedding-2", "query", None, "task: search result | query: a"),
        ("gemini-embedding-2", "document", None, "title: none | text: a"),
    ],
)
async def test_gemini(model, purpose, task, text):
    answer = {"embeddings": [{"values": [1, 2.5]}], "usageMetadata": {"promptTokenCount": 7}}
    async with Server(http(answer)) as server:
        root = server.url.removesuffix("/v1")
        found = await GeminiEmbedder(model, base_url=root, api_key="k", dimensions=2).embed(["a"], purpose)
    [request] = server.requests
    name = model.removeprefix("models/")
    assert request.target == f"/v1beta/models/{name}:batchEmbedContents"
    assert request.headers["x-goog-api-key"] == "k"
    entry = {"model": f"models/{name}", "outputDimensionality": 2, "content": {"parts": [{"text": text}]}}
    assert request.body == {"requests": [entry | ({"taskType": task} if task else {})]}
    assert [list(vector) for vector in found.vectors] == [[1, 2.5]]
    assert found.usage.input_tokens == 7
    assert found.usage.cost > 0


async def test_ollama():
    answer = {"model": "nomic", "embeddings": [[1, 2], [3, 4]], "prompt_eval_count": 5}
    async with Server(http(answer)) as server:
        found = await OllamaEmbedder("nomic", base_url=f"127.0.0.1:{server.port}").embed(["a", "b"])
    [request] = server.requests
    assert request.target == "/api/embed"
    assert request.body == {"model": "nomic", "input": ["a", "b"], "truncate": False}
    assert [list(vector) for vector in found.vectors] == [[1, 2], [3, 4]]
    assert found.usage == Usage(input_tokens=5, model_calls=1, unpriced_calls=1)


# --- batches ------------------------------------------------------------------------------------------------


async def test_batches_keep_the_order_whichever_comes_first():
    async def answer(connection, request):
        first = request.body["input"][0]
        for _ in range(20 if first == TEXTS[0] else 1):  # the first batch is the slowest
            await asyncio.sleep(0.001)
        await connection.send(openai_answer(request.body["input"]))

    async with Server(answer) as server:
        found = await ask(server).embed(TEXTS)
    assert [list(vector) for vector in found.vectors] == [numbers(text) for text in TEXTS]
    assert [len(request.body["input"]) for request in server.requests] == [2, 2, 2, 2, 1]
    assert found.usage.input_tokens == sum(map(len, TEXTS))
    assert found.usage.model_calls == 5


async def test_no_more_requests_at_once_than_allowed():
    running = most = 0
    full = asyncio.Event()

    async def answer(connection, request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await asyncio.wait_for(full.wait(), 10)
        running -= 1
        await connection.send(openai_answer(request.body["input"]))

    async with Server(answer) as server:
        await ask(server).embed([*TEXTS, "a", "b", "c"])
    assert most == 3
    assert server.accepted == 3


async def test_batches_are_bounded_in_bytes_and_a_long_text_goes_alone():
    async with Server(answering()) as server:
        batching = Batching(max_texts=100, max_bytes=10, max_concurrent=1)
        await ask(server, batching=batching).embed(["aaaa", "éé", "bbb", "c" * 50, "d"])
    assert [request.body["input"] for request in server.requests] == [
        ["aaaa", "éé"],
        ["bbb"],
        ["c" * 50],
        ["d"],
    ]


async def test_no_texts_ask_nobody():
    async with Server(answering()) as server:
        found = await ask(server).embed([])
    assert (found.vectors, found.usage, server.requests) == ([], Usage(), [])


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a", ""], r"texts\[1\] is empty"),
        (["a", "b", 3], r"texts\[2\] must be text, not int"),
        ("abc", "not str"),
    ],
)
async def test_texts_that_are_none(texts, told):
    async with Server(answering()) as server:
        with pytest.raises(ArgumentError, match=told):
            await ask(server).embed(texts)
    assert server.requests == []


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), max_size=30),
    max_texts=st.integers(1, 7),
    max_bytes=st.integers(1, 60),
    max_concurrent=st.integers(1, 4),
)
def test_any_texts_come_back_in_order(texts, max_texts, max_bytes, max_concurrent):
    async def go():
        async with Server(answering(backwards=True)) as server:
            batching = Batching(max_texts, max_bytes, max_concurrent)
            found = await ask(server, batching=batching).embed(texts)
            batches = [request.body["input"] for request in server.requests]
        assert [list(vector) for vector in found.vectors] == [numbers(text) for text in texts]
        assert sorted(text for batch in batches for text in batch) == sorted(texts)
        for batch in batches:
            assert len(batch) <= max_texts
            assert len(batch) == 1 or sum(len(text.encode()) for text in batch) <= max_bytes

    asyncio.run(go())


# --- failures -----------------------------------------------------------------------------------------------


async def test_a_batch_is_repeated_by_itself():
    seen: list[str] = []

    async def answer(connection, request):
        first = request.body["input"][0]
        seen.append(first)
        if first == TEXTS[2] and seen.count(first) < 3:
            await connection.send(http({"error": {"message": "slow down"}}, 429, "retry-after-ms: 1"))
        else:
            await connection.send(openai_answer(request.body["input"]))

    async with Server(answer) as server:
        found = await ask(server).embed(TEXTS)
    assert [list(vector) for vector in found.vectors] == [numbers(text) for text in TEXTS]
    assert [seen.count(text) for text in TEXTS[::2]] == [1, 3, 1, 1, 1]
    assert found.usage.model_calls == 5


async def test_a_batch_that_fails_for_good_fails_the_whole():
    async def answer(connection, request):
        if request.body["input"][0] == TEXTS[4]:
            await connection.send(http({"error": {"message": "slow down"}}, 429))
        else:
            await connection.send(openai_answer(request.body["input"]))

    async with Server(answer) as server:
        with pytest.raises(RateLimitError, match="slow down") as caught:
            await ask(server).embed(TEXTS)
    assert caught.value.texts == range(4, 6)
    assert caught.value.attempts == 3
    assert "texts 4 to 5 of 9" in caught.value.__notes__[0]
    assert sum(request.body["input"][0] == TEXTS[4] for request in server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [
        (http({"error": {"message": "no", "code": "invalid_api_key"}}, 401), AuthenticationError, 1),
        (http({"error": {"message": "maximum context length is 8192"}}, 400), ContextLengthError, 1),
        (http({"error": {"message": "no such field"}}, 400), InvalidRequestError, 1),
        (http({"error": {"message": "wait"}}, 429, "retry-after: 3600"), RateLimitError, 1),
        (http({"data": []}), InvalidResponseError, 3),
        (http({"data": [{"embedding": "not base64!"}]}), InvalidResponseError, 3),
        (http({"data": [{"embedding": "YWJj"}]}), InvalidResponseError, 3),
        (http({"data": [{"embedding": ["a"]}]}), InvalidResponseError, 3),
        (http({"data": 3}), InvalidResponseError, 3),
        (http(b"<html>busy</html>", kind="text/html"), InvalidResponseError, 3),
        (Close(b""), ModelConnectionError, 3),
    ],
    ids=["key", "long", "field", "wait", "few", "base64", "odd", "words", "shape", "html", "closed"],
)
async def test_failures_are_typed(answer, kind, asked):
    async with Server(answer) as server:
        with pytest.raises(kind) as caught:
            await ask(server).embed(["a"])
        assert type(caught.value) is kind
    assert len(server.requests) == asked
    assert caught.value.texts == range(1)


async def test_gemini_and_ollama_failures():
    refused = http({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}, 429)
    async with Server(refused) as server:
        root = server.url.removesuffix("/v1")
        with pytest.raises(RateLimitError):
            await GeminiEmbedder("gemini-embedding-001", base_url=root, batching=QUICK).embed(["a"])
        with pytest.raises(RateLimitError):
            await OllamaEmbedder("nomic", base_url=root, batching=QUICK).embed(["a"])
    async with Server(http({"embeddings": []})) as server:
        root = server.url.removesuffix("/v1")
        with pytest.raises(InvalidResponseError, match="0 embeddings for 1 texts"):
            await GeminiEmbedder("gemini-embedding-001", base_url=root, batching=QUICK).embed(["a"])
        with pytest.raises(InvalidResponseError, match="0 embeddings for 1 texts"):
            await OllamaEmbedder("nomic", base_url=root, batching=QUICK).embed(["a"])


async def test_cancelling_stops_every_request():
    arrived = asyncio.Event()

    async def answer(connection, request):
        if len(server.requests) == 3:
            arrived.set()
        await connection.wait_closed_by_client()

    async with Server(answer) as server:
        task = asyncio.create_task(ask(server).embed(TEXTS))
        await asyncio.wait_for(arrived.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for connection in server.connections:
            await asyncio.wait_for(connection.gone.wait(), 10)
    assert len(server.requests) == 3


async def test_one_failure_cancels_the_others():
    async def answer(connection, request):
        if request.body["input"][0] == TEXTS[0]:
            while len(server.requests) < 3:
                await asyncio.sleep(0)
            await connection.send(http({"error": {"message": "no"}}, 400))
        else:
            await connection.wait_closed_by_client()

    async with Server(answer) as server:
        with pytest.raises(InvalidRequestError):
            await ask(server).embed(TEXTS)
        for connection in server.connections[1:]:
            await asyncio.wait_for(connection.gone.wait(), 10)
    assert len(server.requests) == 3


# --- building -----------------------------------------------------------------------------------------------


async def test_by_name(monkeypatch):
    embedder.cache_clear()
    async with Server(answering()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        model = embedder("openai:text-embedding-3-large")
        assert embedder("openai:text-embedding-3-large") is model
        assert (model.name, model.provider, model.dimensions) == ("text-embedding-3-large", "openai", None)
        assert model.price == Price(0.13)
        await model.embed(["a"])
    assert len(server.requests) == 1
    embedder.cache_clear()


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("text-embedding-3-small", ArgumentError, "provider:model"),
        ("anthropic:x", ArgumentError, "names no provider with embeddings"),
        ("nobody:x", ArgumentError, "openai, "),
        ("mistral:mistral-embed", AuthenticationError, "MISTRAL_API_KEY"),
    ],
)
def test_names_that_give_none(name, kind, told, monkeypatch):
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(kind, match=told):
        embedder(name)


def test_keys_are_needed_where_nothing_else_is_known(monkeypatch):
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder("m")
    with pytest.raises(ArgumentError, match="base_url="):
        OpenAIEmbedder("m", provider="mistral")
    with pytest.raises(AuthenticationError, match="GEMINI_API_KEY"):
        GeminiEmbedder("m")
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ArgumentError, match="AZURE_OPENAI_ENDPOINT"):
        AzureOpenAIEmbedder("m")


@pytest.mark.parametrize(
    "field", ["max_texts", "max_bytes", "max_concurrent", "attempts", "first_wait", "longest_wait"]
)
def test_batching_is_checked(field):
    with pytest.raises(ArgumentError, match=field):
        Batching(**{field: -1})
