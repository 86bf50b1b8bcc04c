"""`gossamer models`: which providers are known, what each can do, which are configured; and one provider's models."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter

from gossamer.cli.loop import loop_factory
from gossamer.cli.screen import Screen
from gossamer.errors import ArgumentError
from gossamer.models.base import Price
from gossamer.models.catalog import list_models
from gossamer.models.presets import PRESETS
from gossamer.models.prices import price_for
from gossamer.wire.url import parse_url

__all__ = ["KnownModel", "KnownProvider", "models"]

_ABILITIES = (
    ("tools", "tools"),
    ("native_schema", "schemas"),
    ("images", "images"),
    ("audio", "audio"),
    ("files", "files"),
    ("thinking", "thinking"),
)


class KnownProvider(msgspec.Struct, frozen=True):
    """A provider that is known by name.

    Attributes:
        name: as in `name:model`.
        dialect: the wire format it speaks.
        url: the origin that is asked; empty where nothing says it, or says it in a way that cannot be used.
        key_env: the variable that holds the key; None where none is needed.
        configured: whether it could be asked now: its key is set, or it needs none, and there is a URL.
        abilities: what most of its models can do.
    """

    name: str
    dialect: str
    url: str
    key_env: str | None
    configured: bool
    abilities: tuple[str, ...]


class KnownModel(msgspec.Struct, frozen=True):
    """A model that a provider offers.

    Attributes:
        name: as in `provider:name`.
        price: what it costs, None where that is not known here.
    """

    name: str
    price: Price | None


def models(provider: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the providers that are known, what each can do, and which are configured.

    Args:
        provider: ask this one which models it offers, and show what they cost; no tokens are spent.
        json: print the list as JSON.
    """
    listed: tuple[KnownProvider, ...] | tuple[KnownModel, ...]
    if provider is None:
        listed = tuple(map(_provider, PRESETS))
    else:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            names = runner.run(list_models(provider))
        listed = tuple(KnownModel(name, price_for(provider, name)) for name in names)
    if json:
        sys.stdout.write(msgspec.json.encode(listed).decode() + "\n")
        return
    screen = Screen()
    for entry in listed:
        if isinstance(entry, KnownModel):
            screen.line(f"{provider}:{entry.name:<40} {_cost(entry.price)}".rstrip())
        else:
            _show(screen, entry)
    if provider is None:
        screen.line(
            "\n✓ could be asked now. offline needs nothing. gossamer models PROVIDER lists its models.", "dim"
        )


def _provider(name: str) -> KnownProvider:
    preset = PRESETS[name]
    try:  # a path or a password may hold what is not to be shown
        url = parse_url(preset.url() or preset.base_url, name=preset.url_env or "url").origin
    except ArgumentError:
        url = ""
    return KnownProvider(
        name,
        preset.dialect,
        url,
        preset.key_env,
        bool(url) and not preset.lacks_key(),
        tuple(word for field, word in _ABILITIES if getattr(preset.capabilities, field)),
    )


def _show(screen: Screen, provider: KnownProvider) -> None:
    mark = "✓" if provider.configured else "-"
    key = provider.key_env or "no key"
    screen.line(
        f"{mark} {provider.name:<17}{provider.dialect:<18}{key:<22}{', '.join(provider.abilities)}",
        "" if provider.configured else "dim",
    )


def _cost(price: Price | None) -> str:
    if price is None:
        return "price not known"
    return f"${price.input:g} in, ${price.output:g} out, a million tokens"
