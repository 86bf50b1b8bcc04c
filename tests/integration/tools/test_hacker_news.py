"""`hacker_news` against a server that answers as the site's two APIs do."""

from __future__ import annotations

import json

import pytest
from tests.integration.tools.calling import call, function
from tests.integration.tools.web_server import STALL, WebServer, cut_off, http

from gossamer.errors import ArgumentError, ServiceError, ToolkitError
from gossamer.tools.builtin import hacker_news
from gossamer.tools.builtin.hacker_news import Comment, Story

HITS = {
    "exhaustive": {"nbHits": False, "typo": False},
    "exhaustiveNbHits": False,
    "hits": [
        {
            "_highlightResult": {"title": {"matchLevel": "full", "value": "<em>Dropbox</em>"}},
            "_tags": ["story", "author_dhouston", "story_8863"],
            "author": "dhouston",
            "children": [8952, 9224],
            "created_at": "2007-04-04T19:16:40Z",
            "created_at_i": 1175714200,
            "num_comments": 71,
            "objectID": "8863",
            "points": 111,
            "story_id": 8863,
            "title": "My YC app: Dropbox - Throw away your USB drive",
            "updated_at": "2025-01-01T00:00:00Z",
            "url": "http://www.getdropbox.com/u/2/screencast.html",
        },
        {
            "objectID": "121003",
            "title": "Ask HN: The Arc Effect",
            "author": "tel",
            "points": None,
            "num_comments": None,
            "story_text": "or HN: <i>the</i> next iteration",
            "created_at": "2008-02-22T02:33:40Z",
        },
    ],
    "hitsPerPage": 2,
    "nbHits": 1200,
    "nbPages": 600,
    "page": 0,
    "params": "query=dropbox",
    "processingTimeMS": 5,
    "query": "dropbox",
}


def comment(number, text, *children, author="sama"):
    return {
        "author": author,
        "children": list(children),
        "created_at": "2006-10-09T19:51:01.000Z",
        "created_at_i": 1160423461,
        "id": number,
        "options": [],
        "parent_id": 1,
        "points": None,
        "story_id": 1,
        "text": text,
        "title": None,
        "type": "comment",
        "url": None,
    }


ITEM = {
    "author": "pg",
    "children": [
        comment(
            15,
            '&quot;the rising star&quot;<p>see <a href="https:&#x2F;&#x2F;e.test&#x2F;" rel="nofollow">this</a>',
            comment(16, "an <i>answer</i>", comment(17, "deeper", author="pg")),
            comment(18, None, comment(19, "to what was deleted"), author=None),
        ),
        comment(20, "<pre><code>x = 1\n</code></pre>", author="kn0thing"),
    ],
    "created_at": "2006-10-09T18:21:51.000Z",
    "created_at_i": 1160418111,
    "id": 1,
    "options": [],
    "parent_id": None,
    "points": 57,
    "story_id": 1,
    "text": None,
    "title": "Y Combinator",
    "type": "story",
    "url": "http://ycombinator.com",
}
SITE_ITEM = {
    "by": "dhouston",
    "descendants": 71,
    "id": 8863,
    "kids": [8952, 9224],
    "score": 111,
    "time": 1175714200,
    "title": "My YC app: Dropbox - Throw away your USB drive",
    "type": "story",
    "url": "http://www.getdropbox.com/u/2/screencast.html",
}


def toolkit(server, **options):
    return hacker_news(base_url=f"{server.url}/v0", search_url=f"{server.url}/api/v1", **options)


async def test_stories_are_found():
    async with WebServer({"/api/v1/search": http(HITS), "/api/v1/search_by_date": http(HITS)}) as server:
        search = function(toolkit(server), "search_hacker_news")
        first, second = await search("dropbox & co", 2)
        await search("dropbox", 2, "newest")
        paths = [request.path for request in server.requests]
    assert paths == ["/api/v1/search", "/api/v1/search_by_date"]
    assert server.requests[0].query == {"query": "dropbox & co", "tags": "story", "hitsPerPage": "2"}
    assert server.requests[0].headers["user-agent"].startswith("gossamer")
    assert first == Story(
        8863,
        "My YC app: Dropbox - Throw away your USB drive",
        "http://www.getdropbox.com/u/2/screencast.html",
        "dhouston",
        111,
        71,
        "2007-04-04T19:16:40Z",
    )
    assert (second.id, second.url, second.points, second.comments) == (121_003, "", 0, 0)


async def test_a_discussion_is_read():
    async with WebServer({"/api/v1/items/1": http(ITEM)}) as server:
        found = await function(toolkit(server), "read_hacker_news")(1)
    assert (found.id, found.title, found.url, found.author, found.points) == (
        1,
        "Y Combinator",
        "http://ycombinator.com",
        "pg",
        57,
    )
    assert found.comments == [
        Comment("sama", '"the rising star"\n\nsee [this](https://e.test/)', 0),
        Comment("sama", "an *answer*", 1),
        Comment("pg", "deeper", 2),
        Comment("sama", "to what was deleted", 2),
        Comment("kn0thing", "```\nx = 1\n```", 0),
    ]
    assert found.note == ""


