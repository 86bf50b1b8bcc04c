"""The way out through an allow-list, with real clients: what gets through, what does not, and what it costs at most."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import h11
import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.integration.sandbox.way_out.ends import Host, answer_once, echo, hang_up, proxied, request, silent

import gossamer.sandbox.proxied as module
from gossamer.errors import ArgumentError
from gossamer.sandbox.proxy import AllowListProxy


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def public_loopback(monkeypatch):
    """Take this machine's own addresses for public ones, so that names may lead here."""
    monkeypatch.setattr(module, "is_public_address", lambda address: address.startswith("127."))


# --- what gets through ----------------------------------------------------------------------------------------------


async def test_urllib_gets_and_posts_through_it() -> None:
    async with Host(answer_once) as host, proxied(host.name) as (_, port):

        def client():
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{port}"})
            )
            return [
                opener.open(f"http://{host.name}/a%20b?q=1&r=%2F", timeout=10).read(),
                opener.open(f"http://{host.name}/post", data=b"x" * 100_000, timeout=10).read(),
            ]

        assert await asyncio.to_thread(client) == [b"ok", b"ok"]
    got, posted = map(bytes, host.received)
    assert got.startswith(b"GET /a%20b?q=1&r=%2F HTTP/1.1\r\nHost: " + host.name.encode())
    assert posted.endswith(b"\r\n\r\n" + b"x" * 100_000)


async def test_a_body_in_chunks_gets_through() -> None:
    async with Host(answer_once) as host, proxied(host.name) as (_, port):

        def client():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request(
                "POST",
                f"http://{host.name}/",
                iter([b"one", b"two" * 10_000]),
                encode_chunked=True,
                headers={"Transfer-Encoding": "chunked"},
            )
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return body

        assert await asyncio.to_thread(client) == b"ok"
    assert host.received[0].replace(b"\r\n", b"").count(b"two") >= 9_000


async def test_tls_goes_through_a_tunnel_and_is_checked_at_its_far_end(public_loopback, tmp_path) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    host = Host(answer_once)
    server = await asyncio.start_server(host.play, "127.0.0.1", 0, ssl=server_side)
    far = server.sockets[0].getsockname()[1]
    async with proxied(f"localhost:{far}") as (_, port):

        def client():
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=client_side, timeout=10)
            connection.set_tunnel("localhost", far)
            connection.request("GET", "/secret")
            body = connection.getresponse().read()
            connection.close()
            return body

        assert await asyncio.to_thread(client) == b"ok"
    server.close()
    assert host.received[0].startswith(b"GET /secret HTTP/1.1\r\nHost: localhost")


async def test_what_was_sent_ahead_of_the_tunnel_goes_through_it() -> None:
    async with Host(echo) as host, proxied(host.name) as (_, port):
        ahead = b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode() + b"early" * 1000
        answer = await request(port, ahead, ends=True)
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n" + b"early" * 1000 + b"|end"


async def test_the_host_may_speak_first() -> None:
    async def greet(reader, writer, received):
        writer.write(b"220 hello\r\n")
        received += await reader.read()

    async with Host(greet) as host, proxied(host.name) as (_, port):
        answer = await request(
            port, b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode(), ends=True
        )
    assert answer.endswith(b"\r\n\r\n220 hello\r\n")


async def test_a_side_that_has_ended_still_hears_the_other() -> None:
    async def ends_first(reader, writer, received):
        writer.write(b"bye")
        writer.write_eof()
        received += await reader.read()

    async with Host(ends_first) as host, proxied(host.name) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode())
        assert (await reader.read()).endswith(b"bye")  # until its end
        writer.write(b"still there")
        await writer.drain()
        writer.write_eof()
        while not host.received[0]:
            await asyncio.sleep(0)
        await hang_up(writer)
    assert host.received == [b"still there"]


