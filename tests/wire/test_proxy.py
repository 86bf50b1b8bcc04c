"""Through proxies: CONNECT for https, absolute URLs for http, and what the environment says."""

from __future__ import annotations

import asyncio
import base64
import ssl

import pytest
import trustme
from tests.wire.peer import OK, Peer, always_ok, collect

from gossamer.errors import ArgumentError, ConnectError
from gossamer.wire import Endpoint, Timeouts, statistics


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("model.test", "127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)


def tunnel_to(peer):
    """A script: a CONNECT proxy that takes every host to be `peer`."""

    async def script(connection):
        request = await connection.request()
        assert request.method == "CONNECT"
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        connection.send(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")

        async def back():
            while data := await reader.read(65_536):
                connection.send(data)
            connection.close()

        returning = asyncio.create_task(back())
        try:
            while True:
                if connection.received:
                    writer.write(bytes(connection.received))
                    connection.received.clear()
                if not await connection.more():
                    break
        finally:
            returning.cancel()
            writer.close()
            await asyncio.gather(returning, writer.wait_closed(), return_exceptions=True)

    return script


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
async def test_https_goes_through_a_tunnel(tls, proxy_tls):
    context, ca_file = tls
    async with Peer(always_ok, ssl=context) as peer:
        async with Peer(tunnel_to(peer), ssl=context if proxy_tls else None) as proxy:
            endpoint = Endpoint(
                f"https://model.test:{peer.port}/v1",
                ca_file=ca_file,
                proxy=proxy.url.replace("//", "//me:s%40y@"),
            )
            for _ in range(3):
                assert await collect(await endpoint.send(b"x" * 100_000)) == b"ok"
            assert len(proxy.connections) == len(peer.connections) == 1
            [request] = proxy.requests
            assert request.target == f"model.test:{peer.port}"
            assert request.headers["Host"] == f"model.test:{peer.port}"
            credentials = base64.b64encode(b"me:s@y").decode()
            assert request.headers["Proxy-Authorization"] == f"Basic {credentials}"
            # What is the proxy's stays with the proxy.
            assert all("Proxy-Authorization" not in request.headers for request in peer.requests)
            assert peer.requests[0].target == "/v1"
            [host] = statistics()
            assert host.proxy == f"127.0.0.1:{proxy.port}"


async def test_http_through_a_proxy_asks_for_the_absolute_url():
    async with Peer(always_ok) as proxy:
        endpoint = Endpoint("http://model.test/v1?a=1", proxy=f"http://u:p@127.0.0.1:{proxy.port}")
        for _ in range(2):
            assert await collect(await endpoint.send(b"", path="/chat")) == b"ok"
        request = proxy.requests[0]
        assert request.target == "http://model.test/v1/chat?a=1"
        assert request.headers["Host"] == "model.test"
        assert request.headers["Proxy-Authorization"] == "Basic dTpw"
        assert len(proxy.connections) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "asks for credentials"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "is it an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\ngarbage", "before the TLS handshake"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "longer than"),
        (b"HTTP/1.1 20", "before it answered"),
    ],
)
async def test_a_proxy_that_refuses(reply, message, tls):
    async def script(connection):
        await connection.request()
        await connection.send_in([reply])
        connection.close()

    async with Peer(script) as proxy:
        endpoint = Endpoint("https://model.test", proxy=proxy.url, ca_file=tls[1])
        with pytest.raises(ConnectError, match=message):
            await endpoint.send(b"")
        assert statistics()[0].open == 0
        await asyncio.wait_for(proxy.connections[0].gone.wait(), 5)


async def test_a_proxy_that_never_answers_is_a_connect_timeout(tls):
    async def script(connection):
        await connection.request()
        await connection.gone.wait()

    async with Peer(script) as proxy:
        endpoint = Endpoint(
            "https://model.test", proxy=proxy.url, ca_file=tls[1], timeouts=Timeouts(connect=0.1)
        )
        with pytest.raises(ConnectError, match="through the proxy"):
            await endpoint.send(b"")
        await asyncio.wait_for(proxy.connections[0].gone.wait(), 5)


def proxy_of(url, **options):
    chosen = Endpoint(url, **options)._route.proxy
    return None if chosen is None else f"{chosen.scheme}://{chosen.host}:{chosen.port}"


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "https://model.test", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://model.test", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https://model.test", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://model.test", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://model.test", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://model.test", None),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://model.test", None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://model.test", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://model.test", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://q:2"}, "https://model.test", "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "https://model.test", "http://p:1"),
        ({"HTTPS_PROXY": "https://p"}, "https://model.test", "https://p:443"),
        ({"HTTPS_PROXY": ""}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1"}, "http://localhost:8000", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8000", None),
        ({"ALL_PROXY": "http://p:1"}, "http://[::1]:8000", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "model.test"}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "other, .test"}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "test"}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*.test"}, "https://model.test", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "el.test"}, "https://model.test", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "MODEL.TEST:8443"}, "https://model.test:8443", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "model.test:8443"}, "https://model.test", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3"}, "https://10.1.2.3", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "[2001:db8::1]:443"}, "https://[2001:db8::1]", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "2001:db8::/32"}, "https://[2001:db8::1]", None),
    ],
)
def test_the_environment(monkeypatch, environment, url, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == expected


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    assert proxy_of("https://model.test", proxy="") is None
    assert proxy_of("https://model.test", proxy="http://q:2") == "http://q:2"
    assert proxy_of("http://localhost", proxy="http://q:2") == "http://q:2"


def test_a_proxy_of_another_kind_is_refused(monkeypatch):
    with pytest.raises(ArgumentError, match="proxy"):
        Endpoint("https://model.test", proxy="socks5://p:1")
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@p:1")
    with pytest.raises(ArgumentError, match="environment") as caught:
        Endpoint("https://model.test")
    assert "secret" not in str(caught.value)


async def test_a_proxy_that_is_not_there():
    async with Peer(always_ok) as gone:
        port = gone.port
    with pytest.raises(ConnectError, match=f"through the proxy 127.0.0.1:{port}"):
        await Endpoint("http://model.test", proxy=f"http://127.0.0.1:{port}").send(b"")


async def test_connections_through_a_proxy_are_no_direct_ones():
    async with Peer(always_ok) as peer:
        await collect(await Endpoint(peer.url, proxy="").send(b""))
        await collect(await Endpoint(peer.url, proxy=peer.url).send(b""))
        assert len(peer.connections) == 2
        assert [request.target for request in peer.requests] == ["/", f"{peer.url}/"]
        assert OK.endswith(b"ok")
