"""
Webhooks as Standard Webhooks has them: signed, thin, to public addresses alone.

A URL comes from a client and is not believed. Its name is resolved when it is given and again for each try, every
address is checked, and the connection goes to one that was. No redirect is followed, no body read.
"""

import asyncio
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus

import httpx
import msgspec

from broker.notifications import Answer, Notification, Target, Told
from broker.notify.answers import read_answer
from broker.notify.webhook_keys import WebhookKeys
from broker.notify_errors import InvalidWebhook
from providers.addresses import is_public
from providers.pinned import MAX_ADDRESSES, Resolve, pinned, port_of, unpooled_transport

CHECK_WITHIN_S = 3.0
SEND_WITHIN_S = 20.0
RESOLVERS = 4

_HOST = re.compile(rb"[a-z0-9._:-]+")
"""A name, or an address of either version."""


class Webhooks:
    """Calls the app's own server."""

    def __init__(
        self,
        keys: WebhookKeys,
        *,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        # Threads of its own: a name that nobody answers for must not hold up those who look for Postgres.
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="webhook-names")
        self._resolve = resolve or self._look_up
        self._transport = transport or unpooled_transport()
        self._now = now

    async def check(self, target: Target) -> None:
        """Raise InvalidWebhook where a URL may not be called, or cannot be at this moment."""
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await self._addresses(_url(target.address))
        except (OSError, UnicodeError) as exc:  # a timeout is one of them
            raise InvalidWebhook("the host of the webhook has no address", pointer=target.pointer) from exc
        except InvalidWebhook as exc:
            exc.pointer = target.pointer
            raise

    async def send(self, notification: Notification) -> Answer:
        """Call once; a name that leads to a private address by now is REFUSED without a connection."""
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                return await self._send(notification)
        except InvalidWebhook:
            return Answer(told=Told.REFUSED)
        except (OSError, UnicodeError, httpx.HTTPError):
            return Answer(told=Told.FAILED)

    async def aclose(self) -> None:
        """Let go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    async def _look_up(self, host: str, port: int) -> list[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [str(entry[4][0]) for entry in found]

    async def _send(self, notification: Notification) -> Answer:
        url = _url(notification.target)
        body, timestamp = body_of(notification), int(self._now())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": str(notification.id),
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._keys.sign(str(notification.id), timestamp, body),
        }
        for address in await self._addresses(url):
            try:
                response = await self._transport.handle_async_request(
                    pinned("POST", url, address, headers=headers, content=body)
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            await response.aclose()
            return read_answer(response, gone=HTTPStatus.GONE)
        return Answer(told=Told.FAILED)

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Resolve the name, once; one private address among the answers condemns them all."""
        found = await self._resolve(url.raw_host.decode(), port_of(url))
        if not found:
            raise OSError
        if not all(is_public(address) for address in found):
            raise InvalidWebhook("the host of the webhook is not on the public Internet")
        return found[:MAX_ADDRESSES]


def body_of(notification: Notification) -> bytes:
    """Write what is told: which job, and how it ended."""
    content = {
        "type": notification.type,
        "timestamp": notification.happened_at,
        "data": {"id": str(notification.public_id)},
    }
    return msgspec.json.encode(content)


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise InvalidWebhook from exc
    is_named = _HOST.fullmatch(url.raw_host) is not None and not url.userinfo
    if url.scheme != "https" or port_of(url) != 443 or not is_named or url.fragment:
        raise InvalidWebhook
    return url
