"""What clients send that mean harm, on bare sockets."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import product
from urllib.parse import urlsplit

from tests.api_client import Api

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


class Connection:
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
async def connected(api: Api) -> AsyncGenerator[Connection]:
    address = urlsplit(api.url)
    assert address.hostname
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def request(api: Api, method: str, path: str, *headers: str) -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {api.token}", *headers]
    return "\r\n".join(lines) + "\r\n"


async def status_of(api: Api, text: str) -> int:
    async with connected(api) as client, asyncio.timeout(5):
        await client.send(text)
        return await client.status()


def odd_requests(api: Api) -> list[str]:
    """Every method on every route, every odd header on routes that read headers, odd parameters and bodies."""
    asked = [request(api, method, path, "Content-Length: 0") + "\r\n" for method, path in product(METHODS, ROUTES)]
    asked += [request(api, "GET", path, header) + "\r\n" for header in HEADERS for path in ("/v1/jobs", JOB)]
    given = [base64.urlsafe_b64encode(value).decode().rstrip("=") for value in PARAMETERS]
    asked += [
        request(api, "PUT", PUT, f"Lethe-Parameters: {value}", "Content-Length: 3") + "\r\nabc" for value in given
    ]
    return asked + [request(api, "PUT", PUT) + rest for rest in BODIES]


def slow_requests(api: Api, job_id: str) -> tuple[str, str, str]:
    """An upload that stands still, a long wait, an event stream."""
    return (
        request(api, "PUT", PUT, "Content-Length: 5000") + "\r\n",
        request(api, "GET", f"/v1/jobs/{job_id}", "Prefer: wait=20") + "\r\n",
        request(api, "GET", f"/v1/jobs/{job_id}/events") + "\r\n",
    )


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
