"""Which addresses count as public."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.215.14",
        "2606:4700::6810:85e5",
        "2a00:1450:4001:82a::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_public_addresses_are_public(address: str) -> None:
    """Hosts on the Internet can be reached, also where IPv6 networks translate to IPv4."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.8", "192.0.2.1", "198.18.0.1"),
        *("192.88.99.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1"),
        "255.255.255.255",
        *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe"),
        *("fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1"),
        *("2001::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "100::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:101", "64:ff9b:1::808:808"),
        *("", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "8.8.8.8/32", "[::1]", "8.8.8.8 "),
    ],
)
def test_everything_else_is_not(address: str) -> None:
    """No private, shared, reserved or special address passes, in no spelling, nor inside another one."""
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    """IPv4 that is mapped or translated is as public as it is bare; relayed and compatible IPv4 never is."""
    packed = address.packed.hex(":", 2)
    assert is_public(f"::ffff:{packed}") == is_public(str(address))
    assert is_public(f"64:ff9b::{packed}") == is_public(str(address))
    assert not is_public(f"2002:{packed}::1")
    assert not is_public(f"::{address}")
