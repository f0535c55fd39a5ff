"""Hints from providers: the right token wakes who waits; anything else gets the same answer, and costs little."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from broker.api import hooks
from broker.attempts import hook_hash
from broker.hints import CHANNEL
from broker.log import capture_log, configure_log
from broker.store.attempts import NewAttempt
from providers.base import Deletes, Exposure, Part
from providers.failures import FailureKind, ProviderFailure
from tests.api_client import Api
from tests.checks import plant
from tests.lifecycle import claimed_job, eventually

MEBIBYTE = 1 << 20


class Hooked:
    """An attempt at a provider that was given an address to call."""

    def __init__(self, api: Api, attempt_id: UUID, token: str) -> None:
        self.api = api
        self.attempt_id = attempt_id
        self.token = token

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[asyncio.Event]:
        """What the worker that waits for the attempt would be woken by."""
        await eventually(self._is_heard)
        with self.api.services.hints.watch(self.attempt_id) as hinted:
            yield hinted

    async def _is_heard(self) -> bool:
        redis: Any = self.api.services.redis
        return bool((await redis.pubsub_numsub(CHANNEL))[0][1])

    async def call(self, body: bytes = b"{}", token: str | None = None) -> httpx.Response:
        return await self.api.http.post(f"/v1/hooks/{token or self.token}", content=body)


@pytest.fixture
async def hooked(api: Api) -> Hooked:
    job = await claimed_job(api.services)
    token = plant(secrets.token_urlsafe(32))
    new = NewAttempt(
        id=uuid4(),
        provider="fal",
        exposure=Exposure.LOGGED,
        retention_s=60,
        deletes=Deletes.API,
        expected_usd=0.01,
        parts=(Part.UPLOAD, Part.OUTPUT),
        hook_hash=hook_hash(token),
    )
    await api.services.stores.attempts.begin(job, new)
    return Hooked(api, new.id, token)


async def woken(hinted: asyncio.Event) -> None:
    async with asyncio.timeout(2):
        await hinted.wait()
    hinted.clear()


async def test_a_hint_wakes_who_waits(hooked: Hooked) -> None:
    """No token of a user is needed, and nothing is answered; again when it comes twice, or with any body at all."""
    async with hooked.watched() as hinted:
        for body in (b'{"status": "succeeded"}', b'{"status": "succeeded"}', b"", b"\x00\xff" * 5000):
            answer = await hooked.call(body)
            assert (answer.status_code, answer.content) == (204, b"")
            await woken(hinted)


async def test_an_early_hint_is_as_good_as_none(hooked: Hooked) -> None:
    """It comes before anybody waits: nothing breaks, and the one that comes in time is heard."""
    assert (await hooked.call()).status_code == 204
    async with hooked.watched() as hinted:
        assert not hinted.is_set()
        await hooked.call()
        await woken(hinted)


async def test_a_forged_hint_wakes_nobody(hooked: Hooked) -> None:
    """A token that nobody was given gets the same answer as one that is right: it cannot be told from it."""
    async with hooked.watched() as hinted:
        forged = await hooked.call(token=secrets.token_urlsafe(32))
        assert not hinted.is_set()
        right = await hooked.call()
        await woken(hinted)
    assert (forged.status_code, forged.content) == (right.status_code, right.content) == (204, b"")
    assert set(forged.headers) == set(right.headers)


async def test_a_late_hint_wakes_nobody(hooked: Hooked) -> None:
    """The attempt has ended: the same answer, so that the provider stops."""
    await hooked.api.services.stores.attempts.failed(hooked.attempt_id, ProviderFailure(FailureKind.TIMEOUT))
    async with hooked.watched() as hinted:
        assert (await hooked.call()).status_code == 204
        assert not hinted.is_set()


@pytest.mark.parametrize("token", ["x", "a" * 42, "a" * 44, "a" * 42 + "!", "a" * 42 + "=", "%00" * 43, "a" * 5000])
async def test_what_is_no_token_is_not_found(hooked: Hooked, token: str) -> None:
    """It is no address of ours, and Postgres is not asked."""
    assert (await hooked.call(token=token)).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_hints_are_posted(hooked: Hooked, method: str) -> None:
    """Another method does nothing."""
    async with hooked.watched() as hinted:
        answer = await hooked.api.http.request(method, f"/v1/hooks/{hooked.token}")
        assert answer.status_code == 405
        assert not hinted.is_set()


async def test_a_long_body_is_cut_off(hooked: Hooked) -> None:
    """Two mebibytes: the hint counts, the connection is closed before the end, and the server goes on."""
    sent = 0

    async def body() -> AsyncGenerator[bytes]:
        nonlocal sent
        while sent < 64 * MEBIBYTE:
            sent += 65_536
            yield bytes(65_536)

    async with hooked.watched() as hinted:
        try:
            answer = await hooked.api.http.post(f"/v1/hooks/{hooked.token}", content=body())
        except httpx.TransportError:
            pass  # closed while it was still sending
        else:
            assert (answer.status_code, answer.headers["connection"]) == (204, "close")
        await woken(hinted)
    assert sent < 32 * MEBIBYTE
    assert (await hooked.call(bytes(MEBIBYTE))).status_code == 204


async def test_a_slow_body_is_not_waited_for(hooked: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint counts at once; a body that does not come is given up, and so is its connection."""
    monkeypatch.setattr(hooks, "READ_WITHIN_S", 0.3)
    address = urlsplit(hooked.api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    async with hooked.watched() as hinted, asyncio.timeout(5):
        writer.write(f"POST /v1/hooks/{hooked.token} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{{".encode())
        await woken(hinted)
        began_s = time.monotonic()
        answer = await reader.read()
        assert time.monotonic() - began_s < 3
    assert answer.startswith(b"HTTP/1.1 204")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_nothing_of_a_hint_is_logged(hooked: Hooked) -> None:
    """Neither the token nor a word of the body: a line holds the route's template."""
    secret = plant("hint7secret7word")
    configure_log(is_console=False)
    with capture_log() as lines:
        await hooked.call(secret.encode())
        await hooked.call(secret.encode(), token=secrets.token_urlsafe(32))
        await hooked.call(secret.encode(), token=secret)
        served = [line for line in lines if "request_served" in line]
    assert len(served) == 3
    assert all('"route":"/v1/hooks/{token}"' in line for line in served)
    assert not [line for line in lines if hooked.token in line or secret in line]
