"""What goes over the wire: URLs, heads and the arguments that are refused."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.wire.peer import OK, Peer, always_ok, answer, collect

from gossamer.errors import ArgumentError, ConnectError
from gossamer.wire import Endpoint


async def test_the_head_of_a_request_byte_by_byte():
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(f"{peer.url}/v1/chat", headers={"Authorization": "Bearer key", "X-A": "b"})
        await collect(await endpoint.send(b"{}"))
        assert peer.requests[0].head == (
            b"POST /v1/chat HTTP/1.1\r\n"
            b"Host: 127.0.0.1:%d\r\n"
            b"User-Agent: gossamer\r\n"
            b"Accept: */*\r\n"
            b"Authorization: Bearer key\r\n"
            b"X-A: b\r\n"
            b"Content-Length: 2\r\n\r\n" % peer.port
        )


async def test_headers_of_a_request_win_over_those_of_the_endpoint():
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url, headers={"X-A": "1", "X-B": "2", "user-agent": "mine"})
        await collect(await endpoint.send(b"", headers={"x-a": "3", "X-C": "4"}))
        await collect(await endpoint.send(b""))
        first, second = (request.headers for request in peer.requests)
        assert (first["x-a"], first["X-B"], first["X-C"]) == ("3", "2", "4")
        assert "X-A" not in first
        assert second["X-A"] == "1"
        assert "X-C" not in second
        assert first["user-agent"] == "mine"
        assert "User-Agent" not in first


async def test_methods_and_their_content_length():
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        for method, body in [("GET", b""), ("DELETE", b""), ("POST", b""), ("PUT", b"x"), ("GET", b"xy")]:
            await collect(await endpoint.send(body, method=method))
        lengths = [(request.method, request.headers.get("Content-Length")) for request in peer.requests]
        assert lengths == [("GET", None), ("DELETE", None), ("POST", "0"), ("PUT", "1"), ("GET", "2")]


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", None, "/"),
        ("/", None, "/"),
        ("/v1", None, "/v1"),
        ("/v1/", None, "/v1/"),
        ("/v1", "/models", "/v1/models"),
        ("/v1/", "models", "/v1/models"),
        ("/v1", "/models?limit=5", "/v1/models?limit=5"),
        ("/v1?api-version=3", None, "/v1?api-version=3"),
        ("/v1?api-version=3", "/models?limit=5", "/v1/models?api-version=3&limit=5"),
        ("/v1?a=1", "?b=2", "/v1?a=1&b=2"),
        (
            "/v1beta",
            "/models/gemini:streamGenerateContent?alt=sse",
            "/v1beta/models/gemini:streamGenerateContent?alt=sse",
        ),
        ("/v1#part", "/x#part", "/v1/x"),
        ("/ü/€", "/ñ?q=ß", "/%C3%BC/%E2%82%AC/%C3%B1?q=%C3%9F"),
        ("/a%20b", "/c%2Fd", "/a%20b/c%2Fd"),
        ('/a"b', None, "/a%22b"),
    ],
)
async def test_targets(base, path, target):
    async with Peer(always_ok) as peer:
        await collect(await Endpoint(peer.url + base).send(b"", path=path))
        assert peer.requests[0].target == target


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://EXAMPLE.com/", "example.com"),
        ("http://example.com:80/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("http://[::1]:8000/", "[::1]:8000"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://日本.example:81/", "xn--wgv71a.example:81"),
        ("HTTP://example.com", "example.com"),
        ("http://under_score.example", "under_score.example"),
    ],
)
def test_hosts(url, host):
    endpoint = Endpoint(url)
    assert endpoint.url.split("/")[2] == host
    assert f"\r\nHost: {host}\r\n".encode() in endpoint._head


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/path",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://:80/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX: y",
        "http://example.com\n.evil.com/",
        "http://example.com/\x00",
        "http://example.com\\@evil.com/",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://example.com:-1/",
        "http://[::1/",
        "http://[::zz]/",
        "http://ex<a>mple.com/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://" + "ü" * 80 + ".example/",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(ArgumentError) as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": "b\nc"},
        {"X-A": "b\rc"},
        {"X-A": "b\0c"},
        {"X-A\r\nX-Evil": "1"},
        {"X A": "1"},
        {"X-A:": "1"},
        {"": "1"},
        {"X-Ä": "1"},
        {"X-A": "€"},
        {"Host": "evil"},
        {"content-length": "5"},
        {"Connection": "close"},
        {"Transfer-Encoding": "chunked"},
        {"Upgrade": "h2c"},
        {"Proxy-Authorization": "x"},
    ],
)
async def test_headers_that_are_refused(headers):
    with pytest.raises(ArgumentError):
        Endpoint("http://example.com", headers=headers)
    with pytest.raises(ArgumentError):
        await Endpoint("http://example.com").send(b"", headers=headers)


def test_a_refused_header_does_not_show_its_value():
    with pytest.raises(ArgumentError) as caught:
        Endpoint("http://example.com", headers={"Authorization": "Bearer secret\n"})
    assert "Authorization" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", ["GET /", "G\r\nET", "", "CONNECT"])
async def test_methods_that_are_refused(method):
    with pytest.raises(ArgumentError, match="method"):
        await Endpoint("http://example.com").send(b"", method=method)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\x00"])
async def test_paths_that_are_refused(path):
    with pytest.raises(ArgumentError, match="path"):
        await Endpoint("http://example.com").send(b"", path=path)


async def test_a_text_body_and_a_limit_of_nothing_are_refused():
    with pytest.raises(ArgumentError, match="encode"):
        await Endpoint("http://example.com").send("text")
    with pytest.raises(ArgumentError, match="max_connections"):
        Endpoint("http://example.com", max_connections=0)


def test_an_endpoint_shows_no_secrets():
    endpoint = Endpoint(
        "http://example.com/v1?key=hidden",
        headers={"Authorization": "hidden"},
        proxy="http://u:hidden@proxy:1",
    )
    assert "hidden" not in repr(endpoint)
    assert "hidden" not in repr(endpoint._route)
    assert "example.com/v1" in repr(endpoint)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(
    not has_ipv6(), reason="the machine has no IPv6 loopback; `sysctl net.ipv6.conf.lo.disable_ipv6=0`"
)
async def test_ipv6_literals():
    async with Peer(always_ok, host="::1") as peer:
        assert await collect(await Endpoint(peer.url).send(b"")) == b"ok"
        assert peer.requests[0].headers["Host"] == f"[::1]:{peer.port}"


async def test_a_name_with_several_addresses_uses_one_that_answers(monkeypatch):
    async def several(host, port, **options):
        assert host == "several.test"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("127.0.0.9", "127.0.0.8", "127.0.0.1")
        ]

    async with Peer(always_ok) as peer:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", several, raising=False)
        endpoint = Endpoint(f"http://several.test:{peer.port}")
        assert await collect(await endpoint.send(b"")) == b"ok"
        assert peer.requests[0].headers["Host"] == f"several.test:{peer.port}"


async def test_an_address_that_does_not_answer_holds_nobody_up(monkeypatch):
    async def several(host, port, **options):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("127.0.0.2", "127.0.0.1")
        ]

    async with Peer(always_ok) as peer:
        # A listener with a full queue on the first address: attempts there hang.
        with socket.socket() as listener:
            listener.bind(("127.0.0.2", peer.port))
            listener.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            try:
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(("127.0.0.2", peer.port))
                monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", several, raising=False)
                endpoint = Endpoint(f"http://several.test:{peer.port}")
                assert await collect(await asyncio.wait_for(endpoint.send(b""), 5)) == b"ok"
            finally:
                for filler in fillers:
                    filler.close()


async def test_requests_that_start_together_share_one_name_look_up(monkeypatch):
    asked = []
    loop = asyncio.get_running_loop()

    async def slow(host, port, **options):
        asked.append(host)
        await asyncio.sleep(0.02)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    async with Peer(always_ok) as peer:
        monkeypatch.setattr(loop, "getaddrinfo", slow, raising=False)
        endpoint = Endpoint(f"http://slow.test:{peer.port}")
        tasks = [asyncio.create_task(endpoint.send(b"")) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # One that gives up is no reason for the others to fail.
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert [await collect(stream) for stream in results[1:]] == [b"ok"] * 49
        assert asked == ["slow.test"]


async def test_a_name_that_does_not_resolve():
    with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
        await Endpoint("http://nowhere.invalid").send(b"")


async def test_nodelay_is_on():
    async with Peer(answer(OK)) as peer:
        stream = await Endpoint(peer.url).send(b"")
        await collect(stream)
        from gossamer.wire.pool import pool_of

        [connection] = pool_of(asyncio.get_running_loop()).connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
