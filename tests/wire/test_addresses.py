"""Which addresses are connected to: the rule is asked after the look-up and before the connection."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.peer import Peer, always_ok, collect

from gossamer.errors import AddressRefusedError, ConnectError
from gossamer.wire import Endpoint, is_public_address, statistics

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001:830::200e",
    "64:ff9b::8.8.8.8",
)
NOT_PUBLIC = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2606:4700::1111%eth0",
    "",
    "localhost",
    "0x7f.1",
    "2130706433",
    "127.1",
    "1.1.1.1 ",
    "01.1.1.1",
    "example.org",
    "::g",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public_address(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address):
    assert not is_public_address(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_is_public_here_is_so_for_the_standard_library(number):
    address = str(number)
    if is_public_address(address):
        embedded = IPv4Address(number.packed[-4:]) if address.startswith("64:ff9b::") else number
        assert embedded.is_global
        assert not embedded.is_multicast
        assert not embedded.is_reserved


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_no_way_around(number):
    inner = int(number)
    for prefix in (0, 0xFFFF << 32, 0xFFFF << 48):  # compatible, mapped, translated by a stateless translator
        assert not is_public_address(str(IPv6Address(prefix | inner)))
    assert not is_public_address(str(IPv6Address(0x2002 << 112 | inner << 80 | 1)))
    translated = str(IPv6Address(0x64FF9B << 96 | inner))
    assert is_public_address(translated) == is_public_address(str(number))


@given(st.text(max_size=60))
def test_any_text_is_answered(text):
    assert is_public_address(text) in {True, False}


# --- the check ----------------------------------------------------------------------------------------------


def is_first_loopback(address):
    return address == "127.0.0.1"


def lead_to(monkeypatch, *answers):
    """Let every name lead to the addresses of the next answer, the last one for ever; returns the names asked for."""
    asked = []
    left = list(answers)

    async def resolve(host, *_, **__):
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, 0, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0))
            for one in found
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    return asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "0",
    ],
)
async def test_however_it_is_written_a_private_address_is_refused(host):
    async with Peer(always_ok) as peer:
        with pytest.raises((AddressRefusedError, ConnectError), match=r"may not be connected to|not resolve"):
            await Endpoint(f"http://{host}:{peer.port}", allow_address=is_public_address).send()
        assert not peer.connections


async def test_the_message_tells_name_and_addresses(monkeypatch):
    lead_to(monkeypatch, ["10.0.0.1", "fd00::1"])
    with pytest.raises(
        AddressRefusedError, match=r"'inside\.example' leads to 10\.0\.0\.1, fd00::1, which may not"
    ):
        await Endpoint("http://inside.example", allow_address=is_public_address).send()
    with pytest.raises(AddressRefusedError, match=r"^10\.0\.0\.1 may not be connected to"):
        await Endpoint("http://10.0.0.1", allow_address=is_public_address).send()


async def test_only_the_allowed_ones_of_several_addresses_are_tried(monkeypatch):
    async with Peer(always_ok) as peer, Peer(always_ok, host="127.0.0.2", port=peer.port) as other:
        lead_to(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        url = f"http://several.example:{peer.port}"
        await collect(await Endpoint(url, allow_address=is_first_loopback).send())
        assert len(peer.connections) == 1
        assert not other.connections


async def test_a_name_that_leads_elsewhere_the_second_time_is_not_followed(monkeypatch):
    """The name is looked up once; what was checked is what is connected to."""
    async with Peer(always_ok) as peer, Peer(always_ok, host="127.0.0.2", port=peer.port) as inside:
        asked = lead_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        endpoint = Endpoint(f"http://rebinding.example:{peer.port}", allow_address=is_first_loopback)
        await collect(await endpoint.send())
        assert (len(peer.connections), len(inside.connections)) == (1, 0)
        assert asked.count("rebinding.example") == 1


async def test_a_name_is_checked_anew_for_each_connection(monkeypatch):
    async with Peer(always_ok) as peer, Peer(always_ok, host="127.0.0.2", port=peer.port) as inside:
        lead_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        monkeypatch.setattr("gossamer.wire.dial._ADDRESS_TTL", 0.0)
        endpoint = Endpoint(f"http://rebinding.example:{peer.port}", allow_address=is_first_loopback)
        first = await endpoint.send()
        for connection in peer.connections:
            connection.close()
        await collect(first)
        with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.2"):
            await endpoint.send()
        assert not inside.connections


async def test_connections_opened_under_one_rule_are_not_used_under_another():
    async with Peer(always_ok) as peer:
        await collect(await Endpoint(peer.url).send())
        with pytest.raises(AddressRefusedError):
            await Endpoint(peer.url, allow_address=is_public_address).send()
        for _ in range(2):
            await collect(await Endpoint(peer.url, allow_address=is_first_loopback).send())
        assert len(peer.connections) == 2
        assert [host.open for host in statistics()] == [1, 1]


async def test_with_a_proxy_its_own_address_is_what_counts():
    async with Peer(always_ok) as proxy:
        endpoint = Endpoint("http://inside.example", proxy=proxy.url, allow_address=is_first_loopback)
        await collect(await endpoint.send())
        assert proxy.requests[0].target == "http://inside.example/"
        with pytest.raises(AddressRefusedError):
            await Endpoint("http://inside.example", proxy=proxy.url, allow_address=is_public_address).send()


async def test_a_rule_that_fails_fails_the_request():
    def broken(address):
        raise RuntimeError(f"no rule for {address}")

    async with Peer(always_ok) as peer:
        with pytest.raises(RuntimeError, match=r"no rule for 127\.0\.0\.1"):
            await Endpoint(peer.url, allow_address=broken).send()
        assert not peer.connections
        assert not [host for host in statistics() if host.open]
