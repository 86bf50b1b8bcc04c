"""`gossamer doctor --online`, with the services' addresses pointed at a server of the test."""

from __future__ import annotations

import asyncio
import json
import os

import msgspec
import pytest
from tests.integration.test_cli import VARIABLES
from tests.integration.tools.web_server import WebServer, http

from gossamer.cli import online
from gossamer.cli.doctor import doctor
from gossamer.tools.builtin.arxiv import arxiv

FEED = '<feed xmlns="http://www.w3.org/2005/Atom"></feed>'
ANSWERS = {
    "/arxiv/query": http(FEED, kind="application/atom+xml"),
    "/wikipedia/api.php": http({"query": {"search": []}}),
    "/hn/topstories.json": http([1]),
    "/hn/item/1.json": http({"id": 1, "title": "One"}),
    "/hn-search/search": http({"hits": []}),
    "/brave/web/search": http({"web": {"results": []}}),
    "/searxng/search": http({"results": []}),
}
NAMES = ["arXiv", "Wikipedia", "Hacker News", "The search of Hacker News", "Brave Search", "SearXNG"]


@pytest.fixture
def point_to(monkeypatch):
    """Point the checks to a server, with an environment that names no provider and no service."""
    for name in filter(VARIABLES.search, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.delenv("SEARXNG_URL", raising=False)

    def point(server):
        folders = ["arxiv", "wikipedia", "hn", "hn-search", "brave", "searxng"]
        checks = zip(online.CHECKS, folders, strict=True)
        moved = [msgspec.structs.replace(check, url=f"{server.url}/{folder}") for check, folder in checks]
        monkeypatch.setattr(online, "CHECKS", tuple(moved))

    return point


async def test_every_service_that_is_set_up_is_asked_once(point_to, monkeypatch, capsys):
    monkeypatch.setenv("BRAVE_API_KEY", "key-1234567")
    monkeypatch.setenv("SEARXNG_URL", "http://searxng.invalid")
    async with WebServer(ANSWERS) as server:
        point_to(server)
        assert await asyncio.to_thread(doctor, json=True, online=True) == 0
        assert sorted(request.path for request in server.requests) == sorted(ANSWERS)
    printed = capsys.readouterr().out
    assert "key-1234567" not in printed
    assert [(one["name"], one["reachable"]) for one in json.loads(printed)["online"]] == [
        (name, True) for name in NAMES
    ]


async def test_what_does_not_answer_is_told_and_is_no_failure(point_to, capsys):
    answers = {
        **ANSWERS,
        "/arxiv/query": http("Rate exceeded.", 429, kind="text/plain"),
        "/wikipedia/api.php": http("<p>down", 503),
    }
    async with WebServer(answers) as server:
        point_to(server)
        assert await asyncio.to_thread(doctor, online=True) == 0
        assert not [path for path in server.targets if path.startswith(("/brave", "/searxng"))]
    lines = capsys.readouterr().out.split("Online services\n")[1].splitlines()
    text = " ".join(" ".join(lines).split())
    assert "✗ arXiv (toolkit arxiv): arXiv takes no more requests for now (429)" in text
    assert "✗ Wikipedia (toolkit wikipedia): Wikipedia failed on its side (503)" in text
    assert "✓ Hacker News (toolkit hacker_news) answers" in text
    assert "- Brave Search (toolkit web_search): BRAVE_API_KEY is not set" in text
    assert "- SearXNG (toolkit web_search): SEARXNG_URL is not set" in text


async def test_a_service_that_is_not_there_is_told(point_to):
    async with WebServer() as server:
        pass
    point_to(server)
    found = await online.ask_services()
    assert [one.reachable for one in found] == [False, False, False, False, None, None]
    assert all("could not be reached" in one.problem for one in found[:4])


async def test_the_address_of_searxng_is_that_of_the_environment(point_to, monkeypatch):
    async with WebServer({"/mine/search": http({"results": []})}) as server:
        checks = online.CHECKS[-1:]
        point_to(server)
        monkeypatch.setenv("SEARXNG_URL", f"{server.url}/mine")
        [found] = await online.ask_services(checks)
        assert found.reachable
        monkeypatch.setenv("SEARXNG_URL", "mine")
        [found] = await online.ask_services(checks)
        assert (found.reachable, "must begin with http" in found.problem) == (False, True)


async def test_without_being_asked_it_asks_nobody(point_to, monkeypatch, capsys):
    monkeypatch.setenv("BRAVE_API_KEY", "key-1234567")
    async with WebServer(ANSWERS) as server:
        point_to(server)
        assert await asyncio.to_thread(doctor, json=True) == 0
        assert not server.accepted
    assert json.loads(capsys.readouterr().out)["online"] == []


def test_the_addresses_are_those_of_the_toolkits():
    assert [check.name for check in online.CHECKS] == NAMES
    assert online.CHECKS[0].url == arxiv.__kwdefaults__["base_url"]
