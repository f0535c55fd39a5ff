"""Clients that mean harm, on bare sockets: nothing grows, nothing hangs, nothing of what they send is kept, no 500."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from broker.api import protocol
from broker.log import capture_log, configure_log
from tests.api_client import Api
from tests.checks import plant
from tests.hostile import FLOODS, MEBIBYTE, PUT, connected, odd_requests, request, slow_requests, status_of
from tests.stack import upload_bytes


@pytest.fixture(autouse=True)
async def still_serves(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Whatever was done: another client is served, and no request ended in a bug of ours."""
    configure_log(is_console=False)
    with capture_log() as lines:
        yield
    monkeypatch.undo()
    assert (await api.get("/v1/jobs")).status_code == 200
    assert not [line for line in lines if "request_failed" in line or "Traceback" in line]


async def test_no_request_is_a_bug(api: Api) -> None:
    """Every method on every route, and every odd header on the routes that read headers: an answer below 500."""
    asked = odd_requests(api)
    statuses = [await status_of(api, text) for text in asked]
    wrong = [(status, text[:80]) for status, text in zip(statuses, asked, strict=True) if not 200 <= status < 500]
    assert not wrong
    assert {200, 201, 204, 400, 404, 405, 422} <= set(statuses)


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_is_no_body_is_bounded(api: Api, flood: str) -> None:
    """A head, a trailer or a chunk's extension without end is cut off after a small part of what would be sent."""
    head, piece = FLOODS[flood](api)
    async with connected(api) as client:
        await client.send(head)
        assert await client.pour(piece, most_bytes=64 * MEBIBYTE) < 16 * MEBIBYTE
        assert await client.status() in {0, 400}


async def test_a_head_in_one_piece_is_bounded_too(api: Api) -> None:
    """A large head that arrives at once is refused with a problem, and one of an ordinary size is not."""
    assert await status_of(api, request(api, "GET", "/v1/jobs", "X: " + "a" * 100_000) + "\r\n") == 400
    assert await status_of(api, request(api, "GET", "/v1/jobs", *["X: 1"] * 20_000) + "\r\n") == 400
    assert await status_of(api, request(api, "GET", "/v1/jobs", "X: " + "a" * 40_000) + "\r\n") == 200


async def test_trailers_are_not_headers(api: Api) -> None:
    """What follows a body changes nothing about its request."""
    head = request(api, "PUT", PUT, "Transfer-Encoding: chunked") + "\r\n"
    body = upload_bytes()
    async with connected(api) as client:
        await client.send(head, body=b"%x\r\n%s\r\n0\r\nLethe-Finish-Within: 0\r\nX: 1\r\n\r\n" % (len(body), body))
        assert await client.status() == 202


@pytest.mark.parametrize("begun", ["", "GET /v1/jobs HTTP/1.1\r\nHost: x\r\n", "G"])
async def test_a_connection_without_a_request_ends(api: Api, monkeypatch: pytest.MonkeyPatch, begun: str) -> None:
    """Silence, and a head that comes a byte at a time, are cut off; they cost a descriptor each."""
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)
    async with connected(api) as client, asyncio.timeout(5):
        await client.send(begun)
        assert await client.pour(b"" if not begun else b"x", most_bytes=0) == 0
        assert await client.status() == 0


async def test_one_byte_after_an_answer_does_not_hold_the_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next head on a connection that is kept has to come in time as well."""
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)
    async with connected(api) as client, asyncio.timeout(5):
        await client.send(request(api, "GET", "/health/live") + "\r\n")
        assert await client.status() == 200
        await client.send("G")
        assert await client.status() == 0


async def test_a_long_answer_outlives_the_time_for_a_head(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a job, and sending a body slowly, are no reason to cut."""
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)
    job = await api.queued()
    waited = await api.get(f"/v1/jobs/{job['id']}", Prefer="wait=1")
    assert waited.status_code == 200
    body = upload_bytes()
    async with connected(api) as client, asyncio.timeout(5):
        await client.send(request(api, "PUT", PUT, f"Content-Length: {len(body)}") + "\r\n", body=body[:1000])
        await asyncio.sleep(0.6)
        await client.send("", body=body[1000:])
        assert await client.status() == 202


async def test_many_slow_clients_leave_room_for_another(api: Api) -> None:
    """A hundred each of uploads that stand still, waits and event streams: one more client is served at once."""
    job = await api.queued()
    kinds = slow_requests(api, job["id"])
    async with asyncio.timeout(20):
        slow = [connected(api) for _ in range(300)]
        opened = [await context.__aenter__() for context in slow]
        for number, client in enumerate(opened):
            await client.send(kinds[number % len(kinds)])
        for _ in range(5):
            async with asyncio.timeout(5):
                assert (await api.get(f"/v1/jobs/{job['id']}")).status_code == 200
                assert (await api.http.get("/health/ready")).status_code in {200, 503}
        for context in slow:
            await context.__aexit__(None, None, None)


async def test_one_connection_too_many_is_closed_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those within the bound go on; when they leave there is room again."""
    monkeypatch.setattr(protocol, "most_connections", lambda: 5)
    async with AsyncExitStack() as opened:
        most = [await opened.enter_async_context(connected(api)) for _ in range(12)]
        async with asyncio.timeout(5):
            await most[-1].reader.read()
            for client in most:
                with suppress(OSError):
                    await client.send(request(api, "GET", "/health/live") + "\r\n")
            served = [await client.status() for client in most]
        assert 0 < served.count(200) <= 5
        assert served[-1] == 0


def test_the_shells_limit_is_not_the_brokers() -> None:
    """The broker takes what it may have, and keeps some descriptors from clients."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
        protocol.widen_descriptors()
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert soft == max(before[1] // 2, min(before[1], 65_536))
        assert 0 < protocol.most_connections() < soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_nothing_of_a_hostile_request_is_logged(api: Api) -> None:
    """Not its address, its query, its headers, its body, nor what the parser stumbled over."""
    secret = plant("hostile7secret7word")
    await status_of(api, request(api, "GET", f"/{secret}?x={secret}", f"X-{secret}: {secret}") + "\r\n")
    await status_of(api, request(api, secret.upper(), f"/{secret}") + "\r\n")
    await status_of(api, request(api, "PUT", PUT, f"Lethe-Parameters: {secret}", "Content-Length: 3") + "\r\nabc")
    await status_of(api, f"{secret}\0\r\n\r\n")
    await status_of(api, request(api, "PUT", PUT, "Transfer-Encoding: chunked") + f"\r\n{secret}\r\n")
