"""A test of an agent through the true wire format, without a provider: `pytest examples/test_cassette.py`.

What the provider answered lies in `cassettes/test_cassette/`. It was recorded from `gossamer simulate --port 8080`;
`--cassette=record` does so anew.
"""

from __future__ import annotations

import pytest

from gossamer import Agent, tool
from gossamer.models import AnthropicChat


@tool(inline=True)
def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return f"sunny in {city}"


@pytest.mark.usefixtures("cassette")
def test_the_agent_looks_the_weather_up() -> None:
    """The model calls the tool, and tells what it gave."""
    model = AnthropicChat("claude-haiku-5-5", base_url="http://127.0.0.1:8080", api_key="none")
    result = Agent(model, tools=[get_weather]).run_sync('call get_weather {"city": "Oslo"}')
    assert "sunny in Oslo" in result.output
    assert result.usage.tool_calls == 1
