"""`wikipedia` against a server that answers as MediaWiki does."""

from __future__ import annotations

import json

import pytest
from tests.integration.tools.calling import call, function
from tests.integration.tools.web_server import STALL, WebServer, cut_off, http, packed

from gossamer.errors import ArgumentError, ServiceError, ToolkitError
from gossamer.tools.builtin import wikipedia
from gossamer.tools.builtin.wikipedia import Article, ArticleFound

FOUND = {
    "batchcomplete": True,
    "continue": {"sroffset": 2, "continue": "-||"},
    "query": {
        "searchinfo": {"totalhits": 5021, "suggestion": "tide", "suggestionsnippet": "tide"},
        "search": [
            {
                "ns": 0,
                "title": "Tide",
                "pageid": 30718,
                "size": 94210,
                "wordcount": 11320,
                "snippet": '<span class="searchmatch">Tides</span> are the rise &amp; fall of sea levels caused by &lt;gravity&gt;',
                "timestamp": "2025-11-20T09:12:44Z",
            },
            {
                "ns": 0,
                "title": "Tide pool",
                "pageid": 31,
                "size": 1,
                "wordcount": 7,
                "snippet": "",
                "timestamp": "2025",
            },
        ],
    },
}
ARTICLE = {
    "batchcomplete": True,
    "query": {
        "normalized": [{"fromencoded": False, "from": "tides", "to": "Tides"}],
        "redirects": [{"from": "Tides", "to": "Tide"}],
        "pages": [
            {
                "pageid": 30718,
                "ns": 0,
                "title": "Tide",
                "extract": "Tides are the rise and fall of sea levels.\n\n\n== Characteristics ==\nThey rise, they fall.\n",
                "contentmodel": "wikitext",
                "pagelanguage": "en",
                "touched": "2025-11-20T09:12:44Z",
                "lastrevid": 1,
                "length": 94210,
                "fullurl": "https://en.wikipedia.org/wiki/Tide",
                "editurl": "https://en.wikipedia.org/w/index.php?title=Tide&action=edit",
                "canonicalurl": "https://en.wikipedia.org/wiki/Tide",
                "pageprops": {"wikibase-shortdesc": "Rise and fall of the sea level"},
            }
        ],
    },
}
MEANINGS = {
    "query": {
        "pages": [
            {
                "title": "Mercury",
                "extract": "Mercury may refer to:",
                "fullurl": "https://en.wikipedia.org/wiki/Mercury",
                "pageprops": {"disambiguation": ""},
            }
        ]
    }
}
MISSING = {
    "batchcomplete": True,
    "query": {"pages": [{"ns": 0, "title": "Nowhere", "missing": True, "fullurl": "x"}]},
}
INVALID = {
    "query": {
        "pages": [
            {
                "title": "<",
                "invalidreason": 'The requested page title contains invalid characters: "<".',
                "invalid": True,
            }
        ]
    }
}
ERROR = {
    "error": {
        "code": "ratelimited",
        "info": "You've exceeded your rate limit. Please wait some time and try again.",
        "docref": "See https://en.wikipedia.org/w/api.php for API usage.",
    },
    "servedby": "mw-api-ext.eqiad.main-5f",
}


def answering(answer):
    return WebServer({"/w/api.php": answer if isinstance(answer, bytes | list) else http(answer)})


def toolkit(server, **options):
    return wikipedia(base_url=f"{server.url}/w", **options)


async def test_articles_are_found():
    async with answering(packed(json.dumps(FOUND), kind="application/json")) as server:
        found = await function(toolkit(server), "search_wikipedia")("tides & moon", 2)
        [request] = server.requests
    assert request.query == {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "list": "search",
        "srsearch": "tides & moon",
        "srlimit": "2",
    }
    assert request.headers["user-agent"].startswith("gossamer")
    assert found == [
        ArticleFound("Tide", "Tides are the rise & fall of sea levels caused by <gravity>", 11_320),
        ArticleFound("Tide pool", "", 7),
    ]


async def test_an_article_is_read():
    async with answering(ARTICLE) as server:
        article = await function(toolkit(server), "read_wikipedia")("tides")
        [request] = server.requests
    assert request.query["titles"] == "tides"
    assert request.query["redirects"] == "1"
    assert request.query["explaintext"] == "1"
    assert set(request.query["prop"].split("|")) == {"extracts", "info", "pageprops"}
    text = "Tides are the rise and fall of sea levels.\n\n\n== Characteristics ==\nThey rise, they fall."
    assert article == Article(
        "Tide", "https://en.wikipedia.org/wiki/Tide", text, "Rise and fall of the sea level"
    )


async def test_a_model_reads():
    async with answering(ARTICLE) as server:
        result = await call(toolkit(server), "read_wikipedia", title="Tide")
    assert result.outcome == "ok"
    assert json.loads(result.text)["url"] == "https://en.wikipedia.org/wiki/Tide"


