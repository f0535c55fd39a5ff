"""What the end of an HTTP request to a provider means; the provider is a real server on loopback."""

import asyncio
import email.utils
import gc
import gzip
import io
import socket
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpcore
import httpx
import pytest

from broker.forgetting import forget_frames
from providers import calls
from providers.base import Setup
from providers.failures import FailureKind, ProviderFailure
from providers.pinned import unpooled_transport
from tests.emulators.base import LOST, Answer, Emulator, Scripted, Seen, answer_json, running

SECRET = "sk-canary5f0e"
PICTURE = b"\xff\xd8canary-of-a-picture" * 40


class Plain(Emulator):
    """A server that answers what it is told to, and by default with a little JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = {"POST /order": ("order", self.work), "GET /poll": ("poll", self.work)}

    async def work(self, seen: Seen) -> Answer:
        return answer_json({"id": "p1"})

    def answers(self, *answers: Answer) -> None:
        for route in ("order", "poll"):
            self.next(route, *(Scripted(answer=answer) for answer in answers))


@pytest.fixture
def server() -> Iterator[Plain]:
    emulator = Plain()
    with running(emulator):
        yield emulator


@pytest.fixture
async def client(server: Plain) -> AsyncIterator[httpx.AsyncClient]:
    async with make(server.url) as client:
        yield client


def make(url: str, *, timeout_s: float = 5.0) -> httpx.AsyncClient:
    setup = Setup(base_url=url, models={}, secret=SECRET, timeout_s=timeout_s)
    return calls.make_client(setup, headers={"Authorization": f"Bearer {SECRET}"})


async def order(client: httpx.AsyncClient, *, within_s: float = 0.0) -> calls.Reply:
    return await calls.order(client, "POST", "/order", within_s=within_s, content=PICTURE)


async def failed_order(client: httpx.AsyncClient, *, within_s: float = 0.0) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await order(client, within_s=within_s)
    return caught.value


async def failed_ask(client: httpx.AsyncClient, url: str = "/poll", *, within_s: float = 0.0) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await calls.ask(client, "GET", url, within_s=within_s)
    return caught.value


async def test_an_answer_is_read_whole(server: Plain, client: httpx.AsyncClient) -> None:
    """Whatever its status: what that means is said by whoever asked."""
    server.answers(answer_json({"id": "p1"}, 201), answer_json({"detail": "no"}, 422), Answer(status=302))
    found = [await order(client) for _ in range(3)]
    assert [(reply.status, reply.is_ok) for reply in found] == [(201, True), (422, False), (302, False)]
    assert (found[0].json(), found[1].json(), found[2].json()) == ({"id": "p1"}, {"detail": "no"}, None)


async def test_who_is_not_reached_got_nothing() -> None:
    """No connection: nothing of the task has left, so that no copy can be there and another may be asked at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with make(f"http://127.0.0.1:{port}") as client:
        failure = await failed_order(client)
        asked = await failed_ask(client)
    assert (failure.kind, failure.is_unsent) == (FailureKind.NETWORK, True)
    assert (asked.kind, asked.is_unsent) == (FailureKind.NETWORK, True)