async def test_an_ipv6_address_that_stands_in_the_list_is_reached() -> None:
    host = Host(answer_once)
    try:
        server = await asyncio.start_server(host.play, "::1", 0)
    except OSError:
        pytest.skip("needs IPv6")
    far = server.sockets[0].getsockname()[1]
    async with proxied(f"[0:0::1]:{far}") as (_, port):
        answer = await request(port, f"GET http://[::1]:{far}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        tunnel = await request(port, f"CONNECT [::0:1]:{far} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), ends=True)
    server.close()
    assert answer.endswith(b"ok")
    assert b"\r\nHost: [::1]:%d\r\n" % far in host.received[0]
    assert tunnel.startswith(b"HTTP/1.1 200 ")


async def test_much_goes_through_both_ways_at_once() -> None:
    async with Host(echo) as host, proxied(host.name) as (_, port):
        head = b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode()
        data = os.urandom(3_000_000)
        answers = await asyncio.gather(*(request(port, head + data, ends=True) for _ in range(3)))
    assert all(answer.endswith(b"\r\n\r\n" + data + b"|end") for answer in answers)


async def test_it_is_reached_from_another_network_namespace() -> None:
    code = """
import array, ctypes, fcntl, os, socket, struct, sys, urllib.request
out = socket.socket(fileno=int(sys.argv[1]))
if ctypes.CDLL(None).unshare(0x10000000 | 0x40000000):
    sys.exit("no namespaces")
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 1))
listening = socket.create_server(("127.0.0.1", 3128))
socket.send_fds(out, [b"x"], [listening.fileno()])
listening.close()
host = sys.argv[2]
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{host}/", timeout=10)
except OSError as error:
    print("alone:", error.reason.errno)
os.environ["http_proxy"] = "http://127.0.0.1:3128"
print(urllib.request.urlopen(f"http://{host}/", timeout=10).read().decode())
"""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with Host(answer_once) as host:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            str(theirs.fileno()),
            host.name,
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        message = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(ours, message.set_result, None)
        await message
        asyncio.get_running_loop().remove_reader(ours)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        ours.close()
        if not descriptors:
            pytest.skip("needs network namespaces")
        proxy = AllowListProxy([host.name])
        proxy.serve(socket.socket(fileno=descriptors[0]))
        out, error = await child.communicate()
        await proxy.aclose()
    assert out.decode().splitlines() == ["alone: 111", "ok"], error.decode()


# --- what does not --------------------------------------------------------------------------------------------------

