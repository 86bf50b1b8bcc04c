"""Which network addresses are public: where a request may go that somebody else chose."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["is_public_address"]

# IANA's special-purpose registries, and beside them what clouds keep for themselves. Listed here and not asked of
# `ipaddress`, whose answers differ between versions of Python.
_SPECIAL_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")  # all that was ever given out; the rest is special or reserved
_SPECIAL_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo, which has an IPv4 address inside
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which has an IPv4 address inside
        "3fff::/20",  # documentation
    )
)
_TRANSLATED = IPv6Network("64:ff9b::/96")


def is_public_address(address: str) -> bool:
    """Tell whether an address is one on the public internet.

    It is not where it is private, loopback, link-local, multicast, reserved, unspecified, for documentation, shared
    behind a provider (100.64.0.0/10), or a cloud's own; nor is an IPv6 address that stands for an IPv4 one (mapped,
    compatible, 6to4, Teredo), but for NAT64's `64:ff9b::/96`, where the IPv4 address inside decides. What a network
    reaches by public addresses of its own, such as this machine's, or by a NAT64 prefix of its own, cannot be told.

    Args:
        address: as a resolver gives it, for example `192.0.2.1` or `fe80::1%eth0`. Anything else is not public.
    """
    try:
        if ":" not in address:
            return _is_public_4(IPv4Address(address))
        number = IPv6Address(address)
    except AddressValueError:
        return False
    if number.scope_id is not None:
        return False
    if number in _TRANSLATED:
        return _is_public_4(IPv4Address(number.packed[-4:]))
    return number in _GLOBAL_6 and not any(number in network for network in _SPECIAL_6)


def _is_public_4(number: IPv4Address) -> bool:
    return not any(number in network for network in _SPECIAL_4)
