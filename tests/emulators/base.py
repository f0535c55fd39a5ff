"""
What every emulator of a provider has: a script that tests change while it runs, a record of every byte, a server.

An emulator is an ASGI app on a real socket. Before a route answers it takes its next scripted reply, if there is one.
"""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.prompt_server import PromptServer

Json = dict[str, Any]
BROKEN_OFF = "broken off"
"""The route of requests whose sender was gone before the end of the body: nobody carries them out."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One request, whole; of BROKEN_OFF what came of it."""

    route: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; `slow_s` lies between its first and its last byte, `is_cut` closes the connection in between."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    slow_s: float = 0.0
    is_cut: bool = False


def answer_json(content: object, status: int = 200, **headers: str) -> Answer:
    """Answer with JSON; in the name of a header `_` stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status=status, body=json.dumps(content).encode(), headers={"content-type": "application/json", **named}
    )


class Scripted(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a route does instead of its work, once: `answer` as it stands, or no answer at all.

    `is_done_first` does the work all the same and then answers this: an order that arrives and whose answer is lost.
    """

    answer: Answer | None = None
    is_done_first: bool = False


LOST = Scripted()
"""The connection closes without a byte."""
LOST_AFTER_WORK = Scripted(is_done_first=True)
"""The order is carried out, and nobody hears of it."""
MALFORMED = Scripted(answer=Answer(body=b'{"id": ', headers={"content-type": "application/json"}))
"""JSON that ends too early."""


def limited(after_s: int = 1) -> Scripted:
    """429 with Retry-After."""
    return Scripted(answer=answer_json({"detail": "slow down"}, 429, Retry_After=str(after_s)))


def broken(status: int = 500) -> Scripted:
    """A server error."""
    return Scripted(answer=answer_json({"detail": "broken"}, status))


Work = Callable[..., Awaitable[Answer]]


class Emulator:
    """
    An ASGI app with routes; subclasses fill `routes` with "METHOD /path/{name}" → (name of the route, method).

    Tests set `latency_s`, and push onto `script[route]` what is to happen next there.
    """

    def __init__(self) -> None:
        self.url = ""
        """Where it answers, without a slash at the end; known once it runs."""
        self.seen: list[Seen] = []
        self.script: dict[str, list[Scripted]] = {}
        self.latency_s = 0.0
        self.routes: dict[str, tuple[str, Work]] = {}

    def next(self, route: str, *scripted: Scripted) -> None:
        """Let these happen, one after the other, the next times that a route is asked."""
        self.script.setdefault(route, []).extend(scripted)

    def requests(self, route: str) -> list[Seen]:
        """What a route was asked, oldest first."""
        return [seen for seen in self.seen if seen.route == route]

    @property
    def bytes_seen(self) -> bytes:
        """Every byte that ever came in: request lines, headers, bodies."""
        lines = [f"{s.method} {s.path} {s.query} {s.headers}\n".encode() + s.body for s in self.seen]
        return b"\n".join(lines)

    async def __call__(self, scope: Json, receive: Callable[[], Awaitable[Json]], send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return None
        body, is_whole = await _body(receive)
        if not is_whole:
            self.seen.append(_seen(scope, body, BROKEN_OFF))
            return None
        for pattern, (route, work) in self.routes.items():
            method, _, template = pattern.partition(" ")
            match = _matcher(template).fullmatch(scope["path"])
            if match and method == scope["method"]:
                seen = _seen(scope, body, route)
                self.seen.append(seen)
                answer = await self._answer(seen, work, match.groupdict())
                return await _send(answer, scope["transport"], send)
        self.seen.append(_seen(scope, body, "unknown"))
        return await _send(answer_json({"detail": "not found"}, 404), scope["transport"], send)

    async def _answer(self, seen: Seen, work: Work, found: dict[str, str]) -> Answer:
        await asyncio.sleep(self.latency_s)
        queued = self.script.get(seen.route, [])
        scripted = queued.pop(0) if queued else None
        if scripted is None:
            return await work(seen, **found)
        if scripted.is_done_first:
            await work(seen, **found)
        return scripted.answer or Answer(is_cut=True)


@contextlib.contextmanager
def running(emulator: Emulator, *, port: int = 0) -> Generator[str]:
    """Serve an emulator on loopback, in a thread with a loop of its own; yield its URL."""
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        # asyncio does it for sockets that it makes itself; without, every answer waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        emulator.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = _Server(_config(emulator))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        server.has_started.wait(10)
        try:
            yield emulator.url
        finally:
            server.should_exit = True
            thread.join()


def _config(emulator: Emulator) -> uvicorn.Config:
    return uvicorn.Config(
        app=cast("Any", emulator),
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )


class _Protocol(HttpToolsProtocol):
    """Lets an emulator break the connection off, where uvicorn would answer 500."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cast("Json", self.scope)["transport"] = self.transport


class _Server(PromptServer):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = threading.Event()

    async def main_loop(self) -> None:
        self.has_started.set()
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of everybody at once: who still waits for an answer has no use for it."""
        del sockets
        tasks = list(self.server_state.tasks)
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            cast("_Protocol", connection).transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _body(receive: Callable[[], Awaitable[Json]]) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body), message["type"] == "http.request"


def _seen(scope: Json, body: bytes, route: str) -> Seen:
    return Seen(
        route=route,
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
        headers={name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
    )


def _matcher(template: str) -> re.Pattern[str]:
    # `{name}` is one step of the path, `{name:path}` any number of them.
    escaped = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", template)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", escaped))


async def _send(answer: Answer, transport: asyncio.Transport, send: Any) -> None:
    if answer.is_cut and not answer.body:
        return transport.abort()
    headers = {"content-length": str(len(answer.body)), **answer.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    half = len(answer.body) // 2 if answer.slow_s or answer.is_cut else len(answer.body)
    await send({"type": "http.response.body", "body": answer.body[:half], "more_body": True})
    await asyncio.sleep(answer.slow_s)
    if answer.is_cut:
        return transport.abort()
    await send({"type": "http.response.body", "body": answer.body[half:], "more_body": False})
    return None
