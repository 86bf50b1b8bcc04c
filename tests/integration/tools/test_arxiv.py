"""`arxiv` against a server that answers with feeds as arXiv does, and with what no feed should hold."""

from __future__ import annotations

import json
import sys

import pytest
from tests.integration.tools.calling import call, function
from tests.integration.tools.web_server import STALL, WebServer, cut_off, http

from gossamer.errors import ArgumentError, ServiceError, ToolkitError
from gossamer.tools.builtin import arxiv

KIND = "application/atom+xml; charset=utf-8"
ENTRY = """
  <entry>
    <id>http://arxiv.org/abs/1706.03762v7</id>
    <title>Attention Is All
  You Need</title>
    <updated>2023-08-02T00:41:18Z</updated>
    <link href="https://arxiv.org/abs/1706.03762v7" rel="alternate" type="text/html"/>
    <link href="https://arxiv.org/pdf/1706.03762v7" rel="related" type="application/pdf" title="pdf"/>
    <summary>The dominant sequence transduction models are based on complex
recurrent networks; ours costs &lt; 1/4 of them.</summary>
    <category term="cs.LG" scheme="http://arxiv.org/schemas/atom"/>
    <category term="cs.CL" scheme="http://arxiv.org/schemas/atom"/>
    <published>2017-06-12T17:57:34Z</published>
    <arxiv:comment>15 pages, 5 figures</arxiv:comment>
    <arxiv:primary_category term="cs.CL"/>
    <arxiv:journal_ref>NIPS 2017</arxiv:journal_ref>
    <arxiv:doi>10.5555/3295222</arxiv:doi>
    <author><name>Ashish Vaswani</name><arxiv:affiliation>Google</arxiv:affiliation></author>
    <author><name>Noam Shazeer</name></author>
  </entry>"""


def feed(*entries, head=""):
    return f"""<?xml version='1.0' encoding='UTF-8'?>{head}
<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom"
      xmlns="http://www.w3.org/2005/Atom">
  <id>https://arxiv.org/api/cHxbiOdZaP56ODnBPIenZhzg5f8</id>
  <title>arXiv Query: search_query=all:tides&amp;id_list=&amp;start=0&amp;max_results=1</title>
  <updated>2025-11-29T00:00:00Z</updated>
  <link href="https://arxiv.org/api/query?search_query=all:tides" type="application/atom+xml"/>
  <opensearch:itemsPerPage>1</opensearch:itemsPerPage>
  <opensearch:totalResults>2</opensearch:totalResults>
  <opensearch:startIndex>0</opensearch:startIndex>{"".join(entries)}
</feed>"""


def error(words):
    anchor = words.replace(" ", "_")
    return f"""
  <entry>
    <id>https://arxiv.org/api/errors#{anchor}</id>
    <title>Error</title>
    <summary>{words}</summary>
    <updated>2025-11-29T00:00:00Z</updated>
    <link href="https://arxiv.org/api/errors#{anchor}" rel="alternate" type="text/html"/>
    <author><name>arXiv api core</name></author>
  </entry>"""


def toolkit(server, **options):
    return arxiv(base_url=f"{server.url}/api", **{"pause": 0.0, **options})


def answering(text, status=200, *headers, kind=KIND):
    return WebServer({"/api/query": http(text, status, *headers, kind=kind)})


async def test_papers_are_found():
    short = ENTRY.replace("1706.03762v7", "hep-th/9901001v1").replace(
        "2023-08-02T00:41:18Z", "2017-06-12T17:57:34Z"
    )
    async with answering(feed(ENTRY, short)) as server:
        first, second = await function(toolkit(server), "search_arxiv")(
            'attention "neural networks"', 2, "newest"
        )
        [request] = server.requests
    assert request.query == {
        "search_query": 'all:attention AND all:"neural networks"',
        "max_results": "2",
        "sortBy": "submittedDate",
        "sortOrder": "descending",
    }
    assert request.headers["user-agent"].startswith("gossamer")
    assert first.id == "1706.03762v7"
    assert first.title == "Attention Is All You Need"
    assert first.authors == ["Ashish Vaswani", "Noam Shazeer"]
    assert first.abstract.endswith("complex recurrent networks; ours costs < 1/4 of them.")
    assert (first.published, first.updated) == ("2017-06-12T17:57:34Z", "2023-08-02T00:41:18Z")
    assert first.categories == ["cs.CL", "cs.LG"]
    assert (first.comment, first.journal, first.doi) == (
        "15 pages, 5 figures",
        "NIPS 2017",
        "10.5555/3295222",
    )
    assert first.url == "http://arxiv.org/abs/1706.03762v7"
    assert (second.id, second.updated) == ("hep-th/9901001v1", "")