async def test_comments_are_bounded():
    many = {**ITEM, "text": "w " * 9_000, "children": [comment(n, "word " * 9_000) for n in range(40)]}
    async with WebServer({"/api/v1/items/1": http(many)}) as server:
        read = function(toolkit(server), "read_hacker_news")
        found = await read(1, 3)
        assert [len(one.text) for one in found.comments] == [4_000] * 3
        assert len(found.text) == 4_000
        assert found.note == "37 more comments are left out."
        assert (await read(1, 0)).comments == []


async def test_a_model_reads():
    async with WebServer({"/api/v1/items/1": http(ITEM)}) as server:
        result = await call(toolkit(server), "read_hacker_news", item_id=1, limit=1)
    assert result.outcome == "ok"
    assert json.loads(result.text)["note"] == "4 more comments are left out."


async def test_a_page_of_the_site_is_listed():
    answers = {
        "/v0/topstories.json": http([8863, 2, 3, 4, 5, 6, 7]),
        "/v0/item/8863.json": http(SITE_ITEM),
        "/v0/item/2.json": http(b"null"),
        "/v0/item/3.json": http({"id": 3, "deleted": True, "type": "story", "time": 1}),
        "/v0/item/4.json": http({"id": 4, "dead": True, "title": "[dead]", "type": "story", "time": 1}),
        "/v0/item/5.json": http(
            {"id": 5, "title": "Ask HN: Why?", "by": "pg", "score": 9, "time": 1_175_714_200}
        ),
    }
    async with WebServer(answers) as server:
        found = await function(toolkit(server), "list_hacker_news")("top", 5)
        assert len(server.requests) == 6
        assert server.accepted <= 4
    assert [story.id for story in found] == [8863, 5]
    assert found[0].date == "2007-04-04T19:16:40+00:00"
    assert (found[0].points, found[0].comments) == (111, 71)
    assert found[1].url == ""


@pytest.mark.parametrize("page", ["top", "new", "best", "ask", "show", "job"])
async def test_every_page_is_there(page):
    async with WebServer({f"/v0/{page}stories.json": http([])}) as server:
        assert await function(toolkit(server), "list_hacker_news")(page) == []


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http({"status": 404, "error": "Not Found"}, 404), r"does not have this \(404\): .*Not Found"),
        (http("", 429, "Retry-After: 9"), r"\(429\); try again in 9 s"),
        (http("<p>oops", 500), r"failed on its side \(500\)"),
        (http("<p>hello"), "something that it does not document"),
        (http(b"null"), "something that it does not document"),
        (http({**ITEM, "children": [5]}), "something that it does not document"),
        (http(b'{"id":1,"children":[' * 50_000), "something that it does not document"),
        (cut_off(http(ITEM)), "did not answer properly"),
        (http({**ITEM, "text": "x" * 8_000_000}), "more than 8,000,000 bytes"),
    ],
)
async def test_every_failure_is_a_sentence(answer, said):
    async with WebServer({"/api/v1/items/1": answer}) as server:
        with pytest.raises(ServiceError, match=said) as caught:
            await function(toolkit(server), "read_hacker_news")(1)
    assert str(caught.value).startswith("The search of Hacker News ")
    assert len(str(caught.value)) < 1_000


async def test_one_story_that_fails_is_told_as_itself():
    answers = {
        "/v0/newstories.json": http([8863, 2, 3]),
        "/v0/item/8863.json": http(SITE_ITEM),
        "/v0/item/2.json": http("", 429, "Retry-After: 4"),
        "/v0/item/3.json": [STALL],
    }
    async with WebServer(answers) as server:
        result = await call(toolkit(server), "list_hacker_news", page="new", limit=3)
    assert result.outcome == "error"
    assert "ServiceError: Hacker News takes no more requests for now (429); try again in 4 s" in result.text


async def test_a_slow_answer_is_given_up():
    async with WebServer({"/v0/topstories.json": [STALL]}) as server:
        with pytest.raises(ServiceError, match=r"Hacker News did not answer within 0\.2 s"):
            await function(toolkit(server, timeout=0.2), "list_hacker_news")()


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_hacker_news", {"query": ""}, "length >= 1"),
        ("search_hacker_news", {"query": "x" * 301}, "length <= 300"),
        ("search_hacker_news", {"query": "x", "limit": 31}, "<= 30"),
        ("search_hacker_news", {"query": "x", "tags": "all"}, "tags"),
        ("read_hacker_news", {}, "item_id"),
        ("read_hacker_news", {"item_id": 0}, ">= 1"),
        ("read_hacker_news", {"item_id": "1/../.."}, "int"),
        ("read_hacker_news", {"item_id": 1, "limit": 201}, "<= 200"),
        ("list_hacker_news", {"page": "front"}, "front"),
        ("list_hacker_news", {"limit": 0}, ">= 1"),
    ],
)
async def test_arguments_that_do_not_fit(name, arguments, said):
    async with WebServer() as server:
        result = await call(toolkit(server), name, **arguments)
        assert not server.requests
    assert result.outcome == "error"
    assert said in result.text


def test_what_cannot_be_used(monkeypatch):
    for options in ({"base_url": "hn"}, {"search_url": "hn"}, {"max_bytes": 0}, {"timeout": 0.0}):
        with pytest.raises(ArgumentError):
            hacker_news(**options)
    monkeypatch.setattr("gossamer.tools.builtin.page_text.find_spec", lambda name: None)
    with pytest.raises(ToolkitError, match=r"pip install 'gossamer\[web\]'"):
        hacker_news()
