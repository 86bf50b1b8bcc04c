"""`web_search` with its back ends, against servers that speak as Brave, SearXNG and Tavily document it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from tests.integration.tools.calling import call, function
from tests.integration.tools.web_server import STALL, WebServer, cut_off, http, packed

from gossamer.errors import ArgumentError, ServiceError, ToolkitError
from gossamer.tools.builtin import BraveSearch, SearchResult, SearXNG, TavilySearch, web_search

BRAVE = {
    "type": "search",
    "query": {"original": "tides", "more_results_available": True, "country": "us"},
    "mixed": {"type": "mixed", "main": [{"type": "web", "index": 0, "all": False}], "top": [], "side": []},
    "web": {
        "type": "search",
        "family_friendly": True,
        "results": [
            {
                "title": "Tide &amp; moon - Wikipedia",
                "url": "https://en.wikipedia.org/wiki/Tide",
                "is_source_local": False,
                "description": "<strong>Tides</strong> are the rise and fall of sea levels &quot;caused&quot; by gravity",
                "page_age": "2025-11-02T10:00:00",
                "age": "November 2, 2025",
                "profile": {"name": "Wikipedia", "url": "https://en.wikipedia.org/wiki/Tide"},
                "language": "en",
                "meta_url": {"scheme": "https", "netloc": "en.wikipedia.org", "path": "/wiki/Tide"},
                "extra_snippets": ["more"],
            },
            {
                "title": "Tide tables",
                "url": "https://tides.example/",
                "description": "By harbour",
                "language": "en",
            },
        ],
    },
}
BRAVE_LIMITED = {
    "type": "ErrorResponse",
    "error": {
        "id": "8f1c2e7a",
        "status": 429,
        "code": "RATE_LIMITED",
        "detail": "Request rate limit exceeded for plan.",
        "meta": {"plan": "Free", "rate_limit": 1, "rate_current": 1, "quota_limit": 2000, "quota_current": 5},
    },
    "time": 1764395433,
}
BRAVE_BAD_KEY = {
    "type": "ErrorResponse",
    "error": {
        "id": "8f1c2e7b",
        "status": 422,
        "code": "SUBSCRIPTION_TOKEN_INVALID",
        "detail": "The provided subscription token is invalid: key-1234567",
        "meta": {"component": "authentication"},
    },
}
SEARXNG = {
    "query": "tides",
    "number_of_results": 0,
    "results": [
        {
            "url": "https://en.wikipedia.org/wiki/Tide",
            "title": "Tide - Wikipedia",
            "content": "Tides are the rise and fall of sea levels",
            "publishedDate": None,
            "thumbnail": "",
            "engine": "wikipedia",
            "template": "default.html",
            "parsed_url": ["https", "en.wikipedia.org", "/wiki/Tide", "", "", ""],
            "engines": ["duckduckgo", "wikipedia"],
            "positions": [1, 1],
            "score": 4.0,
            "category": "general",
        },
        {
            "url": "https://tides.example/",
            "title": "Tide tables",
            "engine": "brave",
            "publishedDate": "2025-11-02T00:00:00",
        },
    ],
    "answers": [],
    "corrections": [],
    "infoboxes": [],
    "suggestions": ["tide chart"],
    "unresponsive_engines": [["google", "Suspended: CAPTCHA"]],
}
TAVILY = {
    "query": "tides",
    "follow_up_questions": None,
    "answer": None,
    "images": [],
    "results": [
        {
            "title": "Tide - Wikipedia",
            "url": "https://en.wikipedia.org/wiki/Tide",
            "content": "Tides are the rise and fall of sea levels",
            "score": 0.93,
            "raw_content": None,
        },
        {
            "title": None,
            "url": "https://tides.example/",
            "content": "By harbour",
            "score": 0.5,
            "published_date": "2025-11-02",
        },
    ],
    "response_time": 1.2,
}
PATHS = {"brave": "/res/v1/web/search", "searxng": "/search", "tavily": "/search"}
ANSWERS = {"brave": BRAVE, "searxng": SEARXNG, "tavily": TAVILY}
NAMES = {"brave": "Brave Search", "searxng": "SearXNG", "tavily": "Tavily"}


def back_end(which, server, **options):
    if which == "brave":
        return BraveSearch("key-1234567", f"{server.url}/res/v1", **{"pause": 0.0, **options})
    if which == "searxng":
        return SearXNG(server.url, **options)
    return TavilySearch("key-1234567", server.url, **options)


@pytest.fixture(params=sorted(PATHS))
def which(request):
    return request.param


async def test_brave_is_asked_as_it_documents():
    async with WebServer({PATHS["brave"]: packed(json.dumps(BRAVE), kind="application/json")}) as server:
        found = await back_end("brave", server).search("moon & tides", 3)
        [request] = server.requests
    assert (request.method, request.path) == ("GET", "/res/v1/web/search")
    assert request.query == {"q": "moon & tides", "count": "3", "result_filter": "web"}
    assert request.headers["x-subscription-token"] == "key-1234567"
    assert request.headers["accept"] == "application/json"
    assert found == [
        SearchResult(
            "Tide & moon - Wikipedia",
            "https://en.wikipedia.org/wiki/Tide",
            'Tides are the rise and fall of sea levels "caused" by gravity',
            "2025-11-02T10:00:00",
        ),
        SearchResult("Tide tables", "https://tides.example/", "By harbour"),
    ]


async def test_searxng_is_asked_as_it_documents():
    async with WebServer({"/search": http(SEARXNG)}) as server:
        found = await SearXNG(server.url, language="de").search("tides", 5)
        [request] = server.requests
    assert (request.method, request.query) == ("GET", {"q": "tides", "format": "json", "language": "de"})
    assert [result.url for result in found] == [
        "https://en.wikipedia.org/wiki/Tide",
        "https://tides.example/",
    ]
    assert (found[0].text, found[0].date) == ("Tides are the rise and fall of sea levels", "")
    assert (found[1].text, found[1].date) == ("", "2025-11-02T00:00:00")


async def test_tavily_is_asked_as_it_documents():
    async with WebServer({"/search": http(TAVILY)}) as server:
        found = await back_end("tavily", server).search("tides", 2)
        [request] = server.requests
    assert (request.method, json.loads(request.body)) == ("POST", {"query": "tides", "max_results": 2})
    assert request.headers["authorization"] == "Bearer key-1234567"
    assert request.headers["content-type"] == "application/json"
    assert [result.title for result in found] == ["Tide - Wikipedia", "https://tides.example/"]
    assert found[1].date == "2025-11-02"


async def test_a_model_searches(which):
    async with WebServer({PATHS[which]: http(ANSWERS[which])}) as server:
        result = await call(web_search(back_end(which, server)), "search_web", query="tides", limit=1)
    assert result.outcome == "ok"
    [found] = json.loads(result.text)
    assert found["url"] == "https://en.wikipedia.org/wiki/Tide"
    assert "rise and fall of sea levels" in found["text"]


async def test_nothing_found(which):
    nothing = {
        "brave": {"type": "search", "query": {"original": "xyzzy"}},
        "searxng": {**SEARXNG, "results": [], "unresponsive_engines": []},
        "tavily": {**TAVILY, "results": []},
    }
    async with WebServer({PATHS[which]: http(nothing[which])}) as server:
        assert await back_end(which, server).search("xyzzy", 5) == []


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said", "status", "retry_after"),
    [
        (
            http("slow down", 429, "Retry-After: 7", kind="text/plain"),
            r"\(429\); try again in 7 s: slow down",
            429,
            7.0,
        ),
        (http("", 429), r"no more requests for now \(429\); try again later$", 429, None),
        (http("", 429, "Retry-After: soon"), "try again later", 429, None),
        (http("", 429, "Retry-After: Thu, 01 Jan 2015 00:00:00 GMT"), "try again in 0 s", 429, 0.0),
        (http("<h1>Bad gateway", 502), r"failed on its side \(502\); try again later$", 502, None),
        (http({"detail": "down"}, 503, "Retry-After: 60"), r"\(503\); try again in 60 s: .*down", 503, 60.0),
        (http({"detail": "no"}, 401), r"refused the request \(401\); .+: .*no", 401, None),
        (http("<p>no", 403), r"refused the request \(403\); .+", 403, None),
        (http({"detail": "bad"}, 400), r"refused the request \(400\): .*bad", 400, None),
        (http("<p>what", 404), r"does not have this \(404\)", 404, None),
        (http("", 301, "Location: https://elsewhere.example/"), "points to https://elsewhere", 301, None),
        (http("<p>hello"), "something that it does not document", 200, None),
        (http({"results": "many", "web": 5}), "something that it does not document", 200, None),
        (http(b"[" * 100_000), "something that it does not document", 200, None),
        (http(b"\xff\xfe"), "something that it does not document", 200, None),
        (http(b""), "something that it does not document", 200, None),
        (cut_off(http(SEARXNG)), "did not answer properly", None, None),
        (cut_off(packed(json.dumps(SEARXNG))), "did not answer properly", None, None),
        ([b"220 mail\r\n"], "did not answer properly", None, None),
        (http(b" " * 5_000_000), "more than 4,000,000 bytes", None, None),
        (packed(" " * 50_000_000), "more than 4,000,000 bytes", None, None),
    ],
)
async def test_every_failure_is_a_sentence(which, answer, said, status, retry_after):
    async with WebServer({PATHS[which]: answer}) as server:
        with pytest.raises(ServiceError, match=said) as caught:
            await back_end(which, server).search("tides", 5)
    assert str(caught.value).startswith(NAMES[which])
    assert (caught.value.service, caught.value.status) == (NAMES[which], status)
    assert caught.value.retry_after == retry_after
    assert len(str(caught.value)) < 1_000


async def test_a_service_that_is_slow_is_given_up(which):
    async with WebServer({PATHS[which]: [b"HTTP/1.1 200 OK\r\n", STALL]}) as server:
        with pytest.raises(ServiceError, match=r"did not answer within 0\.2 s"):
            await back_end(which, server, timeout=0.2).search("tides", 5)


async def test_a_service_that_is_not_there(which):
    async with WebServer() as server:
        pass
    with pytest.raises(ServiceError, match=r"could not be reached: .*is the server running"):
        await back_end(which, server).search("tides", 5)


async def test_brave_tells_its_limits_in_its_own_headers():
    limits = (
        "X-RateLimit-Limit: 1, 15000",
        "X-RateLimit-Remaining: 0, 1000",
        "X-RateLimit-Reset: 1, 1419704",
    )
    async with WebServer({PATHS["brave"]: http(BRAVE_LIMITED, 429, *limits)}) as server:
        result = await call(web_search(back_end("brave", server)), "search_web", query="tides")
        assert result.outcome == "error"
        assert "Brave Search takes no more requests for now (429); try again in 1 s" in result.text
        assert "Request rate limit exceeded for plan" in result.text
        limits = ("X-RateLimit-Remaining: 0, 0", "X-RateLimit-Reset: 1, 1419704")
        server.answers[PATHS["brave"]] = http(BRAVE_LIMITED, 429, *limits)
        with pytest.raises(ServiceError, match="in 1419704 s"):
            await back_end("brave", server).search("tides", 5)
        server.answers[PATHS["brave"]] = http(
            BRAVE_LIMITED, 429, "X-RateLimit-Remaining: few", "Retry-After: 3"
        )
        with pytest.raises(ServiceError, match="in 3 s"):
            await back_end("brave", server).search("tides", 5)


async def test_a_refused_key_is_told_and_not_shown():
    async with WebServer({PATHS["brave"]: http(BRAVE_BAD_KEY, 422)}) as server:
        with pytest.raises(
            ServiceError, match=r"\(422\); check BRAVE_API_KEY: .*token is invalid: …"
        ) as caught:
            await back_end("brave", server).search("tides", 5)
    assert "key-1234567" not in str(caught.value)
    async with WebServer(
        {"/search": http({"detail": {"error": "Unauthorized: key-1234567"}}, 401)}
    ) as server:
        with pytest.raises(ServiceError, match=r"\(401\); check TAVILY_API_KEY: .*Unauthorized: …"):
            await back_end("tavily", server).search("tides", 5)


async def test_searxng_without_json_is_told_what_to_do():
    async with WebServer({"/search": http("<h1>Forbidden", 403)}) as server:
        with pytest.raises(ServiceError, match=r"search\.formats in its settings\.yml"):
            await SearXNG(server.url).search("tides", 5)


async def test_searxng_whose_engines_all_failed_is_no_empty_result():
    async with WebServer({"/search": http({**SEARXNG, "results": []})}) as server:
        with pytest.raises(ServiceError, match="engines of it failed: google Suspended: CAPTCHA"):
            await SearXNG(server.url).search("tides", 5)


async def test_searches_are_spaced_and_too_many_are_refused():
    """The second has its turn after an hour: it is refused at once and the first is not held up."""
    async with WebServer({PATHS["brave"]: http(BRAVE)}) as server:
        brave = back_end("brave", server, pause=3_600.0)
        assert await brave.search("tides", 5)
        with pytest.raises(ServiceError, match=r"takes a request every 3600 s"):
            await brave.search("tides", 5)
        assert len(server.requests) == 1


async def test_spaced_searches_all_have_their_turn():
    async with WebServer({PATHS["brave"]: http(BRAVE)}) as server:
        brave = back_end("brave", server, pause=0.02)
        found = await asyncio.gather(*[brave.search(f"tides {number}", 1) for number in range(5)])
        assert [len(results) for results in found] == [1] * 5
        assert sorted(request.query["q"] for request in server.requests) == [f"tides {n}" for n in range(5)]


# --- the tool -----------------------------------------------------------------------------------------------


class Echo:
    """A back end of somebody's own, which does not keep to the limit."""

    async def search(self, query, limit):
        return [SearchResult(query * 3_000, f"https://e.test/{n}", "x" * 9_000) for n in range(limit + 5)]


