"""Models by name: which server each preset asks, with whose key, and what is said where something is missing."""

from __future__ import annotations

import pytest
from tests.integration.server import Server, completion, http

from gossamer import Agent
from gossamer.errors import ArgumentError, AuthenticationError, ModelError
from gossamer.models import PRESETS, OpenAIChat, RetryModel, resolve

# Written out once more on purpose: a key must not go to another host by a slip of the pen.
EXPECTED = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
    "moonshot": ("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "dashscope": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "glm": ("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "sambanova": ("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "lmstudio": ("http://127.0.0.1:1234/v1", None),
    "vllm": ("http://127.0.0.1:8000/v1", None),
}
REMOTE = [provider for provider, (_, key) in EXPECTED.items() if key is not None]
URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "lmstudio": "LMSTUDIO_BASE_URL", "vllm": "VLLM_BASE_URL"}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch):
    """Start without keys and URLs, and without models built for an earlier environment."""
    for _, key in EXPECTED.values():
        if key is not None:
            monkeypatch.delenv(key, raising=False)
    for name in URL_VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    resolve.cache_clear()
    yield
    resolve.cache_clear()


def test_every_preset_is_known_here():
    chat = {name for name, preset in PRESETS.items() if preset.dialect == "openai_chat"}
    assert chat == set(EXPECTED)


@pytest.mark.parametrize("provider", EXPECTED)
def test_presets(provider):
    assert (PRESETS[provider].base_url, PRESETS[provider].key_env) == EXPECTED[provider]


@pytest.mark.parametrize("provider", REMOTE)
async def test_remote_presets_ask_their_host(provider, monkeypatch):
    """A proxy in the environment sees which host is asked, without anything leaving the machine."""
    url, key = EXPECTED[provider]
    monkeypatch.setenv(key, "secret")
    async with Server(http(b"", 403)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        repeated = resolve(f"{provider}:some/model:latest")
        model = repeated.model
        with pytest.raises(ModelError):
            await Agent(model).run("hi")
    # The key goes through the tunnel alone, not to the proxy.
    assert proxy.requests[0].target == f"{url.split('/')[2]}:443"
    assert "authorization" not in proxy.requests[0].headers
    assert isinstance(model, OpenAIChat)
    assert (model.name, model.provider) == ("some/model:latest", provider)
    assert isinstance(repeated, RetryModel)
    assert resolve(f"{provider}:some/model:latest") is repeated
    assert "secret" not in repr(repeated)


@pytest.mark.parametrize("provider", REMOTE)
async def test_a_missing_key_is_named(provider):
    agent = Agent(f"{provider}:some-model")
    with pytest.raises(AuthenticationError, match=EXPECTED[provider][1]) as caught:
        await agent.run("hi")
    assert caught.value.provider == provider
    assert "some-model" in str(caught.value)


async def test_a_key_that_is_set_later_is_found(monkeypatch):
    agent = Agent("openai:later")
    with pytest.raises(AuthenticationError):
        await agent.run("hi")
    async with Server(completion("ok")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "found")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert (await agent.run("hi")).output == "ok"
    assert server.requests[0].headers["authorization"] == "Bearer found"


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("provider", URL_VARIABLES)
async def test_the_environment_moves_a_provider(provider, slash, monkeypatch):
    if EXPECTED[provider][1] is not None:
        monkeypatch.setenv(EXPECTED[provider][1], "secret")
    async with Server(completion("ok")) as server:
        monkeypatch.setenv(URL_VARIABLES[provider], server.url + slash)
        assert (await Agent(f"{provider}:small").run("hi")).output == "ok"
    request = server.requests[0]
    assert request.target == "/v1/chat/completions"
    assert request.body["model"] == "small"
    assert request.headers.get("authorization") == ("Bearer secret" if provider == "openai" else None)


async def test_other_providers_stay_where_they_are(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "for openai alone")
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    async with Server(http(b"", 403)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(ModelError):
            await Agent(resolve("groq:x").model).run("hi")
    assert proxy.requests[0].target == "api.groq.com:443"
    with pytest.raises(AuthenticationError, match="MISTRAL_API_KEY"):
        resolve("mistral:x")


async def test_a_model_built_by_hand_reads_the_environment(monkeypatch):
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        OpenAIChat("x")
    async with Server(completion("ok")) as server:
        assert (await Agent(OpenAIChat("x", base_url=server.url)).run("hi")).output == "ok"
        monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        await Agent(OpenAIChat("x")).run("hi")
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].headers["authorization"] == "Bearer from the environment"


def test_openais_key_goes_to_no_other_provider(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(ArgumentError, match="base_url"):
        OpenAIChat("x", provider="acme")


async def test_openais_url_is_no_other_providers(monkeypatch):
    """Without a URL of its own another provider's key would go to whatever OPENAI_BASE_URL names."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(ArgumentError, match="base_url"):
        OpenAIChat("x", provider="acme", api_key="acme's")


@pytest.mark.parametrize("name", ["", "gpt-5-mini", "acme:gpt", "OpenAI:gpt", ":gpt", "openai"])
def test_unknown_providers_are_refused_at_once(name):
    with pytest.raises(ArgumentError) as caught:
        Agent(name)
    assert repr(name) in str(caught.value)
    assert "openai" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://example.org", "http://", "http://user:pw@127.0.0.1/v1"]
)
def test_urls_that_cannot_be_used(url):
    with pytest.raises(ArgumentError):
        OpenAIChat("x", base_url=url, api_key="k")


@pytest.mark.parametrize("key", ["a\nb", "kéy✓"])
def test_keys_that_cannot_be_sent_are_not_repeated(key):
    with pytest.raises(ArgumentError) as caught:
        OpenAIChat("x", api_key=key)
    assert key not in str(caught.value)


async def test_offline_needs_nothing():
    assert (await Agent("offline").run("hello")).output
