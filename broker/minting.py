"""How many users one network may make: counted in Redis alone, under a salted hash, and gone in minutes."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from broker.limiter import Limiter
from broker.refusals import refused
from broker.settings import SettingsInvalid
from policies.base import Refuse
from policies.registry import Policies

PREFIX_BITS = {4: 24, 6: 56}

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Minting:
    """Asks the policies before a user is made; an address is looked at, and never kept or logged."""

    def __init__(self, redis: Any, policies: Policies, *, trusted_proxies: str) -> None:
        self._limiter = Limiter(redis, keys="lethe:mint:*")
        self._policies = policies
        self._trusted = read_networks(trusted_proxies)

    async def admit(self, peer: str, forwarded_for: Sequence[str]) -> None:
        """Count one more user for the client's network; raise TooManyRequests, or QueueUnavailable without Redis."""
        network = prefix_of(client_address(peer, forwarded_for, self._trusted))
        answer = self._policies.admit_user(await self._limiter.count(network) - 1)
        if isinstance(answer, Refuse):
            raise refused(answer)


def read_networks(setting: str) -> tuple[Network, ...]:
    """Read LETHE_TRUSTED_PROXIES: addresses or networks, separated by commas."""
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in setting.split(",") if part.strip())
    except ValueError as exc:
        raise SettingsInvalid("LETHE_TRUSTED_PROXIES is not a list of addresses or networks like 10.0.0.0/8") from exc


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """Walk from the peer back through proxies that are trusted; what others say about themselves is not believed."""
    client = _address(peer)
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    while hops and client is not None and _is_in(client, trusted):
        named = _address(hops.pop())
        if named is None:
            break
        client = named
    return client


def prefix_of(address: Address | None) -> str:
    """Return the network that counts as one: /24 or /56; all that cannot be told share one."""
    if address is None:
        return "unknown"
    return str(ip_network(f"{address}/{PREFIX_BITS[address.version]}", strict=False))


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # a zone id says nothing about the network
    return address


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