HEAD = "Host: x\r\n\r\n"
REFUSED = {
    "another host": ("GET http://evil.test/ HTTP/1.1\r\n" + HEAD, 403),
    "another port": ("GET http://127.0.0.1:1/ HTTP/1.1\r\n" + HEAD, 403),
    "a tunnel to another host": ("CONNECT evil.test:443 HTTP/1.1\r\n" + HEAD, 403),
    "a tunnel to an address": ("CONNECT 169.254.169.254:80 HTTP/1.1\r\n" + HEAD, 403),
    "a tunnel to an IPv6 address": ("CONNECT [::1]:{port} HTTP/1.1\r\n" + HEAD, 403),
    "the address inside of another": ("CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.1\r\n" + HEAD, 403),
    "an IPv6 address in a URL": ("GET http://[::ffff:7f00:1]:{port}/ HTTP/1.1\r\n" + HEAD, 403),
    "a short form of the address": ("CONNECT 127.1:{port} HTTP/1.1\r\n" + HEAD, 400),
    "the address as a number": ("GET http://2130706433:{port}/ HTTP/1.1\r\n" + HEAD, 400),
    "the address with a dot": ("GET http://127.0.0.1.:{port}/ HTTP/1.1\r\n" + HEAD, 400),
    "an interface": ("CONNECT [fe80::1%25lo]:{port} HTTP/1.1\r\n" + HEAD, 400),
    "a user that looks like the host": ("GET http://{name}@evil.test/ HTTP/1.1\r\n" + HEAD, 400),
    "a user before the host": ("GET http://evil.test@{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "a user in a tunnel": ("CONNECT {name}@evil.test:443 HTTP/1.1\r\n" + HEAD, 400),
    "a fragment": ("GET http://evil.test#@{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "a backslash": ("GET http://evil.test\\@{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "two URLs": ("GET http://{name}/ http://evil.test/ HTTP/1.1\r\n" + HEAD, 400),
    "an encoded host": ("GET http://%31%32%37.0.0.1:{port}/ HTTP/1.1\r\n" + HEAD, 400),
    "https without a tunnel": ("GET https://{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "another scheme": ("GET ftp://{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "a path alone": ("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n", 400),
    "a star": ("OPTIONS * HTTP/1.1\r\nHost: {name}\r\n\r\n", 400),
    "a tunnel without a port": ("CONNECT 127.0.0.1 HTTP/1.1\r\n" + HEAD, 400),
    "a tunnel to a URL": ("CONNECT http://{name}/ HTTP/1.1\r\n" + HEAD, 400),
    "a port that is none": ("CONNECT 127.0.0.1:99999 HTTP/1.1\r\n" + HEAD, 400),
    "port 0": ("GET http://127.0.0.1:0/ HTTP/1.1\r\n" + HEAD, 400),
    "a tunnel with a body": ("CONNECT {name} HTTP/1.1\r\nContent-Length: 5\r\n" + HEAD + "hello", 400),
    "no host": ("GET http://{name}/ HTTP/1.1\r\n\r\n", 400),
    "two hosts": ("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nHost: evil.test\r\n\r\n", 400),
    "two lengths": (
        "POST http://{name}/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 30\r\n" + HEAD + "abc",
        400,
    ),
    "a length and chunks": (
        "POST http://{name}/ HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n"
        + HEAD
        + "0\r\n\r\nG",
        400,
    ),
    "chunks in another form": ("POST http://{name}/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" + HEAD, 501),
    "a space before the colon": ("POST http://{name}/ HTTP/1.1\r\nContent-Length : 6\r\n" + HEAD, 400),
    "a carriage return in a header": ("GET http://{name}/ HTTP/1.1\r\nX: a\rHost: evil.test\r\n" + HEAD, 400),
    "a carriage return in the URL": ("GET http://{name}/\rX HTTP/1.1\r\n" + HEAD, 400),
    "a NUL": ("GET http://{name}/\0 HTTP/1.1\r\n" + HEAD, 400),
    "HTTP/1.0": ("GET http://{name}/ HTTP/1.0\r\n" + HEAD, 400),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "SOCKS": ("\x05\x01\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_allowed_or_not_clear_reaches_nobody(sent, status) -> None:
    async with Host(answer_once) as host, proxied(host.name) as (_, port):
        data = sent.replace("{name}", host.name).replace("{port}", str(host.port)).encode("latin-1")
        answer = await request(port, data)
    assert status_of(answer) == status, answer
    assert answer.count(b"HTTP/1.1 %d " % status) == 1
    assert host.received == []


async def test_a_refusal_says_what_may_be_reached_where_clients_show_it() -> None:
    async with proxied("pypi.example", "*.example.org:8443") as (_, port):

        def client():
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), f"http://127.0.0.1:{port}"))
            )
            for url in ("http://evil.test/", "https://evil.test/"):
                try:
                    opener.open(url, timeout=10)
                except urllib.error.URLError as error:
                    yield str(error)

        plain, tunnel = await asyncio.to_thread(lambda: list(client()))
    assert (
        "evil.test:80 is not among what may be reached from here: pypi.example, *.example.org:8443" in plain
    )
    assert "Tunnel connection failed: 403 Forbidden: evil.test:443 is not among" in tunnel


async def test_a_name_that_leads_to_a_private_address_is_refused() -> None:
    async with Host(answer_once) as host, proxied(f"localhost:{host.port}") as (_, port):
        answers = [
            await request(port, f"GET http://localhost:{host.port}/ HTTP/1.1\r\n{HEAD}".encode()),
            await request(port, f"CONNECT LOCALHOST.:{host.port} HTTP/1.1\r\n{HEAD}".encode()),
            await request(port, f"GET http://127.0.0.1:{host.port}/ HTTP/1.1\r\n{HEAD}".encode()),
        ]
    assert [status_of(answer) for answer in answers] == [403, 403, 403]
    assert b"leads to an address that is not public" in answers[0]
    assert b"127.0.0.1" not in answers[0]
    assert b"is not among" in answers[2]
    assert host.received == []


async def test_what_is_connected_to_is_what_was_checked(monkeypatch) -> None:
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop does not resolve names by what is replaced here")
    asked = []

    def changing(name, *_, **__):
        asked.append(name)
        addresses = ["127.0.0.1", "127.0.0.9"] if len(asked) == 1 else ["127.0.0.9"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    monkeypatch.setattr(module, "is_public_address", lambda address: address == "127.0.0.1")
    async with Host(answer_once) as host, proxied(f"rebinding.test:{host.port}") as (_, port):
        answer = await request(port, f"GET http://rebinding.test:{host.port}/ HTTP/1.1\r\n{HEAD}".encode())
    assert answer.endswith(b"ok")
    assert asked == ["rebinding.test"]
    assert len(host.received) == 1


async def test_a_name_that_is_not_there_and_a_host_that_is_not_up_are_said(unused_tcp_port) -> None:
    async with proxied("nothing.invalid", f"127.0.0.1:{unused_tcp_port}") as (_, port):
        unknown = await request(port, b"CONNECT nothing.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        down = await request(port, f"GET http://127.0.0.1:{unused_tcp_port}/ HTTP/1.1\r\n{HEAD}".encode())
    assert unknown.startswith(b"HTTP/1.1 502 Bad Gateway: the name nothing.invalid does not resolve\r\n")
    assert down.startswith(b"HTTP/1.1 502 Bad Gateway: 127.0.0.1:%d does not answer\r\n" % unused_tcp_port)


# --- smuggling ------------------------------------------------------------------------------------------------------


async def test_a_request_is_written_anew_for_the_host_that_was_checked() -> None:
    sent = (
        "POST http://{name}/in?x HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: Basic c2VjcmV0\r\n"
        "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        "X-Folded: a\r\n Host: evil.test\r\nX-Kept: yes\r\nContent-Length: 5\r\n\r\nhello"
    )
    async with Host(answer_once) as host, proxied(host.name) as (_, port):
        answer = await request(port, sent.replace("{name}", host.name).encode())
    assert answer.endswith(b"ok")
    head, _, body = bytes(host.received[0]).decode().partition("\r\n\r\n")
    first, *headers = head.split("\r\n")
    assert first == "POST /in?x HTTP/1.1"
    assert sorted(line.lower() for line in headers) == [
        "connection: close",
        "content-length: 5",
        f"host: {host.name}",
        "x-folded: a host: evil.test",
        "x-kept: yes",
    ]
    assert body == "hello"


async def test_what_follows_a_request_reaches_nobody() -> None:
    one = "POST http://{name}/one HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    other = "GET http://{name}/other HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    async with Host(answer_once) as host, proxied(host.name) as (_, port):
        answer = await request(port, (one + other).replace("{name}", host.name).encode())
    assert answer.count(b"200 OK") == 1
    assert len(host.received) == 1
    assert host.received[0].endswith(b"\r\n\r\nabc")


async def test_a_body_that_turns_bad_is_cut_off() -> None:
    sent = "POST http://{name}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n"
    async with Host(silent) as host, proxied(host.name) as (_, port):
        answer = await request(port, sent.replace("{name}", host.name).encode())
        while not host.received or not host.writers[0].is_closing():
            await asyncio.sleep(0.001)
    assert answer == b""
    assert b"nonsense" not in host.received[0]


GOOD, EVIL = "{name}", "evil.test"
TARGETS = [
    *(f"http://{GOOD}/", f"http://{GOOD}/a?b", f"http://{EVIL}/", GOOD, EVIL + ":443", "/", "*"),
    *(f"http://{EVIL}@{GOOD}/", f"http://{GOOD}@{EVIL}/", f"http://{GOOD}.{EVIL}/", f"http://{GOOD}/\x0b"),
    *(f"HTTP://{GOOD}", f"http://{GOOD}?http://{EVIL}/", f"http:/{GOOD}/", f"//{EVIL}/"),
]
LINES = [
    *(
        f"Host: {GOOD}",
        f"Host: {EVIL}",
        f"host:{EVIL}",
        f" Host: {EVIL}",
        f"Host : {EVIL}",
        "Host:",
        "X: y",
        ":",
        "",
    ),
    *(
        "Content-Length: 4",
        "Content-Length: 40",
        "Content-Length: -1",
        "Content-Length: 4, 4",
        "Content-Length: +4",
    ),
    *("Transfer-Encoding: chunked", "Transfer-Encoding:\x0bchunked", "Transfer-Encoding: chunked, identity"),
    *("Connection: close, Host", "Connection: Content-Length", "Connection: Transfer-Encoding", "Upgrade: x"),
    *("Expect: 100-continue", f"X: y\rHost: {EVIL}", f"X: y\nHost: {EVIL}", "X: \0"),
]
BODIES = [
    "",
    "body",
    "4\r\nbody\r\n0\r\n\r\n",
    "0\r\n\r\n",
    f"GET http://{EVIL}/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n",
]


def mostly(usual, *others):
    """Draw what is usual twice as often as anything else."""
    return st.one_of(st.just(usual), st.just(usual), st.sampled_from(others))


@settings(max_examples=200, deadline=None)
@given(
    method=mostly("POST", "GET", "CONNECT", "HEAD", "OPTIONS", "get", "G ET"),
    target=mostly(*TARGETS),
    version=mostly("HTTP/1.1", "HTTP/1.0", "HTTP/1.1 ", "HTTP/2.0", ""),
    lines=st.lists(st.sampled_from(LINES), max_size=3).map(lambda lines: [f"Host: {GOOD}", *lines]),
    bodies=st.lists(st.sampled_from(BODIES), max_size=3),
    end=mostly("\r\n", "\n", "\r"),
)
@example(method="GET", target=TARGETS[0], version="HTTP/1.1", lines=LINES[:1], bodies=BODIES[-1:], end="\r\n")
def test_however_a_request_is_written_at_most_one_reaches_the_host_and_it_is_for_it(
    method, target, version, lines, bodies, end
) -> None:
    async def scenario():
        async with Host(answer_once) as host, proxied(host.name) as (_, port):
            text = end.join([f"{method} {target} {version}", *lines, "", ""]) + "".join(bodies)
            answer = await request(port, text.replace("{name}", host.name).encode("latin-1"), ends=True)
            assert len(host.received) <= 1
            if method == "CONNECT" or not host.received:
                return bool(host.received), answer
            reading = h11.Connection(h11.SERVER)
            reading.receive_data(bytes(host.received[0]))
            reading.receive_data(b"")
            one = reading.next_event()
            assert [value for name, value in one.headers if name == b"host"] == [host.name.encode()]
            assert one.target.startswith(b"/")
            with contextlib.suppress(h11.RemoteProtocolError):  # what was sent was not whole
                while not isinstance(reading.next_event(), h11.EndOfMessage):
                    pass
                assert reading.trailing_data[0] == b""
            return True, answer

    reached, answer = asyncio.run(scenario())
    if reached:
        assert f"//{GOOD}" in target.lower() or target == GOOD
    elif method != "CONNECT":
        assert not answer or status_of(answer) >= 400


# --- bounds ---------------------------------------------------------------------------------------------------------


async def test_a_head_that_never_ends_is_given_up() -> None:
    async with proxied("a.test", timeout=0.2) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.ensure_future(reader.read())
        for byte in b"GET http://a.test/ HTTP/1.1\r\nX: " + b"x" * 10_000:
            writer.write(bytes([byte]))
            await asyncio.wait((answer,), timeout=0.01)
            if answer.done():
                break
        assert status_of(await answer) == 408
        await hang_up(writer)


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://a.test/ HTTP/1.1\r\nX: " + b"x" * 1_000_000,
        b"GET http://a.test/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"G" * 100_000,
    ],
    ids=["a header", "the URL", "many headers", "no line"],
)
async def test_a_head_that_is_too_large_is_refused(head) -> None:
    async with proxied("a.test") as (_, port):
        assert status_of(await request(port, head)) == 431


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        ("CONNECT {name} HTTP/1.1\r\n" + HEAD, b"HTTP/1.1 200 Connection established\r\n\r\n"),
        ("GET http://{name}/ HTTP/1.1\r\n" + HEAD, b""),
        ("POST http://{name}/ HTTP/1.1\r\nContent-Length: 9\r\n" + HEAD + "half", b""),
    ],
    ids=["a tunnel", "a request", "half a request"],
)
async def test_a_host_that_never_answers_is_given_up(sent, heard) -> None:
    async with Host(silent) as host, proxied(host.name, timeout=0.2) as (_, port):
        answer = await request(port, sent.replace("{name}", host.name).encode())
    assert answer == heard
    assert len(host.received) == 1