async def test_a_model_searches():
    async with answering(feed(ENTRY)) as server:
        result = await call(toolkit(server), "search_arxiv", query="attention")
    assert result.outcome == "ok"
    assert json.loads(result.text)[0]["title"] == "Attention Is All You Need"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("tides", "all:tides"),
        ("tides of (the) moon", "all:tides AND all:of AND all:the AND all:moon"),
        ('"dark matter', "all:dark AND all:matter"),
        ("au:hinton AND ti:distillation", "au:hinton AND ti:distillation"),
        ("cat:cs.CL", "cat:cs.CL"),
        ("moon OR mars", "moon OR mars"),
        ("Poincaré & co", "all:Poincaré AND all:co"),
    ],
)
async def test_queries(query, sent):
    async with answering(feed()) as server:
        assert await function(toolkit(server), "search_arxiv")(query) == []
        assert server.requests[0].query["search_query"] == sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("1706.03762", "1706.03762"),
        (" 1706.03762v7 ", "1706.03762v7"),
        ("arXiv:0704.0001", "0704.0001"),
        ("https://arxiv.org/abs/1706.03762v7", "1706.03762v7"),
        ("http://www.arxiv.org/pdf/1706.03762.pdf", "1706.03762"),
        ("hep-th/9901001", "hep-th/9901001"),
        ("math.GT/0309136v1", "math.GT/0309136v1"),
    ],
)
async def test_a_paper_is_read(given, sent):
    async with answering(feed(ENTRY)) as server:
        paper = await function(toolkit(server), "read_arxiv")(given)
        assert server.requests[0].query == {"id_list": sent, "max_results": "1"}
    assert paper.title == "Attention Is All You Need"


@pytest.mark.parametrize(
    "given", ["", "attention", "1706", "1706.03762,0704.0001", "../etc", "https://e.test/1706.03762"]
)
async def test_what_is_no_id_is_not_sent(given):
    async with answering(feed(ENTRY)) as server:
        with pytest.raises(ArgumentError, match="no id of a paper"):
            await function(toolkit(server), "read_arxiv")(given)
        assert not server.requests


async def test_many_authors_and_long_abstracts_are_bounded():
    entry = ENTRY.replace(
        "<author><name>Noam", "<author><name>Somebody</name></author>" * 2_900 + "<author><name>Noam"
    )
    entry = entry.replace("recurrent networks", "recurrent networks " * 1_000)
    async with answering(feed(entry)) as server:
        paper = await function(toolkit(server), "read_arxiv")("1706.03762")
    assert (len(paper.authors), paper.more_authors) == (20, 2_882)
    assert len(paper.abstract) == 4_000


async def test_more_papers_than_asked_for_are_left_out():
    async with answering(feed(*[ENTRY] * 50)) as server:
        assert len(await function(toolkit(server), "search_arxiv")("x", 3)) == 3


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [feed(), feed("<entry><id>http://arxiv.org/abs/9999.99999</id></entry>")])
async def test_a_paper_that_is_not_there(text):
    async with answering(text) as server:
        with pytest.raises(ServiceError, match=r"arXiv has no paper '9999\.99999'; search for it"):
            await function(toolkit(server), "read_arxiv")("9999.99999")