async def test_who_does_not_even_connect_got_nothing_in_a_short_time_too() -> None:
    """A host that swallows packets is told from an order without an answer, however little time there is."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        async with make(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            failure = await failed_order(client, within_s=0.4)
    assert (failure.kind, failure.is_unsent) == (FailureKind.NETWORK, True)


async def test_a_url_that_is_none_got_nothing(client: httpx.AsyncClient) -> None:
    """What cannot be asked was not asked; a provider may hand out any address, and adapters raise one error alone."""
    for url in ("http://[::1", "http://host:port/", "ftp://127.0.0.1/x"):
        failure = await failed_ask(client, url)
        assert (failure.kind, failure.is_unsent) == (FailureKind.NETWORK, True), url


async def test_an_order_without_an_answer_is_uncertain(server: Plain, client: httpx.AsyncClient) -> None:
    """It may be done, and paid for; a question without an answer says nothing."""
    server.next("order", LOST)
    server.next("poll", LOST)
    failure, asked = await failed_order(client), await failed_ask(client)
    assert (failure.kind, failure.is_unsent) == (FailureKind.UNCERTAIN, False)
    assert (asked.kind, asked.is_unsent) == (FailureKind.NETWORK, False)
    assert len(server.seen) == 2, "nothing is repeated here"


async def test_half_an_answer_is_no_answer(server: Plain, client: httpx.AsyncClient) -> None:
    """A connection that breaks in the middle of an answer leaves the order uncertain."""
    server.answers(Answer(body=b'{"id": "p1", "more": 1}', is_cut=True))
    assert (await failed_order(client)).kind is FailureKind.UNCERTAIN
    assert (await failed_ask(client)).kind is FailureKind.NETWORK


async def test_time_is_bounded(server: Plain) -> None:
    """A slow start and a slow body both end in time; the order may be under way over there."""
    async with make(server.url, timeout_s=0.2) as client:
        server.latency_s = 1.0
        assert (await failed_order(client)).kind is FailureKind.UNCERTAIN
        assert (await failed_ask(client)).kind is FailureKind.NETWORK
        assert (await order(client, within_s=5)).is_ok, "an order that is answered late may have a time of its own"
        server.latency_s = 0.0
        server.answers(Answer(body=b"x" * 100, slow_s=1.0))
        assert (await failed_ask(client, within_s=0.3)).kind is FailureKind.NETWORK
        assert (await failed_order(client, within_s=0.3)).kind is FailureKind.UNCERTAIN


async def test_a_trickle_does_not_outlast_the_whole_time() -> None:
    """`within_s` is a bound on all of it, not on the gap between two bytes."""

    ended = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        ended.set()

    trickling = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with trickling, make(f"http://127.0.0.1:{trickling.sockets[0].getsockname()[1]}") as client:
        began_s = time.monotonic()
        failure = await failed_ask(client, within_s=0.5)
        took_s = time.monotonic() - began_s
        await asyncio.wait_for(ended.wait(), 10)
    assert failure.kind is FailureKind.NETWORK
    assert took_s < 3


async def test_an_answer_without_end_is_cut_off(
    server: Plain, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded whatever a provider sends; asking again would bring the same, so that it is no lost answer."""
    monkeypatch.setattr(calls, "MAX_REPLY_BYTES", 1000)
    server.answers(*[Answer(body=b"x" * length) for length in (1000, 1001)])
    assert (await order(client)).is_ok
    assert (await calls.ask(client, "GET", "/poll")).is_ok
    for failure in (await failed_order(client), await failed_ask(client)):
        assert (failure.kind, failure.detail) == (FailureKind.BAD_OUTPUT, "answer_too_long")
        assert not failure.is_unsent


@pytest.mark.parametrize("coding", ["gzip, gzip", "zstd", "br"])
async def test_an_answer_that_may_unfold_without_end_is_not_read(
    server: Plain, client: httpx.AsyncClient, coding: str
) -> None:
    """Of codings in each other a few bytes make gigabytes before their length is known; one is undone."""
    plain = bytes(1 << 20)
    twice = gzip.compress(gzip.compress(plain))
    server.answers(
        Answer(body=gzip.compress(plain), headers={"content-encoding": "gzip"}),
        Answer(body=twice, headers={"content-encoding": coding}),
    )
    assert (await calls.ask(client, "GET", "/poll")).body == plain
    failure = await failed_ask(client)
    assert (failure.kind, failure.detail) == (FailureKind.BAD_OUTPUT, "answer_encoded")


async def test_a_connection_that_was_closed_meanwhile_costs_no_order() -> None:
    """A provider that restarts, or closes what is idle, is connected to again: its next order is not uncertain."""
    first = Plain()
    with running(first):
        port = int(first.url.rpartition(":")[2])
        client = make(first.url)
        assert (await order(client)).is_ok
    with running(Plain(), port=port):
        assert (await order(client)).is_ok
        await client.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: Plain, client: httpx.AsyncClient, status: int) -> None:
    """They would take the picture and the credentials along, wherever they lead."""
    with running(Plain()) as elsewhere:
        server.answers(Answer(status=status, headers={"location": f"{elsewhere}/order"}))
        reply = await order(client)
    assert (reply.status, calls.kind_of(reply.status)) == (status, FailureKind.PROVIDER_ERROR)
    assert [seen.path for seen in server.seen] == ["/order"]


