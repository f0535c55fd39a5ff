"""uvicorn's HTTP protocol with bounds on what is no body, and our words for requests that are no HTTP."""

import asyncio
import resource
import secrets
from typing import cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.api.problems import FRAMEWORK_CODES, MEDIA_TYPE, Problem, type_of

MAX_HEAD_BYTES = 65_536
HEAD_WITHIN_S = 20.0
_MOST_DESCRIPTORS = 65_536
_RESERVED_DESCRIPTORS = 256


def widen_descriptors() -> None:
    """Let this process open as many descriptors as it is allowed to: a shell's usual 1024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_DESCRIPTORS)), hard))


def most_connections() -> int:
    """Say how many connections a listener may have, so that stores and blobs never lack a descriptor."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(soft - _RESERVED_DESCRIPTORS, soft // 2)


class HeadTooLarge(Exception):
    """Address and headers are longer than any client of ours needs."""


class ProblemProtocol(HttpToolsProtocol):
    """
    Answers what the parser refuses with a problem, and cuts off what never becomes a request.

    The parser itself keeps a head, a trailer or a chunk's extension of any length, and waits for its end for ever.
    """

    _is_fruitful = False
    _is_in_body = False
    _barren_bytes = 0
    """Received since the last head was whole or the last part of a body came."""
    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request, not for ever; one connection too many is closed again at once."""
        self._unanswered: list[RequestResponseCycle] = []
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            # Without a descriptor left nothing can be accepted, and asyncio says so two thousand times a second.
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_awaiting()
        super().connection_lost(exc)
        _let_go(self._unanswered)

    def data_received(self, data: bytes) -> None:
        """Parse, and close when too much has come that belongs to no body."""
        self._is_fruitful = False
        super().data_received(data)
        self._barren_bytes = 0 if self._is_fruitful else self._barren_bytes + len(data)
        if self.transport.is_closing():
            return
        if self._barren_bytes > MAX_HEAD_BYTES:
            self.send_400_response("")
        elif self._served is None:
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header; what follows a body is dropped, as the request may have been judged already."""
        if not self._is_in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to serve the request, unless its head is too large."""
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            raise HeadTooLarge  # the parser makes its own error of it
        self._stop_awaiting()
        self._is_fruitful = self._is_in_body = True
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        self._is_fruitful = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next head."""
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Be ready for the next request, and hold nothing of this one."""
        _let_go([cycle for cycle in self._unanswered if cycle.response_complete])
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse and close; `msg` is the server's own and says nothing to a client."""
        del msg
        if self._served is not None and self._served.response_started:
            self.transport.abort()  # an answer in the middle of another would be read as a part of it
            return
        code, title = FRAMEWORK_CODES[400]
        request_id = secrets.token_hex(8)
        problem = Problem(
            type=type_of(code),
            title=title,
            status=400,
            detail="This is no HTTP request that can be read in one way only.",
            instance=f"urn:lethe:request:{request_id}",
            code=code,
        )
        body = msgspec.json.encode(problem)
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @property
    def _served(self) -> RequestResponseCycle | None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # its type knows no time before the first request
        return None if cycle is None or cycle.response_complete else cycle

    def _await_head(self) -> None:
        if self._head_due is None:
            self._head_due = asyncio.get_running_loop().call_later(HEAD_WITHIN_S, self.transport.abort)

    def _stop_awaiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


def _let_go(cycles: list[RequestResponseCycle]) -> None:
    """Drop what nobody has read of bodies: until the cycle collector comes by, a connection keeps it, closed or not."""
    for cycle in cycles:
        cycle.body = bytearray()
