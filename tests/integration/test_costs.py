"""What answers cost, as each provider counts: cache reads, cache writes of both times, long calls, thinking."""

from __future__ import annotations

import pytest
from tests.integration.server import Server, http

from gossamer import Agent, ArgumentError, Limits, Session
from gossamer.models import OpenAIChat
from gossamer.models.anthropic_chat import AnthropicChat
from gossamer.models.gemini_chat import GeminiChat
from gossamer.models.ollama_chat import OllamaChat
from gossamer.models.openai_responses import OpenAIResponses

OPENAI = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 1_000,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 300},
        "completion_tokens_details": {"reasoning_tokens": 15},
    },
}
RESPONSES = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "hi"}],
        }
    ],
    "usage": {
        "input_tokens": 1_000,
        "output_tokens": 20,
        "input_tokens_details": {
            "cached_tokens": 500,
            "cache_write_tokens": 300,
            "cache_write_tokens_details": {"ttl_30m_tokens": 200, "ttl_12h_tokens": 100},
        },
        "output_tokens_details": {"reasoning_tokens": 15},
    },
}
ANTHROPIC = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 200,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 20,
    },
}
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 300_000,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 15,
        "totalTokenCount": 300_020,
    },
}
OLLAMA = {
    "model": "m",
    "message": {"role": "assistant", "content": "hi"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 10,
    "eval_count": 2,
}


@pytest.mark.parametrize(
    ("build", "answer", "dollars"),
    [
        (
            lambda url: OpenAIChat("gpt-6-sol-2026-09-22", base_url=url),
            OPENAI,
            200 * 2 + 500 * 0.2 + 300 * 2.5 + 20 * 10,
        ),
        (
            lambda url: OpenAIResponses("gpt-6-sol", base_url=url),
            RESPONSES,
            200 * 2 + 500 * 0.2 + 200 * 2.5 + 100 * 5 + 20 * 10,
        ),
        (
            lambda url: AnthropicChat("claude-sonnet-4-5", base_url=url.removesuffix("/v1"), api_key="k"),
            ANTHROPIC,
            200 * 3 + 500 * 0.3 + 200 * 3.75 + 100 * 6 + 20 * 15,
        ),
        (
            lambda url: GeminiChat("gemini-2.5-pro", base_url=url.removesuffix("/v1"), api_key="k"),
            GEMINI,
            300_000 * 2.5 + 20 * 15,
        ),
    ],
    ids=["openai_chat", "openai_responses", "anthropic_chat", "gemini_chat"],
)
async def test_what_a_call_costs(build, answer, dollars):
    session = Session()
    async with Server(http(answer)) as server:
        result = await Agent(build(server.url)).run("x", session=session)
    assert result.output == "hi"
    assert result.usage.cost == pytest.approx(dollars / 1e6)
    assert result.usage.unpriced_calls == 0
    assert session.usage == result.usage


async def test_a_server_of_ones_own_has_no_price():
    async with Server(http(OLLAMA)) as server:
        model = OllamaChat("m", base_url=server.url.removesuffix("/v1"))
        result = await Agent(model).run("x")
        with pytest.raises(ArgumentError, match="'m' is not known"):
            await Agent(model, limits=Limits(max_cost=1)).run("x")
    assert (result.usage.cost, result.usage.unpriced_calls) == (0, 1)
    assert len(server.requests) == 1
