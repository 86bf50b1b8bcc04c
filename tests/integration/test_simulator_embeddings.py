"""The simulator's embeddings: the official clients understand them, and near texts are near."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys

import httpx
import ollama
import openai
import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from gossamer.simulator import Script, Simulator
from gossamer.simulator.embeddings import vector


@contextlib.asynccontextmanager
async def served(script=None, **options):
    async with Simulator(script=Script(script) if script else None, **options) as simulator:
        async with openai.AsyncOpenAI(
            base_url=simulator.url, api_key="none", max_retries=0, timeout=20
        ) as client:
            yield simulator, client


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


# --- vectors ------------------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.sampled_from([None, 1, 3, 64, 511]))
def test_any_text_has_a_vector_of_length_one(text, shortened):
    values = vector(text, 512, shortened)
    assert len(values) == (shortened or 512)
    assert math.isclose(math.hypot(*values), 1.0)


def test_texts_that_share_words_are_closer():
    cat, cats, car = (
        vector(text, 1536)
        for text in ("the cat sat on the mat", "a cat lay on a mat", "engines burn petrol quickly")
    )
    assert cosine(cat, cats) > 0.2 > abs(cosine(cat, car))
    assert cosine(vector("The  CAT", 64), vector("cat the", 64)) == pytest.approx(1)
    assert cosine(vector("red house", 1536, 64), vector("red door", 1536, 64)) > 0.2


def test_a_short_vector_is_the_beginning_of_a_long_one():
    short, long = vector("one two three", 1536, 256), vector("one two three", 1536)
    assert cosine(short, long[:256]) == pytest.approx(1)


def test_vectors_are_the_same_in_every_process():
    program = "from gossamer.simulator.embeddings import vector; print(vector('a b', 64))"
    outputs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1] == f"{vector('a b', 64)}\n"


# --- OpenAI, Azure ------------------------------------------------------------------------------------------


async def test_openai_embeds_texts_in_their_order():
    async with served() as (simulator, client):
        answer = await client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"])
        assert [each.index for each in answer.data] == [0, 1]
        assert answer.data[1].embedding == pytest.approx(vector("three", 1536), abs=1e-6)
        assert answer.model == "text-embedding-3-small"
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
        assert simulator.stats.embeddings == 2
        assert simulator.stats.dialects["openai_chat"].prompt_tokens == 3


async def test_openai_formats_and_sizes():
    async with served() as (_, client):
        ask = client.embeddings.create
        packed = await ask(
            model="text-embedding-3-large", input="one"
        )  # the client asks for base64 by itself
        plain = await ask(model="text-embedding-3-large", input="one", encoding_format="float")
        assert len(packed.data[0].embedding) == 3072
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
        short = await ask(model="text-embedding-3-small", input="one", dimensions=256)
        assert len(short.data[0].embedding) == 256
        for model, size in (("text-embedding-ada-002", 256), ("m", 4096), ("m", 0)):
            with pytest.raises(openai.BadRequestError, match="dimensions") as refused:
                await ask(model=model, input="one", dimensions=size)
            assert refused.value.param == "dimensions"


async def test_openai_embeds_tokens():
    async with served() as (_, client):
        answer = await client.embeddings.create(model="m", input=[[1, 2, 3], [4]])
        assert len(answer.data) == 2
        assert answer.usage.prompt_tokens == 4
        one = await client.embeddings.create(model="m", input=[1, 2, 3])
        assert one.data[0].embedding == answer.data[0].embedding


@pytest.mark.parametrize(
    ("given", "says", "code"),
    [
        (["x"] * 2049, "maximum length 2048, but got an array with length 2049", "array_above_max_length"),
        (["ok", "x " * 8193], r"'input\[1\]': maximum input length is 8192 tokens", None),
        (["x " * 7500] * 41, r"Requested 3\d+ tokens, max 300000", "max_tokens_per_request"),
        ("", "cannot be an empty string", None),
        (["x", ""], "cannot be an empty string", None),
        ([], "empty array", None),
        ([1, "x"], "cannot be mixed", "invalid_value"),
        (5, "Invalid value", "invalid_value"),
    ],
)
async def test_openai_refuses_what_the_provider_refuses(given, says, code):
    async with served() as (simulator, client):
        with pytest.raises(openai.BadRequestError, match=says) as refused:
            await client.embeddings.create(model="m", input=given, encoding_format="float")
        assert (refused.value.param, refused.value.code) == ("input", code)
        assert simulator.stats.embeddings == 0


async def test_the_most_inputs_are_taken():
    async with served() as (simulator, client):
        answer = await client.embeddings.create(model="m", input=["x"] * 2048, dimensions=8)
        assert len(answer.data) == simulator.stats.embeddings == 2048


async def test_azure_names_the_deployment_in_its_path():
    async with Simulator() as simulator:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=simulator.url.removesuffix("/v1"), api_version="2024-10-21", api_key="k"
        ) as client:
            answer = await client.embeddings.create(model="deployed", input="one")
            assert answer.data[0].embedding == pytest.approx(vector("one", 1536), abs=1e-6)
        async with httpx.AsyncClient() as http:
            path = simulator.url.replace("/v1", "/openai/deployments/deployed/embeddings?api-version=1")
            assert (await http.post(path, json={"input": "one"})).json()["model"] == "deployed"
            refused = await http.post(f"{simulator.url}/embeddings", json={"input": "one"})
            assert "model parameter" in refused.json()["error"]["message"]


# --- Gemini -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def google(simulator):
    async with httpx.AsyncClient() as http:  # its own choice, aiohttp, warns of how it is used
        options = types.HttpOptions(base_url=simulator.url.removesuffix("/v1"), httpx_async_client=http)
        client = genai.Client(api_key="k", http_options=options)
        yield client.aio.models
        client.close()


async def test_gemini_embeds_a_batch():
    async with Simulator() as simulator, google(simulator) as models:
        answer = await models.embed_content(model="gemini-embedding-001", contents=["one two", "three"])
        assert [each.values for each in answer.embeddings] == [vector("one two", 3072), vector("three", 3072)]
        config = types.EmbedContentConfig(output_dimensionality=256)
        short = await models.embed_content(model="gemini-embedding-001", contents="one", config=config)
        assert short.embeddings[0].values == vector("one", 3072, 256)
        assert simulator.stats.embeddings == 3
        assert simulator.stats.prompt_tokens == 4
        with pytest.raises(genai.errors.ClientError, match="at most 100 requests"):
            await models.embed_content(model="gemini-embedding-001", contents=["x"] * 101)


async def test_gemini_embeds_one():
    async with Simulator() as simulator, httpx.AsyncClient() as http:
        url = simulator.url.replace("/v1", "/v1beta/models/gemini-embedding-001:embedContent")
        answer = await http.post(url, json={"content": {"parts": [{"text": "one"}, {"text": " two"}]}})
        assert answer.json()["embedding"]["values"] == vector("one two", 3072)
        assert (await http.post(url, json={"content": {"parts": []}})).status_code == 400
        assert (await http.post(url, content=b"{")).status_code == 400


# --- Ollama -------------------------------------------------------------------------------------------------


async def test_ollama_embeds_one_and_many():
    async with Simulator() as simulator:
        async with ollama.AsyncClient(host=simulator.url.removesuffix("/v1")) as client:
            answer = await client.embed(model="nomic-embed-text", input=["one two", "three"])
            assert list(answer.embeddings) == [vector("one two", 768), vector("three", 768)]
            assert (answer.model, answer.prompt_eval_count) == ("nomic-embed-text", 3)
            one = await client.embed(model="m", input="one", dimensions=64)
            assert list(one.embeddings) == [vector("one", 768, 64)]
            assert list((await client.embed(model="m", input=[])).embeddings) == []
            long = "x " * 2049
            assert (await client.embed(model="m", input=long)).prompt_eval_count == 2048
            with pytest.raises(ollama.ResponseError, match="exceeds the context length"):
                await client.embed(model="m", input=long, truncate=False)


# --- faults -------------------------------------------------------------------------------------------------


async def test_an_error_rate_hits_embeddings_too():
    async with served(error_rate=0.5, faults=["429"], seed=1) as (simulator, client):
        outcomes = []
        for _ in range(40):
            try:
                await client.embeddings.create(model="m", input="x")
                outcomes.append(200)
            except openai.RateLimitError as error:
                outcomes.append(error.status_code)
        assert 5 < outcomes.count(429) < 35
        assert simulator.stats.errors == {"429": outcomes.count(429)}
        assert simulator.stats.embeddings == outcomes.count(200)
        again = await client.with_options(max_retries=20).embeddings.create(model="m", input="x")
        assert again.data


async def test_a_text_that_a_script_names_fails():
    script = [
        {"when": "poison", "error": 400, "message": "not this one"},
        {"when": "snap", "fault": "reset"},
        {"when": "fine", "text": "said in a chat"},
        "a chat's answer",
    ]
    async with served(script) as (simulator, client):
        with pytest.raises(openai.BadRequestError, match="not this one"):
            await client.embeddings.create(model="m", input=["good", "poison"])
        with pytest.raises(openai.APIConnectionError):
            await client.embeddings.create(model="m", input="snap")
        assert (await client.embeddings.create(model="m", input="fine")).data
        assert simulator.stats.errors == {"400": 1, "reset": 1}


async def test_latency_holds_an_embedding_back():
    async with served(latency=30) as (simulator, client):
        with pytest.raises(openai.APITimeoutError):
            await client.embeddings.create(model="m", input="x", timeout=0.2)
        assert simulator.stats.requests == 1