async def test_what_a_host_does_not_take_is_given_up_when_the_client_is_gone() -> None:
    over = asyncio.Event()

    async def takes_nothing(reader, writer, received):
        writer.write_eof()
        await over.wait()

    async with Host(takes_nothing) as host, proxied(host.name, timeout=0.3) as (proxy, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode())
        assert (await reader.read()).endswith(b"\r\n\r\n")  # until its end

        def waiting():
            """Give what the proxy could not send on yet."""
            ends = [end for end in proxy._traffic.open if isinstance(end, module._Upstream)]
            return sum(end.transport.get_write_buffer_size() for end in ends)

        while not waiting():
            writer.write(b"x" * 4096)
            await asyncio.sleep(0)
        assert waiting() < 64 * 1024  # else the proxy stops reading, and does not see who goes
        writer.write_eof()
        await hang_up(writer)
        async with asyncio.timeout(10):
            while proxy._traffic.open:
                await asyncio.sleep(0.01)
        over.set()


async def test_what_goes_through_is_bounded_over_all_connections() -> None:
    async with Host(echo) as host, proxied(host.name, max_bytes=1_000_000) as (_, port):
        head = b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode()
        small = await request(port, head + b"x" * 100_000, ends=True)
        large = await request(port, head + b"x" * 900_000, ends=True)
        after = await request(port, head)
    assert small.endswith(b"x|end")
    assert not large.endswith(b"|end")
    assert len(small) + len(large) < 1_000_000
    assert status_of(after) == 403
    assert b"go on without the network" in after
    assert len(host.received) == 2


