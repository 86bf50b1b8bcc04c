"""However TCP cuts an answer up, the same comes out; driven by hypothesis over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.wire.peer import CHUNKED, OK, Peer, chunk, collect

from gossamer.errors import WireError
from gossamer.wire import Endpoint


@st.composite
def answers(draw):
    """An answer as bytes, and the body it stands for."""
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    body = b"".join(parts)
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n"])
    )
    fields = draw(st.sampled_from([b"", b"X-A: b\r\n", b"Server: s\r\nX-Long: " + b"l" * 300 + b"\r\n"]))
    coded = draw(st.booleans())
    if coded:
        fields += b"Content-Encoding: gzip\r\n"
        packed = gzip.compress(body)
        cut = draw(st.integers(0, len(packed)))
        parts = [part for part in (packed[:cut], packed[cut:]) if part]
    if draw(st.booleans()):
        last = draw(st.sampled_from([b"0\r\n\r\n", b"0;x=y\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]))
        data = CHUNKED.replace(b"\r\n\r\n", b"\r\n") + fields + b"\r\n"
        data += b"".join(chunk(part) for part in parts) + last
    else:
        whole = b"".join(parts)
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(whole), fields, whole)
    return interim + data, body


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds) if a < b]


CUTS = st.lists(st.integers(1, 500), max_size=10, unique=True)
SETTINGS = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(cases=st.lists(st.tuples(answers(), CUTS), min_size=1, max_size=4))
def test_answers_in_any_fragments_on_one_connection(loop_factory, cases):
    async def script(connection):
        for (data, _), cuts in cases:
            await connection.request()
            await connection.send_in(cut(data, cuts))
        await connection.gone.wait()

    async def main():
        async with Peer(script) as peer:
            endpoint = Endpoint(peer.url)
            for (_, body), _ in cases:
                assert await collect(await endpoint.send(b"x")) == body
            assert len(peer.connections) == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@SETTINGS
@given(
    case=answers(),
    cuts=CUTS,
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
)
def test_damaged_answers_end_in_a_body_or_a_typed_error_and_nothing_leaks(loop_factory, case, cuts, damage):
    data = bytearray(case[0])
    for place, value in damage:
        data[place % len(data)] = value

    async def script(connection):
        await connection.request()
        if len(peer.requests) == 1:
            await connection.send_in(cut(bytes(data), cuts))
            connection.close()
        else:
            connection.send(OK)

    async def main():
        nonlocal peer
        async with Peer(script) as peer:
            endpoint = Endpoint(peer.url)
            try:
                stream = await endpoint.send(b"x")
                await collect(stream)
            except WireError:
                pass
            assert await collect(await endpoint.send(b"x")) == b"ok"

    peer: Peer
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
