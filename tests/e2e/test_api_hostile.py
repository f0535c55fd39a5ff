"""Clients that mean harm, on bare sockets: nothing grows, nothing hangs, nothing of what they send is kept, no 500."""

import asyncio
import base64
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.api import protocol
from broker.log import capture_log, configure_log
from tests.api_client import Api
from tests.checks import plant
from tests.stack import upload_bytes

JOB = "/v1/jobs/11111111-1111-4111-8111-111111111111"
PUT = f"{JOB}?operation=noop"
MEBIBYTE = 1 << 20

ROUTES = (
    "/v1/users", "/v1/jobs", JOB, f"{JOB}/events", f"{JOB}/outputs/0", f"{JOB}/outputs/-1",
    f"{JOB}/outputs/99999999999999999999", f"{JOB}/outputs/%00", f"{JOB}/receipt", "/v1/operations",
    "/v1/privacy/keys", "/health/live", "/health/ready", "/openapi.json", "/", "//", "/v1/../v1/jobs", "/v1/jobs/%00",
    "/%ff%fe", "/v1/jobs?limit=%00", "/v1/jobs?cursor=%ED%A0%80", "/v1/jobs?cursor=AAAAAAAAAAAAAAAAAAAAAA",
    f"/v1/jobs?limit={'9' * 20}", f"/v1/jobs?{'a=1&' * 5000}",
)  # fmt: skip
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "FOO", "get")
HEADERS = (
    "If-None-Match: *", 'If-None-Match: "v' + "9" * 30 + '"', "If-None-Match: " + '"v1",' * 5000,
    "Prefer: wait=-1", "Prefer: wait=" + "9" * 100, "Prefer: " + "wait=0;" * 5000, "Prefer: " + "wait" * 5000,
    "Last-Event-ID: \xb2", "Range: bytes=9223372036854775807-99999999999999999999", "Accept: " + "a/b;q=0.1," * 3000,
    "Cookie: \xff\xfe", "Content-Type: \xff", "Content-Type: multipart/form-data; boundary=", "Expect: foo",
    "Authorization: Bearer second", "Upgrade: h2c\r\nConnection: Upgrade", "X-Forwarded-For: \xff%s," * 500 + "1",
)  # fmt: skip
PARAMETERS = (
    b"[" * 6000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b'{"prompt":' + b"9" * 8000 + b"}", b'{"prompt":1e999}',
    b'{"prompt":"\\ud800"}', b'{"prompt":"\\u0000"}', b'{"\\ud800":1}', b'{"a":1,"a":2}', b"\xff\xfe\x00", b"null",
)  # fmt: skip
BODIES = (
    "Content-Length: -3\r\n\r\nabc",
    "Content-Length: +3\r\n\r\nabc",
    "Content-Length: 99999999999999999999999\r\n\r\nabc",
    "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nabc\r\n",
)


class Phone:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """Read one answer whole; 0 when the connection is closed."""
        head = await self._head()
        if not head:
            return 0
        names = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line)
        status = int(head.split()[1])
        if self.is_asked_for_head or status in {204, 304}:
            return status
        await self.reader.readexactly(int(names["content-length"]))
        return status

    is_asked_for_head = False

    async def send(self, head: str, *, body: bytes = b"") -> None:
        self.is_asked_for_head = head.startswith("HEAD")
        self.writer.write(head.encode("latin-1") + body)
        await self.writer.drain()

    async def pour(self, piece: bytes, *, most_bytes: int) -> int:
        """Send the same again and again; return how many bytes the server took before it closed."""
        sent = 0
        try:
            async with asyncio.timeout(5):
                while sent < most_bytes and not self.reader.at_eof():
                    self.writer.write(piece)
                    await self.writer.drain()
                    sent += len(piece)
        except (OSError, TimeoutError):
            pass
        return sent

    async def _head(self) -> bytes:
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


@asynccontextmanager
async def phone(api: Api) -> AsyncGenerator[Phone]:
    address = urlsplit(api.url)
    assert address.hostname
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Phone(reader, writer)
    finally:
        writer.close()


def request(api: Api, method: str, path: str, *headers: str) -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {api.token}", *headers]
    return "\r\n".join(lines) + "\r\n"


