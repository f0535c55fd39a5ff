"""A provider outside that keeps every order until it is told how to end it: meanwhile the job can be looked at."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Final

import msgspec

_HOST: Final = "127.0.0.1"
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_LONGEST_HEAD: Final = 64 * 1024

CONFIG: Final = """\
[provider.held]
adapter = "http"
base_url = "$URL"
exposure = "logged"
retention_s = 0
concurrency = 1000
contract = "it is a part of lethe forensics, and keeps nothing"
options = { auth = "none" }

[provider.held.operation.edit]
model = "held"
input = { image = "$image", prompt = "$prompt" }
media_types = ["image/png"]

[provider.held.operation.edit.options]
path = "/orders"

[[route]]
operation = "edit"
tiers = [{ held = 1 }]
"""
"""Its tables in lethe.toml, and a route that leads there."""


class Reply(StrEnum):
    """How it ends an order."""

    DONE = "done"
    REFUSED = "refused"


_ANSWERS: Final = {
    Reply.DONE: ("200 OK", "image/png"),
    Reply.REFUSED: ("400 Bad Request", "application/json"),
}


class _Order(msgspec.Struct):
    """What is known of the orders for one marker."""

    arrived: asyncio.Event
    reply: asyncio.Future[Reply]


class HeldProvider:
    """Knows an order by the marker in its prompt."""

    def __init__(self, url: str, result: bytes) -> None:
        self.url = url
        self._result = result
        self._orders: dict[bytes, _Order] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def expect(self, marker: bytes) -> None:
        """Hold the order that will carry this marker."""
        future = asyncio.get_running_loop().create_future()
        self._orders[marker] = _Order(arrived=asyncio.Event(), reply=future)

    async def arrived(self, marker: bytes) -> None:
        """Wait until it is here."""
        await self._orders[marker].arrived.wait()

    def end(self, marker: bytes, reply: Reply) -> None:
        """Answer it, and every later order for the same."""
        if not self._orders[marker].reply.done():
            self._orders[marker].reply.set_result(reply)

    async def let_go(self) -> None:
        """Refuse whatever is held still."""
        for marker in self._orders:
            self.end(marker, Reply.REFUSED)
        await asyncio.gather(*self._serving)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, beside others."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            body = await reader.readexactly(int(found[1]) if found else 0)
            order = next((order for marker, order in self._orders.items() if marker in body), None)
            del body  # it is kept no longer than it takes to know it
            reply = Reply.REFUSED
            if order is not None:
                order.arrived.set()
                reply = await asyncio.shield(order.reply)
            await self._answer(writer, reply)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        status, media_type = _ANSWERS[reply]
        content = self._result if reply is Reply.DONE else b'{"error": "no"}'
        head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
        await writer.drain()


@asynccontextmanager
async def held_provider(result: bytes) -> AsyncGenerator[HeldProvider]:
    """Run it in this process, which is never looked into."""
    provider = HeldProvider("", result)
    server = await asyncio.start_server(provider.connected, _HOST, 0, limit=_LONGEST_HEAD)
    provider.url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.let_go()
