"""
Connections, each in a pool of its own.

httpcore's pool looks at all of its connections, and for each that is idle at all of them again, whenever a request
comes or ends, and at all for each request that waits: with two hundred a question costs ten times what it costs with
one, and a worker that waits for thousands of orders comes to nothing else, not even to renewing its lease.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

import httpx

from providers.finish import to_its_end

MAX_LANES = 200
KEPT_LANES = 50
"""So many connections stay open when nothing is asked; those that were used last are used first."""
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)
"""What the pool of one lane is made with."""


class Lanes(httpx.AsyncBaseTransport):
    """Sends each request over a connection that nobody else uses meanwhile; whoever finds none free waits."""

    def __init__(
        self, make: Callable[[], httpx.AsyncBaseTransport], *, at_most: int = MAX_LANES, kept: int = KEPT_LANES
    ) -> None:
        self._make = make
        self._kept = kept
        self._room = asyncio.Semaphore(at_most)
        self._free: list[httpx.AsyncBaseTransport] = []
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; the connection is free again once its answer is closed."""
        await self._wait_for_room(request)
        try:
            lane = self._free.pop() if self._free else self._make()
        except BaseException:
            self._room.release()
            raise
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await to_its_end(self._give_back(lane, is_whole=False))
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Lent(response.stream, partial(self._give_back, lane))
        return response

    async def aclose(self) -> None:
        """Close every connection, those in use when they are given back; may be called twice."""
        self._is_closed = True
        while self._free:
            await self._free.pop().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def _wait_for_room(self, request: httpx.Request) -> None:
        within_s: float | None = request.extensions.get("timeout", {}).get("pool")
        try:
            async with asyncio.timeout(within_s):
                await self._room.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("every connection is in use", request=request) from None

    async def _give_back(self, lane: httpx.AsyncBaseTransport, *, is_whole: bool) -> None:
        self._room.release()
        if not is_whole or self._is_closed or len(self._free) >= self._kept:
            await lane.aclose()
        else:
            self._free.append(lane)


class _Lent(httpx.AsyncByteStream):
    """
    The body of an answer; its connection is given back with it, once.

    httpcore's pool keeps the request, picture and all, where who reads or closes an answer is cancelled meanwhile, and
    serves no other. So an answer is closed to its end, and only a connection that brought a whole one is used again.
    """

    def __init__(self, body: httpx.AsyncByteStream, give_back: Callable[..., Awaitable[None]]) -> None:
        self._body = body
        self._give_back = give_back
        self._is_open = True
        self._is_whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk
        self._is_whole = True

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            await to_its_end(self._closed())

    async def _closed(self) -> None:
        is_whole = False
        try:
            await self._body.aclose()
            is_whole = self._is_whole
        finally:
            await self._give_back(is_whole=is_whole)