async def test_a_back_end_of_ones_own_is_held_to_the_bounds():
    found = await function(web_search(Echo()), "search_web")("ab", 3)
    assert [result.url for result in found] == [f"https://e.test/{n}" for n in range(3)]
    assert {len(found[0].title), len(found[0].text)} == {2_001}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "query"),
        ({"query": ""}, "length >= 1"),
        ({"query": "x" * 401}, "length <= 400"),
        ({"query": 5}, "str"),
        ({"query": "x", "limit": 0}, ">= 1"),
        ({"query": "x", "limit": 21}, "<= 20"),
        ({"query": "x", "limit": "many"}, "int"),
        ({"query": "x", "pages": 2}, "pages"),
    ],
)
async def test_arguments_that_do_not_fit(arguments, said):
    result = await call(web_search(Echo()), "search_web", **arguments)
    assert result.outcome == "error"
    assert said in result.text


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: web_search("brave"), ArgumentError, "BraveSearch()"),
        (BraveSearch, ToolkitError, "set BRAVE_API_KEY"),
        (TavilySearch, ToolkitError, "set TAVILY_API_KEY"),
        (lambda: SearXNG("localhost:8888"), ArgumentError, "must begin with http"),
        (lambda: BraveSearch("k", pause=-1.0), ArgumentError, "pause"),
        (lambda: BraveSearch("k", timeout=0.0), ArgumentError, "timeouts"),
        (lambda: BraveSearch("k\n"), ArgumentError, "line break"),
    ],
)
def test_what_cannot_be_used(make, error, said, monkeypatch):
    monkeypatch.delenv("BRAVE_API_KEY", raising=False)
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    with pytest.raises(error, match=re.escape(said)):
        make()


async def test_the_key_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("BRAVE_API_KEY", "from-environment")
    async with WebServer({"/web/search": http(BRAVE)}) as server:
        await BraveSearch(base_url=server.url).search("tides", 1)
        assert server.requests[0].headers["x-subscription-token"] == "from-environment"