async def test_nothing_of_this_machine_is_used(server: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no .netrc: where pictures go is written in lethe.toml alone."""
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with calls.make_client(Setup(base_url=server.url, models={})) as client:
        assert (await order(client)).is_ok
    (seen,) = server.seen
    assert "authorization" not in seen.headers
    assert seen.headers["user-agent"] == "lethe"
    assert not any(name.startswith("x-") or name in {"cookie", "referer", "origin"} for name in seen.headers)


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("https://api.example/v1/p1", True),
        ("https://API.example:443/other?x=1", True),
        ("http://api.example/v1/p1", False),
        ("https://api.example:8443/v1", False),
        ("https://api.example.evil.example/v1", False),
        ("https://evil.example/api.example", False),
        ("https://api.example@evil.example/", False),
        ("https://user:pw@api.example/", False),
        ("https://api.example\\@evil.example/", False),
        ("//api.example/v1", False),
        ("/v1/p1", False),
        ("", False),
        ("https://[::1", False),
        ("https://api.example:port/", False),
    ],
)
def test_credentials_go_to_the_provider_alone(url: str, is_own: bool) -> None:
    """A URL that a provider gave is asked with our key only where scheme, host and port are those of its base URL."""
    assert calls.same_host(url, "https://api.example/v1") is is_own


async def test_failures_hold_nothing(server: Plain, client: httpx.AsyncClient) -> None:
    """Neither the message nor whatever hangs on the exception has the picture, the key or a URL."""
    server.next("order", LOST)
    failure = await failed_order(client)
    gc.collect()
    held = repr(vars(failure)) + str(failure) + repr(failure.__cause__)
    assert server.url not in held
    assert SECRET not in held
    context = failure.__context__
    assert isinstance(context, httpx.HTTPError)
    assert "_request" not in vars(context)


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "9" * 5000}, 3600.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": email.utils.formatdate(time.time() - 60, usegmt=True)}, 0.0),
        ({"retry-after": email.utils.formatdate(time.time() + 86_400, usegmt=True)}, 3600.0),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "9" * 5000}, 3600.0),
    ],
)
async def test_retry_after_in_every_form(
    server: Plain, client: httpx.AsyncClient, headers: dict[str, str], after_s: float | None
) -> None:
    """Seconds, milliseconds or a date, an hour at most; what cannot be read is none."""
    server.answers(Answer(status=429, headers=headers))
    reply = await order(client)
    assert reply.after_s() == after_s
    failure = calls.refused(reply)
    assert (failure.kind, failure.after_s) == (FailureKind.RATE_LIMITED, after_s)


async def test_retry_after_as_a_date_is_a_time_from_now(server: Plain, client: httpx.AsyncClient) -> None:
    """A date that lies a minute ahead is about a minute, whatever the time zone here."""
    server.answers(Answer(status=503, headers={"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}))
    assert (await order(client)).after_s() == pytest.approx(60, abs=3)


class Held(io.BytesIO):
    """A picture of which it can be seen whether anybody still holds it."""


@pytest.mark.parametrize(
    "answer", [answer_json({"id": "p1"}), answer_json({}, 422), Answer(body=b"{" * 50, is_cut=True)]
)
async def test_a_picture_is_let_go_of_when_its_order_has_ended(
    server: Plain, client: httpx.AsyncClient, answer: Answer
) -> None:
    """Answered, refused or broken off: nothing holds the body any more, and no collector has to come by for that."""
    server.answers(answer)
    picture = Held(PICTURE)
    held = weakref.ref(picture)
    gc.collect()
    gc.disable()
    try:
        with suppress(ProviderFailure):
            await calls.order(client, "POST", "/order", files={"image": ("image", picture)})
        del picture
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("turns", [None, 0, 1, 2, 3])
async def test_a_picture_is_let_go_of_wherever_its_order_is_stopped(
    server: Plain, client: httpx.AsyncClient, turns: int | None
) -> None:
    """Before it is sent, under way, within its answer, and while the connection is being closed for it."""
    slow = Answer(body=b"{}" * 50, slow_s=0.01)
    gc.collect()
    gc.disable()
    try:
        for step in range(100):
            server.answers(slow)
            picture = Held(PICTURE)
            held = weakref.ref(picture)
            ordering = asyncio.create_task(calls.order(client, "POST", "/order", files={"image": ("image", picture)}))
            await asyncio.sleep(step * 0.0002)
            ordering.cancel()
            if turns is not None:  # told twice
                for _ in range(turns):
                    await asyncio.sleep(0)
                ordering.cancel()
            try:
                await ordering
            except (asyncio.CancelledError, ProviderFailure) as exc:
                forget_frames(exc)  # as the worker does
            del picture, ordering
            assert held() is None, step
    finally:
        gc.enable()
    server.script.clear()
    replies = await asyncio.gather(*(order(client) for _ in range(10)))
    assert all(reply.is_ok for reply in replies), "no connection was left half-way"


async def test_what_a_stopped_question_asked_is_forgotten(server: Plain) -> None:
    """Also where no connection is kept: nothing of it, such as the URL of an output, stays with its transport."""
    gc.collect()
    gc.disable()
    try:
        async with httpx.AsyncClient(transport=unpooled_transport(), base_url=server.url) as client:
            for step in range(200):
                asking = asyncio.create_task(calls.ask(client, "GET", "/poll"))
                await asyncio.sleep(step * 0.00005)
                asking.cancel()
                try:
                    await asking
                except (asyncio.CancelledError, ProviderFailure) as exc:
                    forget_frames(exc)
                del asking
            assert not [one for one in gc.get_objects() if isinstance(one, httpcore.Request)]
    finally:
        gc.enable()
