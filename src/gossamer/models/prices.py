"""What models cost: a dated table of list prices, and the look-up by provider and name.

The table is `prices.json` beside this file: facts from the providers' own pages, named there with the date of reading.
It is read at the first look-up. A name is found as it stands, or as a snapshot of a known model; never by a prefix, so
that `gpt-5-mini` is never taken for `gpt-5`. What is not found has no price: its calls count as unpriced, never as free.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from gossamer.errors import ArgumentError
from gossamer.models.base import Price
from gossamer.telemetry.logging import logger

__all__ = ["TOLD_UNPRICED", "add_prices", "price_for", "prices_dated", "tell_unpriced"]

# `gpt-5-2025-08-07`, `claude-sonnet-4-5-20250929`, `claude-sonnet-4-5@20250929`, `gemini-2.0-flash-001`, `…-latest`.
_SNAPSHOT = re.compile(r"(?:-\d{4}-\d{2}-\d{2}|-20\d{6}|-00\d|-latest|@[\w.-]+)$")

_Prices = dict[str, dict[str, Price]]

# Prices that the user has added; they win over the table.
_added: _Prices = {}

# Models whose missing price was told of; each once, and no more than so many.
TOLD_UNPRICED: set[str] = set()
_MAX_UNPRICED = 1000


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """The file.

    Attributes:
        dated: when the prices were read.
        sources: where, by provider.
        same: providers that charge what another one does.
        resold: providers that resell the models of others at their price: by the vendor in the model's name.
        prices: by provider and model.
        later: announced changes, by the day from which on they hold.
    """

    dated: date
    sources: dict[str, list[str]]
    same: dict[str, str]
    resold: dict[str, dict[str, str]]
    prices: _Prices
    later: dict[date, _Prices] = {}


@functools.cache
def _table() -> _Table:
    return msgspec.json.decode(Path(__file__).with_name("prices.json").read_bytes(), type=_Table)


def price_for(provider: str, model: str) -> Price | None:
    """Give the list price of a model.

    The first look-up reads the table, a file of some kilobytes; after it, a few dict look-ups.

    Args:
        provider: as in a model string, such as `openai`.
        model: the model's name, or a dated snapshot of it.

    Returns:
        The price, or None where it is not known. Local servers have none.
    """
    table = _table()
    own = _added.get(provider)
    if own is not None and (price := _find(own, model)) is not None:
        return price
    if provider in table.resold:
        vendor, _, model = model.partition("/")
        provider = table.resold[provider].get(vendor, "")
        if provider == "anthropic":
            model = model.replace(".", "-")
    provider = table.same.get(provider, provider)
    model = model.removeprefix("models/")
    today = _today() if table.later else date.min
    for begins in sorted(table.later, reverse=True):
        if begins <= today and (price := _find(table.later[begins].get(provider, {}), model)) is not None:
            return price
    return _find(table.prices.get(provider, {}), model)


def prices_dated() -> date:
    """The day on which the table's prices were read."""
    return _table().dated


def add_prices(provider: str, prices: Mapping[str, Price]) -> None:
    """Add prices of one's own, for models that are not in the table or that cost something else here.

    They hold in this process, for models that are built from then on.

    Args:
        provider: as in a model string, such as `openrouter`.
        prices: by the model's name.

    Raises:
        ArgumentError: something that is no `Price`.
    """
    for model, price in prices.items():
        if not isinstance(price, Price):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"the price of {model!r} must be a Price, not {type(price).__name__}")
    _added[provider] = {**_added.get(provider, {}), **prices}


def tell_unpriced(model: str) -> None:
    """Say in the log, once for each model, that its calls have no price."""
    if model not in TOLD_UNPRICED and len(TOLD_UNPRICED) < _MAX_UNPRICED:
        TOLD_UNPRICED.add(model)
        logger.warning(
            "the price of model %r is not known: its calls count as unpriced, and costs are lower bounds; "
            "give it price=Price(input, output), in US dollars for a million tokens",
            model,
        )


def _today() -> date:
    return datetime.now(UTC).date()


def _find(prices: Mapping[str, Price], model: str) -> Price | None:
    """Find a model by its name, or by the name of which it is a snapshot."""
    return prices.get(model) or prices.get(_SNAPSHOT.sub("", model))
