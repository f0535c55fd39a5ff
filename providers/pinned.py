"""
Requests that go to an address that was checked: a name is resolved once, and nothing looks a second time.

Who makes one decides which addresses may be; the name stays in Host, and in what the certificate has to say.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import httpx

from providers.calls import trust
from providers.lanes import ONE, Lanes

CONNECT_S: Final = 5.0
READ_S: Final = 20.0
MAX_ADDRESSES: Final = 4
"""So many addresses of a name are tried, at most."""

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns all addresses of a name, best first; raises OSError."""


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for every address of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def port_of(url: httpx.URL) -> int:
    """Return the port that a URL leads to; 0 where its scheme has none."""
    return url.port or _DEFAULT_PORTS.get(url.scheme, 0)


def pinned(
    method: str, url: httpx.URL, address: str, *, headers: Mapping[str, str], content: bytes | None = None
) -> httpx.Request:
    """Address a request to one checked address of its URL's host."""
    return httpx.Request(
        method,
        url.copy_with(host=address, fragment=None),
        headers={
            "Host": url.netloc.decode(),
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "lethe",
            **headers,
        },
        content=content,
        extensions={
            "sni_hostname": url.raw_host.decode(),
            "timeout": {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S},
        },
    )


def unpooled_transport(tls: ssl.SSLContext | None = None) -> Lanes:
    """Make a transport that keeps no connection: one made under another name would not be checked for this one."""
    return Lanes(lambda: httpx.AsyncHTTPTransport(verify=tls or trust(), limits=ONE, trust_env=False), kept=0)
