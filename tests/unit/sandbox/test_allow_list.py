"""Which hosts a list allows, and in how many ways one may try to write another."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ArgumentError
from gossamer.sandbox.allow_list import AllowList, is_address, plain_host

ALLOWED = [
    ("pypi.example", "pypi.example", 443),
    ("pypi.example", "pypi.example", 80),
    ("PyPI.Example.", "pypi.example", 443),
    ("pypi.example:8443", "pypi.example", 8443),
    ("*.example.org", "a.example.org", 443),
    ("*.example.org", "a.b.example.org", 80),
    ("*.example.org:8443", "a.example.org", 8443),
    ("bücher.example", "xn--bcher-kva.example", 443),
    ("my_host", "my_host", 80),
    ("192.0.2.7", "192.0.2.7", 443),
    ("192.0.2.7:9000", "192.0.2.7", 9000),
    ("[2001:db8::1]:9000", "2001:db8::1", 9000),
    ("2001:DB8:0::1", "2001:db8::1", 443),
]
REFUSED = [
    ("pypi.example", "pypi.example", 8443),
    ("pypi.example:8443", "pypi.example", 443),
    ("pypi.example", "www.pypi.example", 443),
    ("pypi.example", "pypi.example.evil.test", 443),
    ("pypi.example", "xpypi.example", 443),
    ("*.example.org", "example.org", 443),
    ("*.example.org", "evilexample.org", 443),
    ("*.example.org", "example.org.evil.test", 443),
    ("*.example.org:8443", "a.example.org", 443),
    ("*.2", "192.0.2.2", 443),
    ("192.0.2.7", "192.0.2.8", 443),
    ("2001:db8::1", "::ffff:192.0.2.7", 443),
    ("192.0.2.7", "::ffff:192.0.2.7", 443),
]


@pytest.mark.parametrize(("entry", "host", "port"), ALLOWED)
def test_what_is_meant_is_allowed(entry, host, port) -> None:
    assert AllowList(["other.test", entry]).allows(host, port)


@pytest.mark.parametrize(("entry", "host", "port"), REFUSED)
def test_what_is_not_meant_is_refused(entry, host, port) -> None:
    try:
        hosts = AllowList(["other.test", entry])
    except ArgumentError:
        assert entry == "*.2"  # no name ends in a number
    else:
        assert not hosts.allows(host, port)


def test_a_host_may_be_named_with_several_ports() -> None:
    hosts = AllowList(["a.test", "a.test:8080", "*.a.test:1"])
    assert [port for port in (1, 80, 443, 8080, 8081) if hosts.allows("a.test", port)] == [80, 443, 8080]
    assert [port for port in (1, 80, 443, 8080) if hosts.allows("x.a.test", port)] == [1]


@pytest.mark.parametrize(
    "entry",
    [
        *("", ".", "*", "*.", "a.*.test", "*a.test", "https://a.test", "a.test/path", "a.test:", "a.test:0"),
        *(
            "a.test:65536",
            "a.test:https",
            "a.test:*",
            "user@a.test",
            "a test",
            "a.test\n",
            "a..test",
            "-a.test",
        ),
        *(
            "127.1",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "2130706433",
            "127.0.0.1.",
            "*.127.0.0.1",
            "256.0.0.1",
            "*.[::1]",
        ),
        *(
            "fe80::1%eth0",
            "[::1",
            "::1]",
            "[192.0.2.7",
            "[a.test]",
            "a" * 64 + ".test",
            "a." * 127 + "test",
            "\uff41\uff0e*",
            "[192.0.2.7]",
        ),
        *(7, None, b"a.test"),
    ],
)
def test_what_is_no_host_cannot_be_allowed(entry) -> None:
    with pytest.raises(ArgumentError) as caught:
        AllowList(["a.test", entry])
    assert repr(entry) in str(caught.value)


def test_a_list_is_a_list_and_not_empty() -> None:
    with pytest.raises(ArgumentError, match=r"write \['a\.test'\]"):
        AllowList("a.test")
    with pytest.raises(ArgumentError, match="hosts is empty"):
        AllowList([])


def test_it_is_shown_as_it_was_written() -> None:
    assert str(AllowList(["A.test", "*.b.test:81"])) == "A.test, *.b.test:81"
    assert str(AllowList([f"h{n}.test" for n in range(12)])).endswith("h9.test and 2 more")


@pytest.mark.parametrize(
    "written",
    [
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "1.2.3",
        "0x",
        "a.0xff",
    ],
)
def test_numbers_that_some_take_for_an_address_are_no_hosts(written) -> None:
    with pytest.raises(ValueError, match="neither a name nor an address"):
        plain_host(written)


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[0-9a-fxA-FX.:\[\]%-]{1,20}", fullmatch=True)))
def test_a_host_has_one_way_to_be_written(text) -> None:
    try:
        host = plain_host(text)
    except ValueError:
        return
    assert plain_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    assert not set(host) & set("/@?#[]%\\ \t\r\n\0")
    if is_address(host):
        assert str(ip_address(host)) == host


@given(
    st.lists(st.from_regex(r"(\*\.)?[a-c]\.[a-c](:8[01])?", fullmatch=True), min_size=1, max_size=3),
    st.from_regex(r"([a-c]\.){0,3}[a-c]", fullmatch=True),
    st.sampled_from([80, 81, 443]),
)
def test_it_allows_what_one_entry_allows(entries, host, port) -> None:
    def one(entry) -> bool:
        name, _, only = entry.partition(":")
        fits = host.endswith(name[1:]) if name.startswith("*") else host == name
        return fits and (port == int(only) if only else port in {80, 443})

    assert AllowList(entries).allows(host, port) == any(map(one, entries))
