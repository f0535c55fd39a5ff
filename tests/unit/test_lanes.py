"""Connections to a provider: each request has one to itself, as many as allowed, and every one is given back."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from providers.lanes import KEPT_LANES, Lanes

URL = "http://provider.test/"


class Body(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"whole"


class HalfABody(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"ha"
        raise httpx.ReadError("gone")


class Line(httpx.AsyncBaseTransport):
    """A connection that says when it is used by two, and answers once it may."""

    def __init__(self, made: list["Line"], gate: asyncio.Event) -> None:
        made.append(self)
        self._gate = gate
        self.in_use = self.uses = self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.in_use, self.uses = self.in_use + 1, self.uses + 1
        assert self.in_use == 1, "a connection is used by one request at a time"
        try:
            await self._gate.wait()
        finally:
            self.in_use -= 1
        if request.url.path == "/broken":
            raise httpx.ReadError("gone", request=request)
        return httpx.Response(200, stream=HalfABody() if request.url.path == "/half" else Body())

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def made() -> list[Line]:
    return []


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - what is waited for is how far other tasks are
            await asyncio.sleep(0)


def client(made: list[Line], gate: asyncio.Event, *, at_most: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=Lanes(lambda: Line(made, gate), at_most=at_most), timeout=5)


async def test_no_more_connections_than_allowed_and_everybody_is_served(made: list[Line], gate: asyncio.Event) -> None:
    """Whoever finds none free waits for one, and is not refused."""
    async with client(made, gate, at_most=3) as http:
        asking = [asyncio.create_task(http.get(URL)) for _ in range(10)]
        await until(lambda: sum(line.in_use for line in made) == 3)
        gate.set()
        answers = await asyncio.gather(*asking)

    assert [answer.content for answer in answers] == [b"whole"] * 10
    assert len(made) == 3


async def test_one_after_the_other_share_a_connection(made: list[Line], gate: asyncio.Event) -> None:
    """A connection that is free is used again."""
    gate.set()
    async with client(made, gate, at_most=3) as http:
        for _ in range(5):
            await http.get(URL)

    assert [line.uses for line in made] == [5]


async def test_who_waits_too_long_for_a_connection_has_sent_nothing(made: list[Line], gate: asyncio.Event) -> None:
    """The error is the one that says so; the connection is there for others once it is free."""
    async with client(made, gate, at_most=1) as http:
        first = asyncio.create_task(http.get(URL))
        await until(lambda: bool(made))
        with pytest.raises(httpx.PoolTimeout):
            await http.get(URL, timeout=httpx.Timeout(5, pool=0.01))
        gate.set()
        assert (await first).status_code == (await http.get(URL)).status_code == 200


@pytest.mark.parametrize("ends", ["broken", "cancelled", "unread"])
async def test_a_connection_comes_back_however_a_request_ends(
    made: list[Line], gate: asyncio.Event, *, ends: str
) -> None:
    """None is lost to an error, a cancelled task or an answer that nobody reads."""
    async with client(made, gate, at_most=1) as http:
        match ends:
            case "broken":
                gate.set()
                with pytest.raises(httpx.ReadError):
                    await http.get(f"{URL}broken")
            case "cancelled":
                asking = asyncio.create_task(http.get(URL))
                await until(lambda: bool(made))
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                gate.set()
            case _:
                gate.set()
                async with http.stream("GET", URL):
                    pass
        async with asyncio.timeout(5):
            assert (await http.get(URL)).content == b"whole"


@pytest.mark.parametrize("path", ["broken", "half"])
async def test_a_connection_that_broke_off_is_not_used_again(made: list[Line], gate: asyncio.Event, path: str) -> None:
    """Its pool may hold the request still, and would serve no other."""
    gate.set()
    async with client(made, gate, at_most=1) as http:
        with pytest.raises(httpx.ReadError):
            await http.get(f"{URL}{path}")
        await http.get(URL)
    assert [(line.uses, line.closed) for line in made] == [(1, 1), (1, 1)]


async def test_few_stay_open_and_all_are_closed_at_the_end(made: list[Line], gate: asyncio.Event) -> None:
    """After a rush the rest is closed at once; what is in use when all is closed, when it is given back."""
    many = KEPT_LANES + 7
    http = client(made, gate, at_most=many)
    asking = [asyncio.create_task(http.get(URL)) for _ in range(many)]
    await until(lambda: len(made) == many)
    gate.set()
    await asyncio.gather(*asking)
    assert sum(line.closed for line in made) == 7

    async with http.stream("GET", URL) as late:
        await http.aclose()
        await http.aclose()
        await late.aread()

    assert [line.closed for line in made] == [1] * many
