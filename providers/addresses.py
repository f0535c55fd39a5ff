"""Which addresses an output may be fetched from: public ones, in every spelling that hides another. Pure."""

import ipaddress
from typing import Final

_V4: Final = ipaddress.IPv4Network
_V6: Final = ipaddress.IPv6Network

# What the standard library calls global and is not, in one Python version or another.
_REFUSED_V4: Final = tuple(
    _V4(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; one cloud keeps its metadata here
        "168.63.129.16/32",  # looks public, and is the inside of a cloud
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays into 6to4
        "198.18.0.0/15",
        "240.0.0.0/4",
    )
)
_PUBLIC_V6: Final = _V6("2000::/3")
_REFUSED_V6: Final = tuple(
    _V6(network)
    for network in (
        "2001::/23",  # Teredo and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside, reached through whoever relays
        "3fff::/20",
    )
)
_NAT64: Final = _V6("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is one host on the public Internet; what is no address is not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return _is_public_v4(found) if isinstance(found, ipaddress.IPv4Address) else _is_public_v6(found)


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in network for network in _REFUSED_V4)


def _is_public_v6(address: ipaddress.IPv6Address) -> bool:
    # Only where this machine's network translates does an address in this range lead anywhere: to the one inside.
    if address in _NAT64:
        return _is_public_v4(ipaddress.IPv4Address(address.packed[-4:]))
    if address.ipv4_mapped is not None:
        return _is_public_v4(address.ipv4_mapped)
    if address.scope_id or address not in _PUBLIC_V6 or not address.is_global:
        return False
    return not any(address in network for network in _REFUSED_V6)
