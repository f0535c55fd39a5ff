"""What operators are shown at /metrics."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import httpx

from broker.forensics.surfaces import Leaks, NotScanned, Part, Surface
from providers.calls import trust

_HOST: Final = "127.0.0.1"
_FIGURES_WITHIN_S: Final = 20.0


class Metrics(Surface):
    """What operators are shown at /metrics, by each process that shows any."""

    def __init__(self, name: str, urls: Callable[[], Awaitable[Sequence[str]]]) -> None:
        super().__init__(name)
        self._urls = urls
        self._more: list[str] = []

    async def parts(self) -> AsyncGenerator[Part]:
        """Ask each process."""
        urls, gone = (*await self._urls(), *self._more), 0
        async with httpx.AsyncClient(verify=trust(), trust_env=False, timeout=_FIGURES_WITHIN_S) as client:
            for url in urls:
                try:
                    answer = (await client.get(f"{url}/metrics")).raise_for_status()
                except httpx.ConnectError:
                    gone += 1  # it was killed: its row says for a while that it lives
                except httpx.HTTPError as exc:
                    raise NotScanned(f"{url}/metrics does not answer ({type(exc).__name__})") from exc
                else:
                    yield Part(f"{url}/metrics", [answer.content])
        if gone == len(urls):
            raise NotScanned("nobody shows any figures")

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Serve it as figures of one process more."""
        body = b"\n".join(leaks.values())

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, _HOST, 0)
        url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"
        self._more.append(url)
        try:
            yield
        finally:
            self._more.remove(url)
            server.close()
            await server.wait_closed()