async def test_an_error_that_comes_as_a_success():
    async with answering(feed(error("incorrect id format for 9999.99999"))) as server:
        result = await call(toolkit(server), "read_arxiv", paper_id="9999.99999")
    assert result.outcome == "error"
    assert "arXiv refused the request: incorrect id format for 9999.99999" in result.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http(feed(error("max_results must be an integer")), 400, kind=KIND), r"refused the request \(400\)"),
        (http("Rate exceeded.", 429, kind="text/plain"), r"\(429\); try again later: Rate exceeded"),
        (http("", 503, "Retry-After: 30", kind="text/html"), r"\(503\); try again in 30 s"),
        (http("Rate exceeded.", kind="text/plain"), "answered with no feed .*'Rate exceeded"),
        (http("<html><body>down</body></html>"), "answered with no feed, but with 'html'"),
        (http("<feed/>", kind=KIND), "no feed"),
        (http("", kind=KIND), "no feed"),
        (http(b"\xff\xff<feed", kind=KIND), "no feed"),
        (http('<?xml version="1.0" encoding="nonsense"?><feed/>', kind=KIND), "no feed"),
        (http(feed(ENTRY)[:-20], kind=KIND), "no feed"),
        (cut_off(http(feed(ENTRY), kind=KIND)), "did not answer properly"),
        (http(feed(ENTRY * 10_000), kind=KIND), "more than 4,000,000 bytes"),
    ],
)
async def test_every_failure_is_a_sentence(answer, said):
    async with WebServer({"/api/query": answer}) as server:
        with pytest.raises(ServiceError, match=said) as caught:
            await function(toolkit(server), "search_arxiv")("tides")
    assert str(caught.value).startswith("arXiv ")
    assert len(str(caught.value)) < 1_000


BOMB = (
    '<!DOCTYPE feed [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)


@pytest.mark.parametrize(
    "text",
    [
        feed(ENTRY.replace("Attention", "&j;"), head=BOMB),
        feed(
            ENTRY.replace("Attention", "&x;"),
            head='<!DOCTYPE feed [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        ),
        feed(ENTRY, head='<!DOCTYPE feed SYSTEM "http://127.0.0.1:1/feed.dtd">'),
        feed(ENTRY, head="<!DOCTYPE feed>"),
    ],
)
async def test_entities_are_not_expanded(text):
    async with answering(text) as server:
        with pytest.raises(ServiceError, match="answered with no feed"):
            await function(toolkit(server), "search_arxiv")("tides")


async def test_deep_nesting_is_no_harm():
    async with answering(feed("<a>" * 100_000 + "</a>" * 100_000)) as server:
        assert await function(toolkit(server), "search_arxiv")("tides") == []


async def test_a_slow_answer_is_given_up():
    async with WebServer({"/api/query": [STALL]}) as server:
        with pytest.raises(ServiceError, match=r"arXiv did not answer within 0\.2 s"):
            await function(toolkit(server, timeout=0.2), "search_arxiv")("tides")


async def test_requests_are_spaced():
    async with answering(feed(ENTRY)) as server:
        kit = toolkit(server, pause=3_600.0)
        await function(kit, "read_arxiv")("1706.03762")
        with pytest.raises(ServiceError, match="takes a request every 3600 s"):
            await function(kit, "search_arxiv")("tides")
        assert len(server.requests) == 1


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_arxiv", {}, "query"),
        ("search_arxiv", {"query": ""}, "length >= 1"),
        ("search_arxiv", {"query": ' "" () '}, "no word to look for"),
        ("search_arxiv", {"query": "x" * 501}, "length <= 500"),
        ("search_arxiv", {"query": "x", "limit": 31}, "<= 30"),
        ("search_arxiv", {"query": "x", "sort": "best"}, "best"),
        ("search_arxiv", {"query": "x", "start": 5}, "start"),
        ("read_arxiv", {"paper_id": 1706.03762}, "str"),
        ("read_arxiv", {"paper_id": "1" * 300}, "length <= 200"),
    ],
)
async def test_arguments_that_do_not_fit(name, arguments, said):
    async with answering(feed()) as server:
        result = await call(toolkit(server), name, **arguments)
        assert not server.requests
    assert result.outcome == "error"
    assert said in result.text


def test_what_cannot_be_used():
    for options in ({"base_url": "arxiv.org"}, {"max_bytes": 0}, {"timeout": -1.0}, {"pause": -1.0}):
        with pytest.raises(ArgumentError):
            arxiv(**options)


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setattr(sys.modules["gossamer.tools.builtin.arxiv"], "find_spec", lambda name: None)
    with pytest.raises(ToolkitError, match=r"pip install 'gossamer\[web\]'"):
        arxiv()
