"""Examines a running deployment from outside, as a phone sees it: health, routes, clock, and a body sent by halves."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from broker.children import until
from broker.client import LOOPBACK, Client, ClientError, ServerRefused
from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.doctor.providers import hints_arrive
from broker.doctor.stores import skew

_HALF: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bytes(100_000)
_NO_PICTURE: Final = b"This is not a picture. " * 4_000
SEEN_WITHIN_S: Final = 5.0
_UNBUFFERED: Final = "switch request buffering off in the proxy (deploy/ has configurations for several)"


async def deployment(url: str, *, token: str, seen_within_s: float = SEEN_WITHIN_S) -> AsyncGenerator[Finding, None]:
    """Look at everything that can be seen from outside; the first silence ends it."""
    yield _transport(url)
    try:
        async with Client(url, token=token) as client:
            async for finding in _ask(client, url, token, seen_within_s):
                yield finding
    except ClientError as exc:
        yield problem(str(exc), "see that the broker runs, and that the proxy before it passes requests on")


def _transport(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return ok("https")
    if parts.hostname in LOOPBACK:
        return note("plain http, which is right on one machine alone")
    return problem("plain http: photos and tokens travel in the open", "put TLS in front (deploy/ has configurations)")


async def _ask(client: Client, url: str, token: str, seen_within_s: float) -> AsyncGenerator[Finding, None]:
    ready = await client.answer("GET", "/health/ready")
    if ready.is_success:
        yield ok("the broker and its stores answer")
    else:
        yield problem(f"/health/ready answers {ready.status_code}: {ready.text[:200]}", "start what it names")
    if date := ready.headers.get("Date"):
        yield skew(parsedate_to_datetime(date) - datetime.now(UTC), whose="the server")
    if (await client.answer("GET", "/metrics")).is_success:
        yield problem("/metrics is open to everybody", "pass only /v1, /health and /openapi.json on to clients")
    yield await hints_arrive(client)
    operations = await client.operations()
    if not operations:
        yield problem(
            "no operation can run",
            "start `lethe work gpu`, or relay for providers outside; `lethe doctor` there says why",
        )
        return
    yield ok(f"operations that can run: {', '.join(operations)}")
    token = token or (await client.mint_user()).token
    yield await _half_is_seen(client, operations[0], seen_within_s)
    yield await _half_is_read(url, token, operations[0], within_s=seen_within_s)


async def _half_is_seen(client: Client, operation: str, within_s: float) -> Finding:
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
        if await until(is_receiving, timeout_s=within_s):
            return ok("an upload reaches the broker while it is being sent")
    return problem("half an upload does not reach the broker: a proxy holds it back, in memory or on disk", _UNBUFFERED)


async def _half_is_read(url: str, token: str, operation: str, *, within_s: float) -> Finding:
    """The broker refuses by the first bytes, though the rest is still to come: so the bytes themselves got there."""
    path = f"/v1/jobs/{uuid4()}?operation={operation}"
    try:
        async with asyncio.timeout(within_s):
            status = await _answer_to_part(url, path, token, _NO_PICTURE, size=2 * len(_NO_PICTURE))
    except TimeoutError:
        return problem("the first half of a body is not passed on before the second", _UNBUFFERED)
    except (OSError, asyncio.IncompleteReadError) as exc:
        return warning(f"half a body got no answer ({type(exc).__name__})", "ask the log of the proxy why")
    if status != "415":
        return warning(f"half a body that is no picture was answered {status}, not 415", "ask the broker's log why")
    return ok("so do its bytes: what is no picture is refused before it was sent whole")


async def _answer_to_part(url: str, path: str, token: str, part: bytes, *, size: int) -> str:
    """Send a part of a body and return the status of the answer; the HTTP client would read none before the end."""
    parts = urlsplit(url)
    is_https = parts.scheme == "https"
    port = parts.port or (443 if is_https else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=is_https or None)
    try:
        prefix = parts.path.rstrip("/")
        lines = [f"PUT {prefix}{path} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: Bearer {token}"]
        writer.write("\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode() + part)
        await writer.drain()
        status_line = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ")
        return status_line[1] if len(status_line) > 1 else "nothing that is HTTP"
    finally:
        writer.close()
