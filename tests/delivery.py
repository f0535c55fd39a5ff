"""
Hosts that deliver outputs, fast or maliciously: one server on loopback, and an Internet that leads to it.

The Internet stands for the network between us and public addresses: it notes which address a connection goes to, and
brings the request to the server that stands for that address.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Protocol

import httpx
import msgspec

from providers.calls import trust
from providers.pinned import Resolve

PUBLIC = "93.184.215.14"
OTHER = "151.101.1.195"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a path answers; `declared` is its Content-Length where it lies, None sends chunks without a length."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    declared: int | None = -1
    stops_after: int | None = None
    """Send that many bytes of the body, then nothing more, and keep the connection open."""


class Delivery:
    """A server that answers from `pages`, by path, and remembers every request head."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self.pages = dict(pages)
        self.heads: list[str] = []
        self.port = 0
        self._served: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [head.split(" ")[1] for head in self.heads]

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator["Delivery"]:
        """Serve on loopback."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._served:
                task.cancel()
            await asyncio.gather(*self._served, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                await self._send(self.pages.get(self.paths[-1], Page(status=404)), writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _send(self, page: Page, writer: asyncio.StreamWriter) -> None:
        headers = {"content-type": "text/html", "set-cookie": "tracker=1; Path=/", **page.headers}
        if page.declared is None:
            headers["transfer-encoding"] = "chunked"
        else:
            headers["content-length"] = str(len(page.body) if page.declared < 0 else page.declared)
        lines = [f"HTTP/1.1 {page.status} x", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        body = page.body if page.stops_after is None else page.body[: page.stops_after]
        if page.declared is None:
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _parts(body)) + b"0\r\n\r\n"
        writer.write(body)
        await writer.drain()
        if page.stops_after is not None:
            await asyncio.Event().wait()


class Served(Protocol):
    """What stands for a public address: it answers on loopback."""

    @property
    def url(self) -> str:
        """Where."""
        ...


class Internet(httpx.AsyncBaseTransport):
    """Brings requests for public addresses to servers on loopback; where nothing stands, nothing can be reached."""

    def __init__(self, hosts: Mapping[str, Served]) -> None:
        self._hosts = hosts
        self._inner = httpx.AsyncHTTPTransport(verify=trust(), trust_env=False)
        self.reached: list[str] = []
        """Every address that a connection was made to."""
        self.names: list[object] = []
        """Every name that a certificate was checked for."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect to an address, never to a name."""
        address = request.url.raw_host.decode()
        self.reached.append(address)
        self.names.append(request.extensions["sni_hostname"])
        if address not in self._hosts:
            raise httpx.ConnectError("unreachable")
        assert request.url.scheme == "https"
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=httpx.URL(self._hosts[address].url).port)
        sent = httpx.Request(
            request.method, url, headers=request.headers, content=request.content, extensions=request.extensions
        )
        return await self._inner.handle_async_request(sent)

    async def aclose(self) -> None:
        """Let go."""
        await self._inner.aclose()


def _parts(body: bytes) -> list[bytes]:
    return [body[at : at + 65_536] for at in range(0, len(body), 65_536)]


def answers(*turns: str) -> tuple[Resolve, list[str]]:
    """A resolver that gives one answer (addresses, a space between) after the other, and the names it was asked."""
    asked: list[str] = []
    rest = list(turns)

    async def resolve(host: str, port: int) -> list[str]:
        del port
        asked.append(host)
        return (rest.pop(0) if len(rest) > 1 else rest[0]).split()

    return resolve, asked


def output_memories() -> list[str]:
    """The descriptors of this process that outputs are made in."""
    found: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "lethe-output" in str(path.readlink()):
                found.append(str(path))
    return found