async def test_a_title_with_several_meanings_is_told():
    async with answering(MEANINGS) as server:
        article = await function(toolkit(server), "read_wikipedia")("Mercury")
    assert article.note == "This title has several meanings; read one of the articles that it names."


async def test_a_long_article_is_cut_off():
    async with answering(ARTICLE) as server:
        article = await function(toolkit(server, max_chars=5), "read_wikipedia")("Tide")
    assert article.text == "Tides"
    assert article.note == "The article has 88 characters; those behind 5 are missing."


async def test_more_than_asked_for_is_left_out():
    many = {"query": {"search": FOUND["query"]["search"] * 50}}
    many["query"]["search"][0] = {"title": "Long", "snippet": "word " * 5_000}
    async with answering(many) as server:
        found = await function(toolkit(server), "search_wikipedia")("x", 3)
    assert len(found) == 3
    assert len(found[0].excerpt) == 1_000


async def test_nothing_found():
    async with answering(
        {"batchcomplete": True, "query": {"searchinfo": {"totalhits": 0}, "search": []}}
    ) as server:
        assert await function(toolkit(server), "search_wikipedia")("xyzzy") == []


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (MISSING, "has no article 'Nowhere'; search for it"),
        (INVALID, "has no article 'Nowhere': The requested page title contains invalid characters"),
        ({"batchcomplete": True}, "has no article 'Nowhere'"),
        (ERROR, r"refused the request: You've exceeded your rate limit.* \(ratelimited\)"),
        (http("<p>too many", 429, "Retry-After: 5"), r"\(429\); try again in 5 s"),
        (http("Scripted requests from your IP", 403, kind="text/plain"), r"\(403\): Scripted requests"),
        (http("<p>Wikimedia Error", 503), r"failed on its side \(503\)"),
        (http("<!DOCTYPE html><p>MediaWiki API help"), "something that it does not document"),
        ({"query": {"pages": {"30718": {"title": "Tide"}}}}, "something that it does not document"),
        ({"query": {"pages": [{"title": 5}]}}, "something that it does not document"),
        (http(b"null"), "something that it does not document"),
        (cut_off(http(ARTICLE)), "did not answer properly"),
        (http({"query": {"pages": [{"extract": "x" * 4_000_000}]}}), "more than 4,000,000 bytes"),
    ],
)
async def test_every_failure_is_a_sentence(answer, said):
    async with answering(answer) as server:
        with pytest.raises(ServiceError, match=said) as caught:
            await function(toolkit(server), "read_wikipedia")("Nowhere")
    assert str(caught.value).startswith("Wikipedia ")
    assert len(str(caught.value)) < 1_000


async def test_a_slow_answer_is_given_up():
    async with answering([STALL]) as server:
        with pytest.raises(ServiceError, match=r"Wikipedia did not answer within 0\.2 s"):
            await function(toolkit(server, timeout=0.2), "search_wikipedia")("tides")


async def test_several_titles_at_once_are_refused():
    async with answering(ARTICLE) as server:
        result = await call(toolkit(server), "read_wikipedia", title="Tide|Moon")
        assert not server.requests
    assert result.outcome == "error"
    assert "one article at a time" in result.text


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_wikipedia", {"query": ""}, "length >= 1"),
        ("search_wikipedia", {"query": "x" * 301}, "length <= 300"),
        ("search_wikipedia", {"query": "x", "limit": 21}, "<= 20"),
        ("search_wikipedia", {"query": ["x"]}, "str"),
        ("read_wikipedia", {}, "title"),
        ("read_wikipedia", {"title": "x" * 256}, "length <= 255"),
        ("read_wikipedia", {"title": "x", "language": "de"}, "language"),
    ],
)
async def test_arguments_that_do_not_fit(name, arguments, said):
    async with answering(ARTICLE) as server:
        result = await call(toolkit(server), name, **arguments)
        assert not server.requests
    assert result.outcome == "error"
    assert said in result.text


@pytest.mark.parametrize("language", ["", "EN", "en.evil.example/", "e", "en wiki", "../en"])
def test_what_is_no_language(language):
    with pytest.raises(ArgumentError, match="language"):
        wikipedia(language)


@pytest.mark.parametrize("language", ["en", "simple", "zh-classical", "be-tarask", "zh-min-nan"])
def test_languages(language):
    assert language in wikipedia(language).description


def test_what_cannot_be_used(monkeypatch):
    for options in ({"base_url": "wiki"}, {"max_chars": 0}, {"max_bytes": 0}, {"timeout": 0.0}):
        with pytest.raises(ArgumentError):
            wikipedia(**options)
    monkeypatch.setattr("gossamer.tools.builtin.page_text.find_spec", lambda name: None)
    with pytest.raises(ToolkitError, match=r"pip install 'gossamer\[web\]'"):
        wikipedia()
