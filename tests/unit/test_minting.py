"""Whose network a request comes from, and which of its claims are believed."""

import pytest

from broker.minting import client_address, prefix_of, read_networks
from broker.settings import SettingsInvalid

PROXIES = read_networks("10.0.0.0/8, ::1, 192.0.2.7")


@pytest.mark.parametrize(
    ("peer", "forwarded", "network"),
    [
        ("203.0.113.9", [], "203.0.113.0/24"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.0/24"),  # nobody we trust says so
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.0/24"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1"], "198.51.100.0/24"),  # what the client wrote itself stays unheard
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1, 192.0.2.7"], "198.51.100.0/24"),
        ("10.1.2.3", ["6.6.6.6", "198.51.100.1, 10.9.9.9"], "198.51.100.0/24"),
        ("10.1.2.3", ["nonsense"], "10.1.2.0/24"),
        ("10.1.2.3", [], "10.1.2.0/24"),
        ("::1", ["2001:db8:aa:bb12::5"], "2001:db8:aa:bb00::/56"),
        ("::ffff:203.0.113.9", [], "203.0.113.0/24"),
        ("fe80::1%eth0", [], "fe80::/56"),
        ("", [], "unknown"),
        ("somewhere", [], "unknown"),
    ],
)
def test_the_client_is_the_first_that_nobody_trusted_vouches_for(peer: str, forwarded: list[str], network: str) -> None:
    """X-Forwarded-For counts from its end, and only as far as trusted proxies wrote it."""
    assert prefix_of(client_address(peer, forwarded, PROXIES)) == network


def test_a_list_that_is_none_is_refused() -> None:
    """A mistyped setting stops the start rather than trust somebody else; the message names the variable."""
    assert read_networks("") == ()
    with pytest.raises(SettingsInvalid, match="LETHE_TRUSTED_PROXIES"):
        read_networks("10.0.0.0/8, proxy.example")
