"""A recording answers where there is no key: what a string names is replayed without one, and asked with one."""

from __future__ import annotations

import pytest

from gossamer import Agent
from gossamer.errors import AuthenticationError
from gossamer.models import CachedModel, RetryModel
from gossamer.models.embeddings import embedder
from gossamer.testing import Cassette

RECORDED = """{"gossamer_cassette": 1, "exchanges": [
{"request": {"method": "POST", "url": "https://api.openai.com/v1/chat/completions",
 "body": {"model": "any", "messages": [{"role": "user", "content": "none"}]}},
 "response": {"status": 200, "headers": {"content-type": "application/json"}, "json": {"choices": [
  {"finish_reason": "stop", "message": {"role": "assistant", "content": "said"}}]}}},
{"request": {"method": "POST", "url": "https://api.openai.com/v1/embeddings",
 "body": {"model": "any", "input": ["a"], "encoding_format": "base64"}},
 "response": {"status": 200, "headers": {"content-type": "application/json"}, "json": {"model": "any", "data": [
  {"index": 0, "embedding": "AACAPw=="}], "usage": {"prompt_tokens": 1}}}}
]}"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    path = tmp_path / "said.json"
    path.write_text(RECORDED)
    return path


@pytest.mark.parametrize("wrap", [str, CachedModel, RetryModel], ids=["string", "cached", "retried"])
async def test_a_string_is_replayed_without_its_key(path, wrap):
    model = wrap("openai:any")
    with Cassette(path):
        assert (await Agent(model).run("none")).output == "said"


async def test_an_embedder_is_replayed_without_its_key(path):
    with Cassette(path, "replay"):
        found = await embedder("openai:any").embed(["a"])
    assert list(found.vectors[0]) == [1.0]
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY is not set"):
        embedder("openai:any")


async def test_the_key_is_missed_again_once_the_recording_is_out(path):
    with Cassette(path, "replay"):
        await Agent("openai:any").run("none")
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY is not set"):
        await Agent("openai:any").run("none")


async def test_recording_needs_the_key(path):
    with Cassette(path, "record"), pytest.raises(AuthenticationError, match="OPENAI_API_KEY is not set"):
        await Agent("openai:any").run("none")
