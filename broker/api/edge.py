"""The outermost layer: request ids, one log line per request, default headers, and bodies of refused uploads."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import structlog
from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, ReceiveMessage, Scope, Send
from structlog.contextvars import bound_contextvars

log = structlog.get_logger()

DISCARD_WITHIN_S = 2.0
LINGER_S = 1.0

BREACH = "breach"
"""Where a request's state says which breach its user has not seen yet."""
_DEFAULTS = ((b"cache-control", b"private, no-store"), (b"x-content-type-options", b"nosniff"))


class Edge:
    """
    Wraps an application, and gives each request what its handlers are given.

    What it logs is a route's template, a method, a status and a duration.
    """

    def __init__(self, app: ASGIApp, *, given: Mapping[str, object], max_discard_bytes: int) -> None:
        self._app = app
        self._given = given
        self._max_discard_bytes = max_discard_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        cast("dict[str, Any]", scope).setdefault("state", {}).update(self._given)
        exchange = _Exchange(scope, receive, send, request_id=request_id, max_discard_bytes=self._max_discard_bytes)
        before_s = time.monotonic()
        with bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                template = scope.get("path_template")
                log.info(
                    "request_served",
                    method=scope["method"],
                    status=exchange.status,
                    duration_ms=round((time.monotonic() - before_s) * 1000, 1),
                    **({"route": template} if template else {}),
                )


class _Exchange:
    """One request and its answer on their way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str, max_discard_bytes: int) -> None:
        headers = dict(scope["headers"])
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_id = request_id.encode()
        self._max_discard_bytes = max_discard_bytes
        self._expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self._is_read = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._taken_bytes = 0
        self.status = 0

    async def receive(self) -> ReceiveMessage:
        """Hand on a message, and note whether more of the body is to come."""
        message = await self._receive()
        self._expects_continue = False
        if message["type"] == "http.disconnect":
            self._is_read = True
        elif message["type"] == "http.request":
            self._taken_bytes += len(message.get("body", b""))
            self._is_read = self._is_read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Hand on a message; the start of an answer gets its headers, and an early refusal lingers before it closes."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            # A phone that is refused while it still sends never reads the answer, and sends the upload again for ever.
            await self._discard(within_s=DISCARD_WITHIN_S)
            message = self._with_headers(message)
        elif message["type"] == "http.response.body" and self._is_early and not message["more_body"]:
            # The whole answer is out, and the connection is closed once its sender has had time to read it.
            await self._send({**message, "more_body": True})
            await self._discard(within_s=LINGER_S)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    @property
    def _is_early(self) -> bool:
        return self.status >= HTTPStatus.BAD_REQUEST and not self._is_read

    async def _discard(self, *, within_s: float) -> None:
        if not self._is_early or self._expects_continue:
            return
        enough_bytes = self._taken_bytes + self._max_discard_bytes
        try:
            async with asyncio.timeout(within_s):
                while not self._is_read and self._taken_bytes < enough_bytes:
                    await self.receive()
        except TimeoutError:
            return

    def _with_headers(self, message: HTTPResponseStartEvent) -> HTTPResponseStartEvent:
        headers = [*message["headers"], (b"x-request-id", self._request_id)]
        state: dict[str, object] = cast("Any", self._scope).get("state", {})
        if BREACH in state:  # it concerns whoever asks, and the app has not shown it yet
            headers.append((b"lethe-breach", str(state[BREACH]).encode()))
        present = {name.lower() for name, _ in headers}
        headers += [default for default in _DEFAULTS if default[0] not in present]
        if self._is_early:
            headers.append((b"connection", b"close"))
        return {**message, "headers": headers}
