"""TLS with authorities of our own: trust, names, one context a process."""

from __future__ import annotations

import asyncio
import ssl
import threading

import pytest
import trustme
from tests.wire.peer import CHUNKED, OK, Peer, always_ok, answer, chunk, collect, until

from gossamer.errors import ConnectError, ProtocolError
from gossamer.wire import Endpoint, SSEDecoder, Timeouts, statistics
from gossamer.wire import tls as tls_module


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_an_authority_of_our_own(server_context, ca_file, name):
    async with Peer(always_ok, ssl=server_context) as peer:
        endpoint = Endpoint(peer.url.replace("127.0.0.1", name), ca_file=ca_file)
        for _ in range(3):
            assert await collect(await endpoint.send(b"x" * 100_000)) == b"ok"
        assert len(peer.connections) == 1
        chosen = peer.connections[0].transport.get_extra_info("ssl_object").selected_alpn_protocol()
        assert chosen == "http/1.1"


async def test_an_unknown_authority_is_refused_and_verify_false_takes_it(server_context):
    async with Peer(always_ok, ssl=server_context) as peer:
        with pytest.raises(ConnectError, match="ca_file"):
            await Endpoint(peer.url).send(b"")
        assert statistics()[0].open == 0
        assert await collect(await Endpoint(peer.url, verify=False).send(b"")) == b"ok"


async def test_a_certificate_for_another_name_is_refused(authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    async with Peer(always_ok, ssl=context) as peer:
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1.*not trusted"):
            await Endpoint(peer.url, ca_file=ca_file).send(b"")
        assert not peer.requests


async def test_plain_http_on_a_tls_port_and_the_other_way_round(server_context, ca_file):
    async def plain(connection):
        await connection.more()
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await connection.gone.wait()

    async with Peer(plain) as peer:
        with pytest.raises(ConnectError, match="does the port speak TLS"):
            await Endpoint(peer.url.replace("http:", "https:"), ca_file=ca_file).send(b"")
    async with Peer(always_ok, ssl=server_context) as peer:
        with pytest.raises(ProtocolError):
            await Endpoint(peer.url.replace("https:", "http:")).send(b"")


async def test_a_server_that_says_nothing_to_the_handshake_is_a_connect_timeout(ca_file):
    async def mute(connection):
        await connection.gone.wait()

    async with Peer(mute) as peer:
        endpoint = Endpoint(
            peer.url.replace("http:", "https:"), ca_file=ca_file, timeouts=Timeouts(connect=0.1)
        )
        with pytest.raises(ConnectError, match=r"within 0\.1 s"):
            await endpoint.send(b"")
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)


async def test_a_server_that_hangs_up_in_the_handshake(ca_file):
    async def rude(connection):
        await connection.more()
        connection.close()

    async with Peer(rude) as peer:
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
            await Endpoint(peer.url.replace("http:", "https:"), ca_file=ca_file).send(b"")


async def test_a_stream_over_tls_with_every_byte_on_its_own(server_context, ca_file):
    data = b'data: {"n": 1}\n\ndata: {"n": 2}\n\n'
    pieces = [chunk(data[i : i + 1]) for i in range(len(data))]
    async with Peer(answer(CHUNKED, *pieces, b"0\r\n\r\n"), ssl=server_context) as peer:
        endpoint = Endpoint(peer.url, ca_file=ca_file)
        for _ in range(2):
            decoder = SSEDecoder()
            stream = await endpoint.send(b"")
            frames = []
            while piece := await stream.read():
                frames += decoder.feed(piece)
            assert [frame.data for frame in frames] == [b'{"n": 1}', b'{"n": 2}']
        assert len(peer.connections) == 1


async def test_large_bodies_over_tls_and_back_pressure(server_context, ca_file):
    body = bytes(range(256)) * 40_000

    async def script(connection):
        while await connection.request():
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with Peer(script, ssl=server_context) as peer:
        endpoint = Endpoint(peer.url, ca_file=ca_file)
        for _ in range(2):
            stream = await endpoint.send(b"")
            await asyncio.sleep(0.02)
            assert await collect(stream) == body


async def test_cancelling_and_closing_over_tls(server_context, ca_file):
    async def script(connection):
        await connection.request()
        connection.send(CHUNKED + chunk(b"first"))
        await connection.gone.wait()

    async with Peer(script, ssl=server_context) as peer:
        endpoint = Endpoint(peer.url, ca_file=ca_file)
        stream = await endpoint.send(b"")
        assert await stream.read() == b"first"
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)
        (await endpoint.send(b"")).close()
        await asyncio.wait_for(peer.connections[1].gone.wait(), 5)


async def test_cut_off_over_tls(server_context, ca_file):
    async def script(connection):
        await connection.request()
        if len(peer.requests) > 1:
            connection.send(OK)
            await connection.request()
        connection.send(CHUNKED + chunk(b"first"))
        await asyncio.sleep(0.01)
        connection.close()

    async with Peer(script, ssl=server_context) as peer:
        endpoint = Endpoint(peer.url, ca_file=ca_file)
        stream = await endpoint.send(b"")
        with pytest.raises(ProtocolError, match="middle of the body"):
            await collect(stream)
        assert await collect(await endpoint.send(b"")) == b"ok"
        await until(lambda: statistics()[0].idle == 1)


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_ca_file_that_cannot_be_used(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConnectError, match=r"ca\.pem.*PEM"):
        async with Peer(always_ok) as peer:
            await Endpoint(peer.url.replace("http:", "https:"), ca_file=str(path)).send(b"")


def test_one_context_a_process_built_off_the_loop(server_context, ca_file, loop_factory, monkeypatch):
    built = []
    real = ssl.create_default_context

    def counting(*args, **options):
        built.append(threading.current_thread())
        return real(*args, **options)

    monkeypatch.setattr(tls_module, "_contexts", {})
    monkeypatch.setattr(ssl, "create_default_context", counting)

    async def main():
        async with Peer(always_ok, ssl=server_context) as peer:
            endpoint = Endpoint(peer.url, ca_file=ca_file)
            streams = await asyncio.gather(*[endpoint.send(b"") for _ in range(10)])
            for stream in streams:
                await collect(stream)
            await collect(await Endpoint(peer.url, ca_file=ca_file).send(b""))

    for _ in range(2):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
    assert len(built) == 1
    assert built[0] is not threading.main_thread()
