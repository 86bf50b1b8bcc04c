"""What calls cost: the table, how names are found in it, long calls, cache writes, and missing prices."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gossamer.models.prices
from gossamer import Agent, ArgumentError, Limits, Message, Price, Usage
from gossamer.models import ModelResponse, OpenAIChat, ScriptedModel
from gossamer.models.presets import PRESETS
from gossamer.models.prices import TOLD_UNPRICED, add_prices, price_for, prices_dated

TABLE = msgspec.json.decode(Path(gossamer.models.prices.__file__).with_name("prices.json").read_bytes())
KNOWN = [(provider, model) for provider, models in TABLE["prices"].items() for model in models]


@pytest.fixture(autouse=True)
def nothing_added(monkeypatch):
    monkeypatch.setattr(gossamer.models.prices, "_added", {})
    told = set(TOLD_UNPRICED)
    TOLD_UNPRICED.clear()
    yield
    TOLD_UNPRICED.update(told)


# --- the table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "model"), KNOWN)
def test_every_entry_makes_sense(provider, model):
    price = price_for(provider, model)
    assert price is not None
    assert 0 < price.input <= 200
    assert price.output == 0 or price.input <= price.output <= 200
    assert price.cached is None or 0 < price.cached <= price.input
    assert price.cache_write is None or price.input <= price.cache_write
    assert price.cache_write_long is None or price.cache_write <= price.cache_write_long
    if price.long is not None:
        assert price.long_above >= 100_000
        assert price.long.input > price.input
        assert price.long.output > price.output


def test_the_table_names_its_day_and_its_sources():
    assert date(2026, 1, 1) < prices_dated()
    assert set(TABLE["sources"]) == set(TABLE["prices"])
    assert set(TABLE["prices"]) <= set(PRESETS)
    assert set(TABLE["same"]) | set(TABLE["resold"]) <= set(PRESETS)


def test_announced_changes_hold_from_their_day(monkeypatch):
    [(day, changed)] = TABLE["later"].items()
    [(provider, models)] = changed.items()
    for model, later in models.items():
        monkeypatch.setattr(gossamer.models.prices, "_today", lambda: date.fromisoformat(day))
        assert price_for(provider, model) == msgspec.convert(later, Price)
        before = date.fromordinal(date.fromisoformat(day).toordinal() - 1)
        monkeypatch.setattr(gossamer.models.prices, "_today", lambda before=before: before)
        assert price_for(provider, model) == msgspec.convert(TABLE["prices"][provider][model], Price)


@pytest.mark.parametrize("model", [model for model in TABLE["prices"]["gemini"] if "embedding" not in model])
def test_gemini_reads_its_cache_at_a_tenth(model):
    for price in (price_for("gemini", model), price_for("gemini", model).long):
        assert price is None or price.cached == pytest.approx(price.input / 10)


def test_an_alias_costs_what_it_stands_for():
    assert price_for("openai", "gpt-5.6") == price_for("openai", "gpt-5.6-sol")
    assert price_for("mistral", "mistral-medium-3.5") == price_for("mistral", "mistral-medium-3-5")


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("openai", "gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("anthropic", "claude-sonnet-5-5-latest", "claude-sonnet-5-5"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-flash-001", "gemini-2.5-flash"),
    ],
)
def test_snapshots_cost_what_their_model_costs(provider, name, model):
    assert price_for(provider, name) == msgspec.convert(TABLE["prices"][provider][model], Price)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "gpt-5-minimal"),
        ("openai", "gpt-5-mini-audio"),
        ("openai", "gpt-5-"),
        ("openai", ""),
        ("openai", "claude-sonnet-4-5"),
        ("mistral", "mistral-large-2411"),
        ("ollama", "llama3.3"),
        ("lmstudio", "gpt-5"),
        ("vllm", "gpt-5"),
        ("azure", "gpt-5"),
        ("nobody", "gpt-5"),
        ("openrouter", "gpt-5"),
        ("openrouter", "deepseek/deepseek-v4-pro"),
        ("openrouter", "openai/gpt-5:online"),
    ],
)
def test_no_name_is_taken_for_another(provider, name):
    assert price_for(provider, name) is None


def test_others_that_charge_the_same():
    assert price_for("openai_responses", "gpt-5") == price_for("openai", "gpt-5")
    assert price_for("openrouter", "openai/gpt-5") == price_for("openai", "gpt-5")
    assert price_for("openrouter", "anthropic/claude-sonnet-4.5") == price_for(
        "anthropic", "claude-sonnet-4-5"
    )


@given(st.sampled_from(KNOWN), st.text("abcdefghijklmnopqrstuvwxyz-.", min_size=1, max_size=12))
def test_what_is_added_to_a_name_makes_another_model(known, more):
    provider, model = known
    found = price_for(provider, model + more)
    if model + more in TABLE["prices"][provider] or more == "-latest":
        assert found is not None
    else:
        assert found is None


def test_prices_of_ones_own():
    add_prices("openai", {"gpt-5": Price(1, 2), "my-model": Price(3, 4)})
    add_prices("openai", {"my-model": Price(5, 6)})
    assert price_for("openai", "gpt-5") == Price(1, 2)
    assert price_for("openai", "my-model-2026-01-01") == Price(5, 6)
    assert price_for("openai", "gpt-5-mini") is not None
    with pytest.raises(ArgumentError, match="my-model"):
        add_prices("openai", {"my-model": 3})  # pyright: ignore[reportArgumentType]
    assert OpenAIChat("my-model", api_key="k").price == Price(5, 6)
    assert OpenAIChat("my-model", api_key="k", price=Price(7)).price == Price(7)


def test_the_table_is_read_when_it_is_needed():
    program = (
        "import sys, gossamer, gossamer.models\n"
        "assert 'gossamer.models.prices' not in sys.modules or "
        "not sys.modules['gossamer.models.prices']._table.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- sums ---------------------------------------------------------------------------------------------------

TIERED = Price(1, 10, 0.1, 1.25, 2, long_above=1_000, long=Price(2, 15, 0.2, 2.5, 4))


def test_each_kind_of_token_has_its_price():
    used = Usage(
        input_tokens=1_000, cached_tokens=500, cache_write_tokens=300, output_tokens=20, reasoning_tokens=15
    )
    assert TIERED.of(used) == pytest.approx((200 * 1 + 500 * 0.1 + 300 * 1.25 + 20 * 10) / 1e6)
    assert TIERED.of(used, 100) == pytest.approx((200 + 50 + 200 * 1.25 + 100 * 2 + 200) / 1e6)


def test_a_long_call_costs_more_from_its_first_token():
    short, long = Usage(input_tokens=1_000, output_tokens=10), Usage(input_tokens=1_001, output_tokens=10)
    assert TIERED.of(short) == pytest.approx((1_000 + 100) / 1e6)
    assert TIERED.of(long) == pytest.approx((2_002 + 150) / 1e6)


def test_what_is_left_out_costs_what_input_costs():
    used = Usage(input_tokens=100, cached_tokens=50, cache_write_tokens=50)
    assert Price(2, 3).of(used) == pytest.approx(200 / 1e6)
    assert Price(2, 3, cache_write=4).of(used, 50) == pytest.approx(300 / 1e6)


dollars = st.floats(0, 100)
plain = st.builds(Price, dollars, dollars, st.none() | dollars, st.none() | dollars, st.none() | dollars)
prices = plain | st.builds(
    lambda base, above, long: msgspec.structs.replace(base, long_above=above, long=long),
    plain,
    st.integers(0, 500),
    plain,
)


@given(prices, st.data())
def test_no_call_costs_more_than_its_bound(price, data):
    most_sent = data.draw(st.integers(0, 1_000))
    most_received = data.draw(st.integers(0, 1_000))
    sent = data.draw(st.integers(0, most_sent))
    cached = data.draw(st.integers(0, sent))
    written = data.draw(st.integers(0, sent - cached))
    long_writes = data.draw(st.integers(0, written))
    received = data.draw(st.integers(0, most_received))
    cost = price.of(Usage(sent, received, cached, written), long_writes)
    dear_sent, dear_received = price.dearest(most_sent)
    bound = (most_sent * dear_sent + most_received * dear_received) / 1e6
    assert cost <= bound or math.isclose(cost, bound)


@pytest.mark.parametrize(
    "arguments",
    [
        {"input": -1},
        {"input": math.nan},
        {"input": 1, "output": math.inf},
        {"input": 1, "long_above": 5},
        {"input": 1, "long": Price(2)},
    ],
)
def test_prices_are_checked(arguments):
    with pytest.raises(ArgumentError):
        Price(**arguments)


async def test_a_long_call_is_reserved_at_its_price():
    def reply(request):
        return ModelResponse(
            Message.assistant("hi"), Usage(input_tokens=1_001, output_tokens=1, model_calls=1)
        )

    price = Price(1_000, 1_000, long_above=1_000, long=Price(2_000, 1_000))
    model = ScriptedModel(reply, price=price)
    question = "x" * 1_500
    assert (await Agent(model, limits=Limits(max_cost=1.9)).run(question)).finish_reason == "limit"
    result = await Agent(model, limits=Limits(max_cost=4)).run(question)
    assert result.usage.cost == pytest.approx(2.003)


# --- missing prices -----------------------------------------------------------------------------------------


def counted(request):
    return ModelResponse(Message.assistant("hi"), Usage(10, 1, model_calls=1), model="no-such-model-7")


async def test_a_missing_price_is_told_once_and_counted(caplog):
    agent = Agent(ScriptedModel(counted))
    with caplog.at_level(logging.WARNING, "gossamer"):
        first = await agent.run("x")
        again = await agent.run("x", limits=Limits(max_tokens=10_000))
    assert (first.usage.cost, first.usage.unpriced_calls) == (0, 1)
    assert again.usage.unpriced_calls == 1
    [told] = [record for record in caplog.records if "no-such-model-7" in record.message]
    assert "price=Price" in told.message


async def test_an_answer_whose_question_was_not_counted_is_not_free():
    """As from a server that tells nothing of a prompt that it had in its cache."""

    def reply(request):
        return ModelResponse(Message.assistant("hi"), Usage(0, 10, model_calls=1))

    unknown = await Agent(ScriptedModel(reply)).run("x")
    assert (unknown.usage.cost, unknown.usage.unpriced_calls) == (0, 1)
    known = await Agent(ScriptedModel(reply, price=Price(1, 10))).run("x")
    assert known.usage.cost == pytest.approx(0.0001)


async def test_a_price_of_nothing_is_a_price(caplog):
    with caplog.at_level(logging.WARNING, "gossamer"):
        result = await Agent(ScriptedModel(counted, price=Price(0, 0)), limits=Limits(max_cost=1)).run("x")
    assert (result.usage.cost, result.usage.unpriced_calls) == (0, 0)
    assert not [record for record in caplog.records if "price" in record.message]
