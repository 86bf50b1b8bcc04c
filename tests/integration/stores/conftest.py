"""Stores for tests: `place` is each kind in turn, `shared` each that several processes can share."""

import contextlib

import pytest
from tests.integration.stores.places import place_of
from tests.services import postgres

__all__ = ["postgres"]


@contextlib.asynccontextmanager
async def opened(request, folder):
    url = request.getfixturevalue("postgres").url() if request.param == "postgres" else ""
    place = place_of(request.param, folder, url)
    try:
        yield place
    finally:
        await place.aclose()
        if place.kind == "postgres":
            place.execute(f'DROP SCHEMA IF EXISTS "{place.schema}" CASCADE')


@pytest.fixture(params=["sqlite", "memory", "postgres"])
async def place(request, tmp_path):
    async with opened(request, tmp_path) as place:
        yield place


@pytest.fixture(params=["sqlite", "postgres"])
async def shared(request, tmp_path):
    async with opened(request, tmp_path) as place:
        yield place
