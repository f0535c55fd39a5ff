"""How emulated providers call back: on time, too early, twice, or with a token that nobody gave them."""

import contextlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import httpx

from providers.calls import trust

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Ring(StrEnum):
    """When a hook is called."""

    EARLY = "early"  # before the order is answered
    DONE = "done"  # when the attempt ended
    TWICE = "twice"  # the same, and again
    FORGED = "forged"  # at a time of its own, with a wrong token


async def ring(url: str, body: bytes, headers: Callable[[bytes], Mapping[str, str]]) -> None:
    """Call a hook as providers do: the answer does not matter. An emulator never leaves this machine."""
    if urlsplit(url).hostname not in LOOPBACK:
        return
    async with httpx.AsyncClient(verify=trust(), trust_env=False, timeout=5) as client:
        with contextlib.suppress(httpx.HTTPError):
            await client.post(url, content=body, headers={"content-type": "application/json", **headers(body)})


def forged(url: str) -> str:
    """Put another token of the same length where the token is."""
    head, _, token = url.rpartition("/")
    return f"{head}/{'x' * len(token)}"