async def status_of(api: Api, text: str) -> int:
    async with phone(api) as client, asyncio.timeout(5):
        await client.send(text)
        return await client.status()


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
    asked = [request(api, method, path, "Content-Length: 0") + "\r\n" for method, path in product(METHODS, ROUTES)]
    asked += [request(api, "GET", path, header) + "\r\n" for header in HEADERS for path in ("/v1/jobs", JOB)]
    given = [base64.urlsafe_b64encode(value).decode().rstrip("=") for value in PARAMETERS]
    asked += [
        request(api, "PUT", PUT, f"Lethe-Parameters: {value}", "Content-Length: 3") + "\r\nabc" for value in given
    ]
    asked += [request(api, "PUT", PUT) + rest for rest in BODIES]
    statuses = [await status_of(api, text) for text in asked]
    wrong = [(status, text[:80]) for status, text in zip(statuses, asked, strict=True) if not 200 <= status < 500]
    assert not wrong
    assert {200, 201, 204, 400, 404, 405, 422} <= set(statuses)


FLOODS: dict[str, Callable[[Api], tuple[str, bytes]]] = {
    "one header": lambda api: (request(api, "GET", "/v1/jobs") + "X: ", b"a" * 65_536),
    "many headers": lambda api: (request(api, "GET", "/v1/jobs"), b"X: 1\r\n" * 10_000),
    "address": lambda api: ("GET /", b"a" * 65_536),
    "empty lines": lambda api: ("", b"\r\n" * 32_768),
    "trailers": lambda api: (
        request(api, "PUT", PUT, "Transfer-Encoding: chunked") + "\r\n0\r\n",
        b"X: 1\r\n" * 10_000,
    ),
    "one trailer": lambda api: (request(api, "PUT", PUT, "Transfer-Encoding: chunked") + "\r\n0\r\nX: ", b"a" * 65_536),
    "chunk extension": lambda api: (
        request(api, "PUT", PUT, "Transfer-Encoding: chunked") + "\r\n3;",
        b"a" * 65_536,
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_is_no_body_is_bounded(api: Api, flood: str) -> None:
    """A head, a trailer or a chunk's extension without end is cut off after a small part of what would be sent."""
    head, piece = FLOODS[flood](api)
    async with phone(api) as client:
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
    async with phone(api) as client:
        await client.send(head, body=b"%x\r\n%s\r\n0\r\nLethe-Finish-Within: 0\r\nX: 1\r\n\r\n" % (len(body), body))
        assert await client.status() == 202


@pytest.mark.parametrize("begun", ["", "GET /v1/jobs HTTP/1.1\r\nHost: x\r\n", "G"])
async def test_a_connection_without_a_request_ends(api: Api, monkeypatch: pytest.MonkeyPatch, begun: str) -> None:
    """Silence, and a head that comes a byte at a time, are cut off; they cost a descriptor each."""
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)
    async with phone(api) as client, asyncio.timeout(5):
        await client.send(begun)
        assert await client.pour(b"" if not begun else b"x", most_bytes=0) == 0
        assert await client.status() == 0


async def test_one_byte_after_an_answer_does_not_hold_the_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next head on a connection that is kept has to come in time as well."""
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)
    async with phone(api) as client, asyncio.timeout(5):
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
    async with phone(api) as client, asyncio.timeout(5):
        await client.send(request(api, "PUT", PUT, f"Content-Length: {len(body)}") + "\r\n", body=body[:1000])
        await asyncio.sleep(0.6)
        await client.send("", body=body[1000:])
        assert await client.status() == 202


async def test_many_slow_clients_leave_room_for_another(api: Api) -> None:
    """A hundred each of uploads that stand still, waits and event streams: one more client is served at once."""
    job = await api.queued()
    kinds = (
        request(api, "PUT", PUT, "Content-Length: 5000") + "\r\n",
        request(api, "GET", f"/v1/jobs/{job['id']}", "Prefer: wait=20") + "\r\n",
        request(api, "GET", f"/v1/jobs/{job['id']}/events") + "\r\n",
    )
    async with asyncio.timeout(20):
        slow = [phone(api) for _ in range(300)]
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
        most = [await opened.enter_async_context(phone(api)) for _ in range(12)]
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


async def test_memory_stays_flat(api: Api) -> None:
    """Thousands of refused requests leave this process no larger than it was, but for slack."""
    texts = [request(api, "PUT", PUT, "Content-Length: 60000") + "\r\n" + "a" * 60_000]
    texts += [request(api, "GET", "/v1/jobs?x=" + "9" * 50_000) + "\r\n"]
    for _ in range(20):
        await status_of(api, texts[0])
    before = _resident_bytes()
    for number in range(150):
        await status_of(api, texts[number % 2])
    assert _resident_bytes() - before < 24 * MEBIBYTE


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