async def test_connections_wait_for_one_another_at_the_limit() -> None:
    async with Host(echo) as host, proxied(host.name, max_connections=2) as (_, port):
        head = b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode()
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(head)
            await reader.readuntil(b"\r\n\r\n")
        third = asyncio.ensure_future(request(port, head + b"third", ends=True))
        held[0][1].write(b"ping")
        assert await held[0][0].readexactly(4) == b"ping"
        assert len(host.received) == 2
        assert not third.done()
        await hang_up(held[0][1])
        assert (await third).endswith(b"third|end")
        await hang_up(held[1][1])


async def test_one_that_does_not_read_holds_up_the_other_and_is_cut_off() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def flood(reader, writer, received):
        nonlocal sent
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536
        finally:
            stuck.set()

    async with Host(flood) as host, proxied(host.name, timeout=0.3) as (_, port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(
            client, b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode()
        )
        await asyncio.wait_for(stuck.wait(), 20)  # the host's connection was cut
        client.close()
    # What is under way are the buffers of three sockets and of the proxy, and no more.
    assert sent < 32 * 1024 * 1024


def test_without_descriptors_connections_wait_and_nothing_spins() -> None:
    code = """
import asyncio, os, resource, socket
from gossamer.sandbox.proxy import AllowListProxy
async def main():
    loop = asyncio.get_running_loop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    tries = 0
    class Listening(socket.socket):
        def accept(self):
            nonlocal tries
            tries += 1
            return super().accept()
    listening = Listening()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    proxy = AllowListProxy(["a.test"])
    proxy.serve(listening)
    client = socket.socket()
    client.setblocking(False)
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        await loop.sock_connect(client, listening.getsockname())
    await loop.sock_sendall(client, b"CONNECT b.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    while not tries:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    spun = tries
    for one in taken:
        os.close(one)
    answer = await loop.sock_recv(client, 1000)
    client.close()
    await proxy.aclose()
    print(spun, tries, answer[:12].decode())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "1 2 HTTP/1.1 403\n", done.stderr


async def test_nothing_is_left_when_it_is_closed() -> None:
    async with Host(echo) as host, Host(silent) as quiet:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        proxy = AllowListProxy([host.name, quiet.name, "*.invalid"], max_connections=8)
        proxy.serve(listening)
        with pytest.raises(ArgumentError, match="serves already"):
            proxy.serve(listening)
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for (_, writer), data in zip(
            clients,
            [
                b"",
                b"GET http",
                b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode(),
                b"GET http://%b/ HTTP/1.1\r\nHost: x\r\n\r\n" % quiet.name.encode(),
                b"POST http://%b/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % quiet.name.encode(),
                b"CONNECT slow.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            ],
            strict=True,
        ):
            writer.write(data)
        await clients[2][0].readuntil(b"\r\n\r\n")
        while len(quiet.received) < 2:
            await asyncio.sleep(0)
        await proxy.aclose()
        assert listening.fileno() == -1
        for reader, writer in clients:
            with contextlib.suppress(ConnectionError):
                assert (await reader.read())[:12] in {
                    b"",
                    b"HTTP/1.1 502",
                }  # the name may have been looked up by then
            await hang_up(writer)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await proxy.aclose()
    await AllowListProxy(["a.test"]).aclose()


async def test_a_name_that_is_being_looked_up_holds_up_nothing(monkeypatch) -> None:
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop does not resolve names by what is replaced here")
    asked, answered = threading.Event(), threading.Event()

    def slow(*_, **__):
        asked.set()
        answered.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    async with proxied("slow.test") as (_, port):
        answer = asyncio.ensure_future(request(port, b"CONNECT slow.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"))
        while not asked.is_set():
            await asyncio.sleep(0)
    assert await answer == b""
    answered.set()


async def test_a_client_that_goes_takes_the_hosts_connection_with_it() -> None:
    gone = asyncio.Event()

    async def until_gone(reader, writer, received):
        try:
            await reader.read(1)
            await reader.read()
        finally:
            gone.set()

    async with Host(until_gone) as host, proxied(host.name) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % host.name.encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x")
        await writer.drain()
        writer.transport.abort()
        await hang_up(writer)
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_connections": 0}, "max_connections"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_bounds_are_above_nothing(options, says) -> None:
    with pytest.raises(ArgumentError, match=f"{says} must be a number above 0"):
        AllowListProxy(["a.test"], **options)


def test_hosts_are_checked_when_it_is_made() -> None:
    with pytest.raises(ArgumentError, match=r"'https://a\.test' cannot be allowed"):
        AllowListProxy(["https://a.test"])


def test_without_the_library_that_reads_requests_that_is_said() -> None:
    code = """
import sys
sys.modules["h11"] = None
from gossamer.errors import SandboxUnavailableError
from gossamer.sandbox.proxy import AllowListProxy
try:
    AllowListProxy(["a.test"])
except SandboxUnavailableError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'gossamer[sandbox]'" in done.stdout
