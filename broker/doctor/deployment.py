"""Examines a running deployment from outside, as a phone sees it: health, routes, clock, and a body sent by halves."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from broker.children import until
from broker.client import Client, ClientError, ServerRefused
from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.doctor.stores import skew

_HALF: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bytes(100_000)
_NO_PICTURE: Final = b"This is not a picture. " * 4_000
_SEEN_WITHIN_S: Final = 5.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_UNBUFFERED: Final = "switch request buffering off in the proxy (deploy/ has configurations for several)"


async def deployment(url: str, *, token: str) -> AsyncGenerator[Finding, None]:
    """Look at everything that can be seen from outside; the first silence ends it."""
    yield _transport(url)
    try:
        async with Client(url, token=token) as client:
            async for finding in _ask(client, is_known=bool(token)):
                yield finding
    except ClientError as exc:
        yield problem(str(exc), "see that the broker runs, and that the proxy before it passes requests on")


def _transport(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return ok("https")
    if parts.hostname in _LOOPBACK:
        return note("plain http, which is right on one machine alone")
    return problem("plain http: photos and tokens travel in the open", "put TLS in front (deploy/ has configurations)")


async def _ask(client: Client, *, is_known: bool) -> AsyncGenerator[Finding, None]:
    ready = await client.answer("GET", "/health/ready")
    if ready.is_success:
        yield ok("the broker and its stores answer")
    else:
        yield problem(f"/health/ready answers {ready.status_code}: {ready.text[:200]}", "start what it names")
    if date := ready.headers.get("Date"):
        yield skew(parsedate_to_datetime(date) - datetime.now(UTC), whose="the server")
    if (await client.answer("GET", "/metrics")).is_success:
        yield problem("/metrics is open to everybody", "pass only /v1, /health and /openapi.json on to clients")
    operations = await client.operations()
    if not operations:
        yield problem("no operation can run: no worker is alive", "start `lethe work gpu`")
        return
    yield ok(f"operations that can run: {', '.join(operations)}")
    if not is_known:
        await client.mint_user()
    yield await _half_is_seen(client, operations[0])
    yield await _half_is_read(client, operations[0])


async def _half_is_seen(client: Client, operation: str) -> Finding:
    """The broker knows the job while half of its body is still to come."""
    job_id = str(uuid4())

    async def is_receiving() -> bool:
        try:
            return (await client.job(job_id)).status == "receiving"
        except ServerRefused as exc:
            if exc.status == 404:
                return False
            raise

    async with client.part_sent(job_id, operation, _HALF, size=2 * len(_HALF)):
        if await until(is_receiving, timeout_s=_SEEN_WITHIN_S):
            return ok("an upload reaches the broker while it is being sent")
    return problem("half an upload does not reach the broker: a proxy holds it back, in memory or on disk", _UNBUFFERED)


async def _half_is_read(client: Client, operation: str) -> Finding:
    """The broker refuses by the first bytes, though the rest is still to come: so the bytes themselves got there."""
    async with client.part_sent(str(uuid4()), operation, _NO_PICTURE, size=2 * len(_NO_PICTURE)) as answer:
        await asyncio.wait({answer}, timeout=_SEEN_WITHIN_S)
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            status = answer.result().status_code
            if status == 415:
                return ok("so do its bytes: what is no picture is refused before it was sent whole")
            return warning(f"half a body that is no picture was answered {status}, not 415", "ask the broker's log why")
    return problem("the first half of a body is not passed on before the second", _UNBUFFERED)
