"""`gossamer models`, and what `gossamer doctor` says of providers."""

from __future__ import annotations

import json

import pytest
from tests.integration.server import Server, http
from tests.integration.test_cli import assert_one_line, call, simulator

from gossamer.errors import ArgumentError, AuthenticationError, InvalidResponseError, ModelConnectionError
from gossamer.models import PRESETS
from gossamer.models.catalog import list_models

VARIABLES = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
    "azure": "AZURE_OPENAI_ENDPOINT",
    "ollama": "OLLAMA_HOST",
}


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch):
    for preset in PRESETS.values():
        for name in (*preset.key_envs, preset.url_env):
            if name is not None:
                monkeypatch.delenv(name, raising=False)


def test_every_provider_is_listed_with_what_it_can_do():
    ran = call("models", "--json", MISTRAL_API_KEY="secret", AZURE_OPENAI_API_KEY="secret")
    assert ran.returncode == 0
    assert "secret" not in ran.stdout
    listed = {provider["name"]: provider for provider in json.loads(ran.stdout)}
    assert set(listed) == set(PRESETS)
    configured = {name for name, provider in listed.items() if provider["configured"]}
    # Those that need no key, and the one whose key is set; Azure lacks its endpoint.
    assert configured == {"ollama", "lmstudio", "vllm", "mistral"}
    assert "thinking" in listed["anthropic"]["abilities"]
    assert "audio" in listed["gemini"]["abilities"]


def test_a_url_stands_in_for_a_key_where_a_model_may_do_without():
    ran = call(
        "models",
        "--json",
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        AZURE_OPENAI_ENDPOINT="http://127.0.0.1:9",
    )
    listed = {provider["name"]: provider["configured"] for provider in json.loads(ran.stdout)}
    assert listed["openai"]
    assert not listed["azure"]


def test_urls_are_shown_without_what_may_be_secret():
    ran = call(
        "models",
        "--json",
        OPENAI_BASE_URL="https://gate.example/secret/v1?key=secret",
        ANTHROPIC_BASE_URL="https://user:secret@gate.example",
        GOOGLE_GEMINI_BASE_URL="no url",
    )
    assert "secret" not in ran.stdout
    listed = {provider["name"]: provider for provider in json.loads(ran.stdout)}
    assert listed["openai"]["url"] == listed["anthropic"]["url"] == "https://gate.example"
    assert listed["openai"]["configured"]
    assert (listed["gemini"]["url"], listed["gemini"]["configured"]) == ("", False)


def test_the_table_is_for_people():
    ran = call("models", OPENAI_API_KEY="sk-secret")
    assert ran.returncode == 0
    assert "sk-secret" not in ran.stdout
    lines = {line.split()[1]: line for line in ran.stdout.splitlines() if line[:1] in {"✓", "-"}}
    assert lines["openai"].startswith("✓")
    assert lines["groq"].startswith("-")
    assert "GROQ_API_KEY" in lines["groq"]


def test_the_models_of_a_provider():
    with simulator() as (url, started):
        ran = call("models", "openai", OPENAI_BASE_URL=url, OPENAI_API_KEY="sk-secret")
        started.terminate()
    assert ran.returncode == 0
    assert ran.stdout.startswith("openai:simulator ")
    assert "price not known" in ran.stdout


def test_an_unknown_provider_is_told():
    assert_one_line(call("models", "nobody"), 2, "nobody", "anthropic")


@pytest.mark.parametrize(
    ("provider", "path", "header", "body"),
    [
        ("openai", "/models", "authorization", {"data": [{"id": "b"}, {"id": "a"}]}),
        ("anthropic", "/v1/models?limit=1000", "x-api-key", {"data": [{"id": "b"}, {"id": "a"}]}),
        (
            "gemini",
            "/v1beta/models?pageSize=1000",
            "x-goog-api-key",
            {"models": [{"name": "models/b"}, {"name": "models/a"}]},
        ),
        ("azure", "/openai/v1/models", "api-key", {"data": [{"id": "b"}, {"id": "a"}]}),
        ("ollama", "/api/tags", None, {"models": [{"name": "b"}, {"name": "a"}]}),
    ],
)
async def test_a_list_in_every_format(provider, path, header, body, monkeypatch):
    async with Server(http(body)) as server:
        monkeypatch.setenv(VARIABLES[provider], f"http://127.0.0.1:{server.port}")
        for name in PRESETS[provider].key_envs[:1]:
            monkeypatch.setenv(name, "secret")
        assert await list_models(provider) == ("a", "b")
    request = server.requests[0]
    assert (request.target, request.raw) == (path, b"")
    assert header is None or request.headers[header].removeprefix("Bearer ") == "secret"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http({"error": {"message": "no such key"}}, 401), AuthenticationError),
        (http(b"<html>hello</html>"), InvalidResponseError),
        (http(b""), InvalidResponseError),
        (http(["a", "b"]), InvalidResponseError),
    ],
)
async def test_what_is_no_list_is_told(answer, kind, monkeypatch):
    async with Server(answer) as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.url)
        with pytest.raises(kind, match="vllm"):
            await list_models("vllm")


async def test_a_provider_that_is_not_there(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    with pytest.raises(ModelConnectionError, match="ollama"):
        await list_models("ollama")
    with pytest.raises(ArgumentError, match="AZURE_OPENAI_ENDPOINT"):
        await list_models("azure")


def test_the_doctor_tells_of_a_refused_key():
    with simulator() as (url, started):
        ran = call("doctor", OPENAI_BASE_URL=url + "/nothing-here", OPENAI_API_KEY="sk-secret")
        started.terminate()
    assert "sk-secret" not in ran.stdout
    assert "OPENAI_API_KEY is set" in ran.stdout
