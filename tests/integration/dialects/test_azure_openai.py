"""Azure OpenAI: its addresses and keys, and what only its answers have."""

from __future__ import annotations

import openai
import pytest
from tests.integration.asking import CONVERT, TWO, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import DONE, Server, completion, frame, http, stream

from gossamer import Agent
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContentFilterError,
    NotFoundError,
    RateLimitError,
)
from gossamer.models import AzureOpenAIChat, ModelSettings, resolve

FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
        },
    }
}
SAFE = {"hate": {"filtered": False, "severity": "safe"}}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Start without anything of Azure's in the environment, and without models built for an earlier one."""
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    resolve.cache_clear()
    yield monkeypatch
    resolve.cache_clear()


def endpoint_of(server):
    return f"http://127.0.0.1:{server.port}"


def deployment(server, name="my-deployment", **options):
    return AzureOpenAIChat(name, base_url=endpoint_of(server), api_key="secret", **options)


# --- addresses and keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "target"),
    [
        ("my-deployment", None, "/openai/v1/chat/completions"),
        ("my-deployment", "preview", "/openai/v1/chat/completions?api-version=preview"),
        (
            "my deployment/1",
            "2024-10-21",
            "/openai/deployments/my%20deployment%2F1/chat/completions?api-version=2024-10-21",
        ),
    ],
)
@streamed_and_not
async def test_where_it_asks(name, version, target, streamed):
    async with Server(reply(streamed)) as server:
        result, _ = await ask(Agent(deployment(server, name, api_version=version)), "hi", streamed)
    assert result.output == "ok"
    request = server.requests[0]
    assert request.target == target
    assert request.headers["api-key"] == "secret"
    assert "authorization" not in request.headers
    assert request.body["model"] == name


@pytest.mark.parametrize("path", ["/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_endpoints_as_the_portal_shows_them(path):
    async with Server(reply(False)) as server:
        model = AzureOpenAIChat("d", base_url=endpoint_of(server) + path, api_key="k")
        await Agent(model).run("hi")
    assert server.requests[0].target == "/openai/v1/chat/completions"


async def test_the_environment_says_where(environment):
    async with Server(reply(False)) as server:
        environment.setenv("AZURE_OPENAI_ENDPOINT", endpoint_of(server))
        environment.setenv("AZURE_OPENAI_API_KEY", "secret")
        environment.setenv("OPENAI_API_VERSION", "2024-10-21")
        found = resolve("azure:my-deployment")
        assert (await Agent(found).run("hi")).output == "ok"
    request = server.requests[0]
    assert request.target == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "secret"
    assert found.name == "my-deployment"
    assert "AzureOpenAIChat('my-deployment'" in repr(found)
    assert "secret" not in repr(found)


def test_what_is_missing_is_named(environment):
    environment.setenv("OPENAI_API_KEY", "for openai alone")
    with pytest.raises(AuthenticationError, match="AZURE_OPENAI_API_KEY"):
        resolve("azure:d")
    with pytest.raises(AuthenticationError, match="AZURE_OPENAI_API_KEY"):
        AzureOpenAIChat("d", base_url="http://127.0.0.1:1")
    environment.setenv("AZURE_OPENAI_API_KEY", "secret")
    with pytest.raises(ArgumentError, match="AZURE_OPENAI_ENDPOINT"):
        resolve("azure:d")


async def test_openais_address_and_key_are_not_azures(environment):
    environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    environment.setenv("OPENAI_API_KEY", "for openai alone")
    async with Server(reply(False)) as server:
        await Agent(deployment(server)).run("hi")
    assert "for openai alone" not in str(server.requests[0].headers)


# --- requests and answers -----------------------------------------------------------------------------------


@streamed_and_not
async def test_a_tool_loop(streamed):
    async with Server(calling(streamed, *TWO), reply(streamed)) as server:
        settings = ModelSettings(max_tokens=50, prompt_cache="24h")
        agent = Agent(deployment(server), tools=[convert], settings=settings)
        result, _ = await ask(agent, "hi", streamed)
    assert result.output == "ok"
    body = server.requests[1].body
    assert body["tools"] == [{**CONVERT, "function": {**CONVERT["function"], "strict": True}}]
    assert body["max_completion_tokens"] == 50
    assert "prompt_cache_retention" not in body
    assert [said["content"] for said in body["messages"] if said["role"] == "tool"] == ["2.0", "12.0"]


@streamed_and_not
async def test_a_filtered_prompt(streamed):
    async with Server(http(FILTERED, 400)) as server:
        with pytest.raises(ContentFilterError, match="content management policy") as caught:
            await ask(Agent(deployment(server)), "hi", streamed)
    assert (caught.value.provider, caught.value.status) == ("azure", 400)


@streamed_and_not
async def test_a_filtered_answer(streamed):
    """The first chunk tells of the prompt alone; the last ones of the filter and of the usage."""
    results = [{"prompt_index": 0, "content_filter_results": SAFE}]
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    if streamed:
        answer = stream(
            frame(prompt_filter_results=results, model=""),
            frame({"role": "assistant", "content": ""}),
            frame({"content": "so far"}),
            b'data: {"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{"start_offset":0}}]}\n\n',
            frame({}, finish="content_filter"),
            frame(usage=usage),
            DONE,
        )
    else:
        answer = completion("so far", finish="content_filter", usage=usage)
    async with Server(answer) as server:
        result, _ = await ask(Agent(deployment(server)), "hi", streamed)
    assert (result.output, result.finish_reason) == ("so far", "content_filter")
    assert result.usage.total_tokens == 7
    assert result.usage.unpriced_calls == 1
    assert result.model == "gpt-test-2025"


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "401", AuthenticationError),
        (404, "DeploymentNotFound", NotFoundError),
        (429, "RateLimitReached", RateLimitError),
        (429, "429", RateLimitError),
    ],
)
async def test_errors(status, code, kind, streamed):
    answer = http({"error": {"code": code, "message": "no"}}, status, "Retry-After: 3")
    async with Server(answer) as server:
        with pytest.raises(kind) as caught:
            await ask(Agent(deployment(server)), "hi", streamed)
    assert type(caught.value) is kind
    assert caught.value.retry_after == 3


@streamed_and_not
async def test_it_asks_as_the_official_client_does(streamed):
    version = "2024-10-21"
    async with Server(reply(streamed)) as server:
        client = openai.AsyncAzureOpenAI(
            azure_endpoint=endpoint_of(server), api_key="secret", api_version=version, max_retries=0
        )
        words = {"model": "my-deployment", "messages": [{"role": "user", "content": "hi"}]}
        if streamed:
            chunks = await client.chat.completions.create(**words, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        else:
            text = (await client.chat.completions.create(**words)).choices[0].message.content
        await client.close()
        result, _ = await ask(Agent(deployment(server, api_version=version)), "hi", streamed)
    theirs, ours = server.requests
    assert ours.target == theirs.target
    assert ours.headers["api-key"] == theirs.headers["api-key"]
    assert result.output == text
